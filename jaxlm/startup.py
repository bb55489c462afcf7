"""What every verb that computes does first."""

import importlib.util
import os
from typing import TextIO

from jaxlm.config import MeshSettings
from jaxlm.console import Console, log_to
from jaxlm.parallel import cluster, distributed
from jaxlm.parallel.topologies import LIBTPU_WITHOUT_TPU


def start_jax(mesh: MeshSettings, stream: TextIO | None = None) -> Console:
    """Joins the run's other processes, sets jax up and returns the console, to which the package's log goes.

    Raises:
      UserError: the processes do not come together.
    """
    distributed.join(mesh)
    if importlib.util.find_spec("libtpu") is not None and not cluster.has_tpu():
        for name, value in LIBTPU_WITHOUT_TPU.items():
            os.environ.setdefault(name, value)
    from jaxlm.parallel.mesh import set_up_compilation_cache

    set_up_compilation_cache()
    distributed.start()
    import jax

    console = Console(stream, speaks=jax.process_index() == 0)
    log_to(console)
    return console
