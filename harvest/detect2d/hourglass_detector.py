"""A stacked hourglass as a detector: crops in, heat maps out."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harvest.detect2d.detectors import Engine
from harvest.detect2d.hourglass import StackedHourglass, images_of
from harvest.detect2d.hourglass_files import PathLike, load_hourglass
from harvest.detect2d.openvino_engine import compile_network
from harvest.errors import UserError
from harvest.skeleton import mirror_name


def fast_bf16() -> bool:
    """Whether this processor multiplies in bfloat16 by itself; elsewhere float32 is faster."""
    return bool(torch.cpu._is_avx512_bf16_supported()) or bool(torch.cpu._is_amx_tile_supported())


class HourglassDetector:
    """Heat maps of joints in square crops, by a stacked hourglass network.

    Attributes:
        joints: names of the heat maps, in order.
        input_px, heatmap_px: sides of a crop and of a heat map.
        crop_from_heatmap: (2, 3) float64, crop pixel of a cell: (x + 0.5) * 4 - 0.5.
        sharpness: power of a map that is a likelihood.
        fingerprint: names the weights; the file's sha256 from `from_file`.
    """

    input_px = 256
    heatmap_px = 64
    crop_from_heatmap = np.array([[4, 0, 1.5], [0, 4, 1.5]], np.float64)

    def __init__(
        self,
        network: StackedHourglass,
        fingerprint: str,
        *,
        flip_test: bool = False,
        bf16: bool = False,
        engine: Engine = "torch",
    ) -> None:
        """Take a network, and put it in eval mode.

        Args:
            flip_test: average with the maps of the mirrored crop, left and right joints exchanged by name (l_, r_).
            bf16: compute in bfloat16, channels last: faster where the processor has it (`fast_bf16`), about three
                digits.
            engine: what computes; 'openvino' needs the extra of that name.
        Raises:
            UserError: flip_test, and a joint without its other side; OpenVINO is not installed.
        """
        self._memory = torch.channels_last if bf16 else torch.contiguous_format
        self.network = network.eval().to(memory_format=self._memory)  # type: ignore[call-overload]
        self.joints, self.fingerprint, self.bf16 = network.joints, fingerprint, bf16
        self.sharpness = network.sharpness
        self._mirrored = _mirrored_joints(network.joints) if flip_test else None
        self._compiled = compile_network(network, self.input_px, bf16) if engine == "openvino" else None

    @classmethod
    def from_file(
        cls, path: PathLike, *, flip_test: bool = False, bf16: bool = False, engine: Engine = "torch"
    ) -> Self:
        """A detector of the weights in a file; raises as `load_hourglass` does."""
        network = load_hourglass(path)
        fingerprint = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        return cls(network, fingerprint, flip_test=flip_test, bf16=bf16, engine=engine)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Heat maps of the last stack; with flip_test, of the average.

        Args:
            crops: (B, 256, 256, 3) uint8 RGB, B may be 0.
        Returns:
            (B, J, 64, 64) float32.
        Raises:
            ValueError: crops of another shape or dtype.
        """
        if crops.dtype != np.uint8 or crops.shape[1:] != (self.input_px, self.input_px, 3):
            raise ValueError(f"crops are {crops.dtype} {crops.shape}; need uint8 (B, 256, 256, 3)")
        with torch.inference_mode():
            images = images_of(crops, self.network.mean_rgb).to(next(self.network.parameters()).device)
            scores = self._last_stack(images)
            if self._mirrored is not None:
                # Mirrored, cell x of 64 becomes cell 63 - x exactly, so that flipping back needs no shift.
                scores = (scores + self._last_stack(images.flip(-1)).flip(-1)[:, self._mirrored]) / 2
            return self.network.maps(scores).cpu().numpy()

    def _last_stack(self, images: Tensor) -> Tensor:
        if self._compiled is not None:
            return self._compiled(images)[:, -1]
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            return self.network(images.contiguous(memory_format=self._memory))[:, -1].float()


def _mirrored_joints(joints: Sequence[str]) -> list[int]:
    """For each joint, the place of the joint that a mirror turns into it."""
    partners = [mirror_name(name, joints) for name in joints]
    if alone := [name for name, partner in zip(joints, partners) if name == partner and name[:2] in ("l_", "r_")]:
        other = ("r" if alone[0][0] == "l" else "l") + alone[0][1:]
        raise UserError(f"flip_test needs both sides of each joint, and there is no {other!r}; leave it off")
    return [list(joints).index(partner) for partner in partners]
