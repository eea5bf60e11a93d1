"""Depth maps and pictures from elsewhere at random, as `foreign_files` does it for other files."""

import io
import os
import struct
import zlib

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from tests.foreign_files import changed, changes, picture


def depth_file(shape, kind, name, compressed, value):
    file = io.BytesIO()
    values = np.full(shape, value).astype(kind) if kind != "O" else np.array([{}] * 4, dtype=object)
    if compressed == "npy":
        np.save(file, values)
    else:
        (np.savez_compressed if compressed else np.savez)(file, **{name: values})
    return file.getvalue()


depth_contents = st.builds(
    lambda content, change: changed(content, change) if change else content,
    st.builds(
        depth_file,
        st.sampled_from([(64, 64), (0, 64), (64,), (), (3, 4, 5), (1, 1), (64, 1), (2048, 2048)]),
        st.sampled_from(["f4", "f8", "i4", "u1", "c8", "U3", "O", "?", "f2"]),
        st.sampled_from(["depth", "depth", "x"]),
        st.sampled_from([True, False, "npy"]),
        st.sampled_from([1.5, 0, -3]),
    ),
    st.none() | changes,
)


def png_that_claims(width, height, depth, color):
    """The start of a PNG, whose pixels are missing but for the first rows."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


picture_contents = st.one_of(
    st.builds(
        lambda kind, change: changed(kind, change),
        st.sampled_from(
            [
                picture(),
                picture(mode="RGBA"),
                picture("JPEG"),
                picture("JPEG", progressive=True),
                picture(mode="I;16"),
                picture(size=(300, 300)),
                picture(mode="P"),
            ]
        ),
        changes,
    ),
    st.sampled_from(
        [
            picture("GIF"),
            picture("BMP"),
            picture("TIFF"),
            picture("PPM"),
            picture("WEBP"),
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n",
            b"pipe",
            b"folder",
        ]
    ),
    st.builds(
        png_that_claims,
        st.sampled_from([8, 9, 11_000, 30_000, 2**31 - 1]),
        st.sampled_from([8, 11_000, 30_000]),
        st.sampled_from([8, 16]),
        st.sampled_from([2, 6]),
    ),
)


image_names = st.sampled_from(["0.png", "1.jpg", "2.JPEG"])


def encoded(pixels, image_format="JPEG"):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


def write_image_file(path, content):
    path.unlink(missing_ok=True)
    if content == b"pipe":
        os.mkfifo(path)
    elif content == b"folder":
        path.mkdir()
    else:
        path.write_bytes(content)
