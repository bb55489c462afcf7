"""What settings must be, as far as it can be told without reading data."""

import dataclasses
import math
import re
from typing import Any, get_args

from jaxlm.config import (
    SHARED_BY_PARTS,
    STRUCTURE,
    WITHOUT_LABELS,
    Config,
    DataSettings,
    EmbeddingSettings,
    ModelSettings,
    Part,
    PartTask,
    Stage,
    TrainSettings,
    as_part,
)  # fmt: skip
from jaxlm.errors import UserError


def validate(config: Stage, where: str = "") -> None:
    """Checks a run's settings, those of its parts and those of its `pretrain` stage.

    Raises:
      UserError: a setting is out of range or missing; the message names the flag.
    """
    if config.parts and config.task != "multi_task":
        raise UserError(f"--{where}task is {config.task}; parts are for multi_task")
    train, optim, data, model, objective = config.train, config.optim, config.data, config.model, config.objective
    threshold, tags, qa = config.labels.threshold, config.tags, config.qa
    ranking, embedding = config.ranking, config.embedding
    checks: list[tuple[bool, str, Any, str]] = [
        (threshold is None or 0 < threshold < 1, "labels.threshold", threshold, "between 0 and 1"),
        (0 <= tags.overlap <= 0.9, "tags.overlap", tags.overlap, "between 0 and 0.9"),
        (0 <= tags.intent_weight < math.inf, "tags.intent_weight", tags.intent_weight, "at least 0"),
        (qa.stride >= 1, "qa.stride", qa.stride, "at least 1"),
        (qa.max_question_length >= 1, "qa.max_question_length", qa.max_question_length, "at least 1"),
        (qa.max_answer_length >= 1, "qa.max_answer_length", qa.max_answer_length, "at least 1"),
        (qa.n_best >= 1, "qa.n_best", qa.n_best, "at least 1"),
        (
            qa.null_threshold is None or math.isfinite(qa.null_threshold),
            "qa.null_threshold", qa.null_threshold, "a number, or None",
        ),
        (ranking.largest is None or 0 < ranking.largest < math.inf, "ranking.largest", ranking.largest, "above 0"),
        (ranking.relevant is None or 0 < ranking.relevant < math.inf, "ranking.relevant", ranking.relevant, "above 0"),
        (0 < embedding.scale < math.inf, "embedding.scale", embedding.scale, "above 0"),
        (embedding.candidates >= 2, "embedding.candidates", embedding.candidates, "at least 2"),
        (train.batch_size >= 1, "train.batch_size", train.batch_size, "at least 1"),
        (train.eval_batch_size >= 1, "train.eval_batch_size", train.eval_batch_size, "at least 1"),
        (train.micro_batches >= 1, "train.micro_batches", train.micro_batches, "at least 1"),
        (0 < train.epochs < math.inf, "train.epochs", train.epochs, "above 0"),
        (train.steps is None or train.steps >= 1, "train.steps", train.steps, "at least 1"),
        (0 <= train.label_smoothing < 1, "train.label_smoothing", train.label_smoothing, "in [0, 1)"),
        (0 < objective.mask_rate <= 0.5, "objective.mask_rate", objective.mask_rate, "above 0, at most 0.5"),
        (objective.longest_span >= 1, "objective.longest_span", objective.longest_span, "at least 1"),
        (0 <= objective.mask_share <= 1, "objective.mask_share", objective.mask_share, "in [0, 1]"),
        (
            0 <= objective.random_share <= 1 - objective.mask_share + 1e-9,
            "objective.random_share", objective.random_share, f"in [0, {1 - objective.mask_share:g}], 1 - mask_share",
        ),
        (train.eval_every is None or train.eval_every >= 1, "train.eval_every", train.eval_every, "at least 1"),
        (train.patience is None or train.patience >= 1, "train.patience", train.patience, "at least 1"),
        (train.checkpoint_every >= 1, "train.checkpoint_every", train.checkpoint_every, "at least 1"),
        (train.log_every >= 1, "train.log_every", train.log_every, "at least 1"),
        (0 < train.max_shard_size < math.inf, "train.max_shard_size", train.max_shard_size, "above 0"),
        (0 < optim.learning_rate < math.inf, "optim.learning_rate", optim.learning_rate, "above 0"),
        (0 <= optim.warmup < math.inf, "optim.warmup", optim.warmup, "a share below 1, or a number of steps"),
        (0 <= optim.decay < math.inf, "optim.decay", optim.decay, "a share below 1, or a number of steps"),
        (0 <= optim.weight_decay < math.inf, "optim.weight_decay", optim.weight_decay, "at least 0"),
        (0 <= optim.beta1 < 1, "optim.beta1", optim.beta1, "in [0, 1)"),
        (0 <= optim.beta2 < 1, "optim.beta2", optim.beta2, "in [0, 1)"),
        (optim.epsilon > 0, "optim.epsilon", optim.epsilon, "above 0"),
        (optim.clip_norm is None or optim.clip_norm > 0, "optim.clip_norm", optim.clip_norm, "above 0, or None"),
        (data.max_length >= 3, "data.max_length", data.max_length, "at least 3 ([CLS], a token, [SEP])"),
        (
            data.max_length >= 5 or not objective.next_sentence,
            "data.max_length", data.max_length, "at least 5 with next sentences: three special tokens and two others",
        ),
        (data.vocab_size >= 100, "data.vocab_size", data.vocab_size, "at least 100"),
        (
            data.row_length is None or data.row_length >= data.max_length,
            "data.row_length", data.row_length, f"at least data.max_length ({data.max_length})",
        ),
        (0 <= data.validation < 1, "data.validation", data.validation, "in [0, 1)"),
        (
            data.train is not None or bool(data.mixture) or config.task == "multi_task",
            "data.train", data.train, "a file, tfds:NAME or hf:NAME",
        ),
    ]  # fmt: skip
    if config.task == "question_answering":
        least = qa.max_question_length + qa.stride + 3
        checks += [
            (
                data.max_length >= least, "data.max_length", data.max_length,
                f"at least {least}, or windows would not overlap: [CLS], a question (qa.max_question_length "
                f"{qa.max_question_length}), [SEP], qa.stride {qa.stride}, [SEP]",
            ),
        ]  # fmt: skip
    tasks: list[str] = [part.task for part in config.parts] or [config.task]
    if all(task in WITHOUT_LABELS for task in tasks):
        rule = f"0 in {config.task}, which does not learn labels"
        checks.append((not train.label_smoothing, "train.label_smoothing", train.label_smoothing, rule))
    if isinstance(config, Config):
        devices = config.mesh.devices
        checks += [
            (0 <= config.seed < 2**32, "seed", config.seed, "between 0 and 2^32 - 1"),
            (devices is None or devices >= 1, "mesh.devices", devices, "at least 1"),
            (config.mesh.fsdp >= 1, "mesh.fsdp", config.mesh.fsdp, "at least 1"),
            (config.mesh.tensor >= 1, "mesh.tensor", config.mesh.tensor, "at least 1"),
            (
                not config.compare_from_scratch or config.pretrain is not None,
                "compare_from_scratch", True, "used together with a pretrain stage",
            ),
        ]  # fmt: skip
    for rate in ("hidden_dropout", "attention_dropout"):
        value = getattr(model, rate)
        checks.append((value is None or 0 <= value < 1, f"model.{rate}", value, "in [0, 1)"))
    for good, name, value, rule in checks:
        if not good:
            raise UserError(f"--{where}{name} is {value}; it must be {rule}")
    if config.task == "embedding":
        _validate_embedding(embedding, train, where)
    if config.task == "multi_task":
        _validate_parts(config, where)
    if model.random_init and model.init is None:
        raise UserError(f"--{where}model.random_init takes its shape from --{where}model.init, which is not set")
    for name in ("patience", "target"):
        if getattr(train, name) is not None and not any(of.dev for of in (data, *(part.data for part in config.parts))):
            raise UserError(f"--{where}train.{name} needs --{where}data.dev to judge by")
    if config.labels.out_of_scope is not None and data.dev is None:
        raise UserError(f"--{where}labels.out_of_scope needs --{where}data.dev, on which its threshold is chosen")
    for number, phase in enumerate(train.phases):
        for name, least in (("steps", 1), ("max_length", 5), ("batch_size", 1), ("learning_rate", 0)):
            value = getattr(phase, name)
            if value is not None and (value < least or value == 0):
                raise UserError(
                    f"--{where}train.phases.{number}.{name} is {value}; it must be at least {least or '> 0'}"
                )
        if phase.warmup is not None and number and phase.learning_rate is None:
            raise UserError(
                f"--{where}train.phases.{number}.warmup is {phase.warmup}, but no schedule starts there: give the "
                "phase a learning_rate too"
            )
        if phase.warmup is not None and phase.warmup < 0:
            raise UserError(f"--{where}train.phases.{number}.warmup is {phase.warmup}; it must be at least 0")
    if train.phases and train.steps is not None:
        raise UserError(f"--{where}train.steps and train.phases exclude each other: each phase has its own steps")
    if data.train is not None and data.mixture:
        raise UserError(f"--{where}data.train and --{where}data.mixture exclude each other")
    if isinstance(config, Config) and config.pretrain is not None:
        for name in ("init", "random_init", "position_init", *STRUCTURE):
            value = getattr(model, name)
            if value != getattr(ModelSettings(), name):
                raise UserError(
                    f"--model.{name} is {value}, but the model is what the pretrain stage makes: set "
                    f"--pretrain.model.{name}, or write a preset without that stage"
                )
        if data.tokenizer not in (None, config.pretrain.data.tokenizer):
            raise UserError(
                f"--data.tokenizer is {data.tokenizer}, but the tokenizer is that of the pretrain stage: set "
                "--pretrain.data.tokenizer"
            )
        validate(config.pretrain, "pretrain.")


def _validate_embedding(embedding: EmbeddingSettings, train: TrainSettings, where: str) -> None:
    contrastive = embedding.loss == "contrastive"
    if embedding.loss != "cosine" and train.batch_size < 2:
        raise UserError(
            f"--{where}train.batch_size is 1; a {embedding.loss} loss compares each pair of a batch with the others"
        )
    if embedding.loss != "cosine" and train.micro_batches > 1:
        raise UserError(
            f"--{where}train.micro_batches is {train.micro_batches}; a {embedding.loss} loss compares all texts of a "
            f"batch, which micro-batches would part: use more devices, a smaller --{where}train.batch_size, or "
            f"--{where}embedding.loss cosine"
        )
    for name in ("lowest", "highest"):
        value = getattr(embedding, name)
        if value is not None and (contrastive or not math.isfinite(value)):
            reason = "a contrastive loss has no scores" if contrastive else "it must be a finite number"
            raise UserError(f"--{where}embedding.{name} is {value}; {reason}")
    if embedding.lowest is not None and embedding.highest is not None and embedding.lowest >= embedding.highest:
        raise UserError(
            f"--{where}embedding.lowest is {embedding.lowest}; it must be below --{where}embedding.highest "
            f"({embedding.highest})"
        )
    if not contrastive and embedding.positive is not None:
        raise UserError(f"--{where}embedding.positive is for --{where}embedding.loss contrastive")
    if not contrastive and embedding.symmetric:
        raise UserError(f"--{where}embedding.symmetric is for --{where}embedding.loss contrastive")


def _validate_parts(config: Stage, where: str) -> None:
    if len(config.parts) < 2:
        raise UserError(f"task multi_task needs at least two parts; the config has {len(config.parts)}")
    belongs_to_parts = {name: Part() for name in ("data", "labels", "tags", "qa", "ranking")}
    for section, default in (belongs_to_parts | {name: Stage() for name in ("embedding", "objective")}).items():
        for item in dataclasses.fields(getattr(config, section)):
            value = getattr(getattr(config, section), item.name)
            if value != getattr(getattr(default, section), item.name) and (
                section != "data" or item.name not in SHARED_BY_PARTS
            ):
                remedy = (
                    f"set --{where}parts.NAME.{section}.{item.name}"
                    if section in belongs_to_parts
                    else "no part uses it"
                )
                raise UserError(f"--{where}{section}.{item.name} is {value}; in multi_task {remedy}")
    names = [part.name for part in config.parts]
    for number, part in enumerate(config.parts):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", part.name):
            raise UserError(
                f"--{where}parts.{number}.name is {part.name!r}; small letters, digits and _ are meant, a letter first"
            )
        flag = f"--{where}parts.{part.name}"
        if names.count(part.name) > 1:
            raise UserError(f"{flag}: {names.count(part.name)} parts have this name; it tells them apart")
        if part.task not in get_args(PartTask):
            raise UserError(f"{flag}.task is {part.task}; a part may be one of {', '.join(get_args(PartTask))}")
        if not 0 < part.weight < math.inf:
            raise UserError(f"{flag}.weight is {part.weight}; it must be above 0")
        if part.batch_size is not None and part.batch_size < 1:
            raise UserError(f"{flag}.batch_size is {part.batch_size}; it must be at least 1")
        if part.metric == "loss":
            raise UserError(
                f"{flag}.metric is loss, and the parts' metrics are averaged, the larger the better; to judge by the "
                f"sum of the losses: --{where}train.metric loss"
            )
        for name in (*SHARED_BY_PARTS, "mixture"):
            if (value := getattr(part.data, name)) != getattr(DataSettings(), name):
                remedy = (
                    "parts do not read prepared data" if name == "mixture" else f"the parts share --{where}data.{name}"
                )
                raise UserError(f"{flag}.data.{name} is {value}; {remedy}")
        validate(as_part(config, part), f"{where}parts.{part.name}.")
    if len({bool(part.data.dev) for part in config.parts}) > 1:
        without = ", ".join(f"--{where}parts.{part.name}.data.dev" for part in config.parts if part.data.dev is None)
        raise UserError(f"{without} is not set, and other parts have one; dev of all parts judges the run")
