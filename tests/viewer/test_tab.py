"""What the tab View does and says, without a browser."""

import numpy as np

from tests.viewer.client import connected
from viewer.browser import COMPUTING, HINT


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
