"""CameraPose: its losses by hand, kinematic chains, critics and generator, and its training in three steps."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import draw
from test_lifting import ROOT, SKELETON, SMALL, figures, in_2d

from harvest.errors import UserError
from harvest.learn.camerapose import (
    CameraBranch,
    Chain,
    Critic,
    Generator,
    camera_loss,
    chain_space,
    critic_loss,
    fitted_place,
    maker_loss,
    pictured,
    refine_loss,
    squared_loss,
)
from harvest.learn.camerapose_training import CameraPoseSettings, CameraPoseTraining, batch_of, frozen
from harvest.learn.lifting import PoseSets
from harvest.monocular.lifter import RefineNet
from harvest.monocular.lifter_files import load_lifter
from harvest.studio.figure import moving_figure

pytestmark = pytest.mark.usefixtures("one_thread")
CHAIN = Chain(SKELETON.joints, SKELETON.parents.tolist())


def test_a_camera_shows_a_pose_where_it_is():
    poses = figures(4)
    batch = batch_of(poses, ROOT)
    shown = pictured(batch.pose, batch.camera, batch.place)
    torch.testing.assert_close(shown, batch.label, atol=1e-5, rtol=1e-5)
    behind = pictured(torch.zeros(1, 2, 3), torch.ones(1, 4), torch.tensor([[1.0, 0.0, -5.0]]))
    assert behind.isfinite().all()


def test_losses_are_what_a_hand_computes():
    truth = torch.tensor([[[1.0, 2.0], [math.nan, 0.0]]])
    assert squared_loss(torch.zeros(1, 2, 2), truth).item() == pytest.approx(5 / 2)
    confidence = torch.tensor([[3.0, 1.0]])
    labels = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    assert refine_loss(torch.zeros(1, 2, 2), labels, confidence).item() == pytest.approx((0.75 * 4 + 0.25 * 16) / 2)
    camera = camera_loss(torch.ones(1, 4), torch.zeros(1, 3), torch.zeros(1, 4), torch.tensor([[0.0, 3.0, 0.0]]))
    assert camera.item() == pytest.approx(4 + 9)
    real, made = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert critic_loss(real, made).item() == pytest.approx(0.5 * 0.5 + 0.5 * 2)
    assert maker_loss(made).item() == pytest.approx(0.5 * 1)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p: pictured(p, draw(1, 3, 4), 5 + draw(2, 3, 3)).square().sum(),
        lambda p: squared_loss(p, draw(1, *p.shape)),
        lambda p: refine_loss(p, draw(1, *p.shape), draw(2, 3, 4).abs()),
        lambda p: camera_loss(p[:, :, 0], p[:, 0], draw(1, 3, 4), draw(2, 3, 3)),
        lambda p: critic_loss(p[:, 0, 0], p[:, 1, 1]) + maker_loss(p[:, 2, 2]),
        lambda p: chain_space(p).square().sum(),
    ],
)
def test_losses_have_the_gradients_that_differences_show(loss):
    assert torch.autograd.gradcheck(loss, draw(0, 3, 4, 3).requires_grad_())


def test_a_pose_is_the_sum_of_its_bones():
    poses = draw(0, 3, 16, 3)
    about = poses - poses[:, ROOT : ROOT + 1]
    torch.testing.assert_close(CHAIN.poses(CHAIN.bones(poses)), about)
    pairs = [(SKELETON.joints[c], int(k)) for c, k in zip(CHAIN.child, CHAIN.kind, strict=True)]
    kinds = dict(pairs)
    assert kinds["l_knee"] == kinds["r_knee"] != kinds["l_hip"]
    assert sorted(torch.cat(CHAIN.parts).tolist()) == list(range(15)) and len(CHAIN.parts) == 5


def test_a_pose_is_placed_where_it_is_seen_whatever_its_size():
    poses, camera = 0.3 * draw(0, 3, 6, 3), torch.tensor([[1.1, 0.9, 0.02, -0.03]]).double().expand(3, 4)
    place = torch.tensor([[0.5, -0.2, 4.0], [0.0, 0.3, 2.5], [-1.0, 0.1, 7.0]]).double()
    seen = pictured(poses, camera, place)
    seen[1, 2] = math.nan
    torch.testing.assert_close(fitted_place(poses, camera, seen), place)
    torch.testing.assert_close(fitted_place(2 * poses, camera, seen), 2 * place)
    assert fitted_place(poses, camera, torch.full_like(seen, math.nan)).isfinite().all()
    torch.autograd.gradcheck(lambda p: fitted_place(p, camera, seen + 0.01 * draw(1, 3, 6, 2)), poses.requires_grad_())


def test_a_part_in_chain_space_is_lengths_and_angles():
    bones = torch.tensor([[[2.0, 0, 0], [0, 3.0, 0], [1.0, 1.0, 0]]])
    half = math.sqrt(0.5)
    assert chain_space(bones)[0].tolist() == pytest.approx([2, 3, math.sqrt(2), 0, half, half])
    assert chain_space(torch.zeros(1, 2, 3)).isfinite().all()


def test_the_critic_takes_each_part_out_of_the_space_of_all_bones():
    critic, bones = Critic(CHAIN), CHAIN.bones(draw(1, 4, 16, 3).float())
    whole = torch.nn.functional.pad(chain_space(bones), (0, 1))
    for part, entries in zip(CHAIN.parts, critic.entries, strict=True):
        own = chain_space(bones[:, part])
        torch.testing.assert_close(whole[:, entries][:, : own.shape[1]], own)
        assert (whole[:, entries][:, own.shape[1] :] == 0).all()


def test_a_critic_of_what_is_seen_cares_for_shape_alone():
    torch.manual_seed(0)
    critic, seen = Critic(CHAIN), draw(0, 5, 16, 2).float()
    torch.testing.assert_close(critic(3 * seen + 1), critic(seen), atol=1e-4, rtol=1e-4)
    assert (critic(draw(0, 5, 16, 3).float()) != critic(2 * draw(0, 5, 16, 3).float())).all()


def test_a_generator_bends_and_stretches_within_bounds_and_alike_on_both_sides():
    torch.manual_seed(0)
    generator = Generator(CHAIN)
    for value in generator.parameters():
        torch.nn.init.normal_(value, std=0.5)
    _, xyz = moving_figure(6)
    poses = torch.from_numpy((xyz - xyz[:, ROOT : ROOT + 1]).astype(np.float32))
    made, place = generator(poses, draw(0, 6, generator.noise).float())
    before, after = (CHAIN.bones(those).norm(dim=-1) for those in (poses, made))
    ratio = after / before
    assert (ratio > 0.799).all() and (ratio < 1.201).all() and (made[:, ROOT].abs() < 1e-6).all()
    knees = [SKELETON.joints[c] for c in CHAIN.child.tolist()]
    left, right = knees.index("l_knee"), knees.index("r_knee")
    torch.testing.assert_close(ratio[:, left], ratio[:, right], atol=1e-4, rtol=1e-4)
    assert (place[:, 2] > 2.4).all() and (place[:, 2] < 8.1).all() and (place[:, :2].abs() < place[:, 2:]).all()


def test_what_is_frozen_gets_no_gradient_and_keeps_its_running_means():
    norm = torch.nn.BatchNorm1d(2)
    x = (5 + draw(0, 9, 2).float()).requires_grad_()
    (frozen(norm)(x) * draw(1, 9, 2).float()).sum().backward()
    assert x.grad.abs().sum() > 0 and norm.weight.grad is None and (norm.running_mean == 0).all()
    norm(x).sum().backward()
    assert norm.weight.grad is not None and (norm.running_mean > 0).all()


def test_a_fresh_branch_tells_the_usual_camera_and_refining_changes_nothing():
    torch.manual_seed(0)
    camera, place = CameraBranch(4).eval()(draw(0, 2, 4, 2).float(), draw(1, 2, 1, 2).float(), draw(2, 2, 4, 3).float())
    torch.testing.assert_close(camera, torch.tensor([[1.0, 1, 0, 0]] * 2), atol=0.1, rtol=0)
    torch.testing.assert_close(place[:, 2], torch.full((2,), 4.5), atol=0.2, rtol=0)
    seen = draw(0, 3, 4, 2).float()
    torch.testing.assert_close(RefineNet(4)(seen, torch.ones(3, 4)), seen)


def test_parts_learn_in_three_steps_and_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    flat = figures(30, seed=4, unsure=True)
    flat = in_2d(flat)
    sets = PoseSets(figures(40, unsure=True), figures(10, seed=3), flat)
    settings = CameraPoseSettings(**SMALL | {"steps": 6, "refine_until": 0.1, "warm_until": 0.3})
    training = CameraPoseTraining(sets, tmp_path / "whole", settings)
    rows = next(training.batches())
    moved = {}
    for step in (0, 1, 3):
        training.step = step
        training.network.zero_grad()
        training.loss(rows)[0].backward()
        moved[step] = {
            name
            for name, part in training.network.named_children()
            if any(p.grad is not None for p in part.parameters())
        }
    assert moved == {
        0: {"lifter"},
        1: {"lifter", "generator", "of_seen", "of_pose"},
        3: {"lifter", "generator", "of_seen", "of_pose", "camera"},
    }
    CameraPoseTraining(sets, tmp_path / "whole", settings).run()
    CameraPoseTraining(sets, tmp_path / "parts", settings).run(most_seconds=0)
    CameraPoseTraining(sets, tmp_path / "parts", settings).run()
    whole, parts = (load_lifter(tmp_path / name / "lifter.safetensors")[0].state_dict() for name in ("whole", "parts"))
    assert all((whole[key] == parts[key]).all() for key in whole) and any(key.startswith("refine") for key in whole)
    with pytest.raises(UserError, match="no pose to learn from has its pelvis in 3D"):
        CameraPoseTraining(PoseSets(flat), tmp_path / "flat", settings)
    part = figures(20)
    part.xyz_m[:, 3] = np.nan
    part.label_xy[:, 5] = np.nan
    with pytest.raises(UserError, match="no pose to learn from is known whole"):
        CameraPoseTraining(PoseSets(part), tmp_path / "part", settings)
    part.xyz_m[:2, 3] = part.xyz_m[:2, 4] + 0.1
    CameraPoseTraining(PoseSets(part, None, sets.more), tmp_path / "part", settings).run()
    lifter, _ = load_lifter(tmp_path / "part" / "lifter.safetensors")
    assert all(value.isfinite().all() for value in lifter.state_dict().values())


def test_poses_known_in_2d_alone_teach_how_another_camera_shows_people(tmp_path):
    flat = figures(200, seed=4)
    flat = in_2d(flat)
    settings = CameraPoseSettings(
        **SMALL | {"steps": 150, "width": 64, "augment": False, "refine": False, "warm_until": 0.0, "batch": 32}
    )
    training = CameraPoseTraining(PoseSets(figures(200), None, flat), tmp_path, settings)
    seen = batch_of(training.learn, ROOT)

    def off():
        network = training.averaged()
        with torch.no_grad():
            mended, at = network.lifter.looked_at(seen.xy)
            poses, _ = network.lifter.lift(mended, at)
            again = pictured(poses, *network.camera(mended, at, poses))
        return float((again - seen.label).norm(dim=-1).mean())

    before = off()
    training.run()
    assert off() < 0.6 * before


def test_poses_known_in_2d_alone_make_a_lifter_better_on_such_people(tmp_path):
    known, others, judge = figures(24), figures(200, seed=5), figures(60, seed=9)
    flat = in_2d(others)
    more = {"steps": 200, "width": 64, "augment": False, "refine": False, "validate_every": 200}
    settings = CameraPoseSettings(**SMALL | more | {"ema": 0.98})
    errors = []
    for name, given in (("alone", None), ("both", flat)):
        training = CameraPoseTraining(PoseSets(known, judge, given), tmp_path / name, settings)
        training.run()
        errors.append(training.measure(training.averaged()))
    assert errors[1][0] < 0.97 * errors[0][0] and errors[1][2] < 0.97 * errors[0][2]
    with pytest.raises(UserError, match="lens is known or told, got 'wide'"):
        CameraPoseTraining(PoseSets(known), tmp_path / "lens", replace(settings, lens="wide"))
