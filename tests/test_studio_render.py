"""The studio's pictures show what their truth says: against rays cast by hand, and against Open3D where it is there."""

import importlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.camera import Camera
from harvest.studio.mesh import Looks, Mesh, Surface, join, pyramid
from harvest.studio.objects import ball, box, tube
from harvest.studio.raster import make_lens, project
from harvest.studio.render import Light, Renderer, Scene
from harvest.studio.rotations import about, from_quaternions, look_at, smallest_turn, to_quaternions
from harvest.studio.truth import HIDDEN, OUTSIDE, VISIBLE, visibility

LENSES = {
    "pinhole": ("pinhole", ()),
    "barrel": ("pinhole", (-0.28, 0.09, 1e-3, -2e-3)),
    "strong": ("pinhole", (-0.35, 0.15, 0.0, 0.0, -0.03)),
    "fisheye": ("fisheye", (0.05, -0.02, 0.005, -0.001)),
}
WHITE = np.full((8, 8, 3), 200, np.uint8)


def camera_of(lens, size=(96, 72), focal=70.0, eye=(2.2, -1.7, 1.4)):
    model, dist = LENSES[lens]
    K = np.array([[focal, 0, size[0] / 2 + 1.3], [0, focal * 1.01, size[1] / 2 - 0.7], [0, 0, 1]])
    return Camera("c", size, K, np.array(dist), *look_at(eye, (0, 0, 0.4), 0.1), model)


def thing_of(*solids, transform=None):
    vertices, surface = join(list(solids))
    count = int(surface.material.max()) + 1
    looks = Looks(
        np.stack([pyramid(WHITE)] * count),
        np.zeros((1, 1, 4), np.uint8),
        np.full(count, -1, np.int32),
        np.zeros(count, np.bool_),
        np.zeros(count, np.bool_),
        np.zeros((count, 2), np.float32),
        np.ones((count, 3), np.float32),
    )
    weights, bones = np.ones((len(vertices), 1), np.float32), np.zeros((len(vertices), 1), np.int32)
    move = np.eye(4)[:3] if transform is None else transform
    return Mesh(vertices, surface, looks, weights, bones).placed(move[None])


LIGHT = Light(
    np.eye(1, 9).T.repeat(3, 1).astype(np.float32),
    np.array([0.6, 0, 0.8], np.float32),
    np.ones(3, np.float32),
    0.6,
    0.5,
)


def scene_of(*things):
    return Scene(list(things), LIGHT, shadow_cells=128)


def rays_of(camera, over):
    """Origin and directions (Hs Ws, 3) of every sample's ray, by the camera's own inverse."""
    x, y = np.meshgrid(np.arange(camera.size_px[0] * over), np.arange(camera.size_px[1] * over))
    uv = (np.stack([x, y], -1).reshape(-1, 2) - (over - 1) / 2) / over
    at = camera.undistort(uv)
    directions = np.column_stack([at, np.ones(len(at))]) @ camera.R_cam_from_world
    return camera.centre_m, directions


def cast(origin, directions, triangles):
    """Nearest distance along each ray (its length counts as one) to triangles (F, 3, 3), by Moeller and Trumbore."""
    nearest = np.full(len(directions), np.inf)
    margin = np.zeros(len(directions))  # how far inside its triangle the nearest hit lies
    for a, b, c in triangles:
        e1, e2 = b - a, c - a
        p = np.cross(directions, e2)
        det = p @ e1
        with np.errstate(divide="ignore", invalid="ignore"):
            s = origin - a
            u = (p @ s) / det
            q = np.cross(s, e1)
            v = (directions @ q) / det
            t = (q @ e2) / det
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 1e-6) & (t < nearest)
        nearest[hit] = t[hit]
        margin[hit] = np.minimum(np.minimum(u, v), 1 - u - v)[hit]
    return nearest, margin


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("over", [1, 2, 3])
def test_every_sample_shows_what_its_ray_hits_first(lens, over):
    camera = camera_of(lens)
    thing = thing_of(box((0.8, 0.5, 0.6), (0, 0, 0.3)), ball(0.35, (0.3, -0.4, 0.8)), tube(0.06, 1.2, (-0.4, 0.1, 0.0)))
    view = Renderer(over).draw(scene_of(thing), camera)
    origin, directions = rays_of(camera, over)
    triangles = thing.vertices[thing.mesh.surface.faces].astype(np.float64)
    nearest, margin = cast(origin, directions, triangles)
    seen = np.isfinite(directions).all(axis=1)
    with np.errstate(divide="ignore"):
        depth = 1 / view.near.ravel()
    agree = np.isfinite(depth) == np.isfinite(nearest)
    assert agree[seen].mean() > 0.9995  # rays that graze an outline may go either way
    both = seen & np.isfinite(depth) & np.isfinite(nearest) & (margin > 1e-3)
    assert both.sum() > 300 * over**2
    difference = abs(depth[both] - nearest[both])
    assert np.quantile(difference, 0.999) < 1e-4 and (difference < 1e-2).mean() > 0.999
    assert not np.isfinite(depth[~seen]).any()


@pytest.mark.parametrize("lens", LENSES)
def test_points_of_the_surface_appear_where_opencv_projects_them(lens):
    camera = camera_of(lens)
    thing = thing_of(ball(0.5, (0, 0, 0.4)))
    fine = make_lens(camera, 2)
    points = np.empty((len(thing.vertices), 5))
    project(thing.vertices, fine, points)
    rotation, offset = cv2.Rodrigues(camera.R_cam_from_world)[0], camera.t_cam_from_world_m
    world = thing.vertices.astype(np.float64)[:, None]
    if camera.model == "fisheye":
        uv = cv2.fisheye.projectPoints(world, rotation, offset, camera.K, camera.dist_opencv)[0][:, 0]
    else:
        uv = cv2.projectPoints(world, rotation, offset, camera.K, camera.dist_opencv)[0][:, 0]
    np.testing.assert_allclose((points[:, 3:] - 0.5) / 2, uv, atol=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_no_sample_between_neighbouring_triangles_is_lost(seed):
    rng = np.random.default_rng(seed)
    n = 7
    grid = np.stack(np.meshgrid(np.linspace(-2, 2, n), np.linspace(-2, 2, n)), -1).reshape(-1, 2)
    grid += rng.uniform(-0.15, 0.15, grid.shape)
    vertices = np.column_stack([grid, rng.uniform(-0.2, 0.2, len(grid))]).astype(np.float32)
    first = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
    faces = np.concatenate(
        [np.stack([first, first + 1, first + n], 1), np.stack([first + 1, first + n + 1, first + n], 1)]
    )
    faces = faces.astype(np.int32)
    surface = Surface(
        faces,
        np.zeros((len(vertices), 2), np.float32),
        faces,
        np.zeros(len(faces), np.int32),
        np.ones(len(vertices), np.float32),
    )
    lens = ("pinhole", "barrel")[seed % 2]
    camera = camera_of(lens, focal=150.0, eye=(0.3, -0.2, 1.9 + rng.random()))
    view = Renderer(2).draw(scene_of(thing_of((vertices, surface))), camera)
    assert (view.shown >= 0).all()


def test_a_thing_behind_the_camera_or_beyond_its_lens_is_not_drawn():
    camera = camera_of("strong")
    behind = np.eye(4)[:3].copy()
    behind[:, 3] = camera.centre_m + 2 * (camera.centre_m - np.array([0, 0, 0.4]))
    view = Renderer(2).draw(scene_of(thing_of(ball(0.4, (0, 0, 0)), transform=behind)), camera)
    assert (view.shown < 0).all()


def test_the_nearer_thing_hides_the_farther_one_and_masks_add_up():
    camera = camera_of("barrel")
    towards = (camera.centre_m - np.array([0, 0, 0.4])) / 3
    near = np.eye(4)[:3].copy()
    near[:, 3] = towards
    far, close = thing_of(ball(0.5, (0, 0, 0.4))), thing_of(ball(0.2, (0, 0, 0.4)), transform=near)
    one, other = Renderer(2).draw(scene_of(far, close), camera), Renderer(2).draw(scene_of(close, far), camera)
    np.testing.assert_array_equal(one.mask(0), other.mask(1))
    np.testing.assert_array_equal(one.picture, other.picture)
    alone = Renderer(2).draw(scene_of(far), camera)
    covered = one.mask(0).astype(int) + one.mask(1)
    assert (covered[alone.mask(0) == 255] >= 254).all() and one.mask(1).any()


def test_joints_behind_another_thing_or_deep_inside_the_own_body_are_hidden():
    camera = camera_of("pinhole")
    body, screen = thing_of(ball(0.3, (0, 0, 0.4))), thing_of(box((0.5, 0.5, 0.5), tuple(camera.centre_m * 0.5)))
    points = np.array([[0, 0, 0.4], camera.centre_m * 0.8, [5.0, 5.0, 0.4]])
    uv, depth = camera.project(points), camera.cam_from_world(points)[:, 2]
    view = Renderer(2).draw(scene_of(body), camera)
    assert visibility(view, uv, depth, 0, np.array([0.35, 0.1, 0.1])).tolist() == [VISIBLE, VISIBLE, OUTSIDE]
    assert visibility(view, uv, depth, 0, np.array([0.05, 0.1, 0.1])).tolist() == [HIDDEN, VISIBLE, OUTSIDE]
    view = Renderer(2).draw(scene_of(body, screen), camera)
    assert visibility(view, uv, depth, 0, np.array([0.35, 0.1, 0.1])).tolist() == [HIDDEN, VISIBLE, OUTSIDE]


def test_a_shadow_falls_away_from_the_sun_and_light_comes_from_it():
    camera = camera_of("pinhole", eye=(0.1, -0.1, 6.0), focal=150.0)
    plate, stick = box((3, 3, 0.02), (0, 0, -0.01)), box((0.3, 0.3, 0.5), (0, 0, 1.0))
    view = Renderer(2).draw(scene_of(thing_of(plate, stick)), camera)
    bright = view.picture.mean(axis=-1)

    def at(x, y, z=0.0):
        u, v = np.round(camera.project(np.array([x, y, z]))).astype(int)
        return bright[v, u]

    # The sun stands in the direction (0.6, 0, 0.8): a block 1 m up throws its shadow 0.75 m towards -x.
    assert at(-0.75, 0) < 0.8 * at(0.75, 0) and at(-0.75, 0) < 0.8 * at(-0.75, 0.6)
    assert at(0, 0, 1.25) > at(-0.75, 0)


def test_textures_are_read_where_they_belong_and_smoothed_when_small():
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[:256, :256], picture[:256, 256:], picture[256:, :256] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    grid = np.float32([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.int32([[0, 1, 2], [0, 2, 3]])
    surface = Surface(faces, grid[:, :2], faces, np.zeros(2, np.int32), np.ones(4, np.float32))
    thing = thing_of((grid, surface))
    looks = thing.mesh.looks._replace(textures=pyramid(picture)[None])
    thing = Mesh(grid, surface, looks, np.ones((4, 1), np.float32), np.zeros((4, 1), np.int32)).placed(
        np.eye(4)[None, :3]
    )
    K = np.array([[100.0, 0, 47.5], [0, 100.0, 47.5], [0, 0, 1]])
    R = np.diag([1.0, -1.0, -1.0])  # from above, x to the right, y up
    camera = Camera("c", (96, 96), K, np.zeros(0), R, -R @ np.array([0.5, 0.5, 1.2]))
    view = Renderer(2).draw(Scene([thing], LIGHT, shadow_cells=64), camera)
    corners = [view.picture[v, u].argmax() for v, u in ((30, 30), (30, 66), (66, 30))]
    assert corners == [0, 1, 2]  # a texture's first row lies at the top, where y is largest
    assert view.picture[66, 66].max() < 60
    checks = ((np.add.outer(np.arange(512), np.arange(512)) % 2) * 255).astype(np.uint8)
    fine = looks._replace(textures=pyramid(np.dstack([checks] * 3))[None])
    thing = Mesh(grid, surface, fine, np.ones((4, 1), np.float32), np.zeros((4, 1), np.int32)).placed(
        np.eye(4)[None, :3]
    )
    inside = Renderer(2).draw(Scene([thing], LIGHT, shadow_cells=64), camera).picture[20:76, 20:76]
    assert inside.std() < 6  # checks finer than a pixel are an even grey


def test_two_renderers_and_two_drawings_give_the_same_bits():
    scene = scene_of(thing_of(ball(0.5, (0, 0, 0.4)), box((0.4, 0.4, 0.4), (0.6, 0.2, 0.2))))
    camera, renderer = camera_of("fisheye"), Renderer(2)
    views = [renderer.draw(scene, camera), renderer.draw(scene, camera), Renderer(2).draw(scene, camera)]
    for view in views[1:]:
        np.testing.assert_array_equal(view.picture, views[0].picture)
        np.testing.assert_array_equal(view.near, views[0].near)


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
@settings(deadline=None)
def test_rotations_survive_quaternions_and_the_smallest_turn_takes_one_direction_to_the_other(q):
    R = from_quaternions(np.array(q))
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(from_quaternions(to_quaternions(R)), R, atol=1e-12)
    direction = np.array([0.3, -0.5, 0.8])
    turned = R @ direction
    if turned @ direction > -0.9:
        turn = smallest_turn(direction, turned)
        np.testing.assert_allclose(turn @ direction, turned, atol=1e-12)
        cosine = direction @ turned / (direction @ direction)
        np.testing.assert_allclose(np.trace(turn), 1 + 2 * cosine, atol=1e-9)
    np.testing.assert_allclose(about([0, 0, 2], np.pi / 2) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_depth_equals_that_of_open3d():
    try:
        open3d = importlib.import_module("open3d")
    except (ImportError, OSError) as error:
        pytest.skip(f"Open3D cannot be imported ({error})")
    camera = camera_of("barrel", size=(320, 240), focal=240.0)
    thing = thing_of(
        box((0.8, 0.5, 0.6), (0, 0, 0.3)), ball(0.35, (0.3, -0.4, 0.8), 60), tube(0.06, 1.2, (-0.4, 0.1, 0.0))
    )
    view = Renderer(2).draw(scene_of(thing), camera)
    origin, directions = rays_of(camera, 2)
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(thing.vertices, thing.mesh.surface.faces.astype(np.uint32))
    rays = np.column_stack([np.broadcast_to(origin, directions.shape), directions]).astype(np.float32)
    nearest = scene.cast_rays(open3d.core.Tensor(rays))["t_hit"].numpy()
    with np.errstate(divide="ignore"):
        depth = 1 / view.near.ravel()
    both = np.isfinite(depth) & np.isfinite(nearest)
    assert (np.isfinite(depth) == np.isfinite(nearest)).mean() > 0.9999
    assert np.quantile(abs(depth[both] - nearest[both]), 0.999) < 1e-4
