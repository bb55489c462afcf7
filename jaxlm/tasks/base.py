"""What a task is: columns to features, head, loss, metrics, predictions."""

import abc
from typing import Any, ClassVar

import jax
import numpy as np

from jaxlm.config import Stage
from jaxlm.data.loader import Batch, Examples
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig
from jaxlm.models.hub import PretrainedModel

DeviceBatch = dict[str, jax.Array]
Metrics = dict[str, Any]


class Task(abc.ABC):
    """One way to use a BERT. A new task is a file with a subclass and a line in `jaxlm.tasks.TASKS`."""

    model_class: type[PretrainedModel]
    labelled: ClassVar[bool]  # whether its data needs a label column
    metric: ClassVar[str]  # what early stopping and the best checkpoint go by
    larger_is_better: ClassVar[bool]

    def __init__(self, stage: Stage, tokenizer: TextTokenizer):
        self.stage = stage
        self.tokenizer = tokenizer

    @abc.abstractmethod
    def examples(self, table: Table) -> tuple[Examples, int]:
        """Tokenises a table. Returns the examples and how many texts were cut."""

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

    @abc.abstractmethod
    def evaluation_sums(self, model: Any, batch: DeviceBatch) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Scalars to be added over all batches, and arrays `[rows, slots, ...]` to be collected by example."""

    @abc.abstractmethod
    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """The metrics of a split, from the added scalars and the collected arrays `[examples, ...]`."""

    def prediction(self, output: dict[str, np.ndarray]) -> dict[str, Any]:
        """What `predict` writes for one text, from its slice of the arrays that `evaluation_sums` collects."""
        raise UserError(f"predict does not serve {type(self).__name__} models yet")

    @abc.abstractmethod
    def description(self) -> str:
        """One sentence for the model card."""
