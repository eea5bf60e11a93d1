"""The paper's evaluation as commands: missing runs are run, finished ones skipped, failed ones are
gaps."""

import json
import os
import re

import imageio.v2 as imageio
import numpy as np
import pytest

from baselines import MODELS
from experiments import occlusion, sensitivity, table1
from tests.conftest import write_scene
from tests.experiments import arguments, refused, write_record
from training.run_folder import RunLock
from util import write_json


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

    call.fail = ["worrall-seed0"]
    commands.clear()
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
