"""What colour a picture's pixels have, once it is known which triangles they show."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from harvest.studio.mesh import LEVELS, OFFSETS, SIZE

FINE = 16  # steps between neighbouring bytes of sRGB when it is made linear
LINEAR = ((np.arange(255 * FINE + 1) / (255 * FINE)) ** 2.2).astype(np.float32)
SRGB = (255 * (np.arange(4097) / 4096) ** (1 / 2.2) + 0.5).astype(np.uint8)
SHOULDER = 0.3  # how soon bright light stops growing in a picture: q becomes q (1 + s) / (1 + s q)
_developed = (np.arange(256) / 255) ** 2.2
UNDEVELOPED = (_developed / (1 + SHOULDER - SHOULDER * _developed)).astype(np.float32)  # linear light of a byte
AWAY_M = 0.012  # from the surface at which a shadow is looked up, so that it does not shade itself
BIAS_M = 0.006
SHARPER = 0.25  # of a level: textures are read a little finer than a pixel asks for

_OFFSETS = tuple(int(offset) for offset in OFFSETS)
_SIZES = tuple(SIZE >> level for level in range(LEVELS))


class Lighting(NamedTuple):
    """Light of a scene: sky (9, 3) float32 spherical harmonics, see `harvest.studio.light`; sun_from (3,) unit vector to
    the sun and its colour (3,); shadow (S, S) float32 depths of what the sun sees; to_shadow (3, 4) float32 from the
    world to its columns, rows and depths; exposure.
    """

    sky: Any
    sun_from: Any
    sun_colour: Any
    shadow: Any
    to_shadow: Any
    exposure: float


@njit(cache=True, nogil=True)
def sky_light(sky, c, x, y, z):  # type: ignore[no-untyped-def]
    """Light of colour c that falls on a surface with normal (x, y, z) from all sides, over pi."""
    return (
        sky[0, c]
        + sky[1, c] * y
        + sky[2, c] * z
        + sky[3, c] * x
        + sky[4, c] * x * y
        + sky[5, c] * y * z
        + sky[6, c] * (np.float32(3) * z * z - np.float32(1))
        + sky[7, c] * x * z
        + sky[8, c] * (x * x - y * y)
    )


@njit(cache=True, nogil=True)
def sunlit(x, y, z, shadow, to_shadow):  # type: ignore[no-untyped-def]
    """Share from 0 to 1 of a point's surroundings in the shadow map that nothing keeps from the sun."""
    column = to_shadow[0, 0] * x + to_shadow[0, 1] * y + to_shadow[0, 2] * z + to_shadow[0, 3]
    row = to_shadow[1, 0] * x + to_shadow[1, 1] * y + to_shadow[1, 2] * z + to_shadow[1, 3]
    depth = to_shadow[2, 0] * x + to_shadow[2, 1] * y + to_shadow[2, 2] * z + to_shadow[2, 3] - np.float32(BIAS_M)
    i, j, size = int(column + 0.5), int(row + 0.5), shadow.shape[0]
    if i < 2 or j < 2 or i > size - 3 or j > size - 3:
        return np.float32(1)
    hidden = 0
    for dj in range(-1, 2):
        for di in range(-1, 2):
            if shadow[j + dj, i + di] < depth:
                hidden += 1
    return np.float32(1) - np.float32(hidden) / np.float32(9)


@njit(cache=True, nogil=True)
def texel(texture, level, u, v):  # type: ignore[no-untyped-def]
    """The first three numbers of a texture (texels, 4) at (u, v), bilinear between the four texels around."""
    size, first = _SIZES[level], _OFFSETS[level]
    x = (u - np.floor(u)) * size - 0.5
    y = (1.0 - (v - np.floor(v))) * size - 0.5
    i, j = int(np.floor(x)), int(np.floor(y))
    fx, fy = np.float32(x - i), np.float32(y - j)
    top, bottom = first + (j % size) * size, first + ((j + 1) % size) * size
    left, right = i % size, (i + 1) % size
    one = np.float32(1)
    a, b, c, d = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
    p, q, r, s = top + left, top + right, bottom + left, bottom + right
    return (
        a * texture[p, 0] + b * texture[q, 0] + c * texture[r, 0] + d * texture[s, 0],
        a * texture[p, 1] + b * texture[q, 1] + c * texture[r, 1] + d * texture[s, 1],
        a * texture[p, 2] + b * texture[q, 2] + c * texture[r, 2] + d * texture[s, 2],
    )


@njit(cache=True, nogil=True)
def corners(points, a, b, c, x, y):  # type: ignore[no-untyped-def]
    """How much each corner of a triangle counts at an ideal place, in space; places outside are moved to its border."""
    ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    qa = max(0.0, ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area) * points[a, 2]
    qb = max(0.0, ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area) * points[b, 2]
    qc = max(0.0, ((ax - x) * (by - y) - (ay - y) * (bx - x)) / area) * points[c, 2]
    total = qa + qb + qc
    return np.float32(qa / total), np.float32(qb / total), np.float32(qc / total), abs(area)


@njit(cache=True, nogil=True)
def shade(placed, surface, looks, lens, buffers, light, part):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """Add to every pixel the light of one thing's samples; a material is shaded once a pixel, in their middle.

    placed: vertices, normals, projected points, the camera's centre. buffers: shown (Hs, Ws), picture (H, W, 3) float32
    sums over samples, covered (H, W) uint8 numbers of samples. part: the number of its first triangle, and the rows and
    columns of pixels (first, last + 1) to which it may extend.
    """
    first_id, top, bottom, left, right = part
    vertices, vertex_normals, points, eye = placed
    shown, picture, covered = buffers
    faces, material = surface.faces, surface.material
    rays, over = lens.rays, lens.over
    bent = rays.shape[0] > 0
    last_id = first_id + faces.shape[0]
    colour = np.empty(3, np.float32)
    for row in range(top, bottom):
        for column in range(left, right):
            for s in range(over * over):
                y, x = row * over + s // over, column * over + s % over
                found = shown[y, x]
                if found < first_id or found >= last_id:
                    continue
                m = material[found - first_id]
                seen, count, px, py = False, 0, 0.0, 0.0
                for other in range(over * over):
                    j, i = row * over + other // over, column * over + other % over
                    there = shown[j, i]
                    if there < first_id or there >= last_id or material[there - first_id] != m:
                        continue
                    if other < s:
                        seen = True
                        break
                    count += 1
                    px += np.float64(rays[j, i, 0]) if bent else np.float64(i)
                    py += np.float64(rays[j, i, 1]) if bent else np.float64(j)
                if seen:
                    continue
                place = (found - first_id, px / count, py / count, over)
                _colour(place, vertices, vertex_normals, points, eye, surface, looks, light, colour)
                covered[row, column] += np.uint8(count)
                for c in range(3):
                    picture[row, column, c] += np.float32(count) * colour[c]


@njit(cache=True, nogil=True)
def _colour(place, vertices, vertex_normals, points, eye, surface, looks, light, out):  # type: ignore[no-untyped-def]
    """Fill `out` (3,) with the linear colour of a triangle at an ideal place: texture, bumps, sky, sun, highlight."""
    f, px, py, over = place
    one, zero = np.float32(1), np.float32(0)
    a, b, c = surface.faces[f, 0], surface.faces[f, 1], surface.faces[f, 2]
    m = surface.material[f]
    qa, qb, qc, area = corners(points, a, b, c, px, py)
    nx = qa * vertex_normals[a, 0] + qb * vertex_normals[b, 0] + qc * vertex_normals[c, 0]
    ny = qa * vertex_normals[a, 1] + qb * vertex_normals[b, 1] + qc * vertex_normals[c, 1]
    nz = qa * vertex_normals[a, 2] + qb * vertex_normals[b, 2] + qc * vertex_normals[c, 2]
    x = qa * vertices[a, 0] + qb * vertices[b, 0] + qc * vertices[c, 0]
    y = qa * vertices[a, 1] + qb * vertices[b, 1] + qc * vertices[c, 1]
    z = qa * vertices[a, 2] + qb * vertices[b, 2] + qc * vertices[c, 2]
    ta, tb, tc = surface.face_uv[f, 0], surface.face_uv[f, 1], surface.face_uv[f, 2]
    ua, va, ub, vb = surface.uv[ta, 0], surface.uv[ta, 1], surface.uv[tb, 0], surface.uv[tb, 1]
    uc, vc = surface.uv[tc, 0], surface.uv[tc, 1]
    u, v = qa * ua + qb * ub + qc * uc, qa * va + qb * vb + qc * vc
    turned = (ub - ua) * (vc - va) - (uc - ua) * (vb - va)
    texels = abs(turned) * np.float32(SIZE * SIZE) * over * over / max(area, 1e-9)
    level = min(max(int(0.5 * math.log2(max(texels, 1e-9)) + 0.5 - SHARPER), 0), LEVELS - 1)
    length = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-12)
    nx, ny, nz = nx / length, ny / length, nz / length
    if looks.bump[m] >= 0:
        bx, by, bz = texel(looks.bumps[looks.bump[m]], level, u, v)
        bx, by, bz = bx / np.float32(127.5) - one, by / np.float32(127.5) - one, bz / np.float32(127.5) - one
        hand = one if turned >= 0 else -one
        e1, e2 = vb - va, vc - va
        tx = ((vertices[b, 0] - vertices[a, 0]) * e2 - (vertices[c, 0] - vertices[a, 0]) * e1) * hand
        ty = ((vertices[b, 1] - vertices[a, 1]) * e2 - (vertices[c, 1] - vertices[a, 1]) * e1) * hand
        tz = ((vertices[b, 2] - vertices[a, 2]) * e2 - (vertices[c, 2] - vertices[a, 2]) * e1) * hand
        length = np.sqrt(tx * tx + ty * ty + tz * tz) + np.float32(1e-20)
        tx, ty, tz = tx / length, ty / length, tz / length
        sx, sy, sz = (ny * tz - nz * ty) * hand, (nz * tx - nx * tz) * hand, (nx * ty - ny * tx) * hand
        nx, ny, nz = bx * tx + by * sx + bz * nx, bx * ty + by * sy + bz * ny, bx * tz + by * sz + bz * nz
        length = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-12)
        nx, ny, nz = nx / length, ny / length, nz / length
    ex, ey, ez = eye[0] - x, eye[1] - y, eye[2] - z
    length = np.sqrt(ex * ex + ey * ey + ez * ez)
    ex, ey, ez = ex / length, ey / length, ez / length
    if nx * ex + ny * ey + nz * ez < zero:  # the inner side of cloth
        nx, ny, nz = -nx, -ny, -nz
    sun, away = light.sun_from, np.float32(AWAY_M)
    facing, gloss = nx * sun[0] + ny * sun[1] + nz * sun[2], zero
    lit = zero
    if facing > zero:
        lit = facing * sunlit(x + nx * away, y + ny * away, z + nz * away, light.shadow, light.to_shadow)
        hx, hy, hz = ex + sun[0], ey + sun[1], ez + sun[2]
        length = np.sqrt(hx * hx + hy * hy + hz * hz) + np.float32(1e-12)
        half = max(zero, (nx * hx + ny * hy + nz * hz) / length)
        gloss = looks.gloss[m, 0] * half ** looks.gloss[m, 1] * lit
    open_sky = qa * surface.open[a] + qb * surface.open[b] + qc * surface.open[c]
    red, green, blue = texel(looks.textures[m], level, u, v)
    exposure = np.float32(light.exposure)
    for channel in range(3):
        byte = red if channel == 0 else (green if channel == 1 else blue)
        albedo = LINEAR[int(byte * np.float32(FINE) + np.float32(0.5))] * looks.tint[m, channel]
        ambient = max(zero, sky_light(light.sky, channel, nx, ny, nz)) * open_sky
        out[channel] = exposure * (
            albedo * (ambient + light.sun_colour[channel] * lit) + light.sun_colour[channel] * gloss
        )


@njit(cache=True, nogil=True)
def develop(picture, covered, behind, samples, out):  # type: ignore[no-untyped-def]
    """Fill `out` (H, W, 3) uint8: sums over samples, and what lies behind (H, W, 3) linear, as a camera shows them."""
    last = SRGB.shape[0] - 1
    one, shoulder, whole = np.float32(1), np.float32(SHOULDER), np.float32(samples)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            rest = one - np.float32(covered[y, x]) / whole
            for c in range(3):
                q = picture[y, x, c] / whole
                if rest > 0:
                    q += rest * behind[y, x, c]
                q = q * (one + shoulder) / (one + shoulder * q)
                out[y, x, c] = SRGB[int(min(max(q, np.float32(0)), one) * np.float32(last))]
