"""Scene folders and command lines at random, most of them wrong, as hypothesis strategies.

A spoiler is a function that damages a scene folder, given its path.
"""

import contextlib
import io
import shutil

from hypothesis import strategies as st
from PIL import Image

numbers = st.one_of(
    st.floats(width=32),
    st.floats(-3, 3),
    st.integers(-5, 500),
    st.sampled_from([0, 1, 1e30, -1e-30]),
)
words = st.one_of(numbers.map(str), st.text(max_size=6))
texts = st.one_of(
    st.lists(st.lists(words, max_size=6).map(" ".join), max_size=7)
    .map("\n".join)
    .map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(numbers.map(str), min_size=16, max_size=16).map(" ".join).map(str.encode),
    st.binary(max_size=60),
    st.just(b"1 " * 2_000_000),
)
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)
views = st.integers(0, 2)


def png(size, mode):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


pictures = st.one_of(
    st.binary(max_size=60),
    st.just(b""),
    st.builds(
        png,
        st.tuples(st.integers(1, 70), st.integers(1, 70)),
        st.sampled_from(["RGB", "RGBA", "L", "P", "1", "I;16"]),
    ),
    st.integers(0, 200).map(lambda length: png((64, 64), "RGB")[:length]),
)


def write(part, content):
    return lambda root: (root / part).write_bytes(content)


def spoil_pose(content, view):
    return write(f"pose/{view:06d}.txt", content)


def add_file(folder, name, suffix):
    def add(root):
        with contextlib.suppress(OSError):  # a name that this file system does not take
            (root / folder / f"{name}{suffix}").write_bytes(b"1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1")

    return add


def replace_with(kind, part):
    def replace(root):
        path = root / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        if kind == "file":
            path.write_bytes(b"text")
        elif kind == "folder":
            path.mkdir()
        elif kind == "broken link":
            path.symlink_to("nowhere")
        elif kind == "link to itself":
            path.symlink_to(path)

    return replace


spoilers = st.one_of(
    st.builds(spoil_pose, texts, views),
    st.builds(write, st.just("intrinsics.txt"), texts),
    st.builds(lambda content, view: write(f"rgb/{view:06d}.png", content), pictures, views),
    st.builds(add_file, st.sampled_from(["pose", "rgb"]), names, st.sampled_from([".txt", ".png"])),
    st.builds(
        replace_with,
        st.sampled_from(["nothing", "file", "folder", "broken link", "link to itself"]),
        st.sampled_from(["pose", "rgb", "intrinsics.txt", "pose/000001.txt", "rgb/000001.png"]),
    ),
    st.just(lambda root: None),
)

intrinsics = st.tuples(
    *(
        st.lists(numbers, min_size=count, max_size=count).map(lambda row: " ".join(map(str, row)))
        for count in (3, 3, 1, 1, 2)
    )
).map(lambda lines: write("intrinsics.txt", "\n".join(lines).encode()))

flags = st.one_of(
    st.tuples(
        st.sampled_from(
            ["--grid_dim", "--img_sidelength", "--proj_sidelength", "--num_grid_feats", "--nf0"]
        ),
        st.sampled_from(
            ["-1", "0", "1", "2", "3", "4", "7", "8", "12", "1e3", "99999999999", "x", ""]
        ),
    ),
    st.tuples(
        st.sampled_from(
            ["--lr", "--l1_weight", "--near_plane", "--seed", "--num_trgt", "--max_epoch"]
        ),
        st.one_of(
            st.sampled_from(["0", "1", "-1", "1e-9", "inf", "nan", "x", "", "99999999999999999999"])
        ),
    ),
    st.tuples(
        st.sampled_from(
            [
                "--sampling_pattern",
                "--device",
                "--precision",
                "--background",
                "--train_test",
                "--data_root",
                "--checkpoint",
                "--resume",
                "--model",
            ]
        ),
        st.one_of(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12),
            st.sampled_from(["all", "skip_1", "skip_9", "cpu", "black", "x" * 5000]),
        ),
    ),
    st.tuples(names.map(lambda name: f"--{name}")),
    st.tuples(names),
    st.just(()),
)
