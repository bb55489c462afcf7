"""From a config to everything a training needs: task, tokenizer, model shape, planned batches, compiled step."""

import contextlib
import dataclasses
import logging
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from jaxlm.config import STRUCTURE, Config, ModelSettings, Part, as_part
from jaxlm.data.columns import NOTHING
from jaxlm.data.loader import Batches, Examples, make_batches
from jaxlm.data.part_batches import PartBatches, PartsInTurn
from jaxlm.data.sources import Table, counted
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.embed import check_ids
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, hub
from jaxlm.models.multi_task import SharedConfig, shape_of_head
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import compute_dtype, row_shards, row_slice
from jaxlm.parallel.sharding import check_model, laid_out, put_params, shardings
from jaxlm.tasks import TASKS, MultiTask, Task
from jaxlm.training.corpora import open_corpora, row_batches, uses_prepared_data
from jaxlm.training.optimizer import learning_rate_schedule, make_optimizer
from jaxlm.training.step import State, initial_state, make_train_step

log = logging.getLogger("jaxlm")


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run, ready to start; nothing has been written yet."""

    config: Config
    mesh: Mesh
    task: Task
    tokenizer: TextTokenizer
    bert_config: BertConfig
    init: Path | None  # directory of the weights to start from
    batches: dict[str, Any]  # Batches, RowBatches, PhasedBatches, PartBatches or PartsInTurn of "train", and of "dev"
    # and "test" where given
    notes: list[str]  # what the data turned out to be, a line a split
    steps: int
    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation

    @property
    def eval_every(self) -> int:
        return self.config.train.eval_every or self.batches["train"].steps_per_epoch

    def abstract_state(self) -> State:
        """The training state's shapes, and where they lie on this mesh."""
        params = self.task.model_class.abstract(self.bert_config)[1]
        return laid_out(jax.eval_shape(lambda p: initial_state(p, self.optimizer), params), self.mesh)

    def of_part(self, part: Part) -> "Setup":
        """The run as one of its parts sees it: what is written of a part is what a run of its own would write."""
        if not (isinstance(self.task, MultiTask) and isinstance(self.bert_config, SharedConfig)):
            raise TypeError(f"task {self.task.name} has no parts")
        others = ", ".join(other.name for other in self.config.parts if other != part)
        notes = [note.removeprefix(f"{part.name} ") for note in self.notes if note.startswith(f"{part.name} ")]
        return dataclasses.replace(
            self,
            config=as_part(self.config, part),
            task=self.task.parts[part.name],
            bert_config=self.bert_config.heads[part.name].config,
            notes=[*notes, f"trained on one encoder with other tasks: {others}"],
        )

    def initial_state(self) -> State:
        """The state of step 0: weights from `init` or at random, born on the mesh, each device with its own part."""
        key, layout = jax.random.key(self.config.seed), shardings(self.abstract_state(), self.mesh)
        model_class = self.task.model_class
        if self.init is None:
            params = jax.jit(
                lambda key: model_class.initial_params(self.bert_config, key), out_shardings=layout["params"]
            )(key)
        else:
            loaded = model_class.load_params(self.init, self.bert_config, key, new_heads=self.config.model.new_head)
            params = put_params(loaded, self.mesh)
        return jax.jit(lambda p: initial_state(p, self.optimizer), donate_argnums=0, out_shardings=layout)(params)

    def train_step(self) -> jax.stages.Wrapped:
        """The training step for this mesh: `step(state, batch) -> (state, metrics)`."""
        return make_train_step(
            self.graphdef,
            self.task.loss_weights,
            self.task.loss_sums,
            self.optimizer,
            learning_rate_schedule(self.config.optim, self.steps, self.config.train.phases),
            seed=self.config.seed,
            micro_batches=self.config.train.micro_batches,
            mesh=self.mesh,
            layout=shardings(self.abstract_state(), self.mesh),
        )

    def batch_shapes(self, number: int = 0) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of step `number`'s batch, of all processes together."""
        _, processes = row_slice(self.mesh)
        local = self.batches["train"](number)
        return {n: jax.ShapeDtypeStruct((processes * x.shape[0], *x.shape[1:]), x.dtype) for n, x in local.items()}

    def compile_train_step(self, number: int = 0) -> jax.stages.Compiled:
        """Compiles the training step for the shapes of step `number`, ahead of its batch."""
        return self.train_step().lower(self.abstract_state(), self.batch_shapes(number)).compile()


def set_up(config: Config, mesh: Mesh) -> Setup:
    """Reads and checks everything that a run needs.

    Raises:
      UserError, CheckpointError: settings, data or model are not usable.
    """
    init = None if config.model.init is None else hub.resolve(config.model.init, weights=not config.model.random_init)
    given = None if init is None else TASKS[config.task].model_class.read_config(init)
    # Before data are read; with a vocabulary that any mesh can split, where its size is not known yet.
    shape = given or _from_scratch(config.model, vocab_size=mesh.shape["tensor"])
    check_model(dataclasses.replace(shape, attention=config.model.attention), mesh)
    prepare = _from_parts if config.parts else _from_prepared if uses_prepared_data(config) else _from_tables
    tokenizer, task, bert_config, batches, notes, steps = prepare(config, mesh, init, given)
    check_model(bert_config, mesh)
    scans = scans_layers(config.model.layers, mesh.devices.flat[0].platform, bert_config.num_hidden_layers)
    bert_config = dataclasses.replace(
        bert_config, scan_layers=scans, remat=config.model.remat, attention=config.model.attention
    )
    dtype = compute_dtype(config.model.dtype, mesh)
    graphdef = task.model_class.abstract(bert_config, dtype)[0]
    weights = None if config.model.random_init else init
    return Setup(config, mesh, task, tokenizer, bert_config, weights, batches, notes, steps, graphdef,
                 make_optimizer(config.optim, steps, config.train.phases))  # fmt: skip


def check_next(stage: Config, before: Config, mesh: Mesh) -> None:
    """Finds what is wrong with a stage that starts from the model that another one makes, before that is trained: sets
    the stage up with a model and a tokenizer of that kind.

    Raises:
      UserError, CheckpointError: as `set_up`.
    """
    tokenizer = before.data.tokenizer
    if uses_prepared_data(before):
        tokenizer = str(open_corpora(before).tokenizer)
    data = dataclasses.replace(stage.data, tokenizer=tokenizer)
    set_up(dataclasses.replace(stage, model=before.model, data=data), mesh)


_Prepared = tuple[TextTokenizer, Task, BertConfig, dict[str, Any], list[str], int]


def _read_tables(config: Config) -> dict[str, Table]:
    tables: dict[str, Table] = {}
    for split in ("train", "dev", "test"):
        if (spec := getattr(config.data, split)) is not None:
            known = NOTHING if not tables else tables["train"].known
            tables[split] = table = TASKS[config.task].read(spec, split, config.data, known=known)
            if split != "train" and (table.texts, table.pairs) == (tables["train"].texts, tables["train"].pairs):
                log.warning("%s: %s has the texts of the training, row by row: nothing is held out", spec, split)
    return tables


def _from_tables(config: Config, mesh: Mesh, init: Path | None, given: BertConfig | None) -> _Prepared:
    """Examples in memory."""
    _refuse_phases(config)
    tables = _read_tables(config)
    tokenizer = _tokenizer(config, init, [tables["train"]])
    shape = _shape(config, given, tokenizer, config.data.max_length)
    task = TASKS[config.task].for_training(config, tokenizer, tables["train"], shape)
    task.columns = tables["train"].columns
    bert_config = task.configure(shape)
    notes: list[str] = []
    batches: dict[str, Any] = {}
    steps = 0
    for split, table in tables.items():
        examples, truncated = task.examples(table, training=split == "train")
        if split == "train":
            per_epoch = -(-examples.groups // config.train.batch_size)
            steps = config.train.steps or math.ceil(config.train.epochs * per_epoch - 1e-9)
        batches[split] = _batches(config, task, mesh, bert_config, examples, split, steps)
        notes.append(_note(split, task, examples, batches[split], truncated, table))
    return tokenizer, task, bert_config, batches, notes, steps


def _from_parts(config: Config, mesh: Mesh, init: Path | None, given: BertConfig | None) -> _Prepared:
    """Examples in memory, of several tasks."""
    _refuse_phases(config)
    stages = {part.name: as_part(config, part) for part in config.parts}
    tables: dict[str, dict[str, Table]] = {}
    for name, stage in stages.items():
        with _speaking_of(name):
            tables[name] = _read_tables(stage)
    tokenizer = _tokenizer(config, init, [of["train"] for of in tables.values()])
    longest = max(config.parts, key=lambda part: part.data.max_length)
    shape = _shape(config, given, tokenizer, longest.data.max_length, f"parts.{longest.name}.data.max_length")
    parts: dict[str, Task] = {}
    examples: dict[str, dict[str, tuple[Examples, int]]] = {}
    for name, stage in stages.items():
        with _speaking_of(name):
            labelled = shape_of_head(shape, name)
            parts[name] = TASKS[stage.task].for_training(stage, tokenizer, tables[name]["train"], labelled)
            parts[name].columns = tables[name]["train"].columns
            examples[name] = {
                split: parts[name].examples(table, training=split == "train") for split, table in tables[name].items()
            }
    task = MultiTask(config, tokenizer, parts)
    bert_config = task.configure(shape)

    sizes = {name: of["train"][0].groups for name, of in examples.items()}
    for part in config.parts:
        share = config.train.batch_size * sizes[part.name] / sum(sizes.values())
        train = dataclasses.replace(config.train, batch_size=part.batch_size or max(1, round(share)))
        stages[part.name] = dataclasses.replace(stages[part.name], train=train)
    epochs = {name: -(-sizes[name] // stage.train.batch_size) for name, stage in stages.items()}
    steps = config.train.steps or math.ceil(config.train.epochs * max(epochs.values()) - 1e-9)
    notes: list[str] = []
    batches: dict[str, dict[str, Batches]] = {}
    for name, stage in stages.items():
        for split, (own, truncated) in examples[name].items():
            with _speaking_of(name):
                made = _batches(stage, parts[name], mesh, bert_config, own, split, steps)
            batches.setdefault(split, {})[name] = made
            note = in_part(_note(split, parts[name], own, made, truncated, tables[name][split]), name)
            if split == "train":
                times = max(epochs.values()) / epochs[name]
                note += f", {stage.train.batch_size} of them a step, each {times:.3g} times an epoch"
            notes.append(f"{name} {note}")
    together = {split: PartBatches(of, steps) if split == "train" else PartsInTurn(of) for split, of in batches.items()}
    return tokenizer, task, bert_config, together, notes, steps


@contextlib.contextmanager
def _speaking_of(part: str) -> Iterator[None]:
    """Says in errors which part they are about, and calls settings by their names in it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"part {part}: {in_part(str(error), part)}") from None


def in_part(text: str, part: str) -> str:
    """A message with the flags that it names as those of a part."""
    text = text.replace("--train.metric", f"--parts.{part}.metric")
    return re.sub(r"--(data|labels|tags|qa|ranking)\.(?!tokenizer\b|vocab_size\b)", rf"--parts.{part}.\1.", text)


def _refuse_phases(config: Config) -> None:
    if config.train.phases:
        raise UserError("train.phases need prepared data: python -m jaxlm prepare CONFIG --output DIRECTORY")


def _from_prepared(config: Config, mesh: Mesh, init: Path | None, given: BertConfig | None) -> _Prepared:
    """Rows on disk."""
    corpora = open_corpora(config)
    tokenizer = TextTokenizer.load(corpora.tokenizer)
    for other, name in ((config.data.tokenizer, "data.tokenizer"), (init and config.model.init, "model.init")):
        if other and TextTokenizer.load(hub.resolve(other, weights=False)).vocab != tokenizer.vocab:
            raise UserError(
                f"{corpora.data[0].directory} was prepared with another vocabulary than --{name} {other} has"
            )
    lengths = [phase.max_length or config.data.max_length for phase in config.train.phases]
    shape = _shape(config, given, tokenizer, max([config.data.max_length, *lengths]))
    task = TASKS[config.task](config, tokenizer)
    batches, notes = row_batches(config, corpora, task, tokenizer, mesh)
    return tokenizer, task, task.configure(shape), dict(batches), notes, batches["train"].steps


def trains_tokenizer(config: Config) -> bool:
    """Whether a run makes a tokenizer of its own, which it has to keep: the next start would make another."""
    return config.data.tokenizer is None and config.model.init is None and not uses_prepared_data(config)


def _from_scratch(model: ModelSettings, vocab_size: int) -> BertConfig:
    return BertConfig(
        vocab_size=vocab_size,
        hidden_size=model.hidden_size,
        num_hidden_layers=model.num_hidden_layers,
        num_attention_heads=model.num_attention_heads,
        intermediate_size=model.intermediate_size or 4 * model.hidden_size,
        max_position_embeddings=model.max_position_embeddings,
        hidden_act=model.hidden_act,
        initializer_range=model.initializer_range,
        position_init=model.position_init,
    )


def scans_layers(setting: str, platform: str, layers: int) -> bool:
    """`auto` is a loop on GPUs, and on TPUs where one by one would take minutes to compile. A step takes longer as a
    loop: of MiniLM on CPU by a fifth; of BERT-base on a v5e by the compiler's estimate 77 instead of 44 ms, since a
    loop keeps what its backward pass reads in stacks of all layers."""
    if setting != "auto":
        return setting == "scan"
    return platform != "cpu" and not (platform == "tpu" and layers <= 12)


def _tokenizer(config: Config, init: Path | None, train: Sequence[Table]) -> TextTokenizer:
    if config.data.tokenizer is not None:
        tokenizer = TextTokenizer.load(hub.resolve(config.data.tokenizer, weights=False))
        if init is not None and not config.model.random_init and tokenizer.vocab != TextTokenizer.load(init).vocab:
            raise UserError(
                f"--data.tokenizer {config.data.tokenizer} has another vocabulary than the weights of "
                f"{config.model.init} were trained with; leave it out, or start at random: --model.random_init"
            )
        return tokenizer
    if init is not None:
        return TextTokenizer.load(init)
    # Many questions may share a context.
    texts = [text for of in train for text in (*of.texts, *dict.fromkeys(of.pairs or ()))]
    trained = None  # by one process for all
    if jax.process_index() == 0:
        trained = TextTokenizer.train(texts, config.data.vocab_size, config.data.lowercase).to_json()
    return TextTokenizer.from_json(distributed.of_first("tokenizer", trained))


def _shape(
    config: Config, given: BertConfig | None, tokenizer: TextTokenizer, longest: int, flag: str = "data.max_length"
) -> BertConfig:
    model = config.model
    if given is not None:
        shape = given
        if tokenizer.vocab_size > shape.vocab_size:
            raise UserError(
                f"{model.init}: the tokenizer knows {tokenizer.vocab_size} tokens, the model only {shape.vocab_size}"
            )
        for name in STRUCTURE:
            asked, found = getattr(model, name), getattr(shape, name)
            if asked not in (getattr(ModelSettings(), name), found):
                raise UserError(
                    f"--model.{name} is {asked}, and {model.init} has {found}: set it so, or start from a shape of "
                    "your own without --model.init"
                )
    else:
        shape = _from_scratch(model, tokenizer.vocab_size)
        shape = dataclasses.replace(shape, pad_token_id=tokenizer.special_ids["pad"])
    if longest > shape.max_position_embeddings:
        raise UserError(f"--{flag} is {longest}; the model has {shape.max_position_embeddings} positions")
    for name in ("initializer_range", "position_init"):  # of what is drawn anew
        if (asked := getattr(model, name)) != getattr(ModelSettings(), name):
            if name == "position_init" and given is not None and not model.random_init:
                raise UserError(f"--model.{name} is {asked}, but the positions of {model.init} are trained already")
            shape = dataclasses.replace(shape, **{name: asked})
    if model.hidden_dropout is not None:
        shape = dataclasses.replace(shape, hidden_dropout_prob=model.hidden_dropout)
    if model.attention_dropout is not None:
        shape = dataclasses.replace(shape, attention_probs_dropout_prob=model.attention_dropout)
    return shape


def _batches(
    config: Config, task: Task, mesh: Mesh, shape: BertConfig, examples: Examples, split: str, steps: int
) -> Batches:
    check_ids(shape, task.tokenizer, examples.input_ids, examples.token_type_ids)
    training = split == "train"
    micro_batches = config.train.micro_batches if training else 1
    process, processes = row_slice(mesh)
    return make_batches(
        examples,
        batch_size=config.train.batch_size if training else min(config.train.eval_batch_size, examples.groups),
        steps=steps if training else None,
        seed=config.seed if training else None,
        row_length=config.data.row_length,
        hidden_size=shape.hidden_size,
        row_multiple=row_shards(mesh) * micro_batches,
        side_by_side=micro_batches > 1,
        length_multiple=8 if mesh.devices.flat[0].platform == "cpu" else 128,
        # An evaluation's masks are those of step 0, whatever batch an example is in.
        finish=lambda batch, step: task.finish(batch, config.seed, step if training else 0),
        process=process,
        processes=processes,
    )


def _note(split: str, task: Task, examples: Examples, batches: Batches, truncated: int, table: Table) -> str:
    tokens = int(examples.offsets[-1])
    lengths = np.sort(examples.lengths)
    parts = [
        f"{split}: {examples.groups} examples{'' if examples.record is None else f' of {len(table)} rows'}, "
        f"{tokens} tokens "
        f"(median {lengths[len(lengths) // 2]}, longest {lengths[-1]})",
        f"rows of {batches.row_length}, {batches.rows} a step",
    ]
    if truncated:
        parts.append(task.describe_cut(truncated))
    if table.skipped:
        parts.append(f"left out: {counted(table.skipped)}")
    return ", ".join([*parts, *examples.remarks])
