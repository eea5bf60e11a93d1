"""Photos, videos and masks as phones and tools make them, before structure from motion; and those
that cannot work."""

import shutil
import struct
import subprocess

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pycolmap
import pytest
from PIL import Image, ImageFilter, ImageOps
from PIL.TiffImagePlugin import IFDRational

import colmap_wrapper
from data_util import load_image, write_image
from files.images import ORIENTATION_TAG, decode_rgba
from scenes.capture.masks import read_mask
from scenes.capture.photos import (
    exif_stops,
    exposure_warning,
    import_photo,
    kept_size,
    list_photos,
    require_one_size,
)
from scenes.capture.video import count_frames, decode_frames, extract_frames, sharpest
from util import InputError

EXIF_FOLDER = 0x8769
TIME = 0x829A
F_NUMBER = 0x829D
SENSITIVITY = 0x8827
FOCAL_35MM = 0xA405
RESOLUTION_UNIT = 0x0128
TEXT = 2
SHORT = 3


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


@pytest.fixture
def colors():
    """A picture of 60x40 pixels with a color in each quarter."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :, 0] = 250
    pixels[:, :30, 1] = 250
    return Image.fromarray(pixels)


def exif(orientation=1, time=0.01, sensitivity=100):
    data = Image.Exif()
    data[ORIENTATION_TAG] = orientation
    data.get_ifd(EXIF_FOLDER).update(
        {TIME: time, F_NUMBER: 1.8, SENSITIVITY: sensitivity, FOCAL_35MM: 28}
    )
    return data.tobytes()


def refused(tmp_path, match, *arguments):
    """The command ends with one line and has written nothing."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=match) as error:
        colmap_wrapper.main([*map(str, arguments), "--trgt_dir", str(tmp_path / "scene")])
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("suffix", ["jpg", "heic"])
def test_photos_lying_on_their_side_are_turned_upright(photos, colors, suffix):
    """By EXIF or by HEIC's own rotation: COLMAP and the images written must agree on what is up."""
    colors.save(photos / f"a.{suffix}", exif=exif(orientation=6), quality=95)
    Image.fromarray(np.rot90(np.asarray(colors), -1)).save(photos / "b.png")
    names = [
        import_photo(photo, photos / "placed", index, 1280)
        for index, photo in enumerate([photos / f"a.{suffix}", photos / "b.png"])
    ]
    turned, upright = (load_image(photos / "placed" / name).astype(int) for name in names)
    assert turned.shape == upright.shape == (60, 40, 3)
    assert np.median(np.abs(turned - upright)) <= 3
    assert require_one_size([photos / f"a.{suffix}", photos / "b.png"]) == (40, 60)


@pytest.mark.parametrize("suffix", ["jpg", "heic", "png"])
def test_large_photos_are_shrunk_by_area_and_keep_their_focal_length(photos, suffix):
    """The EXIF data's focal length follows the size."""
    ramp = np.tile(np.linspace(0, 255, 1200).astype(np.uint8)[:, None, None], (1, 800, 3))
    Image.fromarray(ramp).save(photos / f"a.{suffix}", exif=exif(), quality=95)
    name = import_photo(photos / f"a.{suffix}", photos / "placed", 0, 100)
    with Image.open(photos / "placed" / name) as image:
        assert image.size == kept_size(800, 1200, 100) == (100, 150)
        expected = ramp.reshape(150, 8, 100, 8, 3).mean(axis=(1, 3))
        assert np.abs(np.asarray(image) - expected).max() <= 3
    cameras = [pycolmap.infer_camera_from_image(photos / f"a.{suffix}")] if suffix != "heic" else []
    cameras.append(pycolmap.infer_camera_from_image(photos / "placed" / name))
    assert all(camera.has_prior_focal_length for camera in cameras)
    assert cameras[-1].focal_length == pytest.approx(
        cameras[0].focal_length * 150 / cameras[0].height, rel=1e-6
    )


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_stays_so_in_a_photo_that_is_shrunk(photos, mode):
    picture = Image.new("RGBA", (80, 60), (0, 0, 0, 0))
    picture.paste((90, 90, 90, 255), (0, 0, 40, 60))
    picture.convert(mode).save(photos / "a.png")
    placed = decode_rgba(
        photos / "placed" / import_photo(photos / "a.png", photos / "placed", 0, 30)
    )
    assert placed.shape == (30, 40, 4)
    assert (placed[:, :20] == (90, 90, 90, 255)).all() and (placed[:, 20:, 3] == 0).all()


def test_small_photos_are_copied_as_they_are(photos, colors):
    colors.save(photos / "a.JPG", exif=exif())
    name = import_photo(photos / "a.JPG", photos / "placed", 7, 1280)
    assert (
        name == "000007.jpg"
        and (photos / "placed" / name).read_bytes() == (photos / "a.JPG").read_bytes()
    )


def test_a_photo_cut_short_is_named(photos):
    """Although it is small enough to be copied."""
    Image.effect_noise((60, 40), 80).save(photos / "a.jpg")
    (photos / "a.jpg").write_bytes((photos / "a.jpg").read_bytes()[:1000])
    with pytest.raises(InputError, match="a.jpg: is not a readable image"):
        import_photo(photos / "a.jpg", photos / "placed", 0, 1280)


def test_exif_data_that_cannot_be_written_back_is_left_out(photos, colors):
    """A unit in words where the tag's type is a number: Pillow reads it, but cannot write it."""
    data = b"Exif\0\0II*\0" + struct.pack(
        "<IHHHIIHHI4sI", 8, 2, ORIENTATION_TAG, SHORT, 1, 6, RESOLUTION_UNIT, TEXT, 3, b"in", 0
    )
    colors.save(photos / "a.jpg", exif=data, quality=95)
    with Image.open(photos / "a.jpg") as image:
        assert image.getexif()[RESOLUTION_UNIT] == "in"
    placed = load_image(
        photos / "placed" / import_photo(photos / "a.jpg", photos / "placed", 0, 1280)
    )
    assert np.median(np.abs(placed.astype(int) - np.rot90(np.asarray(colors), -1))) <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(photos, colors, orientation):
    colors.save(photos / "a.png", exif=exif(orientation))
    with Image.open(photos / "a.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    for side in (1280, 20):
        placed = photos / "placed" / import_photo(photos / "a.png", photos / "placed", side, side)
        with Image.open(placed) as image:
            assert image.getexif().get(ORIENTATION_TAG, 1) == 1
            assert image.getexif().get_ifd(EXIF_FOLDER)[FOCAL_35MM] == 28
            shrunk = expected[:: len(expected) // image.height, :: len(expected) // image.height]
            np.testing.assert_array_equal(np.asarray(image), shrunk)
    np.testing.assert_array_equal(
        read_mask(photos / "a.png"), np.asarray(Image.fromarray(expected).convert("L"))
    )


def test_photos_of_16_bit_gray_keep_their_brightness(photos):
    Image.fromarray(np.full((40, 60), 25700, np.uint16)).save(photos / "a.png")
    assert (
        load_image(photos / "placed" / import_photo(photos / "a.png", photos / "placed", 0, 20))
        == 100
    ).all()


def test_photos_that_cannot_work_are_refused(tmp_path):
    photos = tmp_path / "photos"
    refused(tmp_path, "photos: no such folder", "--img_dir", photos)
    photos.mkdir()
    refused(tmp_path, "holds no photos .*; a video is given as --video", "--img_dir", photos)
    (photos / "walk.mp4").write_bytes(b"a video")
    refused(tmp_path, "walk.mp4: .*as --video", "--img_dir", photos / "walk.mp4")
    write_image(photos / "a.png", np.zeros((64, 64, 3), np.uint8))
    refused(tmp_path, "a.png: is the only photo", "--img_dir", photos)
    write_image(photos / "b.png", np.zeros((64, 48, 3), np.uint8))
    refused(tmp_path, "b.png: is 48x64 pixels, but 1 of 2 photos are 64x64", "--img_dir", photos)
    (photos / "b.png").write_text("not a photo")
    refused(tmp_path, "b.png: is not a readable image", "--img_dir", photos)
    (photos / "b.png").unlink()
    Image.new("RGB", (64, 64)).save(photos / "c.heic")
    content = (photos / "c.heic").read_bytes()
    (photos / "c.heic").write_bytes(content[: len(content) // 2])
    refused(tmp_path, "c.heic: is not a readable image", "--img_dir", photos)
    (photos / "c.heic").unlink()
    shutil.copy(photos / "a.png", photos / "a copy.png")
    write_image(photos / "b.png", np.full((64, 64, 3), 9, np.uint8))
    refused(
        tmp_path,
        "a.png: is the same picture as a copy.png; remove one of them",
        "--img_dir",
        photos,
    )


def test_photos_of_other_sizes_are_all_named(tmp_path, photos):
    for index in range(14):
        size = (60, 40) if index < 2 else (40, 60)
        Image.new("L", size, index).save(photos / f"{index}.png")
    Image.new("L", (9, 9)).save(photos / "9 by 9.png")
    match = (
        "/0.png: is 60x40 pixels, but 12 of 15 photos are 40x60 pixels.*"
        "Take out of the folder: 0.png, 1.png, 9 by 9.png$"
    )
    refused(tmp_path, match, "--img_dir", photos)
    for index in range(14):
        Image.new("L", (20 + index, 9)).save(photos / f"narrow {index}.png")
    refused(
        tmp_path, r"0.png, 1.png, 9 by 9.png, narrow 0.png, .* and 7 more$", "--img_dir", photos
    )


@pytest.mark.parametrize("suffix", ["webp", "tif", "TIFF"])
def test_photos_of_other_formats_become_png(photos, colors, suffix):
    colors.save(photos / f"a.{suffix}", lossless=True)
    name = import_photo(photos / f"a.{suffix}", photos / "placed", 0, 1280)
    assert name == "000000.png"
    np.testing.assert_array_equal(load_image(photos / "placed" / name), np.asarray(colors))


def test_photos_in_subfolders_and_one_of_each_shot(photos, colors, capsys):
    for name in ("100APPLE/b.heic", "100APPLE/b.jpg", "101APPLE/a.jpg", "100APPLE/c.png"):
        (photos / name).parent.mkdir(exist_ok=True)
        colors.save(photos / name)
    (photos / "100APPLE" / "._b.jpg").write_bytes(b"\0\5\x16\7")
    names = [str(path.relative_to(photos)) for path in list_photos(photos)]
    assert names == ["100APPLE/b.heic", "100APPLE/c.png", "101APPLE/a.jpg"]
    assert (
        "1 photos are there as HEIC too, which is taken, the first b.jpg" in capsys.readouterr().err
    )


@pytest.mark.parametrize("name", ["below/..", ".photos", "@photos"])
def test_a_folder_is_not_hidden_by_its_own_name(photos, colors, name):
    folder = photos / name
    (folder / "sub").mkdir(parents=True)
    for shot in ("a.png", "b.png", ".c.png", "sub/d.png"):
        colors.save(folder / shot)
    assert list_photos(folder) == [folder / "a.png", folder / "b.png"]


# Videos


def test_the_sharpest_frame_of_each_interval_is_taken(tmp_path):
    texture = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    blurred = [
        np.asarray(Image.fromarray(texture).filter(ImageFilter.GaussianBlur(radius)))
        for radius in (3, 2, 1, 2, 0.5, 3, 3, 0, 1)
    ]
    taken = list(sharpest(iter(blurred), total=9, count=3, side=20))
    assert [number for number, _ in taken] == [2, 4, 7]
    assert all(frame.shape == (20, 30, 3) for _, frame in taken)


def test_frames_of_a_video_are_numbered_and_show_what_the_video_shows(tmp_path):
    frames = [np.full((48, 64, 3), 20 * number, np.uint8) for number in range(10)]
    imageio.mimwrite(tmp_path / "walk.mp4", frames, fps=10, macro_block_size=2, quality=9)
    names = extract_frames(tmp_path / "walk.mp4", 5, tmp_path / "frames", 1280)
    assert list(names) == [f"{index:06d}.png" for index in range(5)]
    for index, (name, shown) in enumerate(names.items()):
        number = int(shown.removeprefix("frame "))
        assert number // 2 == index
        assert load_image(tmp_path / "frames" / name).mean() == pytest.approx(20 * number, abs=4)
    few = extract_frames(tmp_path / "walk.mp4", 300, tmp_path / "all", 1280)
    assert len(few) == 10


def test_each_frame_of_a_video_of_varying_frame_rate_is_decoded_once(tmp_path):
    """30 frames at 10 a second, then 60 at 30 a second, as a phone films in the dark and then in
    the light."""
    for number in range(90):
        write_image(tmp_path / f"{number:03d}.png", np.full((48, 64, 3), 30 + 2 * number, np.uint8))
    times = "settb=1/90000,setpts='if(lt(N,30),N*9000,270000+(N-30)*3000)'"
    subprocess.run(
        [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-loglevel",
            "error",
            "-r",
            "30",
            "-i",
            tmp_path / "%03d.png",
            "-vf",
            times,
            "-fps_mode",
            "passthrough",
            "-enc_time_base",
            "1/90000",
            tmp_path / "walk.mp4",
        ],
        check=True,
        timeout=60,
    )
    video = tmp_path / "walk.mp4"
    assert len(list(decode_frames(video, 90))) == count_frames(video) == 90
    names = extract_frames(video, 9, tmp_path / "frames", 1280)
    for index, (name, shown) in enumerate(names.items()):
        number = int(shown.removeprefix("frame "))
        assert number // 10 == index
        assert load_image(tmp_path / "frames" / name).mean() == pytest.approx(
            30 + 2 * number, abs=4
        )


def test_videos_that_cannot_work_are_refused(tmp_path, photos):
    video = tmp_path / "walk.mp4"
    refused(tmp_path, "walk.mp4: no such file", "--video", video)
    video.write_text("not a video")
    refused(tmp_path, "walk.mp4: is not a readable video", "--video", video)
    imageio.mimwrite(video, [np.zeros((48, 64, 3), np.uint8)], fps=10, macro_block_size=2)
    refused(tmp_path, "walk.mp4: has 1 frame", "--video", video)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--video", "a.mp4", "--img_dir", "photos"], "not allowed with"),
        ([], "required"),
        (["--video", "a.mp4", "--masks", "masks"], "--masks: needs the photos"),
        (["--img_dir", "photos", "--frames", "9"], "--frames: needs a --video"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit) as exit_info:
        colmap_wrapper.main([*arguments, "--trgt_dir", "scene"])
    error = capsys.readouterr().err
    assert exit_info.value.code == 2 and said in error and error.count("\n") == 1


def test_a_split_that_leaves_nothing_to_train_on_is_refused_before_structure_from_motion(
    tmp_path, photos
):
    """These photos show nothing that structure from motion could relate: its own line would come
    first."""
    for seed, name in enumerate(["a.png", "b.png", "c.png"]):
        Image.effect_noise((60, 40), 40 + seed).save(photos / name)
    refused(
        tmp_path, "--test_every 1: leaves 0 of 3 views", "--img_dir", photos, "--test_every", "1"
    )


# Masks


def test_masks_that_do_not_match_are_refused(tmp_path, photos, colors):
    masks = tmp_path / "masks"
    for name, time in (("a.jpg", 1), ("b.jpg", 2)):
        colors.save(photos / name, exif=exif(orientation=6, time=time))
    arguments = ["--img_dir", photos, "--masks", masks]
    refused(tmp_path, "masks: no such folder", *arguments)
    masks.mkdir()
    Image.new("L", (40, 60), 255).save(masks / "a.png")
    refused(tmp_path, r"masks: holds no mask for b.jpg, such as b.png \(1 of 2", *arguments)
    Image.new("L", (40, 60), 255).save(masks / "b.jpeg")
    Image.new("L", (40, 60), 255).save(masks / "b.png")
    refused(tmp_path, "b.png: and b.jpeg are masks for the same photo", *arguments)
    (masks / "b.jpeg").unlink()
    Image.new("L", (60, 40), 255).save(masks / "b.png")
    refused(tmp_path, "b.png: is 60x40 pixels, b.jpg is shown as 40x60; turn", *arguments)
    Image.new("L", (40, 61), 255).save(masks / "b.png")
    refused(tmp_path, "b.png: is 40x61 pixels, b.jpg is shown as 40x60", *arguments)
    Image.new("L", (40, 60), 0).save(masks / "b.png")
    refused(tmp_path, "b.png: has no white pixel", *arguments)
    (masks / "b.png").write_text("no image")
    refused(tmp_path, "b.png: is not a readable image", *arguments)


# Exposure


def test_different_exposures_are_named(photos, colors):
    for name, time, sensitivity in [("a", 1 / 100, 100), ("b", 1 / 50, 100), ("c", 1 / 100, 400)]:
        colors.save(photos / f"{name}.jpg", exif=exif(1, time, sensitivity))
    paths = [photos / f"{name}.jpg" for name in "abc"]
    assert exposure_warning(paths[:2], ["a", "b"]) is None  # one stop
    assert "2.0 stops (from EXIF data; least a, most c)" in exposure_warning(paths, ["a", "b", "c"])
    for name, level in (("d", 200), ("e", 80)):
        Image.new("RGB", (60, 40), (level,) * 3).save(photos / f"{name}.jpg")
    dark = [photos / "d.jpg", photos / "e.jpg"]
    assert "from mean brightness; least e, most d" in exposure_warning(dark, ["d", "e"])
    assert exposure_warning([paths[0], dark[0]], ["a", "d"]) is None


@pytest.mark.parametrize("tag", [TIME, F_NUMBER])
def test_an_exposure_of_zero_over_zero_tells_nothing(photos, colors, tag):
    data = Image.Exif()
    data.get_ifd(EXIF_FOLDER).update(
        {TIME: 0.01, F_NUMBER: 1.8, SENSITIVITY: 100, tag: IFDRational(0, 0)}
    )
    colors.save(photos / "a.jpg", exif=data.tobytes())
    with Image.open(photos / "a.jpg") as image:
        value = image.getexif().get_ifd(EXIF_FOLDER)[tag]
    assert (value.numerator, value.denominator) == (0, 0)
    assert exif_stops(photos / "a.jpg") is None


def test_an_exposure_too_large_to_be_squared_tells_nothing(photos, colors):
    data = Image.Exif()
    data.get_ifd(EXIF_FOLDER).update({TIME: 0.01, F_NUMBER: "1e200", SENSITIVITY: 100})
    colors.save(photos / "a.jpg", exif=data.tobytes())
    assert exif_stops(photos / "a.jpg") is None
