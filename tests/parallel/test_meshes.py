"""One run on any mesh of virtual devices: the same losses and parameters, each device with its own part of them."""

import dataclasses
import os
import random
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, OptimSettings, TrainSettings
from jaxlm.data.tokenizer import SPECIAL_TOKENS
from jaxlm.errors import UserError
from jaxlm.parallel.collectives import collectives
from jaxlm.parallel.mesh import mesh_for, put_batch
from jaxlm.training.checkpoint import Checkpoints
from jaxlm.training.setup import Setup, set_up
from jaxlm.training.step import State

# (data, fsdp, tensor); data is what the others leave.
MESHES = {"1": (1, 1, 1), "8x1x1": (8, 1, 1), "2x2x2": (8, 2, 2), "1x8x1": (8, 8, 1), "1x1x8": (8, 1, 8)}
STEPS = 20
DIVIDED, UNDIVIDED = 96, 97  # vocabularies that 8 divides, and does not


def make_config(folder: Path, task: str, vocabulary: int) -> Config:
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    tokens += [f"[unused{number}]" for number in range(vocabulary - len(tokens))]
    directory = folder / f"tokenizer-{vocabulary}"
    directory.mkdir(exist_ok=True)
    (directory / "vocab.txt").write_text("".join(f"{token}\n" for token in tokens))
    draw = random.Random(0)
    texts = [" ".join(draw.choices(letters, k=draw.randint(2, 12))) for _ in range(96)]
    path = folder / "train.tsv"
    path.write_text("".join(f"{text}\t{int('e' in text)}\n" for text in texts))
    if task == "masked_lm":
        path = folder / "train.txt"
        path.write_text("\n".join(texts) + "\n")
    return Config(
        task=task,
        model=ModelSettings(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=8, intermediate_size=64,
            max_position_embeddings=16, initializer_range=0.1, hidden_dropout=0.1, attention_dropout=0.1,
        ),
        data=DataSettings(train=str(path), max_length=16, row_length=16, tokenizer=str(directory)),
        train=TrainSettings(steps=STEPS, batch_size=24),
        optim=OptimSettings(learning_rate=3e-3, warmup=0.1),
    )  # fmt: skip


def on(config: Config, mesh: tuple[int, int, int]) -> Setup:
    settings = MeshSettings(devices=mesh[0], fsdp=mesh[1], tensor=mesh[2])
    config = dataclasses.replace(config, mesh=settings)
    return set_up(config, mesh_for(settings))


class Programs:
    """The training steps of a config by mesh, each compiled once, and what the compiler said to standard error."""

    def __init__(self, config: Config, folder: Path):
        self._config, self._folder = config, folder
        self._made: dict[str, tuple[Setup, jax.stages.Compiled, str]] = {}

    def __call__(self, mesh: str) -> tuple[Setup, jax.stages.Compiled, str]:
        if mesh not in self._made:
            setup = on(self._config, MESHES[mesh])
            with open(self._folder / mesh, "w+") as said:
                kept = os.dup(2)
                os.dup2(said.fileno(), 2)  # XLA writes there past Python
                try:
                    jax.config.update("jax_enable_compilation_cache", False)  # what is read back says nothing
                    compiled = setup.compile_train_step()
                finally:
                    jax.config.update("jax_enable_compilation_cache", True)
                    os.dup2(kept, 2)
                    os.close(kept)
                said.seek(0)
                self._made[mesh] = setup, compiled, said.read()
        return self._made[mesh]

    def run(
        self, mesh: str, state: State | None = None, first: int = 0, steps: int = STEPS
    ) -> tuple[list[float], State]:
        setup, step, _ = self(mesh)
        state = setup.initial_state() if state is None else state
        losses = []
        for number in range(first, steps):
            state, metrics = step(state, put_batch(setup.batches["train"](number), setup.mesh))
            losses.append(float(metrics["loss"]))
        return losses, state

    def exchange(self, mesh: str) -> dict[tuple[str, tuple[str, ...]], list[int]]:
        """Bytes of the collectives by kind and axes."""
        setup, compiled, _ = self(mesh)
        found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for item in collectives(compiled.as_text() or "", setup.mesh.shape):
            found.setdefault((item.kind, item.axes), []).append(item.bytes)
        return found


def whole(state: State) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path): np.asarray(value)
        for path, value in jax.tree_util.tree_flatten_with_path(state["params"])[0]
    }


@pytest.fixture(scope="module", params=[("classification", UNDIVIDED), ("masked_lm", DIVIDED)], ids=lambda p: p[0])
def config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_config(tmp_path_factory.mktemp("meshes"), *request.param)


@pytest.fixture(scope="module")
def programs(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Programs:
    return Programs(config, tmp_path_factory.mktemp("said"))


@pytest.fixture(scope="module")
def alone(programs: Programs) -> tuple[list[float], dict[str, np.ndarray]]:
    losses, state = programs.run("1")
    assert losses[-1] < losses[0]
    return losses, whole(state)


@pytest.mark.parametrize("mesh", list(MESHES)[1:])
def test_a_run_is_the_same_on_any_mesh(programs: Programs, alone: Any, mesh: str) -> None:
    """To 1e-4 of the losses. Adam divides a gradient by its own size: rounding in one that is nearly 0 may turn a step
    around, so parameters agree to a twentieth of the largest way that 20 steps can take them."""
    losses, state = programs.run(mesh)
    np.testing.assert_allclose(losses, alone[0], rtol=1e-4)
    for name, value in whole(state).items():
        np.testing.assert_allclose(value, alone[1][name], atol=STEPS * 3e-3 / 20, err_msg=name)


def test_micro_batches_change_nothing_on_a_mesh(config: Config, alone: Any, tmp_path: Path) -> None:
    halves = dataclasses.replace(config, train=dataclasses.replace(config.train, micro_batches=2))
    losses, _ = Programs(halves, tmp_path).run("2x2x2")
    np.testing.assert_allclose(losses, alone[0], rtol=1e-4)


@pytest.mark.parametrize("mesh", ["2x2x2", "1x8x1", "1x1x8"])
def test_state_is_born_split(programs: Programs, mesh: str) -> None:
    """Kernels and word embeddings are whole on no device, nor are their moments."""
    split = 0
    for path, leaf in jax.tree_util.tree_flatten_with_path(programs(mesh)[0].initial_state())[0]:
        name = jax.tree_util.keystr(path)
        sizes = {shard.data.size for shard in leaf.addressable_shards}
        assert sizes == {np.prod(leaf.sharding.shard_shape(leaf.shape))}
        if "qkv_kernel" in name or ("feed_forward" in name and "kernel" in name) or "['word']" in name:
            assert max(sizes) * 4 <= leaf.size, name
            split += 1
    assert split == 3 * (2 * 3 + 1)  # parameters and two moments, of two layers and the words


def test_a_checkpoint_moves_between_meshes(programs: Programs, alone: Any, tmp_path: Path) -> None:
    losses, state = programs.run("2x2x2", steps=8)
    checkpoints = Checkpoints(tmp_path, larger_is_better=False)
    checkpoints.save(8, state, {})
    checkpoints.wait()
    for first, mesh in ((8, "1x8x1"), (12, "1x1x8")):
        state, _ = checkpoints.restore(first, programs(mesh)[0].abstract_state())
        more, state = programs.run(mesh, state, first=first, steps=first + 4)
        losses += more
        checkpoints.save(first + 4, state, {})
        checkpoints.wait()
    checkpoints.close()
    np.testing.assert_allclose(losses, alone[0][:16], rtol=1e-4)


def test_along_data_gradients_are_added_up_and_nothing_else(config: Config, programs: Programs) -> None:
    """Of words that the decoder shares, twice: what comes from below and what comes from above."""
    found = programs.exchange("8x1x1")
    assert set(found) == {("all-reduce", ("data",))}
    gradients = sum(leaf.size * 4 for leaf in jax.tree.leaves(programs("8x1x1")[0].abstract_state()["params"]))
    shared = DIVIDED * 32 * 4 if config.task == "masked_lm" else 0
    assert gradients + shared <= sum(found["all-reduce", ("data",)]) <= gradients + shared + 64


def test_along_fsdp_parameters_are_gathered_and_no_activations(programs: Programs) -> None:
    found = programs.exchange("1x8x1")
    assert {axes for _, axes in found} == {("fsdp",)}
    params = programs("1x8x1")[0].abstract_state()["params"]
    assert max(found["all-gather", ("fsdp",)]) <= max(leaf.size * 4 for leaf in jax.tree.leaves(params))


def test_along_tensor_no_table_of_words_is_gathered_and_no_logits(config: Config, programs: Programs) -> None:
    """What goes around are activations; a vocabulary that `tensor` does not divide is split by its vectors instead,
    whose parts are gathered."""
    found = programs.exchange("1x1x8")
    assert {axes for _, axes in found} == {("tensor",)}
    gathered = found.get(("all-gather", ("tensor",)), [])
    assert (max(gathered, default=0) >= UNDIVIDED * 32 * 4) == (config.task == "classification")


@pytest.mark.parametrize("mesh", list(MESHES))
def test_the_partitioner_never_gives_up(programs: Programs, mesh: str) -> None:
    """It says "involuntary full rematerialization" where it knows no way from one layout to another."""
    assert "rematerialization" not in programs(mesh)[2]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fsdp": 3}, "--mesh.fsdp 3 x --mesh.tensor 1 is 3; there are 8 devices, not a multiple of it"),
        ({"devices": 16}, "--mesh.devices is 16; there are 8"),
        ({"fsdp": 0}, "--mesh.fsdp is 0; it must be at least 1"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(settings: dict[str, int], reason: str) -> None:
    with pytest.raises(UserError) as error:
        mesh_for(MeshSettings(**settings))
    assert reason in str(error.value)


def test_a_model_whose_heads_cannot_be_shared_is_refused(config: Config) -> None:
    six = dataclasses.replace(config, model=dataclasses.replace(config.model, hidden_size=24, num_attention_heads=6))
    with pytest.raises(UserError, match=r"--mesh\.tensor is 4; it must divide the model's 6 attention heads"):
        on(six, (8, 1, 4))
