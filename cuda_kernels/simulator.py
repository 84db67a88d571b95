"""Numba's simulator of a GPU as tests need it: repeatable, and not slower than it has to be."""

from __future__ import annotations

import os
from random import Random
from threading import BrokenBarrierError, Lock
from typing import Any

import numpy as np


def mend() -> None:
    """Let the threads of a block run one after the other, each as far as the next barrier; call before any launch.

    As it is, all run at once: two that ask for the same shared array at the same time may get two, and the thread that
    waits for all others at every `syncthreads` does so busily. Their order is drawn anew at every barrier, alike in
    every process: where a barrier is missing, some read what others have not written yet, or have overwritten. All stay
    on one core, where a turn is handed over fastest.
    """
    from numba.cuda.simulator import kernel

    block: Any = kernel.BlockManager
    block_thread: Any = kernel.BlockThread
    run = block_thread.run

    def run_block(self: Any, grid_point: Any, *args: Any) -> None:
        """All threads of a block; the error of the first that fails ends the others."""
        self.back, self.failed = Lock(), False
        self.back.acquire()
        points = np.ndindex(*self._block_dim)
        threads = [block_thread(lambda: self._f(*args), self, grid_point, point, self._debug) for point in points]
        for thread in threads:
            thread.turn = Lock()
            thread.turn.acquire()
            thread.start()
        running, order = list(threads), Random(0)
        while running:
            order.shuffle(running)
            for thread in running:
                thread.turn.release()
                self.back.acquire()
                self.failed |= thread.exception is not None
            running = [thread for thread in running if thread.running]
        errors = [thread.exception for thread in threads if thread.exception]
        for error, trace in sorted(errors, key=lambda one: isinstance(one[0], BrokenBarrierError)):
            raise error.with_traceback(trace)

    def run_thread(self: Any) -> None:
        """All turns of one thread."""
        self.running = True
        self.turn.acquire()
        run(self)
        self.running = False
        self._manager.back.release()

    def barrier(self: Any) -> None:
        """Let others run, until it is one's turn again."""
        self._manager.back.release()
        self.turn.acquire()
        if self._manager.failed:
            raise BrokenBarrierError("another thread of the block has failed")

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    block.run = run_block
    block_thread.run, block_thread.syncthreads = run_thread, barrier
