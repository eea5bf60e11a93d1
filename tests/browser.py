"""A browser's window on the viewer, as a user has it: what it shows, its controls, and how to judge
a screenshot."""

import signal
import time
from collections.abc import Callable
from contextlib import contextmanager

import cv2
import imageio.v2 as imageio
import numpy as np

from evaluation.metrics import image_metrics
from geometry.coverage import world2pixels
from tests.helpers import running_viewer
from viewer.camera import Canvas, fitting_fov, place_on_canvas
from viewer.scene_objects import BOX_COLOR, box_edges

PATIENCE = 120_000  # milliseconds; WebGL in software on a busy machine is slow
STILL = 1500  # milliseconds
COUNT_PICTURES = """
window.pictures = 0;
const create = URL.createObjectURL;
URL.createObjectURL = (blob) => {
  if (blob.type.startsWith("image/")) window.pictures += 1;
  return create(blob);
};
"""


class Window:
    """A browser's window on the viewer."""

    def __init__(self, chromium, address):
        self.page = chromium.new_context(viewport={"width": 1100, "height": 600}).new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.add_init_script(COUNT_PICTURES)
        self.page.goto(address)
        self.page.get_by_label("Grid box").wait_for()
        self.wait_for_picture(0)
        notice = self.page.locator(".mantine-Notification-closeButton")
        if notice.count():
            notice.first.click()

    def close(self):
        self.page.context.close()

    def count(self) -> int:
        return self.page.evaluate("window.pictures")

    def wait_for_picture(self, after: int) -> None:
        self.page.wait_for_function(f"window.pictures > {after}")

    @property
    def box(self):
        return self.page.locator("canvas").first.bounding_box()

    @property
    def canvas(self) -> Canvas:
        return Canvas(round(self.box["width"]), round(self.box["height"]))

    def look(self) -> np.ndarray:
        """What the window shows, without the controls, once no picture has come for a while and
        nothing has changed."""
        before = None
        while True:
            now = self.count(), imageio.imread(self.page.screenshot(clip=self.box))[..., :3]
            if before is not None and now[0] == before[0] and np.array_equal(now[1], before[1]):
                return now[1]
            before = now
            self.page.wait_for_timeout(STILL)

    def wait_for(self, condition: Callable[[np.ndarray], bool]) -> np.ndarray:
        """Waits until what the window shows meets a condition, and returns it; fails after
        `PATIENCE`."""
        end = time.monotonic() + PATIENCE / 1000
        while not condition(shot := self.look()):
            assert time.monotonic() < end, "the window does not show what it should"
        return shot

    def drag(self, dx: int, dy: int) -> None:
        mouse = self.page.mouse
        count = self.count()
        x = self.box["x"] + self.canvas.width / 2
        y = self.box["y"] + self.canvas.height / 2
        mouse.move(x, y)
        mouse.down()
        mouse.move(x + dx, y + dy, steps=12)
        mouse.up()
        self.wait_for_picture(count)

    def choose(self, picture: str) -> None:
        self.page.get_by_label("Picture").click()
        self.page.get_by_role("option", name=picture, exact=True).click()

    def click(self, button: str) -> None:
        self.page.get_by_role("button", name=button, exact=True).click()

    def fill(self, label: str, text: str) -> None:
        # viser gives a text field no id that its label could name.
        field = self.page.locator(f'xpath=//label[.="{label}"]/ancestor::div[2]//input')
        field.fill(text)
        field.press("Enter")
        field.press("Tab")

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def wait_for_text(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()


@contextmanager
def window_on_run(chromium, logs):
    """A browser on a viewer of the newest run under `logs`."""
    words = ["--checkpoint", "latest", "--logging_root", logs]
    with running_viewer(*words, end=signal.SIGTERM) as address:
        window = Window(chromium, address)
        yield window
        window.close()


def psnr(shot, picture) -> float:
    shot = cv2.resize(shot, picture.shape[1::-1], interpolation=cv2.INTER_AREA)
    return image_metrics(shot / 255, picture / 255)["psnr"]


def red(shot) -> np.ndarray:
    """Pixels of the grid box's lines, (n, 2), x and y."""
    rows, columns = np.nonzero(np.abs(shot.astype(int) - BOX_COLOR).max(axis=2) < 60)
    return np.stack([columns, rows], axis=1) + 0.5


def box_on_canvas(view, cam2world, canvas) -> np.ndarray:
    """Points along the edges of the grid's box where our camera sees them on the canvas, (n, 2)."""
    share = np.linspace(0, 1, 401)[:, None]
    points = np.concatenate(
        [a * (1 - share) + b * share for a, b in box_edges(view.intrinsics.grid())]
    )
    pixels = world2pixels(points, cam2world[None], view.intrinsics.matrix(64))[0][0]
    left, top, side = place_on_canvas(view.lens, fitting_fov(view.lens, canvas), canvas)
    return np.array([left, top]) + (pixels - 5) * side / 54


def assert_box_agrees(shot, view, cam2world, canvas):
    """The drawn box and ours agree to 2 pixels of the window, a sixth of a pixel of the model's
    map."""
    ours = box_on_canvas(view, cam2world, canvas)
    drawn = red(shot)
    distance = np.linalg.norm(ours[:, None] - drawn[None], axis=2)
    inside = ((ours > 4) & (ours < np.array(canvas) - 4)).all(axis=1)
    assert inside.sum() > 1000
    assert np.percentile(distance[inside].min(axis=1), 97) < 2  # the axes cover a few points
    assert distance.min(axis=0).max() < 2.5
