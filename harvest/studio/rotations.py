"""Rotations as arrays: quaternions (w, x, y, z), turns about axes, the smallest turn between directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def from_quaternions(q: Floats) -> Floats:
    """(..., 3, 3) rotations of quaternions (..., 4), which need not be of length one."""
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def to_quaternions(R: Floats) -> Floats:
    """(..., 4) quaternions of rotations (..., 3, 3), w not negative."""
    m = R.reshape(-1, 3, 3)
    trace = m[:, 0, 0] + m[:, 1, 1] + m[:, 2, 2]
    # Four times the square of each component; the largest is divided by, which is never small.
    squares = np.stack([1 + trace] + [1 + 2 * m[:, i, i] - trace for i in range(3)], -1)
    products = np.empty((len(m), 4, 4))
    for i in range(4):
        products[:, i, i] = squares[:, i]
    for i, (a, b) in enumerate(((2, 1), (0, 2), (1, 0)), start=1):
        products[:, 0, i] = products[:, i, 0] = m[:, a, b] - m[:, b, a]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        products[:, i + 1, j + 1] = products[:, j + 1, i + 1] = m[:, i, j] + m[:, j, i]
    q = products[np.arange(len(m)), squares.argmax(1)]
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(q[:, :1] < 0, -q, q)
    return q.reshape(R.shape[:-2] + (4,))


def about(axis: ArrayLike, angle: ArrayLike) -> Floats:
    """(..., 3, 3) turns by `angle` (...) radians about one axis (3,), right-handed."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    a = np.asarray(angle, np.float64)[..., None, None]
    turn: Floats = np.eye(3) + np.sin(a) * K + (1 - np.cos(a)) * (K @ K)
    return turn


def smallest_turn(source: Floats, target: Floats) -> Floats:
    """(3, 3) the smallest turn that takes one direction to another; opposite ones have no smallest.

    Raises:
        ValueError: opposite directions.
    """
    a, b = source / np.linalg.norm(source), target / np.linalg.norm(target)
    if a @ b < -1 + 1e-9:
        raise ValueError("opposite directions have no smallest turn")
    x, y, z = np.cross(a, b)
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Floats = np.eye(3) + K + K @ K / (1 + a @ b)
    return turn


def look_at(eye: ArrayLike, target: ArrayLike, roll: float = 0.0) -> tuple[Floats, Floats]:
    """R_cam_from_world (3, 3) and t_cam_from_world_m (3,) of a camera at `eye` that looks at `target`, z up, turned by
    `roll` radians about its axis.
    """
    eye, target = np.asarray(eye, np.float64), np.asarray(target, np.float64)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    R = about([0, 0, 1], roll) @ np.stack([right, np.cross(forward, right), forward])
    return R, -R @ eye
