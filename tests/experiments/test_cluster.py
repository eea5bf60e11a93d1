"""Experiments on a SLURM of two nodes on this machine: `make test-cluster`. What of it needs no
SLURM is in test_slurm.py."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from experiments import slurm, table1
from experiments.status import read_progress, read_state
from machine.cli import run as run_command
from tests.conftest import SMALL, write_scene
from tests.helpers import ENVIRONMENT, ROOT, STARTED, assert_same, final_checkpoint
from tests.slurm import NODES, Cluster, missing_programs, wait_until

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(
        bool(missing_programs()),
        reason=f"no SLURM here: {', '.join(missing_programs())} missing (Debian: apt-get install "
        "slurm-wlm munge)",
    ),
]
STEPS = 200
PATIENCE = 900


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("slurm") / "state")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def in_cluster(cluster, monkeypatch):
    """This process's SLURM commands go to the cluster; nothing of it is left in the queue."""
    monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.5)
    monkeypatch.setattr(slurm, "SETTLE_SECONDS", 2)
    yield cluster
    cluster.clear()


def words(scene, out, *more) -> list[str]:
    return [str(word) for word in ["--scenes", scene, "--out", out, *SMALL, *more]]


def start_table1(cluster, words, **environment) -> subprocess.Popen:
    """table1 in a process of its own, with its output in a file beside its folder."""
    out = Path(words[words.index("--out") + 1])
    with open(f"{out}.log", "a") as log:
        STARTED.append(
            subprocess.Popen(
                [sys.executable, "-m", "experiments.table1", *words],
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "SLURM_CONF": cluster.environment["SLURM_CONF"], **environment},
            )
        )
    return STARTED[-1]


def refused(capfd, arguments, *words):
    """table1 ends with exit code 2 and one line, besides its progress, that holds the words."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as end:
        run_command("experiments.table1", table1.main, arguments)
    assert end.value.code == 2
    (error,) = re.findall(r"^experiments.table1: error: .*$", capfd.readouterr().err, re.MULTILINE)
    for word in words:
        assert word in error, error


def test_a_disturbed_table_is_that_of_one_process(cluster, tmp_path):
    """One task is requeued, one killed, one loses its node, one is warned that its time is over,
    and the submitting command is killed and given again."""
    for split, views in [("train", 8), ("test", 3)]:
        write_scene(tmp_path / "scene" / split, views=views)
    arguments = ["--steps", STEPS, "--checkpoint_every", 20]
    reference = tmp_path / "reference"
    out = tmp_path / "out"
    alone = start_table1(cluster, words(tmp_path / "scene", reference, *arguments))
    command = words(tmp_path / "scene", out, *arguments, "--slurm", "--slurm_gpus_per_task", 0)
    first = start_table1(cluster, command)
    disturbed = Disturbed(cluster, out)
    wait_until(lambda: disturbed.trains("tatarchenko"), PATIENCE, "a training")
    disturbed.call("tatarchenko", "scontrol", "requeue")
    first.kill()
    first.wait()
    second = start_table1(cluster, command)
    events = [
        (lambda: disturbed.trains("worrall"), lambda: disturbed.training("worrall").kill()),
        (lambda: disturbed.trains("pix2pix"), lambda: disturbed.lose_node("pix2pix")),
        (lambda: disturbed.waits("pix2pix"), disturbed.return_node),
        (
            lambda: disturbed.trains("deepvoxels"),
            lambda: disturbed.call("deepvoxels", "scancel", "--signal=USR1"),
        ),
    ]

    def disturb() -> bool:
        for event in [event for event in events if event[0]()]:
            event[1]()
            events.remove(event)
        assert second.poll() is None, Path(f"{out}.log").read_text()
        queue = [entry[:3] for entry in cluster.queue()]
        assert (
            len(queue) == len({(name, index) for name, _, index in queue}) <= 5
        )  # no run has two tasks
        return not events

    wait_until(disturb, PATIENCE, "all disturbances")
    assert second.wait(PATIENCE) == 0
    assert "- scene, Worrall et al., seed 0: exit code -9" in (out / "table.md").read_text()
    third = start_table1(cluster, command)
    assert third.wait(PATIENCE) == 0
    log = Path(f"{out}.log").read_text()
    assert re.findall(r"^(\d) runs submitted", log, re.MULTILINE) == ["5", "0", "1"], log
    assert alone.wait(PATIENCE) == 0
    for model in ("tatarchenko", "pix2pix", "deepvoxels"):
        assert disturbed.starts(model)[-1] > 0, model  # it went on from what was saved
    assert disturbed.starts("pix2pix")[-1] % 20 == 0  # a node that is lost saves nothing more
    assert_same_tables(reference, out)


class Disturbed:
    """An experiment on a cluster, and what can happen to its tasks, by the model's name."""

    def __init__(self, cluster: Cluster, out: Path):
        self.cluster = cluster
        self.out = out
        self.lost = None

    def folder(self, model: str) -> Path:
        return self.out / "runs" / f"scene-{model}-seed0"

    def trains(self, model: str) -> bool:
        """Whether it has made some steps, and has more to make."""
        if read_state(self.folder(model)).kind != "running":
            return False
        progress = read_progress(self.folder(model))
        return progress is not None and progress.unit == "step" and 20 < progress.done < STEPS - 20

    def task(self, model: str) -> list[str]:
        """What the queue says of its task."""
        names = {
            f"{path.parent.name} {index}": name
            for path in self.out.glob("slurm/*/runs.json")
            for index, name in enumerate(json.loads(path.read_text())["runs"])
        }
        return next(
            entry
            for entry in self.cluster.queue()
            if names.get(f"{entry[0]} {entry[2]}") == self.folder(model).name
        )

    def call(self, model: str, *command: str) -> None:
        self.cluster.call(*command, self.task(model)[1])

    def training(self, model: str) -> psutil.Process:
        return next(
            process
            for process in psutil.process_iter(["cmdline"])
            if {"run_deepvoxels.py", str(self.folder(model))} <= set(process.info["cmdline"] or [])
        )

    def lose_node(self, model: str) -> None:
        """The node's slurmd dies and its training hangs, so that both it and the task that SLURM
        starts instead are there."""
        self.lost = self.task(model)[4]
        self.training(model).suspend()
        self.cluster.kill_node(self.lost)

    def waits(self, model: str) -> bool:
        """Whether a task waits for another process to leave its run."""
        return any(
            f"scene-{model}-seed0: waits for SLURM job" in path.read_text()
            for path in self.out.glob("slurm/*/*_log.out")
        )

    def return_node(self) -> None:
        self.cluster.start_node(self.lost)

    def starts(self, model: str) -> list[int]:
        """The steps at which its training was started."""
        (options,) = self.folder(model).glob("logs/*/*/options.json")
        return [start["first_step"] for start in json.loads(options.read_text())["history"]]


def assert_same_tables(reference: Path, out: Path) -> None:
    """Equal to the bit: tables, frames and the checkpoints they were rendered with."""
    assert (out / "table.md").read_text() == (reference / "table.md").read_text()
    tables = [json.loads((folder / "table.json").read_text()) for folder in (reference, out)]
    for scene in (table["scenes"]["scene"] for table in tables):
        for method in scene.values():
            method["seeds"]["0"].update(
                seconds=None, frames=None
            )  # the time, and a folder that is named by it
    assert_same(*tables)
    for run in (reference / "runs").iterdir():
        frames = [
            sorted((folder / "runs" / run.name).glob("test_traj/*/*/img_*.png"))
            for folder in (reference, out)
        ]
        assert len(frames[0]) == 3
        assert [path.read_bytes() for path in frames[0]] == [
            path.read_bytes() for path in frames[1]
        ]
        if "nearest" not in run.name:
            checkpoints = [
                final_checkpoint(folder / "runs" / run.name, STEPS)[1]
                for folder in (reference, out)
            ]
            assert_same(checkpoints[0]["model"], checkpoints[1]["model"], run.name)


def test_a_submission_that_was_killed_leaves_nothing_that_counts(
    in_cluster, scene, tmp_path, capfd
):
    """Also not tasks that will never find what they are to do: sbatch has ended well, its caller
    was killed."""
    for node in NODES:
        in_cluster.call("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
    scene.rename(tmp_path / "one")
    write_scene(tmp_path / "two" / "train", views=8)
    write_scene(tmp_path / "two" / "test", views=3)
    arguments = words(
        tmp_path / "one",
        tmp_path / "out",
        "--steps",
        3,
        "--models",
        "nearest_neighbor",
        "--slurm",
        "--slurm_gpus_per_task",
        0,
    )
    arguments.insert(1, str(tmp_path / "two"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text('#!/bin/sh\n/usr/bin/sbatch "$@"\nkill -9 $PPID\n')
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    killed = start_table1(in_cluster, arguments, PATH=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert killed.wait(PATIENCE) == -9
    orphans = in_cluster.queue()
    assert len(orphans) == 2
    waiting = start_table1(in_cluster, arguments)
    log = tmp_path / "out.log"
    wait_until(
        lambda: "runs submitted" in log.read_text() or waiting.poll() is not None,
        PATIENCE,
        "a submission",
    )
    assert "2 runs submitted, 0 in SLURM's queue before" in log.read_text()
    tasks = in_cluster.queue()
    assert len(tasks) == 2
    assert not {entry[0] for entry in tasks} & {entry[0] for entry in orphans}
    waiting.send_signal(2)
    assert waiting.wait(PATIENCE) == 130
    assert "The tasks go on without this command" in log.read_text()
    assert len(in_cluster.queue()) == 2
    table1.main(["--out", str(tmp_path / "out"), "--status"])
    assert len(re.findall(r"waiting  SLURM task \d+_[01] pending \(", capfd.readouterr().out)) == 2
    for node in NODES:
        in_cluster.call("scontrol", "update", f"nodename={node}", "state=resume")


def test_what_sbatch_refuses(in_cluster, scene, tmp_path, capfd):
    arguments = words(
        scene,
        tmp_path / "out",
        "--steps",
        3,
        "--models",
        "nearest_neighbor",
        "--slurm",
        "--precision",
        "tf32",
    )  # this machine need not be able to do what the nodes can
    refused(
        capfd,
        [*arguments, "--slurm_partition", "fast"],
        "--slurm_partition fast",
        "no such partition, only main",
    )
    assert not (tmp_path / "out").exists()
    refused(capfd, arguments, "sbatch refuses", "gres")  # there is no GPU
    refused(
        capfd,
        [*arguments, "--slurm_gpus_per_task", "0", "--slurm_extra", "colour=red"],
        "--colour=red",
    )
    assert [path.name for path in (tmp_path / "out" / "slurm").iterdir()] == [".lock"]
    assert in_cluster.queue() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a folder from a node")
def test_a_folder_that_a_node_does_not_see(in_cluster, scene, tmp_path, capfd):
    node = NODES[1]
    in_cluster.kill_node(node)
    in_cluster.start_node(node, hidden=tmp_path)
    try:
        in_cluster.wait_for_node(node)
        refused(
            capfd,
            words(
                scene,
                tmp_path / "out",
                "--steps",
                3,
                "--models",
                "nearest_neighbor",
                "--slurm",
                "--slurm_gpus_per_task",
                0,
                "--slurm_extra",
                f"nodelist={node}",
            ),
            f"{tmp_path / 'out'}",
            "does every node see this folder?",
        )
    finally:
        in_cluster.kill_node(node)
        in_cluster.start_node(node)
