"""Numba's simulator of a GPU as tests need it: repeatable, and not slower than it has to be."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

SWITCH_S = 1e-4


def mend() -> None:
    """Let the simulator hand out shared memory safely, and threads take turns often; call before any launch.

    As it is, two threads that ask for the same shared array at the same time may get two. And the thread that waits for
    all others at every `syncthreads` does so busily, for a whole turn.
    """
    from numba.cuda.simulator.kernelapi import FakeCUDAShared

    def array(self: Any, shape: Any, dtype: Any, alignment: Any = None) -> Any:
        """The shared array of the line of code that asks; `setdefault` cannot be interrupted."""
        asking = sys._getframe(1)
        line = asking.f_code.co_filename, asking.f_lineno
        return self._allocations.setdefault(line, np.empty(shape, dtype))

    shared: Any = FakeCUDAShared
    shared.array = array
    sys.setswitchinterval(SWITCH_S)
