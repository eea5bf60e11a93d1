"""What studies refuse before anything runs."""

import pytest

from experiments import occlusion, sensitivity, table1
from tests.experiments import arguments, refused


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
    for flag in ("--lr", "--volume_limit"):  # which a resumed run may change
        refused(capfd, [table1, *arguments(scene, out, flag, 1)], str(out), "flags", f"{flag} 1.0")
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
