import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import GOLDEN, golden_value
from safetensors.torch import save_file

from harvest.detect2d.hourglass import StackedHourglass
from harvest.detect2d.hourglass_detector import HourglassDetector
from harvest.detect2d.hourglass_files import MPII_JOINTS, build_hourglass, load_hourglass, save_hourglass
from harvest.detect2d.own_hourglass import PEAK
from harvest.detect2d.people import PEOPLE_MAPS
from harvest.detect2d.weights import DETECTOR, PEOPLE, shipped
from harvest.errors import UserError
from harvest.skeleton import load_skeleton

needs_golden = pytest.mark.skipif(
    not (GOLDEN / "hourglass_princeton.json").is_file(),
    reason="the published networks' golden numbers are not beside this checkout (../shared/golden)",
)
LAYOUTS = ("princeton", "bearpaw", "harvest")


def shapes_of(network: StackedHourglass) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in network.state_dict().items()}


def filled(network: StackedHourglass) -> StackedHourglass:
    network.load_state_dict({key: golden_value(key, tuple(shape)) for key, shape in shapes_of(network).items()})
    return network.eval()


def small(layout: str, stacks: int = 2, width: int = 8, blocks: int = 1) -> StackedHourglass:
    return filled(build_hourglass(layout, stacks, width, MPII_JOINTS, blocks))


def crops_of(seed: int, count: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 256, 256, 3), dtype=np.uint8)


def error_line(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_hourglass(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and ";" in message
    return message


def assert_golden(layout: str, width: int, images: np.ndarray, tmp_path: Path, prefix: str) -> None:
    shapes = json.loads((GOLDEN / f"hourglass_{layout}.json").read_text())["state_dict"]
    state = {prefix + key: golden_value(key, tuple(shape)) for key, shape in shapes.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "published.pth")
    network = load_hourglass(tmp_path / "published.pth")
    assert (network.layout, network.stacks, network.width, network.blocks) == (layout, 2, width, 1)
    assert network.joints == MPII_JOINTS and not network.training
    with torch.inference_mode():
        output = network(torch.from_numpy(images)).numpy()
    published = np.load(GOLDEN / f"hourglass_{layout}.npz")["output"]
    assert output.shape == published.shape == (1, 2, 16, 32, 32)
    assert abs(output - published).max() < 1e-4


@needs_golden
def test_princeton_weights_give_the_published_numbers(tmp_path):
    images = np.random.default_rng(7).random((1, 128, 128, 3), dtype=np.float32).transpose(0, 3, 1, 2)
    assert_golden("princeton", 64, images, tmp_path, "model.module.")


@needs_golden
def test_bearpaw_weights_give_the_published_numbers(tmp_path):
    images = np.random.default_rng(7).random((1, 3, 128, 128), dtype=np.float32)
    assert_golden("bearpaw", 256, images, tmp_path, "module.")


@needs_golden
@pytest.mark.parametrize(
    ("layout", "part", "stacks", "width"),
    [
        ("princeton", "state_dict", 2, 64),
        ("princeton", "state_dict_nstack8_inp256", 8, 256),
        ("bearpaw", "state_dict", 2, 256),
    ],
)
def test_names_and_shapes_are_exactly_the_published_ones(layout, part, stacks, width):
    with torch.device("meta"):
        network = build_hourglass(layout, stacks, width)
    assert shapes_of(network) == json.loads((GOLDEN / f"hourglass_{layout}.json").read_text())[part]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module."])
def test_a_prefix_before_every_name_is_stripped(layout, prefix, tmp_path):
    network = small(layout, stacks=1)
    path = tmp_path / "weights.tar"
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save(state, path, _use_new_zipfile_serialization=False)  # the format of the years these were published in
    loaded = load_hourglass(path).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("layout", "stacks", "blocks"), [("princeton", 3, 1), ("bearpaw", 1, 1), ("bearpaw", 2, 3), ("harvest", 2, 2)]
)
def test_a_saved_network_loads_as_it_was_with_its_joint_names(layout, stacks, blocks, tmp_path):
    network = filled(build_hourglass(layout, stacks, 10, ("nose", "l_eye", "r_eye"), blocks))
    if layout == "harvest":  # whose convolutions are kept in float16
        network = network.half().float()
    path = tmp_path / "weights.safetensors"
    save_hourglass(network, path)
    loaded = load_hourglass(path)
    assert (loaded.layout, loaded.stacks, loaded.width, loaded.blocks) == (layout, stacks, 10, blocks)
    assert loaded.joints == ("nose", "l_eye", "r_eye")
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]
    save_hourglass(network, path, joints=("tip", "a", "b"))
    assert load_hourglass(path).joints == ("tip", "a", "b")


def test_weights_older_than_batch_counters_load(tmp_path):
    state = {key: value for key, value in small("bearpaw").state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "old.pth")
    assert load_hourglass(tmp_path / "old.pth").stacks == 2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_weights_load_as_float32(layout, tmp_path):
    torch.save(small(layout).half().state_dict(), tmp_path / "half.pt")
    assert {value.dtype for value in load_hourglass(tmp_path / "half.pt").parameters()} == {torch.float32}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_unknown_and_misshapen_parameters_are_told_in_one_line(layout, tmp_path):
    state = small(layout).state_dict()
    first = min(state)
    state["extra.weight"] = torch.zeros(1)
    state[max(key for key in state if key.endswith("bias"))] = torch.zeros(3)
    del state[first]
    torch.save({"state_dict": state}, tmp_path / "odd.pth")
    message = error_line(tmp_path / "odd.pth")
    assert f"1 missing ({first!r})" in message and "1 unknown ('extra.weight')" in message and "1 misshapen" in message
    assert f"{layout} hourglass of 2 stacks, 1 blocks, width 8" in message


def test_a_network_of_another_kind_is_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    assert "'conv1.weight'" in error_line(tmp_path / "resnet.pth")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    assert "'weight'" in error_line(tmp_path / "other.safetensors")
    torch.save({}, tmp_path / "empty.pth")
    error_line(tmp_path / "empty.pth")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_hourglass_without_its_heat_maps_is_refused(layout, tmp_path):
    state = small(layout, stacks=1).state_dict()
    (score,) = (key for key in state if key in ("outs.0.conv.weight", "score.0.weight"))
    for odd in ({score: torch.zeros(16)}, {}):
        torch.save({key: value for key, value in state.items() if key != score} | odd, tmp_path / "headless.pth")
        error_line(tmp_path / "headless.pth")


def test_files_that_are_no_weights_are_refused(tmp_path):
    assert "no such file" in error_line(tmp_path / "absent.pth")
    for name, content in [("a.txt", b"x"), ("b.pth", b"not weights"), ("c.safetensors", b"x" * 99), ("d.tar", b"")]:
        (tmp_path / name).write_bytes(content)
        error_line(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "numbers.pt")
    for name in ("list.pt", "numbers.pt"):
        assert "no state dict" in error_line(tmp_path / name)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    torch.save(small("princeton"), tmp_path / "whole.pth")
    assert "not unpickled for safety" in error_line(tmp_path / "whole.pth")


def test_weights_without_names_for_their_heat_maps_are_refused(tmp_path):
    network = build_hourglass("bearpaw", 1, 8, [f"joint{n}" for n in range(17)])
    torch.save(network.state_dict(), tmp_path / "seventeen.pth")
    assert "17 heat maps" in error_line(tmp_path / "seventeen.pth")
    save_file(network.state_dict(), tmp_path / "names.safetensors", metadata={"joints": "not json"})
    assert "JSONDecodeError" in error_line(tmp_path / "names.safetensors")


@pytest.mark.parametrize(
    "sizes",
    [
        ("princetown", 2, 8),
        ("bearpaw", 0, 8),
        ("bearpaw", 2, 7),
        ("bearpaw", 2, 8, ()),
        ("princeton", 2, 8, MPII_JOINTS, 2),
        ("bearpaw", 2, 8, MPII_JOINTS, 0),
    ],
)
def test_sizes_that_no_network_has_are_refused(sizes):
    with pytest.raises(UserError):
        build_hourglass(*sizes)


def test_saving_needs_a_safetensors_name_and_one_name_for_each_heat_map(tmp_path):
    network = small("princeton", stacks=1)
    for path, joints in [("a.pth", None), ("absent/a.safetensors", None), ("a.safetensors", ("nose",))]:
        with pytest.raises(UserError, match="give"):
            save_hourglass(network, tmp_path / path, joints)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("layout", "mean_rgb"), [("princeton", 0), ("bearpaw", (0.4404, 0.4440, 0.4327))])
def test_heat_maps_are_the_last_stack_of_the_normalised_crop_without_negatives(layout, mean_rgb, tmp_path):
    save_hourglass(small(layout), tmp_path / "weights.safetensors")
    detector = HourglassDetector.from_file(tmp_path / "weights.safetensors")
    crops = crops_of(3, count=2)
    crops.flags.writeable = False
    score = detector(crops)
    images = ((crops / 255 - mean_rgb).transpose(0, 3, 1, 2)).astype(np.float32)
    with torch.inference_mode():
        raw = detector.network(torch.from_numpy(images))[:, 1].numpy()
    assert score.dtype == np.float32 and score.shape == (2, 16, 64, 64)
    assert raw.min() < 0
    np.testing.assert_allclose(score, raw.clip(min=0), atol=1e-4)
    assert detector.joints == MPII_JOINTS and (detector.input_px, detector.heatmap_px) == (256, 64)
    assert detector.fingerprint == hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    assert detector(crops[:0]).shape == (0, 16, 64, 64)


def test_a_cell_lies_at_the_centre_of_its_four_by_four_pixels():
    affine = HourglassDetector(small("princeton", stacks=1), "fresh").crop_from_heatmap
    assert affine.dtype == np.float64
    for x, y in [(0, 0), (63, 10), (-0.5, 63.5)]:
        assert (affine @ [x, y, 1]).tolist() == [(x + 0.5) * 4 - 0.5, (y + 0.5) * 4 - 0.5]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flip_test_averages_with_the_mirrored_crop_and_its_joints_exchanged(layout):
    network = small(layout, stacks=1)
    crops = crops_of(5)
    mirrored_crops = np.ascontiguousarray(crops[:, :, ::-1])
    exchanged = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10]
    mean = np.array(network.mean_rgb, np.float32)
    with torch.inference_mode():
        straight, mirrored = (
            network(torch.from_numpy((c / np.float32(255) - mean).transpose(0, 3, 1, 2)))[:, -1].numpy()
            for c in (crops, mirrored_crops)
        )
    by_hand = network.maps(torch.from_numpy((straight + mirrored[..., ::-1][:, exchanged]) / 2)).numpy()
    detector = HourglassDetector(network, "fresh", flip_test=True)
    np.testing.assert_allclose(detector(crops), by_hand, atol=1e-4)
    np.testing.assert_allclose(detector(crops[:, :, ::-1])[..., ::-1][:, exchanged], by_hand, atol=1e-4)


def test_flip_test_needs_both_sides_of_each_joint():
    network = build_hourglass("princeton", 1, 8, ("nose", "l_eye"))
    HourglassDetector(network, "fresh")
    with pytest.raises(UserError, match="'r_eye'"):
        HourglassDetector(network, "fresh", flip_test=True)


def test_bfloat16_gives_nearly_the_same_heat_maps():
    crops = crops_of(9)
    exact = HourglassDetector(small("princeton"), "fresh")(crops)
    coarse = HourglassDetector(small("princeton"), "fresh", bf16=True)(crops)
    assert coarse.dtype == np.float32
    assert 1e-4 * exact.max() < abs(coarse - exact).max() < 0.05 * exact.max()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_openvino_gives_the_same_heat_maps(layout):
    pytest.importorskip("openvino", reason="OpenVINO is not installed (extra [openvino])")
    crops = crops_of(11, count=3)
    trained = layout == "harvest"  # weights of chance behind trained features would enlarge what bfloat16 rounds off
    network = load_hourglass(shipped(DETECTOR)) if trained else small(layout)
    exact = HourglassDetector(network, "fresh", flip_test=True)(crops)
    fast = HourglassDetector(network, "fresh", flip_test=True, engine="openvino")
    other = fast(crops)
    assert other.dtype == np.float32 and other.shape == exact.shape
    np.testing.assert_allclose(other, exact, atol=1e-4 * exact.max())
    coarse = HourglassDetector(network, "fresh", flip_test=True, bf16=True, engine="openvino")(crops)
    np.testing.assert_allclose(coarse, exact, atol=0.1 * exact.max())
    np.testing.assert_allclose(fast(crops[:1]), exact[:1], atol=1e-4 * exact.max())


def test_a_missing_openvino_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UserError, match=r"harvest-pose\[openvino\]"):
        HourglassDetector(small("harvest"), "fresh", engine="openvino")


@pytest.mark.parametrize("crops", [crops_of(1).astype(np.float32), crops_of(1)[:, :128], crops_of(1)[0]])
def test_crops_of_another_shape_or_type_are_refused(crops):
    with pytest.raises(ValueError, match="need uint8"):
        HourglassDetector(small("princeton", stacks=1), "fresh")(crops)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_parameter_that_matters_learns(layout):
    network = small(layout).train()
    images = torch.rand(2, 3, 64, 64)
    scores = network.all_scores(images) if layout == "harvest" else [network(images)]
    sum(score.square().sum() for score in scores).backward()
    still = {key for key, value in network.named_parameters() if value.grad is None}
    changes_width = ("pre.1.", "pre.4.")
    unused_skips = {
        key for key, _ in network.named_parameters() if "skip_layer" in key and not key.startswith(changes_width)
    }
    frozen = network.features.named_parameters(prefix="features") if layout == "harvest" else []
    features = {key for key, _ in frozen}
    assert still == unused_skips | features


def test_our_own_maps_are_probabilities_of_cells_beside_elsewhere():
    network = small("harvest")
    scores = torch.full((1, 3, 64, 64), -20.0)
    scores[0, 0, 10, 20] = 30.0  # here for certain
    scores[0, 1, 10, 20] = np.log(0.1 / 0.9)  # seldom here, else elsewhere
    maps = network.maps(scores) / PEAK
    assert float(network.maps(scores)[0, 0, 10, 20]) == 1.0  # no higher than the middle of what it was taught
    torch.testing.assert_close(maps[0, 1, 10, 20], torch.tensor(0.1), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        maps[0, 2].sum(), torch.tensor(4096 * np.exp(-20.0) / (1 + 4096 * np.exp(-20.0))).float()
    )
    fresh = build_hourglass("harvest", 1, 16).eval()
    with torch.inference_mode():
        unsure = fresh.maps(fresh(torch.rand(1, 3, 256, 256))[:, 0]) / PEAK
    assert 0.3 < float(unsure.sum((-1, -2)).mean()) < 0.7


def test_weights_without_features_take_those_of_the_shipped_detector(tmp_path):
    network = load_hourglass(shipped(PEOPLE))
    features = load_hourglass(shipped(DETECTOR)).features.state_dict()
    assert all(torch.equal(value, features[key]) for key, value in network.features.state_dict().items())
    save_hourglass(network, tmp_path / "head.safetensors", features=False)
    again = load_hourglass(tmp_path / "head.safetensors").state_dict()
    assert all(torch.equal(value, again[key]) for key, value in network.state_dict().items())
    assert (tmp_path / "head.safetensors").stat().st_size < 0.1 * shipped(DETECTOR).stat().st_size


def test_what_is_shipped_is_small_and_finds_every_joint_of_the_skeleton():
    assert sum(shipped(name).stat().st_size for name in (DETECTOR, PEOPLE)) < 20e6
    assert load_hourglass(shipped(DETECTOR)).joints == load_skeleton("harvest21").joints
    assert load_hourglass(shipped(PEOPLE)).joints == PEOPLE_MAPS
