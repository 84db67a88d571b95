"""Volumetric triangulation that learns: features of all views -> a cube of voxels -> where each joint is.

Points of the world are projected to cells of a view's feature map by a (3, 4) matrix (`cells_from_pixels` makes it from
one to pixels of the crop). Lenses that bend light need more than a matrix: `aggregate` takes the cells themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cuda_kernels.view_features import view_features
from harvest.triangulate3d.algebraic import shares
from harvest.triangulate3d.backbone import Backbone
from harvest.triangulate3d.volume_network import LEVELS, VolumeNetwork

How = Literal["sum", "confidence", "softmax"]
CHANNELS = 32  # of the voxels (Iskakov et al. 2019, section 3.2: K)
NEAREST_M = 1e-6  # depth at which a camera begins to see
_AWAY = -10.0  # a cell outside every map


@dataclass(frozen=True, eq=False)
class Cube:
    """Where the voxels are: one upright cube for each of B people, of n voxels a side.

    centre_m (B, 3); side_m > 0; turn_rad (B,) about `up` through the centre, counter-clockwise seen from above, None
    for no turn; up: the unit vector against gravity. Voxel (i, j, k) is that of calib/conventions.md, turned.

    Raises:
        ValueError: shapes that do not fit, or a cube without size.
    """

    centre_m: Tensor
    side_m: float
    n: int
    turn_rad: Tensor | None = None
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        """Check shapes and sizes."""
        people = self.centre_m.shape[:1]
        if self.centre_m.shape != (*people, 3) or (self.turn_rad is not None and self.turn_rad.shape != people):
            raise ValueError(f"need centres (B, 3) and turns (B,), got centres {tuple(self.centre_m.shape)}")
        if not self.side_m > 0 or self.n < 1:
            raise ValueError(f"a cube needs a side and voxels, got {self.side_m} m and {self.n}")

    @property
    def step_m(self) -> float:
        """Side of a voxel."""
        return self.side_m / self.n

    @property
    def world_from_cube(self) -> Tensor:
        """(B, 3, 3) the turn as rotations (Rodrigues' formula)."""
        turn = self.centre_m.new_zeros(len(self.centre_m)) if self.turn_rad is None else self.turn_rad.to(self.centre_m)
        sine, cosine = turn.sin()[:, None, None], turn.cos()[:, None, None]
        axis = self.centre_m.new_tensor(self.up)
        axis = axis / axis.square().sum().sqrt()
        x, y, z = axis.unbind()
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
        return cosine * torch.eye(3).to(axis) + sine * cross + (1 - cosine) * axis[:, None] * axis

    def axis_m(self) -> Tensor:
        """(n,) places of voxels along each axis of the cube, from its centre."""
        return (torch.arange(self.n).to(self.centre_m) + 0.5 - self.n / 2) * self.step_m

    def voxels_m(self) -> Tensor:
        """(B, n, n, n, 3) centres of the voxels in the world."""
        x, y, z = (self.axis_m()[:, None] * along[:, None] for along in self.world_from_cube.unbind(-1))
        return (self.centre_m[:, None] + x)[:, :, None, None] + y[:, None, :, None] + z[:, None, None, :]

    def index_of(self, xyz_m: Tensor) -> Tensor:
        """(B, J, 3) places (B, J, 3) in voxels, whole numbers at centres."""
        off = xyz_m - self.centre_m[:, None].to(xyz_m)
        local = (self.world_from_cube.to(xyz_m)[:, None] * off[..., None]).sum(-2)
        return local / self.step_m - 0.5 + self.n / 2


def cells_from_pixels(projections: Tensor, stride: float) -> Tensor:
    """Projections (..., 3, 4) to cells of a map, of those to pixels of the crop; calib/conventions.md places cells."""
    depth = projections[..., 2:, :]
    return torch.cat([(projections[..., :2, :] + 0.5 * (1 - stride) * depth) / stride, depth], dim=-2)


def unproject(
    features: Tensor,
    projections: Tensor,
    cube: Cube,
    how: How = "sum",
    *,
    confidence: Tensor | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """What all views show at every voxel (B, C, n, n, n); `aggregate` with cells by projection.

    Args:
        projections: (B, V, 3, 4) from the world to cells of the maps, with a third row that gives a positive depth in
            front of the camera (metres if it is a rotation's row). Those of a missing view may be anything.
        cube: its dtype and device are those of the arithmetic on places.
    Raises:
        ValueError: as `aggregate`, or other shapes.
    """
    if projections.shape != (*features.shape[:2], 3, 4) or len(cube.centre_m) != len(features):
        given = f"{tuple(features.shape)}, {tuple(projections.shape)} and {len(cube.centre_m)} cubes"
        raise ValueError(f"need features (B, V, C, h, w), projections (B, V, 3, 4) and B cubes, got {given}")
    axis, turn = cube.axis_m(), cube.world_from_cube

    def cells_of_view(view: int) -> Tensor:
        P = projections[:, view].to(axis)
        # A sum along the cube's axes, row by row. Not as a matrix product, which autocast would do in 8 bits.
        middle = (P[..., :3] * cube.centre_m[:, None]).sum(-1) + P[..., 3]
        along = (P[..., :3, None] * turn[:, None]).sum(-2)[..., None] * axis
        i, j, k = (middle[..., None] + along[:, :, 0])[..., None, None], along[:, :, 1, :, None], along[:, :, 2]
        x, y, z = (i + j[:, :, None] + k[:, :, None, None]).unbind(1)
        front = z > NEAREST_M
        closeness = 1 / torch.where(front, z, 1.0)
        return torch.stack([torch.where(front, at * closeness, _AWAY) for at in (x, y)], dim=-1)

    return aggregate(features, cells_of_view, how, confidence=confidence, seen=seen)


def aggregate(
    features: Tensor,
    cells_of_view: Callable[[int], Tensor],
    how: How = "sum",
    *,
    confidence: Tensor | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """What all views show at every voxel: (B, C, n, n, n), differentiable in features, confidences and cells.

    A view shows at a voxel its map at the voxel's cell, sampled bilinearly, and 0 outside the map and where it cannot
    see. A view that is missing takes no part, in a softmax neither. One view's voxels are held at a time, when learning
    too: confidences weigh maps before they are sampled, and a softmax is computed again on the way back.

    Args:
        features: (B, V, C, h, w).
        cells_of_view: of a view's number, the cells (B, n, n, n, 2) as (x, y) where it sees the voxels; NaN, infinite
            or outside the map where it does not. Called up to three times.
        how: "sum" over views; "confidence", the mean weighted by `confidence`; "softmax", the mean weighted by the
            softmax over views of what they show. In both means, as published, a view that there is but that does not
            see a voxel takes part with a 0: it draws the mean towards 0, and a softmax gives it the share of a 0.
        confidence: (B, V, C) or (B, V, 1), >= 0, for "confidence" and only for it.
        seen: (B, V) bool, which views there are; None: all. Without any, the voxels are 0.
    Raises:
        ValueError: confidences missing or not asked for, an unknown `how`, shapes that do not fit.
    Source: Iskakov et al. 2019, eq. 7; eq. 8 for sum, 9 for confidence, 10 and 11 for softmax.
    """
    batch, views, channels = features.shape[:3]
    if how not in ("sum", "confidence", "softmax") or (how == "confidence") != (confidence is not None):
        raise ValueError(f"views come together by sum, confidence or softmax, the second with confidences, got {how!r}")
    if confidence is not None and confidence.shape not in ((batch, views, channels), (batch, views, 1)):
        raise ValueError(f"need confidences {(batch, views, channels)}, got {tuple(confidence.shape)}")
    if seen is not None and seen.shape != (batch, views):
        raise ValueError(f"need seen {(batch, views)}, got {tuple(seen.shape)}")
    here = features.new_ones((batch, views), dtype=torch.bool) if seen is None else seen
    maps = torch.where(here[..., None, None, None], features, 0.0)
    if confidence is not None:
        maps = maps * shares(confidence, here)[..., None, None]
    if maps.device.type == "cpu" and not torch.is_grad_enabled():
        return _gathered(maps, cells_of_view, how, here)
    if how == "softmax":
        return _softmax_over_views(maps, cells_of_view, here)
    total = sample(maps[:, 0], cells_of_view(0))
    for view in range(1, views):
        total = total + sample(maps[:, view], cells_of_view(view))
    return total


def _gathered(maps: Tensor, cells_of_view: Callable[[int], Tensor], how: How, here: Tensor) -> Tensor:
    """`aggregate` by a kernel that gives no gradients, in threads; channels of a voxel lie side by side in memory."""
    cells = torch.stack([cells_of_view(view) for view in range(maps.shape[1])], dim=1).float()
    grid, places = maps.float().permute(0, 1, 3, 4, 2).contiguous().numpy(), cells.flatten(2, -2).numpy()
    out = np.zeros((len(maps), places.shape[2], maps.shape[2]), np.float32)
    ends = np.linspace(0, places.shape[2], torch.get_num_threads() + 1).astype(int).tolist()
    parts = [slice(*part) for part in pairwise(ends)]
    together = "softmax" if how == "softmax" else "sum"

    def fill(job: tuple[int, slice]) -> None:
        (row, part), views = job, here[job[0]].numpy()
        out[row, part] = view_features(grid[row, views], places[row, views, part], together)

    with ThreadPoolExecutor(len(parts)) as threads:
        list(threads.map(fill, [(row, part) for row in range(len(maps)) if here[row].any() for part in parts]))
    return torch.from_numpy(out).unflatten(1, cells.shape[2:-1]).permute(0, 4, 1, 2, 3)


def sample(maps: Tensor, cells: Tensor) -> Tensor:
    """(B, C, ...) maps (B, C, h, w) at cells (B, ..., 2), bilinearly; 0 outside the map, where NaN is too."""
    h, w = maps.shape[-2:]
    size = cells.new_tensor([w, h])
    inside = ((cells > -1) & (cells < size)).all(-1, keepdim=True)
    grid = (2 * torch.where(inside, cells, _AWAY) + 1) / size - 1
    kind = torch.promote_types(maps.dtype, torch.float32)
    flat = grid.flatten(1, -2)[:, None].to(kind)
    found = functional.grid_sample(maps.to(kind), flat, mode="bilinear", padding_mode="zeros", align_corners=False)
    return found.reshape(*maps.shape[:2], *cells.shape[1:-1])


def _softmax_over_views(maps: Tensor, cells_of_view: Callable[[int], Tensor], here: Tensor) -> Tensor:
    """Each view is sampled for the greatest value, for the sums, and on the way back: never are all held at once."""
    apart = maps.new_zeros(here.shape).masked_fill(~here, -torch.inf)
    with torch.no_grad():
        greatest = sample(maps[:, 0], cells_of_view(0)) + apart[:, 0, None, None, None, None]
        for view in range(1, maps.shape[1]):
            shown = sample(maps[:, view], cells_of_view(view)) + apart[:, view, None, None, None, None]
            greatest = torch.maximum(greatest, shown)
        greatest = torch.where(greatest.isfinite(), greatest, 0.0)

    def parts(view: int, maps_of_view: Tensor) -> tuple[Tensor, Tensor]:
        shown = sample(maps_of_view, cells_of_view(view))
        share = (shown - greatest + apart[:, view, None, None, None, None]).exp()
        return share * shown, share

    above, below = torch.zeros_like(greatest), torch.zeros_like(greatest)
    for view in range(maps.shape[1]):
        more = checkpoint(parts, view, maps[:, view], use_reentrant=False, preserve_rng_state=False)
        above, below = above + more[0], below + more[1]
    return above / torch.where(below > 0, below, 1.0)


class VolumePose(NamedTuple):
    """Where joints are in a cube.

    mean_m (B, J, 3) in the world; log_probability (B, J, n, n, n) of each voxel, its exponentials summing to 1;
    covariance_m2 (B, J, 3, 3) in the world, with the spread inside a voxel, or None if not asked for.
    """

    mean_m: Tensor
    log_probability: Tensor
    covariance_m2: Tensor | None


def volume_soft_argmax(volume: Tensor, cube: Cube, multiplier: float = 1.0, *, covariance: bool = False) -> VolumePose:
    """Mean, and on demand covariance, of each joint's place under the softmax of volumes (B, J, n, n, n).

    The covariance has step^2 / 12 added on its diagonal, the spread inside a voxel.
    Raises:
        ValueError: volumes that are not the cube's.
    Source: Iskakov et al. 2019, eq. 13 and 14.
    """
    if volume.ndim != 5 or volume.shape[-3:] != (cube.n,) * 3 or len(volume) != len(cube.centre_m):
        given = f"{tuple(volume.shape)} for {len(cube.centre_m)} cubes of {cube.n}"
        raise ValueError(f"need volumes (B, J, n, n, n) of the cubes, got {given} voxels a side")
    exact = volume.to(torch.promote_types(volume.dtype, torch.float32))
    log_probability = (multiplier * exact).flatten(-3).log_softmax(-1).unflatten(-1, volume.shape[-3:])
    probability = log_probability.exp()
    axis, turn = cube.axis_m().to(exact), cube.world_from_cube.to(exact)[:, None]
    # Axis by axis, each time of what is left: the sums in the middle are of planes.
    plane, side = probability.sum(-1), probability.sum(-3)
    mean = torch.stack([(share * axis).sum(-1) for share in (plane.sum(-1), plane.sum(-2), side.sum(-2))], dim=-1)
    mean_m = (turn * mean[..., None, :]).sum(-1) + cube.centre_m[:, None].to(exact)
    if not covariance:
        return VolumePose(mean_m, log_probability, None)
    # From the mean: the difference of the mean square and the squared mean would lose what a sharp volume has.
    local = second_moments(probability, axis - mean[..., None]) + cube.step_m**2 / 12 * torch.eye(3).to(exact)
    half = (turn[..., None] * local[..., None, :, :]).sum(-2)
    return VolumePose(mean_m, log_probability, (half[..., None, :] * turn[..., None, :, :]).sum(-1))


def second_moments(probability: Tensor, off: Tensor) -> Tensor:
    """(..., 3, 3) the sums of probability (..., n, n, n) times off off^T; off (..., 3, n) is how far layers of voxels
    are off along their axis.
    """
    pairs = {(0, 1): probability.sum(-1), (0, 2): probability.sum(-2), (1, 2): probability.sum(-3)}
    alone = (pairs[0, 1].sum(-1), pairs[0, 1].sum(-2), pairs[0, 2].sum(-2))
    moments = [[off[..., 0, 0]] * 3 for _ in range(3)]
    for a in range(3):
        moments[a][a] = (alone[a] * off[..., a, :] ** 2).sum(-1)
    for (a, b), share in pairs.items():
        moments[a][b] = moments[b][a] = (off[..., a, :, None] * off[..., b, None, :] * share).sum((-2, -1))
    return torch.stack([torch.stack(row, dim=-1) for row in moments], dim=-2)


def heat_at(log_probability: Tensor, xyz_m: Tensor, cube: Cube, *, nearest: bool = False) -> tuple[Tensor, Tensor]:
    """The log of the probability (B, J) that volumes (B, J, n, n, n) give places (B, J, 3), and which lie in the cube.

    Probabilities are interpolated between the centres of the 8 voxels around, or taken of the voxel that holds the
    place. In the outer half of the outermost voxels the nearest centres stand for the place; outside the cube too, so
    that the numbers are finite.
    """
    n = cube.n
    index = cube.index_of(xyz_m)
    inside = ((index >= -0.5) & (index <= n - 0.5)).all(-1)
    flat = log_probability.flatten(-3)
    index = index.clamp(0, n - 1)
    if nearest:
        x, y, z = index.round().long().unbind(-1)
        return flat.gather(-1, ((x * n + y) * n + z)[..., None])[..., 0], inside
    low = index.floor().clamp_max(max(n - 2, 0))
    parts = []
    for corner in range(8):
        step = index.new_tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
        share = (1 - (index - low - step).abs()).clamp_min(0).prod(-1)
        x, y, z = (low + step).clamp_max(n - 1).long().unbind(-1)
        found = flat.gather(-1, ((x * n + y) * n + z)[..., None])[..., 0]
        parts.append(torch.where(share > 0, found + share.clamp_min(1e-30).log(), -torch.inf))
    return torch.stack(parts).logsumexp(0), inside


class VolumetricTriangulator(nn.Module):
    """From crops of all views to joints in a cube, through a 3D network.

    Attributes:
        backbone: a `Backbone`, with a head of `channels` volumetric confidences if `how` is "confidence".
        how: how views come together, as for `aggregate`.
        multiplier: of the volumes before their softmax.
        bf16: compute the 3D network in bfloat16, all but its logits; as made, it does not.
    """

    def __init__(
        self,
        backbone: Backbone,
        joints: int,
        how: How = "softmax",
        *,
        channels: int = CHANNELS,
        levels: int = LEVELS,
        multiplier: float = 1.0,
    ) -> None:
        """Fresh parameters around a backbone; `levels` as for `VolumeNetwork`."""
        super().__init__()
        self.backbone, self.how, self.multiplier, self.bf16 = backbone, how, multiplier, False
        self.bring = nn.Conv2d(backbone.feature_channels, channels, 1)
        self.volume = VolumeNetwork(channels, joints, levels)

    def forward(
        self, images: Tensor, projections: Tensor, cube: Cube, seen: Tensor | None = None, *, covariance: bool = False
    ) -> VolumePose:
        """The joints of crops (B, V, 3, H, W) without lens distortion; a person whom no view shows gets NaN.

        Args:
            projections: (B, V, 3, 4) from the world to pixels of the crops.
            cube: its n as `VolumeNetwork` takes it.
            seen: (B, V) bool, which views there are; None: all.
        """
        said = self.backbone(images.flatten(0, 1))
        features = self.bring(said.features).unflatten(0, images.shape[:2])
        confidence = None
        if self.how == "confidence":
            if said.volumetric is None:
                raise ValueError("views weighted by confidence need a backbone with volumetric confidences")
            confidence = said.volumetric.unflatten(0, images.shape[:2])
        cells = cells_from_pixels(projections, self.backbone.stride)
        shown = unproject(features, cells, cube, self.how, confidence=confidence, seen=seen)
        with torch.autocast(shown.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            volume = self.volume(shown)
        pose = volume_soft_argmax(volume, cube, self.multiplier, covariance=covariance)
        if seen is None:
            return pose
        return pose._replace(mean_m=torch.where(seen.any(1)[:, None, None], pose.mean_m, torch.nan))
