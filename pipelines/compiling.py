"""A word to the user when kernels are compiled: the first run on a machine takes longer, and nothing else shows it."""

from __future__ import annotations

import sys
from typing import Any

from numba.core import event
from tqdm import tqdm


class _Teller(event.Listener):
    """Says once that kernels are being compiled."""

    told = registered = False

    def on_start(self, event: Any) -> None:
        """Called when Numba compiles what no cache holds."""
        if not self.told:
            self.told = True
            tqdm.write("compiling kernels for this machine: about a minute, this once", file=sys.stderr)

    def on_end(self, event: Any) -> None:
        """Nothing more to say."""


_teller = _Teller()


def tell_of_compiling() -> None:
    """From now on say so when the first kernel is compiled; kernels that come from Numba's cache are not."""
    if not _teller.registered:
        _teller.registered = True
        event.register("numba:compile", _teller)
