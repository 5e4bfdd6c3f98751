"""The camera's process: signals and the end of stdin become wishes, events become lines of one kind or another."""

from __future__ import annotations

import math
import os
import select
import signal
import sys
import threading
import time
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
from liteship_agent.camera.wishes import HOST_SILENT, Wishes
from liteship_agent.lock import YIELD_SIGNAL

Event = Dict[str, Any]
_RATE_HZ = 30.0
_STEP_SECONDS = 0.1
SILENT_SECONDS = 10.0
"""Without a byte of the host, which sends one every two seconds; it waits longer before it starts another camera."""
_END_SECONDS = 5.0
_LOST_EXIT_CODE = 5


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
        threading.Thread(target=watch_host, args=(wishes,), name="stdin", daemon=True).start()
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


def watch_host(
    wishes: Wishes,
    stdin: int = 0,
    silent_seconds: float = SILENT_SECONDS,
    end_seconds: float = _END_SECONDS,
    leave: Callable[[int], object] = os._exit,
) -> None:
    """Let the camera end when its host ends stdin, or sends nothing any more.

    A link that is frozen may hold up whoever tells that it ends, because nobody takes what is on stdout. Then the
    process is left as it is: the kernel gives back the lock and the camera.

    Args:
        wishes: Told the reason.
        stdin: File descriptor, on which anything is a sign of life.
        silent_seconds: The longest wait for one, by the monotonic clock.
        end_seconds: How long a clean end may take after silence.
        leave: Ends the process, given its exit code.
    """
    while select.select([stdin], [], [], silent_seconds)[0]:
        if not os.read(stdin, 4096):
            wishes.end("the host has gone")
            return
    wishes.end(HOST_SILENT)
    time.sleep(end_seconds)
    leave(_LOST_EXIT_CODE)
