"""What every training has in common: it may be told to stop, and its steps become smaller."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, which then ends nothing by itself."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # who alone may say what a signal does
        yield asked
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)


def cosine(share: float) -> float:
    """From 1 to 0 while a share of all steps goes from 0 to 1."""
    return 0.5 + 0.5 * float(np.cos(np.pi * min(share, 1.0)))
