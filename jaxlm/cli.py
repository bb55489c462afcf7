"""`python -m jaxlm VERB ...`. Flags are checked before jax is imported, so a wrong one is answered at once."""

import contextlib
import dataclasses
import difflib
import io
import json
import logging
import os
import re
import runpy
import sys
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from jaxlm.config import Config, DataSettings, MeshSettings, flatten, validate
from jaxlm.errors import NonFiniteLoss, UserError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class EvaluateArguments:
    """Metrics of a trained model on a labelled file."""

    model: tyro.conf.Positional[str]
    """Hub name or directory of the model."""
    data: DataSettings = dataclasses.field(default_factory=lambda: DataSettings(max_length=0))
    """`--data.test FILE`, and columns as for training; max_length 0 is the model's own."""
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    batch_size: int = 128
    output: str | None = None
    """A file for the metrics as JSON, confusion matrix included."""


@dataclasses.dataclass(frozen=True)
class PredictArguments:
    """Predictions for texts: a JSON line each, in order."""

    model: tyro.conf.Positional[str]
    """Hub name or directory of the model."""
    text: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A text; may be given again and again."""
    input: str | None = None
    """A file of texts: txt (one a line), csv, tsv, jsonl or parquet, plain, .gz or .xz. Without it: standard input."""
    output: str | None = None
    """A file for the predictions; without it: standard output."""
    data: DataSettings = dataclasses.field(default_factory=lambda: DataSettings(max_length=0))
    """Columns of `--input`, as for training; max_length 0 is the model's own."""
    mesh: MeshSettings = dataclasses.field(default_factory=MeshSettings)
    batch_size: int = 128


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


def _parse(kind: type[T], arguments: list[str], program: str, default: Any = tyro.MISSING_NONPROP) -> T:
    """Reads flags into `kind`; a wrong one is a UserError of one line."""
    known = _flags(kind, default)
    if not {"-h", "--help"} & set(arguments):
        for argument in arguments:
            if re.match(r"--?[A-Za-z]", argument):
                name = argument.lstrip("-").split("=")[0].replace("-", "_")
                plain = re.sub(r"(^|\.)no_?(?=\w+$)", r"\1", name)  # --no-flag and --section.no-flag switch off
                if name not in known and plain not in known:
                    meant = suggest(name, known)
                    hint = f"did you mean --{meant}?" if meant else f"see {program} --help"
                    raise UserError(f"there is no flag {argument.split('=')[0]}; {hint}")
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            settings = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
            return tyro.cli(kind, args=arguments, prog=program, default=default, config=settings)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_one_line(shown.getvalue())) from None


def _one_line(box: str) -> str:
    """The message in the box that the flag parser draws."""
    text = [line.strip("│ ").strip() for line in box.splitlines() if line.startswith("│")]
    cut = next((index for index, line in enumerate(text) if line.startswith("──")), len(text))
    return " ".join(text[:cut]) or "the flags could not be read"


def _preset(path: str) -> Config:
    """The `config` of a preset file.

    Raises:
      UserError: no such file, or it fails, or it defines no config.
    """
    file = Path(path)
    if not file.is_file():
        folder = file.parent if file.parent.is_dir() else Path("configs")
        offers = sorted(str(found) for found in folder.glob("*.py")) if folder.is_dir() else []
        near = difflib.get_close_matches(str(file), offers, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; presets here: {', '.join(offers)}" if offers else ""
        raise UserError(f"{path}: no such preset{hint}")
    try:
        found = runpy.run_path(path).get("config")
    except Exception as error:  # whatever a person's own file raises
        raise UserError(f"{path}: {type(error).__name__}: {error}") from None
    if not isinstance(found, Config):
        raise UserError(f"{path} defines no `config = Config(...)`")
    return found


def _train(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        usage = (
            "usage: python -m jaxlm train CONFIG [--section.name VALUE ...]; CONFIG is a file such as configs/sst2.py"
        )
        if {"-h", "--help"} & set(arguments):
            print(usage + "\nAll settings: python -m jaxlm train CONFIG --help")
            return 0
        raise UserError(usage)
    path, *rest = arguments
    config = _parse(Config, rest, f"python -m jaxlm train {path}", _preset(path))
    validate(config)
    _check_files(config)
    console = _start_jax()

    from jaxlm.training.dry_run import dry_run
    from jaxlm.training.loop import Interrupted
    from jaxlm.training.run import run

    name = Path(path).stem
    try:
        dry_run(config, name, console) if config.dry_run else run(config, name, console)
    except Interrupted as stop:
        console.say(str(stop))
        return 128 + stop.signal_number
    return 0


def _check_files(config: Config) -> None:
    """Finds missing files before jax is imported."""
    for name, value in flatten(config).items():
        is_path = isinstance(value, str) and ":" not in value
        if name.split(".")[-1] in ("train", "dev", "test") and is_path and not Path(value).is_file():
            raise UserError(f"--{name} {value}: no such file")


def _evaluate(arguments: list[str]) -> int:
    args = _parse(EvaluateArguments, arguments, "python -m jaxlm evaluate")
    if args.data.test is None:
        raise UserError("which file? python -m jaxlm evaluate MODEL --data.test FILE")
    _check_batch_size(args.batch_size)
    _check_output(args.output)
    _start_jax(sys.stderr)

    from jaxlm.data.sources import read_table
    from jaxlm.models.hub import write_atomically
    from jaxlm.parallel.mesh import make_mesh
    from jaxlm.predict import Predictor

    predictor = Predictor(
        args.model, make_mesh(args.mesh.devices), batch_size=args.batch_size, max_length=args.data.max_length or None,
        bad_rows=args.data.bad_rows,
    )  # fmt: skip
    table = read_table(
        args.data.test, "test", args.data, labelled=predictor.task.labelled, known_labels=predictor.labels
    )
    metrics, truncated = predictor.evaluate(table)
    for name, value in metrics.items():
        if isinstance(value, (int, float)):
            print(f"{name}: {value:.6g}")
    if "per_class" in metrics:
        width = max(len(name) for name in metrics["per_class"])
        print(f"\n{'':{width}}  precision  recall      f1  support")
        for name, row in metrics["per_class"].items():
            numbers = f"{row['precision']:9.4f}  {row['recall']:6.4f}  {row['f1']:6.4f}  {row['support']:7d}"
            print(f"{name:{width}}  {numbers}")
        print("\nconfusion matrix (a row is a true class, a column a predicted one)")
        for name, counts in zip(metrics["per_class"], metrics["confusion"], strict=True):
            print(f"{name:{width}}  " + " ".join(f"{count:6d}" for count in counts))
    if truncated:
        print(f"\n{truncated} texts were cut to {predictor.max_length} tokens")
    if args.output:
        write_atomically(Path(args.output), json.dumps(metrics, indent=2) + "\n")
    return 0


def _predict(arguments: list[str]) -> int:
    args = _parse(PredictArguments, arguments, "python -m jaxlm predict")
    if args.text and args.input:
        raise UserError("pass --text or --input, not both")
    if args.input and not Path(args.input).is_file():
        raise UserError(f"--input {args.input}: no such file")
    _check_batch_size(args.batch_size)
    _check_output(args.output)
    _start_jax(sys.stderr)

    from jaxlm.data.sources import read_table, table_of_texts
    from jaxlm.models.hub import write_atomically
    from jaxlm.parallel.mesh import make_mesh
    from jaxlm.predict import Predictor

    if not args.input:
        texts = list(args.text) or sys.stdin.buffer.read().split(b"\n")
        table = table_of_texts("--text" if args.text else "standard input", texts, args.data)
    predictor = Predictor(
        args.model, make_mesh(args.mesh.devices), batch_size=args.batch_size, max_length=args.data.max_length or None
    )
    if args.input:
        table = read_table(args.input, "test", args.data, labelled=False, known_labels=predictor.labels)
    lines = [json.dumps(prediction, ensure_ascii=False) + "\n" for prediction in predictor.predict(table)]
    if args.output:
        write_atomically(Path(args.output), "".join(lines))
    else:
        sys.stdout.writelines(lines)
    return 0


def _check_batch_size(size: int) -> None:
    if size < 1:
        raise UserError(f"--batch_size is {size}; it must be at least 1")


def _check_output(output: str | None) -> None:
    if output and not Path(output).absolute().parent.is_dir():
        raise UserError(f"--output {output}: there is no directory {Path(output).parent}")


def _env(arguments: list[str]) -> int:
    if arguments:
        raise UserError("env takes no flags")
    import platform
    from importlib.metadata import PackageNotFoundError, version

    _start_jax(sys.stderr)
    import jax

    import jaxlm
    from jaxlm.parallel.mesh import set_up_compilation_cache

    cache = set_up_compilation_cache()

    print(f"jaxlm {jaxlm.__version__}, Python {platform.python_version()}, {platform.platform()}")
    for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "transformers",
                 "safetensors", "tensorflow-datasets", "tyro", "libtpu", "jax-cuda13-plugin", "torch"):  # fmt: skip
        try:
            print(f"{name} {version(name)}")
        except PackageNotFoundError:
            print(f"{name} not installed")
    print(f"cores {len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()}")
    for device in jax.local_devices():
        memory = (device.memory_stats() or {}).get("bytes_limit")
        print(
            f"device {device.id}: {device.platform} {device.device_kind}"
            + (f", {memory / 2**30:.1f} GiB" if memory else "")
        )
    print(f"processes {jax.process_count()}; compilation cache {cache}")
    for name, value in sorted(os.environ.items()):
        if name.startswith(("JAX_", "XLA_", "JAXLM_", "LIBTPU_", "CUDA_VISIBLE")) or name == "HF_HUB_OFFLINE":
            print(f"{name}={value}")
    return 0


def _start_jax(stream: typing.TextIO | None = None) -> Any:
    """Imports jax, sets its cache up and returns the console, to which the package's log goes."""
    from jaxlm.parallel.mesh import set_up_compilation_cache
    from jaxlm.training.console import Console, ConsoleHandler

    set_up_compilation_cache()
    import jax

    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    console = Console(stream, speaks=jax.process_index() == 0)
    logger = logging.getLogger("jaxlm")
    logger.handlers = [ConsoleHandler(console)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return console


VERBS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "train": (_train, "CONFIG [--section.name VALUE ...]   train, evaluate and write a model"),
    "evaluate": (_evaluate, "MODEL --data.test FILE            metrics of a model on a labelled file"),
    "predict": (_predict, "MODEL --text TEXT | --input FILE   predictions, a JSON line a text"),
    "env": (_env, "                                  what a bug report needs"),
}


@contextlib.contextmanager
def _checkpoint_errors() -> Iterator[None]:
    """A model directory that cannot be read is the user's to put right; its error class lives behind jax's import."""
    try:
        yield
    except ValueError as error:
        from jaxlm.models import CheckpointError

        if isinstance(error, CheckpointError):
            raise UserError(str(error)) from None
        raise


def main(arguments: list[str] | None = None) -> int:
    """Runs a verb. Returns 0, 2 for the user's input, 1 for a run that went wrong, 128 + N after signal N."""
    verb, *rest = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if verb in ("-h", "--help", "help"):
        print("python -m jaxlm VERB ...; --help after a verb tells more\n")
        for name, (_, text) in VERBS.items():
            print(f"  {name:9} {text}")
        return 0
    try:
        if verb not in VERBS:
            near = difflib.get_close_matches(verb, VERBS, 1, 0.5)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}"
            raise UserError(f"there is no verb {verb}; {hint}")
        with _checkpoint_errors():
            return VERBS[verb][0](rest)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NonFiniteLoss as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    finally:
        logger = logging.getLogger("jaxlm")
        logger.handlers.clear()
        logger.propagate = True
