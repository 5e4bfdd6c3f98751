"""The camera's process: signals and the end of stdin become wishes, events become lines of one kind or another."""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict

import cv2

from liteship_agent.camera.choose import Choice
from liteship_agent.camera.frame import FrameOptions
from liteship_agent.camera.options import CameraOptions
from liteship_agent.camera.session import Session
from liteship_agent.camera.smoothing import Smoothing
from liteship_agent.camera.sources import make_source
from liteship_agent.camera.terminal import PlainView, TerminalView
from liteship_agent.camera.wishes import Wishes
from liteship_agent.lock import YIELD_SIGNAL

Event = Dict[str, Any]
_RATE_HZ = 30.0
_STEP_SECONDS = 0.1


def run(options: CameraOptions, choice: Choice, emit: Callable[[Event], None]) -> None:
    """Run a camera in this process until it ends.

    Args:
        options: What is asked for.
        choice: Of the release; its runtime is on this process's path.
        emit: Writes an event line.
    Raises:
        AgentError: it cannot run; the message says why.
    """
    wishes = Wishes()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: wishes.end("it was asked to end"))
    signal.signal(YIELD_SIGNAL, lambda *_: wishes.yield_target())
    cv2.setNumThreads(1)  # the cores are for the model; a frame is too small to share out
    view = None if options.events else TerminalView(sys.stdout) if options.view == "terminal" else PlainView(sys.stdout)
    tell = _Teller(emit if view is None else view.tell, wishes)
    if options.events:
        threading.Thread(target=_watch_stdin, args=(wishes,), name="stdin", daemon=True).start()
    source = make_source("pi" if options.source == "rpicam" else options.source, frame_options(options))
    summary = Session(options, choice, source, smoothing(options), tell.tell, wishes).run()
    if view is not None:
        view.end()
    tell.tell({"event": "done", "summary": summary})


def frame_options(options: CameraOptions) -> FrameOptions:
    """How frames are taken: a file has its own size and rate, a camera is asked for them."""
    is_file = Path(options.source).exists() and not options.source.startswith("/dev/")
    width, height = options.size
    return FrameOptions(
        width=None if is_file else width,
        height=None if is_file else height,
        rate_hz=options.rate_hz or (None if is_file or options.rate_hz == 0 else _RATE_HZ),
        rotate_degrees=options.rotate_degrees,
        mirror=options.mirror,
        crop=options.crop,
        loop=options.loop,
        paced=options.rate_hz != 0,
    )


def smoothing(options: CameraOptions) -> Smoothing:
    """The time constant that leaves the asked share of the answer before after a tenth of a second."""
    seconds = -_STEP_SECONDS / math.log(options.smoothing) if options.smoothing > 0 else 0.0
    return Smoothing(seconds=seconds, threshold=options.threshold)


class _Teller:
    """Lets any thread tell, one at a time; whoever does not listen any more ends the camera."""

    def __init__(self, tell: Callable[[Event], None], wishes: Wishes) -> None:
        self._tell, self._wishes = tell, wishes
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        try:
            with self._lock:
                self._tell(event)
        except OSError:  # the reader of stdout has gone
            self._wishes.end("nobody listens any more")


def _watch_stdin(wishes: Wishes) -> None:
    while os.read(0, 4096):
        pass
    wishes.end("the host has gone")
