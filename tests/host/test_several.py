from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from liteship.cli import common, several
from liteship.cli.several import Outcome, on_targets, report_errors, run_each
from liteship.errors import ConversionError, LinkError, UsageError
from liteship.link.waiting import pause
from liteship.progress import Reporter
from liteship_agent.errors import AgentError

BOARDS = ("pi4", "pi5", "zero")


def measure(name: str, say: Reporter) -> str:
    """Fails on `pi5` only."""
    say.say("measuring")
    if name == "pi5":
        raise LinkError("pi5: an open connection is required.\n Received: nothing.", "Try again.")
    return f"table of {name}"


def to_json(result: str) -> dict[str, Any]:
    return {"table": result}


def exit_code(names: tuple[str, ...], action: Callable[[str, Reporter], str], as_json: bool = False) -> int:
    try:
        on_targets(names, action, typer.echo, to_json, as_json)
    except typer.Exit as exc:
        return exc.exit_code
    return 0


def test_one_that_fails_stops_no_other_and_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(BOARDS, measure) == 5
    out, err = capsys.readouterr()
    assert out == "table of pi4\ntable of zero\n"
    assert "error: pi5: an open connection is required. Received: nothing. Try again." in err.splitlines()
    assert err.count("error: ") == 1
    assert err.count("an open connection is required") == 1
    assert err.index("pi5: failed; the others go on") < err.index("error: ")
    assert sorted(line for line in err.splitlines() if line.endswith(": measuring")) == [
        f"{name}: measuring" for name in BOARDS
    ]


def test_json_of_several_is_one_object_with_errors_in_their_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(BOARDS, measure, as_json=True) == 5
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["targets"]
    assert found["targets"]["pi4"] == {"table": "table of pi4"}
    assert list(found["targets"]) == list(BOARDS)
    error = "pi5: an open connection is required. Received: nothing. Try again."
    assert found["targets"]["pi5"] == {"error": error, "exit_code": 5}


def test_single_target_is_as_without_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(("pi4",), measure) == 0
    assert exit_code(("pi4",), measure, as_json=True) == 0
    out, err = capsys.readouterr()
    assert out == 'table of pi4\n{\n  "table": "table of pi4"\n}\n'
    assert err == "measuring\n" * 2, "no name in front"
    with pytest.raises(LinkError):
        exit_code(("pi5",), measure)


def test_targets_work_at_the_same_time() -> None:
    all_there = threading.Barrier(len(BOARDS), timeout=20)
    outcomes = run_each(BOARDS, lambda name, say: all_there.wait() >= 0)
    assert [(outcome.target, outcome.result) for outcome in outcomes] == [(name, True) for name in BOARDS]


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ((None, None), 0),
        ((UsageError("no"), None), 2),
        ((UsageError("no"), ConversionError("no")), 3),
        ((AgentError("no"), ConversionError("no")), 5),
        ((ZeroDivisionError("a bug"), None), 1),
    ],
)
def test_exit_code_is_the_highest(errors: tuple[Exception | None, ...], code: int) -> None:
    outcomes = [Outcome(name, "table", error) for name, error in zip(BOARDS, errors)]
    if code == 0:
        report_errors(outcomes)
        return
    with pytest.raises(typer.Exit) as caught:
        report_errors(outcomes)
    assert caught.value.exit_code == code


def test_bug_in_one_thread_shows_its_traceback_and_the_others_tables(capsys: pytest.CaptureFixture[str]) -> None:
    def act(name: str, say: Reporter) -> str:
        return name if name == "pi4" else str(1 / 0)

    assert exit_code(("pi4", "pi5"), act) == 1
    out, err = capsys.readouterr()
    assert out == "pi4\n"
    assert "pi5:\nTraceback (most recent call last)" in err
    assert "ZeroDivisionError" in err


def test_interruption_reaches_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    working, stopped = threading.Barrier(len(BOARDS) + 1, timeout=20), []
    wait = several._wait

    def interrupted_wait(workers: Any, seconds: float | None) -> None:
        if seconds is None:
            working.wait()
            raise KeyboardInterrupt
        wait(workers, seconds)

    def act(name: str, say: Reporter) -> None:
        try:
            working.wait()
            pause(60)
        except KeyboardInterrupt:
            stopped.append(name)
            raise

    monkeypatch.setattr(several, "_wait", interrupted_wait)
    with pytest.raises(KeyboardInterrupt):
        run_each(BOARDS, act)
    assert sorted(stopped) == list(BOARDS)


SLOW_TO_STOP = """
import signal
from liteship.cli.several import run_each
from liteship.link.waiting import pause

def act(name, say):
    try:
        print(f"{name} works\\n", end="", flush=True)
        pause(60)
    except KeyboardInterrupt:
        pause(0.5)
        print(f"{name} stopped\\n", end="", flush=True)
        raise

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    run_each(("pi4", "pi5"), act)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def test_interruption_waits_for_threads_that_take_a_moment_to_stop() -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW_TO_STOP], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        begun = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        ended = process.stdout.read().splitlines()
    assert sorted(begun) == ["pi4 works\n", "pi5 works\n"]
    assert (sorted(ended[:2]), ended[2:]) == (["pi4 stopped", "pi5 stopped"], ["interrupted"])


# --- passwords ---


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked on the terminal."""
    asked: list[str] = []

    def getpass(question: str) -> str:
        asked.append(question)
        return f"word {len(asked)}"

    monkeypatch.setattr(common.getpass, "getpass", getpass)
    return asked


def test_password_is_asked_once_for_all_connections_to_a_target(typed: list[str]) -> None:
    ask = common.PasswordDialogue()
    assert [ask("Password of pi@pi4") for _ in range(3)] == ["word 1"] * 3
    assert ask("Password of me@gate") == "word 2"
    assert typed == ["Password of pi@pi4: ", "Password of me@gate: "]


def test_passwords_are_asked_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, most = [], []

    def getpass(question: str) -> str:
        asking.append(question)
        most.append(len(asking))
        pause(0.05)
        asking.pop()
        return "word"

    monkeypatch.setattr(common.getpass, "getpass", getpass)
    run_each(BOARDS, lambda name, say: common.PasswordDialogue(say)(name))
    assert most == [1, 1, 1]


def test_nobody_is_asked_without_a_terminal() -> None:
    assert common.PasswordDialogue.on_terminal() is None


def test_connection_is_opened_anew_for_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    @contextmanager
    def open_one(target: object, **options: object) -> Any:
        opened.append(target)
        yield SimpleNamespace(bytes_sent=0, events=0)

    monkeypatch.setattr(common, "find_target", lambda name, ask: f"target {name}")
    monkeypatch.setattr(common.Connection, "open", open_one)
    say = SimpleNamespace(say=lambda text: None, hidden=None)
    assert common.with_connection("pi", lambda connection: len(opened), say) == 1  # type: ignore[arg-type]
    assert opened == ["target pi"]
