"""`python -m jaxlm train CONFIG`: trains, evaluates and writes a model."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

from jaxlm.config import Config, DataSettings, MeshSettings
from jaxlm.config_changes import flatten
from jaxlm.config_checks import validate
from jaxlm.errors import UserError
from jaxlm.flags import by_name, parse, preset
from jaxlm.parallel import distributed
from jaxlm.parallel.hub import PREEMPTED
from jaxlm.startup import start_jax


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        usage = (
            "usage: python -m jaxlm train CONFIG [--section.name VALUE ...]; CONFIG is a file such as configs/sst2.py"
        )
        if {"-h", "--help"} & set(arguments):
            print(usage + "\nAll settings: python -m jaxlm train CONFIG --help")
            return 0
        raise UserError(usage)
    path, *rest = arguments
    try:
        given = preset(path)
    except UserError:
        distributed.join(MeshSettings())  # other hosts may have the file, and are not to wait for this one
        raise
    config, left_out = _own_data(parse(Config, rest, f"python -m jaxlm train {path}", given), given)
    validate(config)
    distributed.join(config.mesh)
    _check_files(config)
    console = start_jax(config.mesh)
    for line in left_out:
        console.say(line)

    from jaxlm.training.dry_run import dry_run
    from jaxlm.training.run import run as run_config
    from jaxlm.training.stopping import Interrupted

    name = Path(path).stem
    try:
        with distributed.leave_on_sigterm():
            dry_run(config, name, console) if config.dry_run else run_config(config, name, console)
    except Interrupted as stop:
        console.say(str(stop))
        return PREEMPTED if stop.signal_number == signal.SIGTERM else 128 + stop.signal_number
    return 0


def _own_data(config: Config, given: Config) -> tuple[Config, list[str]]:
    """The dev and test split of a preset's data set are not those of a person's own training data: they are left out,
    unless they are asked for with the split's name; of a part likewise. Returns what is to be said of it, too."""
    data, said = _own_splits(config.data, given.data, "data")
    theirs, parts = {part.name: part for part in given.parts}, []
    for part in config.parts:
        if part.name in theirs:
            own, of_part = _own_splits(part.data, theirs[part.name].data, f"parts.{part.name}.data")
            part, said = dataclasses.replace(part, data=own), said + of_part
        parts.append(part)
    return dataclasses.replace(config, data=data, parts=tuple(parts)), said


def _own_splits(own: DataSettings, given: DataSettings, name: str) -> tuple[DataSettings, list[str]]:
    from jaxlm.data.schemes import is_scheme

    theirs = given.train
    if own.train in (theirs, None) or is_scheme(str(own.train)) or theirs is None or not is_scheme(theirs):
        return own, []
    said = []
    for split in ("dev", "test"):
        spec = getattr(own, split)
        if spec is not None and spec == getattr(given, split) and spec.split(":")[:2] == theirs.split(":")[:2]:
            none: dict[str, Any] = {split: None}
            own = dataclasses.replace(own, **none)
            said.append(f"--{name}.train is your own, so the preset's --{name}.{split} {spec} is left out")
    return own, said


def _check_files(config: Config) -> None:
    """Finds missing files before jax is imported."""
    tasks = {part.name: part.task for part in config.parts}
    for name, value in flatten(config).items():
        name = by_name(name, config)
        if name.split(".")[-1] not in ("train", "dev", "test") or not isinstance(value, str) or ":" in value:
            continue
        if not Path(value).exists():
            raise UserError(f"--{name} {value}: no such file, nor a directory that prepare wrote")
        if not Path(value).is_dir():
            continue
        if (Path(value) / "plan.json").is_file():
            if name.startswith("parts."):
                raise UserError(f"--{name} {value} was written by prepare, for pre-training; a part reads a file")
            continue
        task = tasks[name.split(".")[1]] if name.startswith("parts.") else config.task
        if task == "classification":
            from jaxlm.data.labelled_texts import class_folders

            class_folders(Path(value), name.split(".")[-1])
            continue
        if task not in ("token_classification", "intent_slots"):
            raise UserError(f"--{name} {value} is a directory that prepare did not write; a file is meant")
        from jaxlm.data.word_files import is_word_directory

        if not is_word_directory(Path(value)):
            raise UserError(f"--{name} {value} is a directory without seq.in; a file, or a directory with it, is meant")
