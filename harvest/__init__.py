"""Trustworthy 3D and 2D joint labels from calibrated multi-view video, and models trained on them."""

__version__ = "0.1.0"
