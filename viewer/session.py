"""Serves a scene to any number of browsers."""

import contextlib
import io
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import viser

from evaluation.trained import TrainedModel
from files.points import find_points, load_points
from util import InputError
from viewer.access import Access, guarding, refuses_strangers
from viewer.browser import Browser
from viewer.renderer import Renderer
from viewer.scene import SceneInView, orbit_center
from viewer.shared import Shared
from viewer.training_tab import Curves


class Server(viser.ViserServer):
    """viser's server, but no browser can open it to the world."""

    def request_share_url(self, verbose: bool = True) -> None:
        """Does not forward this port through a public server, which viser offers."""


class Address(NamedTuple):
    """Where to serve; port 0 is a free one. origins: see `Access`."""

    host: str
    port: int
    origins: Sequence[str] = ()


class Session:
    """The server and its browsers, until it is closed."""

    def __init__(
        self,
        scene: SceneInView,
        model: TrainedModel,
        curves: Curves | None,
        logging_root: Path,
        at: Address,
    ):
        points = None
        if file := find_points(scene.root):
            positions, colors = load_points(file)
            points = positions - scene.offset, colors
        access = Access(at.host, at.origins)
        self.server = start_server(at.host, at.port, access)
        self.address = access.address(self.server.get_port())
        self.shared = Shared(scene, model, Renderer(self._draw), logging_root, points, curves)
        self._browsers: dict[int, Browser] = {}
        set_first_view(self.server, scene)
        self.server.on_client_disconnect(self._disconnected)
        self.server.on_client_connect(self._connected)

    def show(self, model: TrainedModel | None = None) -> None:
        """Shows another model of the scene, or newer curves, to all browsers. They keep their
        cameras."""
        if model:
            self.shared.show(model)
        for browser in list(self._browsers.values()):
            browser.refresh()

    def close(self) -> None:
        """Ends the server and the rendering thread."""
        for browser in list(self._browsers.values()):
            browser.close()
        stop_server(self.server)
        self.shared.renderer.stop()

    def _connected(self, client: viser.ClientHandle) -> None:
        drop_late_messages(client)
        browser = self._browsers[client.client_id] = Browser(client, self.shared)
        if client.client_id not in self.server.get_clients():  # it has left meanwhile
            self._disconnected(client)
        browser.refresh()
        browser.actions.begin()

    def _disconnected(self, client: viser.ClientHandle) -> None:
        if browser := self._browsers.pop(client.client_id, None):
            browser.close()
        self.shared.renderer.forget(client.client_id)

    def _draw(self, client: int) -> None:
        if browser := self._browsers.get(client):
            browser.draw()


def set_first_view(server: viser.ViserServer, scene: SceneInView) -> None:
    """Makes a browser's first view that of the scene's first camera."""
    cam2world = scene.views.cam2world[scene.first]
    server.scene.set_up_direction(scene.up)
    camera = server.initial_camera
    camera.up = scene.up
    camera.position = cam2world[:3, 3]
    camera.look_at = orbit_center(cam2world, scene)
    camera.near = 0.01 * scene.intrinsics.scale
    camera.far = 1000 * scene.intrinsics.scale


def drop_late_messages(client: viser.ClientHandle) -> None:
    """Makes what is sent to a browser that has left go nowhere.

    A picture or a list is on its way when a browser leaves, which viser warns of and keeps.
    """
    connection = client.gui._websock_interface
    queue_message = connection.queue_message

    def queue_for_those_here(message: object) -> None:
        buffer = connection.get_message_buffer()
        if not buffer.done:
            with buffer.sanctioned_dead_writes():  # it may leave at this very moment
                queue_message(message)

    connection.queue_message = queue_for_those_here


def start_server(host: str, port: int, access: Access) -> Server:
    """A server that lets in whom `access` does. Raises `InputError` if the port cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # viser would take the next free port, wordless
        with socket.create_server((host, port), family=family):
            pass
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--port {port}: cannot be opened on --host {host} ({reason})") from None
    # viser prints a table of addresses
    with contextlib.redirect_stdout(io.StringIO()), guarding(access):
        server = Server(host, port, label="DeepVoxels", verbose=False)
    problem = None
    if port and server.get_port() != port:
        problem = f"--port {port}: was taken by another program"
    elif not refuses_strangers(host, server.get_port()):
        problem = (
            f"viser {viser.__version__}: cannot be kept from strangers; constraints.txt names a "
            "version that can"
        )
    if problem:
        stop_server(server)
        raise InputError(problem)
    return server


def stop_server(server: Server) -> None:
    """Stops it without a word, which viser would print."""
    with contextlib.redirect_stdout(io.StringIO()):
        server.stop()
