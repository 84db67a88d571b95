"""Learnable triangulation: the numbers of published networks, their files, and the backbones' shapes."""

import json

import numpy as np
import pytest
import torch
from conftest import GOLDEN, golden_value
from torch import nn

from harvest.errors import UserError
from harvest.triangulate3d import published
from harvest.triangulate3d.algebraic import shares
from harvest.triangulate3d.backbone import BLOCKS, ConfidenceHead, PoseResNet
from harvest.triangulate3d.volumetric import Cube, cells_from_pixels

pytestmark = pytest.mark.usefixtures("one_thread")
needs_golden = pytest.mark.skipif(
    not (GOLDEN / "lt_algebraic.npz").is_file(),
    reason="the published networks' golden numbers are not beside this checkout (../shared/golden)",
)


def golden_keys(name: str) -> dict[str, list[int]]:
    if name == "algebraic":
        return json.loads((GOLDEN / "lt_algebraic_keys.json").read_text())
    return json.loads((GOLDEN / "lt_volumetric_keys.json").read_text())[name]


def golden_inputs(name: str) -> tuple[dict[str, torch.Tensor], np.lib.npyio.NpzFile, torch.Tensor, torch.Tensor]:
    state = {"module." + key: golden_value(key, tuple(shape)) for key, shape in golden_keys(name).items()}
    numbers = np.load(GOLDEN / f"lt_{'' if name == 'algebraic' else 'volumetric_'}{name}.npz")
    images = np.random.default_rng(11).standard_normal((1, 3, 3, 128, 128)).astype(np.float32)
    return state, numbers, torch.from_numpy(images), torch.from_numpy(numbers["projections"])[None]


@needs_golden
def test_published_algebraic_weights_give_the_published_numbers():
    state, numbers, images, projections = golden_inputs("algebraic")
    network = published.load_published_algebraic(state)
    with torch.inference_mode():
        pose = network(images, projections)
    assert not network.training and pose.found.all()
    assert abs(pose.crop_px.numpy() - numbers["keypoints_2d"]).max() < 1e-3
    assert abs(pose.weight.numpy() - numbers["confidences"]).max() < 1e-6
    assert abs(pose.xyz_m.numpy() - numbers["keypoints_3d"]).max() < 1e-4


@needs_golden
@pytest.mark.parametrize(("name", "how"), [("sum", "sum"), ("softmax", "softmax"), ("conf_norm", "confidence")])
def test_published_volumetric_weights_give_the_published_numbers(name, how):
    state, numbers, images, projections = golden_inputs(name)
    network = published.load_published_volumetric(state, how)
    with torch.inference_mode():
        pose = network(images, projections, Cube(torch.from_numpy(numbers["pelvis"])[None], 2.5, 32))
        if how == "confidence":
            given = network.backbone(images[0]).volumetric
            assert abs(shares(given[None]).numpy() - numbers["vol_confidences"]).max() < 1e-6
    peak = pose.log_probability.flatten(2).amax(-1).exp().numpy()
    np.testing.assert_allclose(peak, numbers["volume_peak"], rtol=1e-4)
    # The sum's stored numbers are 9.1e-5 m from float64's, ours 0.2e-5 m: theirs is the rounding.
    assert abs(pose.mean_m.numpy() - numbers["keypoints_3d"]).max() < 1e-4


@needs_golden
def test_published_files_load_and_tell_what_is_wrong_in_one_line(tmp_path):
    def save(state, name="weights.pth"):
        torch.save(state, tmp_path / name)
        return tmp_path / name

    def blank(name):
        return {key: torch.zeros(()).expand(shape) for key, shape in golden_keys(name).items()}

    loaded = published.load_published_algebraic(save(blank("algebraic")))
    assert loaded.backbone.algebraic_head is not None and loaded.backbone.volumetric_head is None
    odd = blank("algebraic") | {"extra.weight": torch.zeros(1), "backbone.bn1.bias": torch.zeros(3)}
    del odd["backbone.conv1.weight"]
    with pytest.raises(UserError, match=r"1 missing \('backbone.stem.0.weight'\), 1 unknown .* 1 misshapen .*; give"):
        published.load_published_algebraic(save(odd))
    with pytest.raises(UserError, match="no volume network"):
        published.load_published_volumetric(blank("algebraic"), "sum")
    with pytest.raises(UserError, match="no volumetric confidences; choose"):
        published.load_published_volumetric(blank("sum"), "confidence")


def test_their_cells_are_divided_the_wrong_way_round():
    projections = torch.eye(3, 4) + torch.tensor([[0, 0, 5.0, 1], [0, 0, 7, 2], [0, 0, 0, 1]])
    point = torch.tensor([8.0, 20, 1, 1])
    u, v, depth = projections @ point
    x, y, z = cells_from_pixels(published.with_their_cells(projections, (96, 64), 4), 4.0) @ point
    torch.testing.assert_close(torch.stack([x / z, y / z]), torch.stack([u / 4 * 63 / 96, v / 4 * 95 / 64]) / depth)


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "text.pth").write_text("x")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    wrong = {"absent": "no such file", "text": "cannot be read", "list": "no state dict", "other": "no ResNet"}
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message):
            published.load_published_algebraic(tmp_path / f"{name}.pth")


@pytest.mark.parametrize("layers", BLOCKS)
def test_every_depth_gives_maps_features_and_confidences(layers):
    with torch.device("meta"):
        network = PoseResNet(layers, 17, algebraic=True, volumetric=32)
        said = network(torch.zeros(2, 3, 384, 256))
    assert said.score.shape == (2, 17, 96, 64) and said.features.shape == (2, 256, 96, 64)
    assert said.algebraic.shape == (2, 17) and said.volumetric.shape == (2, 32)
    convolutions = [
        part for part in network.stages.modules() if isinstance(part, nn.Conv2d) and part.kernel_size != (1, 1)
    ]
    assert len(convolutions) == sum(BLOCKS[layers]) * (2 if layers < 50 else 1)
    assert (network.score.in_channels, network.stride) == (256, 4)


def test_what_no_backbone_has_is_refused():
    with pytest.raises(ValueError, match="no ResNet has 20"):
        PoseResNet(20, 17)
    said = PoseResNet(18, 3)(torch.zeros(1, 3, 64, 64))
    assert said.algebraic is None and said.volumetric is None


def test_a_confidence_is_of_the_mean_over_the_picture():
    head = ConfidenceHead(4, 2)
    head.features, x = nn.Identity(), torch.randn(3, 256, 5, 7)
    confidence = head(x)
    torch.testing.assert_close(head(x.mean((2, 3), keepdim=True)), confidence)
    assert confidence.shape == (3, 2) and ((confidence > 0) & (confidence < 1)).all()
