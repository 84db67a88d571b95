"""Tiny folders of crops and of multi-view samples, of a figure of dots, with exact labels and no assets."""

import io
import json
import tarfile

import cv2
import numpy as np
import pytest
from torch.utils.data import DataLoader

from calib.camera import Camera
from harvest.studio.figure import moving_figure
from harvest.studio.rotations import look_at

SIZE = 256
K = np.array([[290.0, 0, 127.5], [0, 290.0, 127.5], [0, 0, 1]])


def ring(views, dist=(-0.1, 0.05, 1e-3, -5e-4)):
    """Cameras whose pictures are crops, round the figure's middle."""
    cameras = []
    for view in range(views):
        angle = 2 * np.pi * view / views + 0.3
        pose = look_at(np.array([3.6 * np.cos(angle), 3.6 * np.sin(angle), 1.5]), (0.0, 0.0, 0.9))
        cameras.append(Camera(f"cam{view + 1:02d}", (SIZE, SIZE), K, np.array(dist), *pose))
    return cameras


def figures(count):
    """The MPII skeleton, and poses (T, 16, 3) far apart in time about the origin."""
    skeleton, xyz = moving_figure(20 * count)
    xyz = xyz[::20]
    return skeleton, xyz - (xyz[:, skeleton.index("pelvis"), None] * [1, 1, 0])


def picture(uv):
    """A dot of its own colour at each joint, as JPEG."""
    canvas = np.full((SIZE, SIZE, 3), 90, np.uint8)
    for joint, (u, v) in enumerate(uv):
        colour = tuple(int(c) for c in np.random.default_rng(joint).integers(0, 255, 3))
        cv2.circle(canvas, (round(u), round(v)), 7, colour, -1)
    return cv2.imencode(".jpg", canvas)[1].tobytes()


def write_shard(path, samples):
    """A tar file of samples, each a mapping from what follows the index to contents; labels are made JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index, files in enumerate(samples):
            for kind, content in files.items():
                content = json.dumps(content).encode() if kind == "json" else content
                member = tarfile.TarInfo(f"{index:08d}.{kind}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def crop_of(camera, xyz, frame):
    """One crop as `harvest train crops --run` writes them, all joints known."""
    uv = camera.project(xyz)
    names = list(moving_figure(1)[0].joints)
    known = {
        "names": names,
        "uv_px": uv.tolist(),
        "visibility": [2] * 16,
        "xyz_cam_m": camera.cam_from_world(xyz).tolist(),
    }
    return {"jpg": picture(uv), "json": {"joints": {"run": known}, "frame": frame, "camera": camera.to_dict()}}


def write_crops(folder, moments=3, views=2):
    """Crops of all views of some moments."""
    _, poses = figures(moments)
    cameras = ring(views)
    write_shard(folder / "0.tar", [crop_of(c, xyz, frame) for frame, xyz in enumerate(poses) for c in cameras])
    return folder


def views_label(cameras, xyz):
    """The label of one multi-view sample."""
    seen = [{"uv_px": camera.project(xyz).tolist(), "visibility": [2] * 16} for camera in cameras]
    sets = {"mpii16": {"xyz_m": xyz.tolist(), "views": seen}}
    return {"joints": sets, "cameras": [camera.to_dict() for camera in cameras]}


def write_views(folder, moments=3, views=3, change=lambda label: label):
    """Multi-view samples as `harvest studio views` writes them."""
    cameras, samples = ring(views), []
    for xyz in figures(moments)[1]:
        pictures = {f"{view}.jpg": picture(camera.project(xyz)) for view, camera in enumerate(cameras)}
        samples.append(pictures | {"json": change(views_label(cameras, xyz))})
    write_shard(folder / "0.tar", samples)
    return folder


@pytest.fixture
def no_workers(monkeypatch):
    """Samples are read in the test's own process, which costs no start of another."""
    monkeypatch.setattr("harvest.learn.detector.DataLoader", lambda samples, size, **_: DataLoader(samples, size))


def assert_resumes(make, folder):
    """A training that is stopped halfway goes on to the same weights; gives the one that was not, finished.

    Args:
        make: gives a training in a folder.
    """
    whole, half = make(folder / "whole"), make(folder / "half")
    whole.run()
    for batch in half.batches():
        half._learn(batch, False)
        half.step += 1
        if half.step == half.settings.steps // 2:
            break
    half.save()
    rest = make(folder / "half")
    assert rest.step == rest.settings.steps // 2
    rest.run()
    for key, value in whole.network.state_dict().items():
        np.testing.assert_array_equal(rest.network.state_dict()[key].numpy(), value.numpy())
        np.testing.assert_array_equal(rest.mean[key].numpy(), whole.mean[key].numpy())
    return whole
