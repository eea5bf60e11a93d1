"""A capture of photos or of a video's frames.

    pictures = import_pictures(source, workspace, options)
    capture, missing = relate(pictures, matching="exhaustive")

Structure from motion finds their cameras.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from machine.progress import Progress
from scenes.capture.capture import Capture
from scenes.capture.colmap_model import capture_of
from scenes.capture.masks import find_masks, import_mask
from scenes.capture.options import CaptureOptions, split_views
from scenes.capture.photos import (
    KEPT_SIDE,
    exposure_warning,
    import_photo,
    kept_size,
    list_photos,
    require_different,
    require_one_size,
)
from scenes.capture.sfm import reconstruct
from scenes.capture.video import extract_frames
from util import InputError

MIN_REGISTERED = 3


@dataclass(frozen=True)
class PhotoSource:
    """A folder of photos, perhaps with one of masks; or a video, of which `frames` are taken."""

    photos: Path | None
    masks: Path | None
    video: Path | None
    frames: int

    @property
    def path(self) -> Path:
        return self.video or self.photos


@dataclass(frozen=True)
class Pictures:
    """Photos or frames in workspace/images, masks in workspace/masks. originals: the names for
    people, by plain name."""

    source: PhotoSource
    workspace: Path
    originals: dict[str, str]

    @property
    def folder(self) -> Path:
        return self.workspace / "images"

    def mask(self, name: str) -> Path:
        """Where the mask of the photo with this plain name lies."""
        return (self.workspace / "masks" / name).with_suffix(".png")


def import_pictures(source: PhotoSource, workspace: Path, options: CaptureOptions) -> Pictures:
    """Puts photos or frames, and masks, into the workspace.

    All input is checked here, before structure from motion takes its minutes. Prints a warning if
    exposures differ. Raises InputError.
    """
    side = max(KEPT_SIDE, options.sidelength or 0)
    originals = {}
    pictures = Pictures(source, workspace, originals)
    if source.video:
        originals |= extract_frames(source.video, source.frames, pictures.folder, side)
    else:
        originals |= _import_photos(pictures, side)
    # refuses a split that would fail in the end
    split_views(len(originals), options.test_every, options.val_every)
    warning = exposure_warning(
        [pictures.folder / name for name in originals], list(originals.values())
    )
    if warning:
        print(f"{source.path}: warning: {warning}")
    return pictures


def _import_photos(pictures: Pictures, side: int) -> dict[str, str]:
    source = pictures.source
    photos = list_photos(source.photos)
    size = require_one_size(photos)
    require_different(photos)
    masks = find_masks(source.masks, photos) if source.masks else []
    names = [
        import_photo(photo, pictures.folder, index, side)
        for index, photo in enumerate(Progress(photos, desc="photos", unit="photo"))
    ]
    for mask, photo, name in zip(masks, photos, names, strict=False):
        import_mask(mask, photo, size, kept_size(*size, side), pictures.mask(name))
    return dict(zip(names, (photo.name for photo in photos), strict=True))


def relate(pictures: Pictures, matching: str) -> tuple[Capture, list[str]]:
    """The capture of the pictures that could be related to each other, and the names of the others.

    matching: see `sfm.image_pairs`. Raises InputError if they are too few.
    """
    originals = pictures.originals
    model = reconstruct(pictures.folder, list(originals), pictures.workspace, matching)
    registered = 0 if model is None else model.num_reg_images()
    if registered < MIN_REGISTERED:
        raise InputError(
            f"{pictures.source.path}: only {registered} of {len(originals)} photos could be "
            "related to each other. Photos need texture (the background counts), sharpness, and "
            "neighbours a few degrees apart that show the same thing"
        )
    capture = capture_of(model, pictures.folder, named_by=pictures.source.path)
    missing = [original for name, original in originals.items() if name not in capture.names]
    masks = []
    if pictures.source.masks:
        masks = [pictures.mask(name) for name in capture.names]
    names = [originals[name] for name in capture.names]
    return replace(capture, names=names, masks=masks), missing
