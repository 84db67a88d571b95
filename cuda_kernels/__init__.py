"""Array-in, array-out kernels: one folder each, a reference body that is the definition and fast bodies beside it.

The folder's `__init__` holds the contract, the checks and the choice of body; bodies never check. Lens distortion is
the one thing that comes from outside: its formula lives in `calib.distortion` and is compiled here.
"""
