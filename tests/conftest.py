"""Eight virtual CPU devices, a compilation cache that test runs share, and a small model with small data."""

import logging
import os
import random
import tempfile
from pathlib import Path

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "jaxlm-tests-xla"))
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import pytest

from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.models import BertConfig, BertModel
from jaxlm.parallel.mesh import set_up_compilation_cache

set_up_compilation_cache()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Minutes of compiling first, so that no worker is left with them at the end."""
    items.sort(key=lambda item: "test_compile" not in item.nodeid)


@pytest.fixture(autouse=True)
def _log_as_python_has_it() -> None:
    """A verb that ran before in this process sends the log to its console alone."""
    logger = logging.getLogger("jaxlm")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)


_GOOD = ["good", "fine", "lovely", "brilliant", "warm", "clever"]
_BAD = ["bad", "dull", "awful", "clumsy", "cold", "silly"]
_PLAIN = ["the", "film", "story", "actor", "scene", "music", "plot", "of", "and", "with", "was", "a", "this", "ending"]


def make_sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """(text, "positive" or "negative") of 3 to 25 words, told by two of them."""
    draw = random.Random(seed)
    rows = []
    for index in range(count):
        label, telling = (("positive", _GOOD), ("negative", _BAD))[index % 2]
        words = draw.choices(_PLAIN, k=draw.randint(1, 23)) + draw.choices(telling, k=2)
        draw.shuffle(words)
        rows.append((" ".join(words), label))
    return rows


def write_tsv(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{text}\t{label}\n" for text, label in rows))
    return path


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Labelled files by split."""
    folder = tmp_path_factory.mktemp("sentences")
    sizes = {"train": (150, 1), "dev": (41, 2), "test": (30, 3)}
    return {split: write_tsv(folder / f"{split}.tsv", make_sentences(*size)) for split, size in sizes.items()}


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a random BERT of two layers, 16 wide, without any head."""
    directory = tmp_path_factory.mktemp("tiny") / "model"
    tokenizer = TextTokenizer.train([text for text, _ in make_sentences(300, 0)], 200, lowercase=True)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    tokenizer.save(directory, max_length=64)
    BertModel.save_params(directory, config, BertModel.initial_params(config, jax.random.key(0)))
    return directory
