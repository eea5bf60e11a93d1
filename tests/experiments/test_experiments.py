"""The paper's evaluation as commands: missing runs are run, finished ones skipped, failed ones are
gaps."""

import json
import os
import re

import imageio.v2 as imageio
import numpy as np
import pytest

from baselines import MODELS
from evaluation.output import write_png16
from experiments import execute, occlusion, sensitivity, table1
from experiments.status import read_commands
from machine.cli import run as run_command
from scenes import noise
from tests.conftest import SMALL, write_scene
from tests.experiments import write_record
from tests.helpers import assert_one_line
from training.run_folder import RunLock
from util import write_json


@pytest.fixture
def fake_commands(monkeypatch):
    """Runs take no time: a test writes gray frames and metrics, a training a checkpoint. Returns
    the list of command lines, and the function whose `fail` holds texts: commands that contain one
    of them fail."""
    commands = []

    def call(root, line, *_):
        words = dict(zip(line, line[1:], strict=False))
        if line[:2] == ["-m", "scenes.noise"]:
            noise.main(line[2:])
            return True
        commands.append(" ".join(line[1:]))
        failed = any(word in commands[-1] for word in call.fail)
        (root / "log.txt").write_text("error: out of luck\n")
        write_json(
            root / "commands.json",
            {
                "commands": [
                    *read_commands(root),
                    {
                        "command": commands[-1],
                        "where": "here",
                        "log_begin": 0,
                        "seconds": 1.0,
                        "exit_code": int(failed),
                    },
                ]
            },
        )
        if failed:
            return False
        if words["--train_test"] == "train":
            logs = root / "logs" / "01_01" / "run"
            logs.mkdir(parents=True, exist_ok=True)
            (logs / "model-epoch_0_iter_3.pth").touch()
            return True
        folder = root / "test_traj" / "01_01" / "run"
        folder.mkdir(parents=True)
        for view in range(3):
            write_png16(folder / f"img_{view:05d}.png", np.full((54, 54, 3), 0.5))
        np.savez(folder / "depth_metric.npz", depth=np.full((3, 16, 16), 1.5, np.float32))
        (folder / "metrics.json").write_text(
            json.dumps(
                {
                    "psnr": 20.0 + int(words["--seed"]),
                    "ssim": 0.5,
                    "parameters": 7,
                    "model": words["--model"],
                    "depth": {
                        "mean_absolute_error": 0.1,
                        "within_one_voxel": 0.75,
                        "voxel_size": 0.05,
                    },
                    "protocol": {"sidelength": 64, "background": "white"},
                }
            )
        )
        return True

    call.fail = []
    monkeypatch.setattr(execute, "_call", call)
    monkeypatch.setattr("experiments.study.check_first", lambda *_: None)
    return commands, call


def arguments(scene, out, *more):
    return [str(word) for word in ["--scenes", scene, "--steps", 3, "--out", out, *SMALL, *more]]


def test_scenes_models_and_seeds_may_be_added(scene, tmp_path, fake_commands):
    commands, _ = fake_commands
    out = tmp_path / "out"
    table1.main(arguments(scene, out, "--models", "pix2pix"))
    assert len(commands) == 2
    assert "--max_steps 3 " in commands[0]
    assert "--grid_dim 8" in commands[1]
    assert commands[1].endswith("model-epoch_0_iter_3.pth")
    table1.main(arguments(scene, out, "--models", "pix2pix", "nearest_neighbor", "--seeds", 0, 4))
    assert (
        len(commands) == 2 + 1 + 2
    )  # nothing in nearest neighbours is random: once, without training
    table = json.loads((out / "table.json").read_text())["scenes"]["scene"]
    assert table["pix2pix"]["psnr"] == 22
    assert list(table["pix2pix"]["seeds"]) == ["0", "4"]
    assert list(table["nearest_neighbor"]["seeds"]) == ["0"]
    write_scene(tmp_path / "other" / "train", views=4)
    write_scene(tmp_path / "other" / "test", views=3)
    table1.main(
        ["--scenes", str(scene), *arguments(tmp_path / "other", out, "--models", "pix2pix")[1:]]
    )
    assert len(commands) == 7
    assert (
        "| Pix2Pix (Isola et al.) | 0.00 M | **20.00 / 0.50** | **20.00 / 0.50** | 20.00 / 0.50 |"
        in (out / "table.md").read_text()
    )


def test_a_failed_run_is_a_marked_gap_and_is_tried_again(scene, tmp_path, fake_commands, capsys):
    commands, call = fake_commands
    out = tmp_path / "out"
    call.fail = ["--train_test test --model worrall"]
    table1.main(arguments(scene, out, "--seeds", 0, 1))
    text = (out / "table.md").read_text()
    assert re.search(r"Worrall et al. \| – \| – \(failed\) \| – \|", text)
    assert "- scene, Worrall et al., seed 1: exit code 1: error: out of luck" in text
    assert "| DeepVoxels | 0.00 M | **20.50 / 0.50** | 20.50 / 0.50 |" in text
    assert imageio.imread(out / "figure.png").shape == (24 + 3 * 220, 24 + 6 * 220, 3)
    assert imageio.mimread(out / "scene.mp4")[0].shape == (24 + 220, 6 * 220, 3)

    call.fail, commands[:] = ["worrall-seed0"], []
    table1.main(arguments(scene, out, "--seeds", 0, 1))
    assert len(commands) == 3
    assert "--resume auto" in commands[1]  # its training had not failed
    text = (out / "table.md").read_text()
    assert "21.00 / 0.50** (1 of 2 seeds)" in text
    assert "- scene, Worrall et al., seed 0: exit code 1: error: out of luck" in text


def test_occlusion_compares_with_and_without(scene, tmp_path, fake_commands):
    commands, _ = fake_commands
    (scene / "test" / "depth").mkdir()
    for i in range(3):
        np.savez(
            scene / "test" / "depth" / f"{i}.npz", depth=np.linspace(1, 2, 64 * 64).reshape(64, 64)
        )
    occlusion.main(arguments(scene, tmp_path / "out", "--seeds", 3))
    assert ["--no_occlusion_net" in command for command in commands] == [False, False, True, True]
    text = (tmp_path / "out" / "occlusion.md").read_text()
    assert "| scene | with | 0.00 M | 23.00 / 0.50 | 2.00 | 75.0 % |" in text
    assert (
        json.loads((tmp_path / "out" / "occlusion.json").read_text())["scenes"]["scene"]["without"][
            "psnr"
        ]
        == 23
    )
    assert imageio.imread(tmp_path / "out" / "figure.png").shape == (24 + 3 * 220, 24 + 5 * 220, 3)


def test_sensitivity_varies_one_thing_at_a_time(scene, tmp_path, fake_commands):
    commands, _ = fake_commands
    out = tmp_path / "out"
    sensitivity.main(
        arguments(scene, out, "--skip", 0, 1, 3, "--grid_dims", 4, 8, "--degrees", 0, 2.5)
    )
    trained = [command for command in commands if "--train_test train" in command]
    assert len(trained) == 5  # the unvaried run serves all three studies
    assert sum("--sampling_pattern skip_" in command for command in trained) == 2
    assert sum("--grid_dim 4 " in command for command in trained) == 1
    copy = out / "scenes" / "scene-noise_2.5-seed0" / "train"
    (noisy,) = (command for command in trained if f"--data_root {copy} " in command)
    assert (copy / "pose" / "000003.txt").read_text() != (
        scene / "train" / "pose" / "000003.txt"
    ).read_text()
    assert (
        f"--data_root {scene / 'test'} --train_root {copy} " in commands[commands.index(noisy) + 1]
    )
    studies = json.loads((out / "sensitivity.json").read_text())["studies"]
    assert {
        study: [point["x"] for point in studies[study]["scenes"]["scene"]] for study in studies
    } == {"images": [2, 4, 8], "grid": [4, 8], "noise": [0, 2.5]}
    assert {path.name for path in out.glob("*.png")} == {"images.png", "grid.png", "noise.png"}
    sensitivity.main(
        arguments(scene, out, "--skip", 0, 1, 3, "--grid_dims", 4, 8, "--degrees", 0, 2.5)
    )
    assert len(commands) == 10


def test_a_size_is_the_base_of_the_study_of_the_grid(scene, tmp_path, fake_commands):
    """The run that changes nothing serves for its number of voxels."""
    commands, _ = fake_commands
    sensitivity.main(
        [
            "--scenes",
            str(scene),
            "--steps",
            "3",
            "--out",
            str(tmp_path / "out"),
            "--size",
            "small",
            "--studies",
            "grid",
            "--grid_dims",
            "8",
            "16",
        ]
    )
    assert ["--grid_dim 8" in command for command in commands] == [True, True, False, False]
    assert "scene-base-seed0" in commands[-1]


def test_the_originals_layout(scene, tmp_path, fake_commands, capfd):
    """The scene ROOT/train/NAME is tested on ROOT/test/NAME and is called NAME."""
    commands, _ = fake_commands
    root = tmp_path / "root"
    for split in ("train", "test"):
        (root / split).mkdir(parents=True)
        (scene / split).rename(root / split / "disc")
    data = f"--data_root {root / 'test' / 'disc'} --train_root {root / 'train' / 'disc'} "
    table1.main(arguments(root / "train" / "disc", tmp_path / "out", "--models", "pix2pix"))
    assert f"--data_root {root / 'train' / 'disc'} " in commands[0]
    assert data in commands[1]
    assert list(json.loads((tmp_path / "out" / "table.json").read_text())["scenes"]) == ["disc"]
    sensitivity.main(
        arguments(root / "train" / "disc", tmp_path / "noise", "--studies", "noise", "--degrees", 2)
    )
    copy = tmp_path / "noise" / "scenes" / "disc-noise_2-seed0" / "train"
    assert f"--data_root {copy} " in commands[2]
    assert f"--data_root {root / 'test' / 'disc'} --train_root {copy} " in commands[3]
    capfd.readouterr()
    (root / "test" / "disc").rename(tmp_path / "elsewhere")
    refused(
        capfd, [table1, *arguments(root / "train" / "disc", tmp_path / "out")], "no test folder"
    )


def refused(capfd, command, *words):
    with pytest.raises(SystemExit) as end:
        run_command(command[0].__name__, command[0].main, list(map(str, command[1:])))
    assert end.value.code == 2
    error = capfd.readouterr().err
    assert error.startswith(f"{command[0].__name__}: error: ")
    assert_one_line(error, *words)


@pytest.mark.parametrize(
    ("break_scene", "words"),
    [
        (
            lambda root: (root / "test" / "rgb").rename(root / "elsewhere"),
            ["no images to measure with (test/rgb)"],
        ),
        (
            lambda root: [path.unlink() for path in (root / "test" / "rgb").iterdir()],
            ["no images to measure with"],
        ),
        (
            lambda root: (root / "train").rename(root / "elsewhere"),
            ["no images to train on (train/rgb)"],
        ),
        (lambda root: root.rename(root.with_name("elsewhere")), ["no such folder"]),
    ],
)
def test_scenes_that_cannot_be_measured_are_refused(scene, tmp_path, capfd, break_scene, words):
    break_scene(scene)
    refused(capfd, [table1, *arguments(scene, tmp_path / "out")], str(scene), *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--models", "nerf"], ["nerf", "deepvoxels"]),
        (["--seed", "3"], ["--seed", "the experiment sets it"]),
        (["--max_steps=3"], ["--max_steps", "the experiment sets it"]),
        (["--seeds", "1", "1"], ["--seeds"]),
        (["--seeds", "-1"], ["-1"]),
        (["--steps", "0"], ["steps"]),
        (["--gird_dim", "16"], ["--gird_dim"]),
        (["--nf0", "none"], ["nf0", "none"]),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(scene, tmp_path, capfd, more, words):
    refused(capfd, [table1, *arguments(scene, tmp_path / "out", *more)], *words)
    assert not (tmp_path / "out" / "runs").exists()


def test_arguments_that_only_one_experiment_sets(scene, tmp_path, capfd):
    refused(
        capfd,
        [occlusion, *arguments(scene, tmp_path / "out", "--no_occlusion_net")],
        "--no_occlusion_net",
    )
    refused(
        capfd,
        [sensitivity, *arguments(scene, tmp_path / "out", "--sampling_pattern", "skip_1")],
        "--sampling_pattern",
    )
    refused(capfd, [sensitivity, *arguments(scene, tmp_path / "out", "--degrees", "-1")], "-1")


def test_the_folder_of_another_experiment_is_refused(scene, tmp_path, fake_commands, capfd):
    out = tmp_path / "out"
    table1.main(arguments(scene, out, "--models", "pix2pix"))
    capfd.readouterr()
    refused(capfd, [occlusion, *arguments(scene, out)], str(out), "table1", "another folder")
    refused(capfd, [table1, *arguments(scene, out, "--nf0", 8)], str(out), "flags")
    refused(capfd, [table1, *arguments(scene, out, "--steps", 4)], str(out), "steps 3, not 4")
    scene.rename(tmp_path / "moved")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "moved").rename(tmp_path / "elsewhere" / "scene")
    refused(
        capfd, [table1, *arguments(tmp_path / "elsewhere" / "scene", out)], str(out), str(scene)
    )
    refused(
        capfd,
        [table1, *arguments(tmp_path / "elsewhere" / "scene", tmp_path / "elsewhere")],
        "no experiment",
    )
    (out / "experiment.json").write_text("{}")
    refused(capfd, [table1, *arguments(tmp_path / "elsewhere" / "scene", out)], "experiment.json")


def test_a_run_is_tested_with_the_checkpoint_of_its_last_step(scene, tmp_path, fake_commands):
    """Not with the newest one, which may be of a training that is not finished."""
    commands, _ = fake_commands
    newer = tmp_path / "out" / "runs" / "scene-pix2pix-seed0" / "logs" / "01_02" / "run"
    table1.main(arguments(scene, tmp_path / "out", "--models", "nearest_neighbor"))
    newer.mkdir(parents=True)
    (newer / "model-epoch_0_iter_2.pth").touch()
    (newer / "latest.pth").symlink_to("model-epoch_0_iter_2.pth")
    os.utime(newer / "model-epoch_0_iter_2.pth", (2e9, 2e9))
    table1.main(arguments(scene, tmp_path / "out", "--models", "pix2pix"))
    assert commands[-1].endswith("logs/01_01/run/model-epoch_0_iter_3.pth")


def test_the_papers_table_is_quoted_right():
    """Its means are those of its scenes, to the rounding of its figures."""
    assert set(table1.PAPER) == set(table1.NAMES) == set(MODELS)
    for row_ in table1.PAPER.values():
        assert np.mean([psnr for psnr, _ in row_[:4]]) == pytest.approx(row_[4][0], abs=0.011)
        assert np.mean([ssim for _, ssim in row_[:4]]) == pytest.approx(row_[4][1], abs=0.011)


def test_flags_that_do_not_change_what_is_learned_may_differ(scene, tmp_path, fake_commands):
    commands, _ = fake_commands
    out = tmp_path / "out"
    table1.main(arguments(scene, out, "--models", "pix2pix"))
    table1.main(
        arguments(
            scene,
            out,
            "--models",
            "pix2pix",
            "--seeds",
            1,
            "--log_every",
            9,
            "--checkpoint_minutes=5",
        )
    )
    assert "--device cpu" in commands[1]
    assert "--checkpoint_minutes 5.0 --device cpu --log_every 9" in commands[2]
    assert "flags: --grid_dim 8 " in (out / "table.md").read_text()
    plan = json.loads((out / "experiment.json").read_text())["runs"]
    assert list(plan) == ["scene-pix2pix-seed0", "scene-pix2pix-seed1"]
    assert "--seed 1 --grid_dim 8 " in plan["scene-pix2pix-seed1"]["train"]
    assert "--log_every" not in plan["scene-pix2pix-seed1"]["train"]


def test_a_collection_runs_nothing_and_plans_nothing(scene, tmp_path, fake_commands, capfd):
    commands, _ = fake_commands
    out = tmp_path / "out"
    refused(capfd, [table1, *arguments(scene, out, "--collect")], "holds no experiment")
    assert not out.exists()
    table1.main(arguments(scene, out, "--models", "pix2pix"))
    table1.main(arguments(scene, out, "--seeds", 0, 1, "--collect"))
    text = (out / "table.md").read_text()
    assert "| **20.00 / 0.50** (1 of 2 seeds) |" in text
    assert "- scene, DeepVoxels, seed 1: waiting\n" in text
    assert "Failed" not in text
    assert len(commands) == 2
    assert list(json.loads((out / "experiment.json").read_text())["runs"]) == [
        "scene-pix2pix-seed0"
    ]
    capfd.readouterr()
    refused(capfd, [table1, *arguments(scene, out, "--steps", 4, "--collect")], "steps 3, not 4")


def test_a_run_that_another_process_holds_is_a_gap(scene, tmp_path, fake_commands, capsys):
    commands, _ = fake_commands
    out = tmp_path / "out"
    folder = out / "runs" / "scene-pix2pix-seed0"
    folder.mkdir(parents=True)
    write_json(
        folder / "commands.json",
        {
            "commands": [
                {
                    "command": "",
                    "where": "process 7 on earth",
                    "log_begin": 0,
                    "seconds": None,
                    "exit_code": None,
                }
            ]
        },
    )
    write_record(out, "table1", 3)
    with RunLock(folder):
        table1.main(arguments(scene, out, "--models", "pix2pix", "nearest_neighbor"))
    assert len(commands) == 1
    assert "scene-pix2pix-seed0: runs elsewhere, process 7 on earth\n" in capsys.readouterr().out
    text = (out / "table.md").read_text()
    assert "| Pix2Pix (Isola et al.) | – | – (not done) | – |" in text
    assert "- scene, Pix2Pix (Isola et al.), seed 0: running, process 7 on earth" in text
