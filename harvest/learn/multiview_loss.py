"""What several views of one moment say of poses, without extrinsics and without labels in space (Iqbal et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harvest.errors import UserError
from harvest.learn.geometry import lengths, norm_of, on_rays, rigidly, root_distance
from harvest.learn.lifting import TYPICAL_HEIGHT_M, typical_limbs
from harvest.monocular.lift import Limbs, mean_limbs
from harvest.monocular.networks import ROOT
from harvest.skeleton import Skeleton

TOPS = ("thorax", "neck")  # upper ends of the bone of length 1, the first that a skeleton has
# Nearest and farthest person, in that bone's length: 2 and 20 m. A nearer one would let long depths without any width
# pass for a person, in which training then ends.
BOUNDS = (4.0, 40.0)
USUAL = 0.1  # how far typical proportions are off in either direction


@dataclass(frozen=True)
class Bones:
    """What is known of bodies before any picture.

    limbs: their lengths in metres, of a person of usual size. ratio, deviation (L,): of each limb's length to that of
    the reference bone, and how far that may be off. reference: the ends of that bone as places among the joints;
    reference_m: its length.
    """

    limbs: Limbs
    ratio: NDArray[np.float64]
    deviation: NDArray[np.float64]
    reference: tuple[int, int]
    reference_m: float


def typical_bones(skeleton: Skeleton) -> Bones:
    """By a skeleton's typical proportions: give or take USUAL of a limb, and what it bends or stretches.

    Raises:
        UserError: it has no bone from the pelvis to one of TOPS.
    """
    limbs, (top, root) = typical_limbs(skeleton), _reference(skeleton)
    share, joint = 0.0, top
    while joint != root:
        share, joint = share + float(skeleton.shares[joint]), int(skeleton.parents[joint])
    slack = np.array([skeleton.limb_of(int(child)).slack for child in limbs.ends[:, 0]])
    ratio = limbs.length_m / TYPICAL_HEIGHT_M / share
    return Bones(limbs, ratio, USUAL * ratio + slack / share, (top, root), TYPICAL_HEIGHT_M * share)


def measured_bones(xyz_m: NDArray[np.float64], skeleton: Skeleton, deviations: float = 1.0) -> Bones:
    """By poses (N, J, 3) of other people, NaN where unknown: means, give or take so many standard deviations.

    Raises:
        UserError: the skeleton has no reference bone, or the poses do not show it or any limb.
    """
    top, root = _reference(skeleton)
    reference = np.linalg.norm(xyz_m[:, top] - xyz_m[:, root], axis=1)
    told = reference > 0
    try:
        limbs = mean_limbs(xyz_m[told], skeleton.parents.tolist())
    except ValueError:
        raise UserError(
            f"no pose shows {skeleton.joints[top]} and {ROOT}; give labels in space of other people"
        ) from None
    one, other = limbs.ends.T
    ratio = np.linalg.norm(xyz_m[told][:, one] - xyz_m[told][:, other], axis=2) / reference[told, None]
    spread = deviations * np.nanstd(ratio, axis=0)
    return Bones(limbs, np.nanmean(ratio, axis=0), spread, (top, root), float(reference[told].mean()))


def _reference(skeleton: Skeleton) -> tuple[int, int]:
    top = next((name for name in TOPS if name in skeleton.joints), None)
    if top is None or ROOT not in skeleton.joints:
        raise UserError(f"skeleton '{skeleton.name}' has no {ROOT} with {' or '.join(TOPS)}; choose another")
    return skeleton.index(top), skeleton.index(ROOT)


def normalised_poses(rays: Tensor, depth: Tensor, bones: Bones, scale: str = "limbs") -> Tensor:
    """(..., J, 3) poses in the camera's frame, in lengths of the reference bone, of a 2.5D pose: rays (..., J, 3) of
    depth 1 through its pixels, and depths (..., J) from the root.

    Args:
        scale: what tells the root's distance. 'bone': the reference bone has length 1, as in the paper. 'limbs': the
            squares of all limbs add up as those of `ratio` do; an error in one pixel then hardly matters.
    Source: Iqbal et al. 2020, from "Hand pose estimation via latent 2.5D heatmap regression", 2018, eq. 5.
    """
    ends = torch.tensor([bones.reference]) if scale == "bone" else torch.from_numpy(bones.limbs.ends)
    length = rays.new_ones(1) if scale == "bone" else torch.from_numpy(bones.ratio).to(rays)
    return on_rays(rays, depth, root_distance(rays, depth, ends.to(rays.device), length, BOUNDS))


def consistency_loss(poses: Tensor, weight: Tensor) -> Tensor:
    """L_MC: mean over a batch and all pairs of V views of the distance between the poses (B, V, J, 3) that they show,
    after the best rotation and translation: the root of the mean square over joints, weighted by the product of both
    views' weight (B, V, J).

    As a root mean square, and not a mean of distances, its gradient is exact without one of the rotation (`rigidly`).
    """
    found = []
    for one, other in combinations(range(poses.shape[1]), 2):
        both = weight[:, one] * weight[:, other]
        off = (rigidly(poses[:, other], poses[:, one], both) - poses[:, one]).square().sum(-1)
        found.append(norm_of((both * off).sum(-1) / both.sum(-1).clamp_min(1e-12)))
    return torch.stack(found).mean()


def bones_loss(poses: Tensor, ends: Tensor, ratio: Tensor, deviation: Tensor) -> Tensor:
    """L_B: mean over all poses (..., J, 3) and limbs, ends (L, 2), of how far the length is beyond ratio (L,) give or
    take deviation (L,).
    """
    return ((lengths(poses, ends) - ratio).abs() - deviation).clamp_min(0.0).mean()
