"""The recordings that the site shows: of the trained Lego model, made when the site is built for
the first time."""

import logging
from pathlib import Path

from viewer.record import main as record

ROOT = Path(__file__).parent.parent
RECORDINGS = {"lego_surface": ["surface", "cameras"], "lego_features": ["features"]}


def make_recordings(app, error: Exception | None) -> None:
    """Makes `recordings/NAME.html` in the built site, unless they are there."""
    if error or app.builder.name != "html":
        return
    logging.getLogger("websockets").setLevel(logging.WARNING)  # else a server's ends are printed
    folder = Path(app.outdir) / "recordings"
    folder.mkdir(exist_ok=True)
    scene = ROOT / "example" / "lego"
    for name, show in RECORDINGS.items():
        out = folder / f"{name}.html"
        if not out.exists():
            words = ["--checkpoint", f"{scene}.pth", "--data_root", str(scene), "--device", "cpu"]
            record([*words, "--show", *show, "--out", str(out)])
