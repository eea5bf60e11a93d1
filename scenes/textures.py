"""Procedural textures for the synthetic objects: RGB images made of noise, patterns and lettering."""
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

CAPTION = ("a persistent grid of features", "learned from images alone", "seen from any viewpoint")


def letter_panel(letter: str, color: tuple[int, int, int], size: int, seed: int) -> UInt8[np.ndarray, "size size 3"]:
    """A square of one color with a grained ground, a frame, a large letter and three lines of small print."""
    grain = noise((size, size), seed, finest=0.008)
    pixels = np.array(color) * (1 + 0.10 * grain[..., None])
    panel = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(panel)
    light, dark = (250, 246, 235), (35, 32, 40)
    inset = size * 0.05
    draw.rectangle([inset, inset, size - inset, size - inset], outline=light, width=size // 50)
    for number in range(25):  # a ruler along the frame: detail much finer than a voxel
        x = size * (0.08 + 0.84 * number / 24)
        draw.line([x, size * 0.085, x, size * (0.115 if number % 4 else 0.135)], fill=light, width=max(size // 200, 1))
    write(draw, letter, (size / 2, size * 0.42), size * 0.56, dark, stroke=0.035)
    for row, line in enumerate(CAPTION):
        write(draw, line, (size / 2, size * (0.755 + 0.065 * row)), size * 0.052, light)
    return np.array(panel)


def write(draw: ImageDraw.ImageDraw, text: str, center: tuple[float, float], height: float,
          color: tuple[int, int, int], stroke: float = 0.0) -> None:
    """Writes one line of text about `center`; `stroke` thickens it, as a share of the height."""
    draw.text(center, text, fill=color, anchor="mm", font=ImageFont.load_default(height),
              stroke_width=stroke * height)


def noise(shape: tuple[int, int], seed: int, finest: float) -> Float[np.ndarray, "h w"]:
    """Smooth noise of zero mean and unit deviation that repeats without a seam; `finest` is the size of its smallest
    grain as a share of the image's height."""
    spectrum = np.fft.rfft2(np.random.default_rng(seed).standard_normal(shape))
    down = np.fft.fftfreq(shape[0], 1 / shape[0])[:, None]
    across = np.fft.rfftfreq(shape[1], 1 / shape[0])
    frequency = np.hypot(down, across)
    grains = np.fft.irfft2(spectrum * np.exp(-(frequency * finest) ** 2) / (1 + frequency / 8), s=shape)
    return (grains - grains.mean()) / grains.std()
