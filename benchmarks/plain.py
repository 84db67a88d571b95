"""The same equations in plain NumPy and SciPy, double precision, every voxel: the definition to compare with."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from calib.rig import Rig
from cuda_kernels.shell import Shell
from cuda_kernels.tree import Tree

Floats = NDArray[np.float64]


def likelihood(
    rig: Rig, score: NDArray[np.float32], cell_from_image: Floats, grid: tuple[Floats, float, int], floor: float
) -> Floats:
    """(J, n, n, n): the product over views of floor + the maps (V, h, w, J) sampled bilinearly at the projections."""
    centre, side, n = grid
    axis = (np.arange(n) + 0.5 - n / 2) * side / n
    points = np.stack(np.meshgrid(*[axis] * 3, indexing="ij"), -1) + centre
    out = np.ones((score.shape[3], n, n, n))
    for camera, maps, cells in zip(rig.cameras, score.astype(np.float64), cell_from_image, strict=True):
        padded = np.pad(maps, ((1, 1), (1, 1), (0, 0)))
        uv = camera.project(points)
        x, y = np.moveaxis(uv @ cells[:, :2].T + cells[:, 2], -1, 0)
        seen = (x > -1) & (y > -1) & (x < maps.shape[1]) & (y < maps.shape[0])
        x, y = np.where(seen, x, -1.0) + 1.0, np.where(seen, y, -1.0) + 1.0
        left, top = x.astype(int), y.astype(int)
        fx, fy = (x - left)[..., None], (y - top)[..., None]
        sample = (padded[top, left] * (1 - fx) + padded[top, left + 1] * fx) * (1 - fy)
        sample += (padded[top + 1, left] * (1 - fx) + padded[top + 1, left + 1] * fx) * fy
        out *= floor + np.moveaxis(np.where(seen[..., None], sample, 0.0), -1, 0)
    return out


def kernel_spectrum(shell: Shell, padded: int) -> NDArray[np.complex128]:
    """The transform of a limb's weights on a grid of `padded` a side, offsets wrapped round."""
    offset = np.fft.fftfreq(padded, 1.0 / padded).astype(np.int64) ** 2
    squared = offset[:, None, None] + offset[:, None] + offset
    inside = (squared >= shell.lowest) & (squared <= shell.highest)
    weights = shell.weights.astype(np.float64)[np.clip(squared - shell.lowest, 0, shell.weights.size - 1)]
    spectrum: NDArray[np.complex128] = scipy.fft.rfftn(np.where(inside, weights, 0.0), workers=-1)
    return spectrum


class DenseTree:
    """Sum-product on a tree over a whole grid, a message being a convolution by FFT with a kernel known beforehand."""

    def __init__(self, tree: Tree, n: int) -> None:
        """Transform the kernels."""
        self.tree, self.n, self.spectra = tree, n, {}
        for child, _, shell in tree.limbs:
            padded = scipy.fft.next_fast_len(n + shell.reach, real=True)
            self.spectra[child] = padded, kernel_spectrum(shell, padded)

    def message(self, child: int, belief: Floats) -> Floats:
        """(n, n, n): the belief at one end of the limb of `child`, summed over all voxels one limb away."""
        padded, spectrum = self.spectra[child]
        shape = (padded,) * 3
        transform = scipy.fft.rfftn(belief, shape, workers=-1)
        whole = scipy.fft.irfftn(transform * spectrum, shape, workers=-1)
        return np.maximum(whole[: self.n, : self.n, : self.n], 0.0)

    def marginals(self, likelihood: Floats) -> Floats | None:
        """(J, n, n, n) of likelihoods (J, n, n, n), each with sum 1; None where no pose has any weight."""
        tree, order, told = self.tree, list(self.tree.order), {}

        def belief(joint: int, but: int | None = None) -> Floats:
            value = likelihood[joint] / (likelihood[joint].max() or 1.0)
            for neighbour in tree.neighbours(joint):
                if neighbour != but:
                    value = value * told[neighbour, joint]
            return value

        upward = [(joint, int(tree.parents[joint])) for joint in reversed(order[1:])]
        for sender, receiver in upward + [(parent, child) for child, parent in reversed(upward)]:
            child = sender if tree.parents[sender] == receiver else receiver
            message = self.message(child, belief(sender, receiver))
            if not message.max() > 0:
                return None
            told[sender, receiver] = message / message.max()
        found = np.stack([belief(joint) for joint in range(len(order))])
        total = found.sum(axis=(1, 2, 3), keepdims=True)
        return found / total if (total > 0).all() else None


def moments(marginals: Floats, grid: tuple[Floats, float, int]) -> tuple[Floats, Floats]:
    """Means (J, 3) in metres and covariances (J, 3, 3) in square metres of marginals (J, n, n, n)."""
    centre, side, n = grid
    axis = (np.arange(n) + 0.5 - n / 2) * side / n
    points = np.stack(np.meshgrid(*[axis] * 3, indexing="ij"), -1).reshape(-1, 3)
    weight = marginals.reshape(len(marginals), -1)
    mean = weight @ points
    cov = np.stack([(w[:, None] * (points - m)).T @ (points - m) for w, m in zip(weight, mean, strict=True)])
    return mean + centre, cov + np.eye(3) * (side / n) ** 2 / 12
