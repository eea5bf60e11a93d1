"""Synthetic scenes: images, true depth, resuming, meshes from files."""

import json
import multiprocessing
import threading
import time

import numpy as np
import pytest
import trimesh
from PIL import Image
from trimesh.exchange.ply import export_ply
from trimesh.visual import ColorVisuals, TextureVisuals

from data_util import list_images, list_poses, load_image, load_intrinsics, load_pose
from geometry.cameras import look_at
from machine import cli
from scenes import render
from scenes.check import examine
from scenes.synthetic.mesh_file import load_meshes, load_surface
from scenes.synthetic.objects import OBJECTS
from scenes.synthetic.raycast import RayCaster
from scenes.synthetic.surface import Surface, fit_unit_cube
from util import InputError, write_json

UP = np.array([0.0, 0.0, 1.0])
MATRIX = np.array([[64.0, 0, 32], [0, 64, 32], [0, 0, 1]])
SMALL = ["--sidelength", "64", "--train_views", "6", "--test_views", "4"]


def quad(texture):
    """A square in the plane x = 0 that faces +x, z up: its lower left corner, seen from +x, is at y
    = z = -1/2."""
    corners = np.array([[0, -0.5, -0.5], [0, 0.5, -0.5], [0, 0.5, 0.5], [0, -0.5, 0.5]])
    visual = TextureVisuals(uv=np.array([[0, 0], [1, 0], [1, 1], [0, 1]]), image=texture)
    return trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)


def test_textures_are_not_mirrored_and_up_is_up():
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 255, 0, 0  # upper left
    pixels[0, 1] = 0, 255, 0  # upper right
    pixels[1, 0] = 0, 0, 255  # lower left
    caster = RayCaster(Surface.from_meshes([quad(Image.fromarray(pixels))]))
    image = caster.render(look_at(np.array([[2.0, 0, 0]]), np.zeros(3), UP)[0], MATRIX, 64, 2)
    assert (image[0, 0] == 255).all()
    assert (
        image[24, 24].argmax() == 0 and image[24, 40].argmax() == 1 and image[40, 24].argmax() == 2
    )


def test_depth_is_z_depth_at_pixel_centers_and_infinite_beside_the_object():
    caster = RayCaster(Surface.from_meshes(OBJECTS["cube"]()))
    depth = caster.depth(look_at(np.array([[2.0, 0, 0]]), np.zeros(3), UP)[0], MATRIX, 64)
    np.testing.assert_allclose(
        depth[20:44, 20:44], 1.5, atol=1e-5
    )  # the whole face, not just its middle
    assert np.isinf(depth[0, 0])


def test_every_object_fits_the_unit_cube_and_occupies_the_image():
    for name, build in OBJECTS.items():
        surface = Surface.from_meshes(fit_unit_cube(build()))
        assert np.abs(surface.corners).max() == pytest.approx(0.5, abs=1e-6), name
        image = RayCaster(surface.prefiltered(0.02)).render(
            look_at(np.array([[1.2, 1.2, 1.0]]), np.zeros(3), UP)[0], MATRIX, 64, 1
        )
        assert 0.1 < (image < 250).any(axis=2).mean() < 0.9, name
        assert image[(image < 250).any(axis=2)].std() > 10, name  # textured and lit


def test_scene_is_complete_and_checks_out(tmp_path):
    render.main(["--out", str(tmp_path / "cube"), *SMALL])
    for split, count in [("train", 6), ("test", 4)]:
        findings = examine(tmp_path / "cube" / split)
        assert len(findings.names) == len(findings.images) == count
        assert not findings.errors and not findings.warnings
    assert not list(tmp_path.glob("*.partial"))
    depth = np.load(tmp_path / "cube" / "test" / "depth" / "000000.npz")["depth"]
    image = load_image(tmp_path / "cube" / "test" / "rgb" / "000000.png")
    assert depth.dtype == np.float32 and depth.shape == image.shape[:2] == (64, 64)
    assert (image[np.isinf(depth)] > 100).mean() > 0.98 and image[
        32, 32
    ].max() < 250  # white where there is nothing
    near = load_intrinsics(tmp_path / "cube" / "test" / "intrinsics.txt").near_plane
    assert near < depth.min() and depth[np.isfinite(depth)].max() < near + 2.2


def test_interrupted_rendering_continues_with_the_same_settings_alone(tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    resumed = tmp_path / "resumed"
    render.main(["--out", str(whole), *SMALL])
    whole.rename(tmp_path / "resumed.partial")
    marked = tmp_path / "resumed.partial" / "train" / "rgb" / "000001.png"
    marked.write_bytes(b"finished earlier")
    missing = tmp_path / "resumed.partial" / "test" / "rgb" / "000002.png"
    before = missing.read_bytes()
    missing.unlink()
    with pytest.raises(InputError, match="seed was 0, now 1"):
        render.main(["--out", str(resumed), *SMALL, "--seed", "1"])
    render.main(["--out", str(resumed), *SMALL])
    assert (resumed / "train" / "rgb" / "000001.png").read_bytes() == b"finished earlier"
    assert (resumed / "test" / "rgb" / "000002.png").read_bytes() == before


def test_validation_views_are_others_than_the_training_views(tmp_path):
    """And work that was begun before there were any goes on without them."""
    render.main(["--out", str(tmp_path / "cube"), *SMALL, "--val_views", "6"])
    train, validation = (
        np.stack([load_pose(path) for path in list_poses(tmp_path / "cube" / split / "pose")])
        for split in ("train", "validation")
    )
    assert len(validation) == len(list_images(tmp_path / "cube" / "validation" / "rgb")) == 6
    assert (validation[:, 2, 3] > 0).all()
    distances = np.linalg.norm(train[:, None, :3, 3] - validation[None, :, :3, 3], axis=2)
    assert distances.min() > 0.1

    record = tmp_path / "plain.partial" / "scene.json"
    render.main(["--out", str(tmp_path / "plain"), *SMALL])
    (tmp_path / "plain").rename(record.parent)
    settings = json.loads(record.read_text())
    assert settings.pop("val_views") == 0
    write_json(record, settings)
    with pytest.raises(InputError, match="val_views was 0, now 2"):
        render.main(["--out", str(tmp_path / "plain"), *SMALL, "--val_views", "2"])
    render.main(["--out", str(tmp_path / "plain"), *SMALL])
    assert not (tmp_path / "plain" / "validation").exists()


@pytest.mark.parametrize(("suffix", "up"), [("obj", "z"), ("ply", "z"), ("glb", "y")])
def test_rendering_goes_on_that_was_begun_before_the_axis_was_recorded(tmp_path, suffix, up):
    """Then OBJ was z up too; scene.json says which axis the frames have."""
    mesh = tmp_path / f"tall.{suffix}"
    trimesh.creation.box((1, 3, 1)).export(mesh)
    command = ["--mesh", str(mesh), "--out", str(tmp_path / "out"), *SMALL]
    render.main([*command, "--mesh_up", up])
    partial = tmp_path / "out.partial"
    (tmp_path / "out").rename(partial)
    record = json.loads((partial / "scene.json").read_text())
    write_json(partial / "scene.json", {**record, "mesh_up": None})
    missing = partial / "test" / "rgb" / "000002.png"
    before = missing.read_bytes()
    missing.unlink()
    render.main(command)
    assert (tmp_path / "out" / "test" / "rgb" / "000002.png").read_bytes() == before
    assert json.loads((tmp_path / "out" / "scene.json").read_text())["mesh_up"] == up


def test_processes_render_what_one_does(tmp_path):
    for workers in ("1", "2"):
        render.main(["--out", str(tmp_path / workers), *SMALL, "--workers", workers])
    for path in (tmp_path / "1").rglob("*.png"):
        assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()


def test_a_killed_worker_ends_in_one_line_and_the_same_command_goes_on(tmp_path, capfd):
    """As the system kills one when memory runs out: while they render. (While the pool still starts
    its workers, Python 3.11 itself may stumble over a killed one.)
    """

    def kill_a_worker():
        while not list(tmp_path.rglob("*.png")):
            time.sleep(0.01)
        multiprocessing.active_children()[0].kill()

    command = [
        "--out",
        str(tmp_path / "cube"),
        "--sidelength",
        "64",
        "--train_views",
        "200",
        "--test_views",
        "4",
    ]
    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    assert cli.exit_code("scenes.render", lambda: render.main([*command, "--workers", "2"])) == 2
    killer.join()
    *_, line = capfd.readouterr().err.splitlines()
    assert line.startswith("scenes.render: error: --workers 2: a worker process was killed")
    assert {path.name for path in tmp_path.iterdir()} == {"cube.partial"}
    assert not multiprocessing.active_children()
    render.main([*command, "--workers", "1"])
    assert {path.name for path in tmp_path.iterdir()} == {"cube"}


@pytest.mark.parametrize("suffix", ["glb", "obj", "ply"])
def test_a_mesh_file_renders_as_the_object_it_was_made_from(tmp_path, suffix):
    """Textures through glb and obj, vertex colors through ply."""
    meshes = OBJECTS["chair"]() if suffix != "ply" else [trimesh.creation.icosphere(3)]
    if suffix == "ply":
        meshes[0].visual.vertex_colors = np.uint8((meshes[0].vertices * 0.5 + 0.5) * 255)
    path = tmp_path / f"object.{suffix}"
    (trimesh.Scene(meshes) if suffix != "ply" else meshes[0]).export(path)
    pose = look_at(np.array([[1.4, 1.2, 1.0]]), np.zeros(3), UP)[0]
    images = [
        RayCaster(Surface.from_meshes(fit_unit_cube(meshes)).prefiltered(0.02)).render(
            pose, MATRIX, 64, 2
        )
        for meshes in (meshes, load_meshes(path, up="z")[0])
    ]
    assert np.abs(images[0].astype(int) - images[1]).mean() < 1.0
    assert (images[0] < 250).any(axis=2).mean() > 0.1


def test_a_color_per_face_ends_at_its_edges(tmp_path):
    box = trimesh.creation.box()
    box.visual = ColorVisuals(
        box, face_colors=np.uint8([[20 * face, 0, 0, 255] for face in range(12)])
    )
    box.export(tmp_path / "box.ply")
    surface, _ = load_surface(tmp_path / "box.ply")
    np.testing.assert_allclose(
        surface.colors[..., 0], np.arange(12)[:, None].repeat(3, axis=1) * 20 / 255, atol=1e-6
    )


@pytest.mark.parametrize(
    "name", ["skin.png", r"C:\art\skin.png", r"..\skin.png", "/home/me/skin.png"]
)
def test_a_texture_of_another_machine_is_found_beside_the_mesh(tmp_path, name):
    Image.new("RGB", (2, 2), (9, 200, 9)).save(tmp_path / "skin.png")
    (tmp_path / "a.mtl").write_text(f"newmtl skin\nmap_Kd {name}\n")
    (tmp_path / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nvt 1 0\nvt 0 1\nusemtl skin\n"
        "f 1/1 2/2 3/3\n"
    )
    surface, hashes = load_surface(tmp_path / "a.obj")
    assert (surface.textures[0] == [9, 200, 9]).all() and None not in hashes.values()


@pytest.mark.parametrize(
    ("suffix", "up"), [("glb", "y"), ("obj", "y"), ("ply", "z"), ("stl", "z"), ("off", "z")]
)
def test_the_up_axis_is_the_formats_or_is_named(tmp_path, suffix, up, capsys):
    """glTF is y up by its own rule, OBJ as nearly all programs write it."""
    path = tmp_path / f"tall.{suffix}"
    trimesh.creation.box((1, 3, 1)).export(path)
    extents = load_meshes(path)[0][0].extents
    np.testing.assert_allclose(extents, [1, 1, 3] if up == "y" else [1, 3, 1], atol=1e-6)
    render.main(["--mesh", str(path), "--out", str(tmp_path / "out"), *SMALL])
    line = f"{path}: does not say which way is up; z is taken, or what --mesh_up says\n"
    assert (line in capsys.readouterr().out) == (up == "z")


@pytest.mark.parametrize("kind", ["obj", "off", "ply", "stl", "gltf"])
def test_a_byte_order_mark_is_passed_over(tmp_path, kind):
    """In the mesh and in its materials; without, the first vertex of an OBJ would be lost."""
    box = trimesh.creation.box((1, 3, 1))
    if kind == "obj":
        files = {
            "mesh.obj": b"v 0 0 0\nv 1 0 0\nv 0 3 0\nmtllib a.mtl\nusemtl red\nf 1 2 3\n",
            "a.mtl": b"newmtl red\nKd 1 0 0\n",
        }
    elif kind == "gltf":
        files = {
            name.replace("model", "mesh"): data for name, data in box.export(None, kind).items()
        }
    elif kind == "ply":
        files = {"mesh.ply": export_ply(box, encoding="ascii")}
    else:
        content = box.export(None, "stl_ascii" if kind == "stl" else kind)
        files = {f"mesh.{kind}": content.encode()}
    for name, data in files.items():
        mark = b"" if name.endswith(".bin") else b"\xef\xbb\xbf"
        (tmp_path / name).write_bytes(mark + data)
    (mesh,), _ = load_meshes(tmp_path / f"mesh.{kind}")
    assert sorted(mesh.extents) == ([0, 1, 3] if kind == "obj" else [1, 1, 3])
    if kind == "obj":
        assert mesh.visual.material.diffuse.tolist() == [255, 0, 0, 255]


@pytest.mark.parametrize("name", ["vertex_indices", "vertex_index"])
@pytest.mark.parametrize("binary", [False, True])
def test_triangle_strips_are_read(tmp_path, binary, name):
    """Two strips: an octahedron's upper half and one triangle of its lower half."""
    corners = np.float32([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    strip = [0, 1, 4, 2, -1, 2, 3, 4, 0, -1, 0, 5, 1]
    layout = "binary_little_endian" if binary else "ascii"
    header = (
        f"ply\nformat {layout} 1.0\nelement vertex 6\nproperty float x\nproperty float y\n"
        f"property float z\nelement tristrips 1\nproperty list int int {name}\n"
        "end_header\n"
    )
    content = corners.tobytes() + np.int32([len(strip), *strip]).tobytes()
    if not binary:
        rows = [*corners.tolist(), [len(strip), *strip]]
        content = "\n".join(" ".join(map(str, row)) for row in rows).encode() + b"\n"
    (tmp_path / "strips.ply").write_bytes(header.encode() + content)
    (mesh,), _ = load_meshes(tmp_path / "strips.ply")
    np.testing.assert_allclose(mesh.vertices, corners)
    outward = (mesh.face_normals * mesh.triangles_center).sum(axis=1)
    assert len(mesh.faces) == 5 and (outward > 0).all()


def test_poses_are_what_the_images_were_rendered_with(tmp_path):
    render.main(["--out", str(tmp_path / "cube"), *SMALL])
    folder = tmp_path / "cube" / "test"
    intrinsics = load_intrinsics(folder / "intrinsics.txt")
    record = json.loads((tmp_path / "cube" / "scene.json").read_text())
    surface = Surface.from_meshes(fit_unit_cube(OBJECTS["cube"]()))
    spacing = (record["radius"] - 0.5) / (intrinsics.focal * record["supersampling"])
    again = RayCaster(surface.prefiltered(spacing)).render(
        load_pose(folder / "pose" / "000003.txt"), intrinsics.matrix(64), 64, 2
    )
    np.testing.assert_array_equal(again, load_image(folder / "rgb" / "000003.png"))


@pytest.mark.parametrize("suffix", ["stl", "ply", "obj", "off", "glb"])
def test_a_round_mesh_is_shaded_round_and_an_edge_stays_sharp(tmp_path, suffix):
    """Also from STL, which repeats a vertex for each of its triangles."""
    trimesh.creation.icosphere(3).export(tmp_path / f"ball.{suffix}")
    ball, _ = load_surface(tmp_path / f"ball.{suffix}")
    outward = ball.corners / np.linalg.norm(ball.corners, axis=2, keepdims=True)
    assert (ball.normals * outward).sum(axis=2).min() > np.cos(np.radians(1))
    trimesh.creation.box().export(tmp_path / f"box.{suffix}")
    box, _ = load_surface(tmp_path / f"box.{suffix}")
    assert np.abs(box.normals).max(axis=2).min() > 1 - 1e-6


@pytest.mark.parametrize("content", ["", "v 0 0 0\nv 1 0 0\n", "no mesh at all \x00\x01"])
def test_a_mesh_without_faces_is_named(tmp_path, content):
    path = tmp_path / "points.obj"
    path.write_text(content)
    with pytest.raises(InputError, match="points.obj"):
        render.main(["--mesh", str(path), "--out", str(tmp_path / "out"), *SMALL])
    assert [entry.name for entry in tmp_path.iterdir()] == ["points.obj"]
