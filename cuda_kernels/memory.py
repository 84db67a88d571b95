"""Memory that one frame hands to the next: asking the system for megabytes anew costs more than filling them."""

import threading
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

LINE = 64  # bytes of a line of the cache, where arrays begin

# The C library of most Linuxes returns large pieces to the system when they are freed, and getting them back costs more
# than filling them. It stops doing so for pieces up to the largest one freed so far, at most 32 MiB: hence this one.
np.empty(31 << 20, np.uint8)


class Memory:
    """Arrays by name, handed out again and again: what one held is lost when its name is asked for anew."""

    def __init__(self) -> None:
        """Begin without any."""
        self._rooms: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, size: int, dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """(size,) with anything in it."""
        wanted = size * np.dtype(dtype).itemsize
        if name not in self._rooms or self._rooms[name].size < wanted:
            room = np.empty(wanted + LINE, np.uint8)
            first = -room.ctypes.data % LINE
            self._rooms[name] = room[first : first + wanted]
        array: NDArray[Any] = self._rooms[name][:wanted].view(dtype)
        return array


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.memory = Memory()


_kept = _OfThread()


def of_this_thread() -> Memory:
    """The calling thread's own memory, for what a kernel needs only while it runs."""
    return _kept.memory
