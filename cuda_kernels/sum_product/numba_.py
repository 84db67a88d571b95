"""Sum-product for CPUs: the whole tree in one compiled pass, each message by the route of least predicted cost.

One frame takes one thread; threads run over frames.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from cuda_kernels.limb_message import pair_seconds, transform_seconds
from cuda_kernels.limb_message.pairs_ import ShellNumbers, add_pairs, make_tiles, share_in_reach
from cuda_kernels.limb_message.pairs_simd import TILE
from cuda_kernels.limb_message.transform_ import Spectrum, convolve
from cuda_kernels.memory import Memory
from cuda_kernels.moments.numba_ import in_order
from cuda_kernels.tree import Spectra

_pair_seconds, _transform_seconds = numba.njit(nogil=True)(pair_seconds), numba.njit(nogil=True)(transform_seconds)
FEWEST = 0.02  # share of pairs of tiles in reach, below which no sum over pairs is hoped for
_NO_INTS, _NO_FLOATS = np.zeros(0, np.int64), np.zeros(0)
_NO_SPECTRA = Spectra(_NO_INTS, _NO_INTS, _NO_FLOATS, _NO_INTS, _NO_FLOATS)


def sum_product(tree, active, n, memory: Memory) -> Any:  # type: ignore[no-untyped-def]
    """The fields of `Marginals`, or None; messages and marginals lie in `memory`."""
    counts, packed = active.counts, tree.packed
    parents = [int(parent) for parent in packed.parents]
    dense = any(
        transform_seconds(n, shell.highest) < pair_seconds(counts[child], counts[parent], shell.interval)
        for child, parent, shell in tree.limbs
    )
    first = np.concatenate([[0], np.cumsum((counts + TILE - 1) // TILE * TILE)])
    widths = [0 if parent < 0 else int(first[parent + 1] - first[parent]) for parent in parents]
    up_start = np.concatenate([[0], np.cumsum(widths)])
    up, down = memory.array("up", int(up_start[-1])), memory.array("down", int(first[-1]))
    marginal, scale = memory.array("marginal", int(active.starts[-1])), np.zeros((2, len(parents)))
    log_evidence = _all_messages(
        packed, tree.spectra(n) if dense else _NO_SPECTRA, (active.starts, active.place, active.value), first, n,
        (up, up_start, down, scale), marginal,
    )  # fmt: skip
    if not np.isfinite(log_evidence):
        return None
    none = np.zeros(0)
    told_up = [none if p < 0 else up[up_start[j] : up_start[j] + counts[p]] for j, p in enumerate(parents)]
    told_down = [none if p < 0 else down[first[j] : first[j] + counts[j]] for j, p in enumerate(parents)]
    return told_up, told_down, scale[0], scale[1], marginal, log_evidence


@numba.njit(nogil=True, cache=True)
def _belief(packed, active, first, joint, but, messages, out):  # type: ignore[no-untyped-def]
    """Fill `out` with a joint's likelihood times all messages to it but one neighbour's; returns the log of the scale.

    What fills up the last tile is zero.
    """
    up, up_start, down, scale = messages
    starts, _, value = active
    a, b = starts[joint], starts[joint + 1]
    size = b - a
    out[:size], out[size:] = value[a:b], 0.0
    log_scale = 0.0
    for child in range(packed.parents.size):
        if packed.parents[child] == joint and child != but:
            _multiply(out[:size], up[up_start[child] : up_start[child] + size])
            log_scale += scale[0, child]
    if packed.parents[joint] >= 0 and packed.parents[joint] != but:
        _multiply(out[:size], down[first[joint] : first[joint] + size])
        log_scale += scale[1, joint]
    return log_scale


@numba.njit(nogil=True, cache=True)
def _multiply(into, by):  # type: ignore[no-untyped-def]
    for i in range(into.size):
        into[i] *= by[i]


@numba.njit(nogil=True, cache=True)
def _scaled(out):  # type: ignore[no-untyped-def]
    """Bring the largest value to 1, what is negative to 0; returns the log of the scale, -inf if all is zero."""
    top = out.max()
    if not top > 0:
        return -np.inf
    share = 1.0 / top
    for i in range(out.size):
        out[i] = max(out[i] * share, 0.0)
    return np.log(top)


@numba.njit(nogil=True, cache=True)
def _by_transform(spectrum, belief, source, target, whole, n, out):  # type: ignore[no-untyped-def]
    """Fill `out` with one message through the dense grid, and what fills up its last tile with zeros."""
    out[target.size :] = 0
    if whole[0]:
        grid = belief[: n * n * n]
    else:
        grid = np.zeros(n * n * n)
        for i in range(source.size):
            grid[source[i]] = belief[i]
    message = convolve(grid.reshape(n, n, n), spectrum).reshape(-1)
    if whole[1]:
        out[: target.size] = message
    else:
        for i in range(target.size):
            out[i] = message[target[i]]


@numba.njit(nogil=True, cache=True)
def _joints_in_pairs(packed, starts, n):  # type: ignore[no-untyped-def]
    """(J,) whether a joint may take part in a message over pairs of voxels."""
    out = np.zeros(packed.parents.size, np.bool_)
    for child in range(out.size):
        parent = packed.parents[child]
        if parent >= 0:
            a, b = starts[child + 1] - starts[child], starts[parent + 1] - starts[parent]
            if _pair_seconds(a, b, packed.interval[child]) < _transform_seconds(n, packed.highest[child]) / FEWEST:
                out[child] = out[parent] = True
    return out


@numba.njit(nogil=True, cache=True)
def _all_messages(packed, spectra, active, first, n, messages, marginal):  # type: ignore[no-untyped-def]
    """Fill the messages and the marginals; returns the log of the evidence, -inf if no configuration has any weight."""
    starts, place, _ = active
    up, up_start, down, scale = messages
    joints = packed.parents.size
    in_pairs, dense = _joints_in_pairs(packed, starts, n), spectra.quarter.size > 0
    tiles = [
        make_tiles(place[starts[j] : starts[j + 1] if in_pairs[j] or not dense else starts[j]], n)
        for j in range(joints)
    ]
    whole = [
        starts[joint + 1] - starts[joint] == n * n * n and in_order(place[starts[joint] : starts[joint + 1]])
        for joint in range(joints)
    ]
    room = np.empty((first[1:] - first[:-1]).max())
    for turn in range(2 * joints - 2):
        upward = turn < joints - 1
        child = packed.order[joints - 1 - turn] if upward else packed.order[turn - joints + 2]
        parent = packed.parents[child]
        sender, receiver = (child, parent) if upward else (parent, child)
        belief = room[: first[sender + 1] - first[sender]]
        before = _belief(packed, active, first, sender, receiver, messages, belief)
        width = first[receiver + 1] - first[receiver]
        out = up[up_start[child] : up_start[child] + width] if upward else down[first[child] : first[child] + width]
        at = packed.weight_start[child]
        weights = packed.weights[at : at + packed.highest[child] - packed.lowest[child] + 3]
        shell = ShellNumbers(packed.lowest[child], packed.highest[child], packed.interval[child], weights)
        source, target = place[starts[sender] : starts[sender + 1]], place[starts[receiver] : starts[receiver + 1]]
        cost, dear = _pair_seconds(source.size, target.size, shell.interval), _transform_seconds(n, shell.highest)
        if dense and dear < cost < dear / FEWEST:
            cost *= share_in_reach(tiles[sender], tiles[receiver], shell)
        if dense and cost > dear:
            a, b = spectra.eigenvalue_start[child], spectra.eigenvalue_start[child + 1]
            c, d = spectra.matrix_start[child], spectra.matrix_start[child + 1]
            spectrum = Spectrum(spectra.quarter[child], spectra.eigenvalues[a:b], spectra.matrices[c:d])
            _by_transform(spectrum, belief, source, target, (whole[sender], whole[receiver]), n, out)
        else:
            out[:] = 0
            add_pairs(belief, tiles[sender], tiles[receiver], shell, out)
        added = _scaled(out)
        if not np.isfinite(added):
            return -np.inf
        scale[0 if upward else 1, child] = before + added
    log_evidence = 0.0
    for joint in range(joints):
        belief = room[: first[joint + 1] - first[joint]]
        before = _belief(packed, active, first, joint, -1, messages, belief)
        total = belief.sum()
        if not total > 0:
            return -np.inf
        marginal[starts[joint] : starts[joint + 1]] = belief[: starts[joint + 1] - starts[joint]] * (1.0 / total)
        if joint == packed.order[0]:
            log_evidence = before + np.log(total)
    return log_evidence
