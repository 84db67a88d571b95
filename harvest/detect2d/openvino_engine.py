"""A network compiled by OpenVINO (extra `[openvino]`): on processors that multiply in bfloat16, about twice as fast."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harvest.errors import UserError


def compile_network(network: nn.Module, side_px: int, bf16: bool) -> Callable[[Tensor], Tensor]:
    """What the network does to pictures (B, 3, side_px, side_px) float32, compiled for this processor.

    The model is handed over in memory: nothing is written, and OpenVINO's converter, which reports its use over the
    network, is not called.

    Raises:
        UserError: OpenVINO is not installed.
    """
    try:
        import openvino
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    except ImportError:
        raise UserError(
            "engine 'openvino' needs a package; install it with `pip install 'harvest-pose[openvino]'`"
        ) from None
    example = torch.zeros(1, 3, side_px, side_px)
    front = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(network.eval(), example_input=(example,))  # must outlive the conversion
    model = front.convert(front.load(decoder))
    model.reshape([-1, 3, side_px, side_px])
    kind = "bf16" if bf16 else "f32"
    hints = {"INFERENCE_PRECISION_HINT": kind, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    return lambda images: torch.from_numpy(compiled(images.contiguous().numpy())[0].copy())
