"""The video of a test: colour at the frames' size, or enlarged, with depth, and slow enough."""

import cv2
import imageio.v2 as imageio
import numpy as np
import pytest

from data_util import color_depth
from evaluation.output import VideoLook, frames_per_second, video_picture
from evaluation.render import Frame
from tests.conftest import SMALL
from tests.helpers import final_checkpoint, render_arguments, run


def ramp() -> Frame:
    """A frame of 64 pixels that brightens to the right and whose depth has two levels."""
    columns = np.linspace(0, 1, 64, dtype=np.float32)
    depth = np.ones((16, 16), np.float32)
    depth[:, 8:] = 2
    return Frame(0, np.broadcast_to(columns[None, :, None], (64, 64, 3)), depth)


def test_colour_alone_at_the_frames_size():
    frame = ramp()
    picture = video_picture(frame, (0.5, 2.5), VideoLook())
    np.testing.assert_array_equal(picture, np.round(255 * frame.image))


def test_enlarged_smoothly_with_depth_in_squares_beside():
    picture = video_picture(ramp(), (0.5, 2.5), VideoLook(720, depth=True))
    assert picture.shape == (720, 1440, 3)
    image = picture[:, :720].astype(int)
    depth = picture[:, 720:]
    steps = np.diff(image, axis=1)
    assert 0 <= steps.min() <= steps.max() <= 1  # pixels as squares would step by 255 / 63
    assert set(map(tuple, depth.reshape(-1, 3))) == set(
        map(tuple, color_depth(np.array([[1.0, 2.0]]), 0.5, 2.5).reshape(-1, 3))
    )
    edge = np.flatnonzero(np.any(depth[0, 1:] != depth[0, :-1], axis=-1))
    assert abs(edge.item() + 1 - 720 * (32 - 2 - 5) / 54) <= 1


def test_what_is_brighter_than_white_stays_white():
    whole = np.zeros((64, 64, 3), np.float32)
    whole[:, 32:] = 1
    picture = video_picture(Frame(0, whole, None), (0.0, 1.0), VideoLook(720, depth=True))
    row = picture[360, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert np.diff(row).min() >= 0


@pytest.mark.parametrize(
    ("views", "rate", "seconds"), [(2, 2, 1), (24, 3, 8), (200, 25, 8), (500, 25, 20)]
)
def test_short_paths_are_shown_slowly(views, rate, seconds):
    assert frames_per_second(views) == rate
    assert views / rate == seconds


def test_the_flags_of_a_test(trained, tmp_path):
    scene, logs, _ = trained
    checkpoint, _ = final_checkpoint(logs, 2)
    words = render_arguments(scene / "train", tmp_path, checkpoint)
    assert run(*words, "--video_sidelength", 100, "--video_depth") == 0
    (path,) = tmp_path.glob("test_traj/*/*/video.mp4")
    assert imageio.mimread(path)[0].shape == (100, 200, 3)
    assert cv2.imread(str(path.with_name("img_00000.png"))).shape == (54, 54, 3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--video_sidelength", 40], "--video_sidelength 40: must be an even number from 54"),
        (["--video_sidelength", 101], "--video_sidelength 101: must be an even number"),
        (["--video_sidelength", 1440], "--video_sidelength 1440: must be an even number from 54"),
        (["--video_depth"], "--model nearest_neighbor has no depth"),
    ],
)
def test_what_cannot_be_is_refused(flags, message, scene, logs, assert_refused):
    words = ["--train_test", "test", "--data_root", scene / "test", "--logging_root", logs]
    assert_refused([*words, *SMALL, "--model", "nearest_neighbor", *flags], message)


def test_training_takes_none_of_them(train_arguments, assert_refused):
    assert_refused([*train_arguments, "--video_depth"], "--video_depth is for a test")
