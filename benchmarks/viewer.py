"""How quick the viewer is in a browser on this machine: pictures per second while dragging, and
from mouse to picture.

    python -m benchmarks.viewer --checkpoint latest --logging_root LOGS

Needs playwright (requirements-dev.txt) and Chromium. The browser counts: a picture is shown in the
first animation frame after it is decoded. WebGL is computed in software, on the same cores as the
model.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

from machine.cli import Parser, number, run
from util import InputError

PROG = "benchmarks.viewer"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
MOVES = 30  # single moves of the mouse, for the time from mouse to picture
REST = 700  # milliseconds before each of them
WARM = 60.0  # seconds of dragging after which the viewer's memory should no longer grow
WATCH = """
window.shown = []; window.moved = [];
const create = URL.createObjectURL, revoke = URL.revokeObjectURL, images = new Set();
let waiting = false;
URL.createObjectURL = (blob) => {
  const url = create.call(URL, blob);
  if (blob.type.startsWith("image/")) images.add(url);
  return url;
};
URL.revokeObjectURL = (url) => {
  if (images.delete(url) && !waiting) {
    waiting = true;
    requestAnimationFrame(() => { waiting = false; window.shown.push(performance.now()); });
  }
  revoke.call(URL, url);
};
window.addEventListener("pointermove", () => window.moved.push(performance.now()), true);
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(PROG, __doc__)
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="as for the viewer")
    parser.add_argument("--logging_root", required=True, metavar="DIR", help="as for the viewer")
    parser.add_argument(
        "--window",
        nargs=2,
        type=number(int, 200, 8000),
        default=[1280, 720],
        metavar=("W", "H"),
        help="the browser's, in pixels (default: 1280 720)",
    )
    parser.add_argument(
        "--browsers", type=number(int, 1), default=1, help="that drag at once (default: 1)"
    )
    parser.add_argument(
        "--seconds", type=number(float, 1), default=10.0, help="of dragging (default: 10)"
    )
    args = parser.parse_args(argv)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("chromium: is not installed")
    viewer = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "viewer",
            "--checkpoint",
            args.checkpoint,
            "--logging_root",
            args.logging_root,
            "--port",
            "0",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        line = viewer.stdout.readline().strip()
        address = re.search(r"open (\S+)", line)
        if address is None:
            raise InputError(line or "the viewer did not start")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
            pages = [open_page(browser, address[1], args.window) for _ in range(args.browsers)]
            load = os.getloadavg()[0]
            delays = from_mouse_to_picture(pages[0])
            print(
                f"mouse to picture: median {np.median(delays):.0f} ms, 90 % within "
                f"{np.percentile(delays, 90):.0f}; "
                f"load before: {load:.1f}"
            )
            drag(pages, args.seconds, Path(f"/proc/{viewer.pid}"))
            browser.close()
    finally:
        viewer.send_signal(signal.SIGINT)
        viewer.wait()


def open_page(browser: Browser, address: str, window: list[int]) -> Page:
    """A browser's window on the viewer, with the mouse's button held down."""
    page = browser.new_page(viewport={"width": window[0], "height": window[1]})
    page.add_init_script(WATCH)
    page.goto(address, timeout=120_000)
    page.wait_for_function("window.shown.length > 0", timeout=120_000)
    page.wait_for_timeout(3000)
    move_mouse(page, 0, 0)
    page.mouse.down()
    return page


def move_mouse(page: Page, x: float, y: float) -> None:
    """Moves the mouse to this many pixels from where it went down, left of the middle."""
    window = page.viewport_size
    page.mouse.move(window["width"] // 3 + x, window["height"] // 2 + y)


def from_mouse_to_picture(page: Page) -> list[float]:
    """Milliseconds from single moves of the mouse to the next picture."""
    delays = []
    for step in range(MOVES):
        page.wait_for_timeout(REST)
        page.evaluate("() => { window.shown = []; window.moved = []; }")
        move_mouse(page, 6 * (step % 2 + 1), 0)
        page.wait_for_function("window.shown.length > 0")
        delays.append(page.evaluate("window.shown[0] - window.moved[0]"))
    return delays


def drag(pages: list[Page], seconds: float, viewer: Path) -> None:
    """Drags in all pages in turns, and prints the pictures that each got and what the viewer's
    process holds."""
    for page in pages:
        page.evaluate("() => { window.shown = []; }")
    started = time.monotonic()
    step = 0
    first = held(viewer)
    while (passed := time.monotonic() - started) < seconds:
        if passed < WARM:
            first = held(viewer)
        step += 1
        for page in pages:
            move_mouse(page, 150 * np.sin(step / 20), 40 * np.cos(step / 27))
        pages[0].wait_for_timeout(16)
    rates = [len(page.evaluate("window.shown")) / seconds for page in pages]
    print(f"dragging for {seconds:g} s: {', '.join(f'{rate:.1f}' for rate in rates)} pictures/s")
    if first:
        print(
            "the viewer held {} MiB, {} threads, {} open files; in the end {}, {}, {}".format(
                *first, *held(viewer)
            )
        )


def held(process: Path) -> tuple[int, int, int] | None:
    """Resident MiB, threads and open files of a process by its folder in /proc; None where there is
    none."""
    if not process.exists():
        return None
    pages = int((process / "statm").read_text().split()[1])
    return (
        pages * os.sysconf("SC_PAGE_SIZE") >> 20,
        len(list((process / "task").iterdir())),
        len(list((process / "fd").iterdir())),
    )


if __name__ == "__main__":
    run(PROG, main)
