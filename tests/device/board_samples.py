"""A liteship folder whose workers are stubs that answer at once, for the tests of jobs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from release_samples import RUNTIME, good_artefact, install, make_job

from liteship_agent import bench, journal
from liteship_agent.records import read_record, write_record
from liteship_agent.report import Report
from tflite_samples import color_classifier

GOOD = good_artefact()


def no_pause(seconds: float) -> None:
    """Waiting takes no time."""


class Board:
    """Three artefacts and a job on them.

    Args:
        folder: Empty; the liteship folder and the stub are made in it.
        sensors: Of the board, the real ones where there are none.
        changes: Of the job.
    """

    def __init__(self, folder: Path, sensors: object = None, **changes: object) -> None:
        variants = {f"none-{i}": replace(GOOD, content=color_classifier() + b"\0" * i) for i in range(3)}
        self.sensors = sensors
        self.folder = folder / "board"
        self.release = install(self.folder, variants)
        self.job = make_job(self.release, **changes)
        self.path = self.folder / "jobs" / self.job.job_id
        self.path.mkdir(parents=True)
        write_record(self.job, self.path / "job.json")
        self.stub = folder / "stub" / "stub_agent.py"
        self.stub.parent.mkdir()
        shutil.copy(Path(__file__).with_name("stub_agent.py"), self.stub)
        self.cooled_after = 0
        self.behave({})

    @property
    def artefacts(self) -> list[str]:
        """sha256 of each."""
        return [case.artefact for case in self.job.cases]

    def behave(self, behaviors: dict[str, list[str]]) -> None:
        """How the workers of each artefact behave, one after another; the last one for ever."""
        (self.stub.parent / "behaviors.json").write_text(json.dumps(behaviors))
        (self.stub.parent / "started.txt").unlink(missing_ok=True)

    def command(self, runtime: Path, *arguments: str) -> list[str]:
        """In place of `watch.agent_command`."""
        assert runtime.name == RUNTIME
        return [sys.executable, "-I", "-S", str(self.stub), *arguments]

    def pause(self, seconds: float) -> None:
        """Waiting takes no time; whoever heated the board has cooled down by then."""
        self.cooled_after = len(self.started_lines())

    def run(self) -> Report:
        """Run the job, or what is missing of it."""
        bench.run_job(self.folder, self.job.job_id, self.sensors, self.pause)
        return read_record(Report, self.path / "report.json")

    def started(self, kind: str = "block") -> list[str]:
        """Artefact of every worker that was started since the last call of `behave`."""
        return [line.split()[1] for line in self.started_lines() if line.endswith(f" {kind}")]

    def started_lines(self) -> list[str]:
        """Verb, artefact and kind of every worker that was started since the last call of `behave`."""
        path = self.stub.parent / "started.txt"
        return path.read_text().splitlines() if path.exists() else []

    def last_started(self, case_index: int) -> bool:
        """Whether the worker that was started last is one of this case."""
        return any(self.artefacts[case_index] in line for line in self.started_lines()[-1:])

    def events(self, kind: str) -> list[dict]:
        """Of the journal."""
        return [event for event in journal.read(self.path / "journal.jsonl") if event["event"] == kind]

    def interrupt_after(self, events: int) -> None:
        """Make the journal what it was after so many events, and the report not written."""
        path = self.path / "journal.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:events]))
        (self.path / "report.json").unlink(missing_ok=True)
