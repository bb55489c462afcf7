"""The model package works in a program that has jax, flax and numpy, and nothing else of what jaxlm uses."""

import os
import subprocess
import sys
from pathlib import Path

import torch

import jaxlm

from .reference import SHAPES, torch_model

PROGRAM = """
import importlib.abc
import sys

REFUSED = {"grain", "tensorflow_datasets", "tensorflow", "orbax", "transformers", "tokenizers", "huggingface_hub",
           "tyro", "safetensors", "sklearn", "torch", "tensorboardX"}


class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        of_jaxlm = name.startswith("jaxlm.") and not f"{name}.".startswith("jaxlm.models.")
        if of_jaxlm or name.split(".")[0] in REFUSED:
            raise ImportError(f"{name} is refused")


sys.meta_path.insert(0, Refuse())

import jax
import jax.numpy as jnp
from flax import nnx
from jaxlm.models import BertConfig, BertForPreTraining, BertModel

from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), "jax.distributed.initialize() has to come before the first device"

config = BertConfig(vocab_size=11, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
output = jax.jit(lambda: BertModel(config, rngs=nnx.Rngs(0))(jnp.ones((2, 5), jnp.int32)))()
assert output.last_hidden_state.shape == (2, 5, 8), output
assert bool(jnp.isfinite(output.last_hidden_state).all())
BertForPreTraining.from_pretrained(sys.argv[1])
imported = {name for name in sys.modules if name.split(".")[0] in REFUSED or name.startswith("jaxlm.")}
assert all(f"{name}.".startswith("jaxlm.models.") for name in imported), imported
print("done")
"""


def test_the_model_package_runs_and_reads_a_bin_checkpoint_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(SHAPES["tanh"].to_json("BertForPreTraining"))
    torch.save(torch_model("BertForPreTraining", "tanh").state_dict(), tmp_path / "pytorch_model.bin")
    root = Path(jaxlm.__file__).parents[1]
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.strip() == "done", finished.stderr
