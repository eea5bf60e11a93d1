"""What no input may do: touch weights with numbers that are not finite, write elsewhere, change a seeded run."""
import shutil
import struct
import subprocess
import sys
import zlib

import pytest
import torch

from data_util import load_image
from dataio import draw_triplets
from run_deepvoxels import main, resolve_options
from tests.conftest import write_scene
from tests.test_cli import ROOT
from tests.test_reliability import ENVIRONMENT, checkpoints, command, finish, start, wait_for
from tests.test_training import arguments, assert_same, final_checkpoint
from training.loop import build_networks, load_training_scene
from training.step import CHECKED, load_batch, train_step
from util import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("poison", ["source_image", "target_images"])
def test_a_step_that_is_not_finite_changes_nothing(scene, tmp_path, precision, poison):
    opt, _ = resolve_options(arguments(scene, tmp_path))
    views, geometry = load_training_scene(opt)
    networks = build_networks(opt, geometry, CPU)
    triplets = draw_triplets(views.cam2world, 2, 0, 0)
    good = load_batch(views.on(CPU), triplets[0])
    assert train_step(networks, good, 200.0, precision).finite.all()
    before = snapshot(networks)
    bad = getattr(good, poison).clone()
    bad[0, 0, 20, 20] = float("nan")
    finite = train_step(networks, good._replace(**{poison: bad}), 200.0, precision).finite
    assert not finite[CHECKED.index("l1 loss")]
    assert_same(before, snapshot(networks))
    assert train_step(networks, good, 200.0, precision).finite.all()


def snapshot(networks):
    return {name: {key: value.clone() if isinstance(value, torch.Tensor) else str(value)
                   for key, value in part.state_dict().items()}
            for name, part in vars(networks).items() if hasattr(part, "state_dict")}


def test_a_picture_is_not_decoded_before_its_size_is_known(tmp_path):
    """A PNG of 70 bytes that claims to be 100000x100000."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for depth in (8, 16):
        header = struct.pack(">IIBBBBB", 100000, 100000, depth, 2, 0, 0, 0)
        (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")
                                            + chunk(b"IEND", b""))
        with pytest.raises(InputError, match="huge.png"):
            load_image(tmp_path / "huge.png")


@pytest.mark.parametrize("name", ["..png", "a\nb", "été \u202e", "-rf", "$(touch x)", "'; --", "a" * 200])
def test_odd_names_are_read_and_nothing_is_written_outside_the_logging_root(tmp_path, name):
    root, logs = tmp_path / "scene" / name.replace("/", "_"), tmp_path / "logs"
    write_scene(root, views=3)
    (root / "rgb" / "000000.png").rename(root / "rgb" / f"0{name}.png")
    (root / "pose" / "000000.txt").rename(root / "pose" / f"0{name}.txt")
    shutil.move(root / "rgb" / "000001.png", tmp_path / "elsewhere.png")
    (root / "rgb" / "000001.png").symlink_to("../../../elsewhere.png")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main([*arguments(tmp_path, logs, "--max_steps", 1), "--data_root", str(root)]) == 0
    path, _ = final_checkpoint(logs, 1)
    assert main(["--train_test", "test", "--data_root", str(root), "--logging_root", str(logs), "--checkpoint",
                 str(path), "--device", "cpu", f"--experiment_name={name}"]) == 0
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if not path.is_relative_to(logs)}
    assert before == {path: time for path, time in after.items() if path != tmp_path}
    assert {path.name for path in logs.iterdir()} == {"logs", "runs", "test_traj"}


def test_the_same_seed_gives_the_same_frames(scene, tmp_path):
    frames = []
    for run in ("a", "b"):
        assert main(arguments(scene, tmp_path / run, "--max_steps", 3)) == 0
        path, _ = final_checkpoint(tmp_path / run, 3)
        assert main(["--train_test", "test", "--data_root", str(scene / "test"), "--logging_root",
                     str(tmp_path / run), "--checkpoint", str(path), "--device", "cpu"]) == 0
        frames.append({(path.parent.name == "depth", path.name): path.read_bytes()
                       for path in (tmp_path / run).glob("test_traj/*/*/**/*.png")})
    assert len(frames[0]) == 3 + 3 + 1
    assert frames[0] == frames[1]


def test_a_run_cannot_be_resumed_while_it_is_running(scene, tmp_path):
    process = start(command(scene, tmp_path, "--max_steps", 100000))
    wait_for(lambda: checkpoints(tmp_path), process)
    second = subprocess.run([sys.executable, "run_deepvoxels.py", "--train_test", "train", "--logging_root",
                             str(tmp_path), "--resume", "latest"], cwd=ROOT, env=ENVIRONMENT, capture_output=True,
                            text=True, check=False)
    process.terminate()
    assert finish(process)[0] == 143
    assert second.returncode == 2
    assert "another process is writing this run" in second.stderr
    assert second.stderr.count("\n") == 1


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs setpriv, to take root's power over permissions away")
def test_a_read_only_folder_is_reported_and_training_goes_on(scene, tmp_path):
    unprivileged = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    process = start([*unprivileged, *command(scene, tmp_path, "--max_steps", 100000)])
    wait_for(lambda: checkpoints(tmp_path), process)
    (folder,) = tmp_path.glob("logs/*/*")
    folder.chmod(0o500)
    saved = len(checkpoints(tmp_path))
    output = []
    wait_for(lambda: output.append(process.stderr.readline()) or "could not be saved" in output[-1], process)
    assert len(checkpoints(tmp_path)) <= saved + 1  # one may have been on its way
    folder.chmod(0o700)
    process.terminate()
    assert finish(process)[0] == 143
    assert (folder / "latest.pth").resolve() == max(checkpoints(tmp_path), key=lambda path: path.stat().st_mtime_ns)
