"""Which triangle each sample of a picture shows: a z-buffer that no gap between triangles and no lens can fool.

A picture of H x W pixels is sampled on a grid of `over` x `over` samples a pixel. Corners are projected through the
whole lens. Between them straight lines stay straight only in the picture of an ideal pinhole camera; a real lens says
for each sample which ideal place it sees (`rays`), and triangles large enough for the difference to matter are drawn
there.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from calib import distortion
from calib.camera import Camera
from harvest.studio.mesh import SIZE

Floats = NDArray[np.float64]
COARSEST = 16  # samples between the places at which a lens is inverted
NEAR_ENOUGH = 2e-4  # pixels that what lies between them may be off
STRAIGHT = 0.01  # samples by which an edge may bulge and yet be drawn straight
OPAQUE = 110  # of 255

_distort = njit(error_model="numpy")(distortion.distort_pinhole)
_fisheye = njit(error_model="numpy")(distortion.fisheye_scale)


class Lens(NamedTuple):
    """A camera as compiled code takes it.

    optics: `Camera.optics`. ideal (4,): sample x is ideal[0] * X/Z + ideal[1] without distortion, y likewise. rays
    (H over, W over, 2) float32 ideal place of every sample, NaN where the lens sees nothing; of size zero where every
    sample is its own ideal place. bulge: samples per square sample; an edge of length l bulges by no more than bulge
    l^2.
    """

    optics: Any
    ideal: Any
    rays: Any
    over: int
    bulge: float


def make_lens(camera: Camera, over: int) -> Lens:
    """The lens of a camera for `over` samples a pixel, along each axis."""
    shift, K = (over - 1) / 2, camera.K
    ideal = np.array([over * K[0, 0], over * K[0, 2] + shift, over * K[1, 1], over * K[1, 2] + shift])
    plain = camera.model == "pinhole" and not camera.dist_opencv.any() and K[0, 1] == 0
    rays, bulge = (np.empty((0, 0, 2), np.float32), 0.0) if plain else _rays(camera, over, ideal)
    return Lens(camera.optics, ideal, rays, over, bulge)


def _rays(camera: Camera, over: int, ideal: Floats) -> tuple[NDArray[np.float32], float]:
    """The lens inverted on a lattice as coarse as NEAR_ENOUGH allows, the cubic between its knots, and `Lens.bulge`."""
    width, height = camera.size_px[0] * over, camera.size_px[1] * over

    def seen(samples: Floats) -> Floats:
        at: Floats = camera.undistort((samples - (over - 1) / 2) / over) * ideal[[0, 2]] + ideal[[1, 3]]
        return at

    tried = np.stack(np.meshgrid(np.arange(1.0, width, 37), np.arange(1.0, height, 37)), -1)
    exact, step = seen(tried), COARSEST
    while True:
        # One knot before the first sample and two after the last, as the cubic needs them.
        x, y = (step * np.arange(-1.0, size // step + 3) for size in (width, height))
        knots = seen(np.stack(np.meshgrid(x, y), -1))
        rays: NDArray[np.float32] = _refine(knots, height, width, step)
        off = abs(rays[1::37, 1::37] - exact)[np.isfinite(exact)]
        if step == 1 or (off < NEAR_ENOUGH * over).all():
            return rays, _bulge(knots, step)
        step //= 2


def _bulge(knots: Floats, step: int) -> float:
    """How far the lens bends a straight edge, per square of its length, by differences between knots; half as much
    again for what lies between them.

    If samples s have ideal places f(s), the second derivative of the inverse is at most |f''| / |f'|^3.
    """
    bent, slope = 0.0, np.inf
    for axis in (0, 1):
        first, second = np.diff(knots, axis=axis) / step, np.diff(knots, 2, axis=axis) / step**2
        slope = min(slope, float(np.nanmin(np.linalg.norm(first, axis=-1), initial=np.inf)))
        bent = max(bent, float(np.nanmax(np.linalg.norm(second, axis=-1), initial=0.0)))
    # Mixed derivatives may double what the axes show; an edge strays from its chord by an eighth of bend times
    # length^2.
    return 1.5 * 2 * bent / slope**3 / 8


@njit(cache=True, nogil=True, error_model="numpy")
def _refine(knots, height, width, step):  # type: ignore[no-untyped-def]
    """Every sample's ideal place by the cubic through the four knots around it, along each axis."""
    weights = np.empty((step, 4))
    for i in range(step):
        t = i / step
        weights[i, 0] = -t * (t - 1) * (t - 2) / 6
        weights[i, 1] = (t + 1) * (t - 1) * (t - 2) / 2
        weights[i, 2] = -(t + 1) * t * (t - 2) / 2
        weights[i, 3] = (t + 1) * t * (t - 1) / 6
    across = np.empty((knots.shape[0], width, 2))
    for row in range(knots.shape[0]):
        for x in range(width):
            first, w = x // step, weights[x % step]
            for c in range(2):
                total = 0.0
                for k in range(4):
                    total += w[k] * knots[row, first + k, c]
                across[row, x, c] = total
    out = np.empty((height, width, 2), np.float32)
    for y in range(height):
        first, w = y // step, weights[y % step]
        for x in range(width):
            for c in range(2):
                total = 0.0
                for k in range(4):
                    total += w[k] * across[first + k, x, c]
                out[y, x, c] = total
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def project(vertices, lens, out):  # type: ignore[no-untyped-def]
    """Fill `out` (N, 5): ideal x and y, 1 / depth (zero where the camera sees nothing), x and y behind the lens."""
    p, ideal, over = lens.optics, lens.ideal, lens.over
    shift, limit = 0.5 * (over - 1), p[35]
    bent = lens.rays.shape[0] > 0
    for n in range(vertices.shape[0]):
        X, Y, Z = vertices[n, 0], vertices[n, 1], vertices[n, 2]
        z = p[6] * X + p[7] * Y + p[8] * Z + p[11]
        if z < 1e-3:
            out[n, 2] = 0.0
            continue
        x = (p[0] * X + p[1] * Y + p[2] * Z + p[9]) / z
        y = (p[3] * X + p[4] * Y + p[5] * Z + p[10]) / z
        out[n, 0], out[n, 1] = ideal[0] * x + ideal[1], ideal[2] * y + ideal[3]
        out[n, 2] = 1.0 / z
        if not bent:
            out[n, 3], out[n, 4] = out[n, 0], out[n, 1]
            continue
        r2 = x * x + y * y
        if r2 >= limit * limit:
            out[n, 2] = 0.0
            continue
        if limit < 0:
            scale = _fisheye(max(np.sqrt(r2), 1e-12), p[21:35])
            xd, yd = x * scale, y * scale
        else:
            xd, yd = _distort(x, y, p[21:35])
        w = over / (p[18] * xd + p[19] * yd + p[20])
        out[n, 3] = (p[12] * xd + p[13] * yd + p[14]) * w + shift
        out[n, 4] = (p[15] * xd + p[16] * yd + p[17]) * w + shift


@njit(cache=True, nogil=True, error_model="numpy")
def draw(points, surface, looks, lens, first_id, near, shown):  # type: ignore[no-untyped-def]  # noqa: C901 - one loop
    """Put triangles into a z-buffer: near (Hs, Ws) float32 largest 1 / depth, shown (Hs, Ws) int32 first_id + face.

    Triangles whose edges the lens bends by less than STRAIGHT are drawn straight, row by row between their edges, and
    that much wider, so that none is torn off its neighbours. All others ask every sample's ray. An edge that two
    triangles share ends a row at the same number for both, so that no sample between them is lost. Gives back the first
    and last row and the first and last column that were looked at.
    """
    faces, material, uv, face_uv = surface.faces, surface.material, surface.uv, surface.face_uv
    textures, holes, one_sided = looks.textures, looks.holes, looks.one_sided
    rays, bulge = lens.rays, lens.bulge
    bent = rays.shape[0] > 0
    height, width = near.shape
    most_left, most_right, highest, lowest = width, -1, height, -1
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        if za <= 0.0 or zb <= 0.0 or zc <= 0.0:
            continue
        ax, ay, bx, by, cx, cy = points[a, 3], points[a, 4], points[b, 3], points[b, 4], points[c, 3], points[c, 4]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        m = material[f]
        if area > 0.0 and one_sided[m]:  # v points down: what faces the camera has a negative area
            continue
        left, right, top, bottom = min(ax, bx, cx), max(ax, bx, cx), min(ay, by, cy), max(ay, by, cy)
        crooked = bulge * ((right - left) ** 2 + (bottom - top) ** 2) if bent else 0.0
        left, right, top, bottom = left - crooked, right + crooked, top - crooked, bottom + crooked
        x0, x1 = int(np.ceil(max(left, 0.0))), int(np.floor(min(right, width - 1.0)))
        y0, y1 = int(np.ceil(max(top, 0.0))), int(np.floor(min(bottom, height - 1.0)))
        if x0 > x1 or y0 > y1:
            continue
        straight = crooked <= STRAIGHT
        if not straight:
            ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        most_left, most_right, highest, lowest = (
            min(most_left, x0),
            max(most_right, x1),
            min(highest, y0),
            max(lowest, y1),
        )
        sign = 1.0 if area > 0.0 else -1.0
        ua, va, wa = (by - cy) * sign, (cx - bx) * sign, (bx * cy - by * cx) * sign
        ub, vb, wb = (cy - ay) * sign, (ax - cx) * sign, (cx * ay - cy * ax) * sign
        uc, vc, wc = (ay - by) * sign, (bx - ax) * sign, (ax * by - ay * bx) * sign
        inverse = 1.0 / (area * sign)
        za, zb, zc = za * inverse, zb * inverse, zc * inverse
        wider_a, wider_b, wider_c = 0.0, 0.0, 0.0
        if bent and straight:
            wider_a = crooked * math.sqrt(ua * ua + va * va)
            wider_b = crooked * math.sqrt(ub * ub + vb * vb)
            wider_c = crooked * math.sqrt(uc * uc + vc * vc)
        ia, ib, ic = 1.0 / ua, 1.0 / ub, 1.0 / uc
        for y in range(y0, y1 + 1):
            begin, end = x0, x1
            if straight:
                low, high = np.float64(x0), np.float64(x1)
                low, high = _between(low, high, ua, va * y + wa + wider_a, ia)
                low, high = _between(low, high, ub, vb * y + wb + wider_b, ib)
                low, high = _between(low, high, uc, vc * y + wc + wider_c, ic)
                if not low <= high:
                    continue
                begin, end = int(np.ceil(low)), int(np.floor(high))
            for x in range(begin, end + 1):
                px, py = np.float64(x), np.float64(y)
                if not straight:
                    px, py = np.float64(rays[y, x, 0]), np.float64(rays[y, x, 1])
                ea = ua * px + va * py + wa
                eb = ub * px + vb * py + wb
                ec = uc * px + vc * py + wc
                if not straight and not (ea >= 0.0 and eb >= 0.0 and ec >= 0.0):
                    continue
                depth = np.float32(ea * za + eb * zb + ec * zc)
                if depth <= near[y, x]:
                    continue
                if holes[m]:
                    qa, qb, qc = ea * za / depth, eb * zb / depth, ec * zc / depth
                    u = qa * uv[face_uv[f, 0], 0] + qb * uv[face_uv[f, 1], 0] + qc * uv[face_uv[f, 2], 0]
                    v = qa * uv[face_uv[f, 0], 1] + qb * uv[face_uv[f, 1], 1] + qc * uv[face_uv[f, 2], 1]
                    column = int((u - np.floor(u)) * SIZE) % SIZE
                    row = int((1.0 - (v - np.floor(v))) * SIZE) % SIZE
                    if textures[m, row * SIZE + column, 3] < OPAQUE:
                        continue
                near[y, x] = depth
                shown[y, x] = first_id + f
    return highest, lowest, most_left, most_right


@njit(inline="always", error_model="numpy")
def _between(low, high, u, rest, inverse):  # type: ignore[no-untyped-def]
    """The part of low .. high in which u x + rest is not negative; `inverse` is one over u."""
    border = -rest * inverse
    if u > 0.0:
        low = max(low, border)
    elif u < 0.0:
        high = min(high, border)
    elif rest < 0.0:
        high = low - 1.0
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def draw_depth(points, faces, far):  # type: ignore[no-untyped-def]
    """Put triangles into the depth map of a light that shines along parallel lines: far (S, S) float32 smallest depth.

    points: (N, 3) float32 column, row, depth.
    """
    height, width = far.shape
    for f in range(faces.shape[0]):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area == 0.0:
            continue
        x0, x1 = max(0, int(np.ceil(min(ax, bx, cx)))), min(width - 1, int(np.floor(max(ax, bx, cx))))
        y0, y1 = max(0, int(np.ceil(min(ay, by, cy)))), min(height - 1, int(np.floor(max(ay, by, cy))))
        inverse = np.float32(1.0) / area
        za, zb, zc = points[a, 2], points[b, 2], points[c, 2]
        for y in range(y0, y1 + 1):
            for x in range(x0, x1 + 1):
                px, py = np.float32(x), np.float32(y)
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * inverse
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * inverse
                wc = np.float32(1.0) - wa - wb
                if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                    depth = wa * za + wb * zb + wc * zc
                    if depth < far[y, x]:
                        far[y, x] = depth


@njit(cache=True, nogil=True, error_model="numpy")
def bounds(points):  # type: ignore[no-untyped-def]
    """The least and the largest of each column of points (N, 3)."""
    low, high = points[0].copy(), points[0].copy()
    for n in range(1, points.shape[0]):
        for i in range(3):
            low[i], high[i] = min(low[i], points[n, i]), max(high[i], points[n, i])
    return low, high


@njit(cache=True, nogil=True, error_model="numpy")
def share_of_pixels(shown, first, last, over):  # type: ignore[no-untyped-def]
    """(H, W) uint8 share of each pixel's samples that show triangles first .. last - 1, 0 to 255."""
    out = np.zeros((shown.shape[0] // over, shown.shape[1] // over), np.uint8)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            count = 0
            for j in range(over):
                for i in range(over):
                    found = shown[y * over + j, x * over + i]
                    if found >= first and found < last:
                        count += 1
            out[y, x] = (255 * count + over * over // 2) // (over * over)
    return out
