"""Stage 3: 3D joints with their uncertainty."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tqdm import tqdm

from calib.rig import Rig
from harvest.errors import UserError
from harvest.reconstruct.batch import infer_block
from harvest.reconstruct.limb_lengths import LimbLengths, estimate_limb_lengths, typical_lengths
from harvest.reconstruct.methods import collect, for_skeleton, triangulate, triangulated_peaks
from harvest.reconstruct.pictorial import PictorialModel, PictorialSettings
from harvest.reconstruct.volume import box_centres, box_side_m
from harvest.skeleton import BUILT_IN, Limb, Skeleton, load_skeleton
from harvest.store.atomic import write_text_atomically
from harvest.store.heatmaps import HeatmapStore
from harvest.store.tables import read_boxes, read_poses, table_fingerprint, write_poses
from harvest.types import Heatmaps, PersonBoxes, Poses3D
from pipelines.capture import Capture
from pipelines.settings import ReconstructSettings
from pipelines.stages.learnt import LEARNT, own_joints, poses_by_network, poses_of_joints, triangulator_of

if TYPE_CHECKING:
    from pipelines.stages.learnt import Network

BLOCK_FRAMES = 32
SAMPLE_FRAMES = 60  # evenly spread frames from which limb lengths and the box's side are estimated


@dataclass(frozen=True)
class Body:
    """What is the same in all frames: skeleton, limb lengths, the side of the box in metres, the maps' sharpness, and
    the network of a method that is learnt.
    """

    skeleton: Skeleton
    lengths: LimbLengths
    side_m: float
    sharpness: float
    network: Network | None = None


def skeleton_for(joints: tuple[str, ...], chosen: str | None) -> Skeleton:
    """The chosen skeleton, or the built-in one that shares most joints with the detector; what it lacks is latent."""
    if chosen is not None:
        skeleton = load_skeleton(chosen)
    else:
        known = [load_skeleton(name) for name in BUILT_IN]
        skeleton = max(known, key=lambda s: 2 * len(set(s.joints) & set(joints)) - len(s.joints))
    shown = set(skeleton.joints) & set(joints)
    if len(shown) < 2:
        raise UserError(
            f"skeleton '{skeleton.name}' shares {len(shown)} joints with the detector ({', '.join(joints[:6])}, ...); "
            "give one of the detector's joints with --skeleton FILE"
        )
    return dataclasses.replace(skeleton, latent=skeleton.latent | (set(skeleton.joints) - shown))


def measure_body(
    rig: Rig,
    store: HeatmapStore,
    boxes: PersonBoxes,
    settings: ReconstructSettings,
    network: Network | None = None,
) -> Body:
    """Skeleton, limb lengths and box side, from a sample of the frames; a network with joints of its own names the
    skeleton, unless the settings do.
    """
    name, own = settings.skeleton, own_joints(network)
    if name is None and own is not None:
        name = skeleton_for(own, None).name
    skeleton = skeleton_for(store.joints, name)
    places = np.unique(np.linspace(0, len(store) - 1, min(SAMPLE_FRAMES, len(store))).round().astype(int))
    xyz = []
    with tqdm(total=len(places), desc="measure", unit="frame") as bar:
        for chosen in np.array_split(places, -(-len(places) // BLOCK_FRAMES)):
            maps = for_skeleton(joined_maps([store.read(place, place + 1) for place in chosen]), skeleton)
            xyz.append(triangulated_peaks(rig, maps)[0])
            bar.update(len(chosen))
    joints = np.concatenate(xyz)
    centre, radius = boxes.centre_m[places], boxes.radius_m[places]
    if settings.height_m is not None:
        lengths = typical_lengths(skeleton, settings.height_m)
    else:
        lengths = estimate_limb_lengths(skeleton, joints)
    side = settings.box_side_m or box_side_m(joints, centre, radius)
    return Body(skeleton, lengths, side, store.sharpness, network)


def run_reconstruct(
    capture: Capture, settings: ReconstructSettings, heatmaps: Path, boxes_path: Path, out: Path, key: str
) -> str:
    """Write 30_poses.parquet and 30_limbs.yaml, block by block; blocks done before a stop are kept."""
    store, boxes = HeatmapStore(heatmaps), read_boxes(boxes_path)
    parts = out.with_name("30_parts.partial")
    body = measure_body(capture.rig, store, boxes, settings, triangulator_of(settings))
    _write_limbs(out.with_name("30_limbs.yaml"), body, key)
    parts.mkdir(exist_ok=True)
    blocks, by_cpu = [], 0
    with tqdm(total=len(store), desc="reconstruct", unit="frame") as bar:
        for first in range(0, len(store), BLOCK_FRAMES):
            last = min(first + BLOCK_FRAMES, len(store))
            part = parts / f"{first:08d}.parquet"
            if table_fingerprint(part) != key:
                given = store.read(first, last)
                poses, handed_over = reconstruct_block(capture, given, slice(first, last), boxes, body, settings)
                by_cpu += handed_over
                write_poses(part, poses, key)
            blocks.append(read_poses(part))
            bar.update(last - first)
    poses = join_poses(blocks)
    write_poses(out, poses, key)
    shutil.rmtree(parts)
    return (
        f"{poses.found.mean():.1%} of joints found, box side {body.side_m:.2f} m, height {body.lengths.height_m:.2f} m"
        + (f", {by_cpu} frames left to the CPU" if settings.backend == "cuda" else "")
    )


def reconstruct_block(
    capture: Capture, given: Heatmaps, part: slice, boxes: PersonBoxes, body: Body, settings: ReconstructSettings
) -> tuple[Poses3D, int]:
    """The poses of one block of frames, of the detector's maps, by the chosen method; and how many of them backend
    'cuda' left to the CPU.
    """
    times, maps = capture.times_s[part], for_skeleton(given, body.skeleton)
    if settings.method in ("ransac", "dlt"):
        return triangulate(capture.rig, maps, times, settings.method), 0
    if settings.method in LEARNT:
        assert body.network is not None
        poses = poses_by_network(body.network, capture, given, maps, part, boxes, body.side_m)
        return poses_of_joints(poses, body.skeleton.joints), 0
    joints = triangulated_peaks(capture.rig, maps)[0]
    centres = box_centres(joints, boxes.centre_m[part], boxes.radius_m[part])
    model = PictorialModel(body.skeleton, body.lengths, pictorial_settings(settings, body.sharpness))
    results = infer_block(model, capture.rig, maps, [(centre, body.side_m) for centre in centres], settings.flip_prior)
    return collect(maps, times, results), sum(result.pose.backend != settings.backend for result in results)


def pictorial_settings(settings: ReconstructSettings, sharpness: float) -> PictorialSettings:
    """The part of the settings that inference itself takes; `sharpness` is the detector's, unless they name one."""
    return PictorialSettings(
        voxels=settings.voxels,
        sharpness=settings.sharpness or sharpness,
        floor=settings.floor,
        limb_tolerance_vox=settings.limb_tolerance_vox,
        prior=settings.prior,
        tolerance=settings.tolerance,
        backend=settings.backend,
        published_demo=settings.published_demo,
    )


def joined_maps(parts: list[Heatmaps]) -> Heatmaps:
    """Maps of several stretches of frames as one."""
    frames = np.concatenate([part.frames for part in parts])
    score = np.concatenate([part.score for part in parts])
    affine = np.concatenate([part.image_from_heatmap for part in parts])
    return Heatmaps(frames, parts[0].views, parts[0].joints, score, affine)


def join_poses(blocks: list[Poses3D]) -> Poses3D:
    """Poses of consecutive blocks as one."""
    first = blocks[0]

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(block, name) for block in blocks])

    return Poses3D(
        frames=joined("frames").astype(np.int64),
        time_s=joined("time_s"),
        views=first.views,
        joints=first.joints,
        xyz_m=joined("xyz_m"),
        cov_m2=joined("cov_m2"),
        confidence=joined("confidence"),
        n_views=joined("n_views").astype(np.int64),
        flip=joined("flip"),
    )


def _write_limbs(path: Path, body: Body, key: str) -> None:
    limbs = [
        {
            "child": limb.child,
            "parent": limb.parent,
            "length_m": round(float(body.lengths.length_m[body.skeleton.index(limb.child)]), 4),
            "slack_m": round(float(body.lengths.slack_m[body.skeleton.index(limb.child)]), 4),
            "measured_in_frames": int(body.lengths.n_frames[body.skeleton.index(limb.child)]),
        }
        for limb in body.skeleton.limbs
    ]
    content = {
        "fingerprint": key,
        "skeleton": body.skeleton.name,
        "joints": list(body.skeleton.joints),
        "latent": sorted(body.skeleton.latent),
        "height_m": round(body.lengths.height_m, 3),
        "box_side_m": round(body.side_m, 3),
        "limbs": limbs,
    }
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)
    write_text_atomically(path, text)


def read_limbs(path: Path) -> tuple[Skeleton, NDArray[np.float64]]:
    """The skeleton and the limb lengths (J,) in metres of a run, from its 30_limbs.yaml."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    limbs = tuple(
        Limb(limb["child"], limb["parent"], limb["length_m"] / content["height_m"]) for limb in content["limbs"]
    )
    skeleton = Skeleton(content["skeleton"], tuple(content["joints"]), limbs, frozenset(content["latent"]))
    return skeleton, skeleton.shares * content["height_m"]
