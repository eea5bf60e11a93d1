"""Takes the pictures of docs/viewer.md and the moving one of the README in the browser.

    make view &
    python -m tests.viewer_pictures http://127.0.0.1:8080 docs

The first argument is the address that `make view` prints, the second the folder for the pictures.
"""

import shutil
import sys
from pathlib import Path

import cv2
from PIL import Image
from playwright.sync_api import sync_playwright

from benchmarks.viewer import FLAGS
from tests.browser import Window
from viewer import picture_choices
from viewer.browser import COMPUTING

TURNS = 36  # pictures of the moving one, which turns by 360 degrees
WIDTH = 400


def main(address: str, folder: Path) -> None:
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        window = Window(chromium, address)
        window.page.set_viewport_size({"width": 1100, "height": 620})

        def take(name: str) -> None:
            window.page.mouse.move(5, 610)  # where it points at nothing
            window.look()
            window.page.screenshot(path=folder / f"{name}.png")

        take("viewer")
        frames = []
        for _ in range(TURNS):
            window.drag(
                round(window.canvas.height / TURNS), 0
            )  # the canvas's height is a whole turn
            height = round(WIDTH * window.canvas.height / window.canvas.width)
            frame = Image.fromarray(
                cv2.resize(window.look(), (WIDTH, height), interpolation=cv2.INTER_AREA)
            )
            frames.append(frame.quantize(160, dither=Image.Dither.NONE))
        frames[0].save(
            folder / "viewer.gif", save_all=True, append_images=frames[1:], duration=120, loop=0
        )
        window.click("Back to the start")
        window.page.get_by_label("Grid box").check()
        window.choose(picture_choices.NOTHING)
        window.page.get_by_label("Features").check()
        window.wait_for_text(COMPUTING)
        window.page.get_by_text(COMPUTING).wait_for(state="hidden")
        take("viewer_features")
        window.page.get_by_label("Features").uncheck()
        window.page.get_by_label("Surface").check()
        window.page.get_by_role("button", name="Download surface (PLY)").wait_for()
        window.page.wait_for_timeout(5_000)
        take("viewer_surface")
        window.page.get_by_label("Surface").uncheck()
        window.page.get_by_label("Grid box").uncheck()
        window.choose(picture_choices.COLOR)
        window.tab("Path")
        window.page.mouse.move(400, 300)
        window.page.mouse.wheel(0, -500)  # so that the keyframes are in sight from farther away
        for turn in range(4):
            window.look()
            window.click("Add this view")
            window.drag(40, 10 * (-1) ** turn)
        window.drag(-100, 50)
        window.page.mouse.move(400, 300)
        window.page.mouse.wheel(0, 1200)
        take("viewer_path")
        chromium.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
