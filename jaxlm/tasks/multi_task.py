"""Several tasks on one encoder: each part brings its own data, head, loss and metrics."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import Stage
from jaxlm.data.loader import Examples
from jaxlm.data.part_batches import of_part
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig
from jaxlm.models.multi_task import Head, MultiTaskBert, SharedConfig, shape_of_head
from jaxlm.tasks.base import DeviceBatch, Metrics, Outputs, Task


class MultiTask(Task):
    """`MultiTaskBert`: the loss is the sum over the parts of `weight` times the mean of a part's losses.

    Every step has a batch of every part (`jaxlm.data.part_batches`), which the shared encoder reads once for each; to a
    part, its batch and its loss are what they would be alone. The run is judged by the mean of the parts' own metrics,
    as benchmarks of several tasks are (GLUE; Wang et al. 2019), or by the sum of the losses. Each part is saved as the
    model that it is.
    """

    name = "multi_task"
    model_class = MultiTaskBert
    label_kind = None
    metrics_to_judge_by = ("mean", "loss")

    def __init__(self, stage: Stage, tokenizer: TextTokenizer, parts: Mapping[str, Task]):
        super().__init__(stage, tokenizer)
        self.parts = dict(parts)
        self.weights = {part.name: part.weight for part in stage.parts}

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        heads = ", ".join(f"MODEL/{name}" for name in config.facts.get("heads", ()))
        raise UserError(
            f"this model is the encoder that several tasks share; each has its own directory in it: {heads}"
        )

    @property
    def max_length(self) -> int:
        return max(part.max_length for part in self.parts.values())

    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        raise TypeError("the parts make their examples, each of a table of its own")

    def configure(self, config: BertConfig) -> BertConfig:
        heads = {
            name: Head(part.model_class.__name__, part.configure(shape_of_head(config, name)))
            for name, part in self.parts.items()
        }
        return SharedConfig.of(config, heads)

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        """Those of the parts, one after the other."""
        weights = [part.loss_weights(of_part(batch, name)) for name, part in self.parts.items()]
        return jnp.concatenate([jnp.atleast_1d(weight) for weight in weights])

    @property
    def loss_names(self) -> tuple[str, ...]:
        names = {name: part.loss_names for name, part in self.parts.items()}
        return tuple(f"{name}/{of}" if of else name for name, several in names.items() for of in several or ("",))

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        sums = []
        for number, (name, part) in enumerate(self.parts.items()):
            # Example 7 of one part and example 7 of another are two: their dropout masks must not be one.
            key = None if dropout_key is None else jax.random.fold_in(dropout_key, number)
            losses = part.loss_sums(model.part(name), of_part(batch, name), key)
            sums.append(self.weights[name] * jnp.atleast_1d(losses))
        return jnp.concatenate(sums)

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        raise TypeError("the parts count their own: step_flops")

    def step_flops(self, config: BertConfig, batches: Any, step: int, batch: DeviceBatch) -> float:
        heads = config.heads if isinstance(config, SharedConfig) else {}
        return sum(
            part.step_flops(heads[name].config, batches.parts[name], step, of_part(batch, name))
            for name, part in self.parts.items()
        )

    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        """Of the parts that the batch has arrays of; what they give is named `NAME/output`."""
        found: dict[str, dict[str, jax.Array]] = {item.name: {} for item in dataclasses.fields(Outputs)}
        for name, part in self.parts.items():
            if own := of_part(batch, name):
                outputs = part.evaluate(model.part(name), own)
                for kind, arrays in found.items():
                    arrays |= {f"{name}/{key}": value for key, value in getattr(outputs, kind).items()}
        return Outputs(**found)

    def calibrate(self, outputs: dict[str, np.ndarray], examples: Any) -> None:
        for name, own in examples.items():
            self.parts[name].calibrate(of_part(outputs, name), own)

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Any) -> Metrics:
        """The parts' metrics, named `NAME/metric`; `mean`, of those that the parts are judged by, each as a share of
        its best value; and `loss`, what training makes smaller.

        Args:
          examples: by part.
        """
        loss = 0.0
        judged: list[float] = []
        metrics: Metrics = {}
        for name, own in examples.items():
            part = self.parts[name]
            found = part.metrics(of_part(sums, name), of_part(outputs, name), own)
            loss += self.weights[name] * found["loss"]
            judged.append(found[part.metric] / part.best_metric)
            metrics |= {f"{name}/{key}": value for key, value in found.items()}
        return {"mean": sum(judged) / len(judged), "loss": loss, **metrics}

    def save(self, directory: Path, config: BertConfig, params: Any) -> None:
        """Writes the encoder; the parts are written like models of their own."""
        if not isinstance(config, SharedConfig):
            raise TypeError("a config that `configure` made is meant")
        config = dataclasses.replace(config, facts={"task": self.name})
        max_shard_size = round(self.stage.train.max_shard_size * 10**9)
        MultiTaskBert.save_encoder(directory, config, params, max_shard_size=max_shard_size)

    def description(self) -> str:
        parts = "".join(f"\n- `{name}`: {part.description()}" for name, part in self.parts.items())
        return (
            f"The encoder that {len(self.parts)} tasks share. Each has a model of its own, in the directory:\n{parts}"
        )

    def predict_commands(self, directory: str) -> list[str]:
        return [
            command for name, part in self.parts.items() for command in part.predict_commands(f"{directory}/{name}")
        ]

    def usage(self) -> str:
        here = "PATH_OF_THIS_DIRECTORY"
        return "\n\n".join(part.usage().replace(here, f"{here}/{name}") for name, part in self.parts.items())
