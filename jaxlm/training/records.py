"""What a run writes beside its checkpoints: config.json, metrics.jsonl, TensorBoard events, summary.json."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from jaxlm.atomic import write_atomically
from jaxlm.config import Config
from jaxlm.config_changes import changes, flatten
from jaxlm.errors import UserError


def scalars(metrics: dict[str, Any]) -> dict[str, float]:
    """The numbers among metrics; tables such as the confusion matrix are left out."""
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}


def check_workdir(workdir: Path, config: Config) -> list[str]:
    """Whether a run with this config may go on in this directory.

    Returns:
      Descriptions of the settings that differ from the saved ones and are applied.

    Raises:
      UserError: the directory holds something else, or the run in it has other settings that cannot be changed.
    """
    if not workdir.exists():
        return []
    if not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file; name a directory")
    saved = workdir / "config.json"
    if not saved.is_file():
        if any(not path.name.startswith(".") for path in workdir.iterdir()):  # hidden: what a kill at the start left
            raise UserError(f"--workdir {workdir} is not empty and holds no run; name another directory")
        return []
    try:
        old = json.loads(saved.read_text())["settings"]
    except (json.JSONDecodeError, KeyError, TypeError):
        raise UserError(f"{saved} is not the config of a run; name another --workdir") from None
    applied, refused = changes(old, config)
    if refused:
        raise UserError(
            f"--workdir {workdir} holds a run with other settings: {'; '.join(refused)}. "
            "Go on with the old settings, or name another --workdir"
        )
    return applied


def write_config(workdir: Path, config: Config) -> None:
    content = {"settings": flatten(config), "nested": dataclasses.asdict(config)}
    write_atomically(workdir / "config.json", json.dumps(content, indent=2) + "\n")


def read_summary(workdir: Path) -> dict[str, Any] | None:
    """The summary of a finished run; None where the run has not finished."""
    path = workdir / "summary.json"
    try:
        return json.loads(path.read_text()) if path.is_file() else None
    except json.JSONDecodeError:
        raise UserError(f"{path} is damaged; without it, the same command writes it again") from None


def write_summary(workdir: Path, summary: dict[str, Any]) -> None:
    write_atomically(workdir / "summary.json", json.dumps(summary, indent=2) + "\n")


def _tensorboard() -> Any:
    """tensorboardX, without PyTorch: it would import that, if there is one, which takes a second and serves nothing."""
    unwanted = "torch" not in sys.modules
    if unwanted:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        import tensorboardX
    finally:
        if unwanted:
            del sys.modules["torch"]
    return tensorboardX


class Recorder:
    """Appends to metrics.jsonl and to TensorBoard events.

    Of a run that was killed, the lines are dropped that it writes again: those of the training set past `step`, those
    of the dev set past `evaluated`, and all of the test set.
    """

    def __init__(self, workdir: Path, step: int, evaluated: int):
        last = {"train": step, "dev": evaluated, "test": -1}
        self._path = workdir / "metrics.jsonl"
        if self._path.exists():
            kept = []
            for line in self._path.read_text().splitlines():
                try:
                    row = json.loads(line)
                    if row["step"] <= last[row["split"]]:
                        kept.append(line)
                except (json.JSONDecodeError, KeyError):
                    break  # the kill cut the last line short
            write_atomically(self._path, "".join(f"{line}\n" for line in kept))
        self._writer = _tensorboard().SummaryWriter(str(workdir), purge_step=step + 1)

    def write(self, step: int, split: str, metrics: dict[str, Any]) -> None:
        """Records the scalars among `metrics`."""
        values = scalars(metrics)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "split": split} | values) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        self._writer.close()
