"""What colour a picture's pixels have, once it is known which triangles they show."""

from __future__ import annotations

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
FINER = 2.8  # texels a pixel, above which the next coarser level of a texture is read

_OFFSETS = tuple(int(offset) for offset in OFFSETS)


class Lighting(NamedTuple):
    """Light of a scene: sky (9, 3) float32 spherical harmonics, see `harvest.studio.light`; sun_from (3,) unit vector
    to the sun and its colour (3,); shadow (S, S) float32 depths of what the sun sees; to_shadow (3, 4) float32 from the
    world to its columns, rows and depths; exposure.
    """

    sky: Any
    sun_from: Any
    sun_colour: Any
    shadow: Any
    to_shadow: Any
    exposure: float


@njit(inline="always", error_model="numpy")
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


@njit(inline="always", error_model="numpy")
def sunlit(x, y, z, shadow, to_shadow):  # type: ignore[no-untyped-def]
    """Share from 0 to 1 of a point's surroundings in the shadow map that nothing keeps from the sun."""
    column = to_shadow[0, 0] * x + to_shadow[0, 1] * y + to_shadow[0, 2] * z + to_shadow[0, 3]
    row = to_shadow[1, 0] * x + to_shadow[1, 1] * y + to_shadow[1, 2] * z + to_shadow[1, 3]
    depth = to_shadow[2, 0] * x + to_shadow[2, 1] * y + to_shadow[2, 2] * z + to_shadow[2, 3] - np.float32(BIAS_M)
    i, j, last = np.int64(column + np.float32(0.5)), np.int64(row + np.float32(0.5)), shadow.shape[0] - 3
    free = np.float32(9)
    if i >= 2 and j >= 2 and i <= last and j <= last:
        for dj in range(-1, 2):
            for di in range(-1, 2):
                if shadow[j + dj, i + di] < depth:
                    free -= np.float32(1)
    return free / np.float32(9)


@njit(inline="always", error_model="numpy")
def texel(textures, m, level, u, v):  # type: ignore[no-untyped-def]
    """The first three numbers of texture m of (M, texels, 4) at (u, v), bilinear between the four texels around."""
    size, first = SIZE >> level, _OFFSETS[level]
    x = (u - np.floor(u)) * np.float32(size) - np.float32(0.5)
    y = (np.float32(1) - (v - np.floor(v))) * np.float32(size) - np.float32(0.5)
    i, j = np.int64(np.floor(x)), np.int64(np.floor(y))
    fx, fy = x - np.float32(i), y - np.float32(j)
    mask = size - 1  # sizes are powers of two
    top, bottom = first + (j & mask) * size, first + ((j + 1) & mask) * size
    left, right = i & mask, (i + 1) & mask
    one = np.float32(1)
    a, b, c, d = (one - fx) * (one - fy), fx * (one - fy), (one - fx) * fy, fx * fy
    p, q, r, s = top + left, top + right, bottom + left, bottom + right
    return (
        a * textures[m, p, 0] + b * textures[m, q, 0] + c * textures[m, r, 0] + d * textures[m, s, 0],
        a * textures[m, p, 1] + b * textures[m, q, 1] + c * textures[m, r, 1] + d * textures[m, s, 1],
        a * textures[m, p, 2] + b * textures[m, q, 2] + c * textures[m, r, 2] + d * textures[m, s, 2],
    )


@njit(inline="always", error_model="numpy")
def unit(x, y, z):  # type: ignore[no-untyped-def]
    """A vector (x, y, z) made of length one."""
    inverse = np.float32(1) / np.sqrt(x * x + y * y + z * z + np.float32(1e-24))
    return x * inverse, y * inverse, z * inverse


@njit(cache=True, nogil=True, error_model="numpy")
def on_border(ax, ay, bx, by, cx, cy, x, y):  # type: ignore[no-untyped-def]  # noqa: PLR0913
    """How much each corner of a triangle counts at the place of its border that is nearest to (x, y)."""
    near_ab, ab = _along(ax, ay, bx, by, x, y)
    near_bc, bc = _along(bx, by, cx, cy, x, y)
    near_ca, ca = _along(cx, cy, ax, ay, x, y)
    if near_ab <= near_bc and near_ab <= near_ca:
        return 1.0 - ab, ab, 0.0
    if near_bc <= near_ca:
        return 0.0, 1.0 - bc, bc
    return ca, 0.0, 1.0 - ca


@njit(inline="always", error_model="numpy")
def _along(px, py, qx, qy, x, y):  # type: ignore[no-untyped-def]
    """Squared distance from (x, y) to the piece from p to q, and the share of the way at which it is nearest."""
    dx, dy = qx - px, qy - py
    share = ((x - px) * dx + (y - py) * dy) / (dx * dx + dy * dy + 1e-30)
    share = min(max(share, 0.0), 1.0)
    ox, oy = px + share * dx - x, py + share * dy - y
    return ox * ox + oy * oy, share


def shade(placed: Any, surface: Any, looks: Any, lens: Any, buffers: Any, light: Any, part: Any) -> None:
    """Add to every pixel the light of one thing's samples; a material is shaded once a pixel, in their middle.

    placed: vertices, normals, projected points, the camera's centre. buffers: shown (Hs, Ws), picture (H, W, 3) float32
    sums over samples, covered (H, W) uint8 numbers of samples. part: the number of its first triangle, and the rows and
    columns of pixels (first, last + 1) to which it may extend.
    """
    shown, picture, covered = buffers
    spots = find_spots(shown, surface.material, len(surface.faces), lens.rays, lens.over, part, covered)
    light_spots(spots, placed, surface, looks, light, lens.over, picture)


@njit(cache=True, nogil=True, error_model="numpy")
def find_spots(shown, material, faces, rays, over, part, covered):  # type: ignore[no-untyped-def]  # noqa: C901
    """Where to shade: row, column, face and number of samples (N, 4) int32, and the ideal place (N, 2) of their middle.

    A spot is what one material of a thing has of a pixel's samples. Fills `covered` too.
    """
    first_id, top, bottom, left, right = part
    last_id, bent = first_id + faces, rays.shape[0] > 0
    room = max((bottom - top) * (right - left), 0) * 2 + 16
    what, place = np.empty((room, 4), np.int32), np.empty((room, 2))
    n = 0
    for row in range(top, bottom):
        for column in range(left, right):
            begin, y, x = n, row * over, column * over
            one, alike = shown[y, x], True
            for j in range(y, y + over):
                for i in range(x, x + over):
                    alike = alike and shown[j, i] == one
            if alike and (one < first_id or one >= last_id):
                continue
            if n + over * over > what.shape[0]:
                what, place = _twice(what), _twice(place)
            for j in range(y, y + over):
                for i in range(x, x + over):
                    found = shown[j, i]
                    if found < first_id or found >= last_id:
                        continue
                    at = begin
                    if not alike:
                        while at < n and material[what[at, 2]] != material[found - first_id]:
                            at += 1
                    if at == n:
                        what[n, 0], what[n, 1], what[n, 2], what[n, 3] = row, column, found - first_id, 0
                        place[n, 0], place[n, 1] = 0.0, 0.0
                        n += 1
                    what[at, 3] += 1
                    place[at, 0] += np.float64(rays[j, i, 0]) if bent else np.float64(i)
                    place[at, 1] += np.float64(rays[j, i, 1]) if bent else np.float64(j)
            for at in range(begin, n):
                covered[row, column] += np.uint8(what[at, 3])
                place[at, 0] /= what[at, 3]
                place[at, 1] /= what[at, 3]
    return what[:n], place[:n]


@njit(cache=True, nogil=True, error_model="numpy")
def _twice(rows):  # type: ignore[no-untyped-def]
    out = np.empty((2 * rows.shape[0], rows.shape[1]), rows.dtype)
    out[: rows.shape[0]] = rows
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def light_spots(spots, placed, surface, looks, light, over, picture):  # type: ignore[no-untyped-def]
    """Add each spot's linear colour, times its samples, to the picture: texture, bumps, sky, sun, highlight.

    One long function, and every array a local name: reading one out of a tuple within the loop costs as much as a
    texture.
    """
    what, place = spots
    vertices, vertex_normals, points, eye = placed
    faces, material, uv, face_uv, opening = surface.faces, surface.material, surface.uv, surface.face_uv, surface.open
    textures, bumps, bump, gloss, tint = looks.textures, looks.bumps, looks.bump, looks.gloss, looks.tint
    sky, sun, sun_colour = light.sky, light.sun_from, light.sun_colour
    shadow, to_shadow, exposure = light.shadow, light.to_shadow, np.float32(light.exposure)
    one, zero, away, byte = np.float32(1), np.float32(0), np.float32(AWAY_M), np.float32(127.5)
    for spot in range(what.shape[0]):
        f, x0, y0 = what[spot, 2], place[spot, 0], place[spot, 1]
        a, b, c, m = faces[f, 0], faces[f, 1], faces[f, 2], material[f]
        # How much each corner counts in space; a middle that lies outside is moved to the nearest place of the border.
        ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        inverse = 1.0 / area
        wa = ((bx - x0) * (cy - y0) - (by - y0) * (cx - x0)) * inverse
        wb = ((cx - x0) * (ay - y0) - (cy - y0) * (ax - x0)) * inverse
        wc = 1.0 - wa - wb
        if wa < 0.0 or wb < 0.0 or wc < 0.0:
            wa, wb, wc = on_border(ax, ay, bx, by, cx, cy, x0, y0)
        wa, wb, wc = wa * points[a, 2], wb * points[b, 2], wc * points[c, 2]
        total = 1.0 / (wa + wb + wc)
        qa, qb, qc = np.float32(wa * total), np.float32(wb * total), np.float32(wc * total)
        nx, ny, nz = unit(
            qa * vertex_normals[a, 0] + qb * vertex_normals[b, 0] + qc * vertex_normals[c, 0],
            qa * vertex_normals[a, 1] + qb * vertex_normals[b, 1] + qc * vertex_normals[c, 1],
            qa * vertex_normals[a, 2] + qb * vertex_normals[b, 2] + qc * vertex_normals[c, 2],
        )
        x = qa * vertices[a, 0] + qb * vertices[b, 0] + qc * vertices[c, 0]
        y = qa * vertices[a, 1] + qb * vertices[b, 1] + qc * vertices[c, 1]
        z = qa * vertices[a, 2] + qb * vertices[b, 2] + qc * vertices[c, 2]
        ta, tb, tc = face_uv[f, 0], face_uv[f, 1], face_uv[f, 2]
        ua, va, u1, v1 = uv[ta, 0], uv[ta, 1], uv[tb, 0] - uv[ta, 0], uv[tb, 1] - uv[ta, 1]
        u2, v2 = uv[tc, 0] - ua, uv[tc, 1] - va
        u, v, turned = ua + qb * u1 + qc * u2, va + qb * v1 + qc * v2, u1 * v2 - u2 * v1
        finer = abs(turned) * np.float32(SIZE * SIZE * over * over) / np.float32(abs(area) + 1e-9)  # texels a pixel
        level = 0
        while finer > np.float32(FINER) and level < LEVELS - 1:
            finer, level = finer * np.float32(0.25), level + 1
        if bump[m] >= 0:
            gx, gy, gz = texel(bumps, bump[m], level, u, v)
            gx, gy, gz = gx / byte - one, gy / byte - one, gz / byte - one
            hand = one if turned >= 0 else -one
            tx, ty, tz = unit(
                ((vertices[b, 0] - vertices[a, 0]) * v2 - (vertices[c, 0] - vertices[a, 0]) * v1) * hand,
                ((vertices[b, 1] - vertices[a, 1]) * v2 - (vertices[c, 1] - vertices[a, 1]) * v1) * hand,
                ((vertices[b, 2] - vertices[a, 2]) * v2 - (vertices[c, 2] - vertices[a, 2]) * v1) * hand,
            )
            sx, sy, sz = (ny * tz - nz * ty) * hand, (nz * tx - nx * tz) * hand, (nx * ty - ny * tx) * hand
            nx, ny, nz = unit(gx * tx + gy * sx + gz * nx, gx * ty + gy * sy + gz * ny, gx * tz + gy * sz + gz * nz)
        ex, ey, ez = unit(eye[0] - x, eye[1] - y, eye[2] - z)
        if nx * ex + ny * ey + nz * ez < zero:  # the inner side of cloth
            nx, ny, nz = -nx, -ny, -nz
        facing, lit, shine = nx * sun[0] + ny * sun[1] + nz * sun[2], zero, zero
        if facing > zero:
            lit = facing * sunlit(x + nx * away, y + ny * away, z + nz * away, shadow, to_shadow)
            hx, hy, hz = unit(ex + sun[0], ey + sun[1], ez + sun[2])
            half = nx * hx + ny * hy + nz * hz
            if half > np.float32(0.3):  # else too dull to be seen
                shine = gloss[m, 0] * half ** gloss[m, 1] * lit
        open_sky = qa * opening[a] + qb * opening[b] + qc * opening[c]
        colour = texel(textures, m, level, u, v)
        weight = exposure * np.float32(what[spot, 3])
        row, column = what[spot, 0], what[spot, 1]
        for channel in range(3):
            albedo = LINEAR[np.int64(colour[channel] * np.float32(FINE) + np.float32(0.5))] * tint[m, channel]
            ambient = max(zero, sky_light(sky, channel, nx, ny, nz)) * open_sky
            glow = albedo * (ambient + sun_colour[channel] * lit) + sun_colour[channel] * shine
            picture[row, column, channel] += weight * glow


@njit(cache=True, nogil=True, error_model="numpy")
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
