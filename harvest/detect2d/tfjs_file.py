"""Parameters of a network published as TensorFlow.js files: a model.json and the binary files that it names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from harvest.errors import UserError


def read_tfjs(path: Path) -> dict[str, Tensor]:
    """Tensors by name, float32; those that are no floats are left out.

    Raises:
        UserError: no such file, or a file that is not what its model.json says.
    """
    found: dict[str, Tensor] = {}
    try:
        for group in json.loads(path.read_text(encoding="utf-8"))["weightsManifest"]:
            values = b"".join((path.parent / name).read_bytes() for name in group["paths"])
            at = 0
            for entry in group["weights"]:
                kind = np.dtype(entry.get("quantization", entry)["dtype"])
                count = int(np.prod(entry["shape"]))
                array = np.frombuffer(values, kind, count, at).reshape(entry["shape"])
                at += array.nbytes
                if kind.kind == "f":
                    found[entry["name"]] = torch.from_numpy(array.astype(np.float32))
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be read as a TensorFlow.js model ({error}); give its model.json") from error
    return found
