"""Learning where people are in wide pictures: what a finder is trained for."""

from __future__ import annotations

import json

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from harvest.detect2d.own_hourglass import HarvestHourglass
from harvest.detect2d.people import CROP_OVER_JOINTS, MIN_SCORE, PEOPLE_MAPS, RADIUS_PX, people_of
from harvest.learn.samples import CROP_PX, Place, augment, read_files
from harvest.skeleton import load_skeleton

MOST = 6  # people in a picture
LEAST_SEEN = 4  # joints of somebody who has to be found
SPREAD = 0.08  # of the radius: standard deviation of the cells that are only half wrong
RADIUS_WEIGHT = 0.2
NEAR = 0.3  # of the radius, for somebody to be found
_MPII = load_skeleton("mpii16")
_VISIBLE = 2


class PeopleTask:
    """Maps of people's centres and sizes (Zhou et al. 2019, "Objects as points", section 3)."""

    maps: tuple[str, ...] = PEOPLE_MAPS
    measures: tuple[str, ...] = ("precision", "recall")

    def prepare(self, network: HarvestHourglass) -> None:
        """Let sizes begin at RADIUS_PX."""
        for score in network.heads:
            assert score.bias is not None
            score.bias.data[PEOPLE_MAPS.index("radius")] = 0.0

    def sample(self, place: Place, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """A picture, and its people (MOST, 4): centre, radius, and 1 for one to find, 0 for one of no matter."""
        picture, uv, seen = _read(place)
        shape = uv.shape
        picture, moved = augment(picture, uv.reshape(-1, 2), np.arange(uv[..., 0].size), rng)
        return picture, _circles(moved.reshape(shape), seen)

    def loss(self, scores: Tensor, truth: Tensor) -> Tensor:
        """Focal loss of the centres and, where they are, of the logarithm of the sizes."""
        return _loss(scores, truth)

    def measure(self, network: HarvestHourglass, places: list[Place], bf16: bool) -> tuple[float, float]:
        """Precision and recall on pictures as they are."""
        right = shown = wanted = 0
        for place in places:
            picture, uv, seen = _read(place)
            circles = _circles(uv, seen)
            x = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255 - torch.tensor(network.mean_rgb)[:, None, None]
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                scores = network(x.contiguous(memory_format=torch.channels_last))[0, -1].float()
            centre, _, _ = people_of(scores, MIN_SCORE)
            far = np.linalg.norm(centre[:, None] - circles[None, :, :2], axis=2) / circles[:, 2]
            matter = circles[:, 3] == 1
            near = np.asarray(far < NEAR)
            wanted += int(matter.sum())
            right += int((near.any(axis=0) & matter).sum())
            shown += int((~near.any(axis=1) | (near & matter).any(axis=1)).sum())
        return right / max(shown, 1), right / max(wanted, 1)


def _read(place: Place) -> tuple[NDArray[np.uint8], NDArray[np.float64], NDArray[np.bool_]]:
    """Picture, joints (MOST, 16, 2) of its people in pixels (NaN: nobody), and which of them can be seen."""
    picture, label = read_files(place)
    people = [json.loads(label)["joints"][_MPII.name], *json.loads(label).get("others", ())][:MOST]
    uv, seen = np.full((MOST, len(_MPII.joints), 2), np.nan), np.zeros((MOST, len(_MPII.joints)), bool)
    for index, one in enumerate(people):
        uv[index] = [(np.nan, np.nan) if point is None else point for point in one["uv_px"]]
        seen[index] = np.array(one["visibility"]) == _VISIBLE
    return picture, uv, seen


def _circles(uv: NDArray[np.float64], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(MOST, 4) of people by their joints; somebody whose hips are outside or of whom little shows does not matter."""
    centre = uv[:, _MPII.index("pelvis")]
    radius = CROP_OVER_JOINTS * np.linalg.norm(uv - centre[:, None], axis=2).max(axis=1)
    with np.errstate(invalid="ignore"):
        inside = ((uv > 0) & (uv < CROP_PX)).all(axis=2)
        matter = np.asarray(inside)[:, _MPII.index("pelvis")] & ((seen & inside).sum(axis=1) >= LEAST_SEEN)
    out = np.column_stack([centre, radius, matter]).astype(np.float32)
    out[~np.isfinite(out).all(axis=1)] = [-1e4, -1e4, 1.0, 0.0]
    return out


def _loss(scores: Tensor, people: Tensor) -> Tensor:
    cells = scores.shape[-1]
    stride = CROP_PX / cells
    grid = (torch.arange(cells, device=scores.device) + 0.5) * stride - 0.5
    x, y, radius, matter = (people[..., i, None, None] for i in range(4))
    apart = (grid[None, None, None, :] - x) ** 2 + (grid[None, None, :, None] - y) ** 2  # (B, MOST, cells, cells)
    half_right = torch.exp(-apart / (2 * (SPREAD * radius).clamp_min(0.7 * stride) ** 2))
    target = (half_right * matter).amax(1)
    no_matter = ((apart < (0.5 * radius) ** 2) & (matter == 0)).any(1)
    at = _nearest(people, cells)  # (B, MOST) index of each centre's cell
    real = (people[..., 3] == 1) & (at >= 0)
    flat = scores[:, 0].flatten(1)
    centre = torch.zeros_like(flat, dtype=torch.bool)
    rows = torch.arange(len(people), device=scores.device)[:, None].expand_as(at)
    centre[rows[real], at[real]] = True
    chance, count = flat.sigmoid(), real.sum().clamp_min(1)
    hit = (1 - chance[centre]) ** 2 * -functional.logsigmoid(flat[centre])
    weight = (1 - target.flatten(1)) ** 4 * chance**2 * ~no_matter.flatten(1) * ~centre
    miss = weight * -functional.logsigmoid(-flat)
    size = scores[:, 1].flatten(1)[rows[real], at[real]]
    wrong_size = (size - torch.log(people[..., 2][real] / RADIUS_PX)).abs()
    return (hit.sum() + miss.sum() + RADIUS_WEIGHT * wrong_size.sum()) / count


def _nearest(people: Tensor, cells: int) -> Tensor:
    place = ((people[..., :2] + 0.5) * (cells / CROP_PX)).floor().long()
    inside = ((place >= 0) & (place < cells)).all(-1)
    return torch.where(inside, place[..., 1] * cells + place[..., 0], -1)
