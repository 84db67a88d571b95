"""The definition of pruning by likelihood, joint by joint."""

import numpy as np


def split(likelihood, peak, cut, block):  # type: ignore[no-untyped-def]
    """Row starts (J + 1,), kept voxels, their relative likelihood, and dropped mass by joint and block."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    blocks = (n + block - 1) // block
    dropped = np.zeros((joints, blocks, blocks, blocks))
    starts, voxels, values = [0], [], []
    for joint in range(joints):
        relative = likelihood[..., joint].astype(np.float64) / (peak[joint] or 1.0)
        block_of = np.arange(n) // block
        threshold = (cut[joint] * peak[joint]).astype(likelihood.dtype)
        threshold = np.maximum(threshold, np.finfo(likelihood.dtype).tiny)
        keep = likelihood[..., joint] >= threshold[np.ix_(block_of, block_of, block_of)]
        voxels.append(np.argwhere(keep).astype(np.int16))
        values.append(relative[keep])
        starts.append(starts[-1] + len(voxels[-1]))
        for index in np.argwhere(~keep):
            dropped[(joint, *(index // block))] += relative[tuple(index)]
    return np.array(starts), np.concatenate(voxels), np.concatenate(values), dropped
