"""The definition of a limb message: a sum over all pairs of voxels."""

import numpy as np
from numpy.typing import NDArray

from cuda_kernels.shell import Shell


def limb_message(  # type: ignore[no-untyped-def]
    belief, source, target, shell: Shell, n: int
) -> NDArray[np.float64]:
    """See the contract in the folder's `__init__`."""
    message = np.zeros(len(target))
    here, there = (np.stack(np.unravel_index(place, (n, n, n)), axis=-1) for place in (source, target))
    for index, voxel in enumerate(there):
        squared = ((here - voxel) ** 2).sum(axis=1)
        inside = (squared >= shell.lowest) & (squared <= shell.highest)
        message[index] = (belief[inside] * shell.weights[squared[inside] - shell.lowest].astype(np.float64)).sum()
    return message
