"""The model card: what a model directory says of itself to whoever finds it."""

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jaxlm
from jaxlm.atomic import write_atomically
from jaxlm.config_changes import flatten
from jaxlm.tasks import Task
from jaxlm.training.records import scalars
from jaxlm.training.setup import Setup

_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "tokenizers")


def write_model_card(directory: Path, setup: Setup, results: dict[str, Any]) -> None:
    """Writes README.md: task, data, metrics, settings, versions, and how to use the model."""
    config, shape = setup.config, setup.bert_config
    architecture = setup.task.model_class.__name__
    rows = [
        f"| {split} | {name} | {value:.4g} |"
        for split, metrics in results.items()
        for name, value in scalars(metrics).items()
    ]
    settings = [
        f"| {name} | {value} |"
        for name, value in flatten(config).items()
        if value is not None and name not in ("workdir", "dry_run")
    ]
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    text = f"""---
library_name: {setup.task.library}
tags: [bert, jaxlm]
---
# {architecture}, {shape.num_hidden_layers} layers, {shape.hidden_size} wide

{setup.task.description()}

Started from: {config.model.init or "random weights"}{" (shape only)" if config.model.random_init else ""}.

## Data
{chr(10).join(f"- {note}" for note in setup.notes)}

## Results
| split | metric | value |
|---|---|---|
{chr(10).join(rows)}

## Use
```python
{setup.task.usage()}
```
{_jaxlm_use(setup.task)}
## Settings
| setting | value |
|---|---|
{chr(10).join(settings)}

Made by jaxlm {jaxlm.__version__}: Python {platform.python_version()}, {versions}.
"""
    write_atomically(directory / "README.md", text)


def _jaxlm_use(task: Task) -> str:
    if task.name == "masked_lm":
        return ""
    return "".join(f"\nOr: `{command}`\n" for command in task.predict_commands("PATH_OF_THIS_DIRECTORY"))
