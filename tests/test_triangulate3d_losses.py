"""The losses of learnable triangulation: their values, their gradients, and what has no say in them."""

import pytest
import torch
from conftest import draw
from torch.autograd import gradcheck

from harvest.triangulate3d.losses import soft_mse, volumetric_loss
from harvest.triangulate3d.volumetric import Cube, volume_soft_argmax

pytestmark = pytest.mark.usefixtures("one_thread")


def cube_of(n: int) -> Cube:
    return Cube(torch.tensor([[1.0, -2, 0.8]]).double(), 2.4, n)


def test_a_far_error_counts_less_than_its_square():
    truth = torch.zeros(2, 3, 3)
    error = torch.tensor([[0.1, 0.2, 0.6], [0.0, 5.0, torch.nan]])
    xyz = torch.stack([0 * error, error, 0 * error], dim=-1).requires_grad_()
    far = [(e**2) ** 0.1 * 0.04**0.9 for e in (0.6, 5.0)]
    loss = soft_mse(xyz, truth)
    torch.testing.assert_close(float(loss.detach()), (0.01 + 0.04 + sum(far)) / 5, rtol=1e-5, atol=0)
    loss.backward()
    assert xyz.grad.isfinite().all() and not xyz.grad[1, 2].any()
    only = torch.tensor([[True, False, False], [False, False, False]])
    torch.testing.assert_close(float(soft_mse(xyz.detach(), truth, only)), 0.01, rtol=1e-5, atol=0)
    assert float(soft_mse(xyz.detach(), truth * torch.nan)) == 0


def test_the_gradients_of_both_losses_are_exact():
    xyz, truth = (0.15 * draw(12, 1, 5, 3)).requires_grad_(), torch.zeros(1, 5, 3).double()
    assert (xyz.square().sum(-1) > 0.04).any() and (xyz.square().sum(-1) < 0.04).any()
    assert gradcheck(lambda xyz: soft_mse(xyz, truth), (xyz,))
    volume = draw(13, 1, 3, 4, 4, 4).requires_grad_()
    inside = cube_of(4).centre_m[:, None] + 0.4 * draw(14, 1, 3, 3)
    for nearest in (True, False):
        assert gradcheck(
            lambda volume: volumetric_loss(
                volume_soft_argmax(volume, cube_of(4)),
                inside,
                cube_of(4),
                heat_share=1.0,
                nearest=nearest,  # noqa: B023
            ),
            (volume,),
        )


@pytest.mark.parametrize("nearest", [True, False])
def test_the_volumetric_loss_is_distance_and_heat_at_the_truth(nearest):
    cube = cube_of(6)
    voxels = cube.voxels_m()
    pose = volume_soft_argmax(draw(15, 1, 4, 6, 6, 6), cube)
    p = pose.log_probability.exp()
    truth = torch.stack([voxels[0, 2, 3, 4], voxels[0, 5, 0, 1], voxels[0, 1, 1, 1], voxels[0, 0, 0, 0]])[None]
    truth[0, 0] += 0.75 * cube.step_m * torch.tensor([1.0, 0, 0])
    truth[0, 2] += 9.0  # far outside the cube
    truth[0, 3, 1] = torch.nan
    first = p[0, 0, 3, 3, 4] if nearest else 0.25 * p[0, 0, 2, 3, 4] + 0.75 * p[0, 0, 3, 3, 4]
    heat = first.log() + p[0, 1, 5, 0, 1].log()
    off = (pose.mean_m - truth)[0, :3].abs().sum()
    torch.testing.assert_close(volumetric_loss(pose, truth, cube, nearest=nearest), (off - 0.01 * heat) / 3)
    assert float(volumetric_loss(pose, truth * torch.nan, cube)) == 0


def test_a_volume_that_excludes_the_truth_still_has_a_finite_gradient():
    volume = torch.zeros(1, 1, 4, 4, 4, requires_grad=True)
    cube = Cube(torch.zeros(1, 3), 2.0, 4)
    pose = volume_soft_argmax(volume + 1e4 * torch.eye(64)[0].reshape(4, 4, 4), cube)
    loss = volumetric_loss(pose, torch.tensor([[[0.6, 0.7, 0.5]]]), cube)
    loss.backward()
    assert loss.isfinite() and volume.grad.isfinite().all() and volume.grad[0, 0, 3, 3, 3] < 0
