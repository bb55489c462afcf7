"""`python -m jaxlm tokenizer --input FILES --output DIRECTORY`: a WordPiece vocabulary from raw text."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jaxlm.config import DataSettings
from jaxlm.errors import UserError
from jaxlm.flags import parse


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Learns a WordPiece vocabulary and writes the Hugging Face tokenizer files."""

    input: str
    """Raw text: paths, globs or tfds:NAME, parted by commas; txt, jsonl, csv, tsv or parquet, plain, .gz or .xz."""
    output: str
    """Directory for tokenizer.json, tokenizer_config.json and vocab.txt."""
    vocab_size: int = 30522
    """Most tokens; bert-base-uncased has 30,522."""
    min_frequency: int = 2
    """How often a piece must occur to become a token."""
    lowercase: bool = True
    """Lowercase and strip accents (uncased); --no-lowercase keeps both (cased)."""
    spaceless: bool = False
    """The text is in a language without spaces between words, such as Thai or Japanese: characters of such scripts
    stand alone. Chinese characters always do."""
    text: str | None = None
    """Column of the text, in files with columns."""
    bad_rows: Literal["error", "skip"] = "skip"
    """What to do with bytes that are no UTF-8 and lines that are no JSON: stop, or leave out."""
    max_length: int = 512
    """Where users of the tokenizer cut a text, unless they say otherwise."""


def run(arguments: list[str]) -> int:
    args = parse(Arguments, arguments, "python -m jaxlm tokenizer")
    if args.vocab_size < 100:
        raise UserError(f"--vocab_size is {args.vocab_size}; it must be at least 100")
    if args.min_frequency < 1:
        raise UserError(f"--min_frequency is {args.min_frequency}; it must be at least 1")
    output = Path(args.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"--output {output} is there already; name another directory")

    from jaxlm.console import Console, log_to
    from jaxlm.data import corpus
    from jaxlm.data.tokenizer import TextTokenizer

    settings = DataSettings(text=args.text, bad_rows=args.bad_rows)
    sources = corpus.expand(args.input, "--input")
    reader = corpus.Reader(sources, settings)
    console = Console()
    log_to(console)

    class Texts:
        passes = 0

        def __iter__(self) -> Iterator[str]:
            nonlocal reader
            reader = corpus.Reader(sources, settings)  # counts anew
            self.passes += 1
            for number, source in enumerate(sources):
                for piece in corpus.pieces(source, number, settings, tell=self.passes == 1):
                    if (text := reader.text(piece)) is not None:
                        yield text

    with console.phase(f"learning a vocabulary from {len(sources)} source(s)"):
        tokenizer = TextTokenizer.train(
            Texts(), args.vocab_size, args.lowercase, min_frequency=args.min_frequency, spaceless=args.spaceless
        )
    if not reader.counts["characters"]:
        raise UserError(f"--input {args.input}: no text")
    tokenizer.save(output, args.max_length)
    met = ", ".join(f"{name} {count}" for name, count in (reader.counts + reader.dropped).items())
    console.say(f"{tokenizer.vocab_size} tokens; met: {met}")
    console.say(f"tokenizer: {output}")
    console.say(f"next: python -m jaxlm prepare CONFIG --data.train TEXT --data.tokenizer {output} --output DIRECTORY")
    return 0
