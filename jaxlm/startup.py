"""What every verb that computes does first."""

import logging
from typing import TextIO

from jaxlm.console import Console, ConsoleHandler


def start_jax(stream: TextIO | None = None) -> Console:
    """Imports jax, sets its cache up and returns the console, to which the package's log goes."""
    from jaxlm.parallel.mesh import set_up_compilation_cache

    set_up_compilation_cache()
    import jax

    logging.getLogger("jax._src.xla_bridge").setLevel(logging.ERROR)
    console = Console(stream, speaks=jax.process_index() == 0)
    logger = logging.getLogger("jaxlm")
    logger.handlers = [ConsoleHandler(console)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return console
