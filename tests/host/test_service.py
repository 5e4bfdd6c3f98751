from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from liteship import service
from liteship.cli import service as verbs
from liteship.errors import UsageError
from liteship.programs import Program
from liteship.remote import RemoteError
from liteship.service import ServiceState

RUNNING = {
    "what": "agent",
    "unit": "liteship-agent.service",
    "installed": True,
    "enabled": True,
    "active": "active",
    "sub": "running",
    "result": "success",
    "ending": None,
    "pid": 201,
    "restarts": 0,
    "since": "Sun 2026-11-22 10:15:00 UTC",
    "other_folder": None,
}
ABSENT = {
    **RUNNING,
    "what": "camera",
    "unit": "liteship-camera.service",
    "installed": False,
    "enabled": False,
    "active": "inactive",
    "sub": "dead",
    "pid": None,
    "since": None,
}
FAILED = {**RUNNING, "active": "failed", "sub": "failed", "result": "exit-code", "pid": None, "restarts": 5}
RETRYING = {**FAILED, "active": "activating", "sub": "auto-restart", "ending": "exit-code, exit status 5"}
NOTHING_TO_DO = {**RUNNING, "active": "inactive", "sub": "dead", "pid": None, "ending": "success, exit status 0"}

Run = Callable[..., tuple[int, str, str]]


class Board:
    """Answers like a target, and keeps what it was asked."""

    def __init__(self) -> None:
        self.target = SimpleNamespace(name="pi", folder="~/lite ship")
        self.asked: list[tuple[str, ...]] = []
        self.answer: Any = {}

    def run(self, program: Program, arguments: tuple[str, ...]) -> Any:
        self.asked.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board()
    monkeypatch.setattr(verbs, "open_connection", lambda name: nullcontext(board))
    return board


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs one command line in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return partial(run, "service")


def test_program_for_the_target_needs_nothing_but_a_python(tmp_path: Path) -> None:
    program = service._PROGRAM
    command = [sys.executable, "-I", "-S", "-B", "-c", program.loader, "facts", str(tmp_path)]

    ended = subprocess.run(command, input=program.packed, capture_output=True, check=False)

    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout.split(b"\x1eliteship ")[-1])
    assert answer["event"] == "done"
    assert set(answer) >= {"kill_user_processes", "remove_ipc", "lingers", "user", "has_systemd"}


@pytest.mark.parametrize(
    ("state", "failed", "words"),
    [
        (RUNNING, False, "active (running)"),
        (ABSENT, False, "not installed"),
        (FAILED, True, "failed (failed)"),
        (RETRYING, True, "activating (auto-restart), exit-code, exit status 5"),
        (NOTHING_TO_DO, False, "waits for the next boot: nothing is left to do"),
        ({**NOTHING_TO_DO, "ending": None}, False, "not started"),
        ({**ABSENT, "other_folder": "/other/units/x"}, False, "not installed here; /other/units/x has its name"),
    ],
)
def test_state_has_words_and_tells_a_failure(state: dict[str, Any], failed: bool, words: str) -> None:
    found = ServiceState(**state)

    assert (found.has_failed, found.describe()) == (failed, words)


def test_install_asks_the_target_and_tells_what_is_there_now(board: Board, run: Run) -> None:
    board.answer = {"service": RUNNING, "changed": True, "lingers": True, "user": "pi"}

    code, out, _ = run("install", "agent", "--target", "pi")

    assert (code, out) == (0, "pi: liteship-agent.service is installed: active (running); user pi lingers.\n")
    assert board.asked == [("install", "~/lite ship", "agent")]


def test_install_of_what_is_installed_says_so(board: Board, run: Run) -> None:
    board.answer = {"service": NOTHING_TO_DO, "changed": False, "lingers": True, "user": "pi"}

    _, out, _ = run("install", "--target", "pi")

    assert "was installed already: waits for the next boot" in out


def test_refusal_of_the_target_is_one_line_and_exit_5(board: Board, run: Run) -> None:
    board.answer = RemoteError(
        "pi: Lingering of user pi is required. Received: no", "sudo loginctl enable-linger pi", "lingering"
    )

    code, out, err = run("install", "agent", "--target", "pi")

    assert (code, out) == (5, "")
    assert (
        err.splitlines()[-1]
        == "error: pi: Lingering of user pi is required. Received: no. sudo loginctl enable-linger pi"
    )


@pytest.mark.parametrize("verb", ["install", "status", "logs", "remove"])
def test_this_computer_is_no_board(board: Board, run: Run, verb: str) -> None:
    code, out, err = run(verb, "--target", "loopback")

    assert (code, out) == (2, "")
    assert err.startswith("error: A board is required for a service. Received: loopback")
    assert board.asked == []
    with pytest.raises(UsageError):
        service.require_board("loopback")


@pytest.mark.parametrize("arguments", [("status",), ("install", "rocket", "--target", "pi"), ("logs", "--lines", "0")])
def test_mistyped_command_is_exit_2(board: Board, run: Run, arguments: tuple[str, ...]) -> None:
    assert run(*arguments)[0] == 2
    assert board.asked == []


def test_status_shows_both_and_is_exit_5_where_one_has_failed(board: Board, run: Run) -> None:
    board.answer = {"services": [FAILED, ABSENT], "lingers": True, "user": "pi"}

    code, out, _ = run("status", "--target", "pi")

    assert code == 5
    assert [word in out for word in ("agent", "failed (failed)", "camera", "not installed", "user pi lingers")] == [
        True
    ] * 5
    board.answer = {"services": [RUNNING, ABSENT], "lingers": False, "user": "pi"}
    code, out, _ = run("status", "--target", "pi")
    assert code == 0
    assert "does not start" in out
    assert "user pi does not linger" in out


def test_status_as_json_has_every_field(board: Board, run: Run) -> None:
    board.answer = {"services": [RUNNING], "lingers": True, "user": "pi"}

    code, out, _ = run("status", "agent", "--target", "pi", "--json")

    assert code == 0
    assert json.loads(out) == {
        "target": "pi",
        "services": [RUNNING],
        "lingers": True,
        "user": "pi",
        "changed": False,
        "removed": [],
    }
    assert board.asked == [("status", "~/lite ship", "agent")]


def test_logs_are_the_lines_and_a_journal_in_memory_is_told(board: Board, run: Run) -> None:
    board.answer = {"lines": ["first", "second"], "persistent": False}

    code, out, err = run("logs", "camera", "--target", "pi", "--lines", "2")

    assert (code, out) == (0, "first\nsecond\n")
    assert "kept in memory" in err
    assert board.asked == [("logs", "~/lite ship", "camera", "2")]


def test_logs_without_a_line_say_so(board: Board, run: Run) -> None:
    board.answer = {"lines": [], "persistent": True}

    code, out, err = run("logs", "--target", "pi")

    assert (code, out) == (0, "")
    assert "no line of the agent service" in err
    assert "kept in memory" not in err


def test_logs_as_json(board: Board, run: Run) -> None:
    board.answer = {"lines": ["first"], "persistent": True}

    _, out, _ = run("logs", "--target", "pi", "--json")

    assert json.loads(out) == {"target": "pi", "what": "agent", "lines": ["first"], "persistent": True}


def test_remove_tells_what_was_there(board: Board, run: Run) -> None:
    board.answer = {"removed": ["agent", "camera"], "lingers": False, "user": "pi"}
    assert run("remove", "--target", "pi")[1] == "pi: removed agent and camera; user pi does not linger.\n"

    board.answer = {"removed": [], "lingers": True, "user": "pi"}
    assert run("remove", "camera", "--target", "pi")[1] == "pi: there was no service to remove; user pi lingers.\n"
    assert json.loads(run("remove", "--target", "pi", "--json")[1])["removed"] == []
    assert board.asked == [("remove", "~/lite ship"), ("remove", "~/lite ship", "camera"), ("remove", "~/lite ship")]
