"""Flags: read into typed settings before jax is imported, so that a wrong one is answered at once."""

import contextlib
import dataclasses
import difflib
import io
import os
import re
import runpy
import tempfile
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from jaxlm.config import Config
from jaxlm.errors import UserError

T = TypeVar("T")

# What people half remember, and what it is called here.
_SYNONYMS = {
    "lr": "learning_rate", "bs": "batch_size", "batch": "batch_size", "per_device_train_batch_size": "batch_size",
    "num_train_epochs": "epochs", "num_epochs": "epochs", "epoch": "epochs", "max_steps": "steps", "num_steps": "steps",
    "output_dir": "workdir", "out": "workdir", "model_name_or_path": "init", "model_name": "init", "pretrained": "init",
    "checkpoint": "init", "max_seq_length": "max_length", "max_len": "max_length", "seq_len": "max_length",
    "warmup_steps": "warmup", "warmup_ratio": "warmup", "warmup_proportion": "warmup", "wd": "weight_decay",
    "gradient_accumulation_steps": "micro_batches", "accumulation": "micro_batches", "grad_accum": "micro_batches",
    "max_grad_norm": "clip_norm", "clip": "clip_norm", "logging_steps": "log_every", "eval_steps": "eval_every",
    "save_steps": "checkpoint_every", "early_stopping_patience": "patience", "mlm_probability": "mask_rate",
    "train_file": "train", "validation_file": "dev", "valid": "dev", "validation": "dev", "dropout": "hidden_dropout",
    "adam_epsilon": "epsilon", "lr_scheduler_type": "schedule", "random_seed": "seed", "file": "input", "texts": "text",
}  # fmt: skip


def _flags(kind: type, default: Any = None) -> list[str]:
    """The dotted names of the flags of an argument class, or of one of its instances."""
    names: list[str] = []
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        if isinstance(default, kind):
            value = getattr(default, field.name)
        else:
            value = None if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(value):
            names += [f"{field.name}.{name}" for name in _flags(type(value), value)]
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            for number, item in enumerate(value):
                names += [f"{field.name}.{number}.{name}" for name in _flags(type(item), item)]
        elif tyro.conf.Positional[str] != hints[field.name]:
            names.append(field.name)
    return names


def suggest(flag: str, known: Sequence[str]) -> str | None:
    """The flag that was probably meant by one that does not exist; both without the dashes."""
    wanted = flag.replace("-", "_").lower()
    *section, leaf = wanted.split(".")
    leaf = _SYNONYMS.get(leaf, leaf)
    by_leaf = [name for name in known if name.split(".")[-1] == leaf]
    if section:
        by_leaf.sort(key=lambda name: -difflib.SequenceMatcher(None, name, ".".join([*section, leaf])).ratio())
    if by_leaf:
        return min(by_leaf, key=lambda name: name.count(".")) if not section else by_leaf[0]
    close = difflib.get_close_matches(wanted, known, 1, 0.6)
    if not close:
        leaves = {name.split(".")[-1]: name for name in reversed(known)}
        close = [leaves[match] for match in difflib.get_close_matches(leaf, list(leaves), 1, 0.6)]
    return close[0] if close else None


def _by_number(flag: str, default: Any) -> str:
    """`--parts.NAME.x` as `--parts.NUMBER.x`, which is what the parser calls it."""
    names = {part.name: number for number, part in enumerate(getattr(default, "parts", ()))}
    return re.sub(r"^--parts\.(\w+)\.", lambda found: f"--parts.{names.get(found[1], found[1])}.", flag)


def by_name(text: str, default: Any) -> str:
    """A text with its parts.NUMBER.x as parts.NAME.x, which is what people call it."""
    names = {str(number): part.name for number, part in enumerate(getattr(default, "parts", ()))}
    return re.sub(r"\bparts\.(\d+)\.", lambda found: f"parts.{names.get(found[1]) or found[1]}.", text)


def _as_meant(arguments: list[str]) -> list[str]:
    """`--flag=~/x`, which a shell leaves as it is, with the home directory; `--flag "- text"` as `--flag="- text"`."""
    found: list[str] = []
    for argument in arguments:
        if found and re.fullmatch(r"--[\w.-]+", found[-1]) and re.match(r"-.*\s", argument):
            found[-1] += f"={argument}"
        else:
            found.append(re.sub(r"^(--[\w.-]+=)~(?=/|$)", lambda flag: flag[1] + str(Path.home()), argument))
    return found


def parse(kind: type[T], arguments: list[str], program: str, default: Any = tyro.MISSING_NONPROP) -> T:
    """Reads flags into `kind`; a wrong one is a UserError of one line."""
    known = _flags(kind, default)
    arguments = _as_meant(arguments)
    if not {"-h", "--help"} & set(arguments):
        for argument in arguments:
            if re.match(r"--?[A-Za-z][\w.-]*(=|$)", argument):
                name = _by_number(argument, default).lstrip("-").split("=")[0].replace("-", "_")
                plain = re.sub(r"(^|\.)no_?(?=\w+$)", r"\1", name)  # --no-flag and --section.no-flag switch off
                if name not in known and plain not in known:
                    meant = suggest(name, known)
                    hint = f"did you mean --{by_name(meant, default)}?" if meant else f"see {program} --help"
                    if not argument.startswith("--"):
                        hint += "; a value that begins with - is given as --flag=VALUE"
                    raise UserError(f"there is no flag {argument.split('=')[0]}; {hint}")
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            settings = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
            numbered = [_by_number(argument, default) for argument in arguments]
            return tyro.cli(kind, args=numbered, prog=program, default=default, config=settings)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(by_name(_one_line(shown.getvalue()), default)) from None


def _one_line(box: str) -> str:
    """The message in the box that the flag parser draws."""
    text = [line.strip("│ ").strip() for line in box.splitlines() if line.startswith("│")]
    cut = next((index for index, line in enumerate(text) if line.startswith("──")), len(text))
    return " ".join(text[:cut]) or "the flags could not be read"


def preset(path: str) -> Config:
    """The `config` of a preset file.

    Raises:
      UserError: no such file, or it fails, or it defines no config.
    """
    file = Path(path)
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() and file.parent != Path() else Path("configs")
        offers = sorted(str(found) for found in folder.glob("*.py"))
        near = difflib.get_close_matches(str(folder / f"{file.stem}.py"), offers, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; presets here: {', '.join(offers)}" if offers else ""
        raise UserError(f"{path}: no such preset{hint}")
    try:
        found = runpy.run_path(path).get("config")
    except Exception as error:  # whatever a person's own file raises
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
    if not isinstance(found, Config):
        raise UserError(f"{path} defines no `config = Config(...)`")
    return found


def check_batch_size(size: int | None) -> None:
    if size is not None and size < 1:
        raise UserError(f"--batch_size is {size}; it must be at least 1")


def check_output(output: str | None, flag: str = "--output") -> None:
    """Stops at a place that cannot be written, before the work whose result it is for."""
    if not output:
        return
    path = Path(output).resolve()
    if Path(output).is_dir():
        raise UserError(f"{flag} {output} is a directory; a file is meant")
    if Path(output).exists() and not Path(output).is_file():  # a pipe, or /dev/stdout
        if not os.access(output, os.W_OK):
            raise UserError(f"{flag} {output} cannot be written")
        return
    if not path.parent.is_dir():
        raise UserError(f"{flag} {output}: there is no directory {path.parent}")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise UserError(f"{flag} {output}: {path.parent} cannot be written: {error.strerror}") from None
