"""The definition of pruning by likelihood, joint by joint."""

import numpy as np


def split(likelihood, cut, block):  # type: ignore[no-untyped-def]
    """Row starts (J + 1,), places and relative likelihoods of kept voxels, dropped mass by joint and block, peaks."""
    n, joints = likelihood.shape[0], likelihood.shape[3]
    blocks = (n + block - 1) // block
    peak = likelihood.reshape(-1, joints).max(axis=0).astype(np.float64)
    dropped = np.zeros((joints, blocks, blocks, blocks))
    starts, places, values = [0], [], []
    for joint in range(joints):
        relative = likelihood[..., joint].astype(np.float64) / (peak[joint] or 1.0)
        block_of = np.arange(n) // block
        threshold = (cut[joint] * peak[joint]).astype(likelihood.dtype)
        threshold = np.maximum(threshold, np.finfo(likelihood.dtype).tiny)
        keep = likelihood[..., joint] >= threshold[np.ix_(block_of, block_of, block_of)]
        places.append(np.flatnonzero(keep).astype(np.int32))
        values.append(relative[keep])
        starts.append(starts[-1] + len(places[-1]))
        for index in np.argwhere(~keep):
            dropped[(joint, *(index // block))] += relative[tuple(index)]
    return np.array(starts), np.concatenate(places), np.concatenate(values), dropped, peak
