"""A block of frames by pictorial structures: one thread a frame, or all frames of a step at once on a GPU."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from calib.rig import Rig
from cuda_kernels.frames import CAPACITY, infer_frames
from harvest.reconstruct.methods import FrameResult, Question, infer_frame, steps_of_frame
from harvest.reconstruct.pictorial import FIRST_CUT, FramePose, PictorialModel, invert_affine
from harvest.types import Heatmaps

Floats = NDArray[np.float64]
Steps = Generator[Question, FramePose, FrameResult]
Infer = Callable[[PictorialModel, list[Question]], list[FramePose]]


def infer_block(
    model: PictorialModel, rig: Rig, maps: Heatmaps, boxes: list[tuple[Floats, float]], flip_prior: float
) -> list[FrameResult]:
    """What `infer_frame` gives for every frame of a block, by the backend of the model's settings.

    Args:
        boxes: centre (3,) and side in metres of the box in which the person is, one a frame.
    """
    if model.settings.backend == "cuda":
        steps = [steps_of_frame(model, rig, maps, t, box, flip_prior) for t, box in enumerate(boxes)]
        return side_by_side(steps, lambda questions: infer_on_gpu(model, questions))
    with ThreadPoolExecutor(processors()) as threads:  # a frame is one thread's work, and does not hold the others up
        return list(threads.map(lambda t: infer_frame(model, rig, maps, t, boxes[t], flip_prior), range(len(boxes))))


def side_by_side(steps: list[Steps], answer: Callable[[list[Question]], list[FramePose]]) -> list[FrameResult]:
    """The results of frames whose questions are answered together: all first ones, then all second ones, and so on."""
    results: list[FrameResult | None] = [None] * len(steps)
    waiting: dict[int, Question] = {}

    def advance(index: int, pose: FramePose | None) -> None:
        try:
            waiting[index] = steps[index].send(pose)  # type: ignore[arg-type]  # a generator begins with None
        except StopIteration as end:
            results[index] = end.value

    for index in range(len(steps)):
        advance(index, None)
    while waiting:
        asked, questions = list(waiting), list(waiting.values())
        waiting.clear()
        for index, pose in zip(asked, answer(questions), strict=True):
            advance(index, pose)
    return [result for result in results if result is not None]


def infer_on_gpu(model: PictorialModel, questions: list[Question], backend: str = "cuda") -> list[FramePose]:
    """The poses of many frames in batches; what a batch cannot answer within the tolerance is left to the CPU.

    That is: frames of which one cut keeps too much or too little, and trees with joints that no map shows, because
    those keep every voxel. `FramePose.backend` tells who answered.
    """
    settings = model.settings
    on_cpu = PictorialModel(model.skeleton, model.lengths, replace(settings, backend="numba"))
    poses: list[FramePose | None] = [None] * len(questions)
    if settings.tolerance > 0 and not settings.published_demo and not model.skeleton.latent:
        alike: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for index, (rig, score, _, _, side_m) in enumerate(questions):
            alike[rig.names, score.shape, side_m].append(index)
        for those in alike.values():
            for index, pose in zip(those, _one_batch(model, [questions[i] for i in those], backend), strict=True):
                poses[index] = pose if pose.found and pose.error_bound <= settings.tolerance else None
    with ThreadPoolExecutor(processors()) as threads:
        return list(threads.map(lambda asked, pose: pose or on_cpu.infer(*asked), questions, poses))


def _one_batch(model: PictorialModel, questions: list[Question], backend: str) -> list[FramePose]:
    """The poses of frames of the same cameras, shape of maps and side of the box; not found where the cut fails."""
    settings, (rig, _, _, _, side_m) = model.settings, questions[0]
    score = np.stack([question[1] for question in questions]) ** np.float32(settings.sharpness)
    cells = np.stack([[invert_affine(affine) for affine in question[2]] for question in questions])
    grids = np.stack([question[3] for question in questions]), side_m, settings.voxels
    cameras = np.stack([camera.packed for camera in rig.cameras])
    tree, cut = model.tree(side_m / settings.voxels), FIRST_CUT * settings.tolerance
    found = infer_frames(score, cells, cameras, grids, settings.floor, cut, tree, backend, CAPACITY)
    return [
        FramePose(
            found.mean_m[t],
            found.cov_m2[t],
            bool(found.found[t]),
            float(found.log_evidence[t]),
            float(found.bound[t]),
            float(found.active[t]),
            backend,
        )
        for t in range(len(questions))
    ]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
