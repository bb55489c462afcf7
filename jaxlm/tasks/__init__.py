"""The tasks, one file each, and the tables that name them."""

from pathlib import Path

from jaxlm.errors import UserError
from jaxlm.models import BertConfig, hub
from jaxlm.models.embedding import has_modules
from jaxlm.models.names import canonical
from jaxlm.tasks.base import Task
from jaxlm.tasks.classification import Classification
from jaxlm.tasks.embedding import Embedding
from jaxlm.tasks.intent_slots import IntentAndSlots
from jaxlm.tasks.masked_lm import MaskedLM
from jaxlm.tasks.multi_label import MultiLabel
from jaxlm.tasks.multi_task import MultiTask
from jaxlm.tasks.question_answering import QuestionAnswering
from jaxlm.tasks.ranking import Ranking
from jaxlm.tasks.regression import Regression
from jaxlm.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    task.name: task
    for task in (
        Classification,
        Regression,
        MultiLabel,
        TokenClassification,
        IntentAndSlots,
        QuestionAnswering,
        Embedding,
        Ranking,
        MultiTask,
        MaskedLM,
    )
}


def task_of(directory: Path, config: BertConfig) -> type[Task]:
    """The task that a model directory serves: what its config says, else what its head is for.

    Raises:
      UserError: it has no head, or one that no task uses.
    """
    if (named := config.facts.get("task")) in TASKS:
        return TASKS[named]
    if config.architecture in (None, "BertModel", "BertForMaskedLM", "BertForPreTraining") and has_modules(directory):
        return Embedding
    names = hub.read_tensors(directory, values=False)
    if strange := next(
        (name for name in names if "embeddings." in name and not canonical(name).startswith("bert.")), ""
    ):
        raise UserError(f"{directory} has weights of other names than BERT's ({strange}; bert.embeddings... is meant)")
    heads = hub.heads_in(directory)
    if {"intent classifier", "slot classifier"} <= heads:
        return IntentAndSlots
    if "classifier" in heads:
        if config.architecture == "BertForTokenClassification":
            return TokenClassification
        if config.architecture == "BertForSequenceClassification" or config.architecture is None:
            by_problem: dict[str, type[Task]] = {"regression": Regression, "multi_label_classification": MultiLabel}
            scored: type[Task] = Regression if config.score_activation is None else Ranking
            one_output = scored if config.num_labels == 1 else Classification
            if config.problem_type == "regression" and config.num_labels != 1:
                raise UserError(
                    f"{directory} gives {config.num_labels} numbers for a text (problem_type regression); jaxlm's "
                    "regression gives one"
                )
            return by_problem.get(config.problem_type or "", one_output)
    elif "question-answering head" in heads:
        return QuestionAnswering
    elif "masked-LM head" in heads:
        return MaskedLM
    raise UserError(
        f"{directory} has no head that a task of jaxlm uses ({', '.join(TASKS)}); fine-tune it first: "
        f"python -m jaxlm train configs/sst2.py --model.init {directory}"
    )
