"""The exported point cloud: fused from true depth of a cube, from a model by the command, and after
real training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from baselines import build_model
from checkpoints import save_checkpoint
from data_util import SceneIntrinsics, load_intrinsics
from dataio import scene_geometry
from deep_voxels import Architecture, DeepVoxels
from evaluation import export
from evaluation.fusion import Cloud, DepthMaps, fuse, off_edges
from files.runs import find_checkpoint
from geometry.cameras import hemisphere, look_at
from geometry.coverage import world2pixels
from machine.cli import run
from scenes.render import main as render_scene
from scenes.synthetic.objects import cube
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface
from tests.helpers import GEOMETRY
from tests.helpers import run as train

INTRINSICS = SceneIntrinsics(64.0, 32.0, 32.0, (0.0, 0.0, 0.0), 1.0, 1.6, 64, 64)
UP = np.array([0.0, 0.0, 1.0])
DEMO_SIZE = [
    "--img_sidelength",
    "64",
    "--proj_sidelength",
    "32",
    "--grid_dim",
    "16",
    "--num_grid_feats",
    "16",
    "--nf0",
    "16",
]


class Truth:
    """The cube's surface as points spread evenly over it, and those of them that views see."""

    def __init__(self, cam2world, intrinsics):
        mesh = trimesh.util.concatenate(
            [trimesh.Trimesh(side.vertices, side.faces) for side in cube()]
        )
        self.points, faces = trimesh.sample.sample_surface(mesh, 100_000, seed=0)
        self.normals = mesh.face_normals[faces]
        some = self.points[::20]
        size = 128
        caster = RayCaster(Surface.from_meshes(cube()))
        matrix = intrinsics.matrix(size)
        visible = np.zeros(len(some), bool)
        for pose in cam2world:
            (pixels,), (depth,) = world2pixels(some, pose[None], matrix)
            column, row = np.floor(pixels).astype(int).clip(0, size - 1).T
            hit = caster.depth(pose, matrix, size)[row, column]
            visible |= (
                (np.abs(hit - depth) < 0.02)
                & (pixels >= 0).all(axis=1)
                & (pixels < size).all(axis=1)
            )
        self.visible = some[visible]

    def distances(self, cloud: Cloud):
        """From each point of the cloud to the surface, and from each visible point of the surface
        to the cloud."""
        return cKDTree(self.points).query(cloud.points)[0], cKDTree(cloud.points).query(
            self.visible
        )[0]

    def angles(self, cloud: Cloud):
        """Between each normal of the cloud and that of the surface beside it, in degrees."""
        normals = self.normals[cKDTree(self.points).query(cloud.points)[1]]
        return np.degrees(np.arccos(np.clip((normals * cloud.normals).sum(axis=1), -1, 1)))


@pytest.mark.parametrize("map_side", [32, 64, 256, 512])
def test_colours_beside_the_border_that_training_never_sees_are_those_of_the_frame(map_side):
    colors = export.map_colors(np.full((502, 502, 3), 0.7, np.float32), map_side)
    np.testing.assert_allclose(colors, 0.7, rtol=1e-5)


@pytest.fixture(scope="module")
def cube_views():
    """Depth, colours, poses and geometry of 30 views of the cube, red on a white background of
    random depth; the truth.

    A pixel's depth is the mean over its area, as a model's is: between the surfaces where it
    straddles an edge.
    """
    cam2world = look_at(hemisphere(30, 2.0, seed=0), np.zeros(3), UP)
    geometry = scene_geometry(INTRINSICS, grid_dim=16, map_sidelength=32, default_near_plane=1.0)
    caster = RayCaster(Surface.from_meshes(cube()))
    fine = 4
    matrix = INTRINSICS.matrix(32)
    matrix[:2, 2] += 0.5  # a map's pixel is seen along the ray through its integer coordinate
    matrix[:2] *= fine
    generator = np.random.default_rng(0)
    maps = np.stack([caster.depth(pose, matrix, 32 * fine) for pose in cam2world])
    background = np.isinf(maps)
    anywhere = (
        generator.uniform(1, 1 + 2 * INTRINSICS.scale, (30, 32, 32))
        .repeat(fine, axis=1)
        .repeat(fine, axis=2)
    )
    maps[background] = anywhere[background]
    depth, share = (
        values.reshape(30, 32, fine, 32, fine).mean(axis=(2, 4)) for values in (maps, background)
    )
    colors = np.stack([np.ones_like(share), share, share], axis=-1)
    tensors = (torch.from_numpy(array).float() for array in (depth, colors, cam2world))
    return *tensors, geometry, Truth(cam2world, INTRINSICS)


def test_true_depth_fuses_into_the_surface(cube_views):
    """The cloud lies on what cameras see, covers it, and has its normals, outward, and its
    colour."""
    depth, colors, cam2world, geometry, truth = cube_views
    cloud = fuse(DepthMaps(depth, colors, cam2world, geometry))
    to_surface, to_cloud = truth.distances(cloud)
    assert to_surface.mean() < 0.1 * geometry.voxel_size
    assert to_surface.max() < geometry.voxel_size
    assert (to_cloud <= geometry.voxel_size).mean() > 0.99
    assert np.median(truth.angles(cloud)) < 2
    assert (truth.angles(cloud) < 60).mean() > 0.98  # the others are at edges
    np.testing.assert_allclose(np.linalg.norm(cloud.normals, axis=1), 1)
    assert (np.median(cloud.colors, axis=0) == [255, 0, 0]).all()
    assert (cloud.colors[:, 1] > 64).mean() < 0.02  # no pixel that is half background
    cells = np.floor((cloud.points / geometry.voxel_size + 8) * 2)
    assert len(np.unique(cells, axis=0)) == len(cells)  # thinned


@pytest.mark.parametrize(("views", "voxels"), [(8, -2.5), (5, 2.5)])
def test_a_surface_that_few_views_see_is_left_out(cube_views, views, voxels):
    """Some views from above agree on a surface over the cube, which the others see through, or
    inside it, which the cube hides from the others."""
    depth, colors, cam2world, geometry, truth = cube_views
    depth = depth.clone()
    depth[-views:] += voxels * geometry.voxel_size
    alone, _ = truth.distances(
        fuse(DepthMaps(depth[-views:], colors[-views:], cam2world[-views:], geometry))
    )
    assert np.median(alone) > 1.5 * geometry.voxel_size
    to_surface, to_cloud = truth.distances(fuse(DepthMaps(depth, colors, cam2world, geometry)))
    assert to_surface.max() < geometry.voxel_size
    assert (
        to_cloud <= geometry.voxel_size
    ).mean() > 0.85  # a top that eight views deny has fewer points


def test_only_depths_between_two_surfaces_are_on_edges():
    depth = torch.full((1, 16, 16), 1.0)
    depth[:, :, 6] = 1.5
    depth[:, :, 7:] = 2.0
    assert (~off_edges(depth, GEOMETRY, margin=0)).nonzero()[:, 2].unique().tolist() == [6]


def test_the_margin_of_maps_has_no_say(cube_views):
    depth, colors, cam2world, geometry, _ = cube_views
    spoilt = torch.full_like(depth, 2.5)
    spoilt[:, 3:-3, 3:-3] = depth[:, 3:-3, 3:-3]
    np.testing.assert_array_equal(
        fuse(DepthMaps(spoilt, colors, cam2world, geometry, margin=3)).points,
        fuse(DepthMaps(depth, colors, cam2world, geometry, margin=3)).points,
    )


def test_views_that_agree_on_nothing_give_no_points(cube_views):
    depth, colors, cam2world, geometry, _ = cube_views
    empty = fuse(DepthMaps(depth[:3], colors[:3], cam2world[:3], geometry))  # too few
    assert [len(part) for part in empty] == [0, 0, 0]


def flat_model(**changes) -> DeepVoxels:
    """A model whose every view is a plane across the viewing direction, in the middle of its depth
    planes."""
    model = DeepVoxels(replace(Architecture(64, 16, 8, 4, 4), **changes), GEOMETRY)
    if not model.architecture.no_occlusion_net:
        for parameter in model.occlusion_net.softmax_net.parameters():
            torch.nn.init.zeros_(parameter)
    return model


@pytest.fixture
def checkpoint(scene, logs):
    """A checkpoint of `flat_model`, the newest under `logs`, trained on `scene/train`."""
    path = logs / "logs" / "11_21" / "10-15-00_train" / "model-epoch_0_iter_1.pth"
    path.parent.mkdir(parents=True)
    save_checkpoint(
        path, {"model": flat_model().state_dict(), "options": {"data_root": str(scene / "train")}}
    )
    path.with_name("latest.pth").symlink_to(path.name)
    return path


def command(out, *words) -> None:
    run(export.PROG, export.main, ["--out", str(out), "--device", "cpu", *map(str, words)])


def test_the_command_writes_points_normals_and_colours(checkpoint, logs, tmp_path, capsys):
    """The planes of all views meet near the grid's center, which is all that they agree on."""
    command(tmp_path / "a.ply", "--checkpoint", "latest", "--logging_root", logs)
    vertices = trimesh.load(tmp_path / "a.ply").metadata["_ply_raw"]["vertex"]["data"]
    assert vertices.dtype.names[:9] == ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue")
    points, normals = (
        np.stack([vertices[name] for name in names], axis=1)
        for names in ("xyz", ("nx", "ny", "nz"))
    )
    assert len(points) > 4
    assert np.abs(points).max() < 4 * GEOMETRY.voxel_size
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    assert f"{len(points)} points" in capsys.readouterr().out
    command(tmp_path / "b.ply", "--checkpoint", checkpoint)  # the same, named by its file
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()


def test_progress_rises_to_the_end(checkpoint, scene):
    model, cam2world = export.load(checkpoint, None, torch.device("cpu"))
    told = []
    export.fuse_depth(model, cam2world, lambda done, total: told.append((done, total)))
    assert told == [(done + 1, len(told)) for done in range(len(told))]
    assert len(told) >= 8


@pytest.fixture
def given(checkpoint, scene, tmp_path):
    """What a command is called with: `words`, and `out`, the file to make."""
    return SimpleNamespace(
        checkpoint=checkpoint,
        scene=scene,
        out=tmp_path / "points.ply",
        words=["--checkpoint", checkpoint],
        nothing=tmp_path / "nothing",
    )


# Each function spoils what a command is given, and returns what the error must name.


def no_scene(given):
    save_checkpoint(given.checkpoint, {"model": flat_model().state_dict()})
    return [str(given.checkpoint), "--data_root"]


def scene_gone(given):
    (given.scene / "train").rename(given.scene / "elsewhere")
    return [str(given.scene / "train"), "--data_root"]


def no_run(given):
    given.words = ["--checkpoint", "latest", "--logging_root", given.nothing]
    return ["latest", "nothing/logs"]


def no_logging_root(given):
    given.words = ["--checkpoint", "latest"]
    return ["--logging_root"]


def no_file(given):
    given.words = ["--checkpoint", given.nothing]
    return ["nothing: no such file"]


def baseline(given):
    architecture = Architecture(64, 16, 8, 4, 4)
    model = build_model("pix2pix", architecture, GEOMETRY)
    data_root = str(given.scene / "train")
    options = {"model": "pix2pix", **vars(architecture), "data_root": data_root}
    save_checkpoint(given.checkpoint, {"model": model.state_dict(), "options": options})
    return [str(given.checkpoint), "no depth"]


def no_occlusion_net(given):
    model = flat_model(no_occlusion_net=True).state_dict()
    options = {"data_root": str(given.scene / "train")}
    save_checkpoint(given.checkpoint, {"model": model, "options": options})
    return [str(given.checkpoint), "no depth"]


def nothing_agrees(given):
    given.words += ["--data_root", given.scene / "test"]
    return [str(given.checkpoint), "3 poses agree on none"]


def no_folder(given):
    given.out = given.nothing / "points.ply"
    return [str(given.out), "No such file or directory"]


def folder_exists(given):
    given.out.mkdir()
    return [f"--out {given.out}: already exists"]


def file_exists(given):
    given.out.write_text("sparse points")
    return [f"--out {given.out}: already exists"]


@pytest.mark.parametrize(
    "spoil",
    [
        no_scene,
        scene_gone,
        no_run,
        no_logging_root,
        no_file,
        baseline,
        no_occlusion_net,
        nothing_agrees,
        no_folder,
        folder_exists,
        file_exists,
    ],
)
def test_bad_input_is_one_line_and_leaves_no_file(spoil, given, tmp_path, capfd):
    named = spoil(given)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as end:
        command(given.out, *given.words)
    assert end.value.code == 2
    *progress, line = capfd.readouterr().err.splitlines()
    assert not any("rror" in other for other in progress)
    assert line.startswith("evaluation.export: error: ")
    for text in named:
        assert text in line
    assert sorted(tmp_path.iterdir()) == before
    if spoil is file_exists:
        assert given.out.read_text() == "sparse points"


@pytest.mark.long
def test_the_cube_of_the_demo(tmp_path, capsys):
    """After the demo's training: half a voxel to the true surface on average, 90 % of what the
    training cameras see within one voxel of a point."""
    render_scene(
        [
            "--out",
            str(tmp_path / "cube"),
            "--sidelength",
            "64",
            "--train_views",
            "150",
            "--test_views",
            "1",
        ]
    )
    assert (
        train(
            "--train_test",
            "train",
            "--data_root",
            tmp_path / "cube" / "train",
            "--logging_root",
            tmp_path,
            *DEMO_SIZE,
            "--max_steps",
            1000,
            "--recipe",
            "fast",
            "--device",
            "cpu",
        )
        == 0
    )
    model, cam2world = export.load(find_checkpoint("latest", tmp_path), None, torch.device("cpu"))
    cloud = export.fuse_depth(model, cam2world)
    truth = Truth(cam2world, load_intrinsics(tmp_path / "cube" / "train" / "intrinsics.txt"))
    to_surface, to_cloud = (
        distance / model.geometry.voxel_size for distance in truth.distances(cloud)
    )
    with capsys.disabled():
        print(
            f"\n{len(cloud.points)} points, {to_surface.mean():.2f} voxels off on average, "
            f"{to_surface.max():.2f} at "
            f"most; {(to_cloud <= 1).mean():.1%} of the visible surface within one voxel of a "
            "point; normals "
            f"{np.median(truth.angles(cloud)):.1f} degrees off (median)"
        )
    assert to_surface.mean() <= 0.5
    assert (to_cloud <= 1).mean() >= 0.9
