"""How long a TPU takes for a program, as its compiler estimates it."""

import re

from jaxlm.parallel.collectives import computations_of, loops_of

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_UNKNOWN = 1 << 60  # what it writes instead of an estimate


def estimated_cycles(text: str) -> int | None:
    """Cycles of one core for a run of a program, exchanges between devices apart; None where nothing is estimated,
    or a loop does not say how often it runs.

    Args:
      text: the program after code generation, in which libtpu notes the cycles of each instruction; the dump that
        `xla_dump_hlo_as_text` asks for is the only place that has them.
    """
    computations = dict(computations_of(text))
    loops = loops_of(computations)
    found = [
        (int(cycles), loops[name].trips)
        for name, lines in computations.items()
        for cycles in _CYCLES.findall("\n".join(lines))
        if int(cycles) < _UNKNOWN
    ]
    if not found or any(trips is None for _, trips in found):
        return None
    return sum(cycles * (trips or 0) for cycles, trips in found)
