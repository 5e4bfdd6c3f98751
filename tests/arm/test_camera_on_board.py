"""The camera on an emulated ARM64 board: its page comes through the SSH forward, to a program and to a browser."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from emulated_board import LITESHIP, Liteship, environment, over_ssh

from liteship.emulated.machine import Machine

pytestmark = [pytest.mark.arm, pytest.mark.timeout(1800)]

OPTIONS = ("--source", "pattern", "--size", "320x240", "--rate", "5", "--smoothing", "0", "--threshold", "0")
PATIENCE_SECONDS = 240.0
CHROMIUM = shutil.which("chromium")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
MEAN_COLOR = """() => { const image = document.getElementById("picture");
    if (!image.naturalWidth) return null;
    const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
    const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0, 32, 32, 0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].join(); }"""


class Camera:
    """`liteship camera` as it runs on this computer.

    Args:
        folder: Its working folder.
        process: The command.
    """

    def __init__(self, folder: Path, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._log, self.process = folder / "frames.jsonl", process
        self.address = process.stdout.readline().strip()
        assert self.address.startswith("http://127.0.0.1:"), process.stderr and process.stderr.read()

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Status and body, asked for as the page itself does."""
        place = urlsplit(self.address).netloc
        with contextlib.closing(http.client.HTTPConnection(place, timeout=PATIENCE_SECONDS)) as page:
            page.request(method, path, headers={"Origin": f"http://{place}"})
            answer = page.getresponse()
            return answer.status, answer.read()

    def frames(self) -> list[dict[str, Any]]:
        """The lines of the log so far."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []

    def interrupt(self) -> tuple[int, str, str]:
        """Ctrl-C, and how it ended."""
        self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, out, err


@pytest.fixture(scope="module")
def camera(deployed: dict[str, Any], folder: Path) -> Iterator[Camera]:
    command = [LITESHIP, "camera", "--target", "emulated", *OPTIONS, "--log", "frames.jsonl"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Camera(folder, process)
        finally:
            process.kill()


def eventually(holds: Callable[[], object]) -> None:
    ends_at = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < ends_at, "it never came"
        time.sleep(0.2)


def test_page_of_the_board_is_here(camera: Camera) -> None:
    status, page = camera.request("GET", "/")
    assert (status, b"page.js" in page) == (200, True)
    assert json.loads(camera.request("GET", "/health")[1])["source"].startswith("moving pattern, 320x240")


def test_each_moving_frame_is_labelled_there(camera: Camera) -> None:
    eventually(lambda: len({json.dumps(frame["top"]) for frame in camera.frames()}) >= 5)
    frames = camera.frames()
    assert all(frame["label"] in (name for name, _ in frame["top"]) for frame in frames)
    assert all(frame["latency_ns"] > 0 for frame in frames)


def test_frame_is_saved_there(camera: Camera, board: Machine) -> None:
    status, answer = camera.request("POST", "/save")
    assert status == 200
    name = json.loads(answer)["saved"]
    saved = over_ssh(board, "pi", f"cat liteship/frames/{Path(name).with_suffix('.json')}")
    assert json.loads(saved)["label"] in {frame["label"] for frame in camera.frames()}


@pytest.mark.skipif(CHROMIUM is None, reason="not run: no Chromium")
def test_browser_shows_moving_pictures_and_labels(camera: Camera) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        page.goto(camera.address, wait_until="domcontentloaded")
        colors, scores = set(), set()
        ends_at = time.monotonic() + PATIENCE_SECONDS
        while (len(colors) < 3 or len(scores) < 3) and time.monotonic() < ends_at:
            colors.add(page.evaluate(MEAN_COLOR))
            scores.add(page.inner_text("#top"))
            page.wait_for_timeout(100)
        state, label = page.inner_text("#state-text"), page.inner_text("#label-text")
        browser.close()
    assert len(colors - {None}) >= 2
    assert len(scores) >= 3
    assert (state, label in {frame["label"] for frame in camera.frames()}) == ("live", True)


def test_another_deploy_takes_over_and_the_summary_tells(
    camera: Camera, deployed: dict[str, Any], folder: Path, liteship: Liteship
) -> None:
    shutil.copytree(folder / "models/arm", folder / "models/arm-again")
    manifest = json.loads((folder / "models/arm/manifest.json").read_text())
    manifest["entries"] = [entry for entry in manifest["entries"] if entry["variant"] in ("none-none", "none-int8")]
    (folder / "models/arm-again/manifest.json").write_text(json.dumps(manifest))
    try:
        liteship("deploy", "--target", "emulated", "--study", "arm-again")
        eventually(lambda: {frame["release"] for frame in camera.frames()} > {deployed["release"]})
        code, out, err = camera.interrupt()
    finally:
        shutil.rmtree(folder / "models/arm-again")
        liteship("deploy", "--target", "emulated", "--study", "arm")
    assert code == 0, err
    assert "models swapped" in out
    frames = camera.frames()
    assert [frame["number"] for frame in frames] == sorted({frame["number"] for frame in frames}), "each once"
