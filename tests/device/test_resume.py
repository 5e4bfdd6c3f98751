from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from board_samples import Board, no_pause
from release_samples import good_artefact, hold_lock, install, make_job

from liteship.payload import agent_archive
from liteship_agent import bench, journal
from liteship_agent.errors import AgentError
from liteship_agent.job import Job, Tier
from liteship_agent.records import read_record, write_record
from liteship_agent.release import AGENT
from liteship_agent.report import Report
from liteship_agent.resume import resume

LATER = "20261122-120000-later"


@pytest.fixture
def board(tmp_path):
    """A board with one job that was started and cut."""
    board = Board(tmp_path)
    journal.append(board.path / "journal.jsonl", {"event": "session", "problems": [], "start_celsius": None})
    return board


class Launcher:
    """Stands for the processes that run jobs.

    Args:
        end: Called with the folder of a job in place of running it.
    """

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.agents: list[list[str]] = []
        self.end = lambda path: (path / "report.json").touch()

    def __call__(self, folder: Path, job: Job, problems: tuple[str, ...], celsius: float | None, agent: list[str]):
        self.jobs.append(job.job_id)
        self.agents.append(agent)
        return SimpleNamespace(wait=lambda: self.end(bench.job_folder(folder, job.job_id)))


@pytest.fixture
def launcher(monkeypatch):
    launcher = Launcher()
    monkeypatch.setattr(bench, "launch", launcher)
    return launcher


def add_job(board: Board, job: Job) -> Path:
    """Another job that was started and cut."""
    path = bench.job_folder(board.folder, job.job_id)
    path.mkdir()
    write_record(job, path / "job.json")
    (path / "journal.jsonl").touch()
    return path


def go_on(board: Board) -> list[str]:
    said: list[str] = []
    resume(board.folder, said.append, pause=no_pause, patience_seconds=0.0)
    return said


def fail(board: Board) -> list[str]:
    said: list[str] = []
    with pytest.raises(AgentError, match=r"every unfinished job done is required\. Received: 1 not done"):
        resume(board.folder, said.append, pause=no_pause, patience_seconds=0.0)
    return said


def test_interrupted_job_goes_on_with_the_agent_of_its_own_release(board, launcher):
    said = go_on(board)

    assert launcher.jobs == [board.job.job_id]
    assert launcher.agents == [[sys.executable, "-I", "-S", "-B", str(board.release.path / AGENT)]]
    assert said == [f"job {board.job.job_id}: goes on", f"job {board.job.job_id}: done"]


def test_folder_without_jobs_is_done_at_once(tmp_path, launcher):
    said: list[str] = []

    resume(tmp_path / "nothing", said.append)

    assert (said, launcher.jobs) == ([], [])


@pytest.mark.parametrize("file", ["report.json", "stop"])
def test_job_that_is_done_or_was_stopped_is_left_alone(board, launcher, file):
    (board.path / file).touch()

    assert go_on(board) == []
    assert launcher.jobs == []


def test_job_that_was_never_started_is_left_alone(board, launcher):
    (board.path / "journal.jsonl").unlink()

    assert go_on(board) == []
    assert launcher.jobs == []


def test_job_that_runs_already_is_left_to_whoever_runs_it(board, launcher):
    with hold_lock(board.folder, board.job.job_id):
        assert go_on(board) == [f"job {board.job.job_id}: runs already"]

    assert launcher.jobs == []


def test_held_target_fails_so_that_systemd_tries_again(board, launcher):
    with hold_lock(board.folder, LATER):
        (said,) = fail(board)

    assert said.endswith(f"Received: one that job {LATER} holds")
    assert launcher.jobs == []


def test_busy_machine_fails_without_touching_the_job(board, launcher):
    limits = replace(board.job.limits, others_cores=-1e6, quiet_seconds=0.0)
    write_record(replace(board.job, limits=limits), board.path / "job.json")

    said = fail(board)

    assert "other processes use" in said[-1]
    assert launcher.jobs == []


def test_machine_that_is_busy_after_its_boot_is_waited_for_longer_than_the_job_would(board, launcher):
    limits = replace(board.job.limits, others_cores=-1e6, quiet_seconds=0.0)
    write_record(replace(board.job, limits=limits), board.path / "job.json")
    paused, said = [], []

    with pytest.raises(AgentError):
        resume(board.folder, said.append, pause=paused.append, patience_seconds=20.0)

    assert sum(paused) == 20.0
    assert said[0].startswith("waiting 18 s at most, because other processes use ")


def test_forced_job_goes_on_on_a_busy_machine(board, launcher):
    limits = replace(board.job.limits, others_cores=-1e6, quiet_seconds=0.0)
    write_record(replace(board.job, limits=limits, forced=True), board.path / "job.json")

    go_on(board)

    assert launcher.jobs == [board.job.job_id]


def test_job_that_is_stopped_while_it_runs_is_no_failure(board, launcher):
    launcher.end = lambda path: (path / "stop").touch()

    assert go_on(board)[-1] == f"job {board.job.job_id}: stopped"


def test_job_that_ends_without_a_report_fails_and_the_next_one_is_tried(board, launcher):
    add_job(board, replace(board.job, job_id=LATER))

    def end(path: Path) -> None:
        if path == board.path:
            (path / "log.txt").write_text("no space is left\n")
        else:
            (path / "report.json").touch()

    launcher.end = end

    said = fail(board)

    assert launcher.jobs == [board.job.job_id, LATER]
    assert said[1] == f"job {board.job.job_id}: it ended without a report: no space is left"
    assert said[-1] == f"job {LATER}: done"


def test_job_that_can_never_go_on_is_named_and_no_failure(board, launcher):
    add_job(board, replace(board.job, job_id=LATER, release_id="0123456789ab"))
    (board.path / "job.json").write_text("{}")

    said = go_on(board)

    assert launcher.jobs == []
    assert said[0].startswith(f"job {board.job.job_id}: left as it is: ")
    assert "schema_version 2 is required" in said[0]
    assert said[1] == f"job {LATER}: left as it is: its release 0123456789ab is not here any more"


def test_killed_job_is_finished_by_the_verb_of_the_archive(tmp_path):
    release = install(tmp_path / "lite ship", {"none-none": good_artefact()}, agent=agent_archive())
    job = make_job(release, tier=Tier("test", 4, 8, 0.0, 5.0))
    folder, path = release.folder, bench.job_folder(release.folder, job.job_id)
    path.mkdir(parents=True)
    archive = [sys.executable, "-I", "-S", "-B", str(release.path / AGENT)]
    process = bench.launch(folder, job, (), None, archive)
    tail, events = journal.Tail(path / "journal.jsonl"), []
    while not any(event["event"] == "block" for event in events):
        events += tail.new_events()
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [event for event in journal.read(path / "journal.jsonl") if event["event"] == "block"]
    assert not bench.has_report(path)

    ended = subprocess.run([*archive, "resume", "--folder", str(folder)], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines()[-1] == f"job {job.job_id}: done"
    blocks = [event for event in journal.read(path / "journal.jsonl") if event["event"] == "block"]
    assert blocks[: len(before)] == before
    assert len(read_record(Report, path / "report.json").blocks) == 4
