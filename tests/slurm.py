"""A SLURM cluster of two nodes on this machine, as root or as any user: what `make test-cluster`
runs on.

Each node is a slurmd of its own on this machine, with one core. The state of all daemons lies in
one folder, and they end by their own process ids, so that a cluster that the machine belongs to is
not touched.
"""

import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

NODES = ("n1", "n2")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
# A node counts as lost after SlurmdTimeout, a requeued task may start again after cred_expire
# (seconds).
CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/slurmctld
SlurmdSpoolDir={folder}/slurmd-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobRequeue=1
SlurmdTimeout=10
KillWait=20
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = (
    "NodeName={name} NodeAddr=127.0.0.1 NodeHostname={host} Port={port} "
    "CPUs=1 RealMemory=1000 State=UNKNOWN"
)


def missing_programs() -> list[str]:
    """What a cluster needs and this machine lacks."""
    return [name for name in PROGRAMS if find(name) is None]


def find(program: str) -> str | None:
    """A program's path; daemons lie where only root's PATH leads."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


class Cluster:
    """The cluster while it runs, from `start` to `stop`. environment: what makes SLURM's commands
    talk to it."""

    def __init__(self, folder: Path):
        # Its socket's path may have at most 107 bytes.
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen] = {}

    def start(self) -> None:
        host = socket.gethostname().partition(".")[0]
        ports = free_ports(1 + len(NODES))
        nodes = "\n".join(
            NODE.format(name=name, host=host, port=port)
            for name, port in zip(NODES, ports[1:], strict=True)
        )
        self.folder.mkdir(mode=0o755)
        (self.folder / "slurmctld").mkdir()
        (self.folder / "slurm.conf").write_text(
            CONFIG.format(
                host=host, user=getpass.getuser(), folder=self.folder, port=ports[0], nodes=nodes
            )
        )
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        paths = {
            "--socket": "munge.socket",
            "--key-file": "munge.key",
            "--pid-file": "munged.pid",
            "--log-file": "munged.log",
            "--seed-file": "munged.seed",
        }
        self._start(
            "munged",
            "--foreground",
            "--force",  # also where others may write, as in /tmp
            *(f"{flag}={self.folder / name}" for flag, name in paths.items()),
        )
        wait_until(lambda: (self.folder / "munge.socket").exists(), 30, "munged")
        self._start("slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: self._idle(NODES), 60, "two idle nodes")

    def start_node(self, name: str, hidden: Path | None = None) -> None:
        """Starts a node. To its tasks the folder `hidden` is empty, as one that the cluster does
        not share."""
        (self.folder / f"slurmd-{name}").mkdir(exist_ok=True)
        hide = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t tmpfs none "$0" && exec "$@"',
            str(hidden),
        ]
        self._start("slurmd", "-D", "-N", name, key=name, wrapper=hide if hidden else [])

    def kill_node(self, name: str) -> None:
        """Kills a node's slurmd. Its tasks go on running, as on a node that the network lost."""
        daemon = self._daemons.pop(name)
        daemon.kill()
        daemon.wait()

    def wait_for_node(self, name: str) -> None:
        """Waits until a node that was started again takes part."""
        up = ("idle", "mix", "alloc")
        wait_until(
            lambda: self._output("sinfo", "-h", "-n", name, "-o", "%t").strip() in up, 60, name
        )

    def queue(self) -> list[list[str]]:
        """The job's name, the id, the array index, the state and the node of every task that is not
        over."""
        return [
            line.split("|")
            for line in self._output("squeue", "-h", "-r", "-o", "%j|%i|%K|%T|%N").splitlines()
        ]

    def call(self, *command: str) -> None:
        """Runs one of SLURM's commands."""
        subprocess.run(command, env=self.environment, check=True, timeout=60)

    def clear(self) -> None:
        """Ends all tasks."""
        self.call("scancel", "--user", getpass.getuser())
        wait_until(lambda: not self.queue(), 60, "an empty queue")

    def stop(self) -> None:
        """Ends the daemons and whatever of their tasks is left."""
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        self._daemons.clear()
        for pid in self._left_over():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _left_over(self) -> list[int]:
        """The processes that were started with this cluster's environment: the tasks', and each
        one's slurmstepd (which writes over part of it, so that psutil does not find it). This
        process set it, if at all, after its start."""
        mine = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        pids = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):  # ended meanwhile, or another user's
                if mine in path.read_bytes().split(b"\0"):
                    pids.append(int(path.parent.name))
        return pids

    def _start(
        self, program: str, *arguments: str, key: str | None = None, wrapper: Sequence[str] = ()
    ) -> None:
        output = open(self.folder / f"{key or program}.out", "a")  # noqa: SIM115
        self._daemons[key or program] = subprocess.Popen(
            [*wrapper, find(program), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # so that Ctrl-C does not reach it before `stop`
        output.close()

    def _idle(self, nodes) -> bool:
        return self._output("sinfo", "-h", "-N", "-o", "%N %t").split("\n")[:-1] == [
            f"{node} idle" for node in nodes
        ]

    def _output(self, *command: str) -> str:
        return subprocess.run(
            command,
            env=self.environment,
            check=False,
            timeout=60,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ).stdout


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens to now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Waits until the condition holds; fails after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(0.2)
