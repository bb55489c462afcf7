"""The tasks, one file each, and the table that names them."""

from jaxlm.tasks.base import Task
from jaxlm.tasks.classification import Classification
from jaxlm.tasks.masked_lm import MaskedLM

TASKS: dict[str, type[Task]] = {"classification": Classification, "masked_lm": MaskedLM}
