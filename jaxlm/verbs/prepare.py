"""`python -m jaxlm prepare CONFIG --output DIRECTORY`: raw text to packed rows on disk."""

import dataclasses
import re
import signal
import sys
from pathlib import Path

from jaxlm.config import Config
from jaxlm.config_checks import validate
from jaxlm.errors import UserError
from jaxlm.flags import parse, preset


@dataclasses.dataclass(frozen=True)
class Arguments(Config):
    """A pre-training's config, of which data, objective and phases matter here, and where to write."""

    output: str | None = None
    """Directory of the prepared rows; the same command goes on where it was stopped."""
    shard: str = "0/1"
    """i/n: this machine does every n-th part of the sources from the i-th on; i counts from 0."""
    workers: int | None = None
    """Processes; unset: one a core."""


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        usage = "usage: python -m jaxlm prepare CONFIG --data.train TEXT --data.tokenizer DIRECTORY --output DIRECTORY"
        if {"-h", "--help"} & set(arguments):
            print(usage + "\nAll settings: python -m jaxlm prepare CONFIG --help")
            return 0
        raise UserError(usage)
    path, *rest = arguments
    given = preset(path)
    default = Arguments(**{item.name: getattr(given, item.name) for item in dataclasses.fields(Config)})
    args = parse(Arguments, rest, f"python -m jaxlm prepare {path}", default)
    validate(args)
    if args.task != "masked_lm":
        raise UserError(f"{path} is a config of task {args.task}; prepare serves pre-training (--task masked_lm)")
    if args.data.train is None:
        raise UserError("prepare reads the raw text that --data.train names")
    if args.output is None:
        raise UserError("--output DIRECTORY says where the prepared rows go")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers is {args.workers}; it must be at least 1")
    found = re.fullmatch(r"(\d+)/(\d+)", args.shard)
    if not found or not int(found[1]) < int(found[2]):
        raise UserError(f"--shard is {args.shard}; i/n with 0 <= i < n is meant, such as 0/4")
    source = args.data.tokenizer or args.model.init
    if source is None:
        raise UserError("which tokenizer? --data.tokenizer DIRECTORY or hub name; python -m jaxlm tokenizer makes one")

    from jaxlm.console import Console, log_to
    from jaxlm.data.prepare import prepare
    from jaxlm.data.tokenizer import TextTokenizer

    directory = Path(source)
    if not directory.is_dir():
        from jaxlm.models import hub

        directory = hub.resolve(source, weights=False)
    console = Console()
    log_to(console)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the worker processes end with it
    prepare(
        args,
        TextTokenizer.load(directory),
        Path(args.output),
        console,
        shard=(int(found[1]), int(found[2])),
        workers=args.workers,
    )
    return 0
