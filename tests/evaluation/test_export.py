"""The exported point cloud: fused from true depth of a cube, from a model by the command, and after
real training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import trimesh

from baselines import build_model
from checkpoints import save_checkpoint
from data_util import load_intrinsics
from deep_voxels import Architecture, DeepVoxels
from evaluation import export, learned_surface
from evaluation.fusion import DepthMaps, fuse, off_edges
from files.runs import find_checkpoint
from machine.cli import run
from scenes.render import main as render_scene
from tests.evaluation.true_cube import Truth
from tests.helpers import GEOMETRY
from tests.helpers import run as train

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


@pytest.mark.parametrize("map_side", [32, 64, 256, 512])
def test_colours_beside_the_border_that_training_never_sees_are_those_of_the_frame(map_side):
    colors = learned_surface.map_colors(np.full((502, 502, 3), 0.7, np.float32), map_side)
    np.testing.assert_allclose(colors, 0.7, rtol=1e-5)


def test_true_depth_fuses_into_the_surface(cube_views):
    """The cloud lies on what cameras see, covers it, and has its normals, outward, and its
    colour."""
    depth, colors, cam2world, geometry, truth = cube_views
    cloud = fuse(DepthMaps(depth, colors, cam2world, geometry))
    to_surface, to_cloud = truth.distances(cloud.points)
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
        fuse(DepthMaps(depth[-views:], colors[-views:], cam2world[-views:], geometry)).points
    )
    assert np.median(alone) > 1.5 * geometry.voxel_size
    to_surface, to_cloud = truth.distances(
        fuse(DepthMaps(depth, colors, cam2world, geometry)).points
    )
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


@pytest.mark.parametrize("suffix", ["ply", "glb"])
def test_the_command_writes_a_coloured_mesh(suffix, checkpoint, tmp_path, capsys):
    """Both formats hold the same triangles; GLB with y up, and its colours as light."""
    out = tmp_path / f"surface.{suffix}"
    command(out, "--checkpoint", checkpoint, "--mesh")
    loaded = trimesh.load_scene(out)
    (mesh,) = loaded.dump()
    assert f"{len(mesh.faces)} triangles" in capsys.readouterr().out
    model, cam2world = export.load(checkpoint, None, torch.device("cpu"))
    expected = learned_surface.fuse_mesh_of(model, cam2world)
    assert len(expected.faces) == len(mesh.faces) > 20
    vertices = mesh.vertices
    if suffix == "ply":
        colors = mesh.visual.vertex_colors[:, :3] / 255
    else:
        (stored,) = loaded.geometry.values()
        colors = stored.visual.vertex_attributes["color"][:, :3] / 255
        vertices = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1)
        colors = np.where(colors <= 0.0031308, 12.92 * colors, 1.055 * colors ** (1 / 2.4) - 0.055)
    corners = vertices[mesh.faces]
    np.testing.assert_allclose(corners, expected.vertices[expected.faces], atol=1e-5)
    np.testing.assert_allclose(colors[mesh.faces], expected.colors[expected.faces] / 255, atol=0.01)


@pytest.mark.parametrize("fuse", [learned_surface.fuse_depth, learned_surface.fuse_mesh_of])
def test_progress_rises_to_the_end(fuse, checkpoint, scene):
    model, cam2world = export.load(checkpoint, None, torch.device("cpu"))
    told = []
    fuse(model, cam2world, lambda done, total: told.append((done, total)))
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


def mesh_without_depth(given):
    given.words += ["--mesh"]
    return no_occlusion_net(given)


def mesh_that_is_nowhere(given):
    given.words += ["--mesh"]
    return nothing_agrees(given)


def mesh_of_another_format(given):
    given.out = given.out.with_suffix(".obj")
    given.words += ["--mesh"]
    return [f"--out {given.out}: a mesh is written as .ply or .glb"]


def points_as_glb(given):
    given.out = given.out.with_suffix(".glb")
    return [f"--out {given.out}: ", "--mesh"]


def points_of_another_format(given):
    given.out = given.out.with_suffix(".obj")
    return [f"--out {given.out}: a point cloud is written as .ply"]


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
        mesh_without_depth,
        mesh_that_is_nowhere,
        mesh_of_another_format,
        points_as_glb,
        points_of_another_format,
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
            "--ssim_weight",
            0,
            "--turn_roll",
            0,
            "--turn_tilt",
            0,
            "--device",
            "cpu",
        )
        == 0
    )
    model, cam2world = export.load(find_checkpoint("latest", tmp_path), None, torch.device("cpu"))
    truth = Truth(cam2world, load_intrinsics(tmp_path / "cube" / "train" / "intrinsics.txt"))
    cloud = learned_surface.fuse_depth(model, cam2world)
    to_surface, to_cloud = (
        distance / model.geometry.voxel_size for distance in truth.distances(cloud.points)
    )
    mesh = learned_surface.fuse_mesh_of(model, cam2world)
    triangles = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    from_mesh, to_mesh = (
        distance / model.geometry.voxel_size
        for distance in truth.distances(triangles.sample(100_000, seed=0))
    )
    with capsys.disabled():
        print(
            f"\n{len(cloud.points)} points, {to_surface.mean():.2f} voxels off on average, "
            f"{to_surface.max():.2f} at "
            f"most; {(to_cloud <= 1).mean():.1%} of the visible surface within one voxel of a "
            "point; normals "
            f"{np.median(truth.angles(cloud)):.1f} degrees off (median)\n"
            f"{len(mesh.faces)} triangles, {from_mesh.mean():.2f} voxels off on average, "
            f"{from_mesh.max():.2f} at most; {(to_mesh <= 1).mean():.1%} of the visible surface "
            f"within one voxel, {(to_mesh <= 0.5).mean():.1%} within half"
        )
    assert to_surface.mean() <= 0.5
    assert (to_cloud <= 1).mean() >= 0.9
    assert from_mesh.mean() <= 0.5
    assert (to_mesh <= 1).mean() >= 0.9
