"""`experiments.curve`: what each kept checkpoint of a run reaches on the held-out views."""
import json

import imageio.v2 as imageio
import pytest

from experiments.curve import main
from tests.helpers import arguments, final_checkpoint, render_arguments, run
from util import InputError


@pytest.fixture(scope="module")
def run_folder(trained, tmp_path_factory):
    scene, logs = trained[0], tmp_path_factory.mktemp("curve") / "logs"
    assert run(*arguments(scene, logs, "--max_steps", 4, "--checkpoint_every", 2, "--keep_checkpoints", 0)) == 0
    return final_checkpoint(logs, 4)[0].parent


def test_every_kept_checkpoint_is_measured_once_as_a_test_would(run_folder, trained, scene, tmp_path):
    out = tmp_path / "out"
    main(["--runs", str(run_folder), "--out", str(out), "--data_root", str(scene / "test"), "--device", "cpu"])
    points = json.loads((out / "curve.json").read_text())["checkpoints"]
    first, last = (points[str(path.resolve())] for path in (run_folder / "model-epoch_0_iter_2.pth",
                                                            run_folder / "model-epoch_0_iter_4.pth"))
    assert (first["step"], last["step"]) == (2, 4)
    assert 0 < first["minutes"] < last["minutes"]
    assert run(*render_arguments(scene / "test", tmp_path / "logs", run_folder / "model-epoch_0_iter_4.pth")) == 0
    (tested,) = (tmp_path / "logs").glob("test_traj/*/*/metrics.json")
    metrics = json.loads(tested.read_text())
    assert (last["psnr"], last["ssim"]) == pytest.approx((metrics["psnr"], metrics["ssim"]), abs=1e-4)
    assert f"{last['psnr']:.2f}" in (out / "curve.md").read_text()
    assert imageio.imread(out / "curve.png").shape == (2 * 360, 1440, 4)  # no depth is known

    points[str((run_folder / "model-epoch_0_iter_2.pth").resolve())]["psnr"] = 99.0  # marked, to be kept
    (out / "curve.json").write_text(json.dumps({"checkpoints": points}))
    main(["--runs", str(run_folder), "--out", str(out), "--data_root", str(scene / "test"), "--device", "cpu"])
    assert "99.00" in (out / "curve.md").read_text()


def test_a_resumed_run_goes_on_counting_its_minutes(run_folder, tmp_path, trained):
    _, whole = final_checkpoint(run_folder.parents[2], 4)
    assert run("--train_test", "train", "--logging_root", tmp_path / "logs", "--resume",
               run_folder / "model-epoch_0_iter_4.pth", "--max_steps", 5) == 0
    assert final_checkpoint(tmp_path / "logs", 5)[1]["seconds"] > whole["seconds"] > 0


def test_a_run_without_kept_checkpoints_is_refused(trained, tmp_path):
    for folder, count in [(final_checkpoint(trained[1], 2)[0].parent, "1 checkpoint,"), (tmp_path, "no checkpoints,")]:
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
    main(["--runs", str(run_folder), str(large), "--out", str(tmp_path / "out"), "--data_root", str(scene / "test"),
          "--device", "cpu"])
    assert len(json.loads((tmp_path / "out" / "curve.json").read_text())["checkpoints"]) == 4
