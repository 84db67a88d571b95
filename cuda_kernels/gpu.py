"""Whether this machine can do what is asked of its GPU, and one clear error where it cannot.

Importing this imports nothing of CUDA; bodies for GPUs are imported when the first of them is called.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any


class NoGpuError(RuntimeError):
    """The backend 'cuda' was asked for where it cannot run."""


@lru_cache(maxsize=1)
def what_is_missing() -> str:
    """What keeps this machine from running bodies for GPUs; empty if nothing does. Looked up once."""
    if find_spec("numba_cuda") is None:
        return "the package numba-cuda is not installed"
    from numba import cuda

    if cuda.is_available():
        return ""
    reason = cuda.cuda_error() or "its compiler library NVVM is missing"
    return f"no GPU can be used ({' '.join(reason.split()).rstrip('. :')})"


def need_gpu() -> None:
    """Nothing, where bodies for GPUs can run; Numba's simulator counts as one.

    Raises:
        NoGpuError: they cannot run here; says what is missing, what is needed and what to do instead.
    """
    missing = what_is_missing()
    if missing:
        raise NoGpuError(
            f"backend 'cuda' was asked for, but {missing}; it needs `pip install 'harvest-pose[cuda]'`, an NVIDIA GPU, "
            "its driver and CUDA's toolkit (or `pip install 'numba-cuda[cu13]'`); without them use backend 'numba'"
        )


def gpu_body(module: str, name: str) -> Callable[..., Any]:
    """The function `name` of a module that needs a GPU; the module is imported when the function is first called."""

    def call(*arguments: Any) -> Any:
        need_gpu()
        return getattr(import_module(module), name)(*arguments)

    return call
