"""A browser's side of the viewer without a browser: real handshakes, and viser's messages."""

import http.client
import time
from contextlib import contextmanager

import cv2
import msgspec.msgpack
import numpy as np
import viser
import websockets.sync.client
import zstandard

PROTOCOL = f"viser-v{viser.__version__}"
SECONDS = 120  # of patience, on a busy machine


def get(port: int, path: str = "/", at: str = "127.0.0.1", **headers) -> http.client.HTTPResponse:
    """The answer to a plain request, read. Header names are given with _ for -."""
    connection = http.client.HTTPConnection(at, port, timeout=SECONDS)
    try:
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        response.body = response.read()
        return response
    finally:
        connection.close()


def handshake(port: int, **headers) -> int:
    """The status of the answer to a WebSocket handshake: 101 if it is taken."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec_WebSocket_Protocol": PROTOCOL,
    }
    return get(port, **upgrade, **headers).status


class Client:
    """A connected client that shows and clicks what it is told. `controls` are the properties of
    the controls by their identifiers."""

    def __init__(self, socket: websockets.sync.client.ClientConnection):
        self.socket = socket
        self.controls: dict[str, dict] = {}
        self.messages: list[dict] = []
        self.texts: list[str] = []  # of all messages
        self.picture: np.ndarray | None = None  # the newest, RGB

    def look(self, position=(0.0, 0.0, -2.0), width=64) -> None:
        """Sends where the camera is; the first time, the viewer counts this client as connected."""
        self.send(
            "ViewerCameraMessage",
            wxyz=(1.0, 0.0, 0.0, 0.0),
            position=position,
            fov=1.0,
            near=0.01,
            far=100.0,
            image_height=64,
            image_width=width,
            look_at=(0.0, 0.0, 0.0),
            up_direction=(0.0, -1.0, 0.0),
        )

    def send(self, kind: str, **fields) -> None:
        self.socket.send(msgspec.msgpack.encode({"type": kind, **fields}))

    def receive(self, seconds: float) -> bool:
        """Reads one window of messages. Returns whether there was any."""
        try:
            data = self.socket.recv(timeout=seconds)
        except TimeoutError:
            return False
        size = int.from_bytes(data[8:16], "little")
        content = msgspec.msgpack.decode(
            zstandard.ZstdDecompressor().decompress(data[16 : 16 + size])
        )
        for message in content["messages"]:
            self.messages.append(message)
            self.texts.append(repr(message))
            if "uuid" in message and isinstance(message.get("props"), dict):
                self.controls[message["uuid"]] = {"type": message["type"], **message["props"]}
                self.controls[message["uuid"]]["value"] = message.get("value")
            elif message["type"] == "BackgroundImageMessage" and message["rgb_data"]:
                data = np.frombuffer(message["rgb_data"], np.uint8)
                self.picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
            elif message["type"] == "GuiUpdateMessage" and message["uuid"] in self.controls:
                self.controls[message["uuid"]].update(message["updates"])
        return True

    def wait_for(self, condition):
        """Reads until a condition on this client is met, and returns what it gave."""
        end = time.monotonic() + SECONDS
        while not (found := condition(self)):
            assert time.monotonic() < end, "the viewer did not send what it should"
            self.receive(0.1)
        return found

    def control(self, label: str) -> str | None:
        """The identifier of a control by its label."""
        for uuid, props in self.controls.items():
            if props.get("label") == label:
                return uuid
        return None

    def click(self, label: str, **updates) -> None:
        """Clicks a button, or sets what `updates` say of another control."""
        uuid = self.wait_for(lambda client: client.control(label))
        self.send("GuiUpdateMessage", uuid=uuid, updates=updates or {"value": True})

    def received(self, kind: str) -> list[dict]:
        """All messages of a kind until now."""
        return [message for message in self.messages if message["type"] == kind]

    def text(self) -> str:
        """All text that the controls show now."""
        return repr(list(self.controls.values()))


@contextmanager
def connected(port: int):
    """A client of the viewer at this port of this machine."""
    address = f"ws://127.0.0.1:{port}"
    with websockets.sync.client.connect(
        address,
        subprotocols=[PROTOCOL],
        origin=f"http://127.0.0.1:{port}",
        max_size=None,
        compression=None,
    ) as socket:
        client = Client(socket)
        client.look()
        yield client
