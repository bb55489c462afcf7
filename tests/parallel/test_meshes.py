"""One run on any mesh of virtual devices: the same losses and parameters, each device with its own part of them."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxlm.parallel.collectives import collectives
from jaxlm.training.checkpoint import Checkpoints
from jaxlm.training.step import State

from .programs import LENGTH, RUNS, SMALL, WIDTH, Programs, make_config, whole

CASES = [(run, mesh) for run in ("classification", "masked_lm") for mesh in ("8x1x1", "2x2x2", "1x8x1", "1x1x8")]
CASES += [("masked_lm_undivided", "2x2x2"), ("masked_lm_undivided", "1x1x8"), ("masked_lm", "slices")]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Programs]:
    @functools.cache
    def of(run: str) -> Programs:
        return Programs(make_config(tmp_path_factory.mktemp(run), *RUNS[run]), tmp_path_factory.mktemp("said"))

    return of


def assert_same_run(found: tuple[list[float], State], alone: tuple[list[float], dict[str, np.ndarray]]) -> None:
    """To 5e-6 of the losses, and 2e-5 in each parameter, of which 20 steps move the most by 6e-2."""
    np.testing.assert_allclose(found[0], alone[0], rtol=5e-6)
    for name, value in whole(found[1]).items():
        np.testing.assert_allclose(value, alone[1][name], rtol=0, atol=2e-5, err_msg=name)


@pytest.mark.parametrize(("run", "mesh"), CASES)
def test_a_run_of_packed_rows_with_dropout_is_the_same_on_any_mesh(
    programs: Callable[[str], Programs], run: str, mesh: str
) -> None:
    batch = programs(run)(mesh)[0].batches["train"](0)
    assert batch["segment_ids"].max() > 1
    assert_same_run(programs(run).run(mesh), programs(run).alone)


@pytest.mark.parametrize(
    ("run", "mesh"),
    [("classification", "8x1x1"), ("classification", "2x2x2"), ("masked_lm", "2x2x2"), ("masked_lm_undivided", "2x2x2"),
     ("masked_lm", "slices"), ("masked_lm", "1x8x1")],
)  # fmt: skip
def test_micro_batches_change_nothing_and_along_data_their_gradients_go_once(
    programs: Callable[[str], Programs], run: str, mesh: str, tmp_path: Path
) -> None:
    """Along fsdp each adds up its own, so that no device ever holds a whole gradient."""
    config = programs(run).config
    halves = Programs(dataclasses.replace(config, train=dataclasses.replace(config.train, micro_batches=2)), tmp_path)
    assert_same_run(halves.run(mesh, programs(run).start(mesh)), programs(run).alone)
    setup, compiled, _ = halves(mesh)
    found = collectives(compiled.as_text() or "", setup.mesh.shape)
    apart = [item for item in found if {"data", "replica"} & set(item.axes)]
    assert {item.times for item in apart if item.bytes > SMALL} == (set() if mesh == "1x8x1" else {1})
    assert sum(item.sent for item in apart) <= 2 * programs(run).gradients(mesh) + SMALL
    if setup.mesh.shape["fsdp"] > 1:
        assert 2 in {item.times for item in found if "fsdp" in item.axes and item.bytes > SMALL}


@pytest.mark.parametrize("mesh", ["2x2x2", "1x8x1", "1x1x8"])
def test_state_is_born_split_and_the_same(programs: Callable[[str], Programs], mesh: str) -> None:
    """Kernels and word embeddings are whole on no device, nor are their moments."""
    split = 0
    state = programs("classification")(mesh)[0].initial_state()
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path)
        sizes = {shard.data.size for shard in leaf.addressable_shards}
        assert sizes == {np.prod(leaf.sharding.shard_shape(leaf.shape))}
        if "qkv_kernel" in name or ("feed_forward" in name and "kernel" in name) or "['word']" in name:
            assert max(sizes) * 4 <= leaf.size, name
            split += 1
    assert split == 3 * (2 * 3 + 1)  # parameters and two moments, of two layers and the words
    alone = programs("classification").start("1")
    for ours, theirs in zip(jax.tree.leaves(state), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)  # the same draw, rounded as each program is compiled


def test_a_checkpoint_moves_between_meshes(programs: Callable[[str], Programs], tmp_path: Path) -> None:
    """And the model written of it is the same, byte for byte."""
    made = programs("masked_lm")
    losses, state = made.run("2x2x2", steps=8)
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(8, state, {})
    checkpoints.wait()
    for first, mesh in ((8, "1"), (12, "1x8x1")):
        setup = made(mesh)[0]
        restored, _ = checkpoints.restore(first, setup.abstract_state())
        jax.tree.map(np.testing.assert_array_equal, restored, state)
        for name, params in ((f"from-{first}", state["params"]), (f"to-{first}", restored["params"])):
            setup.task.model_class.save_params(tmp_path / name, setup.bert_config, params)
        for file in sorted(path.name for path in (tmp_path / f"from-{first}").iterdir()):
            assert (tmp_path / f"from-{first}" / file).read_bytes() == (tmp_path / f"to-{first}" / file).read_bytes()
        more, state = made.run(mesh, restored, first=first, steps=first + 4)
        losses += more
        checkpoints.save(first + 4, state, {})
        checkpoints.wait()
    checkpoints.close()
    np.testing.assert_allclose(losses, made.alone[0][:16], rtol=5e-6)


# What goes between the devices. Counted in bytes, as XLA joins small collectives to others as it likes.


@pytest.mark.parametrize(
    ("run", "mesh", "axis"),
    [
        ("classification", "8x1x1", "data"),
        ("masked_lm", "8x1x1", "data"),
        ("classification", "2x2x2", "data"),
        ("masked_lm", "2x2x2", "data"),
        ("masked_lm_undivided", "2x2x2", "data"),
        ("masked_lm", "slices", "replica"),
    ],
)
def test_along_data_and_between_slices_gradients_are_added_up_and_nothing_else(
    programs: Callable[[str], Programs], run: str, mesh: str, axis: str
) -> None:
    found = {key: sizes for key, sizes in programs(run).exchange(mesh).items() if axis in key[1]}
    assert {kind for kind, _ in found} == {"all-reduce"}
    gradients, sent = programs(run).gradients(mesh), sum(map(sum, found.values()))
    assert sent <= gradients + SMALL  # of those that fsdp splits, a device has but its part to send on
    if mesh == "8x1x1":
        assert set(found) == {("all-reduce", ("data",))}
        assert sent >= gradients


@pytest.mark.parametrize(
    ("run", "mesh"),
    [("classification", "1x8x1"), ("masked_lm", "1x8x1"), ("classification", "2x2x2"), ("masked_lm", "2x2x2"),
     ("masked_lm_undivided", "2x2x2"), ("masked_lm", "slices")],
)  # fmt: skip
def test_along_fsdp_each_parameter_is_gathered_once_and_each_gradient_added_up_once(
    programs: Callable[[str], Programs], run: str, mesh: str
) -> None:
    """And no activation. A CPU's compiler keeps what is gathered for the way back, and takes an all-reduce and a slice
    for a reduce-scatter. A gradient that `tensor` need not split (of a pooler, or of the decoder's transform) it may
    split all the same, and then hands the parts on."""
    found = programs(run).exchange(mesh)
    gathered = [sizes for (kind, axes), sizes in found.items() if kind == "all-gather" and "fsdp" in axes]
    assert ("all-gather", ("fsdp",)) in found
    assert sum(map(sum, gathered)) == sum(of_all for held, of_all in programs(run).parameters(mesh) if held < of_all)
    reduced = sum(sum(sizes) for (kind, axes), sizes in found.items() if kind == "all-reduce" and "fsdp" in axes)
    handed_on = sum(found.get(("collective-permute", ("fsdp", "tensor")), []))
    assert abs(reduced + handed_on - programs(run).gradients(mesh)) <= SMALL
    assert handed_on <= WIDTH * WIDTH * 4
    if mesh == "1x8x1":
        assert set(found) == {("all-gather", ("fsdp",)), ("all-reduce", ("fsdp",))}


@pytest.mark.parametrize(
    ("run", "mesh"),
    [(run, mesh) for run in RUNS for mesh in ("1x1x8", "2x2x2")] + [("masked_lm", "slices")],
)
def test_along_tensor_activations_are_added_up_and_no_logits_or_words_gathered(
    programs: Callable[[str], Programs], run: str, mesh: str
) -> None:
    """Two sums a layer forward and two backward (Shoeybi et al. 2019, section 3), where the last layer takes but the
    tokens that are asked for; one of the words; of the decoder one backward and three numbers a token.

    A vocabulary that `tensor` does not divide is split by its vectors instead, whose parts are gathered for the tokens
    of the batch; for the decoder the parts of the table change hands, each device ending up with its share.
    """
    setup, found = programs(run)(mesh)[0], programs(run).exchange(mesh)
    tensor, predicts = setup.mesh.shape["tensor"], setup.config.task == "masked_lm"
    batch = setup.batch_shapes()
    rows = len(batch["input_ids"]) * tensor // setup.mesh.size if mesh != "1x1x8" else len(batch["input_ids"])
    asked = rows * batch["predict_positions" if predicts else "pool_positions"].shape[1]
    activations, undivided = rows * LENGTH * WIDTH * 4, setup.bert_config.vocab_size % tensor > 0
    words = -(-setup.bert_config.vocab_size // tensor)  # of a device

    layers = 4 * (setup.bert_config.num_hidden_layers - 1) + 1  # of the last, the gradient of keys' and values' inputs
    expected = activations * (layers + (not undivided)) + asked * WIDTH * 4 * (4 + predicts) + asked * 12 * predicts
    assert 0 <= sum(found["all-reduce", ("tensor",)]) - expected <= SMALL
    gathered = [activations] * undivided + [words * tensor * 4] * (undivided and predicts)  # the bias of each word
    assert sorted(found.get(("all-gather", ("tensor",)), [])) == sorted(gathered)
    exchanged = found.get(("all-to-all", ("tensor",)), [])
    assert exchanged == [words * WIDTH * 4] * 3 * (undivided and predicts)
    if mesh == "1x1x8":
        assert {axes for _, axes in found} == {("tensor",)}


@pytest.mark.parametrize(("run", "mesh"), CASES)
def test_the_partitioner_never_gives_up(programs: Callable[[str], Programs], run: str, mesh: str) -> None:
    """It says "involuntary full rematerialization" where it knows no way from one layout to another."""
    assert "rematerialization" not in programs(run)(mesh)[2]
