"""Crops to annotate, and the server that asks about them."""

import io
import json
import tarfile
import threading
from contextlib import contextmanager

import cv2
import numpy as np

from harvest.annotate.desk import Desk
from harvest.annotate.pairs import draw_questions
from harvest.annotate.server import AnnotationServer
from harvest.labels import Votes
from harvest.skeleton import load_skeleton

JOINTS = load_skeleton("mpii16").joints


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write_crops(folder, samples, unknown=()):
    """A folder of crops in one shard; uv of joints (16, 2) by the sample's name."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "crops.tar", "w") as tar:
        for name, uv in samples.items():
            points = [
                None if joint in unknown else list(point) for joint, point in zip(JOINTS, uv.tolist(), strict=True)
            ]
            picture = np.random.default_rng(len(name)).integers(0, 255, (8, 8, 3)).astype(np.uint8)
            jpg = cv2.imencode(".jpg", cv2.resize(picture, (256, 256)))[1].tobytes()
            label = {"joints": {"mpii16": {"uv_px": points, "visibility": [2 if point else 0 for point in points]}}}
            add(tar, f"{name}.jpg", jpg)
            add(tar, f"{name}.json", json.dumps(label).encode())
    return folder


def four_crops(folder):
    """Four crops whose joints lie at random; the pelvis is not known, and a knee is outside."""
    rng = np.random.default_rng(0)
    uv = {f"{index:04d}": rng.uniform(20, 236, (16, 2)).round(1) for index in range(4)}
    for points in uv.values():
        points[JOINTS.index("r_knee")] = 300, 20
    return write_crops(folder, uv, unknown=("pelvis",))


def rows(votes):
    """Votes as tuples."""
    return [*zip(*(getattr(votes, key).tolist() for key in Votes.__dataclass_fields__), strict=True)]


@contextmanager
def serving(crops, store, delay_s=0.0, each=2):
    """A server that answers while the context lasts."""
    server = AnnotationServer(Desk(draw_questions(crops, "mpii16", 1, 0), store, each), delay_s=delay_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
