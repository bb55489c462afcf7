"""What the processes of a run must have read alike: batches, model and weights."""

import dataclasses
from typing import Any

from jaxlm.data.digest import digest
from jaxlm.search.index import sha256_of_model
from jaxlm.training.setup import Setup


def identity(setup: Setup) -> dict[str, Any]:
    """Digests of a run's parts, by name. A process that read other data, or other weights, would train another model on
    its share of each batch, and nothing but the scores would tell."""
    found = {split: batches.digest() for split, batches in setup.batches.items()}
    found["model"] = digest([dataclasses.asdict(setup.bert_config)])
    found["weights"] = "" if setup.init is None else sha256_of_model(setup.init)
    return found | {"steps": setup.steps}
