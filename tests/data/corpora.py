"""Small corpora for tests: words in sentences in documents, and the tokenizer and config that go with them."""

import dataclasses
import functools
import random
from pathlib import Path
from typing import Any

from jaxlm.config import Config, DataSettings, ObjectiveSettings, Phase, TrainSettings
from jaxlm.console import Console
from jaxlm.data.prepare import prepare
from jaxlm.data.prepared import PreparedData
from jaxlm.data.tokenizer import TextTokenizer

WORDS = [
    "the",
    "a",
    "river",
    "stone",
    "light",
    "under",
    "over",
    "walks",
    "sings",
    "of",
    "and",
    "into",
    "unwalkable",
    "lightest",
    "stones",
    "rivers",
    "singing",
]


def document(draw: random.Random, sentences: int) -> str:
    """Lines of some words, each ending in a full stop."""
    return "\n".join(" ".join(draw.choices(WORDS, k=draw.randint(2, 14))) + "." for _ in range(sentences))


def corpus(folder: Path, files: int = 3, documents: int = 60, seed: int = 0) -> list[Path]:
    """Text files of documents parted by blank lines, of very different lengths."""
    draw = random.Random(seed)
    paths = []
    for number in range(files):
        texts = [document(draw, draw.choice([1, 1, 2, 3, 30])) for _ in range(documents)]
        paths.append(folder / f"{number}.txt")
        paths[-1].write_text("\n\n".join(texts) + "\n")
    return paths


@functools.cache  # training breaks ties at random
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train([" ".join(WORDS) + " ."] * 3, 130, lowercase=True)


def config(source: Path | str, length: int = 32, *, phases: tuple[Phase, ...] = (), **settings: Any) -> Config:
    """A pre-training config; other settings by section, as `objective={"next_sentence": True}`."""
    whole = Config(
        task="masked_lm",
        data=DataSettings(train=str(source), max_length=length, validation=0.1),
        objective=ObjectiveSettings(),
        train=TrainSettings(batch_size=8, phases=phases),
    )
    return dataclasses.replace(
        whole, **{name: dataclasses.replace(getattr(whole, name), **value) for name, value in settings.items()}
    )


def prepared(folder: Path, *, name: str = "prepared", **settings: Any) -> PreparedData:
    """A prepared directory of a small corpus, made in this process's children."""
    source = folder / "text"
    if not source.exists():
        source.mkdir()
        corpus(source)
    prepare(config(source / "*.txt", **settings), tokenizer(), folder / name, Console(speaks=False), workers=1)
    return PreparedData(folder / name)
