"""What `train` does: one run, or a pre-training, a fine-tuning and its twin from scratch, and the report at the end."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from jaxlm.config import Config, as_part
from jaxlm.config_changes import fingerprint, flatten
from jaxlm.console import Console, duration
from jaxlm.models import BertConfig
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import describe, make_mesh, mesh_for
from jaxlm.predict import Predictor
from jaxlm.tasks import TASKS
from jaxlm.training.identity import identity
from jaxlm.training.loop import train
from jaxlm.training.plots import plot_losses
from jaxlm.training.records import check_workdir, read_summary, scalars, write_config, write_summary
from jaxlm.training.setup import Setup, check_next, set_up, trains_tokenizer


def run(config: Config, name: str, console: Console) -> None:
    """Runs a config to its end, from wherever an earlier run of it stopped.

    Args:
      name: the preset's name; with a hash of the settings it is the default directory.
    """
    workdir = Path(config.workdir or f"runs/{name}-{fingerprint(config)}").expanduser()
    distributed.agree("settings", flatten(config))
    distributed.check_shared(workdir)
    applied = check_workdir(workdir, config)
    if (summary := distributed.of_first("summary", read_summary(workdir))) is not None:
        console.say(f"this run is finished: {workdir}; with other data, or anew, it needs another --workdir")
        for change in applied:
            console.say(f"changed setting, not applied: {change}; another --workdir makes another run")
        _report(config, workdir, summary, console)
        return
    for change in applied:
        console.say(f"changed setting, applied: {change}")
    mesh = mesh_for(config.mesh)
    platform = mesh.devices.flat[0].device_kind
    laid_out = f", mesh {describe(mesh)}" if mesh.size > 1 else ""
    processes = distributed.describe(mesh.size, config.train.batch_size)
    console.say(f"{mesh.size} device(s) ({platform}){laid_out}, {processes}; run directory {workdir}")
    train_all = _train_one if config.pretrain is None else _train_stages
    summary = train_all(config, workdir, name, mesh, console)
    _report(config, workdir, summary, console)


def prepare(config: Config, mesh: Mesh, console: Console, name: str, kept: Path | None = None) -> Setup:
    """Reads data and model, and says what they are.

    Args:
      kept: the tokenizer that an earlier start of this run has made, where it makes its own.
    """
    with console.phase(f"{name}: reading data and model"):
        setup = set_up(config if kept is None else _with_tokenizer(config, kept), mesh)
        setup = dataclasses.replace(setup, config=config)
        if jax.process_count() > 1:
            distributed.agree(f"{name}: data and model", identity(setup))
    for note in setup.notes:
        console.say(f"{name}: {note}")
    shape = setup.bert_config
    console.say(
        f"{name}: {setup.task.model_class.__name__}, {shape.num_hidden_layers} layers, {shape.hidden_size} wide, "
        f"vocabulary {shape.vocab_size}; {setup.steps} steps"
    )
    return setup


def _with_tokenizer(config: Config, directory: Path) -> Config:
    return dataclasses.replace(config, data=dataclasses.replace(config.data, tokenizer=str(directory)))


def stage_configs(config: Config, workdir: Path) -> dict[str, Config]:
    """The runs that a config with a `pretrain` stage consists of, by name, in order."""
    stage = config.pretrain
    if stage is None:
        raise ValueError("the config has no pretrain stage")
    single = dataclasses.replace(config, pretrain=None, compare_from_scratch=False, workdir=None)
    shared = {item.name: getattr(stage, item.name) for item in dataclasses.fields(stage)}
    runs = {"pretrain": dataclasses.replace(single, **shared)}
    init = str(workdir / "pretrain" / "model")
    runs["finetune"] = dataclasses.replace(single, model=dataclasses.replace(config.model, init=init))
    if config.compare_from_scratch:
        scratch = dataclasses.replace(config.model, init=init, random_init=True)
        runs["from_scratch"] = dataclasses.replace(single, model=scratch)
    return runs


def _train_one(config: Config, workdir: Path, name: str, mesh: Mesh, console: Console) -> dict[str, Any]:
    made = workdir / "tokenizer"
    kept = distributed.of_first("tokenizer", (made / "vocab.txt").is_file())  # the last of its files
    setup = prepare(config, mesh, console, name, made if kept and trains_tokenizer(config) else None)
    return train(setup, workdir, console, name)


def _train_stages(config: Config, workdir: Path, name: str, mesh: Mesh, console: Console) -> dict[str, Any]:
    runs = stage_configs(config, workdir)
    if jax.process_index() == 0:  # first, for it is what a directory is known by as this run's
        workdir.mkdir(parents=True, exist_ok=True)
        write_config(workdir, config)
    if not distributed.of_first("pre-trained", read_summary(workdir / "pretrain") is not None):
        with console.phase("looking at what comes after the pre-training"):
            check_next(runs["finetune"], runs["pretrain"], mesh)
    results = {}
    for name, stage in runs.items():
        finished = distributed.of_first("summary", read_summary(workdir / name))
        results[name] = finished or _train_one(stage, workdir / name, name, mesh, console)
    summary = results.pop("finetune") | results
    if jax.process_index() == 0:
        plot_losses({name: workdir / name for name in runs}, workdir / "loss.png")
        _copy_directory(workdir / "finetune" / "model", workdir / "model")
        write_summary(workdir, summary)
    distributed.meet("all stages written")
    return summary


def _copy_directory(source: Path, target: Path) -> None:
    """Copies a directory so that the target is there whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _report(config: Config, workdir: Path, summary: dict[str, Any], console: Console) -> None:
    console.say()
    judged = "test" if "test" in summary else "dev" if "dev" in summary else None
    if judged:
        console.say(f"{judged}: " + ", ".join(f"{k} {v:.4g}" for k, v in scalars(summary[judged]).items()))
    if judged and "from_scratch" in summary:
        metrics, scratch = summary[judged], summary["from_scratch"][judged]
        judges = (config.train.metric, *TASKS[config.task].metrics_to_judge_by)
        metric = next(name for name in judges if name in metrics)  # some tasks have other metrics for other data
        console.say(f"held-out {metric}, pre-trained:           {metrics[metric]:.3f}")
        console.say(f"held-out {metric}, without pre-training:  {scratch[metric]:.3f}")
        if "majority_accuracy" in metrics:
            console.say(f"held-out accuracy, always the majority:   {metrics['majority_accuracy']:.3f}")
    has_model = distributed.of_first("model is there", (workdir / "model").is_dir())
    if config.task != "masked_lm" and judged and has_model:
        _show_predictions(config, workdir / "model", judged, console)
    runs = [summary, *(summary[name] for name in ("pretrain", "from_scratch") if name in summary)]
    console.say(f"training took {duration(sum(of['train']['wall_s'] for of in runs))} "
                f"({summary['train']['tokens_per_second']:.0f} tokens/s while it trained)")  # fmt: skip
    console.say(f"loss curve: {workdir / 'loss.png'}")
    if not has_model:
        console.say(
            f"model: no longer in {workdir}; without {workdir / 'summary.json'}, the same command writes it again"
        )
        return
    console.say(f"model: {workdir / 'model'}")
    for command in _what_next(config, workdir / "model"):
        console.say(f"next: {command}")


def _what_next(config: Config, model: Path) -> list[str]:
    """Commands that use a model."""
    if config.parts:
        return [line for part in config.parts for line in _what_next(as_part(config, part), model / part.name)]
    if config.task == "masked_lm":
        return [f"python -m jaxlm train configs/sst2.py --model.init {model}"]
    pairs = bool(BertConfig.from_json(model / "config.json").facts.get("pairs"))
    return [f"python -m jaxlm predict {model} {TASKS[config.task].predict_flags(pairs)}"]


def _show_predictions(config: Config, model: Path, split: str, console: Console) -> None:
    """Three held-out rows with what the model says of them; of several parts, for each."""
    for part in config.parts:
        if getattr(part.data, split) is not None:
            console.say(f"{part.name}:")
            _show_predictions(as_part(config, part), model / part.name, split, console)
    spec = getattr(config.data, split)
    if spec is None:
        return
    mesh = make_mesh(1) if jax.process_count() == 1 else mesh_for(config.mesh)
    predictor = Predictor(str(model), mesh, dtype=config.model.dtype)
    task = predictor.task
    table = task.read(spec, split, config.data, known=predictor.known)
    table = table.choose([len(table) * part // 4 for part in (1, 2, 3)])
    for row, prediction in enumerate(predictor.predict(table)):
        texts = [table.texts[row]] + ([] if table.pairs is None else [table.pairs[row]])
        shown = " | ".join(_shortened(text) for text in texts)
        console.say(f'  "{shown}"\n    -> {task.summary(prediction)}; {task.verdict(prediction, table, row)}')


def _shortened(text: str, most: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."
