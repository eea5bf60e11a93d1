"""How the viewer finds checkpoints and curves of a run that trains, and what it says when it
cannot."""

import os
import shutil
import socket
import threading

import numpy as np
import pytest
import torch

from checkpoints import save_checkpoint
from deep_voxels import Architecture, DeepVoxels
from losses import LossWeights
from tests.helpers import GEOMETRY, final_checkpoint
from training.tensorboard_log import TensorboardLog
from util import InputError
from viewer.__main__ import build_parser, serve, show_newest
from viewer.session import Address, Session
from viewer.training_tab import Curves, summaries_of
from viewer.watch import Watch


def run_folder(logs, name):
    folder = logs / "logs" / "11_21" / name
    folder.mkdir(parents=True)
    (folder / "options.json").write_text("{}")
    return folder


def save(folder, name, content=None):
    """A checkpoint as training saves it, with `latest.pth` pointing at it."""
    save_checkpoint(folder / name, content or {"model": {}})
    (folder / "latest.pth").unlink(missing_ok=True)
    (folder / "latest.pth").symlink_to(name)
    return folder / name


def test_latest_is_the_newest_run_and_each_newer_checkpoint_is_found_once(logs):
    save(run_folder(logs, "10-00-00_old"), "model-epoch_0_iter_1.pth")
    newest = run_folder(logs, "11-00-00_new")
    first = save(newest, "model-epoch_0_iter_1.pth")
    os.utime(first, ns=(2**62, 2**62))
    watch = Watch("latest", logs)
    assert watch.changed() == first.resolve()
    assert watch.changed() is None
    second = save(newest, "model-epoch_0_iter_2.pth")
    assert watch.changed() == second.resolve()
    assert watch.changed() is None
    other = save(run_folder(logs, "12-00-00_newer"), "model-epoch_0_iter_9.pth")
    os.utime(other, ns=(2**62 + 1, 2**62 + 1))
    assert watch.changed() is None  # another run is not followed
    (newest / "latest.pth").unlink()
    assert watch.changed() is None


def test_the_best_of_the_newest_run_is_followed(logs):
    """Before its first checkpoint of another kind too."""
    save(run_folder(logs, "10-00-00_old"), "model-epoch_0_iter_1.pth")
    folder = run_folder(logs, "11-00-00_new")
    save_checkpoint(folder / "best.pth", {"model": {}})
    watch = Watch("best", logs)
    assert watch.changed() == folder / "best.pth"
    assert watch.changed() is None
    save_checkpoint(folder / "best.pth", {"model": {}, "step": 2})
    assert watch.changed() == folder / "best.pth"


def test_file_that_is_replaced_is_found(tmp_path):
    path = tmp_path / "model.pth"
    save_checkpoint(path, {"model": {}})
    watch = Watch(str(path), tmp_path)
    assert watch.changed() == path
    save_checkpoint(path, {"model": {}, "step": 2})
    assert watch.changed() == path
    path.unlink()
    assert watch.changed() is None


def test_run_without_a_checkpoint_is_waited_for(logs, capsys):
    folder = run_folder(logs, "10-00-00_new")
    watch = Watch("latest", logs)
    stopped = threading.Event()
    later = threading.Timer(0.3, lambda: save(folder, "model-epoch_0_iter_1.pth"))
    later.start()
    assert watch.wait_for_first(stopped) == (folder / "model-epoch_0_iter_1.pth").resolve()
    later.join()
    assert capsys.readouterr().out.count("waiting for its first checkpoint") == 1
    stopped.set()
    assert Watch(str(run_folder(logs, "11-00-00_none")), logs).wait_for_first(stopped) is None


def test_a_folder_of_checkpoints_alone_shows_the_last_and_any_other_folder_is_refused(tmp_path):
    folder = tmp_path / "copied"  # from another machine, without latest.pth and options.json
    folder.mkdir()
    with pytest.raises(InputError, match=f"--checkpoint {folder}: is no run's folder"):
        Watch(str(folder), tmp_path)
    for step in (1000, 500):
        save_checkpoint(folder / f"model-epoch_0_iter_{step}.pth", {"model": {}})
    assert Watch(str(folder), tmp_path).changed() == folder / "model-epoch_0_iter_1000.pth"


@pytest.mark.parametrize("checkpoint", ["latest", "best", "nothing.pth"])
def test_no_run_and_no_file_are_errors(logs, checkpoint):
    with pytest.raises(InputError, match="--checkpoint"):
        Watch(checkpoint, logs)


def test_curves_are_those_of_the_summaries_while_they_grow(tmp_path):
    """Also of a run that was begun before tags had groups, and resumed since."""
    log = TensorboardLog(tmp_path, 1)
    curves = Curves(tmp_path, LossWeights())
    assert not curves.read()
    for step in (10, 20, 30):
        log.scalars(
            {"l1": 1 / step, "generator": 0.5, "discriminator": 0.7, "psnr": float(step)}, step
        )
    log.picture("depth", np.zeros((4, 4, 3), np.uint8), 30)
    assert curves.read()
    np.testing.assert_allclose(
        curves.points(), [[10, 20.5, 10], [20, 10.5, 20], [30, 200 / 30 + 0.5, 30]], rtol=1e-6
    )
    assert not curves.read()
    resumed = TensorboardLog(tmp_path, 21)  # from the checkpoint of step 20
    resumed.scalars({"train/l1": 0.0, "train/generator": 0.25, "train/psnr": 31.0}, 30)
    assert curves.read()
    np.testing.assert_allclose(curves.points()[-1], [30, 0.25, 31])
    assert len(curves.points()) == 3
    log.close()
    resumed.close()


def test_curves_show_the_held_out_views_where_they_are_measured(tmp_path):
    log = TensorboardLog(tmp_path, 1)
    curves = Curves(tmp_path, LossWeights())
    log.scalars({"train/l1": 0.1, "train/generator": 0.5, "train/psnr": 10.0}, 10)
    curves.read()
    assert curves.validation().shape == (0, 2)
    log.scalars({"val/psnr": 19.5, "val/ssim": 0.7}, 20)
    curves.read()
    log.scalars({"validation/psnr": 20.5}, 30)
    curves.read()
    np.testing.assert_allclose(curves.validation(), [[20, 19.5], [30, 20.5]])
    assert curves.points().shape == (1, 3)
    log.close()


def test_curves_have_a_bounded_number_of_points_and_the_last(tmp_path):
    curves = Curves(tmp_path, LossWeights(l1=1.0))
    curves._values = {
        step: {"train/l1": 0.0, "train/generator": 0.0, "train/psnr": 1.0}
        for step in range(10, 25_000, 10)
    }
    points = curves.points()
    assert 500 < len(points) <= 1000
    assert points[-1, 0] == 24_990


def test_summaries_belong_to_runs_under_the_logging_root(trained, tmp_path):
    _, logs, _ = trained
    path, _ = final_checkpoint(logs, 2)
    curves = Curves(summaries_of(path, logs), LossWeights())
    assert curves.read()
    assert curves.points()[-1, 0] == 2
    assert summaries_of(path, tmp_path) is None


@pytest.fixture
def session(viewed, tmp_path):
    session = Session(viewed.scene, viewed.model, None, tmp_path / "logs", Address("127.0.0.1", 0))
    yield session
    session.close()


def test_newer_checkpoint_is_shown_and_others_are_one_line(
    session, trained, viewed, tmp_path, capsys
):
    path = tmp_path / "model.pth"
    content = trained[2]
    save_checkpoint(path, content)
    watch = Watch(str(path), tmp_path)
    show_newest(session, watch)
    first = session.shared.model
    assert first is not viewed.model
    assert first.step == 2
    assert session.shared.title().endswith("step 2")
    pose = viewed.scene.views.cam2world[0]
    np.testing.assert_array_equal(
        first.render_view(pose).image, viewed.model.render_view(pose).image
    )

    changed = {
        name: tensor + 0.1 if name.startswith("rendering_net") and name.endswith("bias") else tensor
        for name, tensor in content["model"].items()
    }
    save_checkpoint(path, {**content, "model": changed, "step": 3})
    show_newest(session, watch)
    second = session.shared.model
    assert second.step == 3
    assert np.abs(second.render_view(pose).image - first.render_view(pose).image).max() > 0.01
    assert capsys.readouterr().err == ""

    path.write_bytes(path.read_bytes()[:1000])  # half a copy
    show_newest(session, watch)
    assert "is not a checkpoint" in capsys.readouterr().err
    narrower = DeepVoxels(Architecture(64, 16, 8, 2, 4), GEOMETRY).state_dict()
    save_checkpoint(path, {**content, "model": narrower})
    show_newest(session, watch)
    error = capsys.readouterr().err
    assert "another architecture" in error
    assert error.count("\n") == 1
    assert session.shared.model is second
    show_newest(session, watch)
    assert capsys.readouterr().err == ""  # said once


def test_closing_frees_the_port_and_ends_all_threads(viewed, tmp_path):
    before = set(threading.enumerate())
    session = Session(viewed.scene, viewed.model, None, tmp_path / "logs", Address("127.0.0.1", 0))
    port = session.server.get_port()
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    session.close()
    with socket.create_server(("127.0.0.1", port)):
        pass
    left = [
        thread
        for thread in set(threading.enumerate()) - before
        if thread.is_alive() and not thread.daemon
    ]
    assert left == []


def arguments(*words):
    return build_parser().parse_args([str(word) for word in words])


def test_port_in_use_is_named(trained):
    _, logs, _ = trained
    path, _ = final_checkpoint(logs, 2)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(InputError, match="--port") as error,
    ):
        serve(
            arguments(
                "--checkpoint", path, "--logging_root", logs, "--port", taken.getsockname()[1]
            ),
            threading.Event(),
        )
    assert "\n" not in str(error.value)


def test_scene_that_vanished_is_named(trained, tmp_path):
    scene, logs, content = trained
    moved = tmp_path / "model.pth"
    options = {**content["options"], "data_root": str(tmp_path / "gone")}
    save_checkpoint(moved, {**content, "options": options})
    with pytest.raises(InputError, match="gone.*--data_root"):
        serve(arguments("--checkpoint", moved, "--logging_root", logs), threading.Event())
    torch.save({"model": content["model"]}, moved)  # as the original's: no options
    with pytest.raises(InputError, match="give --data_root"):
        serve(arguments("--checkpoint", moved, "--logging_root", logs), threading.Event())
    stopped = threading.Event()
    stopped.set()
    shutil.copytree(scene, tmp_path / "scene")
    assert (
        serve(
            arguments(
                "--checkpoint",
                moved,
                "--logging_root",
                logs,
                "--data_root",
                tmp_path / "scene",
                "--port",
                0,
            ),
            stopped,
        )
        == 0
    )
