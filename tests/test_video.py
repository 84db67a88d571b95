"""Reading videos: frames keep their number whatever is wrong with the file."""

import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from harvest.errors import UserError
from harvest.video import SyncedVideos, VideoFile, open_views, pair_videos, probe, read_frames

FOOTAGE = Path(__file__).resolve().parents[2] / "shared/data/pose2sim_demo/single/videos"
WIDTH, HEIGHT = 64, 48


def numbered_picture(number: int) -> np.ndarray:
    """Eight bars that spell the number in binary, lowest bit left."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for bit in range(8):
        if number >> bit & 1:
            picture[:, 8 * bit : 8 * bit + 8] = 255
    return picture


def number_in(picture: np.ndarray) -> int:
    return sum(1 << bit for bit in range(8) if picture[:, 8 * bit + 2 : 8 * bit + 6].mean() > 127)


def write_video(path: Path, times_ms=None, *, n_frames=40, fps=25, codec="libx264", key_every=10, rotation=None):
    """A video whose frame i spells i; B-frames where the codec has them; at `times_ms` if given."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as container:
        stream = container.add_stream(codec, rate=fps, options={"sc_threshold": "0"} if codec == "libx264" else {})
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = key_every
        if codec in ("libx264", "mpeg4", "mpeg2video"):
            stream.codec_context.max_b_frames = 2
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(*rotation)
        for i in range(n_frames if times_ms is None else len(times_ms)):
            frame = av.VideoFrame.from_ndarray(numbered_picture(i), format="rgb24")
            frame.pts, frame.time_base = (i, Fraction(1, fps)) if times_ms is None else (times_ms[i], Fraction(1, 1000))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def packets_of(path: Path) -> list[tuple[int, int, int, bool]]:
    """(frame number, byte position, size, key frame) in file order."""
    with av.open(str(path)) as container:
        packets = [(p.pts, p.pos, p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]
    rank = {pts: i for i, pts in enumerate(sorted(p[0] for p in packets))}
    return [(rank[pts], pos, size, key) for pts, pos, size, key in packets]


def overwrite_packet(path: Path, number: int, n_bytes: int | None = None) -> None:
    """Noise in place of the packet of frame `number`, or in place of `n_bytes` within it."""
    content = bytearray(path.read_bytes())
    _, pos, size, _ = next(p for p in packets_of(path) if p[0] == number)
    start, n_bytes = (pos + 4, size - 4) if n_bytes is None else (pos + size * 3 // 5, n_bytes)
    content[start : start + n_bytes] = np.random.default_rng(13).integers(0, 256, n_bytes, np.uint8).tobytes()
    path.write_bytes(content)


def cut_inside_packet(path: Path, k: int) -> Path:
    """A copy that ends in the middle of the file's k-th packet."""
    _, pos, size, _ = packets_of(path)[k]
    cut = path.with_name(f"cut_{path.name}")
    cut.write_bytes(path.read_bytes()[: pos + size // 2])
    return cut


def assert_numbers_hold(frames: list[tuple[int, np.ndarray | None]]) -> None:
    for index, picture in frames:
        assert picture is None or number_in(picture) == index


@pytest.mark.parametrize(
    ("file_name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mov", "libx264"),
        ("a.mkv", "libx264"),
        ("a.ts", "libx264"),
        ("a.avi", "mjpeg"),
        ("b.avi", "mpeg4"),
        ("a.mpg", "mpeg2video"),
        ("a.webm", "libvpx-vp9"),
    ],
)
def test_every_frame_comes_under_its_own_number_from_any_container(tmp_path, file_name, codec):
    path = write_video(tmp_path / file_name, codec=codec)
    file = probe(path)
    assert (file.width_px, file.height_px, file.n_frames, file.problems) == (WIDTH, HEIGHT, 40, ())
    assert file.fps == pytest.approx(25) and not file.variable_rate
    np.testing.assert_allclose(file.times_s, np.arange(40) / 25, atol=1e-3)
    frames = list(read_frames(path, range(40)))
    assert [number_in(picture) for _, picture in frames] == list(range(40))
    late = list(read_frames(path, [31, 33, 38]))  # far enough for a seek
    assert [i for i, _ in late] == [31, 33, 38]
    assert all(np.array_equal(picture, frames[i][1]) for i, picture in late)


def test_frames_are_upright_as_a_player_shows_them(tmp_path):
    plain = next(read_frames(write_video(tmp_path / "plain.mp4", n_frames=6), [5]))[1]
    for degrees, turns in ((90, 1), (-90, -1), (180, 2)):
        path = write_video(tmp_path / f"turned{degrees}.mp4", n_frames=6, rotation=(degrees,))
        picture = next(read_frames(path, [5]))[1]
        np.testing.assert_array_equal(picture, np.rot90(plain, turns))
        assert (probe(path).width_px, probe(path).height_px) == (picture.shape[1], picture.shape[0])
    mirrored = write_video(tmp_path / "mirrored.mp4", n_frames=6, rotation=(0, True))
    np.testing.assert_array_equal(next(read_frames(mirrored, [5]))[1], plain[:, ::-1])


def test_a_size_asked_for_is_that_of_the_upright_picture_and_keeps_edges_on_edges(tmp_path):
    path = write_video(tmp_path / "turned.mp4", n_frames=20, rotation=(90,))
    small = next(read_frames(path, [5], size_px=(24, 20)))[1]
    full = next(read_frames(path, [5]))[1]
    assert small.shape == (20, 24, 3)
    means = full.repeat(5, axis=0).reshape(20, 16, 24, 2, 3).mean(axis=(1, 3))  # 3.2 rows to one
    assert np.abs(small - means).max() < 6


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize("last_packet", range(52, 57))  # every place in a run of B-frames
def test_a_truncated_file_gives_none_for_its_end_and_never_a_shifted_frame(tmp_path, suffix, last_packet):
    path = cut_inside_packet(write_video(tmp_path / f"whole{suffix}", n_frames=100), last_packet)
    file = probe(path)
    frames = list(read_frames(path, range(100)))
    assert [i for i, _ in frames] == list(range(100))
    assert_numbers_hold(frames)
    assert last_packet - 3 <= file.n_frames <= last_packet + 1
    assert all(picture is None for i, picture in frames if i >= file.n_frames)
    assert sum(picture is not None for _, picture in frames) >= file.n_frames - 3
    if suffix != ".ts":  # a transport stream does not say how long it should be
        assert any("cut short" in problem for problem in file.problems)


def test_a_corrupt_packet_costs_its_group_of_frames_and_shifts_nothing(tmp_path, caplog):
    path = write_video(tmp_path / "a.mp4")
    sound = list(read_frames(path, range(40)))
    damaged = next(n for n, _, _, key in packets_of(path) if 10 < n and not key)
    overwrite_packet(path, damaged)
    frames = list(read_frames(path, range(40)))
    assert probe(path).n_frames == 40 and [i for i, _ in frames] == list(range(40))
    assert frames[damaged][1] is None
    for (index, picture), (_, truth) in zip(frames, sound, strict=True):
        assert picture is None or np.array_equal(picture, truth), f"frame {index} is painted over"
        assert picture is not None or 10 <= index < 20
    assert "damaged" in caplog.text and "a.mp4" in caplog.text


def test_damage_that_a_decoder_would_conceal_is_not_passed_on(tmp_path):
    path = write_video(tmp_path / "b.avi", codec="mpeg4")
    sound = dict(read_frames(path, range(40)))
    overwrite_packet(path, 15, n_bytes=6)
    frames = dict(read_frames(path, range(40)))
    assert frames[15] is None
    assert all(picture is None or np.array_equal(picture, sound[i]) for i, picture in frames.items())


def test_a_corrupt_picture_of_a_video_without_prediction_costs_only_itself(tmp_path):
    path = write_video(tmp_path / "a.avi", codec="mjpeg")
    overwrite_packet(path, 17)
    frames = list(read_frames(path, range(0, 40)))
    assert [i for i, picture in frames if picture is None] == [17]
    assert_numbers_hold(frames)


def test_the_damage_is_not_written_to_stderr_by_the_decoder(tmp_path, capfd):
    path = write_video(tmp_path / "a.mp4")
    capfd.readouterr()
    overwrite_packet(path, 12)
    list(read_frames(path, range(40)))
    assert capfd.readouterr().err == ""


def test_a_gap_in_time_makes_the_rate_variable_and_frames_keep_their_rank(tmp_path):
    times_ms = [40 * i for i in range(40) if i not in (11, 12, 30)]
    path = write_video(tmp_path / "gap.mkv", times_ms)
    file = probe(path)
    assert file.variable_rate and any("variable frame rate" in problem for problem in file.problems)
    np.testing.assert_allclose(file.times_s, np.array(times_ms) / 1000, atol=1e-3)
    frames = list(read_frames(path, range(37)))
    assert [number_in(picture) for _, picture in frames] == list(range(37))


def test_clock_rounding_alone_does_not_make_the_rate_variable(tmp_path):
    file = probe(write_video(tmp_path / "fast.mkv", fps=240))  # matroska counts whole milliseconds
    assert not file.variable_rate and file.fps == pytest.approx(240, rel=0.01)


def test_files_that_hold_no_usable_video_are_refused_in_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("these are not pictures")
    (tmp_path / "empty.mp4").touch()
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 44100
        container.mux([*stream.encode(sound), *stream.encode()])
    with av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "empty_moov+frag_keyframe"}) as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = WIDTH, HEIGHT
        container.mux([*stream.encode(av.VideoFrame(WIDTH, HEIGHT, "yuv420p")), *stream.encode()])
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "no_frames.mp4").write_bytes(content[: content.index(b"moof") - 4])
    with av.open(str(tmp_path / "raw.h264"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.mux([*stream.encode(av.VideoFrame(WIDTH, HEIGHT, "yuv420p")), *stream.encode()])
    for name, reason in (
        ("missing.mp4", "no such video file"),
        ("text.mp4", "cannot be read as a video"),
        ("empty.mp4", "cannot be read as a video"),
        ("sound.mp4", "no video stream"),
        ("no_frames.mp4", "no video frame"),
        ("raw.h264", "no usable presentation times"),
        (".", "no such video file"),
    ):
        with pytest.raises(UserError, match=reason) as caught:
            probe(tmp_path / name)
        assert "\n" not in str(caught.value) and str(tmp_path / name) in str(caught.value)


def test_avi_that_gives_reordered_frames_wrong_times_is_refused(tmp_path):
    with pytest.raises(UserError, match="no usable presentation times"):
        probe(write_video(tmp_path / "a.avi", codec="libx264"))


def test_indices_that_do_not_increase_are_refused_before_reading(tmp_path):
    path = write_video(tmp_path / "a.mp4", n_frames=5)
    for indices in ([3, 2], [1, 1], [-1, 0]):
        with pytest.raises(ValueError, match="increase"):
            read_frames(path, indices)
    assert list(read_frames(path, [])) == []


def numbers_by_step(views: SyncedVideos) -> list[dict[str, int | None]]:
    return [
        {name: None if p is None else number_in(p) for name, p in pictures.items()}
        for _, pictures in views.frames(range(views.n_frames))
    ]


def test_views_of_unequal_length_are_cut_to_the_shortest_with_a_notice(tmp_path):
    paths = {f"cam{n}": write_video(tmp_path / f"cam{n}.mp4", n_frames=n) for n in (30, 27)}
    views = open_views(paths)
    assert (views.names, views.n_frames, views.fps) == (("cam30", "cam27"), 27, pytest.approx(25))
    assert views.problems == ("unequal lengths: cam30 30, cam27 27 frames; the first 27 are used",)
    assert numbers_by_step(views) == [{"cam30": i, "cam27": i} for i in range(27)]
    np.testing.assert_allclose(views.times_s, np.arange(27) / 25)
    with pytest.raises(IndexError, match="27"):
        views.frames([27])


def test_views_of_different_frame_rates_are_refused_with_what_to_do(tmp_path):
    paths = {f"cam{fps}": write_video(tmp_path / f"cam{fps}.mp4", fps=fps) for fps in (25, 30)}
    with pytest.raises(UserError, match=r"cam25 25.*cam30 30.*resample"):
        open_views(paths)


@pytest.mark.parametrize("reference", ["steady", "gappy"])
def test_a_view_of_variable_rate_is_paired_by_time(tmp_path, reference):
    kept = [i for i in range(40) if i not in (11, 12, 30)]
    jitter_ms = np.random.default_rng(1).integers(-8, 9, 40)
    jitter_ms[0] = 0
    paths = {
        "steady": write_video(tmp_path / "steady.mp4"),
        "gappy": write_video(tmp_path / "gappy.mkv", [int(40 * i + jitter_ms[i]) for i in kept]),
    }
    views = open_views({reference: paths[reference], **paths})
    steps = numbers_by_step(views)
    if reference == "steady":
        assert steps == [{"steady": i, "gappy": kept.index(i) if i in kept else None} for i in range(40)]
        assert "gappy: no frame near enough in time at 3 of 40 time steps" in views.problems
    else:
        assert steps == [{"gappy": n, "steady": i} for n, i in enumerate(kept)]


def test_a_lone_frame_half_an_interval_or_more_away_is_no_match(tmp_path):
    kept = {"a": [i for i in range(40) if i != 10], "b": [i for i in range(40) if i not in (11, 12)]}
    paths = {name: write_video(tmp_path / f"{name}.mkv", [40 * i for i in kept[name]]) for name in kept}
    steps = numbers_by_step(open_views(paths))
    assert steps == [{"a": n, "b": kept["b"].index(i) if i in kept["b"] else None} for n, i in enumerate(kept["a"])]


def test_a_damaged_view_leaves_the_other_views_of_the_step_whole(tmp_path):
    paths = {name: write_video(tmp_path / f"{name}.mp4") for name in ("a", "b")}
    overwrite_packet(paths["b"], 20)
    steps = numbers_by_step(open_views(paths))
    assert [step["a"] for step in steps] == list(range(40))
    assert [step["b"] for step in steps] == [i if not 18 <= i < 30 else steps[i]["b"] for i in range(40)]
    assert steps[20]["b"] is None


def test_a_consumer_that_stops_early_leaves_no_thread_behind(tmp_path):
    views = open_views({name: write_video(tmp_path / f"{name}.mp4", n_frames=200) for name in ("a", "b", "c")})
    before = threading.active_count()
    for t, _ in views.frames(range(200)):
        if t == 3:
            break
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_cameras_find_their_videos_by_name(tmp_path, caplog):
    for name in ("cam01.mp4", "CAM-02.MOV", "GX010044.mp4", "spare.avi", "notes.txt"):
        (tmp_path / name).touch()
    pairs, unused = pair_videos(["cam_01", "cam 02", "south"], tmp_path, {"south": "GX010044.mp4", "cam_01": None})
    assert {name: path.name for name, path in pairs.items()} == {
        "cam_01": "cam01.mp4",
        "cam 02": "CAM-02.MOV",
        "south": "GX010044.mp4",
    }
    assert [path.name for path in unused] == ["spare.avi"] and "spare.avi" in caplog.text


@pytest.mark.parametrize(
    ("names", "files", "explicit", "message"),
    [
        (["north"], ["cam01.mp4", "cam02.mp4"], {}, "camera north: no video.*cam01.mp4, cam02.mp4.*rename"),
        (["cam01"], [], {}, "camera cam01: no video.*holds no video"),
        (["cam01"], ["cam_01.mp4", "cam-01.avi"], {}, "camera cam01: 2 videos.*cam-01.avi, cam_01.mp4"),
        (["cam01"], ["cam01.mp4"], {"cam01": "gone.mp4"}, "camera cam01: its video gone.mp4 is not in.*cam01.mp4"),
        (["a", "b"], ["a.mp4"], {"b": "a.mp4"}, "cameras a and b both take the video a.mp4"),
    ],
)
def test_a_camera_without_its_own_video_is_an_error_that_says_what_is_there(tmp_path, names, files, explicit, message):
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=message) as caught:
        pair_videos(names, tmp_path, explicit)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_directory_of_videos_is_named(tmp_path):
    with pytest.raises(UserError, match="no such directory"):
        pair_videos(["cam01"], tmp_path / "nowhere", {})


@pytest.mark.skipif(not FOOTAGE.is_dir(), reason="the demo footage of four cameras is not beside the repository")
def test_real_footage_reads_as_a_plain_decode_does():
    pairs, unused = pair_videos(["cam_01", "cam_02", "cam_03", "cam_04"], FOOTAGE, {})
    views = open_views(pairs)
    assert (views.n_frames, views.fps, views.problems, unused) == (100, pytest.approx(60), (), ())
    truth: dict[str, list[np.ndarray]] = {}
    for name, file in views.files.items():
        assert isinstance(file, VideoFile) and file.n_frames == 100
        with av.open(str(file.path)) as container:
            decoded = enumerate(container.decode(video=0))
            truth[name] = [frame.to_ndarray(format="rgb24") for i, frame in decoded if i % 7 == 0]
        assert truth[name][0].shape == (file.height_px, file.width_px, 3)
    for t, pictures in views.frames(range(0, 100, 7)):
        for name, picture in pictures.items():
            np.testing.assert_array_equal(picture, truth[name][t // 7])
    for index, picture in read_frames(pairs["cam_01"], range(56, 100, 7)):
        np.testing.assert_array_equal(picture, truth["cam_01"][index // 7])
