"""Procedural textures for the synthetic objects: RGB images of noise, patterns and lettering."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

CAPTION = ("a persistent grid of features", "learned from images alone", "seen from any viewpoint")


def letter_panel(
    letter: str, color: tuple[int, int, int], size: int, seed: int
) -> UInt8[np.ndarray, "size size 3"]:
    """A square of one color with grain, a frame, a large letter and three lines of small print."""
    grain = noise((size, size), seed, finest=0.008)
    pixels = np.array(color) * (1 + 0.10 * grain[..., None])
    panel = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(panel)
    light = (250, 246, 235)
    dark = (35, 32, 40)
    inset = size * 0.05
    draw.rectangle([inset, inset, size - inset, size - inset], outline=light, width=size // 50)
    for number in range(25):  # a ruler along the frame: detail much finer than a voxel
        x = size * (0.08 + 0.84 * number / 24)
        draw.line(
            [x, size * 0.085, x, size * (0.115 if number % 4 else 0.135)],
            fill=light,
            width=max(size // 200, 1),
        )
    draw_text(draw, letter, (size / 2, size * 0.42), Lettering(size * 0.56, dark, 0.035))
    for row, line in enumerate(CAPTION):
        center = (size / 2, size * (0.755 + 0.065 * row))
        draw_text(draw, line, center, Lettering(size * 0.052, light))
    return np.array(panel)


def glazed_bands(size: int, seed: int) -> UInt8[np.ndarray, "size _ 3"]:
    """A pot's glaze, twice as wide as high, wrapped around once: bands of ornament and a line of
    lettering."""
    width = 2 * size
    height = np.linspace(0, 1, size)[:, None]
    around = np.linspace(0, 2 * np.pi, width, endpoint=False)[None]
    grain = noise((size, width), seed, finest=0.006)
    cream, blue, rust = (
        np.array(color) for color in ((238, 226, 200), (38, 66, 128), (168, 74, 44))
    )
    pixels = cream * (1 + 0.05 * grain[..., None])
    waves = np.abs(height - 0.28 - 0.035 * np.sin(18 * around)) < 0.012
    from_middle = np.abs(height - 0.62)
    diamonds = (from_middle < 0.05) & (np.abs((around * 24 / np.pi) % 2 - 1) > from_middle * 20)
    rings = np.any(
        [np.abs(height - level) < 0.006 for level in (0.2, 0.36, 0.39, 0.53, 0.55, 0.69, 0.71)],
        axis=0,
    )
    pixels = np.where((waves | rings)[..., None], blue, pixels)
    pixels = np.where(diamonds[..., None], rust, pixels)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    title = Lettering(size * 0.075, tuple(blue.tolist()), 0.04)
    line = Lettering(size * 0.04, tuple(rust.tolist()))
    for number in range(4):
        x = width * (number + 0.5) / 4
        draw_text(draw, "DEEP VOXELS", (x, size * 0.465), title)
        draw_text(draw, CAPTION[number % 3], (x, size * 0.79), line)
    return np.array(image)


def grained(
    size: int, seed: int, color: tuple[int, int, int], veins: tuple[int, int, int], stretch: int
) -> UInt8[np.ndarray, "size size 3"]:
    """Wood (stretch well above 1: veins run along the rows) or marble (stretch 1); tiles without a
    seam."""
    fine = noise((size, size), seed, finest=0.005)
    coarse = noise((size, size), seed + 1, finest=0.03, stretch=stretch)
    share = 0.5 + 0.5 * np.sin(5 * coarse + 0.6 * fine)
    pixels = np.array(color) * (1 - share[..., None] ** 4) + np.array(veins) * share[..., None] ** 4
    return np.clip(pixels * (1 + 0.05 * fine[..., None]), 0, 255).astype(np.uint8)


class Lettering(NamedTuple):
    """height: of a line, in pixels. stroke: the thickness added, as a share of the height."""

    height: float
    color: tuple[int, int, int]
    stroke: float = 0.0


def draw_text(
    draw: ImageDraw.ImageDraw, text: str, center: tuple[float, float], lettering: Lettering
) -> None:
    """Writes one line of text centered at `center`."""
    draw.text(
        center,
        text,
        fill=lettering.color,
        anchor="mm",
        font=ImageFont.load_default(lettering.height),
        stroke_width=lettering.stroke * lettering.height,
    )


def noise(
    shape: tuple[int, int], seed: int, finest: float, stretch: int = 1
) -> Float[np.ndarray, "h w"]:
    """Smooth noise of zero mean and unit standard deviation that tiles without a seam.

    `finest` is the size of the smallest grain as a share of the image's height; along the rows,
    grains are `stretch` times as long.
    """
    spectrum = np.fft.rfft2(np.random.default_rng(seed).standard_normal(shape))
    down = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None]
    across = np.fft.rfftfreq(shape[1], 1 / shape[0])
    frequency = np.hypot(down, across * stretch)
    grains = np.fft.irfft2(
        spectrum * np.exp(-((frequency * finest) ** 2)) / (1 + frequency / 8), s=shape
    )
    return (grains - grains.mean()) / grains.std()
