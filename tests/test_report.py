"""report.html: one file, nothing fetched, its figures those of the run, and no run too poor to show."""

import base64
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from calib.camera import Camera
from calib.rig import Rig
from harvest.report import ReportContent, write_report
from harvest.report.measures import measure, quantile
from harvest.report.overlays import crop_jpeg, crop_round, evenly_spread, projected_covariance
from harvest.report.rowplot import linear_axis, log_axis
from harvest.report.viewer import MAX_FRAMES, embedded_frames
from harvest.skeleton import Limb, Skeleton, load_skeleton
from harvest.types import PersonBoxes, Poses3D, Selection

SIZE = (320, 240)
NEEDED_ELEMENTS = {"viewer", "viewer-data", "pictures", "space", "plots", "views", "times", "settings"}
VOID = {"meta", "input", "br"}


def ring_rig(n, names=None):
    """Cameras on a circle of 4 m, 1.2 m up, looking at the middle; world z up."""
    cameras = []
    for k in range(n):
        angle = 2 * np.pi * k / n
        centre = np.array([4 * np.cos(angle), 4 * np.sin(angle), 1.2])
        forward = np.array([-np.cos(angle), -np.sin(angle), 0.0])
        right = np.array([-forward[1], forward[0], 0.0]) * -1.0
        R = np.stack([right, [0.0, 0.0, -1.0], forward])
        K = np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])
        cameras.append(Camera(names[k] if names else f"cam{k}", SIZE, K, np.zeros(5), R, -R @ centre))
    return Rig(tuple(cameras))


def chain(n):
    joints = tuple(("l_", "r_", "")[k % 3] + f"joint{k}" for k in range(n))
    return Skeleton("chain", joints, tuple(Limb(joints[k], joints[k - 1], 0.1) for k in range(1, n)))


def synthetic(t=30, v=4, skeleton=None, names=None):
    """A person that sways on the spot: peaks 2 px off to the right (6 px where dropped), every fourth joint dropped."""
    rng = np.random.default_rng(1)
    skeleton, rig = skeleton or load_skeleton("mpii16"), ring_rig(v, names)
    j = len(skeleton.joints)
    still = np.zeros((j, 3))
    for k in skeleton.order:
        if skeleton.parents[k] >= 0:
            still[k] = still[skeleton.parents[k]] + 0.2 * rng.normal(size=3) / np.sqrt(3)
    xyz = still + [0, 0, 1.0] + 0.3 * np.sin(np.arange(t) / 5)[:, None, None] * [1, 0.5, 0]
    keep = np.arange(t * j).reshape(t, j) % 4 != 0
    reason = np.where(keep, "", "uncertainty above the 75 % quantile of this joint").astype(object)
    cov = np.broadcast_to(np.diag([1e-4, 1e-4, 4e-4]), (t, j, 3, 3)).copy()
    everywhere, counts = np.full((t, j), 0.8), np.full((t, j), v)
    frames, times = np.arange(t) * 2 + 10, np.arange(t) / 25
    poses = Poses3D(frames, times, rig.names, skeleton.joints, xyz, cov, everywhere, counts, np.zeros((t, v)))
    peaks = rig.project(xyz) + np.where(keep, 2.0, 6.0)[..., None] * [1, 0]
    return ReportContent(
        title="A walk",
        rig=rig,
        skeleton=skeleton,
        poses=poses,
        selection=Selection(keep, reason),
        boxes=None,
        limb_length_m=np.linalg.norm(still - still[skeleton.parents], axis=-1),
        peaks_px=peaks,
        peaks_confidence=np.full((v, t, j), 0.7),
        stage_seconds=[("heat maps", 2.0, "reused because nothing changed"), ("3D poses", 1.5, "computed")],
        notes=[],
        settings={"keep_share": 0.75},
    )


def noise(missing=()):
    """Pictures of noise, None for the views named."""

    def pictures(frames):
        rng = np.random.default_rng(0)
        for frame in frames:
            shown = {f"cam{k}": rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8) for k in range(4)}
            yield frame, {name: None if name in missing else picture for name, picture in shown.items()}

    return pictures


class Page(HTMLParser):
    """The page's elements, checked to close in the order they open."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes, self.texts = [], set(), [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        self.ids |= {value for name, value in attrs if name == "id"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


def written(tmp_path, content, pictures=None, **options):
    path = tmp_path / "report.html"
    write_report(path, content, pictures or noise(), **options)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def embedded(text):
    return json.loads(re.search(r'<script type="application/json" id="viewer-data">(.*?)</script>', text, re.S)[1])


def key_figure(text, key):
    return re.search(rf'<li data-figure="{key}"><strong>(.*?)</strong> (.*?)</li>', text)[1]


def test_the_report_is_one_file_that_fetches_nothing_and_is_sound_html(tmp_path):
    text = written(tmp_path, synthetic())
    assert "http://" not in text and "https://" not in text and " src=" not in text
    page = Page(text)
    assert page.ids >= NEEDED_ELEMENTS
    links = [value for name, value in page.attributes if name == "href"]
    assert links and all(value.startswith(("#", "data:image/jpeg;base64,")) for value in links)
    assert "{{" not in text


def test_key_figures_are_those_computed_by_hand(tmp_path):
    content = synthetic()
    text = written(tmp_path, content)
    assert key_figure(text, "frames") == "30 frames"
    assert key_figure(text, "found") == "100.0 %"
    assert key_figure(text, "kept") == "75.0 %"
    assert key_figure(text, "error-kept") == "2.00 px"
    assert key_figure(text, "error-dropped") == "6.00 px"
    assert key_figure(text, "uncertainty") == f"{1000 * (1e-4 * 1e-4 * 4e-4) ** (1 / 6):.1f} mm"
    assert key_figure(text, "limb-spread") == "0.00 mm"
    assert key_figure(text, "speed") == "20.0 frames/s"


def test_limb_spread_is_the_5_to_95_percent_range_of_the_kept_length(tmp_path):
    content = synthetic(t=101, skeleton=chain(2))
    stretch = np.linspace(0, 0.1, 101)
    xyz = content.poses.xyz_m.copy()
    xyz[:, 1] = xyz[:, 0] + [1.0, 0, 0] * (0.3 + stretch)[:, None]
    all_kept = Selection(np.ones((101, 2), bool), np.full((101, 2), "", dtype=object))
    content = replace(content, poses=replace(content.poses, xyz_m=xyz), selection=all_kept)
    assert key_figure(written(tmp_path, content), "limb-spread") == "90.0 mm"


def test_the_embedded_poses_are_those_of_the_run_in_millimetres(tmp_path):
    content = synthetic()
    content.poses.xyz_m[3, 5] = np.nan
    data = embedded(written(tmp_path, content))
    assert data["frames"] == content.poses.frames.tolist()
    assert data["xyz_mm"][3][15:18] == [None] * 3 and data["state"][3][5] == "-"
    np.testing.assert_allclose(data["xyz_mm"][7], 1000 * content.poses.xyz_m[7].ravel(), atol=0.51)
    assert data["state"][0] == "dkkk" * 4
    assert [camera["name"] for camera in data["cameras"]] == list(content.rig.names)


def test_long_runs_are_thinned_evenly_and_the_page_says_so(tmp_path):
    text = written(tmp_path, synthetic(t=1300, v=2, skeleton=chain(3)), frames_shown=1)
    data = embedded(text)
    assert len(data["frames"]) == 434 and set(np.diff(data["frames"])) == {6}
    assert "Every 3th" not in text and "1 in 3 frames is embedded here, 434 of 1300." in text
    assert all(len(embedded_frames(n)) <= MAX_FRAMES for n in range(0, 5000, 7))


def test_pyramids_open_towards_what_the_camera_looks_at(tmp_path):
    content = synthetic()
    for camera, drawn in zip(content.rig.cameras, embedded(written(tmp_path, content))["cameras"], strict=True):
        np.testing.assert_allclose(drawn["centre_m"], camera.centre_m, atol=1e-3)
        corners = camera.project(np.array(drawn["corners_m"]))
        expected = [[-0.5, -0.5], [319.5, -0.5], [319.5, 239.5], [-0.5, 239.5]]
        np.testing.assert_allclose(corners, expected, atol=2.0)


def test_names_and_notes_from_outside_are_escaped(tmp_path):
    bad = "<b>&\"'</script>"
    plain = chain(4)
    joints = (bad, *plain.joints[1:])
    limbs = tuple(Limb(joints[k], joints[k - 1], 0.1) for k in range(1, 4))
    content = synthetic(v=2, skeleton=Skeleton(bad, joints, limbs), names=[bad, "cam1"])
    reason = np.where(content.selection.keep, "", bad).astype(object)
    peaks = content.peaks_px.copy()
    peaks[0] = 1.05 * peaks[0] + 7
    outside = {"title": bad, "notes": [bad], "settings": {bad: bad}, "stage_seconds": [(bad, 1.0, bad)]}
    content = replace(content, selection=Selection(content.selection.keep, reason), peaks_px=peaks, **outside)
    content = replace(content, poses=replace(content.poses, flip=np.full((30, 2), 0.9)))
    text = written(tmp_path, content)
    assert "<b>" not in text and "&lt;b&gt;" in text and text.count("</script") == 2
    assert Page(text).ids >= NEEDED_ELEMENTS
    assert embedded(text)["joints"][0] == bad and embedded(text)["cameras"][0]["name"] == bad
    assert "{{title}}" in written(tmp_path, replace(content, title="{{title}}"))


def test_flips_zoom_warnings_and_reasons_are_told(tmp_path):
    content = synthetic()
    flip = np.zeros((30, 4))
    flip[:6, 2] = 0.9
    flip[:, 3] = np.nan
    peaks = content.peaks_px.copy()
    peaks[1] = (peaks[1] - 160) * 1.05 + 160
    content = replace(
        content, poses=replace(content.poses, flip=flip), peaks_px=peaks, notes=["camera 'cam0' has few frames"]
    )
    text = written(tmp_path, content)
    assert "exchanged by the detector: cam2 in 6 frames (20.0 %)." in text and "not weighed" in text
    assert "camera &#x27;cam1&#x27;: the video is zoomed by 1.05" in text and "1 warning<" in text
    assert "few frames" in text and "uncertainty above the 75 % quantile" in text


def test_rare_drop_reasons_are_merged(tmp_path):
    content = synthetic()
    reason = content.selection.reason.copy()
    dropped = np.flatnonzero(~content.selection.keep)
    reason.flat[dropped] = [f"reason {k % 9}" for k in range(len(dropped))]
    text = written(tmp_path, replace(content, selection=Selection(content.selection.keep, reason)))
    assert "other reasons" in text and "reason 8" not in text


def test_a_view_without_pictures_says_so_and_the_others_show_their_own(tmp_path):
    text = written(tmp_path, synthetic(), noise(missing=("cam1",)), frames_shown=3)
    assert text.count(">no picture<") == 3 and text.count("data:image/jpeg;base64,") == 9
    assert "cam1, frame 20" in text and "cam1, frame 40" in text
    text = written(tmp_path, synthetic(), lambda frames: iter(()), frames_shown=2)
    assert text.count(">no picture<") == 8


def test_a_tile_shows_the_part_of_the_picture_that_the_box_names(tmp_path):
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[100:110, 200:210] = (255, 0, 0)
    square = np.array([[10.0, 0, 199.5], [0, 10.0, 99.5]])
    tile = cv2.imdecode(np.frombuffer(crop_jpeg(picture, square), np.uint8), cv2.IMREAD_COLOR)
    assert tile.shape == (260, 260, 3) and (tile[20:-20, 20:-20, 2] > 240).all() and (tile[..., 0] < 20).all()
    content = synthetic(t=2)
    affine = np.broadcast_to(square, (2, 4, 2, 3)).copy()
    affine[:, 3] = np.nan
    boxes = PersonBoxes(content.poses.frames, content.poses.views, np.zeros((2, 3)), np.ones(2), affine)
    content = replace(content, boxes=boxes, peaks_px=None)
    text = written(tmp_path, content, lambda frames: ((f, dict.fromkeys(content.poses.views, picture)) for f in frames))
    tiles = [base64.b64decode(code) for code in re.findall(r"data:image/jpeg;base64,([^\"]+)", text)]
    assert tiles[0] == crop_jpeg(picture, square) and tiles[3] != tiles[0]
    assert text.count("2 of 2</td>") == 3 and text.count("0 of 2</td>") == 1


def test_the_overlay_lies_on_the_picture_also_in_a_turned_box(tmp_path):
    content = synthetic(t=1, v=2, skeleton=chain(1))
    uv = measure(content).uv_px[0, 0, 0]
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[round(uv[1]) - 1 : round(uv[1]) + 2, round(uv[0]) - 1 : round(uv[0]) + 2] = 255
    drawn_at = np.round(uv)
    turn = 90 * np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    box = np.column_stack([turn, uv - turn @ [0.3, 0.6]])
    boxes = PersonBoxes(
        content.poses.frames, content.rig.names, np.zeros((1, 3)), np.ones(1), np.broadcast_to(box, (1, 2, 2, 3))
    )
    text = written(tmp_path, replace(content, boxes=boxes), lambda frames: iter([(frames[0], {"cam0": picture})]))
    code = base64.b64decode(re.search(r"data:image/jpeg;base64,([^\"]+)", text)[1])
    tile = cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_GRAYSCALE)
    bright = np.argwhere(tile > 128)[:, ::-1].mean(0) + 0.5
    circle = re.search(r'<circle class="joint dropped" cx="([\d.]+)" cy="([\d.]+)" r="3">', text)
    expected = np.array([float(circle[1]), float(circle[2])])
    np.testing.assert_allclose(expected, [0.3 * 260, 0.6 * 260], atol=0.1)
    off = 260 * np.linalg.solve(turn, drawn_at - uv)
    np.testing.assert_allclose(bright, expected + off, atol=0.4)


def test_crops_hold_the_person_and_stay_in_the_picture():
    crop = crop_round(np.array([[100.0, 100], [140, 200], [np.nan, np.nan], [900, 100]]), (240, 320, 3))
    low, high = crop[:, 2], crop @ [1, 1, 1]
    assert (low <= [100, 100]).all() and (high >= [140, 200]).all() and (low >= -0.5).all() and (high <= 320).all()
    np.testing.assert_allclose(crop_round(np.full((3, 2), np.nan), (240, 320)) @ [0.5, 0.5, 1], [159.5, 119.5])


def test_projected_covariances_are_those_of_projected_samples():
    camera = ring_rig(3).cameras[1]
    point, cov = np.array([[0.2, 0.3, 1.0]]), np.diag([1e-4, 4e-4, 2e-4])[None]
    samples = np.random.default_rng(0).multivariate_normal(point[0], cov[0], 200_000)
    expected = np.cov(camera.project(samples).T)
    np.testing.assert_allclose(projected_covariance(camera, point, cov)[0], expected, rtol=0.03, atol=0.01)


def all_dropped(content):
    shape = content.selection.keep.shape
    return replace(content, selection=Selection(np.zeros(shape, bool), np.full(shape, "not found", dtype=object)))


def nothing_found(content):
    xyz, cov = np.full_like(content.poses.xyz_m, np.nan), np.full_like(content.poses.cov_m2, np.nan)
    return all_dropped(replace(content, poses=replace(content.poses, xyz_m=xyz, cov_m2=cov)))


def full_of_holes(content):
    rng = np.random.default_rng(3)
    xyz, cov, peaks = content.poses.xyz_m.copy(), content.poses.cov_m2.copy(), content.peaks_px.copy()
    xyz[rng.random(xyz.shape[:2]) < 0.4] = np.nan
    cov[rng.random(xyz.shape[:2]) < 0.4] = np.nan
    cov[0, 0], cov[0, 1] = 0.0, 1e6
    peaks[rng.random(peaks.shape[:3]) < 0.4] = np.nan
    poses = replace(content.poses, xyz_m=xyz, cov_m2=cov, time_s=np.full(len(xyz), np.nan))
    return replace(content, poses=poses, peaks_px=peaks, limb_length_m=np.full(xyz.shape[1], np.nan))


def without_extras(content):
    flip = np.full_like(content.poses.flip, np.nan)
    poses = replace(content.poses, flip=flip)
    bare = {"limb_length_m": None, "peaks_px": None, "peaks_confidence": None, "stage_seconds": [], "settings": {}}
    return replace(content, poses=poses, **bare)


HARD = {
    "all dropped": lambda: all_dropped(synthetic()),
    "nothing found": lambda: nothing_found(synthetic()),
    "holes": lambda: full_of_holes(synthetic()),
    "no extras": lambda: without_extras(synthetic()),
    "one view": lambda: synthetic(v=1),
    "one frame": lambda: synthetic(t=1),
    "one frame and view, nothing found": lambda: nothing_found(synthetic(t=1, v=1)),
    "no frames": lambda: synthetic(t=0),
    "one joint": lambda: synthetic(skeleton=chain(1)),
    "forty joints": lambda: synthetic(skeleton=chain(40)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", HARD)
def test_no_run_is_too_poor_to_show(tmp_path, case):
    text = written(tmp_path, HARD[case]())
    assert Page(text).ids >= NEEDED_ELEMENTS
    shown = re.sub(r"<script>.*?</script>|<style>.*?</style>|base64,[^\"]*", "", text, flags=re.S)
    assert not re.search(r"\b(nan|inf)\b", shown)
    embedded(text)


def test_parts_that_do_not_agree_are_refused():
    content = synthetic()
    with pytest.raises(ValueError, match=r"peaks_px must have shape \(4, 30, 16, 2\)"):
        replace(content, peaks_px=content.peaks_px[:3])
    with pytest.raises(ValueError, match="not those of the poses"):
        replace(content, skeleton=chain(16))


def test_views_follow_the_poses_when_the_rig_has_another_order():
    content = synthetic()
    shuffled = replace(content, rig=Rig(content.rig.cameras[::-1]))
    np.testing.assert_array_equal(measure(shuffled).error_px, measure(content).error_px)


def test_frames_of_the_contact_sheet_are_evenly_spread():
    assert evenly_spread(60, 3) == [10, 30, 50]
    assert evenly_spread(2, 6) == [0, 1] and evenly_spread(0, 6) == []


def test_axes_hold_their_ticks_and_place_them():
    for axis in (linear_axis(-3.2, 7.7), log_axis([0.2, 45.0]), log_axis([np.nan, 0.0]), linear_axis(0, 0)):
        values = np.array([value for value, _ in axis.ticks])
        assert 2 <= len(values) <= 10 and (np.diff(axis.place(values)) > 0).all()
        assert axis.low <= values.min() and values.max() <= axis.high
    assert quantile([np.nan, 1.0, 3.0]) == 2.0 and np.isnan(quantile([np.nan]))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium on PATH to run the page's script")
@pytest.mark.parametrize("case", [None, "nothing found", "no frames", "holes"])
def test_the_page_runs_in_a_browser_without_an_error(tmp_path, case):
    folder = tmp_path / "page"
    folder.mkdir()
    written(folder, HARD[case]() if case else synthetic())
    quiet = "--disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync"
    command = ["chromium", "--headless", "--no-sandbox", *quiet.split(), f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--virtual-time-budget=3000", "--window-size=1200,2600"]
    address = (folder / "report.html").as_uri()
    dom = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    assert 'data-viewer="ready"' in dom.stdout
    shot = tmp_path / "report.png"
    subprocess.run([*command, f"--screenshot={shot}", address], capture_output=True, timeout=120, check=True)
    picture = cv2.imread(str(shot))
    assert picture is not None and picture.std() > 5
