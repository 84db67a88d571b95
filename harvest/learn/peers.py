"""Processes that train one network together, each on its part of every batch.

Alone on a machine, processes of a thread each are as fast as one process of many threads; beside other work they keep
their speed, because threads wait for the slowest of them after every layer, processes once a batch.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, distributed, multiprocessing

LEAST = 16  # samples of a batch that a process has at least, so that batch norms see enough


@dataclass(frozen=True)
class Peers:
    """One of `count` processes; alone by default."""

    rank: int = 0
    count: int = 1

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor], stops: bool) -> bool:
        """Replace each tensor by its mean over the processes; True, in all of them, if one says `stops`."""
        if self.count == 1:
            return stops
        said = torch.tensor([float(stops)])
        flat = torch.cat([*(tensor.reshape(-1).float() for tensor in tensors), said])
        distributed.all_reduce(flat)
        flat /= self.count
        for tensor, mean in zip(tensors, flat[:-1].split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))
        return bool(flat[-1] > 0)


def fitting(batch: int) -> int:
    """How many processes to train in: on a processor as many as it has cores and the batch has parts of `LEAST`."""
    if torch.cuda.is_available():
        return 1
    most = max(min(len(os.sched_getaffinity(0)), batch // LEAST), 1)
    return max(count for count in range(1, most + 1) if batch % count == 0)


@contextmanager
def joined(count: int, work: Callable[[Peers], None]) -> Iterator[Peers]:
    """This process as the first of `count`, while the others do `work`, which must be picklable."""
    if count == 1:
        yield Peers()
        return
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        others = [context.Process(target=_take_part, args=(Peers(r, count), folder, work)) for r in range(1, count)]
        for other in others:
            other.start()
        try:
            with _met(Peers(0, count), folder):
                yield Peers(0, count)
            for other in others:
                other.join()
        finally:
            for other in others:
                other.terminate()


def _take_part(peers: Peers, folder: str, work: Callable[[Peers], None]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is who answers to Ctrl-C
    with _met(peers, folder):
        work(peers)


@contextmanager
def _met(peers: Peers, folder: str) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(max(len(os.sched_getaffinity(0)) // peers.count, 1))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{Path(folder) / 'meeting'}"
    distributed.init_process_group("gloo", init_method=meeting, rank=peers.rank, world_size=peers.count)
    try:
        yield
    finally:
        distributed.destroy_process_group()
        torch.set_num_threads(threads)
