"""Fixtures of the model tests: model directories that transformers wrote, and what jaxlm reads from them."""

import functools
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
import torch

from .reference import CLASSES, torch_model

torch.set_num_threads(1)  # the models are tiny, and test workers share the cores


class Checkpoints:
    """Written and read when first asked for."""

    def __init__(self, root: Path):
        self._root = root
        self.model = functools.cache(self._model)

    def directory(self, class_name: str, shape: str = "erf") -> Path:
        """transformers' own save of `reference.torch_model`."""
        directory = self._root / f"{class_name}-{shape}"
        if not directory.exists():
            torch_model(class_name, shape).save_pretrained(directory)
        return directory

    def _model(self, class_name: str, shape: str = "erf", dtype: Any = jnp.float32) -> Any:
        """The same model in jaxlm's class of that name."""
        return CLASSES[class_name].from_pretrained(self.directory(class_name, shape), dtype=dtype)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))
