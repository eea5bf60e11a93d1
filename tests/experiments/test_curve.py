"""`experiments.curve`: what each kept checkpoint of a run reaches on the held-out views."""

import json
import re
import shutil

import imageio.v2 as imageio
import pytest

from experiments import curve
from experiments.curve import main
from tests.conftest import write_scene
from tests.helpers import arguments, final_checkpoint, render_arguments, run
from util import InputError


@pytest.fixture(scope="module")
def run_folder(trained, tmp_path_factory):
    scene = trained[0]
    logs = tmp_path_factory.mktemp("curve") / "logs"
    assert (
        run(
            *arguments(
                scene, logs, "--max_steps", 4, "--checkpoint_every", 2, "--keep_checkpoints", 0
            )
        )
        == 0
    )
    return final_checkpoint(logs, 4)[0].parent


def test_every_kept_checkpoint_is_measured_once_as_a_test_would(
    run_folder, trained, scene, tmp_path
):
    out = tmp_path / "out"
    words = ["--runs", run_folder, "--data_root", scene / "test"]
    points = points_of(out, *words)
    first, last = (
        points[str(path.resolve())]
        for path in (
            run_folder / "model-epoch_0_iter_2.pth",
            run_folder / "model-epoch_0_iter_4.pth",
        )
    )
    assert (first["step"], last["step"]) == (2, 4)
    assert 0 < first["minutes"] < last["minutes"]
    assert (
        run(
            *render_arguments(
                scene / "test", tmp_path / "logs", run_folder / "model-epoch_0_iter_4.pth"
            )
        )
        == 0
    )
    (tested,) = (tmp_path / "logs").glob("test_traj/*/*/metrics.json")
    metrics = json.loads(tested.read_text())
    assert (last["psnr"], last["ssim"]) == pytest.approx(
        (metrics["psnr"], metrics["ssim"]), abs=1e-4
    )
    assert f"{last['psnr']:.2f}" in (out / "curve.md").read_text()
    assert imageio.imread(out / "curve.png").shape == (2 * 360, 1440, 4)  # no depth is known

    points[str((run_folder / "model-epoch_0_iter_2.pth").resolve())]["psnr"] = (
        99.0  # marked, to be kept
    )
    (out / "curve.json").write_text(json.dumps({"checkpoints": points}))
    points_of(out, *words)
    assert "99.00" in (out / "curve.md").read_text()


def points_of(out, *more) -> dict[str, dict]:
    """The points in curve.json, by the checkpoint's path, after a call with these arguments."""
    main([str(word) for word in ["--out", out, "--device", "cpu", *more]])
    return json.loads((out / "curve.json").read_text())["checkpoints"]


def test_a_baseline_renders_from_the_views_that_its_training_had(scene, tmp_path):
    logs = tmp_path / "logs"
    out = tmp_path / "out"
    settings = ["--max_steps", 10, "--checkpoint_every", 5, "--keep_checkpoints", 0, "--lr", 0.01]
    assert (
        run(
            *arguments(scene, logs, *settings, "--model", "worrall", "--sampling_pattern", "skip_1")
        )
        == 0
    )
    last = final_checkpoint(logs, 10)[0]
    point = points_of(out, "--runs", last.parent)[str(last.resolve())]
    assert run(*render_arguments(scene / "test", logs, last)) == 0
    (tested,) = logs.glob("test_traj/*/*/metrics.json")
    metrics = json.loads(tested.read_text())
    assert (point["psnr"], point["ssim"]) == pytest.approx(
        (metrics["psnr"], metrics["ssim"]), abs=1e-4
    )


def test_other_views_and_a_replaced_checkpoint_are_measured_again(run_folder, scene, tmp_path):
    folder = tmp_path / "run"
    out = tmp_path / "out"
    shutil.copytree(run_folder, folder)
    first, last = (str(folder / f"model-epoch_0_iter_{step}.pth") for step in (2, 4))
    before = points_of(out, "--runs", folder, "--data_root", scene / "test")
    other = points_of(out, "--runs", folder, "--data_root", scene / "train")
    assert other[last]["psnr"] != before[last]["psnr"]
    shutil.copy(first, last)
    replaced = points_of(out, "--runs", folder, "--data_root", scene / "train")
    assert replaced[last]["psnr"] == replaced[first]["psnr"] != other[last]["psnr"]


def test_views_that_change_are_measured_again_and_others_are_not(scene, tmp_path, monkeypatch):
    """Without --data_root: test views that are made again, and validation views that are added."""
    logs = tmp_path / "logs"
    out = tmp_path / "out"
    assert (
        run(
            *arguments(
                scene, logs, "--max_steps", 2, "--checkpoint_every", 1, "--keep_checkpoints", 0
            )
        )
        == 0
    )
    last = final_checkpoint(logs, 2)[0]
    first = points_of(out, "--runs", last.parent)[str(last.resolve())]
    with monkeypatch.context() as context:
        context.setattr(
            curve, "read_checkpoint", lambda path: pytest.fail(f"{path} is loaded again")
        )
        assert points_of(out, "--runs", last.parent)[str(last.resolve())] == first
    shutil.copy(scene / "test" / "rgb" / "000000.png", scene / "test" / "rgb" / "000001.png")
    again = points_of(out, "--runs", last.parent)[str(last.resolve())]
    assert again["psnr"] != first["psnr"]
    write_scene(scene / "validation", views=2)
    validated = points_of(out, "--runs", last.parent)[str(last.resolve())]
    assert validated["inputs"]["views"] == str(scene / "validation")
    assert validated["psnr"] != again["psnr"]


def test_runs_with_one_name_keep_their_rows_and_are_told_apart(run_folder, scene, tmp_path):
    """As runs of one study that start in the same second."""
    other = tmp_path / "runs" / "other" / run_folder.name
    shutil.copytree(run_folder, other)
    points = points_of(tmp_path / "out", "--runs", run_folder, other, "--data_root", scene / "test")
    assert len(points) == 4
    names = re.findall(
        r"^\| (\S+) \| \d", (tmp_path / "out" / "curve.md").read_text(), re.MULTILINE
    )
    assert names == 2 * [f"{run_folder.parent.name}/{run_folder.name}"] + 2 * [
        f"other/{run_folder.name}"
    ]


@pytest.fixture
def meanwhile(monkeypatch):
    """Has an action happen once, right before the first checkpoint is read, as another process may
    do it."""

    def call(action) -> None:
        load = curve.read_checkpoint

        def load_after(*words):
            monkeypatch.setattr(curve, "read_checkpoint", load)
            action()
            return load(*words)

        monkeypatch.setattr(curve, "read_checkpoint", load_after)

    return call


def test_two_calls_at_once_keep_each_others_points(run_folder, scene, tmp_path, meanwhile):
    other = tmp_path / "other"
    more = ["--data_root", scene / "test"]
    shutil.copytree(run_folder, other)
    meanwhile(lambda: points_of(tmp_path / "out", "--runs", other, *more))
    points = points_of(tmp_path / "out", "--runs", run_folder, *more)
    assert set(points) == {
        str(folder.resolve() / f"model-epoch_0_iter_{step}.pth")
        for folder in (run_folder, other)
        for step in (2, 4)
    }


@pytest.mark.parametrize("removed", [["2"], ["2", "4"]])
def test_a_checkpoint_that_training_removes_meanwhile_is_left_out(
    run_folder, scene, tmp_path, meanwhile, capsys, removed
):
    live = tmp_path / "live"
    shutil.copytree(run_folder, live)
    words = ["--runs", live, "--data_root", scene / "test"]
    meanwhile(lambda: [(live / f"model-epoch_0_iter_{step}.pth").unlink() for step in removed])
    if len(removed) == 2:
        with pytest.raises(InputError, match=f"{live}: all checkpoints were removed"):
            points_of(tmp_path / "out", *words)
        assert not (tmp_path / "out").exists()
    else:
        assert list(points_of(tmp_path / "out", *words)) == [str(live / "model-epoch_0_iter_4.pth")]
        assert (tmp_path / "out" / "curve.png").exists()
    assert capsys.readouterr().err.count("iter_2.pth: was removed before it was measured") == 1


def test_a_resumed_run_goes_on_counting_its_minutes(run_folder, tmp_path, trained):
    _, whole = final_checkpoint(run_folder.parents[2], 4)
    assert (
        run(
            "--train_test",
            "train",
            "--logging_root",
            tmp_path / "logs",
            "--resume",
            run_folder / "model-epoch_0_iter_4.pth",
            "--max_steps",
            5,
        )
        == 0
    )
    assert final_checkpoint(tmp_path / "logs", 5)[1]["seconds"] > whole["seconds"] > 0


def test_a_run_without_kept_checkpoints_is_refused(trained, tmp_path):
    for folder, count in [
        (final_checkpoint(trained[1], 2)[0].parent, "1 checkpoint,"),
        (tmp_path, "no checkpoints,"),
    ]:
        with pytest.raises(InputError, match=f"--runs {folder}: holds {count} a curve needs two"):
            main(["--runs", str(folder), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_scene_without_held_out_images_is_named(run_folder, tmp_path):
    with pytest.raises(InputError, match="no held-out images"):
        main(["--runs", str(run_folder), "--out", str(tmp_path / "out")])


def test_runs_of_two_sizes_on_one_scene(run_folder, scene, tmp_path):
    settings = ["--max_steps", 2, "--checkpoint_every", 1, "--img_sidelength", 128]
    assert run(*arguments(scene, tmp_path / "logs", *settings)) == 0
    large = final_checkpoint(tmp_path / "logs", 2)[0].parent
    words = ["--runs", run_folder, large, "--data_root", scene / "test"]
    assert len(points_of(tmp_path / "out", *words)) == 4
