"""How wrong joints in 3D are, as losses that learning can follow."""

from __future__ import annotations

import torch
from torch import Tensor

from harvest.triangulate3d.volumetric import Cube, VolumePose, heat_at

SOFT_M2 = 0.2**2  # squared error from which on it counts far less (Iskakov et al. 2019, eq. 15)
HEAT_SHARE = 0.01  # of the heat at the truth, beta in eq. 16
_SLOW = 0.1  # power with which the error grows from there on


def soft_mse(xyz_m: Tensor, truth_m: Tensor, found: Tensor | None = None, soft_m2: float = SOFT_M2) -> Tensor:
    """The mean over joints of the squared distance e, or of e^0.1 soft_m2^0.9 where e > soft_m2.

    Args:
        xyz_m, truth_m: (..., 3); a joint that is not finite in either has no say and gets no gradient.
        found: (...) bool, joints that have a say; None: all.
    Returns:
        a scalar in square metres; 0 where no joint has a say.
    Source: Iskakov et al. 2019, eq. 15, with e the squared distance of a joint.
    """
    counts = _both_known(xyz_m, truth_m, found)
    difference = torch.where(counts[..., None], xyz_m, 0.0) - torch.where(counts[..., None], truth_m, 0.0)
    squared = difference.square().sum(-1)
    # The power's slope is infinite at 0, so near errors must not reach it, not even to be thrown away.
    far = squared.clamp_min(soft_m2) ** _SLOW * soft_m2 ** (1 - _SLOW)
    return torch.where(squared > soft_m2, far, squared).sum() / counts.sum().clamp_min(1)


def volumetric_loss(
    pose: VolumePose, truth_m: Tensor, cube: Cube, *, heat_share: float = HEAT_SHARE, nearest: bool = False
) -> Tensor:
    """The mean over joints of |x - truth| + |y - truth| + |z - truth| - heat_share log(probability at the truth).

    Joints whose truth is not finite, and those that are not found, have no say. Where the truth lies outside the cube
    no voxel is right, and the first part alone counts.

    Args:
        pose: what `volume_soft_argmax` gave for that cube.
        truth_m: (B, J, 3).
        nearest: take the probability of the voxel that holds the truth; else interpolate among the 8 around it.
    Returns:
        a scalar; 0 where no joint has a say.
    Source: Iskakov et al. 2019, eq. 16.
    """
    counts = _both_known(pose.mean_m, truth_m, None)
    place = torch.where(counts[..., None], truth_m, cube.centre_m[:, None].to(truth_m))
    off = (torch.where(counts[..., None], pose.mean_m, place) - place).abs().sum(-1)
    log_heat, inside = heat_at(pose.log_probability, place, cube, nearest=nearest)
    heat = torch.where(inside & counts, log_heat, 0.0)
    return (off - heat_share * heat).sum() / counts.sum().clamp_min(1)


def _both_known(xyz_m: Tensor, truth_m: Tensor, found: Tensor | None) -> Tensor:
    known = xyz_m.isfinite().all(-1) & truth_m.isfinite().all(-1)
    return known if found is None else known & found
