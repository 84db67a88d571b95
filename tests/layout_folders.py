"""Tiny folders in published layouts of multi-view footage, drawn with exact truth: coloured spots at two joints."""

import dataclasses
import json

import cv2
import numpy as np

from calib.rig import Rig
from calib.triangulate import triangulate_dlt
from harvest.learn.layouts.panoptic import POSES
from harvest.skeleton import load_skeleton
from harvest.studio.figure import ring_rig

CMU, H36M_JOINTS = load_skeleton("cmu19").joints, load_skeleton("h36m17").joints
PANOPTIC_FROM_WORLD = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # -y is up there
HEIGHTS = {"ankle": 0.1, "knee": 0.5, "hip": 0.95, "wrist": 0.8, "elbow": 1.1, "shoulder": 1.45}
FRAMES = (6, 12, 18)


class Spots:
    """A detector whose first joint is the red spot and whose second the green one; it never finds the others."""

    fingerprint, input_px, heatmap_px = "spots", 256, 64
    crop_from_heatmap = np.array([[4, 0, 1.5], [0, 4, 1.5]])

    def __init__(self, *joints):
        self.joints = joints

    def __call__(self, crops):
        cells = crops.reshape(len(crops), 64, 4, 64, 4, 3).mean(axis=(2, 4)) / 255
        maps = np.zeros((len(crops), len(self.joints), 64, 64), np.float32)
        maps[:, :2] = cells[..., :2].transpose(0, 3, 1, 2)
        return maps


def person(joints, at=(0.0, 0.0), seed=0):
    """Joints (J, 3) of somebody who stands at a place on the floor: sides half a metre apart, the rest between."""
    rng = np.random.default_rng(seed)
    found = np.zeros((len(joints), 3))
    for index, joint in enumerate(joints):
        side = {"l_": 0.25, "r_": -0.25}.get(joint[:2], 0.0)
        found[index] = [at[0] + side, at[1], HEIGHTS.get(joint[2:], 1.6)] + rng.uniform(-0.04, 0.04, 3)
    return found


def picture(project, people, size_px):
    """Black, with a red spot at the first joint of each person (2, 3) and a green one at the second."""
    out = np.zeros((size_px[1], size_px[0], 3), np.uint8)
    for xyz in people:
        for channel, (u, v) in enumerate(np.nan_to_num(project(xyz), nan=-99)):
            spot = np.zeros(out.shape[:2], np.uint8)
            cv2.circle(spot, (round(16 * u), round(16 * v)), 16 * 8, 255, -1, shift=4)
            out[..., channel] |= spot
    return out


def save(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])


def places(item, xyz_m, cameras):
    """(J, 3) where the middles of the spots near the joints' projections meet, by cameras that the test knows."""
    uv = np.full((len(cameras), len(xyz_m), 2), np.nan)
    for view, camera in enumerate(cameras):
        affine = np.vstack([item.image_from_heatmap[view], [0, 0, 1]])
        for joint, pixel in enumerate(camera.project(xyz_m)):
            x, y = (np.linalg.inv(affine) @ [*pixel, 1])[:2]
            rows, columns = np.ogrid[:64, :64]
            heat = item.score[view, joint] * (np.hypot(columns - x, rows - y) < 6)
            assert heat.max() > 0.6, (view, joint)
            cell = np.array([(heat * columns).sum(), (heat * rows).sum()]) / heat.sum()
            uv[view, joint] = affine[:2] @ [*cell, 1]
    return triangulate_dlt(Rig(tuple(cameras)), uv, np.isfinite(uv[..., 0]))


# Panoptic


def panoptic_rig():
    """Cameras in metres, z up: 00_03 is rolled by a quarter turn, and 00_00 looks away."""
    cameras = list(ring_rig(5).cameras)
    turns = {3: [[0, -1, 0], [1, 0, 0], [0, 0, 1]], 0: [[-1, 0, 0], [0, 1, 0], [0, 0, -1]]}
    for view, turn in turns.items():
        camera = cameras[view]
        R, t = np.array(turn) @ camera.R_cam_from_world, np.array(turn) @ camera.t_cam_from_world_m
        cameras[view] = dataclasses.replace(camera, R_cam_from_world=R, t_cam_from_world_m=t)
    return Rig(tuple(dataclasses.replace(camera, name=f"00_{view:02d}") for view, camera in enumerate(cameras)))


def write_calibration(path, rig, kind="hd"):
    entries = [
        {
            "name": camera.name,
            "type": kind,
            "resolution": list(camera.size_px),
            "K": camera.K.tolist(),
            "distCoef": [*camera.dist_opencv.tolist(), 0.0],
            "R": (camera.R_cam_from_world @ PANOPTIC_FROM_WORLD.T).tolist(),
            "t": (100 * camera.t_cam_from_world_m[:, None]).tolist(),
        }
        for camera in rig.cameras
    ]
    entries.append(entries[0] | {"name": "01_01", "type": "vga"})
    path.write_text(json.dumps({"calibDataSource": "made", "cameras": entries}))


def write_scene(path, people, sure=None):
    """Joints (P, 19, 3) in metres, z up, as the toolbox gives them; `sure` their confidences (P, 19)."""
    sure = np.full((len(people), 19), 0.5) if sure is None else sure
    values = [np.column_stack([100 * xyz @ PANOPTIC_FROM_WORLD.T, c]) for xyz, c in zip(people, sure, strict=True)]
    bodies = [{"id": number, "joints19": value.ravel().tolist()} for number, value in enumerate(values)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"version": 0.7, "fpsType": "hd_29_97", "bodies": bodies}))


def scene_path(folder, frame):
    return folder / POSES / f"body3DScene_{frame:08d}.json"


def picture_path(folder, camera, frame):
    return folder / "hdImgs" / camera / f"{camera}_{frame:08d}.jpg"


def people_at(frame):
    """Two people who walk, (2, 19, 3)."""
    way = 0.02 * frame
    return np.stack([person(CMU, (way - 0.6, 0.3), seed=1), person(CMU, (0.7, way - 0.5), seed=2)])


SEEN = [CMU.index("l_wrist"), CMU.index("nose")]
PEOPLE_SPOTS = Spots("l_wrist", "nose")


def write_panoptic(folder, frames=FRAMES, views=(0, 1, 3, 4)):
    """A sequence of two people, filmed by some of its cameras."""
    rig = panoptic_rig()
    folder.mkdir(parents=True, exist_ok=True)
    write_calibration(folder / f"calibration_{folder.name}.json", rig)
    for frame in frames:
        write_scene(scene_path(folder, frame), people_at(frame))
        for camera in (rig.cameras[view] for view in views):
            image = picture(camera.project, people_at(frame)[:, SEEN], camera.size_px)
            save(picture_path(folder, camera.name, frame), image)
    return folder


# Human3.6M

CAMERA_NAMES = ("54138969", "55011271", "58860488", "60457274")
LENS = {"k": (-0.2, 0.24, -0.003), "p": (-0.02, 0.03)}  # tangential parts that can be seen
H36M_SPOTS = Spots("l_wrist", "r_ankle")
H36M_SEEN = [H36M_JOINTS.index(joint) for joint in H36M_SPOTS.joints]


def bent(x, y, k, p):
    """Normalised coordinates behind a lens of Human3.6M, by the data set's own formula."""
    square = x**2 + y**2
    straight = 1 + k[0] * square + k[1] * square**2 + k[2] * square**3 + p[0] * y + p[1] * x
    return x * straight + p[1] * square, y * straight + p[0] * square


def h36m_pose(view):
    camera = ring_rig(4, radius_m=5.0).cameras[view]
    return camera.R_cam_from_world, camera.t_cam_from_world_m


def h36m_project(view):
    def project(xyz):
        R, t = h36m_pose(view)
        x, y, z = (xyz @ R.T + t).T
        u, v = bent(x / z, y / z, **LENS)
        return np.column_stack([1145 * u + 512, 1143 * v + 515])

    return project


def h36m_person(frame):
    return person(H36M_JOINTS, (0.02 * frame - 0.3, 0.2), seed=3)


def write_human36m(folder, split="train", frames=(1, 6, 11), subject="S1", scale=1.0):
    """A sequence of one subject, as preprocess_h36m.py leaves it; scale: of the joints in their camera's frame."""
    k, p = LENS["k"], LENS["p"]
    matrix = [[1145.0, 0, 512.0], [0, 1143.0, 515.0], [0, 0, 1]]
    intrinsic = {"calibration_matrix": matrix, "distortion": [k[0], k[1], *p, k[2]]}
    poses = {name: h36m_pose(view) for view, name in enumerate(CAMERA_NAMES)}
    extrinsic = {name: {"R": R.tolist(), "t": (1000 * t[:, None]).tolist()} for name, (R, t) in poses.items()}
    folder.mkdir(parents=True, exist_ok=True)
    cameras = {"intrinsics": dict.fromkeys(CAMERA_NAMES, intrinsic), "extrinsics": {subject: extrinsic}}
    (folder / "camera-parameters.json").write_text(json.dumps(cameras))
    names, joints = [], []
    for view, camera in enumerate(CAMERA_NAMES):  # one camera after the other, as the script does
        for frame in frames:
            sequence = f"{subject}_Walking_1.{camera}"
            names.append(f"{subject}/{sequence}/{sequence}_{frame:06d}.jpg")
            xyz = h36m_person(frame)
            R, t = h36m_pose(view)
            joints.append(np.column_stack([scale * (xyz @ R.T + t), np.ones(17)]))
            size = (1000, 1000 if view == 2 else 1002)  # the second camera's have 2 rows more, as some do
            save(folder / "images" / names[-1], picture(h36m_project(view), [xyz[H36M_SEEN]], size))
    path = folder / "annotation_body3d" / "fps10" / f"h36m_{split}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, imgname=np.array(names), S=np.array(joints))
    return folder


def rewrite_cameras(given, path):
    """camera-parameters.json of the sample's cameras, which are stored turned about and with their centres."""
    intrinsics, extrinsics = {}, {}
    for camera in json.loads(given.read_text())["cameras"]:
        k, p = camera["k1k2k3"], camera["p1p2"]
        matrix = [[camera["fx"], 0, camera["cx"]], [0, camera["fy"], camera["cy"]], [0, 0, 1]]
        intrinsics[camera["id"]] = {"calibration_matrix": matrix, "distortion": [k[0], k[1], *p, k[2]]}
        R = np.array(camera["R_as_stored"]).T
        t = -1000 * R @ np.array(camera["T_as_stored_m"])[:, None]
        extrinsics.setdefault(camera["subject"], {})[camera["id"]] = {"R": R.tolist(), "t": t.tolist()}
    path.write_text(json.dumps({"intrinsics": intrinsics, "extrinsics": extrinsics}))
