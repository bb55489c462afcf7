"""`python -m jaxlm compile CONFIG --topology MACHINE`: what a run needs on a machine, without having it."""

import dataclasses
import tempfile
from pathlib import Path

from jaxlm.config import Config, MeshSettings
from jaxlm.config_checks import validate
from jaxlm.errors import UserError
from jaxlm.flags import check_output, parse, preset
from jaxlm.parallel.topologies import prepare_environment, read_name
from jaxlm.startup import start_jax


@dataclasses.dataclass(frozen=True)
class Arguments(Config):
    """A run's config, and the machine to compile its training step for."""

    topology: str | None = None
    """The machine: v4, v5e, v5p or v6e and the chips along each side (v5e:4x4), or a100, h100 or h200, GPUs a host and
    hosts (h100:8, h100:8x2)."""
    phase: int | None = None
    """Of a config with phases the one to compile, from 1; unset: the one with the largest batch in tokens."""
    tokens_per_example: int | None = None
    """Mean length of the examples, where there is no data to read; unset: all fill data.max_length."""
    largest_batch: bool = True
    """Look for the largest batch that fits: up to four more compilations."""
    scaling: bool = False
    """Instead: what each chip sends in a step on 8 to 1024 chips of the machine's kind, a table in Markdown."""
    save: str | None = None
    """File to write the executable to."""


def run(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        usage = "usage: python -m jaxlm compile CONFIG --topology v5e:4x4 [--section.name VALUE ...] [--save FILE]"
        if {"-h", "--help"} & set(arguments):
            print(usage + "\nAll settings: python -m jaxlm compile CONFIG --help")
            return 0
        raise UserError(usage)
    path, *rest = arguments
    given = preset(path)
    default = Arguments(**{item.name: getattr(given, item.name) for item in dataclasses.fields(Config)})
    args = parse(Arguments, rest, f"python -m jaxlm compile {path}", default)
    if args.topology is None:
        raise UserError("--topology names the machine, such as v5e:4x4 or h100:8")
    request = read_name(args.topology)
    data_is_given = any(flag.split("=")[0] in ("--data.train", "--data.mixture") for flag in rest)
    if args.task == "multi_task":
        raise UserError(
            f"{path} trains several tasks at once; compile makes up data for one: choose a preset of one task"
        )
    _check(args, data_is_given)
    prepare_environment(request)
    console = start_jax(MeshSettings(distributed="off"))

    import jax

    jax.config.update("jax_enable_compilation_cache", False)  # JAX cannot read programs of absent machines back
    from jaxlm.parallel.topologies import describe
    from jaxlm.training.machine_report import report, single_runs
    from jaxlm.training.scaling import scaling_table

    whole = Config(**{item.name: getattr(args, item.name) for item in dataclasses.fields(Config)})
    if args.scaling:
        with tempfile.TemporaryDirectory(prefix="jaxlm-compile-") as folder:
            scaling_table(whole, request.kind, Path(folder), console)
        return 0
    topology = describe(request)
    fits = True
    for name, config in single_runs(whole, Path(path).stem).items():
        with tempfile.TemporaryDirectory(prefix="jaxlm-compile-") as folder:
            fits &= report(
                config, name, topology, Path(folder), console, data_is_given=data_is_given, phase=args.phase,
                tokens=args.tokens_per_example, search=args.largest_batch,
                save_to=Path(args.save) if args.save else None,
            )  # fmt: skip
    return 0 if fits else 1


def _check(args: Arguments, data_is_given: bool) -> None:
    """Finds wrong settings before JAX is imported."""
    train = args.data.train or "made up"  # what a preset leaves open need not be there to be compiled
    validate(dataclasses.replace(args, data=dataclasses.replace(args.data, train=None if args.data.mixture else train)))
    if data_is_given and args.data.train and ":" not in args.data.train and not Path(args.data.train).exists():
        raise UserError(f"--data.train {args.data.train}: no such file, nor a directory that prepare wrote")
    if args.phase is not None and not 1 <= args.phase <= len(args.train.phases):
        raise UserError(f"--phase is {args.phase}; the config has {len(args.train.phases)} phases")
    if args.tokens_per_example is not None and args.tokens_per_example < 3:
        raise UserError(f"--tokens_per_example is {args.tokens_per_example}; it must be at least 3")
    if args.save and args.pretrain is not None:
        raise UserError("--save writes one executable, and the config has a pretrain stage: two programs")
    check_output(args.save, "--save")
