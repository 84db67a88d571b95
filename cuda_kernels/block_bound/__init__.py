"""Upper bounds on messages, constant on blocks of voxels: what may have been missed by leaving voxels out."""

from cuda_kernels.block_bound.numba_ import belief_by_block, reached_by_block

__all__ = ["belief_by_block", "reached_by_block"]
