"""`unproject` and pruning in one: only sub-blocks that an upper bound cannot rule out are ever evaluated.

A sub-block is ruled out for a joint by the product over views of floor + the largest heat in the window of cells into
which the sub-block can project. The window is the bounding box of its projected corners, widened by how far the lens
can bend what lies between them. Blocks are tried first, then their sub-blocks.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from cuda_kernels.memory import of_this_thread
from cuda_kernels.unproject.cells import camera_steps, project_to_cells
from cuda_kernels.unproject.numba_ import INSIDE, SUB, Views, fill, make_scratch, make_views, padded_size
from cuda_kernels.unproject.simd import LANES, largest_and_sum, multiply_window_max, take_larger

REACH = 4  # cells along a side of the squares whose largest value is known beforehand: two doublings
MUCH = 1e7  # cells: corners this far off are as good as not seen
ROUNDING = 1.00001  # bounds are float32 products like the likelihoods that they bound
FIRST_ROOM = 1 << 14  # kept voxels of all joints for which there is memory at first
SUBS = 8  # sub-blocks of a block
TRIES, NEAR_ENOUGH = 32, 4.0  # effort to know peaks beforehand: it only spares looking into blocks


class Search(NamedTuple):
    """All that bounds and likelihoods of blocks depend on; `largest` as of `_largest_around`, `windows` as of
    `_windows`.
    """

    views: Views
    largest: NDArray[np.float32]
    windows: NDArray[np.int32]
    centre: NDArray[np.float64]
    step: float
    n: int


@numba.njit(nogil=True, cache=True)
def _windows(views, bending, centre, step, n):  # type: ignore[no-untyped-def]
    """(V, 4, S, S, S) first and last row, first and last column (padded cells) that each sub-block's voxels can touch.

    An empty window ends before it begins. Of a sub-block with a corner that is not seen, it is the whole map.
    """
    side = (n + SUB - 1) // SUB
    out = np.empty((len(views.cameras), 4, side, side, side), np.int32)
    line = side + 1
    steps, origin, boxes = np.zeros((3, line * line)), np.empty(3), line * side - 1
    for i in range(line * line):
        steps[1, i], steps[2, i] = SUB * step * (i // line), SUB * step * (i % line)
    x, y, margin = np.empty((2, line * line)), np.empty((2, line * line)), np.empty(boxes)
    low_x, high_x, low_y, high_y = np.empty(boxes), np.empty(boxes), np.empty(boxes), np.empty(boxes)
    touched = np.empty((4, boxes), np.int32)
    for view in range(len(views.cameras)):
        turned, bend = camera_steps(views.cameras[view], steps), bending[view]
        for a in range(line):
            origin[0] = centre[0] + (SUB * a - n / 2) * step
            origin[1], origin[2] = centre[1] - n / 2 * step, centre[2] - n / 2 * step
            project_to_cells(views.cameras[view], views.cells[view], origin, turned, x[a % 2], y[a % 2])
            if a == 0:
                continue
            _extent(x[0], x[1], line, low_x, high_x)
            _extent(y[0], y[1], line, low_y, high_y)
            for i in range(boxes):
                margin[i] = bend * ((high_x[i] - low_x[i]) ** 2 + (high_y[i] - low_y[i]) ** 2) + 1e-6
            _touched(low_y, high_y, margin, views.h, touched[0], touched[1])
            _touched(low_x, high_x, margin, views.w, touched[2], touched[3])
            for b in range(side):
                out[view, :, a - 1, b] = touched[:, b * line : b * line + side]
    return out


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _extent(near, far, line, low, high):  # type: ignore[no-untyped-def]
    """Fill low and high (N,) with the extent of the boxes between two planes of corners, MUCH if one is not seen.

    Planes are flat, `line` corners a row; box i lies between corners i, i + 1, i + line and i + line + 1 of either.
    Those that reach round the end of a row mean nothing.
    """
    a, b, c, d = near, near[1:], near[line:], near[line + 1 :]
    e, f, g, h = far, far[1:], far[line:], far[line + 1 :]
    for i in range(low.size):
        least = min(min(min(a[i], b[i]), min(c[i], d[i])), min(min(e[i], f[i]), min(g[i], h[i])))
        most = max(max(max(a[i], b[i]), max(c[i], d[i])), max(max(e[i], f[i]), max(g[i], h[i])))
        known = abs(a[i]) + abs(b[i]) + abs(c[i]) + abs(d[i]) + abs(e[i]) + abs(f[i]) + abs(g[i]) + abs(h[i]) < MUCH
        low[i], high[i] = least if known else -MUCH, most if known else MUCH


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _touched(low, high, margin, size, first, last):  # type: ignore[no-untyped-def]
    """Fill first and last (N,) with the padded cells that samples from low to high touch on a map of `size` cells."""
    for i in range(low.size):
        start, end = max(low[i] - margin[i], -2.0), min(high[i] + margin[i], size + 1.0)
        first[i] = np.int32(max(np.floor(min(start, size + 2.0)) + 1, 0.0))
        last[i] = np.int32(min(np.floor(max(end, -3.0)) + 2, size + 1.0))


@numba.njit(nogil=True, cache=True)
def _largest_around(views, out):  # type: ignore[no-untyped-def]
    """Fill `out`, at each padded cell, with the largest of the maps over the REACH^2 cells from there on, or more.

    At the end of a row the cells that follow are those of the next: a bound, which is all that is needed.
    """
    wide, row = views.wide, (views.w + 2) * views.wide
    size = (views.h + 2) * row
    out[:] = views.maps
    for step in (1, 2):
        for stride in (step * wide, step * row):
            for view in range(len(views.cameras)):
                take_larger(out, view * size, (view + 1) * size - stride, stride)


@numba.njit(nogil=True, cache=True)
def _bending(cameras, cell_from_image):  # type: ignore[no-untyped-def]
    """(V,) how far, per squared cell of a window's diagonal, a lens can push a point out of its corners' bounding box.

    The deviation of a function from linear interpolation between points not further apart than d is at most its second
    derivative times d^2 / 6 (Jung's theorem: they fit in a circle of radius d / sqrt(3)).
    """
    out = np.empty(len(cameras))
    for view in range(len(cameras)):
        a, b, c, d = cell_from_image[view, 0, 0], cell_from_image[view, 0, 1], cell_from_image[view, 1, 0], 0.0
        d = cell_from_image[view, 1, 1]
        sum_squares, det = a * a + b * b + c * c + d * d, abs(a * d - b * c)
        spread = np.sqrt(max(sum_squares * sum_squares - 4 * det * det, 0.0))
        largest, smallest_squared = np.sqrt((sum_squares + spread) / 2), (sum_squares - spread) / 2
        out[view] = cameras[view, 36] * largest / (6 * smallest_squared)
    return out


@numba.njit(nogil=True, cache=True)
def _bound(search, at, size, bound):  # type: ignore[no-untyped-def]
    """Fill `bound` (wide,) with what no voxel can exceed in the `size`^3 sub-blocks from sub-block `at` (3,) on."""
    largest, windows, floor = search.largest, search.windows, search.views.floor
    h, w, wide = search.views.h, search.views.w, search.views.wide
    row, maps, side = (w + 2) * wide, (h + 2) * (w + 2) * wide, windows.shape[2]
    bound[:] = ROUNDING
    for view in range(len(windows)):
        top, bottom, left, right = h + 1, 0, w + 1, 0
        for a in range(at[0], min(at[0] + size, side)):
            for b in range(at[1], min(at[1] + size, side)):
                for c in range(at[2], min(at[2] + size, side)):
                    top, bottom = min(top, windows[view, 0, a, b, c]), max(bottom, windows[view, 1, a, b, c])
                    left, right = min(left, windows[view, 2, a, b, c]), max(right, windows[view, 3, a, b, c])
        high, across = max(bottom - top + 1, 0), max(right - left + 1, 0)
        first = view * maps + top * row + left * wide
        for lane in range(0, wide, LANES):
            multiply_window_max(largest, first + lane, wide, row, across, high, REACH, floor, bound, lane)


@numba.njit(nogil=True, cache=True)
def _evaluate(search, at, scratch, largest, total):  # type: ignore[no-untyped-def]
    """Likelihoods of a sub-block in `scratch`, zero outside the grid; their largest and their sum by joint (wide,)."""
    n, wide = search.n, search.views.wide
    origin = np.empty(3)
    for a in range(3):
        origin[a] = search.centre[a] + (SUB * at[a] + 0.5 - n / 2) * search.step
    fill(search.views, origin, scratch)
    likelihood = scratch.voxels.reshape(INSIDE, wide)
    if SUB * (max(at[0], at[1], at[2]) + 1) > n:
        for i in range(INSIDE):
            inside = SUB * at[0] + i // SUB**2 < n and SUB * at[1] + i // SUB % SUB < n and SUB * at[2] + i % SUB < n
            if not inside:
                likelihood[i] = 0
    largest_and_sum(scratch.voxels, wide, largest, total)


@numba.njit(nogil=True, cache=True)
def _sub_block(block, blocks, sub, at):  # type: ignore[no-untyped-def]
    """Fill `at` (3,) with the place of a block's sub-block."""
    at[0] = 2 * (block // blocks**2) + sub // 4
    at[1] = 2 * (block // blocks % blocks) + sub // 2 % 2
    at[2] = 2 * (block % blocks) + sub % 2


@numba.njit(nogil=True, cache=True)
def _first_peaks(search, blocks, bound, scratch, joints):  # type: ignore[no-untyped-def]
    """(J,) likelihood that each joint reaches at least.

    The blocks of the largest bounds are looked into until no other can exceed it NEAR_ENOUGH times, or TRIES are spent.
    """
    at = np.zeros(3, np.int64)
    sub_bound, largest, total = np.empty_like(bound[0]), np.empty_like(bound[0]), np.empty_like(bound[0])
    peak = np.zeros(joints)
    for joint in range(joints):
        left = bound[:, joint].copy()
        for _ in range(TRIES):
            block = np.argmax(left)
            if left[block] <= NEAR_ENOUGH * peak[joint]:
                break
            left[block] = 0
            for sub in range(SUBS):
                _sub_block(block, blocks, sub, at)
                if max(at[0], at[1], at[2]) >= search.windows.shape[2]:
                    continue
                _bound(search, at, 1, sub_bound)
                if sub_bound[joint] > NEAR_ENOUGH * peak[joint]:
                    _evaluate(search, at, scratch, largest, total)
                    for other in range(joints):
                        peak[other] = max(peak[other], largest[other])
    return peak


@numba.njit(nogil=True, cache=True)
def _may_matter(bound, limit, peak):  # type: ignore[no-untyped-def]
    """Whether any joint may reach its cut there."""
    for joint in range(peak.size):
        if bound[joint] > limit[joint] * peak[joint]:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def _enlarged(array, room):  # type: ignore[no-untyped-def]
    """A copy with room for more."""
    out = np.empty(room, array.dtype)
    out[: array.size] = array
    return out


@numba.njit(nogil=True, cache=True)
def _collect(search, blocks, bound, limit, peak, scratch, most):  # type: ignore[no-untyped-def]
    """Voxels that reach their cut times the largest likelihood so far: place, likelihood, joint; and dropped (B^3, J).

    `peak` grows to the true largest, so that a few early voxels are too many; see `_by_joint`. Ends early once there
    are more than `most`.
    """
    joints = peak.size
    voxel, joint_of = np.empty(FIRST_ROOM, np.int32), np.empty(FIRST_ROOM, np.int16)
    value = np.empty(FIRST_ROOM, bound.dtype)
    dropped, count, n = np.zeros((len(bound), joints)), 0, search.n
    sub_bound, largest, total = np.empty_like(bound[0]), np.empty_like(bound[0]), np.empty_like(bound[0])
    likelihood = scratch.voxels.reshape(INSIDE, search.views.wide)
    tiny, at = np.finfo(bound.dtype).tiny, np.empty(3, np.int64)
    for block in range(len(bound)):
        if not _may_matter(bound[block], limit[block], peak):
            dropped[block] += bound[block, :joints] * np.float64(SUBS * INSIDE)
            continue
        if count > most:
            break
        for sub in range(SUBS):
            _sub_block(block, blocks, sub, at)
            if max(at[0], at[1], at[2]) >= search.windows.shape[2]:
                continue
            _bound(search, at, 1, sub_bound)
            if not _may_matter(sub_bound, limit[block], peak):
                dropped[block] += sub_bound[:joints] * np.float64(INSIDE)
                continue
            _evaluate(search, at, scratch, largest, total)
            if count + INSIDE * joints > voxel.size:
                room = 2 * (voxel.size + INSIDE * joints)
                voxel, value, joint_of = _enlarged(voxel, room), _enlarged(value, room), _enlarged(joint_of, room)
            first = (SUB * at[0] * n + SUB * at[1]) * n + SUB * at[2]
            for joint in range(joints):
                peak[joint] = max(peak[joint], largest[joint])
                least = max(limit[block, joint] * peak[joint], tiny)
                if largest[joint] < least:
                    dropped[block, joint] += total[joint]
                    continue
                for i in range(INSIDE):
                    here = likelihood[i, joint]
                    if here >= least:
                        voxel[count] = first + (i // SUB**2 * n + i // SUB % SUB) * n + i % SUB
                        value[count], joint_of[count] = here, joint
                        count += 1
                    else:
                        dropped[block, joint] += here
    return voxel[:count], value[:count], joint_of[:count], dropped


@numba.njit(nogil=True, cache=True)
def _by_joint(found, limit, peak, n, blocks):  # type: ignore[no-untyped-def]
    """Kept voxels sorted by joint, after a last look at the cuts with the true peaks; see `unproject_active`."""
    voxel, value, joint_of, dropped = found
    joints, side = peak.size, SUB * 2
    tiny = np.finfo(value.dtype).tiny
    starts = np.zeros(joints + 1, np.int64)
    for i in range(voxel.size):
        x, y, z, joint = voxel[i] // n**2, voxel[i] // n % n, voxel[i] % n, joint_of[i]
        block = (x // side * blocks + y // side) * blocks + z // side
        if value[i] >= max(value.dtype.type(limit[block, joint] * peak[joint]), tiny):
            starts[joint + 1] += 1
        else:
            dropped[block, joint] += value[i]
            joint_of[i] = -1
    starts = np.cumsum(starts)
    row = starts.copy()
    places, values = np.empty(starts[-1], np.int32), np.empty(starts[-1])
    for i in range(voxel.size):
        joint = joint_of[i]
        if joint >= 0:
            at = row[joint]
            places[at], values[at] = voxel[i], value[i] / peak[joint]
            row[joint] = at + 1
    share = np.empty((joints, len(dropped)))
    for joint in range(joints):
        share[joint] = dropped[:, joint] / (peak[joint] if peak[joint] > 0 else 1.0)
    return starts, places, values, share.reshape(joints, blocks, blocks, blocks), peak


def unproject_active(maps, grid, cut, like, most) -> Any:  # type: ignore[no-untyped-def]
    """Whether `most` voxels were room enough, and the fields of `ActiveVoxels`, or their beginning if not.

    maps: (score, cell_from_image, cameras, floor); grid: (centre, side, n); like: an array of the type to multiply in.
    """
    memory, size = of_this_thread(), padded_size(maps[0])
    room = memory.array("maps", size, np.float32), memory.array("largest", size, np.float32)
    return _unproject_active(maps, grid, cut, like, room, most)


@numba.njit(nogil=True, cache=True)
def _unproject_active(maps, grid, cut, like, room, most):  # type: ignore[no-untyped-def]
    (score, cell_from_image, cameras, floor), (centre, side, n) = maps, grid
    joints, blocks, step = score.shape[3], cut.shape[1], side / n
    views = make_views(score, cell_from_image, cameras, floor, step, room[0])
    _largest_around(views, room[1])
    windows = _windows(views, _bending(cameras, cell_from_image), centre, step, n)
    search = Search(views, room[1], windows, centre, step, n)
    scratch = make_scratch(views, like)
    bound = np.empty((blocks**3, views.wide), like.dtype)
    at = np.empty(3, np.int64)
    for block in range(blocks**3):
        _sub_block(block, blocks, 0, at)
        _bound(search, at, 2, bound[block])
    limit = np.ascontiguousarray(cut.reshape(joints, -1).T)
    peak = _first_peaks(search, blocks, bound, scratch, joints)
    found = _collect(search, blocks, bound, limit, peak, scratch, most)
    return (found[0].size <= most, *_by_joint(found, limit, peak, n, blocks))
