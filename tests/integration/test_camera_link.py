"""`liteship camera` as a process over real SSH servers, with a made-up agent there: page, ends, lost links."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import FaultProxy

from liteship.targets import Target

LITESHIP = str(Path(sys.executable).with_name("liteship"))
SHORT_OF_PATIENCE = "import liteship.camera.follow as f; f.SILENT_SECONDS = 3.0; import liteship.cli.app as a; a.main()"
RELEASE = "0123456789ab"
PATIENCE_SECONDS = 60.0
AGENT = """
import fcntl, http.server, json, os, select, sys, threading, time
folder = sys.argv[sys.argv.index("--folder") + 1]
def note(text):
    with open(os.path.join(folder, "notes.txt"), "a") as file:
        file.write(text + "\\n")
def emit(**event):
    sys.stdout.write("\\x1eliteship " + json.dumps(event) + "\\n")
    sys.stdout.flush()
lock = open(os.path.join(folder, "lock"), "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("refused")
    emit(event="error", kind="locked", message="a free target is required. Received: one that a camera holds")
    sys.exit(5)
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"page of " + str(os.getpid()).encode())
        while self.path == "/stream":
            self.wfile.write(b"picture " * 1000)
    def log_message(self, *words):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
note(f"began {os.getpid()} " + " ".join(sys.argv[1:]))
emit(event="camera", host="127.0.0.1", port=server.server_port, token=None, source="made-up", variant="none-int8",
     release="0123456789ab", labels=["cat"])
ended = threading.Event()
def wait():
    while select.select([0], [], [], SILENT_SECONDS)[0]:
        if not os.read(0, 4096):
            note("stdin ended")
            break
    else:
        note("nothing came")
    ended.set()
threading.Thread(target=wait, daemon=True).start()
figures, number = {}, 0
try:
    while not ended.wait(0.05):
        number += 1
        emit(event="frame", number=number, at_ns=number, label="cat", score=0.9, top=[["cat", 0.9]], latency_ns=1)
        figures = {"captured": number, "classified": number, "dropped": 0, "rate_hz": 20.0, "latency_p50_ns": 1000000,
                   "latency_p90_ns": 2000000, "stages_ns": {"invoke": 1000000}, "temperature_celsius": None,
                   "throttled": None, "viewers": 0}
        emit(event="figures", **figures)
    emit(event="done", summary={**figures, "seconds": number / 20, "saved": 0, "swaps": 0, "labels": {"cat": number}})
except OSError:
    note("link gone")
note("ended")
"""


def install(target: Target, silent_seconds: float = 10.0) -> Path:
    """Put a release with the made-up agent on a target, which ends after such a silence; returns its folder."""
    folder = Path(target.folder)
    release = folder / "releases" / RELEASE
    release.mkdir(parents=True)
    (release / "liteship_agent.zip").write_text(AGENT.replace("SILENT_SECONDS", str(silent_seconds)))
    (folder / "current").symlink_to(f"releases/{RELEASE}")
    return folder


def write_inventory(target: Target, place: Path) -> None:
    names = ("host", "port", "user", "identity_file", "host_key_sha256", "folder", "python")
    lines = [f"{name} = {json.dumps(getattr(target, name))}" for name in names]
    (place / "targets.toml").write_text("\n".join(["[targets.board]", *lines]) + "\n")


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)


def notes(folder: Path) -> list[str]:
    path = folder / "notes.txt"
    return path.read_text().splitlines() if path.exists() else []


def running_cameras(folder: Path) -> int:
    """How many there are; the loopback server ends what a lost link leaves, other servers end its stdin."""
    pids = [line.split()[1] for line in notes(folder) if line.startswith("began ")]
    return sum(Path(f"/proc/{pid}").exists() for pid in pids)


def fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:
        return bytes(answer.read())


def try_to_fetch(address: str) -> bytes | None:
    """None while the link is lost and that is not known yet."""
    with contextlib.suppress(OSError):
        return fetch(address)
    return None


class Running:
    """A camera command that runs in a process group of its own, as in a terminal."""

    def __init__(self, place: Path, *arguments: str, program: tuple[str, ...] = (LITESHIP,)) -> None:
        self.process = subprocess.Popen(
            [*program, "camera", "--target", "board", *arguments],
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def first_line(self, stream: str = "stdout") -> str:
        file = getattr(self.process, stream)
        return str(file.readline()).strip()

    def interrupt(self) -> tuple[int, str, str]:
        """Ctrl-C, and how it ended."""
        os.killpg(self.process.pid, signal.SIGINT)
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts commands, and kills what a failed test leaves."""
    started: list[Running] = []

    def run(target: Target, *arguments: str, **options: Any) -> Running:
        write_inventory(target, tmp_path)
        started.append(Running(tmp_path, *arguments, **options))
        return started[-1]

    yield run
    for running in started:
        with running.process as process, contextlib.suppress(ProcessLookupError):
            process.kill()


def test_page_is_here_and_ctrl_c_ends_the_camera_there(
    target: Target, start: Callable[..., Running], tmp_path: Path
) -> None:
    folder = install(target)
    running = start(target, "--source", "pattern", "--log", "out.jsonl")
    address = running.first_line()
    assert fetch(address).startswith(b"page of ")
    with urllib.request.urlopen(f"{address}stream") as stream:
        assert stream.read(100_000), "still open when the end comes"
        eventually(lambda: len((tmp_path / "out.jsonl").read_text().splitlines()) > 3)
        code, out, err = running.interrupt()
    assert (code, err) == (0, "")
    assert "none-int8, made-up" in out
    [began, *rest] = notes(folder)
    assert " camera --folder " in began
    assert "--source=pattern" in began.split()
    assert rest == ["stdin ended", "ended"]
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1)), "every frame, each once"


def test_link_that_is_cut_is_dialled_again_and_the_page_is_where_it_was(
    target: Target, start: Callable[..., Running]
) -> None:
    folder = install(target)
    with FaultProxy(target).running() as proxy:
        running = start(proxy.target, "--json")
        address = running.first_line("stderr")
        first = fetch(address)
        proxy.cut()
        eventually(lambda: try_to_fetch(address) not in (None, first))  # of a new camera
        eventually(lambda: running_cameras(folder) == 1)
        code, out, err = running.interrupt()
    assert code == 0, err
    assert json.loads(out)["lost_links"] == 1
    assert "trying again" in err
    assert "connected again; the page is where it was" in err
    assert notes(folder)[-1] == "ended"


def test_link_that_freezes_is_dialled_again_though_the_old_camera_has_the_lock_for_a_while(
    target: Target, start: Callable[..., Running]
) -> None:
    folder = install(target, silent_seconds=12.0)
    with FaultProxy(target).running() as proxy:
        running = start(proxy.target, "--json", program=(sys.executable, "-c", SHORT_OF_PATIENCE))
        address = running.first_line("stderr")
        first = fetch(address)
        proxy.freeze_open()
        eventually(lambda: try_to_fetch(address) not in (None, first))  # of a new camera
        assert running_cameras(folder) == 1
        code, out, err = running.interrupt()
    assert code == 0, err
    assert json.loads(out)["lost_links"] == 1
    assert "no word of the camera for 3 s); trying again" in err
    assert "connected again; the page is where it was" in err
    assert {"nothing came", "refused"} <= set(notes(folder))


def test_ctrl_c_over_a_frozen_link_ends_with_what_was_heard(
    target: Target, start: Callable[..., Running], tmp_path: Path
) -> None:
    install(target)
    with FaultProxy(target).running() as proxy:
        running = start(proxy.target, "--json", "--log", "out.jsonl")
        assert fetch(running.first_line("stderr"))
        eventually(lambda: len((tmp_path / "out.jsonl").read_text().splitlines()) > 3)
        proxy.freeze()
        code, out, err = running.interrupt()
    assert code == 5
    assert json.loads(out)["classified"] > 0
    assert err.count("\n") == 1
    assert "the end of the camera within 5 s is required" in err


def test_death_of_the_command_ends_the_camera(target: Target, start: Callable[..., Running]) -> None:
    folder = install(target)
    running = start(target)
    assert running.first_line().startswith("http://")
    assert running_cameras(folder) == 1
    running.process.kill()
    eventually(lambda: running_cameras(folder) == 0)


def test_camera_that_runs_by_itself_is_shown_and_left_running(target: Target, start: Callable[..., Running]) -> None:
    folder = install(target)
    program = """
import http.server, pathlib, sys
from liteship_agent.camera.announcement import announced
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"alone")
server = http.server.HTTPServer(("127.0.0.1", 0), Page)
with announced(pathlib.Path(sys.argv[1]), server.server_port, "pattern"):
    print("there", flush=True)
    server.serve_forever()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as alone:
        try:
            assert alone.stdout is not None
            assert alone.stdout.readline() == b"there\n"
            running = start(target)
            assert fetch(running.first_line()) == b"alone"
            code, _, err = running.interrupt()
            assert (code, notes(folder), alone.poll()) == (0, [], None)
        finally:
            alone.kill()
    assert "board: a camera runs there by itself (pattern); Ctrl-C ends only the view of it" in err


def test_ctrl_c_does_not_reach_the_program_in_between(
    sshd: Target, start: Callable[..., Running], home: Path, tmp_path: Path
) -> None:
    target = sshd.model_copy(update={"folder": str(tmp_path / "ship")})
    folder = install(target)
    code = (
        "import socket, sys, threading\n"
        f"far = socket.create_connection(('127.0.0.1', {sshd.port}))\n"
        "near = socket.socket(fileno=0)\n"
        "def pump(a, b):\n"
        "    while data := a.recv(65536): b.sendall(data)\n"
        "    b.shutdown(2)\n"
        "threading.Thread(target=pump, args=(near, far)).start()\n"
        "pump(far, near)\n"
    )
    (tmp_path / "tunnel.py").write_text(code)
    (home / ".ssh" / "config").write_text(f"Host *\n  ProxyCommand {sys.executable} {tmp_path}/tunnel.py\n")
    running = start(target)
    assert fetch(running.first_line()).startswith(b"page of ")
    code, _, err = running.interrupt()
    assert (code, err) == (0, "")
    assert notes(folder)[1:] == ["stdin ended", "ended"]


def test_terminal_is_drawn_on_in_place_and_left_clean(sshd: Target, tmp_path: Path) -> None:
    target = sshd.model_copy(update={"folder": str(tmp_path / "ship")})
    install(target)
    write_inventory(target, tmp_path)
    terminal, inner = pty.openpty()
    command = [LITESHIP, "camera", "--target", "board", "--view", "terminal"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "40"},
    ) as process:  # fmt: skip
        os.close(inner)
        shown, is_stopped = "", False
        with contextlib.suppress(OSError):  # the other side is closed
            while piece := os.read(terminal, 65536):
                shown += piece.decode(errors="replace")
                if shown.count("20.0 Hz") > 3 and not is_stopped:
                    is_stopped = True
                    os.killpg(process.pid, signal.SIGINT)
        os.close(terminal)
    assert process.returncode == 0, shown
    assert "▄▀▀ ▄▀▄ ▀█▀" in shown
    assert "frames captured" in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") > 0, "the cursor is back"
    assert "http" not in shown
