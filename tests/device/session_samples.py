"""A liteship folder with releases that a camera runs, and a session of a camera in a thread of this process."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from camera_samples import plain
from release_samples import Artefact, good_artefact, install

from liteship_agent.camera.choose import choose
from liteship_agent.camera.frame import Frame
from liteship_agent.camera.options import CameraOptions
from liteship_agent.camera.session import Session
from liteship_agent.camera.smoothing import Smoothing
from liteship_agent.camera.wishes import Wishes
from liteship_agent.release import InstalledRelease
from tflite_samples import color_classifier

SECONDS = 30
"""That nothing here takes: a wait of so long has failed."""


def add_release(folder: Path, artefacts: Mapping[str, Artefact] | None = None, **options: Any) -> InstalledRelease:
    """Install a release, of good models with different bytes by default, and make it the active one."""
    apart = folder.parent / f"apart-{time.monotonic_ns()}"
    made = install(apart, artefacts or {"none-none": good_artefact(), "none-int8": good_artefact("int8")}, **options)
    (folder / "releases").mkdir(parents=True, exist_ok=True)
    shutil.move(made.path, folder / "releases" / made.release_id)
    if not (folder / "runtimes").exists():
        shutil.move(apart / "runtimes", folder / "runtimes")
    activate(folder, made.release_id)
    return InstalledRelease(folder, made.release_id)


def other_model(padding: int = 1) -> Artefact:
    """A good one with bytes of its own."""
    return replace(good_artefact(), content=color_classifier() + b"\0" * padding)


def activate(folder: Path, release_id: str) -> None:
    """Switch `current`, as a deploy does."""
    temporary = folder / "current.tmp"
    temporary.symlink_to(f"releases/{release_id}")
    os.rename(temporary, folder / "current")


def camera_options(folder: Path, **changes: Any) -> CameraOptions:
    """Those of a camera without a page."""
    options = CameraOptions(
        folder=folder,
        source="pattern",
        size=(64, 48),
        rate_hz=None,
        rotate_degrees=0,
        mirror=False,
        crop=None,
        loop=False,
        variant=None,
        runtime=None,
        threads=1,
        cpus=None,
        threshold=0.4,
        smoothing=0.0,
        view="none",
        host="127.0.0.1",
        port=0,
        token=None,
        log=None,
        save_folder=folder / "frames",
        duration_seconds=None,
        frames=None,
        events=True,
        log_events=False,
    )
    return replace(options, **changes)


class Endless:
    """A live source of one colour after the other, fast; it can be lost, and fail to open."""

    def __init__(self, *colors: int) -> None:
        self.name, self.is_live, self.lost = "endless", True, None
        self.colors, self.opened, self.closed = colors or (0,), 0, 0
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._number = 0

    def open(self) -> None:
        if self.error is not None:
            raise self.error
        self.opened += 1
        self._stop.clear()

    def read(self) -> Frame | None:
        if self._stop.wait(0.002):
            return None
        self._number += 1
        return Frame(plain(self.colors[self._number % len(self.colors)]), time.monotonic_ns(), self._number - 1)

    def close(self) -> None:
        self.closed += 1

    def interrupt(self) -> None:
        self._stop.set()


class Running:
    """A session in a thread; ends with the `with` block."""

    def __init__(self, folder: Path, source: Any = None, **changes: Any) -> None:
        self.options = camera_options(folder, **changes)
        self.source = source or Endless()
        self.wishes = Wishes()
        self.events: list[dict] = []
        self.summary: Mapping[str, Any] | None = None
        self.error: BaseException | None = None
        release = InstalledRelease(folder, os.path.basename(os.readlink(folder / "current")))
        choice = choose(release, self.options.variant, self.options.runtime)
        smoothing = Smoothing(0.0, 0.0, self.options.threshold)
        self.session = Session(self.options, choice, self.source, smoothing, self.events.append, self.wishes)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.summary = self.session.run()
        except BaseException as exc:
            self.error = exc

    def __enter__(self) -> Running:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Let it end, and wait for that."""
        self.wishes.end("the test is over")
        self.wait()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait for what the session does; the value."""
        deadline = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < deadline, self.events
            assert self._thread.is_alive() or condition(), (self.error, self.events)
            time.sleep(0.005)
        return found

    def of(self, kind: str) -> list[dict]:
        """The events of one kind so far."""
        return [event for event in list(self.events) if event["event"] == kind]

    def states(self) -> list[str]:
        """The states so far."""
        return [event["state"] for event in self.of("state")]

    def until_state(self, state: str) -> None:
        """Wait until it is in a state now."""
        self.until(lambda: self.states()[-1:] == [state])
