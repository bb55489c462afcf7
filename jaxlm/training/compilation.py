"""Whether compiled programs came from the persistent cache."""

import jax

_hits = 0


def _listen(event: str, **_: object) -> None:
    global _hits
    if event == "/jax/compilation_cache/cache_hits":
        _hits += 1


jax.monitoring.register_event_listener(_listen)


def cache_hits() -> int:
    """How many programs this process has taken from the cache so far."""
    return _hits
