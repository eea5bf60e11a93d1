"""The field of view that a browser chooses."""

import numpy as np
import pytest
import torch

from data_util import BORDER, load_intrinsics
from evaluation.trained import Checkpoint
from tests.conftest import hemisphere_poses
from tests.helpers import CPU
from tests.viewer.client import connected
from viewer.camera import lens_of
from viewer.paths import CameraPath, save_path
from viewer.zoom import Zoom, field_of_view, through_lens


def test_field_of_view_is_the_angle_between_the_pictures_sides(viewed):
    lens = viewed.scene.lens
    half = np.radians(field_of_view(lens)) / 2
    assert np.tan(half) * lens.focal == pytest.approx(lens.sidelength / 2 - BORDER)


def test_a_path_of_another_field_of_view_is_rendered_alike_by_the_command_line(
    viewed, trained, tmp_path
):
    """By its folder's intrinsics."""
    scene, model = through_lens(viewed.scene, viewed.model, 0.7)
    path = CameraPath(hemisphere_poses(2), 0.1, False)
    save_path(tmp_path / "wide", path, scene, model)
    intrinsics = load_intrinsics(tmp_path / "wide" / "intrinsics.txt")
    checkpoint = Checkpoint.of({"average": {}, **trained[2]}, tmp_path / "model.pth")
    loaded = checkpoint.load_model(intrinsics, CPU)
    pose = path.poses(1.0)[0]
    expected = loaded.render_view(pose)
    shown = model.render_view(pose)
    np.testing.assert_allclose(shown.image, expected.image, atol=1e-6)
    np.testing.assert_allclose(shown.depth, expected.depth, atol=1e-6)
    # Two steps of training give nearly one colour: what falls into the frustum tells more
    (ours, theirs, narrow) = (
        each.network.canonical_view_volumes(viewed.model.network.deepvoxels, each.poses(pose[None]))
        for each in (model, loaded, viewed.model)
    )
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert (ours - narrow).abs().max() > 0.1 * narrow.abs().max()


def test_the_field_of_view_reaches_the_browser_and_comes_back_with_a_path(serve, tmp_path):
    session = serve()
    zoom = Zoom(session.shared)
    wide = round(1.3 * zoom.training, 1)
    with connected(session.server.get_port()) as client:
        client.wait_for(lambda client: client.received("SetCameraFovMessage"))
        first = client.received("SetCameraFovMessage")[-1]["fov"]

        def is_wider(client):
            return client.received("SetCameraFovMessage")[-1]["fov"] > 1.2 * first

        client.click("View angle", value=wide)
        client.wait_for(is_wider)
        client.click("Orbit")
        client.wait_for(lambda client: "s in all" in client.text())
        client.click("Name", value="wide")
        client.click("Save")
        client.wait_for(lambda client: "Saved paths/wide" in client.text())
        client.click("Back to the start")
        client.wait_for(lambda client: not is_wider(client))
        client.click("Load")
        client.wait_for(is_wider)
    assert session.shared.model.geometry.focal == zoom.seen()[1].geometry.focal  # others' stays


def test_a_loaded_path_of_any_view_angle_is_rendered_as_it_was_saved(serve):
    session = serve()
    with connected(session.server.get_port()) as client:
        client.click("View angle", value=30.0)
        client.click("Add this view")
        client.wait_for(lambda client: "'1'" in client.text())
        client.click("Seconds", value=0.1)
        client.click("Save")
        client.wait_for(lambda client: "Saved paths/path" in client.text())
        slider = client.control("View angle")

        def told(degrees):
            updates = client.received("GuiUpdateMessage")
            return (slider, {"value": degrees}) in [
                (update["uuid"], update["updates"]) for update in updates
            ]

        client.click("Back to the start")
        client.wait_for(lambda _: told(round(Zoom(session.shared).training, 1)))
        client.click("Load")
        client.wait_for(lambda _: told(30.0))
        client.wait_for(lambda client: "Saved paths/path" not in client.text())
        client.click("Render video")
        client.wait_for(lambda client: "Rendered" in client.text())


def test_a_field_of_view_survives_its_intrinsics(viewed, serve):
    """Any that the slider can show."""
    zoom = Zoom(serve().shared)
    least, most = zoom.limits
    for tenths in range(round(10 * least), round(10 * most) + 1):
        zoom.choose(tenths / 10)
        chosen = zoom.degrees
        zoom.choose(field_of_view(lens_of(zoom.seen()[0].intrinsics, viewed.scene.lens.sidelength)))
        assert zoom.degrees == chosen


def test_the_field_of_view_has_limits(viewed, serve):
    zoom = Zoom(serve().shared)
    zoom.choose(1e9)
    assert zoom.degrees == zoom.limits[1]
    zoom.choose(round(zoom.training, 1))
    assert zoom.seen()[0] is viewed.scene
