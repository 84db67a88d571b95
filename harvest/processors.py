"""How this process shares the processors with others."""

import os
from collections.abc import MutableMapping

# Rounds that a thread of GNU's OpenMP looks for work before it lets others run. By default it is so many that, with
# anything else on the machine, threads wait for one another's turns most of the time (docs/measurements.md).
_SPINS = "10000"


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others give up their processor soon; call it before PyTorch is imported.

    What the user has said about it (GOMP_SPINCOUNT or OMP_WAIT_POLICY) stays. Processes that are started inherit it.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", _SPINS)
