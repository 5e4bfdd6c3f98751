"""`liteship camera` with a made-up target: what is asked, shown, kept and summed up, and how it ends."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from liteship.camera import attach, follow
from liteship.camera.follow import SILENT_SECONDS, START_SECONDS, Camera, CameraState
from liteship.camera.log import FrameLog
from liteship.camera.options import CameraOptions
from liteship.cli import camera as verb
from liteship.cli.big_text import big_text
from liteship.cli.camera_view import Drawing, Lines, draw
from liteship.errors import LinkError, LostLinkError
from liteship.link.forward import ForwardingError, listen
from liteship.progress import Reporter
from liteship.remote import RemoteError
from liteship.retry import Patience, keep_trying
from liteship_agent.camera.wishes import HOST_SILENT

RELEASE = "0123456789ab"
CAMERA = {
    "event": "camera",
    "host": "127.0.0.1",
    "port": 43211,
    "token": None,
    "source": "/dev/video0 (USB camera), 640x480 at 30 Hz",
    "variant": "none-int8",
    "release": RELEASE,
    "labels": ["cat", "dog"],
}
STAGES = {"capture": 1_000_000, "preprocess": 2_000_000, "invoke": 9_000_000, "publish": 10_000}
FIGURES = {
    "event": "figures",
    "captured": 300,
    "classified": 290,
    "dropped": 10,
    "rate_hz": 29.04,
    "latency_p50_ns": 12_300_000,
    "latency_p90_ns": 15_600_000,
    "stages_ns": STAGES,
    "temperature_celsius": 61.3,
    "throttled": False,
    "viewers": 2,
}
SUMMARY = {
    **{name: value for name, value in FIGURES.items() if name != "event"},
    "seconds": 10.0,
    "broken": 1,
    "saved": 3,
    "swaps": 1,
    "labels": {"dog": 40, "cat": 200, "unsure": 50},
}
DONE = {"summary": SUMMARY}
LOST = LostLinkError("pi: an open connection is required.", "Again.", "link lost (connection closed)")
SWAPPED = {"event": "swapped", "release": "ba9876543210", "variant": "none-float32", "gap_ns": 250_000_000}

Run = Callable[..., tuple[int, str, str]]
Step = Mapping[str, Any] | Exception | Callable[[], None]


def frame(number: int, label: str | None = "cat", score: float = 0.93) -> dict[str, Any]:
    top = [["cat", score], ["dog", round(1 - score, 2)]]
    return {
        "event": "frame",
        "number": number,
        "at_ns": 1000 * number,
        "label": label,
        "score": score,
        "top": top,
        "latency_ns": 12_000_000,
    }


class Board:
    """A target that plays a script for each connection: events, errors, and actions in between."""

    def __init__(self) -> None:
        self.plays: list[list[Step]] = []
        self.current: str | None = RELEASE
        self.alone: list[dict[str, Any] | None] = []
        self.on_forward: Callable[[], object] = lambda: None
        self.commands: list[str] = []
        self.forwarded: list[tuple[int, int]] = []
        self.open_forwards = self.probes = 0
        self.refuses: Exception | None = None
        self.closed = threading.Event()
        self.stdin: Iterator[bytes] = iter(())

    @contextmanager
    def connect(self) -> Iterator[Link]:
        yield Link(self)


class Link:
    """One connection to it."""

    python = "python3"
    bytes_sent = 0
    is_open = True

    def __init__(self, board: Board) -> None:
        self.board, self.events = board, 0
        self.target = SimpleNamespace(name="pi", runtime="auto")

    def close(self) -> None:
        self.board.closed.set()

    def probe(self) -> dict[str, Any]:
        self.board.probes += 1
        alone = self.board.alone.pop(0) if self.board.alone else None
        return {"folder": "/home/pi/lite ship", "current": self.board.current, "camera": alone}

    @contextmanager
    def forward(self, port: int, listener: Any) -> Iterator[None]:
        if self.board.refuses is not None:
            raise self.board.refuses
        self.board.on_forward()
        self.board.forwarded.append((port, listener.getsockname()[1]))
        self.board.open_forwards += 1
        yield
        self.board.open_forwards -= 1

    def call(self, command: str, source: Iterator[bytes], *, on_event: Any, idle_seconds: float) -> dict[str, Any]:
        self.board.commands.append(command)
        self.board.stdin = source
        for step in self.board.plays.pop(0):
            if isinstance(step, Exception):
                raise step
            if callable(step):
                step()
            elif "event" in step:
                self.events += 1
                on_event(step)
            else:
                return dict(step)
        raise AssertionError("a script ends with a summary or an error")


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board()
    patience = Patience(attempts=3, sleep=lambda seconds: None)
    monkeypatch.setattr(verb, "check_options", lambda target, runtime: None)
    monkeypatch.setattr(
        verb, "with_connection", lambda name, act, say, given: keep_trying(board.connect, act, name, say.say, patience)
    )
    return board


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs one command line in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return partial(run, "camera", "--target", "pi")


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


# --- a camera that runs there by itself ---

ALONE = {"pid": 1234, "port": 8800, "source": "/dev/video0 (USB camera)"}


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], bool]]:
    """What each look at its page does, and whether it answers."""
    looks: list[Callable[[], bool]] = []
    monkeypatch.setattr(attach, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(attach, "_answers", lambda port: looks.pop(0)())
    return looks


def stopped() -> bool:
    press_ctrl_c()
    return True


def test_camera_of_the_service_is_shown_and_goes_on(board: Board, run: Run, looks: list[Callable[[], bool]]) -> None:
    board.alone = [ALONE]
    looks += [lambda: True, lambda: board.open_forwards == 1, stopped]
    code, out, err = run()
    assert code == 0
    [(port, local)] = board.forwarded
    assert (port, out) == (8800, f"http://127.0.0.1:{local}/\n")
    assert err.splitlines() == [
        "pi: a camera runs there by itself (/dev/video0 (USB camera)); Ctrl-C ends only the view of it",
        "pi: the camera goes on",
    ]
    assert (board.commands, board.open_forwards) == ([], 0), "nothing was started there"


def test_lost_view_of_it_is_dialled_again(
    board: Board, run: Run, looks: list[Callable[[], bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "SILENT_SECONDS", -1.0)
    board.alone = [ALONE, ALONE]
    looks += [lambda: True, lambda: False, stopped]
    code, out, err = run()
    assert (code, out.count("http")) == (0, 1)
    assert "trying again" in err
    assert "the page is where it was" in err


def test_one_that_ended_meanwhile_is_told(
    board: Board, run: Run, looks: list[Callable[[], bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "SILENT_SECONDS", -1.0)
    board.alone = [ALONE]
    looks += [lambda: False]
    code, _, err = run()
    assert code == 5
    assert "a running camera of the service is required. Received: none" in err
    assert board.commands == [], "no other one is started in its place"


@pytest.mark.parametrize("words", [("--source", "pattern"), ("--view", "terminal"), ("--json",)])
def test_camera_that_is_asked_for_something_is_one_of_its_own(board: Board, run: Run, words: tuple[str, ...]) -> None:
    board.alone = [ALONE]
    board.plays = [[RemoteError("pi: a free target is required. Received: one that a camera holds", "", "locked")]]
    assert run(*words)[0] == 5
    assert len(board.commands) == 1


# --- the way there ---


def test_active_release_is_started_with_an_open_stdin_and_its_page_is_told(board: Board, run: Run) -> None:
    stdin: list[bytes] = []
    board.plays = [[CAMERA, lambda: stdin.append(next(board.stdin)), DONE]]
    code, out, err = run()
    assert (code, err) == (0, "")
    [(port, local)] = board.forwarded
    assert port == CAMERA["port"]
    assert out.splitlines()[0] == f"http://127.0.0.1:{local}/"
    assert board.open_forwards == 0, "it ends with the camera"
    assert stdin == [b"\n"], "open, and a sign of life"
    [command] = board.commands
    assert command.startswith(f"python3 -I -S -B '/home/pi/lite ship/releases/{RELEASE}/liteship_agent.zip' camera ")
    assert "--events" in command.split()
    assert "--view=web" in command.split()
    assert "--log-events" not in command.split()


def test_token_is_part_of_the_address(board: Board, run: Run) -> None:
    board.plays = [[{**CAMERA, "token": "a b&c"}, DONE]]
    assert run("--token", "auto")[1].splitlines()[0].endswith("/?token=a%20b%26c")


def test_options_reach_the_agent_as_they_are(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, DONE]]
    words = (
        "--source pattern --size 320x240 --rate 15 --rotate 0 --mirror --crop 0,0.25,1,.5 --loop --variant none-int8"
    )
    more = "--threads 2 --cpus 2,3 --threshold 0 --smoothing 0.5 --save-folder /tmp/x --duration 60 --frames 500"
    run(*words.split(), *more.split())
    asked = board.commands[0].split("camera ", 1)[1].split()
    wanted = (
        "--source=pattern --size=320x240 --rate=15 --rotate=0 --mirror --crop=0,0.25,1,.5 --loop --variant=none-int8 "
        "--threads=2 --cpus=2,3 --threshold=0 --smoothing=0.5 --save-folder=/tmp/x --duration=60 --frames=500"
    )
    assert set(wanted.split()) <= set(asked)


@pytest.mark.parametrize(
    ("arguments", "required"),
    [
        (["--size", "big"], "such as 640x480"),
        (["--crop", "1,2"], "four shares"),
        (["--open", "--view", "none"], "--view web is required"),
        (["--rotate", "45"], "270"),
        (["--log", "/nowhere/at/all"], "No such file"),
    ],
)
def test_bad_option_is_a_usage_error_before_any_connection(
    arguments: list[str], required: str, board: Board, run: Run
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert required in err
    assert not board.probes


@pytest.mark.parametrize(("current", "arguments"), [(None, []), (RELEASE, ["--study", "pets"])])
def test_study_is_deployed_where_none_is_active_or_one_is_named(
    current: str | None, arguments: list[str], board: Board, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    board.current = current
    board.plays = [[CAMERA, LOST], [CAMERA, DONE]]
    deployed: list[Any] = []

    def deploy(link: Any, *arguments: Any) -> Any:
        deployed.append(arguments[:3])
        board.current = "ba9876543210"
        return SimpleNamespace(folder="/home/pi/liteship", release=board.current)

    monkeypatch.setattr(verb, "open_study", lambda name: (Path("models") / (name or "latest"), "manifest"))
    monkeypatch.setattr(verb, "deploy", deploy)
    assert run(*arguments)[0] == 0
    assert deployed == [(Path("models") / ("pets" if arguments else "latest"), "manifest", ("auto",))], "once"
    assert all("/releases/ba9876543210/" in command for command in board.commands)


def test_browser_is_opened_once_when_asked(board: Board, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(verb.webbrowser, "open", lambda address: bool(opened.append(address)))
    board.plays = [[CAMERA, LOST], [CAMERA, DONE]]
    _, out, err = run("--open")
    assert opened == [out.splitlines()[0]]
    assert "open the address yourself" in err


# --- the end ---


def test_summary_is_printed_at_the_end(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, FIGURES, frame(1), DONE]]
    code, out, _ = run("--view", "none")
    assert code == 0
    assert board.forwarded == []
    for words in ("300 / 290 / 10", "29.0 Hz", "12.3 / 15.6 ms", "cat 200, unsure 50, dog 40", "invoke 9.0 ms"):
        assert words in out, out
    assert "http" not in out


def test_json_is_the_summary_alone_on_stdout(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, FIGURES, DONE]]
    _, out, err = run("--json")
    summary = json.loads(out)
    assert "http://127.0.0.1:" in err
    assert summary == {
        "target": "pi",
        "source": CAMERA["source"],
        "variant": "none-int8",
        "release": RELEASE,
        "seconds": 10.0,
        "captured": 300,
        "classified": 290,
        "dropped": 10,
        "broken": 1,
        "rate_hz": 29.04,
        "latency_p50_ns": 12_300_000,
        "latency_p90_ns": 15_600_000,
        "stages_ns": STAGES,
        "labels": {"cat": 200, "unsure": 50, "dog": 40},
        "swaps": 1,
        "saved": 3,
        "lost_links": 0,
        "complete": True,
    }


def test_ctrl_c_ends_stdin_and_waits_for_the_summary(board: Board, run: Run) -> None:
    ended: list[bytes] = []
    board.plays = [[CAMERA, press_ctrl_c, lambda: ended.extend(board.stdin), FIGURES, DONE]]
    before = signal.getsignal(signal.SIGINT)
    code, out, err = run("--json")
    assert (code, ended) == (0, []), "a stop by hand is a normal end, and nothing is left in stdin"
    assert json.loads(out)["complete"]
    assert "interrupted" not in err
    assert signal.getsignal(signal.SIGINT) is before


def test_second_ctrl_c_does_not_wait(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, FIGURES, press_ctrl_c, press_ctrl_c, DONE]]
    code, out, err = run("--json")
    assert code == 5
    assert not json.loads(out)["complete"]
    assert "not waited for" in err


def test_ctrl_c_before_the_camera_is_an_interruption(board: Board, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "with_connection", interrupted)
    assert run()[:2] == (130, "")


def test_camera_that_does_not_end_is_cut_after_a_while(board: Board, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "END_SECONDS", 0.0)

    def wait_for_the_cut() -> None:
        assert list(board.stdin) == []
        assert board.closed.wait(60)

    board.plays = [[CAMERA, FIGURES, press_ctrl_c, wait_for_the_cut, LOST]]
    code, out, err = run("--json")
    assert code == 5
    assert json.loads(out)["captured"] == 300
    assert "the end of the camera within 0 s is required" in err


def test_camera_that_ends_in_time_is_not_cut(board: Board, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "END_SECONDS", 1e6)
    board.plays = [[CAMERA, press_ctrl_c, lambda: list(board.stdin), DONE]]
    assert run()[0] == 0
    timers = [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]
    for timer in timers:
        timer.join(60)
    assert not any(timer.is_alive() for timer in timers)


def test_camera_that_falls_silent_is_a_lost_link(board: Board) -> None:
    now = [0.0]
    camera = Camera("pi", CameraOptions(), lambda state, event: None, clock=lambda: now[0])

    def pass_time(seconds: float) -> Callable[[], None]:
        def later() -> None:
            now[0] += seconds
            assert next(board.stdin) in (b"", b"\n")

        return later

    starts = pass_time(SILENT_SECONDS + 1)  # that may take long
    board.plays = [[starts, CAMERA, pass_time(SILENT_SECONDS - 1), FIGURES, pass_time(2), pass_time(SILENT_SECONDS)]]
    with board.connect() as link, pytest.raises(LostLinkError, match="no word of the camera for 20 s"):
        camera.follow(link, "/home/pi/liteship", RELEASE)  # type: ignore[arg-type]
    assert now == [21 + 19 + 2 + 20], "only the last pause was too long"


def test_camera_that_ended_because_of_a_silence_is_started_again(board: Board, run: Run) -> None:
    ended = {"event": "state", "state": "ended", "reason": HOST_SILENT}
    board.plays = [[CAMERA, ended, DONE], [CAMERA, DONE]]
    code, out, err = run("--json")
    assert (code, len(board.commands)) == (0, 2)
    assert (json.loads(out)["lost_links"], json.loads(out)["captured"]) == (1, 600)
    assert "frozen for a while" in err


def test_camera_that_took_long_to_open_is_not_silent_while_its_page_is_led_here(board: Board) -> None:
    now = [0.0]
    board.on_forward = lambda: next(board.stdin)  # the other thread looks just then

    def take_long() -> None:
        now[0] += START_SECONDS - 1

    board.plays = [[take_long, CAMERA, DONE]]
    with board.connect() as link, listen() as listener:
        camera = Camera("pi", CameraOptions(), lambda state, event: None, listener, clock=lambda: now[0])
        camera.follow(link, "/home/pi/liteship", RELEASE)  # type: ignore[arg-type]
    assert camera.summary().lost_links == 0


def test_camera_that_never_begins_is_a_lost_link_in_the_end(board: Board) -> None:
    now = [0.0]
    camera = Camera("pi", CameraOptions(), lambda state, event: None, clock=lambda: now[0])

    def pass_time() -> None:
        now[0] += START_SECONDS + 1
        next(board.stdin)

    board.plays = [[pass_time]]
    with board.connect() as link, pytest.raises(LostLinkError, match="no word of the camera for 180 s"):
        camera.follow(link, "/home/pi/liteship", RELEASE)  # type: ignore[arg-type]


def test_ctrl_c_while_the_link_is_away_ends_it_with_what_there_was(
    board: Board, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    patience = Patience(sleep=interrupted)
    monkeypatch.setattr(
        verb, "with_connection", lambda name, act, say, given: keep_trying(board.connect, act, name, say.say, patience)
    )
    board.plays = [[CAMERA, FIGURES, LOST]]
    code, out, err = run("--json")
    assert code == 5
    assert json.loads(out)["classified"] == 290
    assert "not waited for the end" in err


def test_new_token_is_told_as_a_new_address(board: Board, run: Run) -> None:
    board.plays = [[{**CAMERA, "token": "one"}, LOST], [{**CAMERA, "token": "two"}, DONE]]
    addresses = run("--token", "auto")[1].splitlines()[:2]
    assert [address.partition("=")[2] for address in addresses] == ["one", "two"]
    assert addresses[0].partition("?")[0] == addresses[1].partition("?")[0]


def test_link_that_is_lost_while_it_ends_is_not_dialled_again(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, FIGURES, press_ctrl_c, LOST]]
    code, out, err = run("--json")
    assert code == 5
    assert json.loads(out)["captured"] == 300
    assert "It ends there by itself" in err
    assert "trying again" not in err


# --- errors ---


def test_error_of_the_agent_is_one_line(board: Board, run: Run) -> None:
    board.plays = [[RemoteError("pi: A camera is required. Received: none.", "Plug one in.", "camera")]]
    code, out, err = run()
    assert (code, out) == (5, "")
    assert err == "error: pi: A camera is required. Received: none. Plug one in.\n"


def test_error_after_a_while_comes_with_what_there_was(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, FIGURES, RemoteError("pi: the camera is gone.", "", "camera")]]
    code, out, err = run()
    assert code == 5
    assert "300 / 290 / 10" in out
    assert err == "error: pi: the camera is gone.\n"


def test_release_without_a_camera_says_to_deploy_again(board: Board, run: Run) -> None:
    received = "exit status 2 liteship-agent: error: argument VERB: invalid choice: 'camera' (choose from bench, stop)"
    board.plays = [[LinkError(f"pi: an answer is required. Received: {received}.")]]
    code, _, err = run()
    assert code == 5
    assert f"Received: release {RELEASE} of an older liteship." in err
    assert "liteship deploy --target pi" in err


def test_refused_forward_names_the_way_without_a_page(board: Board, run: Run) -> None:
    board.refuses = ForwardingError("pi: a forwarded connection is required.", "Set AllowTcpForwarding.")
    board.plays = [[CAMERA, DONE]]
    code, _, err = run()
    assert code == 5
    assert "Set AllowTcpForwarding. Or do without the page: --view terminal." in err


# --- a lost link ---


def test_lost_link_goes_on_with_the_same_port_and_what_is_left(board: Board, run: Run) -> None:
    board.plays = [
        [CAMERA, FIGURES, frame(1), frame(2, None, 0.5), LOST],
        [{**CAMERA, "port": 40000}, {**FIGURES, "classified": 5}, DONE],
    ]
    code, out, err = run("--json", "--frames", "500")
    assert code == 0
    ports, local = zip(*board.forwarded)
    assert ports == (43211, 40000)
    assert local[0] == local[1], "the page is where it was"
    assert [word for command in board.commands for word in command.split() if "frames=" in word] == [
        "--frames=500",
        "--frames=210",
    ]
    summary = json.loads(out)
    assert (summary["captured"], summary["classified"], summary["lost_links"]) == (600, 580, 1)
    assert summary["labels"] == {"cat": 201, "unsure": 51, "dog": 40}
    assert not summary["complete"], "nobody knows what came after the last figures"
    assert "pi: link lost (connection closed); trying again" in err
    assert "connected again" in err
    assert err.count("http://") == 1


def test_nothing_is_started_again_when_nothing_is_left(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, FIGURES, LOST]]
    code, out, _ = run("--json", "--frames", "290")
    assert code == 0
    assert len(board.commands) == 1
    assert json.loads(out)["classified"] == 290


def test_link_that_stays_lost_is_exit_code_5_with_the_summary(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, FIGURES, LOST], [LOST], [LOST]]
    code, out, err = run()
    assert code == 5
    assert "300 / 290 / 10" in out
    assert err.splitlines()[-1].startswith("error: pi: an open connection is required. Tried 3 times.")


# --- the log ---


def test_log_has_a_line_for_each_frame_at_once(board: Board, run: Run, tmp_path: Path) -> None:
    log = tmp_path / "out.jsonl"
    log.write_text('{"number": 0}\n')
    seen: list[int] = []

    def count_lines() -> None:
        seen.append(len(log.read_text().splitlines()))

    board.plays = [
        [CAMERA, frame(1), count_lines, SWAPPED, frame(2, None), count_lines, LOST],
        [CAMERA, frame(1), DONE],
    ]
    assert run("--log", str(log))[0] == 0
    assert "--log-events" in board.commands[0].split()
    assert seen == [2, 3], "written before anything else happens, after what was there"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1, 2, 1]
    assert lines[1] == {
        **{name: value for name, value in frame(1).items() if name != "event"},
        "variant": "none-int8",
        "release": RELEASE,
    }
    assert (lines[2]["label"], lines[2]["variant"]) == (None, "none-float32")


def test_log_keeps_what_a_frame_tells_itself(tmp_path: Path) -> None:
    with FrameLog(tmp_path / "out.jsonl") as log:
        log.write({**frame(1), "variant": "int8", "prediction": "dog", "label": "Käse"}, CAMERA)
    [line] = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    told = json.loads(line)
    assert (told["variant"], told["release"], told["prediction"]) == ("int8", RELEASE, "dog")
    assert "event" not in told
    assert "Käse" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not run: no /dev/full")
def test_full_disk_ends_it_with_one_line(board: Board, run: Run) -> None:
    board.plays = [[CAMERA, frame(1), DONE]]
    code, _, err = run("--log", "/dev/full")
    assert code == 2
    assert err == "error: --log: /dev/full is required to be writable. Received: No space left on device.\n"


# --- what is shown ---


def console(is_terminal: bool = True) -> Console:
    return Console(file=io.StringIO(), force_terminal=is_terminal, width=80, color_system=None, legacy_windows=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def state_with(**changes: Any) -> CameraState:
    state = CameraState("pi", "running", camera=CAMERA, frame=frame(7), figures=FIGURES)
    return SimpleNamespace(**{**vars(state), **changes})  # type: ignore[return-value]


def drawn(state: CameraState) -> str:
    out = console()
    out.print(draw(state))
    lines = shown(out).splitlines()
    assert max(map(len, lines)) <= 80
    return "\n".join(line.rstrip() for line in lines)


def test_drawing_has_label_classes_figures_and_state() -> None:
    text = drawn(state_with())
    letters = [line.rstrip() for line in big_text("cat", 76)]
    rows = text.splitlines()[2:5]
    [column] = {row.index(line) for row, line in zip(rows, letters)}
    assert 30 < column < 40, "in the middle, and its lines below each other"
    assert "pi  none-int8 of release 0123456789ab" in text
    assert f"cat{' ' * 23}{'█' * 41}{'░' * 3} 93.0%" in text
    assert f"dog{' ' * 23}{'█' * 3}{'░' * 41}  7.0%" in text
    assert "29.0 Hz, latency 12.3 / 15.6 ms (p50 / p90)\nframes 300 / 290 / 10 (captured / classified" in text
    assert "capture 1.0 ms  preprocess 2.0 ms  invoke 9.0 ms  publish 0.0 ms" in text
    assert "61 °C, not throttled" in text
    assert text.endswith("running")


def test_drawing_of_nothing_yet_and_of_odd_answers() -> None:
    assert "- Hz, latency - / - ms" in drawn(CameraState("pi"))
    long = [["a class of many words " * 5, 1.7], ["[bold]b[/bold]", -0.1]]
    text = drawn(state_with(frame={**frame(1, "[red]an awfully long label " * 5), "top": long * 5}))
    assert "a class of many words a…" in text
    assert "[bold]b[/bold]" in text, "labels are no markup"
    assert text.count("%") == 5
    assert "\n".join(big_text("unsure", 76)).split("\n")[0].strip() in drawn(state_with(frame=frame(1, None)))


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"state": "measuring", "reason": "a bench has the lock"}, "measuring: a bench has the lock"),
        ({"state": "link lost", "reason": "no answer"}, "link lost: no answer"),
        (
            {"figures": {**FIGURES, "throttled": "undervoltage", "temperature_celsius": 84.6}},
            "85 °C, throttled: undervoltage",
        ),
    ],
)
def test_drawing_tells_state_and_heat(changes: dict[str, Any], line: str) -> None:
    assert line in drawn(state_with(**changes)).splitlines()


def test_drawing_of_unknown_heat_says_nothing_about_it() -> None:
    text = drawn(state_with(figures={**FIGURES, "throttled": None, "temperature_celsius": None}))
    assert "throttled" not in text
    assert "°C" not in text


def test_drawing_is_refreshed_five_times_a_second_at_most() -> None:
    now = [100.0]
    out = console()
    with Drawing(Reporter(out), clock=lambda: now[0]) as drawing:
        for number in range(100):  # ten seconds' worth, ten a second
            drawing(state_with(frame=frame(number)), frame(number))
            now[0] += 0.1
        drawing(state_with(state="paused"), {"event": "state", "state": "paused"})
        drawing(state_with(), SWAPPED)
    titles = shown(out).count("pi  none-int8")
    assert 30 <= titles <= 53, titles
    assert "paused" in shown(out), "a new state is drawn at once"
    assert "pi: now none-float32 of release ba9876543210, 250 ms without an answer" in shown(out)
    assert shown(out).endswith("\x1b[?25h"), "the cursor is back"


def test_no_terminal_gets_one_line_a_second_at_most() -> None:
    now = [100.0]
    out = console(is_terminal=False)
    with Lines(Reporter(out), clock=lambda: now[0]) as lines:
        for number in range(10):
            lines(state_with(frame=frame(number, None if number else "cat")), frame(number))
            lines(state_with(frame=frame(number, None if number else "cat")), FIGURES)
            now[0] += 0.25
    heard = shown(out).splitlines()
    assert heard[0].startswith("pi: cat 0.93, 29.0 Hz, latency 12.3 / 15.6 ms (p50 / p90), frames 300 / 290 / 10 (")
    assert heard[1].startswith("pi: unsure 0.93, ")
    assert len(heard) == 3
    assert "\x1b" not in shown(out)


def test_terminal_view_asks_for_no_page(board: Board, run: Run) -> None:
    board.plays = [[{**CAMERA, "port": None}, frame(1), FIGURES, SWAPPED, {"event": "state", "state": "ended"}, DONE]]
    code, out, err = run("--view", "terminal")
    assert code == 0
    assert "--view=none" in board.commands[0].split()
    assert board.forwarded == []
    assert "pi: cat 0.93, 29.0 Hz" in err, "stderr is no terminal here"
    assert "none-float32" in out, "the summary names the model that was swapped to"


def test_state_is_told_in_a_line_where_nothing_is_drawn(board: Board, run: Run) -> None:
    waits = {"event": "state", "state": "measuring", "reason": "a bench has the lock"}
    runs = {"event": "state", "state": "running", "reason": None}
    ends = {"event": "state", "state": "ended", "reason": "cats.mp4 has no more frames"}
    notice = {"event": "notice", "message": "disk full"}
    board.plays = [[waits, waits, CAMERA, runs, runs, notice, {"event": "new"}, ends, DONE]]
    assert run()[2].splitlines() == [
        "pi: measuring: a bench has the lock",
        "pi: running",
        "pi: disk full",
        "pi: ended: cats.mp4 has no more frames",
    ]
    board.plays = [[CAMERA, runs, press_ctrl_c, {**ends, "reason": "the host has gone"}, DONE]]
    assert run()[2] == "", "what goes as it should is not told"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("cat", ["▄▀▀ ▄▀▄ ▀█▀ ", "█   █▀█  █  ", " ▀▀ ▀ ▀  ▀  "]),
        ("Käse", ["Käse"]),
        ("x" * 20, ["x" * 20]),
        ("", [""]),
    ],
)
def test_big_text_falls_back_to_the_text_itself(text: str, lines: list[str]) -> None:
    assert big_text(text, 76) == lines


def test_patience_covers_the_boot_of_a_board() -> None:
    assert sum(verb._PATIENCE.pause_seconds(failures) for failures in range(1, verb._PATIENCE.attempts)) > 60
