"""What the tab View does and says, without a browser."""

import itertools
import json
import re

import numpy as np

from tests.viewer.client import connected
from viewer import browser as browsers
from viewer.browser import COMPUTING, HINT
from viewer.paths import saved_paths


def test_back_to_the_start_leads_to_the_first_view(serve, viewed):
    first = viewed.scene.views.cam2world[viewed.scene.first]
    with connected(serve().server.get_port()) as client:
        client.click("Back to the start")
        client.wait_for(lambda client: client.received("SetCameraPositionMessage"))
        position = client.received("SetCameraPositionMessage")[-1]["position"]
        np.testing.assert_allclose(position, first[:3, 3], atol=1e-6)


def test_a_word_says_that_nothing_is_in_sight(serve):
    with connected(serve().server.get_port()) as client:
        client.wait_for(lambda client: client.picture is not None)
        assert not client.received("NotificationShowMessage")
        client.look(position=(0.0, 0.0, 5.0))  # looks away
        client.wait_for(lambda client: client.received("NotificationShowMessage"))
        assert "Nothing is in sight" in client.texts[-1]
        client.look()
        client.wait_for(lambda client: client.received("RemoveNotificationMessage"))


def test_what_takes_time_says_computing(serve):
    with connected(serve().server.get_port()) as client:
        client.wait_for(lambda client: any(COMPUTING in text for text in client.texts))
        client.wait_for(lambda client: HINT in client.text())
        client.click("Features", value=True)
        (shown,) = client.wait_for(lambda client: client.received("NotificationShowMessage"))
        assert shown["props"]["title"] == COMPUTING
        assert shown["props"]["loading"]
        client.wait_for(lambda client: client.received("RemoveNotificationMessage"))
        client.click("Visibility", value=0.3)  # is quick
        client.receive(1)
        assert len(client.received("NotificationShowMessage")) == 1


def test_mouse_and_keys_are_listed(serve):
    with connected(serve().server.get_port()) as client:
        client.wait_for(lambda client: "right-drag" in client.text())


def test_an_orbit_is_one_click(serve, tmp_path):
    session = serve()
    with connected(session.server.get_port()) as client:
        client.click("Orbit")
        client.wait_for(lambda client: "8.0 s in all" in client.text())
        client.click("Save")
        client.wait_for(lambda client: "Saved paths/path" in client.text())
    saved = json.loads((tmp_path / "logs" / "paths" / "path" / "keyframes.json").read_text())
    centers = np.array(saved["keyframes"])[:, :3, 3]
    assert saved["closed"]
    np.testing.assert_allclose(np.linalg.norm(centers, axis=1), np.linalg.norm(centers[0]))
    azimuths = np.degrees(np.unwrap(np.arctan2(centers[:, 1], centers[:, 0])))
    np.testing.assert_allclose(np.abs(np.diff(azimuths)), 45, atol=1e-3)


def test_a_keyframes_own_time_stays_with_it(serve, tmp_path):
    with connected(serve().server.get_port()) as client:
        client.click("Orbit")
        client.wait_for(lambda client: "8.0 s in all" in client.text())
        client.click("Keyframe", value="3")
        client.click("To the next", value=5.0)
        client.wait_for(lambda client: "12.0 s in all" in client.text())
        client.click("", value="Earlier")
        client.wait_for(lambda client: client.controls[client.control("Keyframe")]["value"] == "2")
        client.click("Save")
        client.wait_for(lambda client: "Saved paths/path" in client.text())
        client.click("To the next", value=119.0)
        client.wait_for(lambda client: "at most 120" in client.text())
    saved = json.loads((tmp_path / "logs" / "paths" / "path" / "keyframes.json").read_text())
    assert saved["legs"] == [0, 5, 0, 0, 0, 0, 0, 0]


def test_a_path_that_takes_too_long_is_shown_and_not_saved(serve, tmp_path):
    with connected(serve().server.get_port()) as client:
        client.click("Orbit")
        client.wait_for(lambda client: "8.0 s in all" in client.text())
        client.click("To the next", value=119.0)
        client.wait_for(lambda client: "126.0 s in all; at most 120 are allowed" in client.text())
        lines = len(client.received("LineSegmentsMessage"))
        client.click("Add this view")
        client.wait_for(lambda client: len(client.received("LineSegmentsMessage")) > lines)
        client.wait_for(lambda client: "126.4 s in all; at most 120 are allowed" in client.text())
        assert "Not done" not in client.text()
        for action in ("Save", "Preview", "Render video"):
            client.click("Name", value=action)
            client.click(action)
            client.wait_for(lambda client: "Not done:** the path takes" in client.text())
            client.click("Closed", value=action == "Preview")  # draws again, and says nothing
            client.wait_for(lambda client: "Not done" not in client.text())
    assert not (tmp_path / "logs").exists()


def test_a_video_is_named_as_its_path_is_now(serve, tmp_path):
    with connected(serve().server.get_port()) as client:
        client.click("Add this view")
        client.wait_for(lambda client: "'1'" in client.text())
        client.click("Seconds", value=0.1)
        for name in ("first", "second"):
            client.click("Name", value=name)
            client.click("Render video")
            client.wait_for(
                lambda client, name=name: re.search(f"Rendered .*_{name}", client.text())
            )
    assert saved_paths(tmp_path / "logs" / "paths") == ["first", "second"]


def test_the_render_size_can_be_smaller_than_the_models(serve):
    with connected(serve().server.get_port()) as client:
        client.wait_for(lambda client: client.picture is not None)
        assert client.picture.shape == (64, 64, 3)  # the canvas's
        client.click("Render size", value=40)
        client.wait_for(lambda client: client.picture.shape == (40, 40, 3))


def test_the_rate_is_said_again_after_a_slow_picture(serve, monkeypatch):
    monkeypatch.setattr(browsers, "SLOW", -1.0)  # all are
    with connected(serve().server.get_port()) as client:
        distances = itertools.count(2.0, 0.01)

        def rate_is_said(client):
            client.look(position=(0.0, 0.0, -next(distances)))
            return "pictures/s" in client.text()

        client.wait_for(rate_is_said)
        told = len(client.messages)
        client.look()
        client.wait_for(
            lambda client: (
                any(COMPUTING in text for text in client.texts[told:])
                and COMPUTING not in client.text()
            )
        )
        assert "pictures/s" in client.text()
