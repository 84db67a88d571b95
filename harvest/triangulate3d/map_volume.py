"""Triangulation of heat maps in a cube of voxels: what the views show together, and what a 3D network adds to it."""

from __future__ import annotations

import math
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from harvest.triangulate3d.algebraic import shares
from harvest.triangulate3d.from_maps import CUBE_M, FAINTEST, CubePlace, MapConfidence, MapViews, inverse_affine
from harvest.triangulate3d.lenses import Lenses
from harvest.triangulate3d.volume_network import CoarseNetwork
from harvest.triangulate3d.volumetric import (
    Cube,
    How,
    VolumePose,
    aggregate,
    sample,
    second_moments,
    volume_soft_argmax,
)

WIDTH, LEVELS, VOXELS = 24, 3, 32  # those of the package's weights
BLUR_CELLS, GAIN = 1.5, 9.0  # of maps; of their evidence, before any training
CLOSE, CLOSE_VOXELS = 3, 12  # side of the cube that is looked at again, in voxels, and in smaller ones


class MapVolumetric(nn.Module):
    """From heat maps to joints in a cube of voxels round the person: evidence of the views, and what a 3D network adds.

    A map's evidence is the logarithm of its heat above a floor, 0 for none and 1 for a certain cell, after a blur to
    the width of a voxel, which would otherwise miss what lies between its neighbours and itself. The sum of evidence
    over views, times a gain, is the logarithm of the product of the maps: with a network that says nothing, as a fresh
    one does, the answer is the mean under the views' joint likelihood. So learning begins with what triangulation
    knows, and adds what bodies and detectors are like.

    With "confidence", views come together joint by joint, weighted by the confidences of their maps, of which empty
    ones have none. Both means over views are multiplied by the number of views before they are added to the network's.

    A network that is asked, and does not learn, looks again at CLOSE voxels round each joint, with the evidence of maps
    that are not blurred and its own logits between their voxels: voxels are wider than a map's cells, and bodies do not
    need smaller ones.

    Attributes:
        joints: names of the joints, in the order of the maps and of the answer.
        how: views come together, as for `aggregate`.
        width, levels: of the network, as `CoarseNetwork` says.
        n: voxels a side, a multiple of 2^(levels + 1).
    Source: Iskakov et al. 2019, section 3.2, of heat maps instead of a picture's features.
    """

    def __init__(
        self,
        joints: tuple[str, ...],
        how: How = "softmax",
        *,
        width: int = WIDTH,
        levels: int = LEVELS,
        n: int = VOXELS,
    ) -> None:
        """Fresh parameters, of a network that says nothing.

        Raises:
            ValueError: an unknown `how`, voxels that cannot be halved so often, or a width that is odd.
        """
        super().__init__()
        if how not in get_args(How):
            raise ValueError(f"views come together by {', '.join(get_args(How))}, got {how!r}")
        if n < 1 or n % 2 ** (levels + 1):
            raise ValueError(f"voxels a side must be a multiple of {2 ** (levels + 1)}, got {n}")
        self.joints, self.how, self.width, self.levels, self.n = joints, how, width, levels, n
        self.log_scale = nn.Parameter(torch.zeros(len(joints))) if how == "softmax" else None
        self.log_gain = nn.Parameter(torch.full((len(joints),), math.log(GAIN)))
        self.trust = MapConfidence() if how == "confidence" else None
        self.volume = CoarseNetwork(len(joints), levels, width)

    def forward(self, views: MapViews, place: CubePlace, *, covariance: bool = False) -> tuple[VolumePose, Cube]:
        """The joints in the model's own coordinates (see `CubePlace`), and the cube in these.

        In eval mode mean and covariance are those of the closer look. To the covariance, the probability of all voxels
        outside it adds what it has.
        """
        cube = Cube(views.score.new_zeros(len(views.score), 3), CUBE_M, self.n)
        moved = views.lenses.in_place(*(part.to(views.lenses.t) for part in (place.centre_m, place.turn, place.scale)))
        moved, share = moved.to(cube.centre_m), self._shares(views)
        shown = self._in_cube(evidence(views.score, BLUR_CELLS), _cells(views, moved, cube.voxels_m()), views, share)
        # The order of memory in which convolutions are fastest on a processor, by a quarter.
        said = self.volume(shown.to(memory_format=torch.channels_last_3d))
        volume = said + self._gain(views)[..., None, None, None] * shown
        pose = volume_soft_argmax(volume.contiguous(), cube)
        return pose if self.training else self._closer(views, moved, share, (said, pose, cube), covariance), cube

    def _shares(self, views: MapViews) -> Tensor | None:
        """(B, V, J) of the views, where they are weighted by confidence."""
        if self.trust is None:
            return None
        return shares(torch.where(views.score.amax((-2, -1)) > 0, self.trust(views.score), 0.0), views.seen)

    def _gain(self, views: MapViews) -> Tensor:
        """(B, J) of what views show together; the number of views makes a sum of a mean."""
        count = views.seen.sum(1, keepdim=True).to(self.log_gain)
        return self.log_gain.exp() * (count if self.how != "sum" else torch.ones_like(count))

    def _in_cube(self, maps: Tensor, cells: Tensor, views: MapViews, share: Tensor | None) -> Tensor:
        """(B, J, n, n, n) of maps (B, V, J, h, w) at the views' cells (B, V, n, n, n, 2), as `how` says.

        For learning, all views are sampled first, so that no gradient has to go back through the sampling; otherwise
        `aggregate` does the same.
        """
        if torch.is_grad_enabled():
            return self._together(
                torch.stack([sample(maps[:, v], cells[:, v]) for v in range(maps.shape[1])], dim=1), views, share
            )
        if self.log_scale is None:
            maps = maps if share is None else share[..., None, None] * maps
            return aggregate(maps, lambda view: cells[:, view], "sum", seen=views.seen)
        scale = self.log_scale.exp()[:, None, None]
        return aggregate(scale * maps, lambda view: cells[:, view], "softmax", seen=views.seen) / scale[..., None]

    def _together(self, shown: Tensor, views: MapViews, share: Tensor | None) -> Tensor:
        """(B, J, ...) of what each view shows (B, V, J, ...), as `how` says."""
        flat = shown.flatten(3)
        here = views.seen[..., None, None]
        if share is not None:
            found = torch.einsum("bvj,bvjx->bjx", share, flat)
        elif self.log_scale is None:
            found = torch.where(here, flat, 0.0).sum(1)
        else:
            scaled = self.log_scale.exp()[:, None] * flat
            found = (torch.where(here, scaled, -torch.inf).softmax(1) * torch.where(here, flat, 0.0)).sum(1)
        return found.unflatten(-1, shown.shape[3:])

    def _closer(
        self,
        views: MapViews,
        lenses: Lenses,
        share: Tensor | None,
        before: tuple[Tensor, VolumePose, Cube],
        covariance: bool,
    ) -> VolumePose:
        """The pose after another look, at a small cube round each joint; `before`: what the network said of the whole
        cube, the pose from that, and the cube.
        """
        said, pose, cube = before
        b, v, j = views.score.shape[:3]
        small = Cube(pose.mean_m.flatten(0, 1), CLOSE * cube.step_m, CLOSE_VOXELS)
        xyz = small.voxels_m().unflatten(0, (b, j))
        cells = _cells(views, lenses, xyz).flatten(0, 2)
        shown = sample(evidence(views.score, 0.0).flatten(0, 2)[:, None], cells).unflatten(0, (b, v, j))[:, :, :, 0]
        # Places of voxels between -1 and 1 along z, y and x, as `grid_sample` wants them.
        at = (2 / cube.side_m * xyz).flatten(0, 1).flip(-1)
        logits = said.flatten(0, 1)[:, None].float()
        between = functional.grid_sample(logits, at, padding_mode="border", align_corners=False).unflatten(0, (b, j))
        together = self._together(shown, views, share)
        volume = between[:, :, 0] + self._gain(views)[..., None, None, None] * together
        fine = volume_soft_argmax(volume.flatten(0, 1)[:, None], small, covariance=covariance)
        mean = fine.mean_m.unflatten(0, (b, j))[:, :, 0]
        if fine.covariance_m2 is None:
            return pose._replace(mean_m=mean)
        axis = cube.axis_m().to(mean)
        within = (axis - pose.mean_m[..., None]).abs() <= CLOSE / 2 * cube.step_m
        inside = within[..., 0, :, None, None] & within[..., 1, None, :, None] & within[..., 2, None, None, :]
        outside = torch.where(inside, 0.0, pose.log_probability.exp())
        far = second_moments(outside, axis - mean[..., None])
        return pose._replace(mean_m=mean, covariance_m2=fine.covariance_m2.unflatten(0, (b, j))[:, :, 0] + far)


@torch.no_grad()
def _cells(views: MapViews, lenses: Lenses, xyz: Tensor) -> Tensor:
    """(B, V, ..., 2) the cells of each view where points (B, ..., 3) appear, NaN where it does not see them."""
    to_cells = inverse_affine(views.image_from_heatmap).to(xyz)
    flat, cells = xyz.flatten(1, -2), []
    for view in range(views.score.shape[1]):  # one at a time: what a lens computes on the way is many times as large
        uv, affine = lenses.view(view).project(flat), to_cells[:, view, None]
        cells.append((affine[..., :2] * uv[..., None, :]).sum(-1) + affine[..., 2])
    return torch.stack(cells, dim=1).unflatten(2, xyz.shape[1:-1])


def evidence(score: Tensor, blur_cells: float) -> Tensor:
    """(..., h, w) in 0..1 what maps (..., h, w) say of each cell: the logarithm of their heat over the faintest that is
    told from none, after a blur that leaves the peak of a map of one cell's width as high as it was.
    """
    wide = score.clamp_min(0)
    if blur_cells > 0:
        reach = math.ceil(3 * blur_cells)
        bell = (-torch.arange(-reach, reach + 1).to(score).square() / (2 * blur_cells**2)).exp()
        bell = bell / bell.sum() * math.sqrt(1 + blur_cells**2)
        flat = wide.reshape(-1, 1, *score.shape[-2:])
        flat = functional.conv2d(flat, bell[:, None][None, None], padding=(reach, 0))
        wide = functional.conv2d(flat, bell[None, None, None], padding=(0, reach)).reshape(score.shape)
    return (wide.clamp_max(1.0) / FAINTEST).log1p() / math.log1p(1 / FAINTEST)
