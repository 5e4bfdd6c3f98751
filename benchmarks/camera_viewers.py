"""What viewers of the camera's page cost: the pipeline's rate and memory with and without them.

    python benchmarks/camera_viewers.py --folder .liteship/loopback > benchmarks/results/camera_viewers.md

The camera is the agent's own process with the active release of a liteship folder. It loops a video made here, as fast
as its frames are labelled, so that whatever else it does costs rate; the bar is a loss of 0.10 with three viewers. A
viewer takes the picture and the news as a browser does, and throws them away: a browser's own work is not the board's.
Spans without and with viewers alternate, and each pair gives one ratio; the median of them counts. CPU time is that of
the camera's process, which tells what viewers cost on a busy computer too; memory is its RssAnon after each span.
Markdown goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from camera_rate import make_video

from liteship_agent.system import environment

MARK = "\x1eliteship "
MOST_LOSS_RATIO = 0.10
VIEWERS = 3
SETTLE_SECONDS = 1.0
MIB = 2**20


class Camera:
    """The agent's camera in a process of its own, on a video that it loops."""

    def __init__(self, folder: Path, video: Path, *words: str) -> None:
        command = [str(Path(sys.executable).with_name("liteship-agent")), "camera", "--folder", str(folder)]
        command += ["--source", str(video), "--loop", "--events", *words]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = self._first()
        threading.Thread(target=self._drain, daemon=True).start()

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                yield json.loads(line[len(MARK) :])

    def _first(self) -> dict[str, Any]:
        return next(event for event in self._lines() if event["event"] == "camera")

    def _drain(self) -> None:
        for _ in self._lines():
            pass

    def health(self) -> dict[str, Any]:
        """As its page tells it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.told["port"], timeout=30)
        connection.request("GET", "/health")
        return json.loads(connection.getresponse().read())

    def span(self, seconds: float) -> tuple[float, float]:
        """Labels per second over a span, and how many cores the process used."""
        before, used, started = self.health()["classified"], self._cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        after, used_later, ended = self.health()["classified"], self._cpu_seconds(), time.monotonic()
        return (after - before) / (ended - started), (used_later - used) / (ended - started)

    def _cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def anonymous_bytes(self) -> int:
        """RssAnon of its process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("RssAnon:")[2].split()[0]) * 1024

    def end(self) -> None:
        """As when its host goes."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


@contextlib.contextmanager
def viewers(port: int, count: int) -> Iterator[None]:
    """So many, in a process of their own."""
    command = [sys.executable, __file__, "--view", str(port), "--viewers", str(count)]
    process = subprocess.Popen(command)
    try:
        time.sleep(SETTLE_SECONDS)
        yield
    finally:
        process.kill()
        process.wait()


def view(port: int, count: int) -> None:
    """Take what a browser takes, until this process is ended."""

    def take(path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        while answer.read1(1 << 16):
            pass

    for _ in range(count):
        for path in ("/stream", "/events"):
            threading.Thread(target=take, args=(path,), daemon=True).start()
    time.sleep(1e6)


@dataclass(frozen=True)
class Round:
    """Rates and cores without and with viewers."""

    alone_hz: float
    watched_hz: float
    alone_cores: float
    watched_cores: float


def measure(camera: Camera, count: int, rounds: int, seconds: float) -> tuple[list[Round], list[int]]:
    """A pair of spans a round, and all memory samples."""
    pairs, memory = [], []
    time.sleep(2 * SETTLE_SECONDS)
    for number in range(rounds):
        spans = {}
        # Odd rounds the other way round: what drifts hits both alike.
        for watched in (False, True) if number % 2 == 0 else (True, False):
            with viewers(camera.told["port"], count if watched else 0):
                spans[watched] = camera.span(seconds)
                memory.append(camera.anonymous_bytes())
        pairs.append(Round(spans[False][0], spans[True][0], spans[False][1], spans[True][1]))
        print(f"round {number + 1}/{rounds}: {pairs[-1]}", file=sys.stderr)
    return pairs, memory


def row(name: str, rounds: list[Round], memory: list[int]) -> str:
    """One line of the table."""
    loss = median(1 - one.watched_hz / one.alone_hz for one in rounds)
    alone_hz, watched_hz = median(one.alone_hz for one in rounds), median(one.watched_hz for one in rounds)
    alone_ms = median(1000 * one.alone_cores / one.alone_hz for one in rounds)
    watched_ms = median(1000 * one.watched_cores / one.watched_hz for one in rounds)
    quarter = max(1, len(memory) // 4)
    first, last = median(memory[:quarter]) / MIB, median(memory[-quarter:]) / MIB
    return (
        f"| {name} | {alone_hz:.1f} | {watched_hz:.1f} | {100 * loss:.1f} % "
        f"| {'met' if loss <= MOST_LOSS_RATIO else 'missed'} "
        f"| {alone_ms:.2f} | {watched_ms:.2f} | {first:.1f} | {last:.1f} |"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="liteship folder with an active release")
    parser.add_argument("--variant", help="of the release")
    parser.add_argument("--viewers", type=int, default=VIEWERS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each span")
    parser.add_argument("--view", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.view is not None:
        view(options.view, options.viewers)
        return
    words = [] if options.variant is None else ["--variant", options.variant]
    print(f"# What {options.viewers} viewers of the camera cost\n")
    about = environment()
    print(
        f"{datetime.date.today()}, {about['cpu_model']}, {about['cpu_count']} CPUs; {options.rounds} pairs of spans",
        end=" ",
    )
    print(f"of {options.seconds:g} s; video of 640x480 pixels.\n")
    print(
        "| frames come | rate, Hz | watched | loss | 10 % or less | CPU, ms a frame | watched | RssAnon, MiB | last |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "video.avi"
        make_video(video, 640, 480)
        for name, more in (("as fast as they go", ["--rate", "0"]), ("at 30 Hz", ["--rate", "30"])):
            camera = Camera(options.folder, video, *words, *more)
            try:
                print(row(name, *measure(camera, options.viewers, options.rounds, options.seconds)), flush=True)
            finally:
                camera.end()


if __name__ == "__main__":
    main()
