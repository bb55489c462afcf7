"""Settings by dotted name: what makes a run that run, and what may change when it is resumed."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from jaxlm.config import Config, Part, Stage


def _walk(value: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field, Any]]:
    """(dotted name, field, value) of each setting."""
    for item in dataclasses.fields(value):
        child = getattr(value, item.name)
        if dataclasses.is_dataclass(child):
            yield from _walk(child, f"{prefix}{item.name}.")
        elif isinstance(child, tuple) and child and dataclasses.is_dataclass(child[0]):
            for number, part in enumerate(child):
                yield from _walk(part, f"{prefix}{item.name}.{number}.")
        else:
            yield prefix + item.name, item, child


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A config's settings by dotted name."""
    return {name: list(child) if isinstance(child, tuple) else child for name, _, child in _walk(value, prefix)}


_NOT_COMPARED = ("workdir", "dry_run")


def changes(old: dict[str, Any], new: Config) -> tuple[list[str], list[str]]:
    """Compares a run's saved settings with those it is resumed with.

    Returns:
      Descriptions ("train.log_every: 20 -> 50") of the changes that are applied, and of those that are refused.
    """
    policy = _resume_policies(new)
    applied: list[str] = []
    refused: list[str] = []
    now, defaults = flatten(new), _defaults(new)
    for name in dict.fromkeys((*now, *old)):
        before = old.get(name, defaults.get(name))  # a run from before there was this setting had its default
        if name not in _NOT_COMPARED and before != now.get(name):
            line = f"{name}: {before} -> {now.get(name)}"
            (applied if policy.get(name) == "apply" else refused).append(line)
    return applied, refused


def _defaults(config: Config) -> dict[str, Any]:
    defaults = flatten(Config()) | flatten(Stage(), "pretrain.")
    for number in range(len(config.parts)):
        defaults |= flatten(Part(), f"parts.{number}.")
    return defaults


def _resume_policies(config: Config) -> dict[str, str]:
    return {name: item.metadata.get("resume", "refuse") for name, item, _ in _walk(config)}


def fingerprint(config: Config) -> str:
    """Six hex digits of the settings that make the run what it is; resumable changes leave them alone, and so do
    settings that are new in the software and stand at their default."""
    policy, defaults = _resume_policies(config), _defaults(config)
    identity = {
        name: value
        for name, value in flatten(config).items()
        if policy[name] == "refuse" and name not in _NOT_COMPARED and value != defaults.get(name)
    }
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
