"""Trustworthy 3D and 2D joint labels from calibrated multi-view video of a person."""

__version__ = "0.1.0"
