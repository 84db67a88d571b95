"""Whatever tells a 3D pose from one crop, behind one interface: a network that sees the picture, or a lifter."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from calib.camera import Camera
from harvest.detect2d.detectors import make_detector
from harvest.detect2d.hourglass_detector import fast_bf16
from harvest.monocular.files import load_monocular
from harvest.monocular.lift import USUAL_FOCAL, Limbs, lift, placed, rays_of
from harvest.monocular.lifter import Lifter, in_metres
from harvest.monocular.lifter_files import KIND, load_lifter
from harvest.monocular.networks import MonocularNetwork, predict_crops
from harvest.reconstruct.peaks import peak_points
from harvest.skeleton import joint_sources
from harvest.store.network_file import holds_network
from harvest.types import Heatmaps

Floats = NDArray[np.float64]


class Predictor(Protocol):
    """joints: names of J joints. limbs: of a person of usual size."""

    joints: tuple[str, ...]
    limbs: Limbs

    def predict(self, crop: NDArray[np.uint8], camera: Camera, image_from_crop: Floats) -> tuple[Floats, Floats]:
        """Pixels (J, 2) in a crop (256, 256, 3), and metres (J, 3) in the frame of the camera that took it."""
        ...


def load_predictor(path: Path) -> Predictor:
    """What a file of weights holds.

    Raises:
        UserError: no such file, or none of `harvest train monocular`.
    """
    return LiftingPredictor(*load_lifter(path)) if holds_network(path, KIND) else SeeingPredictor(*load_monocular(path))


class SeeingPredictor:
    """A monocular network."""

    def __init__(self, network: MonocularNetwork, limbs: Limbs) -> None:
        """Take what `load_monocular` gives."""
        self._network, self.limbs, self.joints = network, limbs, network.shape.joints

    def predict(self, crop: NDArray[np.uint8], camera: Camera, image_from_crop: Floats) -> tuple[Floats, Floats]:
        """As `Predictor` says."""
        told = predict_crops(self._network, crop[None], fast_bf16())[0]
        return told[:, :2], lift(rays_of(told[:, :2], camera, image_from_crop), told[:, 2], self.limbs)


class LiftingPredictor:
    """Our hourglass, and a lifter of what it finds; joints that it does not know are lifted as unknown."""

    def __init__(self, lifter: Lifter, limbs: Limbs) -> None:
        """Take what `load_lifter` gives."""
        self._lifter, self.limbs, self.joints = lifter, limbs, lifter.shape.joints
        self._detector = make_detector("hourglass", None, flip_test=False)
        known = self._detector.joints
        self._sources = [[known.index(name) for name in joint_sources(joint, known)] for joint in self.joints]

    def predict(self, crop: NDArray[np.uint8], camera: Camera, image_from_crop: Floats) -> tuple[Floats, Floats]:
        """As `Predictor` says; places of joints that the detector does not know are those of the lifted pose."""
        maps = self._detector(crop[None])[:, None]
        at = self._detector.crop_from_heatmap[None, None]
        peaks, heat = peak_points(Heatmaps(np.zeros(1, np.int64), ("",), self._detector.joints, maps, at))
        uv = np.array([peaks[0, 0, some].mean(axis=0) if some else [np.nan, np.nan] for some in self._sources])
        sure = np.array([heat[0, 0, some].mean() if some else 0.0 for some in self._sources])
        rays = rays_of(uv, camera, image_from_crop)
        seen = rays[:, :2]
        if self._lifter.shape.screen:
            image = uv @ image_from_crop[:, :2].T + image_from_crop[:, 2]
            size = np.array(camera.size_px)
            seen = (image - (size - 1) / 2) / (USUAL_FOCAL * size.max())
        given = torch.from_numpy(np.stack([seen]).astype(np.float32)), torch.from_numpy(sure[None].astype(np.float32))
        with torch.inference_mode():
            poses = self._lifter(*given)[0].double().numpy()
        xyz = placed(in_metres(self._lifter, self.limbs, poses), rays[None])[0]
        shown = camera.image_from_normalised(xyz[:, 0] / xyz[:, 2], xyz[:, 1] / xyz[:, 2])
        back = np.linalg.inv(image_from_crop[:, :2])
        return np.where(np.isfinite(uv), uv, (shown - image_from_crop[:, 2]) @ back.T), xyz
