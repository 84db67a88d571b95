"""Learnable triangulation of heat maps: any detector is the backbone, frozen, and its maps are all that is looked at.

`MapAlgebraic`, here, treats every joint by itself and alike, and so takes maps of any joints. `MapVolumetric`, in
map_volume.py, has joints of its own, by name. Neither is bound to a rig: places, rays and voxels go through the
cameras' lens models.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from harvest.triangulate3d.agreement import agreed_point, votes_of_views
from harvest.triangulate3d.algebraic import LEAST_TRUST, shares, soft_argmax_px, triangulate_weighted
from harvest.triangulate3d.lenses import Lenses

SHARPNESS, FLOOR, SCALE_CELLS = 4.0, 1e-3, 2.0  # of places, and of votes, before any training
ROUNDS = 3  # of weighing views by their votes
CUBE_M = 2.0  # side of the cube in the volumetric model's own coordinates, in which every person fills it
HEAD_WIDTH = 8  # of the head of confidences
FAINTEST = 1e-4  # heat that is told from none


class MapViews(NamedTuple):
    """What V views show of B people: score (B, V, J, h, w) >= 0; image_from_heatmap (B, V, 2, 3); lenses (B, V).

    seen (B, V) bool: which views there are. Of the others the scores may be anything finite, the affines anything, and
    the lenses those of any camera.
    """

    score: Tensor
    image_from_heatmap: Tensor
    lenses: Lenses
    seen: Tensor


class MapPose(NamedTuple):
    """Joints xyz_m (B, J, 3) in the world, NaN where not found; found (B, J); and from what: image_px (B, V, J, 2)
    pixels of the pictures, weight (B, V, J), whose sum over views is about 1, 0 where a map is empty.
    """

    xyz_m: Tensor
    found: Tensor
    image_px: Tensor
    weight: Tensor


class CubePlace(NamedTuple):
    """Where B people are: cubes of centre_m (B, 3), side_m (B,) and turn (B, 3, 3), `cube_from_world` rotations that
    bring `up` to z. The model's own coordinates are `CUBE_M / side_m * turn @ (x - centre_m)`.
    """

    centre_m: Tensor
    side_m: Tensor
    turn: Tensor

    @property
    def scale(self) -> Tensor:
        """(B,) own metres in a metre of the world."""
        return CUBE_M / self.side_m

    def into(self, xyz_m: Tensor) -> Tensor:
        """(B, J, 3) points of the world in own coordinates."""
        off = (xyz_m - self.centre_m[:, None])[..., None, :]
        return self.scale[:, None, None] * (self.turn[:, None] * off).sum(-1)

    def out_of(self, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
        """Means (B, J, 3) and covariances (B, J, 3, 3) in the world, of those in own coordinates."""
        back = self.turn.mT[:, None]
        scale = self.scale[:, None, None]
        xyz_m = (back * mean[..., None, :]).sum(-1) / scale + self.centre_m[:, None]
        half = (back[..., None] * covariance[..., None, :, :]).sum(-2)
        return xyz_m, (half[..., None, :] * back[..., None, :, :]).sum(-1) / scale[..., None] ** 2


class MapConfidence(nn.Module):
    """How far to trust a heat map, in 0..1, by its look: convolutions, its mean and largest features, two layers.

    It cannot see whose joint or where in the map; one head serves all joints of all skeletons. Fresh, it trusts all
    maps alike.

    Source: Iskakov et al. 2019, eq. 5 (q), of maps instead of a picture's features.
    """

    def __init__(self, width: int = HEAD_WIDTH) -> None:
        """Fresh parameters, `width` channels at half a map's size."""
        super().__init__()
        wide = 4 * width
        channels = ((2, width, 5), (width, 2 * width, 3), (2 * width, wide, 3), (wide, wide, 3))
        convolutions = [nn.Conv2d(before, after, kernel, 2, kernel // 2) for before, after, kernel in channels]
        self.features = nn.Sequential(*(part for conv in convolutions for part in (conv, nn.ReLU())))
        self.layers = nn.Sequential(nn.Linear(2 * wide, wide), nn.ReLU(), nn.Linear(wide, 1), nn.Sigmoid())
        for conv in convolutions:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.layers[2].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.layers[2].bias)  # type: ignore[arg-type]

    def forward(self, score: Tensor) -> Tensor:
        """(...) of maps (..., h, w), of 16 cells or more each way."""
        flat = score.flatten(0, -3)
        orders = (flat.clamp_min(0) + FAINTEST).log() / -math.log(FAINTEST) + 1  # 0 for nothing, 1 for a certain cell
        found = self.features(torch.stack([flat, orders], dim=1)).flatten(-2)
        confidence: Tensor = self.layers(torch.cat([found.mean(-1), found.amax(-1)], dim=-1))
        return confidence.reshape(score.shape[:-2]).to(score.dtype)


class MapAlgebraic(nn.Module):
    """From heat maps to joints in 3D: a place and a trust of every map, and the rays' weighted meeting point.

    A place is the mean under a power of the map, after a floor has been added to the map over its largest value. The
    power lets the highest of several peaks decide, where the mean of the map itself would lie between them, and the
    floor keeps what is far below the peak from adding up; both are learnt. A weak map gives the place that the same
    map gives at full height: what its weakness means is the trust's business.

    A map cannot show that it tells another place than all other views. So the point begins where trusted views agree
    (`agreed_point`), and is solved `ROUNDS` times, each view weighted by its trust and its vote for the point before.
    The scale of the votes, in cells, is learnt too.

    Attributes:
        width: of the head of confidences.
    """

    def __init__(self, width: int = HEAD_WIDTH) -> None:
        """Fresh parameters, of which every view counts alike."""
        super().__init__()
        self.width = width
        self.trust = MapConfidence(width)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(SHARPNESS)))
        self.log_floor = nn.Parameter(torch.tensor(math.log(FLOOR)))
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE_CELLS)))

    def forward(self, views: MapViews) -> MapPose:
        """The joints of all people; a map without any heat takes no part."""
        shown = views.seen[:, :, None] & (views.score.amax((-2, -1)) > 0)
        trust = torch.where(shown, self.trust(views.score), 0.0).to(views.lenses.t)
        affine = torch.where(views.seen[..., None, None], views.image_from_heatmap, 0.0)[:, :, None].to(views.lenses.t)
        cells = self.cells(views.score)
        image_px = (affine[..., :2] * cells[..., None, :]).sum(-1) + affine[..., 2]
        points, projections = views.lenses.undistort(image_px), views.lenses.projections
        scale = self.log_scale.exp() * _cell_of(affine[:, :, 0], views.lenses)
        given = torch.where(shown & points.isfinite().all(-1), trust, 0.0)
        xyz = agreed_point(points, projections, given.detach(), scale.detach())
        for solved in range(1, ROUNDS + 1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and solved == ROUNDS):
                begun = xyz.isfinite().all(-1, keepdim=True)
                votes = votes_of_views(torch.where(begun, xyz, 0.0), points, projections, scale)
                agreeing = torch.where(begun.squeeze(-1)[:, None], votes, 1.0)
                weight = torch.where(given > 0, shares(given * agreeing, views.seen, LEAST_TRUST), 0.0)
                xyz, found = triangulate_weighted(points, projections, weight)
        return MapPose(xyz, found, image_px, weight)

    def cells(self, score: Tensor) -> Tensor:
        """(..., 2) the place (x, y), in cells, that each map (..., h, w) tells; the middle of one that is empty.

        Source: Iskakov et al. 2019, eq. 1 and 2, of the logarithm of a probability instead of a score.
        """
        relative = score / score.amax((-2, -1), keepdim=True).clamp_min(torch.finfo(score.dtype).tiny)
        logits = self.log_sharpness.exp() * (relative + self.log_floor.exp()).log()
        return soft_argmax_px(logits, multiplier=1.0, stride=1.0)


def _cell_of(affine: Tensor, lenses: Lenses) -> Tensor:
    """(B, V) the width of a cell in undistorted normalised coordinates, about; 1 of views that are missing."""
    cell_px = affine[..., :2].det().abs().sqrt()
    focal_px = lenses.image_from_distorted[..., :2, :2].det().abs().sqrt()
    return torch.where(cell_px > 0, cell_px / focal_px, 1.0)


def inverse_affine(affine: Tensor) -> Tensor:
    """(..., 2, 3) of affines (..., 2, 3), NaN of NaN."""
    a, b, c, d = (affine[..., i, j] for i in (0, 1) for j in (0, 1))
    determinant = a * d - b * c
    linear = torch.stack([d, -b, -c, a], dim=-1).unflatten(-1, (2, 2)) / determinant[..., None, None]
    return torch.cat([linear, -(linear * affine[..., None, :, 2]).sum(-1, keepdim=True)], dim=-1)


def upright(up: Tensor) -> Tensor:
    """(..., 3, 3) the shortest rotations that bring unit vectors `up` (..., 3) to z; half a turn about x from -z.

    Source: Rodrigues' formula about the axis up x z, whose length is the sine of the angle.
    """
    x, y, z = up.unbind(-1)
    zero = torch.zeros_like(x)
    axis = torch.stack([y, -x, zero], dim=-1)
    cross = torch.stack([zero, zero, -x, zero, zero, -y, x, y, zero], dim=-1).unflatten(-1, (3, 3))
    along = axis[..., :, None] * axis[..., None, :] / (1 + z).clamp_min(1e-9)[..., None, None]
    turned = z[..., None, None] * torch.eye(3).to(up) + cross + along
    over = torch.diag(up.new_tensor([1.0, -1.0, -1.0]))
    return torch.where((z < -1 + 1e-9)[..., None, None], over, turned)
