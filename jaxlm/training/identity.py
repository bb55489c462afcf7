"""What the processes of a run must have read alike, and each start of it: batches, model and weights; the data."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxlm.atomic import write_atomically
from jaxlm.data.digest import digest
from jaxlm.errors import UserError
from jaxlm.parallel import distributed
from jaxlm.search.index import sha256_of_model
from jaxlm.training.setup import Setup


def identity(setup: Setup) -> dict[str, Any]:
    """Digests of a run's parts, by name. A process that read other data, or other weights, would train another model on
    its share of each batch, and nothing but the scores would tell."""
    found = {split: batches.digest() for split, batches in setup.batches.items()}
    found["model"] = digest([dataclasses.asdict(setup.bert_config)])
    found["weights"] = "" if setup.init is None else sha256_of_model(setup.init)
    return found | {"steps": setup.steps}


def write_data(setup: Setup, workdir: Path) -> None:
    """Notes which data a run is begun with; a later start leaves the note as it is."""
    path = workdir / "data.json"
    if not path.exists():
        write_atomically(path, json.dumps(_data(setup), indent=2) + "\n")


def check_data(setup: Setup, workdir: Path) -> None:
    """Makes sure that a run goes on with the data that it was begun with: on others, its order of batches, its schedule
    and its best checkpoint would be of no one run.

    Raises:
      UserError: they are others; the message names the split.
    """
    path = workdir / "data.json"
    noted = distributed.of_first("data of the run", json.loads(path.read_text()) if path.is_file() else None)
    now = _data(setup)
    if noted is not None and (changed := [split for split in now if noted.get(split) != now[split]]):
        raise UserError(
            f"{' and '.join(changed)}: the data are not those that the run in {workdir} was begun with. "
            "Put those back, or name another --workdir"
        )


def _data(setup: Setup) -> dict[str, str]:
    return {split: batches.data_digest() for split, batches in setup.batches.items()}
