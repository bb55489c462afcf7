"""Using a trained model directory: predictions for texts, metrics for labelled files."""

import dataclasses
import logging
from collections.abc import Iterator
from typing import Any, Literal

import jax
from flax import nnx
from jax.sharding import Mesh

from jaxlm.config import Config, DataSettings, Dtype
from jaxlm.data.columns import Known
from jaxlm.data.loader import Examples, make_batches
from jaxlm.data.sources import Table
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.embed import check_finite, check_ids, text_length
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, hub
from jaxlm.parallel import distributed
from jaxlm.parallel.mesh import compute_dtype, row_shards, row_slice, tokens_at_once
from jaxlm.parallel.sharding import check_model, put_params
from jaxlm.search.index import sha256_of_model
from jaxlm.tasks import Task, task_of
from jaxlm.tasks.base import Metrics
from jaxlm.tasks.sequence import SequenceTask
from jaxlm.training.evaluation import Evaluator

log = logging.getLogger("jaxlm")

_ROW_LENGTHS = (32, 64, 128, 256, 384, 512)  # few shapes, so that the compilation cache is hit


class Predictor:
    """A model directory, loaded and ready.

    Args:
      name_or_dir: hub name or directory.
      mesh: the devices.
      batch_size: examples that are computed at once. None: what keeps the devices busy.
      max_length: where texts are cut; None for what the tokenizer's files say.
      bad_rows: whether `evaluate` stops at a label that the model does not know, and `to_predict` at a row that it
        does not serve, or leaves the row out.
      dtype: what products are computed in; auto is bfloat16 on TPU and GPU, float32 on CPU.
      kind: the task to use it for, where it could serve several; None for what `task_of` finds.

    Raises:
      CheckpointError, UserError: the directory cannot be used.
    """

    def __init__(
        self, name_or_dir: str, mesh: Mesh, *, batch_size: int | None = None, max_length: int | None = None,
        bad_rows: Literal["error", "skip"] = "error", seed: int = 0, dtype: Dtype = "auto",
        kind: type[Task] | None = None,
    ):  # fmt: skip
        self._name = name_or_dir
        directory = hub.resolve(name_or_dir)
        if jax.process_count() > 1:
            distributed.agree(name_or_dir, sha256_of_model(directory))
        kind = kind or task_of(directory, BertConfig.from_json(directory / "config.json"))
        self.config = kind.model_class.read_config(directory)
        check_model(self.config, mesh)
        self.tokenizer = TextTokenizer.load(directory)
        self.max_length = text_length(self.config, self.tokenizer, max_length)
        self._mesh, self._batch_size, self._seed = mesh, batch_size, seed
        stage = Config(data=DataSettings(max_length=self.max_length, bad_rows=bad_rows))
        self.task: Task = kind.for_model(stage, self.tokenizer, self.config)
        params = self.task.model_class.load_params(directory, self.config, jax.random.key(seed), whole=True)
        self._params = put_params(params, mesh)
        graphdef: nnx.GraphDef = self.task.model_class.abstract(self.config, compute_dtype(dtype, mesh))[0]
        self._evaluator = Evaluator(self.task, graphdef, mesh)

    @property
    def known(self) -> Known:
        """What the model tells of a file: the names of its classes, and the columns that served its training."""
        return Known(frozenset(self.config.id2label.values()), self.config.facts.get("columns", {}))

    def read(self, spec: str, settings: DataSettings, *, labelled: bool = True) -> Table:
        """Reads data for `predict` or, `labelled`, for `evaluate`; where `settings` choose no columns, those that were
        served the training do, if they are there."""
        settings = dataclasses.replace(settings, pairs=settings.pairs or bool(self.config.facts.get("pairs")))
        return self.task.read(spec, "test", settings, labelled=labelled, known=self.known)

    def _check_pairs(self, table: Table) -> None:
        if self.config.facts.get("pairs") and table.pairs is None:
            raise UserError(
                f"{table.source}: the model was trained on pairs of texts, and here are single ones; which column is "
                "the second text? --data.text_pair NAME (--text_pair beside each --text)"
            )
        single = "task" in self.config.facts and not self.config.facts.get("pairs")  # of others nothing is known
        if single and isinstance(self.task, SequenceTask) and table.pairs is not None:
            raise UserError(
                f"{table.source}: the model was trained on single texts, and here are pairs; which column is the text? "
                "--data.text NAME"
            )

    def _outputs(self, examples: Examples) -> tuple[Any, Any]:
        for remark in examples.remarks:
            log.info("%s: %s", examples.source, remark)
        check_ids(self.config, self.tokenizer, examples.input_ids, examples.token_type_ids)
        if jax.process_count() > 1:
            distributed.agree(f"what is in {examples.source}", examples.digest())
        longest = int(examples.lengths.max())
        row_length = next((length for length in _ROW_LENGTHS if length >= longest), longest)
        at_once = self._batch_size
        if at_once is None:  # of short rows more, so that a batch always fills several
            tokens = max(tokens_at_once(self._mesh), 8 * row_shards(self._mesh) * row_length)
            at_once = max(1, tokens * examples.groups // int(examples.lengths.sum()))
        process, processes = row_slice(self._mesh)
        batches = make_batches(
            examples,
            batch_size=min(at_once, examples.groups),
            steps=None,
            seed=None,
            row_length=row_length,
            hidden_size=self.config.hidden_size,
            row_multiple=row_shards(self._mesh),
            finish=lambda batch, step: self.task.finish(batch, self._seed, 0),  # masks do not depend on the batch
            process=process,
            processes=processes,
        )
        sums, outputs = self._evaluator.outputs(self._params, batches)
        check_finite(self._name, *sums.values(), *outputs.values())
        return sums, outputs

    def to_predict(self, table: Table) -> Table:
        """The rows of a table that `predict` serves; see `Task.to_predict`."""
        return self.task.to_predict(table)

    def predict(self, table: Table) -> Iterator[dict[str, Any]]:
        """One prediction for each row of a table, in order."""
        predictions, truncated = self.predictions(table)
        if truncated:
            log.warning("%s: %s", table.source, self.task.describe_cut(truncated))
        yield from predictions

    def predictions(self, table: Table) -> tuple[Iterator[dict[str, Any]], int]:
        """As `predict`, and how many texts were cut, which is for the caller to say."""
        self._check_pairs(table)
        examples, truncated = self.task.examples_to_predict(table.unlabelled())
        return self._predicted(examples), truncated

    def _predicted(self, examples: Examples) -> Iterator[dict[str, Any]]:
        _, outputs = self._outputs(examples)
        yield from self.task.predictions(outputs, examples)

    def evaluate(self, table: Table) -> tuple[Metrics, int]:
        """The task's metrics over a table, exactly; and how many texts were cut."""
        self._check_pairs(table)
        examples, truncated = self.task.examples(table)
        sums, outputs = self._outputs(examples)
        return self.task.metrics(sums, outputs, examples), truncated
