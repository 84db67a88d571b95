"""Stage 3 by methods that are learnt: their weights, and poses by them. PyTorch is loaded only where one is chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.weights import shipped
from harvest.errors import UserError
from harvest.types import Poses3D
from pipelines.settings import ReconstructSettings

if TYPE_CHECKING:
    from harvest.triangulate3d.map_files import Triangulator

LEARNT = {"algebraic": "algebraic-s", "volumetric": "volumetric-s"}  # methods, and the package's weights for them


def triangulator_file(settings: ReconstructSettings) -> Path | None:
    """The weights that the method needs, there or not; None for a method that is not learnt."""
    if settings.method not in LEARNT:
        return None
    return settings.weights or shipped(LEARNT[settings.method])


def triangulator_of(settings: ReconstructSettings) -> Triangulator | None:
    """The network of a method that is learnt, None for the others.

    Raises:
        UserError: weights that are missing, given in vain, unusable, or of the other method.
    """
    path = triangulator_file(settings)
    if path is None:
        if settings.weights is not None:
            raise UserError(f"reconstruct.weights goes with --method {' or '.join(LEARNT)}, not {settings.method}")
        return None
    if settings.weights is None and not path.is_file():
        raise UserError(
            f"--method {settings.method} has no weights in this package ({path.name}); train some with `harvest train "
            f"triangulation --model {settings.method}`, and name them in --config: reconstruct: {{weights: FILE}}"
        )
    from harvest.triangulate3d.map_files import header_of, load_triangulator

    network = load_triangulator(path)
    kind = header_of(network)["kind"]
    if kind != settings.method:
        raise UserError(f"{path} holds {kind} triangulation; give --method {kind}, or weights for {settings.method}")
    return network


def own_joints(network: Triangulator | None) -> tuple[str, ...] | None:
    """Names of the joints that a network gives whatever the detector; None where it gives those of the maps."""
    return getattr(network, "joints", None)


def poses_of_joints(poses: Poses3D, joints: tuple[str, ...]) -> Poses3D:
    """The poses of those joints, by name, in that order; joints that there are none of are not found."""
    rows = [poses.joints.index(joint) if joint in poses.joints else -1 for joint in joints]
    there = np.array(rows) >= 0

    def taken(values: NDArray[Any], missing: float) -> NDArray[Any]:
        wide = there.reshape(1, -1, *[1] * (values.ndim - 2))
        return np.where(wide, values[:, rows], np.array(missing, values.dtype))

    return dataclasses.replace(
        poses,
        joints=joints,
        xyz_m=taken(poses.xyz_m, np.nan),
        cov_m2=taken(poses.cov_m2, np.nan),
        confidence=taken(poses.confidence, 0),
        n_views=taken(poses.n_views, 0),
    )
