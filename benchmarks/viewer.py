"""How quick the viewer is in a browser on this machine: pictures per second while dragging, and from mouse to picture.

    python -m benchmarks.viewer --checkpoint latest --logging_root LOGS

Needs playwright (requirements-dev.txt) and Chromium. The browser counts: a picture is shown in the first animation
frame after it is decoded. WebGL is computed in software, on the same cores as the model.
"""
import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence

import numpy as np
from playwright.sync_api import Page, sync_playwright

from cli import Parser, number, run
from util import InputError

PROG = "benchmarks.viewer"
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
MOVES = 30  # single moves of the mouse, for the time from mouse to picture
REST = 700  # milliseconds before each of them
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
    parser.add_argument("--window", nargs=2, type=number(int, 200, 8000), default=[1280, 720], metavar=("W", "H"),
                        help="the browser's, in pixels (default: 1280 720)")
    parser.add_argument("--seconds", type=number(float, 1), default=10.0, help="of dragging (default: 10)")
    args = parser.parse_args(argv)
    chromium = shutil.which("chromium")
    if chromium is None:
        raise InputError("chromium: is not installed")
    viewer = subprocess.Popen([sys.executable, "-m", "viewer", "--checkpoint", args.checkpoint, "--logging_root",
                               args.logging_root, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"open (\S+)", viewer.stdout.readline())
        if address is None:
            raise InputError("the viewer did not start")
        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
            page = browser.new_page(viewport={"width": args.window[0], "height": args.window[1]})
            page.add_init_script(WATCH)
            page.goto(address[1], timeout=120_000)
            measure(page, args)
            browser.close()
    finally:
        viewer.send_signal(signal.SIGINT)
        viewer.wait()


def measure(page: Page, args: Namespace) -> None:
    page.wait_for_function("window.shown.length > 0", timeout=120_000)
    page.wait_for_timeout(3000)
    load = os.getloadavg()[0]
    x, y = args.window[0] // 3, args.window[1] // 2
    page.mouse.move(x, y)
    page.mouse.down()
    delays = []
    for move in range(MOVES):
        page.wait_for_timeout(REST)
        page.evaluate("() => { window.shown = []; window.moved = []; }")
        page.mouse.move(x + 6 * (move % 2 + 1), y)
        page.wait_for_function("window.shown.length > 0")
        delays.append(page.evaluate("window.shown[0] - window.moved[0]"))
    page.evaluate("() => { window.shown = []; }")
    started = page.evaluate("performance.now()")
    step = 0
    while page.evaluate("performance.now()") - started < 1000 * args.seconds:
        step += 1
        page.mouse.move(x + 150 * np.sin(step / 20), y + 40 * np.cos(step / 27))
        page.wait_for_timeout(16)
    page.mouse.up()
    shown = page.evaluate("window.shown")
    print(f"dragging: {len(shown) / args.seconds:.1f} pictures/s; mouse to picture: median "
          f"{np.median(delays):.0f} ms, 90 % within {np.percentile(delays, 90):.0f} ms; load before: {load:.1f}")


if __name__ == "__main__":
    run(PROG, main)
