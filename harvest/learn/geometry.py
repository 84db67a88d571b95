"""Differentiable geometry that losses on single views share; batched, in PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EDGE = 0.05  # in the unit of lengths: how near to its vertex a square root is continued straight on
LEAST_SCALE = 0.1  # of that without any depth


def lengths(poses: Tensor, ends: Tensor) -> Tensor:
    """(..., L) distances between the two ends (L, 2), places among the joints, of each limb of poses (..., J, D).

    The gradient at a limb of no length is 0 instead of undefined.
    """
    squared = (poses[..., ends[:, 0], :] - poses[..., ends[:, 1], :]).square().sum(-1)
    return norm_of(squared)


def norm_of(squared: Tensor) -> Tensor:
    """Square roots, with gradient 0 where they are 0."""
    positive = squared > 0
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), 0.0)


def norms(vectors: Tensor) -> Tensor:
    """(...,) lengths of vectors (..., D), with gradient 0 where they are 0."""
    return norm_of(vectors.square().sum(-1))


def orthographic(poses: Tensor, scale: Tensor) -> Tensor:
    """(B, J, 2) poses (B, J, 3) seen from infinitely far, times scale (B,)."""
    return scale[:, None, None] * poses[..., :2]


def perspective(poses: Tensor, distance: Tensor, at: Tensor | None = None) -> Tensor:
    """(B, J, 2) at depth 1, about the origin, poses (B, J, 3) whose origin lies in a depth (B,) and is seen at
    (B, 1, 2); by default straight ahead.

    What comes nearer than a hundredth of the depth is seen as if it were that near.
    """
    depth = torch.maximum(poses[..., 2] + distance[:, None], 0.01 * distance[:, None])[..., None]
    if at is None:
        return poses[..., :2] / depth
    return (poses[..., :2] + at * distance[:, None, None]) / depth - at


def rotations(vectors: Tensor) -> Tensor:
    """(..., 3, 3) turns about vectors (..., 3) by their lengths in radians (Rodrigues); smooth at 0."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    squared = vectors.square().sum(-1)
    small = squared < 1e-8
    angle = torch.where(small, 1.0, squared).sqrt()
    sine = torch.where(small, 1 - squared / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / angle.square())
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + sine[..., None, None] * skew + cosine[..., None, None] * (skew @ skew)


def turned(vectors: Tensor, about: Tensor) -> Tensor:
    """(..., 3) vectors (..., 3), each turned as `rotations` of (..., 3) says."""
    return (rotations(about) @ vectors[..., None])[..., 0]


def seen_of(poses: Tensor) -> tuple[Tensor, Tensor]:
    """Of poses (..., J, D): the same with 0 for joints that are not wholly finite, and which are (..., J).

    Zeros, since even a product whose result is not used makes a gradient of NaN out of NaN.
    """
    known = torch.isfinite(poses).all(-1)
    return torch.where(known[..., None], poses, 0.0), known


def bounded_root(x: Tensor, edge: float = EDGE) -> Tensor:
    """Square roots of x, of finite slope: below edge^2 the tangent there goes on, down to 0 at -edge^2."""
    far = x > edge**2
    return torch.where(far, torch.where(far, x, 1.0).sqrt(), ((x + edge**2) / (2 * edge)).clamp_min(0.0))


def root_distance(
    rays: Tensor, depth: Tensor, ends: Tensor, length: Tensor, bounds: tuple[float, float] = (0.3, 30.0)
) -> Tensor:
    """(...,) how far away the root is if joints lie on rays (..., J, 3) of depth 1, depth (..., J) behind it.

    The distance Z makes the squares of the limbs, with ends (L, 2) and length (L,), add up to what they should: with
    X_j = r_j (Z + z_j) a quadratic in Z, of which the larger root counts, as in `harvest.monocular.lift`. One limb of
    length 1 is the root depth of Iqbal et al. 2018, "Hand pose estimation via latent 2.5D heatmap regression", eq. 5.

    Where depths alone make the limbs too long, the vertex comes closest. Nearer to it than EDGE the slope is that at
    EDGE; beyond the bounds, nearest and farthest, and for limbs that shrink to points, the gradient is 0. Joints that
    are NaN take no part.
    """
    points, known = seen_of(torch.cat([rays, depth[..., None]], dim=-1))
    rays, depth = points[..., :3], points[..., 3:]
    one, other = ends[:, 0], ends[:, 1]
    told = known[..., one] & known[..., other]
    slope = torch.where(told[..., None], rays[..., one, :] - rays[..., other, :], 0.0)
    shift = rays[..., one, :] * depth[..., one, :] - rays[..., other, :] * depth[..., other, :]
    shift = torch.where(told[..., None], shift, 0.0)
    wanted = (told * length.square()).sum(-1)
    nearest, farthest = bounds
    a = slope.square().sum((-1, -2))
    a = torch.maximum(a, (wanted / (4 * farthest**2)).clamp_min(1e-12))
    vertex = -(slope * shift).sum((-1, -2)) / a
    beyond = vertex.square() - (shift.square().sum((-1, -2)) - wanted) / a
    return (vertex + bounded_root(beyond)).clamp(nearest, farthest)


def on_rays(rays: Tensor, depth: Tensor, distance: Tensor) -> Tensor:
    """(..., J, 3) points on rays (..., J, 3), depth (..., J) behind a root in a distance (...,)."""
    return rays * (distance[..., None] + depth)[..., None]


def rays_at(uv_px: Tensor, grid: Tensor, side_px: int) -> Tensor:
    """(B, J, 3) rays of depth 1 at pixels (B, J, 2) of pictures of side_px a side.

    Args:
        grid: (B, 2, N, N) x and y of rays at nodes spread evenly from corner to corner, (-0.5, -0.5) to
            (side_px - 0.5, side_px - 0.5), between which they are interpolated linearly.
    """
    at = (uv_px + 0.5) * (2 / side_px) - 1
    xy = functional.grid_sample(grid, at[:, None], padding_mode="border", align_corners=True)
    return functional.pad(xy[:, :, 0].transpose(1, 2), (0, 1), value=1.0)


def metres_per_px(uv_px: Tensor, depth_m: Tensor, ends: Tensor, length_m: Tensor) -> Tensor:
    """(...,) the scale of a weak perspective under which the squares of the limbs add up to those of length_m (L,).

    With s the scale, sum of s^2 |uv_one - uv_other|^2 + (z_one - z_other)^2 over the limbs: what `root_distance`
    solves, without intrinsics. Depths that leave too little give LEAST_SCALE of the scale without depths. Pixels
    (..., J, 2) that are NaN take no part; where no limb is left, it is 0.
    """
    seen, known = seen_of(torch.cat([uv_px, depth_m[..., None]], dim=-1))
    told = known[..., ends[:, 0]] & known[..., ends[:, 1]]
    apart = (seen[..., ends[:, 0], :] - seen[..., ends[:, 1], :]).square() * told[..., None]
    wanted = (told * length_m.square()).sum(-1)
    left = torch.maximum(wanted - apart[..., 2].sum(-1), LEAST_SCALE**2 * wanted)
    return norm_of(left / apart[..., :2].sum((-1, -2)).clamp_min(1e-6))


def weak_perspective(uv_px: Tensor, depth_m: Tensor, ends: Tensor, length_m: Tensor) -> Tensor:
    """(..., J, 3) poses in metres that are seen at pixels (..., J, 2), with depths (..., J), by the scale of
    `metres_per_px`; NaN where a pixel is.
    """
    seen, known = seen_of(uv_px)
    across = metres_per_px(uv_px, depth_m, ends, length_m)[..., None, None] * seen
    return torch.where(known[..., None], torch.cat([across, depth_m[..., None]], dim=-1), torch.nan)


def rigidly(points: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """(..., J, 3) points after the rotation and translation that bring them closest to targets (..., J, 3): that make
    the squares of the distances, times weight (..., J), add up to least.

    No gradient flows through the rotation. It need not, for that sum: its slope along the best rotation is 0, so what
    is left is the whole gradient, also where the rotation is not unique and has none.

    Source: Kabsch 1976; Umeyama 1991, eq. 40 and 41.
    """
    share = (weight / weight.sum(-1, keepdim=True).clamp_min(1e-12))[..., None]
    from_middle, to_middle = ((share * those).sum(-2, keepdim=True) for those in (points, target))
    a, b = points - from_middle, target - to_middle
    with torch.no_grad():
        u, _, vt = torch.linalg.svd(torch.nan_to_num((share * b).transpose(-1, -2) @ a))
        sign = torch.ones_like(u[..., 0])
        sign[..., 2] = torch.linalg.det(u @ vt).sign()
        rotation = (u * sign[..., None, :]) @ vt
    return a @ rotation.transpose(-1, -2) + to_middle
