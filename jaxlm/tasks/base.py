"""What a task is: rows to features, head, loss, metrics, predictions."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np

from jaxlm.config import DataSettings, Stage
from jaxlm.data.columns import NOTHING, Known
from jaxlm.data.labels import LabelKind
from jaxlm.data.loader import Batch, Examples
from jaxlm.data.sources import Table, read_table, table_of_texts
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig
from jaxlm.models.hub import PretrainedModel

DeviceBatch = dict[str, jax.Array]
Metrics = dict[str, Any]

_COLUMNS = ("text", "text_pair", "negative", "label", "words", "tags")  # settings that name one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """What one batch gives an evaluation."""

    sums: Any = dataclasses.field(default_factory=dict)  # scalars by name, to be added over all batches
    by_example: Any = dataclasses.field(default_factory=dict)  # `[rows, slots, ...]`, to be collected by example
    by_token: Any = dataclasses.field(default_factory=dict)  # `[rows, length, ...]`, to be collected by token


def model_inputs(batch: DeviceBatch) -> dict[str, jax.Array]:
    """What every model takes of a packed batch, by the names of its arguments."""
    return {
        "input_ids": batch["input_ids"],
        "token_type_ids": batch["token_type_ids"],
        "position_ids": batch["positions"],
        "segment_ids": batch["segment_ids"],
        "example_ids": batch["example_ids"],
    }


class Task(abc.ABC):
    """One way to use a BERT. A new task is a file with a subclass and a line in `jaxlm.tasks.TASKS`."""

    name: ClassVar[str]
    model_class: type[PretrainedModel]
    label_kind: ClassVar[LabelKind | None]  # what its data's label column holds; None: it has none
    metrics_to_judge_by: ClassVar[tuple[str, ...]]  # the best checkpoint goes by the first, unless set otherwise
    best_metric: ClassVar[float] = 1.0  # the best value of these, but for losses; 100 where they are per cent
    score_activation: ClassVar[str | None] = None  # see `BertConfig`
    library: ClassVar[str] = "transformers"  # which opens the exported directory, as `usage` shows

    def __init__(self, stage: Stage, tokenizer: TextTokenizer):
        self.stage = stage
        self.tokenizer = tokenizer
        self.metric = stage.train.metric or self.metrics_to_judge_by[0]
        if self.metric not in self.metrics_to_judge_by:
            known = ", ".join(self.metrics_to_judge_by)
            raise UserError(f"--train.metric is {self.metric}; {self.name} is judged by one of {known}")
        self.larger_is_better = self.metric != "loss"
        self.pairs = False  # whether it was trained on pairs of texts
        self.columns: Mapping[str, str] = {}  # that served the training, as in `Known`

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        """The task as a training table defines it; `shape` is the config of the model that the run starts from."""
        return cls(stage, tokenizer)

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        """The task that a trained model serves, by its config and by the `facts` in it."""
        return cls(stage, tokenizer)

    @classmethod
    def read(
        cls, spec: str, split: str, settings: DataSettings, *, labelled: bool = True, known: Known = NOTHING
    ) -> Table:
        """Reads the data that a setting names; see `jaxlm.data.sources.read_table`, which serves most tasks.

        Args:
          labelled: whether the answers are wanted too (not for `predict`).
          known: what the training's data, or the model, tell of the file.
        """
        return read_table(spec, split, settings, label_kind=cls.label_kind if labelled else None, known=known)

    @classmethod
    def from_texts(
        cls, source: str, texts: Sequence[str | bytes], pairs: Sequence[str] | None, settings: DataSettings
    ) -> Table:
        """A table, without answers, of texts from the command line; `pairs` are the `--text_pair`s."""
        return table_of_texts(source, texts, settings, pairs)

    @abc.abstractmethod
    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        """Tokenises a table; `training` leaves out what only an evaluation has a use for. Returns the examples and how
        many texts were cut."""

    def to_predict(self, table: Table) -> Table:
        """The rows of a table that `predict` serves; others stop, or are counted in `skipped`, as `data.bad_rows` says.

        Raises:
          UserError: of a row that it does not serve, or there are no others.
        """
        return table

    def examples_to_predict(self, table: Table) -> tuple[Examples, int]:
        """`examples` for `predict`, of a table without answers."""
        return self.examples(table)

    @property
    def loss_names(self) -> tuple[str, ...]:
        """What the log calls the losses of `loss_sums`, where there are several."""
        return ()

    @property
    def max_length(self) -> int:
        """Tokens where texts are cut."""
        return self.stage.data.max_length

    def describe_cut(self, count: int) -> str:
        """What `examples` cut, for a person."""
        return f"{count} texts cut to {self.stage.data.max_length} tokens (--data.max_length)"

    def configure(self, config: BertConfig) -> BertConfig:
        """The model's config with what the task knows of it, such as the labels."""
        return config

    def finish(self, batch: Batch, seed: int, step: int) -> Batch:
        """Adds to a packed batch on the host what the task needs beyond tokens."""
        return batch

    @abc.abstractmethod
    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        """What the batch's losses count: the number of examples, or of masked tokens; a vector for several losses."""

    @abc.abstractmethod
    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        """The sum of the batch's losses, or of several losses, as `loss_weights` counts them. The loss is
        `sum(loss_sums / loss_weights)`, each taken over all devices and micro-batches."""

    @abc.abstractmethod
    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        """Model FLOPs of a training step (`jaxlm.training.flops`) over real tokens and examples."""

    def step_flops(self, config: BertConfig, batches: Any, step: int, batch: DeviceBatch) -> float:
        """`flops` of a training step, over all processes; `batch` is that of `batches` at `step`."""
        return self.flops(config, batches.tokens(step), batches.count(step), batch["input_ids"].shape[1])

    @abc.abstractmethod
    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        """What a batch gives an evaluation or a prediction."""

    def calibrate(self, outputs: dict[str, np.ndarray], examples: Examples) -> None:
        """Chooses on dev what training leaves open, such as a threshold; later metrics and predictions use it."""
        return None

    @abc.abstractmethod
    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """The metrics of a split, from the added scalars and the collected arrays `[examples or tokens, ...]`."""

    def prediction(self, output: dict[str, np.ndarray]) -> dict[str, Any]:
        """What `predict` writes for one example, from its slice of the arrays that `evaluate` gives by example."""
        raise UserError(f"predict does not serve {self.name} models")

    def predictions(self, outputs: dict[str, np.ndarray], examples: Examples) -> Iterator[dict[str, Any]]:
        """What `predict` writes, one for each row of the table, in order."""
        for index in range(len(examples)):
            yield self.prediction({name: values[index] for name, values in outputs.items()})

    def summary(self, prediction: dict[str, Any]) -> str:
        """A prediction in a few words, for a person."""
        return ", ".join(f"{name} {value}" for name, value in prediction.items())

    def verdict(self, prediction: dict[str, Any], table: Table, row: int) -> str:
        """How a prediction compares with the table's answer, for a person."""
        truth = (table.labels or [])[row]
        return "right" if prediction.get("label") == truth else f"it is {truth}"

    def facts(self) -> dict[str, Any]:
        """What a model directory has to remember for `for_model`, as JSON; `calibrate`'s choices among it."""
        return {}

    def save(self, directory: Path, config: BertConfig, params: Any) -> None:
        """Writes config and weights of a trained model; `facts` go with them. To be called by every process."""
        chosen = {name: getattr(self.stage.data, name) for name in _COLUMNS}
        columns = dict(self.columns) or {name: column for name, column in chosen.items() if column}
        facts = {"task": self.name, "pairs": self.pairs, "columns": columns}
        facts = {name: fact for name, fact in facts.items() if fact} | self.facts()
        config = dataclasses.replace(config, facts=facts, score_activation=self.score_activation)
        max_shard_size = round(self.stage.train.max_shard_size * 10**9)
        self.model_class.save_params(directory, config, params, max_shard_size=max_shard_size)

    @abc.abstractmethod
    def description(self) -> str:
        """One sentence for the model card."""

    @classmethod
    def predict_flags(cls, pairs: bool) -> str:
        """An example of what `predict` reads; `pairs`: it was trained on pairs of texts."""
        return '--text "a text" --text_pair "its second text"' if pairs else '--text "a text of your own"'

    def predict_commands(self, directory: str) -> list[str]:
        """How `predict` is called with the exported directory."""
        return [f"python -m jaxlm predict {directory} {self.predict_flags(self.pairs)}"]

    def usage(self) -> str:
        """Python that uses the exported directory with `transformers`, for the model card."""
        name = self.model_class.__name__
        return f"""from transformers import AutoTokenizer, {name}

tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_DIRECTORY")
model = {name}.from_pretrained("PATH_OF_THIS_DIRECTORY")
logits = model(**tokenizer("A text.", truncation=True, return_tensors="pt")).logits"""
