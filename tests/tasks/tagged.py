"""Small tagged sentences that a tiny model learns, as CoNLL files and as directories of seq.in, seq.out and label."""

import random
from pathlib import Path
from typing import NamedTuple

from jaxlm.data.files import Row
from jaxlm.data.words import Sentence, WordTable, word_table

_NAMES = [("PER", ["good", "fine"], ["lovely", "brilliant"]), ("LOC", ["bad"], ["dull", "awful"])]
_PLAIN = {"ask": ["the", "film", "story", "actor", "scene", "music"], "tell": ["plot", "of", "and", "with", "was", "a"]}


class Tagged(NamedTuple):
    words: list[str]
    tags: list[str]
    intent: str


def make_tagged(count: int, seed: int) -> list[Tagged]:
    """Sentences of 4 to 20 words; every plain word tells the intent, and every tag is told by its word."""
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        intent = draw.choice(["tell", "ask"])
        words, tags = ["this"], ["O"]
        for _ in range(draw.randint(1, 5)):
            plain = draw.choices(_PLAIN[intent], k=draw.randint(1, 2))
            kind, first_names, last_names = draw.choice(_NAMES)
            name = [draw.choice(first_names), draw.choice(last_names)][: draw.randint(1, 2)]
            words += plain + name
            tags += ["O"] * len(plain) + [f"B-{kind}"] + [f"I-{kind}"] * (len(name) - 1)
        rows.append(Tagged(words, tags, intent))
    return rows


def run_on(rows: list[Tagged], intent: str) -> Tagged:
    """One long sentence."""
    words, tags = [word for row in rows for word in row.words], [tag for row in rows for tag in row.tags]
    return Tagged(words, tags, intent)


def as_table(rows: list[Tagged], *, tags: bool = True, intents: bool = False) -> WordTable:
    sentences = [Sentence(Row(n, []), *row) for n, row in enumerate(rows, 1)]
    return word_table("file", sentences, "error", tags=tags, intents=intents)


def write_conll(path: Path, rows: list[Tagged]) -> Path:
    lines = ["".join(f"{word} {tag}\n" for word, tag in zip(row.words, row.tags, strict=True)) for row in rows]
    path.write_text("\n".join(lines))
    return path


def write_seq(folder: Path, rows: list[Tagged]) -> Path:
    folder.mkdir(parents=True)
    (folder / "seq.in").write_text("".join(" ".join(row.words) + "\n" for row in rows))
    (folder / "seq.out").write_text("".join(" ".join(row.tags) + "\n" for row in rows))
    (folder / "label").write_text("".join(f"{row.intent}\n" for row in rows))
    return folder
