"""Nothing leaks: resident memory and open files of a long training and a long test."""

import statistics
import time

import psutil
import pytest

from tests.conftest import write_scene
from tests.helpers import (
    arguments,
    checkpoints,
    final_checkpoint,
    render_arguments,
    start,
    wait_for,
)


@pytest.mark.long
def test_soak(tmp_path):
    """3,000 steps and 500 frames: resident memory grows by less than 2 %, open files not at all."""
    write_scene(tmp_path / "scene" / "train", views=20)
    write_scene(tmp_path / "scene" / "test", views=500, images=False)
    logs = tmp_path / "logs"
    with open(
        tmp_path / "output.txt", "w"
    ) as output:  # a pipe that nobody reads would be full after a while
        process = start(
            *arguments(tmp_path / "scene", logs, "--max_steps", 3000, "--checkpoint_every", 500),
            stdout=output,
            stderr=output,
        )
        wait_for(lambda: checkpoints(logs), process, seconds=300)
        assert_steady("training", observe(process))
        assert process.wait() == 0
        path, _ = final_checkpoint(logs, 3000)
        process = start(
            *render_arguments(tmp_path / "scene" / "test", logs, path), stdout=output, stderr=output
        )
        wait_for(lambda: list(logs.glob("test_traj/*/*/img_00050.png")), process, seconds=300)
        assert_steady("testing", observe(process))
        assert process.wait() == 0


def assert_steady(name, observed):
    """From the first twentieth of the observations, when all is warm, to the last quarter: medians,
    because a single observation may fall into a save."""
    warm, late = (
        tuple(map(statistics.median, zip(*part, strict=True)))
        for part in (observed[: len(observed) // 20 + 1], observed[-len(observed) // 4 :])
    )
    print(
        f"{name}: {warm[0] / 2**20:.1f} MiB and {warm[1]:g} files, then {late[0] / 2**20:.1f} and "
        f"{late[1]:g}; "
        f"at most {max(memory for memory, _ in observed) / 2**20:.1f} and "
        f"{max(files for _, files in observed)}"
    )
    assert late[0] < 1.02 * warm[0]
    assert late[1] <= warm[1]


def observe(process) -> list[tuple[int, int]]:
    """Resident bytes and open files of the process, ten times a second while it lives."""
    samples = []
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            samples.append((watched.memory_info().rss, watched.num_fds()))
        except psutil.Error:
            break
        time.sleep(0.1)
    return samples
