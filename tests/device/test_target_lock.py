"""The lock of a target, between processes: jobs, cameras and those that only look."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from board_samples import Board
from release_samples import hold_lock

import liteship_agent
from liteship_agent import bench, lock
from liteship_agent.errors import LockedError
from liteship_agent.lock import CameraLock

RELEASE, NEXT = "0123456789ab", "ba9876543210"
CAMERA = """
import signal, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from liteship_agent.lock import CameraLock, YIELD_SIGNAL
held = CameraLock(Path(sys.argv[3]))
asked = []
signal.signal(YIELD_SIGNAL, lambda *_: asked.append(1) if sys.argv[4] == "stubborn" else held.give_up())
print(held.take(["0123456789ab"]), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def camera(folder: Path, kind: str = "polite") -> Iterator[subprocess.Popen]:
    """A camera in a process of its own that gives up its lock when asked, or does not."""
    place = str(Path(liteship_agent.__file__).parents[1])
    command = [sys.executable, "-c", CAMERA, "camera", place, str(folder), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "None\n"
        try:
            yield process
        finally:
            process.kill()


def test_camera_tells_its_process_and_releases(tmp_path):
    with camera(tmp_path) as process:
        found = lock.holder(tmp_path)
        assert (found.pid, found.name, found.is_camera) == (process.pid, f"camera-{RELEASE}", True)


def test_job_gets_the_target_from_a_camera(tmp_path):
    with camera(tmp_path) as process:
        with lock.acquire_for_job(tmp_path, "job-7"):
            assert lock.lock_holder(tmp_path) == "job-7"
        assert process.poll() is None


def test_camera_that_does_not_give_up_refuses_a_job_and_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_YIELD_SECONDS", 0.2)
    with camera(tmp_path, "stubborn") as process, pytest.raises(LockedError, match=f"process {process.pid}"):
        lock.acquire_for_job(tmp_path, "job-7")


def test_process_that_is_no_camera_is_never_signalled(tmp_path, monkeypatch):
    signalled = []
    monkeypatch.setattr(os, "kill", lambda *arguments: signalled.append(arguments))
    monkeypatch.setattr(lock, "_is_camera_process", lambda pid: False)
    with hold_lock(tmp_path, f"camera-{RELEASE}"):
        lock.ask_camera(tmp_path)
    assert signalled == []


def test_camera_waits_while_a_job_runs_and_while_one_is_wanted(tmp_path):
    mine = CameraLock(tmp_path)
    with lock.wanted(tmp_path):
        assert mine.take([RELEASE]) == "a measurement begins"
    with hold_lock(tmp_path, "job-7"):
        assert mine.take([RELEASE]) == "job job-7 runs"
    assert mine.take([RELEASE]) is None
    assert mine.is_held
    mine.give_up()
    assert lock.holder(tmp_path) is None


def test_second_camera_is_refused_and_told_who_holds_the_target(tmp_path):
    with camera(tmp_path) as process, pytest.raises(LockedError, match=rf"a camera \(process {process.pid}\) holds"):
        CameraLock(tmp_path).take([RELEASE])


def test_camera_tells_both_releases_while_it_changes_between_them(tmp_path):
    mine = CameraLock(tmp_path)
    mine.rename([RELEASE])
    assert lock.holder(tmp_path) is None
    mine.take([RELEASE])
    mine.rename([NEXT, RELEASE, NEXT])
    assert lock.lock_holder(tmp_path) == f"camera-{NEXT}+{RELEASE}"
    mine.give_up()


def test_given_up_lock_names_nobody(tmp_path):
    mine = CameraLock(tmp_path)
    mine.take([RELEASE])
    mine.give_up()
    mine.give_up()
    assert (tmp_path / "lock").read_text() == ""


def test_those_that_want_to_measure_do_not_exclude_each_other(tmp_path):
    with lock.wanted(tmp_path), lock.wanted(tmp_path):
        assert CameraLock(tmp_path).take([RELEASE]) == "a measurement begins"
    assert CameraLock(tmp_path).take([RELEASE]) is None


def test_wanting_to_measure_makes_a_camera_give_up(tmp_path):
    with camera(tmp_path) as process, lock.wanted(tmp_path):
        assert lock.holder(tmp_path) is None
        assert process.poll() is None


@pytest.fixture
def board(tmp_path) -> Board:
    return Board(tmp_path)


def test_job_runs_through_although_a_camera_held_the_target(board):
    with camera(board.folder):
        assert len(board.run().blocks) == 6


def test_following_a_job_is_not_refused_by_a_camera_that_is_just_asked(board, monkeypatch):
    board.run()
    with hold_lock(board.folder, f"camera-{RELEASE}"):
        assert bench.follow(board.folder, board.job.job_id, lambda event: None).name == "report.json"
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
