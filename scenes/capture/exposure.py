"""Tells whether photos were exposed differently: the same surface then has several brightnesses,
which none learns."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

EXIF_FOLDER = 0x8769
TIME = 0x829A
F_NUMBER = 0x829D
SENSITIVITY = 0x8827
MAX_STOPS = 1.0
MAX_STOPS_OF_BRIGHTNESS = 2.0  # more, because photos of one scene also differ in what they show
GAMMA = 2.2


def exposure_warning(photos: list[Path], names: list[str]) -> str | None:
    """A line if the most and the least exposed photo differ by more than a stop, a factor of two;
    else None.

    Judged by exposure time, aperture and sensitivity if all photos have them as EXIF data, else by
    mean brightness. `names` are the photos' names in the line.
    """
    stops = [exif_stops(photo) for photo in photos]
    limit = MAX_STOPS
    judged_by = "EXIF data"
    if None in stops:
        stops = [brightness_stops(photo) for photo in photos]
        limit = MAX_STOPS_OF_BRIGHTNESS
        judged_by = "mean brightness"
    low = int(np.argmin(stops))
    high = int(np.argmax(stops))
    if stops[high] - stops[low] <= limit:
        return None
    return (
        f"exposures differ by {stops[high] - stops[low]:.1f} stops (from {judged_by}; least "
        f"{names[low]}, most "
        f"{names[high]}), which blurs what is learned; lock exposure and white balance when you "
        "take photos"
    )


def exif_stops(photo: Path) -> float | None:
    """log2 of exposure time times sensitivity over the f-number squared; None if the photo does not
    tell."""
    with Image.open(photo) as image:
        values = image.getexif().get_ifd(EXIF_FOLDER)
    try:
        time, f_number, sensitivity = (
            float(np.ravel(values[tag])[0]) for tag in (TIME, F_NUMBER, SENSITIVITY)
        )
        stops = math.log2(time * sensitivity / f_number**2)
    except (KeyError, TypeError, ValueError, ArithmeticError, IndexError):
        return None
    return stops if math.isfinite(stops) else None  # a value of 0/0 is not a number


def brightness_stops(photo: Path) -> float:
    """log2 of the mean linear brightness, 0 for white; at least -10."""
    with Image.open(photo) as image:
        image.draft("L", (64, 64))
        gray = np.asarray(
            image.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=np.float64
        )
    return math.log2(max(((gray / 255) ** GAMMA).mean(), 2**-10))
