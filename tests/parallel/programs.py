"""Small runs whose training steps are compiled for several meshes, once each, for tests to run and to read."""

import functools
import math
import os
import random
from pathlib import Path

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxlm.config import Config, DataSettings, MeshSettings, ModelSettings, OptimSettings, TrainSettings
from jaxlm.data.tokenizer import SPECIAL_TOKENS
from jaxlm.parallel.collectives import collectives
from jaxlm.parallel.mesh import mesh_for, put_batch
from jaxlm.parallel.sharding import shardings
from jaxlm.training.setup import Setup, set_up
from jaxlm.training.step import State

# data x fsdp x tensor; two slices have a replica axis, and 2 x 2 devices each.
MESHES = {
    "1": (1, 1, 1), "8x1x1": (8, 1, 1), "2x2x2": (2, 2, 2), "1x8x1": (1, 8, 1), "1x1x8": (1, 1, 8),
    "slices": (2, 1, 2, 2),
}  # fmt: skip
# Task and size of the vocabulary: 8 divides 96, and not even 2 divides 97.
RUNS = {
    "classification": ("classification", 97),
    "masked_lm": ("masked_lm", 96),
    "masked_lm_undivided": ("masked_lm", 97),
}
STEPS, WIDTH, LENGTH = 20, 32, 16
# XLA partitions as always; LLVM does not optimise, which takes half of the compilation away.
QUICK = {"xla_backend_optimization_level": 0}
SMALL = 256  # bytes: biases of a few units, sums of scalars


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
            hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=8, intermediate_size=64,
            max_position_embeddings=LENGTH, initializer_range=0.1, hidden_dropout=0.1, attention_dropout=0.1,
        ),
        data=DataSettings(train=str(path), max_length=LENGTH, row_length=LENGTH, tokenizer=str(directory)),
        train=TrainSettings(steps=STEPS, batch_size=24),
        # Adam divides a gradient by its own size. Of a key's bias it is 0 (softmax ignores a constant), and with the
        # usual epsilon, 1e-8, rounding would be taken for a gradient.
        optim=OptimSettings(learning_rate=3e-3, warmup=0.1, epsilon=1e-4),
    )  # fmt: skip


def make_mesh(name: str) -> Mesh:
    shape = MESHES[name]
    if len(shape) == 3:
        return mesh_for(MeshSettings(devices=math.prod(shape), fsdp=shape[1], tensor=shape[2]))
    return Mesh(np.array(jax.devices()).reshape(shape), ("replica", "data", "fsdp", "tensor"), (AxisType.Auto,) * 4)


class Programs:
    """The training steps of a config by mesh, each compiled once, and what the compiler said to standard error."""

    def __init__(self, config: Config, folder: Path):
        self.config, self._folder = config, folder
        self._made: dict[str, tuple[Setup, jax.stages.Compiled, str]] = {}
        self._start: State | None = None

    def __call__(self, mesh: str) -> tuple[Setup, jax.stages.Compiled, str]:
        if mesh not in self._made:
            setup = set_up(self.config, make_mesh(mesh))
            with open(self._folder / mesh, "w+") as said:
                kept = os.dup(2)
                os.dup2(said.fileno(), 2)  # XLA writes there past Python
                try:
                    jax.config.update("jax_enable_compilation_cache", False)  # what is read back says nothing
                    lowered = setup.train_step().lower(setup.abstract_state(), setup.batch_shapes())
                    compiled = lowered.compile(compiler_options=QUICK)
                finally:
                    jax.config.update("jax_enable_compilation_cache", True)
                    os.dup2(kept, 2)
                    os.close(kept)
                said.seek(0)
                self._made[mesh] = setup, compiled, said.read()
        return self._made[mesh]

    def start(self, mesh: str) -> State:
        """The state of step 0, drawn on one device; that any mesh draws the same is a test of its own."""
        if self._start is None:
            self._start = jax.tree.map(np.asarray, self("1")[0].initial_state())
        return jax.device_put(self._start, shardings(self._start, self(mesh)[0].mesh))

    def run(
        self, mesh: str, state: State | None = None, first: int = 0, steps: int = STEPS
    ) -> tuple[list[float], State]:
        setup, step, _ = self(mesh)
        state = self.start(mesh) if state is None else state
        losses = []
        for number in range(first, steps):
            state, metrics = step(state, put_batch(setup.batches["train"](number), setup.mesh))
            losses.append(float(metrics["loss"]))
        return losses, state

    @functools.cached_property
    def alone(self) -> tuple[list[float], dict[str, np.ndarray]]:
        """Losses and parameters of a run on one device."""
        losses, state = self.run("1")
        assert losses[-1] < losses[0] - 0.5
        return losses, whole(state)

    def exchange(self, mesh: str) -> dict[tuple[str, tuple[str, ...]], list[int]]:
        """Bytes of the collectives by kind and axes."""
        setup, compiled, _ = self(mesh)
        found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for item in collectives(compiled.as_text() or "", setup.mesh.shape):
            found.setdefault((item.kind, item.axes), []).append(item.bytes)
        return found

    def parameters(self, mesh: str) -> list[tuple[int, int]]:
        """Of each parameter, the bytes that a device holds, and those of all along `fsdp` together."""
        sizes = []
        for leaf in jax.tree.leaves(self(mesh)[0].abstract_state()["params"]):
            parts = [axes if isinstance(axes, tuple) else (axes,) for axes in leaf.sharding.spec]
            held = 4 * math.prod(leaf.sharding.shard_shape(leaf.shape))
            over = leaf.sharding.mesh.shape["fsdp"] if any("fsdp" in axes for axes in parts) else 1
            sizes.append((held, held * over))
        return sizes

    def gradients(self, mesh: str) -> int:
        """Bytes of what a device computes of the gradients: of words that the decoder shares, twice, once from below
        and once from above."""
        setup = self(mesh)[0]
        shared = setup.bert_config.vocab_size * WIDTH * 4 // setup.mesh.shape["tensor"]
        return sum(of_all for _, of_all in self.parameters(mesh)) + shared * (self.config.task == "masked_lm")


def whole(state: State) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path): np.asarray(value)
        for path, value in jax.tree_util.tree_flatten_with_path(state["params"])[0]
    }
