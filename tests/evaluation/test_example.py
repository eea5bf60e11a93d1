"""The trained scene that `make view` opens."""

import re
import shlex
import signal
import subprocess
import sys
from urllib.request import urlopen

from evaluation.trained import read_checkpoint
from tests.helpers import CPU, ENVIRONMENT, ROOT, make
from viewer.scene import load_scene_in_view, load_viewed_model

CHECKPOINT = ROOT / "example" / "lego.pth"


def test_make_view_opens_it():
    python = shlex.quote(sys.executable)
    shown = make("-n", "-o", ".venv/installed", "view", f"PY={python}").stdout
    command = shown.replace("\\\n", "")  # shlex, unlike a shell, keeps the end of a continued line
    viewer = subprocess.Popen(
        [*shlex.split(command), "--port", "0"],
        cwd=ROOT,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
    )
    try:
        address = re.search(r"open (\S+)", viewer.stdout.readline())[1]
        with urlopen(address) as page:
            assert page.status == 200
    finally:
        viewer.send_signal(signal.SIGINT)
        assert viewer.wait(timeout=30) == 0


def test_it_is_small_and_shows_an_object():
    checkpoint = read_checkpoint(CHECKPOINT)
    assert CHECKPOINT.stat().st_size < 6e6
    assert not any(
        "/" in str(value) for value in checkpoint.content["options"].values()
    )  # of the machine that trained it
    scene = load_scene_in_view(checkpoint, ROOT / "example" / "lego")
    model = load_viewed_model(checkpoint, scene, CPU)
    image = model.render_view(scene.views.cam2world[scene.first]).image
    height, width = image.shape[:2]
    corners = image[:8, :8]
    middle = image[height // 3 : -height // 3, width // 3 : -width // 3]
    assert corners.min() > 0.4  # white is 0.5
    assert middle.std() > 0.1
