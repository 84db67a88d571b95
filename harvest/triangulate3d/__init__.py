"""Learnable triangulation: networks from pictures of calibrated views to 3D joints, differentiable all the way."""
