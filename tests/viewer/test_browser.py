"""The viewer in a real browser, Debian's Chromium driven by playwright: `make test-browser`.

Each browser's first view is that of a training camera, so that its picture must be the command
line's frame of that pose, and what it draws must lie where our camera says.
"""

import json
import os
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import imageio.v2 as imageio
import numpy as np
import pytest
import trimesh
import viser
from playwright.sync_api import sync_playwright

from benchmarks.viewer import FLAGS
from checkpoints import load_checkpoint
from evaluation.output import read_frame
from evaluation.picture_grid import to_uint8
from evaluation.render import Frame
from files.runs import latest_checkpoint
from tests.browser import Window, assert_box_agrees, psnr, red, window_on_run
from tests.helpers import assert_same, render_arguments, run, start
from viewer import picture_choices
from viewer.camera import edge_color
from viewer.session import Address, Session

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def window(chromium, viewer):
    window = Window(chromium, viewer.address)
    yield window
    window.close()


def expected(trained_scene, choice, canvas) -> np.ndarray:
    """The picture of the first view as the command line rendered it, scaled as the viewer
    scales."""
    view = trained_scene.view
    frames = trained_scene.frames
    depth = np.load(frames / "depth_metric.npz")["depth"][view.first]
    frame = Frame(
        0, np.pad(read_frame(frames, view.first) / 255, ((5, 5), (5, 5), (0, 0))), depth
    )  # its lost border
    shot = picture_choices.Shot(
        frame, edge_color(to_uint8(frame.image)), picture_choices.photo(view.views, view.first)
    )
    return picture_choices.draw(choice, shot, view.lens, canvas)


def test_first_picture_is_the_command_lines_frame_of_a_training_pose(trained_scene, window):
    for choice in (
        picture_choices.COLOR,
        picture_choices.DEPTH,
        picture_choices.BESIDE_DEPTH,
        picture_choices.BESIDE_PHOTO,
    ):
        window.choose(choice)
        picture = expected(trained_scene, choice, window.canvas)
        window.wait_for(lambda shot, picture=picture: psnr(shot, picture) > 30)
    window.wait_for_text(f"photo {trained_scene.view.views.names[trained_scene.view.first]}")


def test_dragging_turns_the_picture_and_the_box_with_it(trained_scene, window, viewer):
    window.page.get_by_label("Grid box").check()
    first = window.look()
    view = trained_scene.view
    assert_box_agrees(first, view, view.views.cam2world[view.first], window.canvas)
    window.drag(150, -40)
    turned = window.look()
    assert psnr(turned, first) < 35
    window.wait_for_text("pictures/s")
    window.tab("Path")
    window.click("Add this view")
    window.fill("Name", "here")
    window.click("Save")
    window.wait_for_text("Saved paths/here")
    cam2world = np.array(
        json.loads((viewer.logs / "paths" / "here" / "keyframes.json").read_text())["keyframes"][0]
    )
    assert_box_agrees(turned, view, cam2world, window.canvas)
    # The camera turned around the grid: its distance and its height above the horizon are those of
    # the mouse alone.
    np.testing.assert_allclose(
        np.linalg.norm(cam2world[:3, 3]),
        np.linalg.norm(view.views.cam2world[view.first, :3, 3]),
        rtol=1e-3,
    )
    assert abs(cam2world[:3, 0] @ view.up) < 1e-6  # up is up
    window.page.set_viewport_size(
        {"width": 700, "height": 900}
    )  # the picture must follow the window's shape
    window.wait_for(lambda shot: shot.shape[0] > 700)
    assert_box_agrees(window.look(), view, cam2world, window.canvas)


# How many lines each label that is shown takes
LINES = """() => [...document.querySelectorAll("label[for]")].flatMap((label) => {
  if (!document.getElementById(label.htmlFor) || !label.offsetParent) return [];
  const text = document.createRange();
  text.selectNodeContents(label);
  const line = parseFloat(getComputedStyle(label).lineHeight);
  return [Math.round(text.getBoundingClientRect().height / line)];
})"""


def test_labels_take_one_line_each(window):
    """A longer one reaches down to the next control."""
    window.page.set_viewport_size({"width": 1280, "height": 720})
    for tab in ("View", "Path"):
        window.tab(tab)
        lines = window.page.evaluate(LINES)
        assert len(lines) >= 4
        assert set(lines) == {1}


STRANGER = """
<script>
  window.seen = [];
  for (const host of ["127.0.0.1", "localhost"]) {
    const socket = new WebSocket(`ws://${host}:PORT`, ["viser-vVERSION"]);
    for (const event of ["open", "message", "close"])
      socket.addEventListener(event, () => window.seen.push(event));
  }
</script>
"""


def test_a_page_of_somebody_else_cannot_drive_the_viewer(chromium, viewer, tmp_path):
    """It is open in the same browser, from another server of the same machine."""
    port = viewer.address.rpartition(":")[2]
    page = STRANGER.replace("PORT", port).replace("VERSION", viser.__version__)
    (tmp_path / "index.html").write_text(page)
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/index.html")
        page.wait_for_function("window.seen.length >= 2")
        assert page.evaluate("window.seen") == ["close", "close"]
        context.close()
        server.shutdown()
    Window(chromium, viewer.address).close()  # as its own page can


def test_the_printed_address_of_a_viewer_for_other_machines_opens_it(chromium, viewed, tmp_path):
    session = Session(viewed.scene, viewed.model, None, tmp_path, Address("0.0.0.0", 0))
    port = session.server.get_port()
    page = chromium.new_page()
    assert page.goto(f"http://127.0.0.1:{port}").status == 403
    page.close()
    window = Window(chromium, f"http://127.0.0.1:{port}/{session.address.rpartition('/')[2]}")
    window.drag(60, 0)
    window.close()
    session.close()


def test_learned_features_are_shown_as_points(window):
    window.choose(picture_choices.NOTHING)
    empty = window.look()
    window.page.get_by_label("Features").check()

    def drawn(shot):
        return (np.abs(shot.astype(int) - empty).max(axis=2) > 30).mean()

    points = window.wait_for(lambda shot: 0.01 < drawn(shot) < 0.9)
    assert (
        len(np.unique((points[points.max(axis=2) > points.min(axis=2) + 40] // 64), axis=0)) > 8
    )  # many colours
    window.page.get_by_label("Features").uncheck()
    window.wait_for(lambda shot: drawn(shot) == 0)
    window.page.get_by_label("Cameras").check()
    window.wait_for(lambda shot: drawn(shot) > 0.01)


def test_features_that_are_wanted_while_the_viewer_ends_are_no_error(
    chromium, viewed, tmp_path, capfd
):
    session = Session(viewed.scene, viewed.model, None, tmp_path / "logs", Address("127.0.0.1", 0))
    window = Window(chromium, session.address)
    session.shared.renderer.stop()
    window.page.get_by_label("Features").check()
    window.wait_for_text("Visibility")
    window.close()
    session.close()
    assert capfd.readouterr().err == ""


def test_learned_surface_is_shown_and_downloaded(window, tmp_path):
    window.choose(picture_choices.NOTHING)
    empty = window.look()
    window.page.get_by_label("Surface").check()
    with window.page.expect_download() as download:
        window.click("Download surface (PLY)")
    download.value.save_as(tmp_path / "surface.ply")
    count = len(trimesh.load(tmp_path / "surface.ply").vertices)
    window.wait_for_text(f"{count:,} points")
    shown = window.wait_for(
        lambda shot: (np.abs(shot.astype(int) - empty).max(axis=2) > 30).mean() > 0.01
    )
    window.page.get_by_label("Surface").uncheck()
    window.wait_for(lambda shot: np.array_equal(shot, empty))
    assert not np.array_equal(shown, empty)


def test_path_is_saved_rendered_downloaded_and_read_by_the_command_line(
    trained_scene, window, viewer, tmp_path
):
    window.tab("Path")
    for turn in range(3):
        window.click("Add this view")
        window.tab("View")
        window.drag(60, 10 * turn)
        window.tab("Path")
    window.fill("Seconds", "0.4")
    window.fill("Name", "round trip")
    window.click("Render video")
    window.wait_for_text("Rendered")
    with window.page.expect_download() as download:
        window.click("Download video")
    download.value.save_as(tmp_path / "video.mp4")
    (rendered,) = viewer.logs.glob("test_traj/*/*")
    assert (tmp_path / "video.mp4").read_bytes() == (rendered / "video.mp4").read_bytes()
    assert len(imageio.mimread(tmp_path / "video.mp4")) == 10
    saved = viewer.logs / "paths" / "round_trip"
    assert run(*render_arguments(saved, tmp_path / "again", trained_scene.late)) == 0
    (again,) = (tmp_path / "again").glob("test_traj/*/*")
    for frame in range(10):
        np.testing.assert_array_equal(read_frame(rendered, frame), read_frame(again, frame))
    # Later, or in another browser, the path can be edited further.
    window.page.reload()
    window.tab("Path")
    window.click("Load")
    window.click("Delete")
    window.fill("Name", "round trip")
    window.click("Save")
    window.wait_for_text("already exists")
    window.fill("Name", "shorter")
    window.click("Save")
    window.wait_for_text("Saved paths/shorter")
    assert (
        len(
            json.loads((viewer.logs / "paths" / "shorter" / "keyframes.json").read_text())[
                "keyframes"
            ]
        )
        == 2
    )


def test_two_browsers_look_from_their_own_places(chromium, window, viewer):
    other = Window(chromium, viewer.address)
    for each in (window, other):
        each.page.get_by_label("Grid box").check()
    before = other.look()
    window.drag(120, 0)
    moved = window.look()
    assert psnr(moved, before) < 35
    assert psnr(other.look(), before) > 45
    other.drag(-120, 20)
    assert psnr(other.look(), before) < 35
    assert psnr(window.look(), moved) > 45
    other.page.mouse.down()
    other.close()  # in the middle of a drag
    window.drag(-60, 0)
    assert psnr(window.look(), moved) < 35


def test_newer_checkpoint_appears_and_the_camera_stays(trained_scene, window, viewer):
    window.page.get_by_label("Grid box").check()
    window.drag(80, 20)
    before = window.look()
    window.wait_for_text("step 24")
    shutil.copy(trained_scene.early, viewer.checkpoint.with_suffix(".part"))
    os.replace(viewer.checkpoint.with_suffix(".part"), viewer.checkpoint)
    window.wait_for_text("step 12")
    window.wait_for(lambda shot: psnr(shot, before) < 35)
    window.choose(picture_choices.NOTHING)
    window.wait_for(lambda shot: np.median(shot) > 240)  # the browser's own white
    lines = red(window.look())
    same = red(before)
    np.testing.assert_allclose(
        [lines.min(axis=0), lines.max(axis=0)], [same.min(axis=0), same.max(axis=0)], atol=2
    )
    viewer.checkpoint.write_bytes(b"damaged")  # goes on, with a line
    window.choose(picture_choices.COLOR)
    window.drag(10, 0)


def test_curves_of_the_run_are_shown(trained_scene, chromium):
    with window_on_run(chromium, trained_scene.logs) as window:
        window.tab("Training")
        window.page.locator(".uplot canvas").nth(2).wait_for()  # loss, PSNR, PSNR of held-out views
        assert window.page.locator(".uplot canvas").count() == 3


def test_training_beside_a_viewer_is_the_same_to_the_bit(trained_scene, chromium, tmp_path):
    """While somebody flies through each checkpoint as it comes."""

    def train(name):
        logs = tmp_path / name
        shutil.copytree(trained_scene.logs, logs)
        with open(tmp_path / f"{name}.txt", "w") as output:
            return logs, start(
                "--train_test",
                "train",
                "--logging_root",
                logs,
                "--resume",
                "latest",
                "--max_steps",
                150,
                "--checkpoint_every",
                50,
                stdout=output,
                stderr=output,
            )

    watched, process = train("watched")
    drags = 0
    with window_on_run(chromium, watched) as window:
        while process.poll() is None:
            window.drag(40 if drags % 2 else -40, 5)
            drags += 1
        window.wait_for_text("step 150")
    assert drags > 3
    alone, process = train("alone")
    assert process.wait(timeout=600) == 0
    left, right = (load_checkpoint(latest_checkpoint(logs)) for logs in (watched, alone))
    for content in (left, right):
        del content["options"]  # folders
    assert_same(left, right)
