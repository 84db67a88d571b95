"""Parts and losses of CameraPose (Yang et al. 2023): a camera branch, a generator of poses, critics of poses.

2D is as lifters see it: at depth 1 through one usual camera (`PoseSet.on_screen`), which is pixels over the picture's
size; a camera is then (fx, fy, cx, cy) near (1, 1, 0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from harvest.learn.geometry import norms, rotations, turned
from harvest.monocular.lifter import Residual, layer, share_of

BRANCH_WIDTH = 512
NEAREST_M = 0.5
USUAL_CAMERA = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 4.5)  # fx, fy, cx, cy, and tx, ty, tz in metres
PARTS: Mapping[str, tuple[str, ...]] = {
    "trunk": ("pelvis", "spine", "thorax", "neck", "upper_neck", "nose", "head_top"),
    **{
        f"{side}_{limb}": tuple(f"{side}_{joint}" for joint in joints)
        for side in "lr"
        for limb, joints in (("arm", ("shoulder", "elbow", "wrist")), ("leg", ("hip", "knee", "ankle")))
    },
}


class CameraBranch(nn.Module):
    """Tells the camera and where the root is (eq. 5 and 6) from joints in 2D and the pose lifted from them."""

    def __init__(self, joints: int) -> None:
        """For so many joints; at first it tells the usual camera."""
        super().__init__()
        self.bring = nn.Sequential(*layer(5 * joints + 2, BRANCH_WIDTH, 0.0))
        self.blocks = nn.Sequential(Residual(BRANCH_WIDTH, 0.0), Residual(BRANCH_WIDTH, 0.0))
        self.tell = nn.Linear(BRANCH_WIDTH, len(USUAL_CAMERA))
        nn.init.normal_(self.tell.weight, std=1e-3)
        self.tell.bias = nn.Parameter(torch.tensor(USUAL_CAMERA))

    def forward(self, seen: Tensor, at: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 4) fx, fy, cx, cy, and (B, 3) t in metres; of what `Lifter.looked_at` gives and poses (B, J, 3)."""
        x = torch.cat([seen.flatten(1), at.flatten(1), poses.flatten(1)], dim=1)
        told = self.tell(self.blocks(self.bring(x)))
        return told[:, :4], told[:, 4:]


def pictured(poses: Tensor, camera: Tensor, t: Tensor) -> Tensor:
    """(B, J, 2) eq. 7's M (X + t), divided by depth; nothing is nearer than NEAREST_M.

    Args:
        poses: (B, J, 3) metres. camera: (B, 4) fx, fy, cx, cy. t: (B, 3) metres.
    """
    x = poses + t[:, None]
    return camera[:, None, :2] * x[..., :2] / x[..., 2:].clamp_min(NEAREST_M) + camera[:, None, 2:]


def fitted_place(poses: Tensor, camera: Tensor, seen: Tensor) -> Tensor:
    """(B, 3) metres: the t with which poses (B, J, 3) come nearest to what is seen of them (B, J, 2), NaN where nothing
    is: the least squares of x + tx - u (z + tz), with u at depth 1, and of the same for y.

    A pose that is twice as large is put twice as far, so that what is then `pictured` says nothing about sizes.

    Args:
        camera: (B, 4) fx, fy, cx, cy.
    """
    known = torch.isfinite(seen).all(-1, keepdim=True)
    u = torch.where(known, (torch.nan_to_num(seen) - camera[:, None, 2:]) / camera[:, None, :2], 0.0)
    told = known.to(u)
    off = told * (u * poses[..., 2:] - poses[..., :2])  # t[:2] - u tz should be that
    count, mean_u = told.sum(1).clamp_min(1), u.sum(1)
    square = u.square().sum((1, 2)) - (mean_u.square() / count).sum(1)
    slope = (u * off).sum((1, 2)) - (mean_u * off.sum(1) / count).sum(1)
    tz = -slope / square.clamp_min(1e-6)
    return torch.cat([(off.sum(1) + mean_u * tz[:, None]) / count, tz[:, None]], dim=1)


def squared_loss(found: Tensor, truth: Tensor) -> Tensor:
    """Eq. 7 and 9: mean over poses of the sum over known joints of squared distances, over the number of joints."""
    known = torch.isfinite(truth).all(-1, keepdim=True)
    off = torch.where(known, found - torch.where(known, truth, 0.0), 0.0)
    return off.square().sum((1, 2)).mean() / found.shape[1]


def camera_loss(camera: Tensor, t: Tensor, true_camera: Tensor, true_t: Tensor) -> Tensor:
    """Eq. 8: mean over poses of the squared differences of camera (B, 4) and place (B, 3)."""
    return ((camera - true_camera).square().sum(1) + (t - true_t).square().sum(1)).mean()


def refine_loss(mended: Tensor, labels: Tensor, confidence: Tensor) -> Tensor:
    """Eq. 4: mean over poses and joints of squared distances (B, J, 2), each weighted by its share of confidence."""
    known = torch.isfinite(labels).all(-1)
    off = torch.where(known[..., None], mended - torch.where(known[..., None], labels, 0.0), 0.0)
    return (share_of(confidence) * off.square().sum(-1)).sum(1).mean() / labels.shape[1]


class Chain:
    """A skeleton as a kinematic chain: bones (L,) from parents to children, poses from bones, and its parts."""

    def __init__(self, joints: Sequence[str], parents: Sequence[int]) -> None:
        """Of a tree."""
        self.child = torch.tensor([joint for joint, parent in enumerate(parents) if parent >= 0])
        self.parent = torch.tensor([parent for parent in parents if parent >= 0])
        self.from_bones = torch.zeros(len(joints), len(self.child))
        for row in range(len(joints)):
            at = row
            while parents[at] >= 0:
                self.from_bones[row, (self.child == at).nonzero()[0, 0]] = 1.0
                at = parents[at]
        names = [joints[child] for child in self.child.tolist()]
        own = {part: [bone for bone, name in enumerate(names) if name in those] for part, those in PARTS.items()}
        self.parts = [torch.tensor(bones) for bones in own.values() if bones]
        mirror = [name[2:] if name[:2] in ("l_", "r_") else name for name in names]
        self.kind = torch.tensor([sorted(set(mirror)).index(name) for name in mirror])  # left and right are one

    def bones(self, poses: Tensor) -> Tensor:
        """(B, L, D) from each bone's upper to its lower end, of poses (B, J, D)."""
        return poses[:, self.child] - poses[:, self.parent]

    def poses(self, bones: Tensor) -> Tensor:
        """(B, J, D) poses about the root, of bones (B, L, D)."""
        return torch.einsum("jl,bld->bjd", self.from_bones.to(bones), bones)


def chain_space(bones: Tensor) -> Tensor:
    """(B, n (n + 1) / 2) a part's bones (B, n, D) as their lengths and the cosines between them (kinematic chain space,
    Wandt and Rosenhahn 2019: B B^T, its upper triangle, each entry beside the diagonal over both lengths).
    """
    length = norms(bones)
    unit = bones / length.clamp_min(1e-6)[..., None]
    between = unit @ unit.transpose(1, 2)
    row, column = torch.triu_indices(bones.shape[1], bones.shape[1], 1)
    return torch.cat([length, between[:, row, column]], dim=1)


class Critic(nn.Module):
    """How much a pose looks like one of a person: near 1 for real ones, near 0 for made ones (eq. 12 to 15)."""

    entries: Tensor

    def __init__(self, chain: Chain, width: int = 100) -> None:
        """One small network a part, and one over all."""
        super().__init__()
        self.chain, parts = chain, len(chain.parts)
        sizes = [len(part) * (len(part) + 1) // 2 for part in chain.parts]
        self.of_part = nn.ModuleList([SideBySide(sizes, width), SideBySide([width] * parts, width)])
        self.of_all = nn.Sequential(nn.Linear(width * parts, width), nn.LeakyReLU(0.1), nn.Linear(width, 1))
        entries = [_entries(part.tolist(), len(chain.child)) for part in chain.parts]
        nothing = len(chain.child) * (len(chain.child) + 1) // 2
        rows = [torch.tensor(these + [nothing] * (max(sizes) - len(these))) for these in entries]
        self.register_buffer("entries", torch.stack(rows), persistent=False)

    def forward(self, poses: Tensor) -> Tensor:
        """(B,) of poses (B, J, 2 or 3): only shape counts in 2D, where bones are over their mean length."""
        bones = self.chain.bones(poses)
        if poses.shape[-1] == 2:
            bones = bones / norms(bones).mean(1).clamp_min(1e-6)[:, None, None]
        x = functional.pad(chain_space(bones), (0, 1))[:, self.entries].transpose(0, 1)
        for layers in self.of_part:
            x = functional.leaky_relu(layers(x), 0.1)
        return self.of_all(x.transpose(0, 1).flatten(1))[:, 0]


class SideBySide(nn.Module):
    """Linear layers, one for each of P parts, in one product: a part of fewer inputs is filled up with zeros."""

    def __init__(self, sizes: Sequence[int], width: int) -> None:
        """Of so many inputs each."""
        super().__init__()
        layers = [nn.Linear(size, width) for size in sizes]
        most = max(sizes)
        weights = [functional.pad(one.weight.detach().T, (0, 0, 0, most - one.in_features)) for one in layers]
        self.weight = nn.Parameter(torch.stack(weights))
        self.bias = nn.Parameter(torch.stack([one.bias.detach()[None] for one in layers]))

    def forward(self, x: Tensor) -> Tensor:
        """(P, B, width) of (P, B, largest size)."""
        return torch.baddbmm(self.bias, x, self.weight)


def _entries(part: list[int], bones: int) -> list[int]:
    """Where the `chain_space` of all bones holds that of a part of them, in its order."""
    row, column = torch.triu_indices(bones, bones, 1).tolist()
    place = {pair: bones + index for index, pair in enumerate(zip(row, column, strict=True))}
    return [*part, *(place[one, other] for index, one in enumerate(part) for other in part[index + 1 :])]


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """LS-GAN of a critic: real to 1, made to 0 (eq. 12 to 15; there the second target is printed as 1)."""
    return 0.5 * (real - 1).square().mean() + 0.5 * made.square().mean()


def maker_loss(made: Tensor) -> Tensor:
    """LS-GAN of what makes poses: they should pass as real."""
    return 0.5 * (made - 1).square().mean()


class Generator(nn.Module):
    """Makes other poses of given ones: bones turned, lengthened, and seen from elsewhere (three perceptrons)."""

    MOST_RAD, MOST_LONGER = 0.15, 0.2
    NEAR_M, FAR_M, ASIDE = 2.5, 8.0, 0.25

    def __init__(self, chain: Chain, width: int = 256, noise: int = 32) -> None:
        """For poses of a chain."""
        super().__init__()
        self.chain, self.noise = chain, noise
        given, bones = 3 * len(chain.child) + noise, len(chain.child)
        outs = (3 * bones, int(chain.kind.max()) + 1, 6)
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(given, width), nn.LeakyReLU(0.1), nn.Linear(width, width), nn.LeakyReLU(0.1), last)
            for last in (nn.Linear(width, out) for out in outs)
        )

    def forward(self, poses: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(B, J, 3) new poses about the root in a camera's frame, and where that is (B, 3), metres.

        Args:
            poses: (B, J, 3) about the root. noise: (B, noise) standard normal.
        """
        bones = self.chain.bones(poses)
        given = torch.cat([bones.flatten(1), noise], dim=1)
        angle, longer, place = (net(given) for net in self.nets)
        vectors = angle.view(len(poses), -1, 3)
        bones = turned(bones, self.MOST_RAD * vectors / (1 + norms(vectors))[..., None])
        bones = bones * (1 + self.MOST_LONGER * longer.tanh())[:, self.chain.kind, None]
        about = place[:, :3] * noise.new_tensor([0.3, 3.14, 0.3]) / (1 + place[:, :3].abs())
        made = torch.einsum("bij,bkj->bki", rotations(about), self.chain.poses(bones))
        depth = self.NEAR_M + (self.FAR_M - self.NEAR_M) * place[:, 5].sigmoid()
        aside = self.ASIDE * depth[:, None] * place[:, 3:5].tanh()
        return made, torch.cat([aside, depth[:, None]], dim=1)
