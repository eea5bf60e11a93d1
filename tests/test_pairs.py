"""Images and their poses: each image is that of its pose, or reading the scene ends with an
error."""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_util import list_images, list_poses, load_intrinsics, load_rgba, pair_views
from dataio import SceneOptions, load_scene
from deep_voxels import SIZES
from scenes import check
from training.data import load_training_scene
from util import InputError


def paired(images, poses):
    """The images' names in the order of the poses, which come as a folder lists them."""
    found = pair_views(
        Path("scene"),
        sorted(Path("rgb") / name for name in images),
        sorted(Path("pose") / name for name in poses),
    )
    return [path.name for path in found]


def test_names_pair_and_so_do_numbers():
    names = [f"{number:06d}" for number in range(3)]
    images = [f"{name}.png" for name in names]
    assert paired(images, [f"{name}.txt" for name in names]) == images
    poses = [f"{number:02d}.txt" for number in range(12)]
    assert paired([f"r_{number}.png" for number in range(12)], poses) == [
        f"r_{number}.png" for number in range(12)
    ]
    assert paired(["a-b.png", "a.jpg"], ["a.txt", "a-b.txt"]) == ["a-b.png", "a.jpg"]


def test_numbers_that_have_nothing_in_common_pair_in_their_order():
    images = [f"img_{number}.png" for number in range(9, 13)]
    assert paired(images, [f"{number}.txt" for number in range(98, 102)]) == [
        "img_11.png",  # of 100.txt, which a folder lists first
        "img_12.png",
        "img_9.png",
        "img_10.png",
    ]
    assert paired(["a.png", "b.png"], ["x.txt", "y.txt"]) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("images", "poses"),
    [
        (range(21), range(5, 26)),
        (range(1, 21), range(20)),
        ([0, 1, 3], [0, 1, 2]),
    ],
)
def test_numbers_that_agree_in_part_are_an_error(images, poses):
    with pytest.raises(InputError, match="give an image and its pose the same name"):
        paired(
            [f"frame_{number}.png" for number in images], [f"{number:06d}.txt" for number in poses]
        )


def test_reading_and_checking_say_it(scene, capsys):
    train = scene / "train"
    for path in sorted((train / "rgb").iterdir(), reverse=True):
        path.rename(path.with_name(f"{int(path.stem) + 2}.png"))
    with pytest.raises(InputError, match="6 of 8 poses have an image of their name or number"):
        load_scene(train, 64)
    with pytest.raises(SystemExit):
        check.main([str(train)])
    assert "error: " + str(train) + ": 6 of 8 poses have an image" in capsys.readouterr().out


def test_files_of_macos_and_byte_order_marks_are_passed_over(scene):
    train = scene / "train"
    expected = load_scene(train, 32)
    (train / "rgb" / "._000000.png").write_bytes(b"\0\5\x16\7")
    (train / "pose" / "._000000.txt").write_bytes(b"\0\5\x16\7")
    for path in (train / "intrinsics.txt", train / "pose" / "000003.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(list_images(train / "rgb")) == len(list_poses(train / "pose")) == 8
    assert load_scene(train, 32).fingerprint == expected.fingerprint


def test_the_check_warns_of_images_that_viewers_turn(scene, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = scene / "train" / "rgb" / "000002.png"
    with Image.open(path) as image:
        image.save(path, exif=exif)
    check.main([str(scene)])
    assert "1 images have an EXIF orientation, the first 000002.png" in capsys.readouterr().out


def test_the_check_ends_with_a_verdict_on_all_that_importers_warn_of(scene, capsys):
    for number, path in enumerate(sorted((scene / "test" / "rgb").iterdir())):
        Image.new("RGB", (64, 64), (150 + number,) * 3).save(path)
    check.main([str(scene)])
    assert "\nverdict: nothing is wrong\n" in capsys.readouterr().out
    shutil.copy(scene / "train" / "rgb" / "000003.png", scene / "test" / "rgb" / "000001.png")
    pose = scene / "train" / "pose" / "000005.txt"
    numbers = np.loadtxt(pose).reshape(4, 4)
    numbers[:3, :3] = np.round(numbers[:3, :3] + 1e-3, 3)
    np.savetxt(pose, numbers)
    Image.new("RGB", (64, 64), (9, 9, 9)).save(scene / "train" / "rgb" / "000006.png")
    check.main([str(scene)])
    report = capsys.readouterr().out
    load_training_scene(scene / "train", SIZES["small"], SceneOptions())
    assert "1 of 8 rotations are off by rounding" in capsys.readouterr().err  # training says it too
    assert "1 of 3 images are trained on too: 000001.png is the same picture as 000003" in report
    assert "1 of 8 rotations are off by rounding, the first of 000005.txt" in report
    assert "stops (from mean brightness; least 000006.png" in report
    assert "\nverdict: training can work; 3 warnings say what costs quality\n" in report


def test_intrinsics_of_scene_representation_networks_have_no_near_plane(tmp_path):
    path = tmp_path / "intrinsics.txt"
    path.write_text("131.25 64 63 0.\n0. 0.1 0.\n1.5\n128 126\n")
    read = load_intrinsics(path)
    assert (read.focal, read.grid_origin, read.near_plane) == (131.25, (0, 0.1, 0), 0)
    assert (read.scale, read.height, read.width, read.world2cam) == (1.5, 128, 126, False)
    path.write_text("131.25 64 63 0.\n0. 0.1 0.\n1.5\n128 126\n1\n")
    assert load_intrinsics(path).world2cam
    path.write_text("131.25 64 63 0.\n0. 0.1 0.\n0\n128 126\n")
    with pytest.raises(InputError, match="intrinsics.txt:3: the scale is 0"):
        load_intrinsics(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_gray_of_few_bits(tmp_path, bits):
    """Four pixels, of which the second's gray stands for transparency."""
    grays = [0, 1, 0, 0] if bits == 1 else [0, 1, 2, 3]

    def chunk(kind, data):
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    row = sum(gray << bits * (3 - index) for index, gray in enumerate(grays))
    row <<= -4 * bits % 8
    content = b"\x89PNG\r\n\x1a\n"
    content += chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0))
    content += chunk(b"tRNS", struct.pack(">H", 1))
    content += chunk(b"IDAT", zlib.compress(b"\0" + row.to_bytes((4 * bits + 7) // 8, "big")))
    (tmp_path / "a.png").write_bytes(content + chunk(b"IEND", b""))
    alpha = load_rgba(tmp_path / "a.png")[0, :, 3]
    np.testing.assert_array_equal(alpha, [255, 0, 255, 255])
