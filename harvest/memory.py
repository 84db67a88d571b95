"""How this process takes memory from the system."""

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of mallopt(3)
_PAD_BYTES = 128 << 20


def keep_memory() -> bool:
    """Let the C library keep large freed blocks for the next ones, instead of returning each to the system at once.

    A network on the CPU allocates its activations anew in every layer, and fresh pages from the system cost as much as
    the convolutions (docs/measurements.md). The process keeps its largest size until it ends. Linux with glibc only;
    gives whether it could be done.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        mallopt(option, value)
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, _PAD_BYTES))
    )
