"""Stage 3 by methods that are learnt: their weights, and poses by them. PyTorch is loaded only where one is chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harvest.detect2d.weights import shipped
from harvest.errors import UserError
from harvest.reconstruct.methods import triangulated_peaks
from harvest.reconstruct.volume import box_centres, pelvis_centres
from harvest.types import Heatmaps, PersonBoxes, Poses3D
from pipelines.capture import Capture
from pipelines.settings import ReconstructSettings

if TYPE_CHECKING:
    from harvest.triangulate3d.infer_pictures import PictureTriangulator
    from harvest.triangulate3d.map_files import Triangulator

    Network = Triangulator | PictureTriangulator

PUBLISHED_SUFFIXES = (".pth", ".pt")  # of weights that look at pictures; ours, which look at heat maps, have others
LEARNT = {"algebraic": "algebraic-s", "volumetric": "volumetric-s"}  # methods, and the package's weights for them


def triangulator_file(settings: ReconstructSettings) -> Path | None:
    """The weights that the method needs, there or not; None for a method that is not learnt."""
    if settings.method not in LEARNT:
        return None
    return settings.weights or shipped(LEARNT[settings.method])


def triangulator_of(settings: ReconstructSettings) -> Network | None:
    """The network of a method that is learnt, None for the others.

    Raises:
        UserError: weights that are missing, given in vain, unusable, or of the other method; `how` given in vain.
    """
    path = triangulator_file(settings)
    if path is None:
        if settings.weights is not None:
            raise UserError(f"reconstruct.weights goes with --method {' or '.join(LEARNT)}, not {settings.method}")
    elif settings.weights is None and not path.is_file():
        raise UserError(
            f"--method {settings.method} has no weights in this package ({path.name}); train some with `harvest train "
            f"triangulation --model {settings.method}`, and name them in --config: reconstruct: {{weights: FILE}}"
        )
    published = path is not None and path.suffix in PUBLISHED_SUFFIXES
    if settings.how is not None and not published:
        raise UserError("reconstruct.how goes with published volumetric weights (.pth); give these, or leave it out")
    if path is None:
        return None
    network, kind = _published(path, settings) if published else _ours(path)
    if kind != settings.method:
        raise UserError(f"{path} holds {kind} triangulation; give --method {kind}, or weights for {settings.method}")
    return network


def _ours(path: Path) -> tuple[Triangulator, str]:
    from harvest.triangulate3d.folded import folded
    from harvest.triangulate3d.map_files import header_of, load_triangulator

    network = load_triangulator(path)
    return folded(network), header_of(network)["kind"]


def _published(path: Path, settings: ReconstructSettings) -> tuple[PictureTriangulator, str]:
    from harvest.triangulate3d.infer_pictures import load_picture_triangulator

    network = load_picture_triangulator(path, settings.how)
    return network, network.kind


def poses_by_network(
    network: Network,
    capture: Capture,
    given: Heatmaps,
    maps: Heatmaps,
    part: slice,
    boxes: PersonBoxes,
    side_m: float,
) -> Poses3D:
    """Poses of one block of frames, `part` of the capture's; of the maps' joints, or of the network's own.

    A published network looks at pictures: those of the block's frames are read again.

    Args:
        given: the block's heat maps, of the detector's joints. maps: of the skeleton's. side_m: of the person's cube.
    """
    from harvest.triangulate3d.infer_maps import triangulate_learned
    from harvest.triangulate3d.infer_pictures import PictureTriangulator, triangulate_pictures

    rig, times, spheres = capture.rig, capture.times_s[part], (boxes.centre_m[part], boxes.radius_m[part])
    if isinstance(network, PictureTriangulator):
        pelvis = pelvis_centres(triangulated_peaks(rig, given)[0], given.joints, *spheres)
        crops = boxes.image_from_crop[part]
        return triangulate_pictures(network, rig, given, times, crops, pelvis, capture.pictures)
    centres = box_centres(triangulated_peaks(rig, maps)[0], *spheres)
    shown = maps if own_joints(network) is None else given
    return triangulate_learned(network, rig, shown, times, centres, side_m)


def own_joints(network: Network | None) -> tuple[str, ...] | None:
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
