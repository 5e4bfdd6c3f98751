"""The camera as a board runs it: the archive of a release, processes of their own, signals and pipes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camera_page import Page as Requests
from release_samples import good_artefact
from session_samples import Endless, Running, add_release, other_model

from liteship.payload import agent_archive
from liteship_agent import lock
from liteship_agent.camera.process import watch_host
from liteship_agent.camera.wishes import HOST_SILENT
from liteship_agent.release import AGENT

MARK = "\x1eliteship "
SECONDS = 60


class Process:
    """`liteship-agent camera` from `current`, as the service and the host start it."""

    def __init__(self, folder: Path, *words: str) -> None:
        command = [sys.executable, "-I", "-S", "-B", str(folder / "current" / AGENT), "camera", "--folder", str(folder)]
        command += ["--source", "pattern", "--size", "64x48", *words]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/"
        )
        self.events: list[dict] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()
        threading.Thread(target=self._say_that_it_lives, daemon=True).start()

    def _say_that_it_lives(self) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed, by a test or the end of the camera
            while self.process.poll() is None:
                self.process.stdin.write("\n")
                self.process.stdin.flush()
                time.sleep(1)

    def _listen(self) -> None:
        with contextlib.suppress(ValueError):  # a test closed it
            self._hear()

    def _hear(self) -> None:
        for line in self.process.stdout:
            with self._changed:
                if line.startswith(MARK):
                    self.events.append(json.loads(line[len(MARK) :]))
                self._changed.notify_all()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def first(self, wanted: Callable[[dict], Any]) -> dict:
        """Wait for the first event that is wanted."""
        with self._changed:
            found = lambda: next((event for event in self.events if wanted(event)), None)  # noqa: E731
            assert self._changed.wait_for(found, SECONDS), (self.events[-3:], self.process.poll())
            return found()

    def state(self, name: str, after: int = 0) -> dict:
        """Wait for a state, of the events from a number on."""
        return self.first(lambda event: event in self.events[after:] and event.get("state") == name)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("board") / "lite ship"
    add_release(folder, {"none-none": good_artefact()}, agent=agent_archive())
    return folder


def is_frame(event: dict) -> bool:
    return event["event"] == "frame"


def test_camera_from_the_archive_serves_its_page_and_ends_with_its_stdin(folder):
    with Process(folder, "--events", "--token", "auto") as camera:
        told = camera.first(lambda event: event["event"] == "camera")
        requests = Requests.__new__(Requests)
        requests.server = type("Server", (), {"port": told["port"]})
        status, _, body = requests.get(f"/?token={told['token']}")
        assert (status, b"page.js" in body) == (200, True)
        assert requests.get("/page.js")[0] == 401
        camera.first(is_frame)
        camera.process.stdin.close()
        assert camera.process.wait(SECONDS) == 0
        summary = camera.first(lambda event: event["event"] == "done")["summary"]
    assert summary["classified"] >= 1
    assert camera.events[-2]["reason"] == "the host has gone"
    assert lock.holder(folder) is None


def test_host_that_falls_silent_ends_the_camera_which_frees_the_target(folder):
    stdin, host = os.pipe()
    left = threading.Event()
    with Running(folder, Endless()) as camera:
        camera.until_state("running")
        watch = threading.Thread(target=watch_host, args=(camera.wishes, stdin, 0.5, 0.0, lambda code: left.set()))
        watch.start()
        for _ in range(8):  # longer than it would take without
            os.write(host, b"\n")
            time.sleep(0.1)
        assert camera.wishes.end_reason is None
        camera.wait()
        watch.join()
    assert camera.of("state")[-1]["reason"] == HOST_SILENT
    assert camera.summary["classified"] > 0
    assert left.is_set(), "also where nobody takes what it tells"
    assert (lock.holder(folder), camera.source.closed) == (None, 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_with_a_summary(folder, number):
    with Process(folder, "--events", "--view", "none") as camera:
        camera.first(is_frame)
        camera.process.send_signal(number)
        assert camera.process.wait(SECONDS) == 0
        assert camera.first(lambda event: event["event"] == "done")["summary"]["captured"] >= 1


def test_job_gets_the_target_within_its_patience_and_the_camera_goes_on_after_it(folder):
    with Process(folder, "--events", "--view", "none") as camera:
        camera.first(is_frame)
        with lock.wanted(folder), lock.acquire_for_job(folder, "20261122-090000-job"):
            camera.state("measuring")
            assert camera.process.poll() is None
        after = len(camera.events)
        camera.state("running", after)
        camera.first(lambda event: event in camera.events[after:] and is_frame(event))
        assert lock.holder(folder).pid == camera.process.pid


def test_second_camera_is_refused_with_one_line(folder):
    with Process(folder, "--events", "--view", "none") as camera:
        camera.first(is_frame)
        with Process(folder, "--events") as second:
            assert second.process.wait(SECONDS) == 5
            error = second.first(lambda event: event["event"] == "error")
            lines = [line for line in second.process.stderr.read().splitlines() if not line.startswith("INFO")]
    assert (error["kind"], f"a camera (process {camera.process.pid}) holds" in error["message"]) == ("locked", True)
    assert lines == [error["message"]]


def test_deploy_of_another_release_takes_over_while_the_agent_s_own_release_stays(folder):
    first = (folder / "current").readlink().name
    with Process(folder, "--events", "--view", "none") as camera:
        camera.first(is_frame)
        second = add_release(folder, {"none-none": other_model()}, agent=agent_archive()).release_id
        swapped = camera.first(lambda event: event["event"] == "swapped")
        assert (swapped["release"], swapped["gap_ns"] > 0) == (second, True)
        assert lock.lock_holder(folder) == f"camera-{second}+{first}"
        words = Path(f"/proc/{camera.process.pid}/cmdline").read_text().split("\0")
        assert str(folder / "releases" / first / AGENT) in words
        assert not any("current" in word for word in words)


def test_reader_that_goes_away_ends_it(folder):
    with Process(folder, "--view", "terminal") as camera:
        camera.process.stdout.close()
        assert camera.process.wait(SECONDS) in (0, 120)  # 120: Python could not flush what nobody reads
    assert lock.holder(folder) is None


def test_error_is_one_line_and_no_traceback(folder):
    with Process(folder, "--variant", "filter30-none") as camera:
        assert camera.process.wait(SECONDS) == 5
        assert camera.process.stderr.read().count("\n") == 1


def test_file_on_the_command_line_may_be_relative(folder, tmp_path):
    command = [sys.executable, "-I", "-S", "-B", str(folder / "current" / AGENT), "camera", "--folder", str(folder)]
    command += ["--source", "pattern", "--frames", "3", "--view", "none", "--log", "frames.jsonl"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (ended.returncode, len((tmp_path / "frames.jsonl").read_text().splitlines())) == (0, 3)
    assert " labelled, " in ended.stdout
    assert os.listdir(tmp_path) == ["frames.jsonl"]
