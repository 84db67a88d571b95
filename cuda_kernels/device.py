"""What the bodies for GPUs share: Numba's CUDA target, memory on the device that is used again, sums over a block."""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

try:
    from numba import cuda
    from numba.cuda.core import config
except ImportError:  # all must still import, and `gpu.need_gpu` says what is missing

    class cuda:  # type: ignore[no-redef]  # noqa: N801, RUF100
        """Stands in for the target: what it decorates can be imported and not be launched."""

        @staticmethod
        def jit(function: Any = None, **options: Any) -> Any:
            """The function itself, or a decorator that gives it back."""
            return function if function is not None else lambda decorated: decorated


else:
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # one frame of few joints is a small problem, and nobody can change that


SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"  # threads one after the other, on the CPU
# Threads of a block in most kernels. Few in the simulator, so that small problems have many blocks too.
THREADS = 32 if SIMULATED else 256
# Bytes to which shared memory is aligned that is read four numbers at a time; the simulator knows none of this.
VECTOR = None if SIMULATED else 16


class DeviceMemory:
    """Arrays on the device by name, handed out again and again: what one held is lost when its name is asked for anew.

    A name's memory grows to the largest array that was asked for, and no further.
    """

    def __init__(self) -> None:
        """Begin without any."""
        self._rooms: dict[tuple[str, Any], Any] = {}
        self._views: dict[tuple[str, Any], dict[tuple[int, ...], Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> Any:
        """An array of that shape with anything in it; a side of none counts as one, since nothing cannot be had."""
        shape, key = tuple(max(int(size), 1) for size in shape), (name, np.dtype(dtype))
        size = math.prod(shape)
        if key not in self._rooms or self._rooms[key].size < size:
            self._rooms.pop(key, None)  # freed first: there may be no room for both
            self._views[key] = {}
            self._rooms[key] = cuda.device_array(size, np.dtype(dtype))
        views = self._views[key]
        if shape not in views:
            views[shape] = self._rooms[key][:size].reshape(*shape)
        return views[shape]

    def upload(self, name: str, host: NDArray[Any]) -> Any:
        """A copy on the device, of the same shape."""
        room = self.array(name, host.shape, host.dtype)
        if host.size:
            room.copy_to_device(np.ascontiguousarray(host))
        return room


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.memory = DeviceMemory()


_kept = _OfThread()


def of_this_thread() -> DeviceMemory:
    """The calling thread's own device memory, for what a kernel needs only while it runs."""
    return _kept.memory


@cuda.jit(device=True)
def block_sum(value, scratch, thread):  # type: ignore[no-untyped-def]
    """The sum of the values of all threads of a block, for all of them, in an order that never changes.

    `scratch` is shared, one float64 a thread; their number is a power of two.
    """
    scratch[thread] = value
    step = scratch.shape[0] // 2
    while step > 0:
        cuda.syncthreads()
        if thread < step:
            scratch[thread] += scratch[thread + step]
        step //= 2
    cuda.syncthreads()
    total = scratch[0]
    cuda.syncthreads()
    return total


@cuda.jit(device=True)
def block_max(value, scratch, thread):  # type: ignore[no-untyped-def]
    """The largest of the values of all threads of a block, for all of them; `scratch` as for `block_sum`."""
    scratch[thread] = value
    step = scratch.shape[0] // 2
    while step > 0:
        cuda.syncthreads()
        if thread < step:
            scratch[thread] = max(scratch[thread], scratch[thread + step])
        step //= 2
    cuda.syncthreads()
    top = scratch[0]
    cuda.syncthreads()
    return top
