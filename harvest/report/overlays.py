"""The contact sheet: pictures cropped round the person, the projected skeleton drawn over them as SVG."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from calib.camera import Camera
from harvest.report.content import ReportContent
from harvest.report.measures import Measures, quantity

Floats = NDArray[np.floating]
Picture = NDArray[np.uint8]
Pictures = Callable[[Sequence[int]], Iterator[tuple[int, Mapping[str, Picture | None]]]]

THUMB_PX = 260
JPEG_QUALITY = 80
MARGIN = 0.15  # of the projected person's larger side, on each side
SMALLEST_CROP_PX = 64.0
OUTSIDE_RGB = (34, 38, 42)  # the tile's own background in style.css
MAX_OVERSAMPLING = 4
ELLIPSE_SIGMAS = 2.0
DIFFERENCE_M = 1e-4
SIDES = {"l_": "left", "r_": "right"}


def side_of(joint: str) -> str:
    """left, right or middle, by the joint's prefix."""
    return SIDES.get(joint[:2], "middle")


def evenly_spread(n: int, shown: int) -> list[int]:
    """Up to `shown` indices below n, in the middles of equal stretches."""
    count = max(0, min(n, shown))
    return [int((i + 0.5) * n / count) for i in range(count)]


def contact_sheet(content: ReportContent, measures: Measures, pictures: Pictures, frames_shown: int) -> str:
    """Tiles as HTML, one row a frame and one column a view."""
    times = evenly_spread(len(content.poses.frames), frames_shown)
    index_of = {int(content.poses.frames[t]): t for t in times}
    tiles: dict[int, str] = {}
    for frame, shown in pictures(sorted(index_of)) if index_of else ():
        if int(frame) in index_of:
            tiles[int(frame)] = _row(content, measures, index_of[int(frame)], shown)
    rows = [tiles.get(frame) or _row(content, measures, t, {}) for frame, t in index_of.items()]
    return f'<div class="sheet" style="--views:{len(content.poses.views)}">{"".join(rows)}</div>'


def _row(content: ReportContent, measures: Measures, t: int, shown: Mapping[str, Picture | None]) -> str:
    row = []
    for v, view in enumerate(content.poses.views):
        frame = int(content.poses.frames[t])
        picture = shown.get(view)
        if picture is None:
            inside = '<div class="no-picture">no picture</div>'
        else:
            affine = content.image_from_crop(frame, view)
            if affine is None:
                affine = crop_round(measures.uv_px[v, t], picture.shape)
            inside = _tile(picture, affine, _overlay(content, measures, (v, t), affine))
        row.append(f'<figure class="tile">{inside}<figcaption>{escape(view)}, frame {frame}</figcaption></figure>')
    return "".join(row)


def crop_round(uv_px: Floats, shape: tuple[int, ...]) -> Floats:
    """(2, 3) image from unit crop: the square round points (J, 2) with a margin, or round the picture if none is in.

    The square is moved into the picture as far as it fits.
    """
    height, width = shape[:2]
    inside = (uv_px > -0.5).all(-1) & (uv_px < (width - 0.5, height - 0.5)).all(-1)
    if inside.any():
        low, high = uv_px[inside].min(0), uv_px[inside].max(0)
        side = max(float((high - low).max()) * (1 + 2 * MARGIN), SMALLEST_CROP_PX)
        centre = (low + high) / 2
        half = min(side, width, height) / 2
        centre = np.clip(centre, half - 0.5, (width - 0.5 - half, height - 0.5 - half))
    else:
        side, centre = float(max(width, height)), np.array([width - 1, height - 1]) / 2
    corner = centre - side / 2
    return np.array([[side, 0.0, corner[0]], [0.0, side, corner[1]]])


def _tile(picture: Picture, image_from_crop: Floats, overlay: str) -> str:
    """A square SVG: the crop as JPEG, the overlay above it."""
    jpeg = base64.b64encode(crop_jpeg(picture, image_from_crop)).decode("ascii")
    size = f'width="{THUMB_PX}" height="{THUMB_PX}"'
    return (
        f'<svg viewBox="0 0 {THUMB_PX} {THUMB_PX}" role="img"><image href="data:image/jpeg;base64,{jpeg}" {size}/>'
        f'<g class="overlay">{overlay}</g></svg>'
    )


def crop_jpeg(picture: Picture, image_from_crop: Floats) -> bytes:
    """The crop of an RGB picture, THUMB_PX a side, as JPEG; oversampled first so that shrinking does not alias."""
    pixels_each = math.sqrt(abs(float(np.linalg.det(image_from_crop[:, :2])))) / THUMB_PX
    finer = min(MAX_OVERSAMPLING, max(1, math.ceil(pixels_each)))
    affine = image_from_crop @ _crop_from_pixels(THUMB_PX * finer)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = (THUMB_PX * finer, THUMB_PX * finer)
    large = cv2.warpAffine(picture, affine.astype(np.float64), size, flags=flags, borderValue=OUTSIDE_RGB)
    small = cv2.resize(large, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA) if finer > 1 else large
    encoded, data = cv2.imencode(
        ".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    )
    assert encoded, "OpenCV could not encode a picture"
    return data.tobytes()


def _crop_from_pixels(n: int) -> Floats:
    """(3, 3) from the pixels of an n x n raster, centres at whole numbers, to the unit crop."""
    return np.array([[1 / n, 0.0, 0.5 / n], [0.0, 1 / n, 0.5 / n], [0.0, 0.0, 1.0]])


def _overlay(content: ReportContent, measures: Measures, at: tuple[int, int], image_from_crop: Floats) -> str:
    """Limbs, ellipses and joints of view v at time t, `at` = (v, t), in the tile's coordinates."""
    v, t = at
    image_from_tile = np.vstack([image_from_crop, [0.0, 0.0, 1.0]]) @ np.diag([1 / THUMB_PX, 1 / THUMB_PX, 1.0])
    tile_from_image = np.linalg.inv(image_from_tile)[:2]
    xy = measures.uv_px[v, t] @ tile_from_image[:, :2].T + tile_from_image[:, 2]
    cov = projected_covariance(content.rig.cameras[v], content.poses.xyz_m[t], content.poses.cov_m2[t])
    cov = tile_from_image[:, :2] @ cov @ tile_from_image[:, :2].T
    limbs, ellipses, dots = [], [], []
    for j, joint in enumerate(content.skeleton.joints):
        if not np.isfinite(xy[j]).all():
            continue
        parent = content.skeleton.parents[j]
        state = "kept" if measures.keep[t, j] else "dropped"
        if parent >= 0 and np.isfinite(xy[parent]).all():
            weak = "" if measures.limb_kept[t, j] else " weak"
            (x1, y1), (x2, y2) = xy[j], xy[parent]
            line = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
            limbs.append(f'<line class="limb {side_of(joint)}{weak}" {line}/>')
        ellipses.append(_ellipse(xy[j], cov[j], state))
        told = f"{joint}: {state}, ± {quantity(measures.sigma_mm[t, j], 'mm')}"
        error = measures.error_px[v, t, j]
        told += f", {quantity(error, 'px')} from the peak" if np.isfinite(error) else ""
        circle = f'cx="{xy[j, 0]:.1f}" cy="{xy[j, 1]:.1f}" r="3"'
        dots.append(f'<circle class="joint {state}" {circle}><title>{escape(told)}</title></circle>')
    return "".join(limbs + ellipses + dots)


def projected_covariance(camera: Camera, xyz_m: Floats, cov_m2: Floats) -> Floats:
    """(J, 2, 2) px² covariances (J, 3, 3) of points (J, 3) seen by a camera, to first order; NaN where not seen."""
    step = DIFFERENCE_M * np.eye(3)
    columns = [(camera.project(xyz_m + d) - camera.project(xyz_m - d)) / (2 * DIFFERENCE_M) for d in step]
    jacobian = np.stack(columns, axis=-1)
    return np.asarray(jacobian @ cov_m2 @ jacobian.swapaxes(-1, -2))


def _ellipse(xy: Floats, cov: Floats, state: str) -> str:
    """The 2-sigma ellipse, empty where it is not known or would fill the tile."""
    if not np.isfinite(cov).all():
        return ""
    values, vectors = np.linalg.eigh(cov)
    minor, major = ELLIPSE_SIGMAS * np.sqrt(np.maximum(values, 0.0))
    if major > THUMB_PX:
        return ""
    degrees = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    place = f'transform="translate({xy[0]:.1f} {xy[1]:.1f}) rotate({degrees:.0f})"'
    return f'<ellipse class="sigma {state}" rx="{major:.1f}" ry="{minor:.1f}" {place}/>'
