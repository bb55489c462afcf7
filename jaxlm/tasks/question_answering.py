"""Extractive question answering: the answer to a question is a span of a context, or, in SQuAD 2.0, there is none."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Self, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxlm.config import AnswerSettings, DataSettings, Stage
from jaxlm.data.columns import NOTHING, Known, with_columns
from jaxlm.data.loader import Examples
from jaxlm.data.sources import Table
from jaxlm.data.squad import QuestionTable, questions_of_texts, read_questions
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, BertForQuestionAnswering
from jaxlm.tasks.answer_spans import Candidate, Candidates, find_answers
from jaxlm.tasks.base import DeviceBatch, Metrics, Outputs, Task, model_inputs
from jaxlm.tasks.question_windows import SPECIAL_TOKENS, Tokenized, Windows, answer_tokens, make_windows, targets
from jaxlm.tasks.squad_scores import best_threshold, score
from jaxlm.training.flops import train_flops

_REMEMBERED = ("stride", "max_question_length", "max_answer_length", "n_best")  # of `AnswerSettings`, in a model


class QuestionAnswering(Task):
    """`BertForQuestionAnswering` (Devlin et al. 2019, sections 4.2 and 4.3): each window of a context is an example.

    The loss of a window is the mean of two cross-entropies, of the answer's first and last token among all of the
    window's tokens; a window without the answer is to point at its [CLS]. Whether there may be no answer is told by the
    training data; of a model that others trained, by the questions that it is evaluated on, and where there is no
    telling it gives an answer, as transformers' pipeline does.
    """

    name = "question_answering"
    model_class = BertForQuestionAnswering
    label_kind = None
    metrics_to_judge_by = ("f1", "exact_match", "loss")
    best_metric = 100.0

    def __init__(
        self, stage: Stage, tokenizer: TextTokenizer, *, unanswerable: bool | None, null_threshold: float = 0.0
    ):
        super().__init__(stage, tokenizer)
        self._untold = unanswerable is None
        self.unanswerable = bool(unanswerable)
        self.null_threshold = null_threshold if stage.qa.null_threshold is None else stage.qa.null_threshold
        least = stage.qa.max_question_length + SPECIAL_TOKENS + 1
        if stage.data.max_length < least:
            raise UserError(
                f"--data.max_length is {stage.data.max_length}; it must be at least {least}: [CLS], a question of up "
                f"to {stage.qa.max_question_length} tokens, [SEP], a token of context, [SEP]"
            )

    @classmethod
    def for_training(cls, stage: Stage, tokenizer: TextTokenizer, train: Table, shape: BertConfig) -> Self:
        return cls(stage, tokenizer, unanswerable=any(cast(QuestionTable, train).impossible or []))

    @classmethod
    def for_model(cls, stage: Stage, tokenizer: TextTokenizer, config: BertConfig) -> Self:
        facts = config.facts
        settings = {name: int(facts[name]) for name in _REMEMBERED if name in facts}
        half = (stage.data.max_length - SPECIAL_TOKENS) // 2  # of a model of few positions that others trained
        settings.setdefault("max_question_length", max(min(stage.qa.max_question_length, half), 1))
        stage = dataclasses.replace(stage, qa=AnswerSettings(**settings))
        return cls(stage, tokenizer, unanswerable=facts.get("unanswerable"),
                   null_threshold=float(facts.get("null_threshold", 0.0)))  # fmt: skip

    @classmethod
    def read(
        cls, spec: str, split: str, settings: DataSettings, *, labelled: bool = True, known: Known = NOTHING
    ) -> Table:
        def read(settings: DataSettings) -> Table:
            return read_questions(spec, split, settings, labelled=labelled)

        return with_columns(known.columns, settings, read)

    @classmethod
    def from_texts(
        cls, source: str, texts: Sequence[str | bytes], pairs: Sequence[str] | None, settings: DataSettings
    ) -> Table:
        return questions_of_texts(source, texts, pairs, settings)

    def facts(self) -> dict[str, Any]:
        settings = {name: getattr(self.stage.qa, name) for name in _REMEMBERED}
        return settings | {"unanswerable": self.unanswerable, "null_threshold": self.null_threshold}

    def configure(self, config: BertConfig) -> BertConfig:
        return dataclasses.replace(config, problem_type=None)

    def examples(self, table: Table, *, training: bool = False) -> tuple[Examples, int]:
        """Windows; those of a question follow each other. Their `records` are `Windows`.

        Raises:
          UserError: there is no token in an answer that is to be learnt (unless `data.bad_rows` is "skip").
        """
        questions, settings = cast(QuestionTable, table), self.stage.qa
        if self._untold:
            self.unanswerable = not all(questions.answers or [True])
        found = Tokenized.of(questions, self.tokenizer, settings.max_question_length)
        answers: list[tuple[int, int] | None] = []
        if questions.answers is not None:
            answers = [
                answer_tokens(context.spans, given[0]) if given else None  # the first answer is the one to learn
                for context, given in zip(found.contexts, questions.answers, strict=True)
            ]
            lost = [row for row, given in enumerate(questions.answers) if given and answers[row] is None]
            if lost:
                self._report(questions, lost)
                kept = np.setdiff1d(np.arange(len(questions)), lost)
                questions, answers = cast(QuestionTable, questions.choose(kept)), [answers[row] for row in kept]
                found = Tokenized.of(questions, self.tokenizer, settings.max_question_length)
        windows, tokens = make_windows(questions, found, self.tokenizer, self.stage.data.max_length, settings)
        values = {}
        if questions.answers is not None:
            values = dict(zip(("start_positions", "end_positions"), targets(windows, answers), strict=True))
        places = [questions.places[row] for row in windows.question]
        return Examples(
            tokens.input_ids, tokens.token_type_ids, tokens.offsets, values, places, questions.source,
            records=windows, record=windows.question,
        ), found.cut  # fmt: skip

    def _report(self, table: QuestionTable, lost: list[int]) -> None:
        """Stops at an answer without tokens, or counts such."""
        text = (table.answers or [])[lost[0]][0][0]
        if self.stage.data.bad_rows == "error":
            raise UserError(
                f"{table.source}, {table.places[lost[0]]}: the answer {text!r} has no token of its own; correct it, or "
                "pass --data.bad_rows skip"
            )
        if len(lost) == len(table):
            raise UserError(f"{table.source}: no answer has a token, such as {text!r}")
        table.skipped["answer without a token"] = len(lost)

    @classmethod
    def predict_flags(cls, pairs: bool) -> str:
        return '--text "a question" --text_pair "a text that answers it"'

    def describe_cut(self, count: int) -> str:
        return f"{count} questions cut to {self.stage.qa.max_question_length} tokens (--qa.max_question_length)"

    def _logits(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Of each token as the answer's first, and as its last: `[rows, length]` each."""
        return model(**model_inputs(batch), dropout_key=dropout_key)

    def loss_weights(self, batch: DeviceBatch) -> jax.Array:
        return batch["example_weights"].sum()

    def loss_sums(self, model: Any, batch: DeviceBatch, dropout_key: jax.Array | None) -> jax.Array:
        return self._loss_sum(*self._logits(model, batch, dropout_key), batch)

    def _loss_sum(self, start_logits: jax.Array, end_logits: jax.Array, batch: DeviceBatch) -> jax.Array:
        starts = window_losses(start_logits, batch["start_positions"], batch)
        ends = window_losses(end_logits, batch["end_positions"], batch)
        return ((starts + ends) / 2 * batch["example_weights"]).sum()

    def flops(self, config: BertConfig, tokens: float, examples: float, row_length: int) -> float:
        return train_flops(config, tokens=tokens, row_length=row_length, scored=tokens, token_classes=2)

    def evaluate(self, model: Any, batch: DeviceBatch) -> Outputs:
        starts, ends = self._logits(model, batch, None)
        sums = {}
        if "start_positions" in batch:
            sums = {"loss": self._loss_sum(starts, ends, batch), "weight": self.loss_weights(batch)}
        return Outputs(sums, by_token={"start_logits": starts, "end_logits": ends})

    def _candidates(self, outputs: dict[str, np.ndarray], examples: Examples) -> Iterator[Candidates]:
        logits = outputs["start_logits"], outputs["end_logits"]
        return find_answers(examples.records, examples.offsets, *logits, self.stage.qa)

    def calibrate(self, outputs: dict[str, np.ndarray], examples: Examples) -> None:
        """Chooses `null_threshold` where it is not set and the questions of dev are of both kinds."""
        table = cast(Windows, examples.records).table
        answerable = np.array([bool(given) for given in table.answers or []])
        if (
            not self.unanswerable
            or self.stage.qa.null_threshold is not None
            or answerable.all()
            or not answerable.any()
        ):
            return
        found = list(self._candidates(outputs, examples))
        pairs = zip(found, table.truths, strict=True)
        f1 = [score(given.best.text, truths, version_2=True)[1] for given, truths in pairs]
        differences = np.array([given.null_difference for given in found])
        self.null_threshold, _ = best_threshold(np.array(f1), differences, answerable)

    def metrics(self, sums: dict[str, float], outputs: dict[str, np.ndarray], examples: Examples) -> Metrics:
        """Loss of a window; exact match and F1 in per cent, and where there are questions without an answer the same
        for them (NoAns) and the others (HasAns), by the official rules (`jaxlm.tasks.squad_scores`)."""
        table = cast(Windows, examples.records).table
        answerable = np.array([bool(given) for given in table.answers or []])
        version_2 = not answerable.all()
        found = self._candidates(outputs, examples)
        pairs = zip(found, table.truths, strict=True)
        scores = 100.0 * np.array(
            [score(self._chosen(given).text, truths, version_2=version_2) for given, truths in pairs]
        )
        metrics: Metrics = {
            "loss": sums["loss"] / sums["weight"],
            "exact_match": float(scores[:, 0].mean()),
            "f1": float(scores[:, 1].mean()),
            "examples": len(table),
            "windows": len(examples),
        }
        for name, chosen in (("HasAns", answerable), ("NoAns", ~answerable)):
            if version_2 and chosen.any():
                exact, f1 = scores[chosen].mean(0).tolist()
                metrics |= {f"{name}_exact": exact, f"{name}_f1": f1, f"{name}_total": int(chosen.sum())}
        return metrics | ({"null_threshold": self.null_threshold} if self.unanswerable else {})

    def _chosen(self, found: Candidates) -> Candidate:
        return found.chosen(self.null_threshold if self.unanswerable else None)

    def predictions(self, outputs: dict[str, np.ndarray], examples: Examples) -> Iterator[dict[str, Any]]:
        """`{"id": "7", "answer": "Denver Broncos", "start": 177, "end": 191, "probability": 0.93, "n_best": [...]}`.

        `start` and `end` are characters of the context, null where there is no answer; `n_best` lists up to
        `qa.n_best` answers, and "" where there may be none, likeliest first; probabilities are relative to these.
        """
        table = cast(Windows, examples.records).table
        for identity, found in zip(table.ids, self._candidates(outputs, examples), strict=True):
            chosen = self._chosen(found)
            ranked = [_fields(candidate, probability) for candidate, probability in found.ranked(self.unanswerable)]
            mine = next(fields for fields in ranked if fields["start"] == chosen.start and fields["end"] == chosen.end)
            yield {"id": identity} | mine | {"n_best": ranked}

    def summary(self, prediction: dict[str, Any]) -> str:
        answer = f'"{prediction["answer"]}"' if prediction["answer"] else "no answer"
        return f"{answer} ({prediction['probability']:.2f})"

    def verdict(self, prediction: dict[str, Any], table: Table, row: int) -> str:
        truths = cast(QuestionTable, table).truths[row]
        if score(prediction["answer"], truths, version_2=True)[0]:
            return "right"
        return f'it is "{truths[0]}"' if truths else "it has no answer there"

    def description(self) -> str:
        none = ", or says that it has none" if self.unanswerable else ""
        return f"Finds the answer to a question in a text{none}."

    def usage(self) -> str:
        return """import torch
from transformers import AutoTokenizer, BertForQuestionAnswering

tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_DIRECTORY")
model = BertForQuestionAnswering.from_pretrained("PATH_OF_THIS_DIRECTORY")
question, context = "Who wrote Emma?", "Emma is a novel by Jane Austen."
inputs = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
spans = inputs.pop("offset_mapping")[0]
with torch.no_grad():
    outputs = model(**inputs)
scores = outputs.start_logits[0, :, None] + outputs.end_logits[0, None, :]
inside = torch.tensor([part == 1 for part in inputs.sequence_ids()])
scores = scores.masked_fill(~(inside[:, None] & inside[None, :]).triu(), float("-inf"))
start, end = divmod(int(scores.argmax()), scores.shape[1])
answer = context[spans[start, 0] : spans[end, 1]]"""


def window_losses(logits: jax.Array, positions: jax.Array, batch: DeviceBatch) -> jax.Array:
    """Cross-entropy of one token of each window against the window's other tokens, `[rows, slots]`.

    Neighbours in the row and padding take no part, so that it does not matter where a window lies.

    Args:
      logits: `[rows, length]` float32.
      positions: `[rows, slots]`, the token meant, counted from the window's first.
    """
    slots = jnp.arange(1, positions.shape[1] + 1)
    inside = batch["segment_ids"][:, None, :] == slots[None, :, None]
    inside |= batch["example_weights"][..., None] == 0  # an empty slot counts nothing, but must stay finite
    totals = jax.nn.logsumexp(jnp.where(inside, logits[:, None, :], -jnp.inf), axis=-1)
    return totals - jnp.take_along_axis(logits, batch["pool_positions"] + positions, axis=1)


def _fields(candidate: Candidate, probability: float) -> dict[str, Any]:
    return {"answer": candidate.text, "start": candidate.start, "end": candidate.end, "probability": probability}
