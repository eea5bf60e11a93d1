"""Whether folders of views are the ones that an earlier result is of, on whichever machine they
lie."""

import hashlib
import json
from pathlib import Path

from data_util import list_images, list_poses
from util import read_text


def fingerprint(*folders: Path) -> str:
    """A hash of scene folders, which need not lie where they lay: poses and intrinsics by content,
    images and true depth by name and size, so that none is read. Raises `InputError` for what
    cannot be read."""
    content = []
    for folder in folders:
        texts = [folder / "intrinsics.txt", *list_poses(folder / "pose")]
        others = [*list_images(folder / "rgb"), *sorted((folder / "depth").glob("*.npz"))]
        content.append(
            [[path.relative_to(folder).as_posix(), read_text(path)] for path in texts]
            + [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in others]
        )
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
