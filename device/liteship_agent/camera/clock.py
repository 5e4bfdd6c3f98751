"""Monotonic time, waiting that another thread can cut short, and the pace of frames that come from files."""

from __future__ import annotations

import threading
import time
from typing import Optional

NS_PER_SECOND = 1_000_000_000


class Clock:
    """The clock of a camera: CLOCK_MONOTONIC, by which V4L2 drivers tell when a frame was taken."""

    def __init__(self) -> None:
        self._cut = threading.Event()

    def now_ns(self) -> int:
        """Nanoseconds since an arbitrary moment."""
        return time.monotonic_ns()

    def wait(self, seconds: float) -> bool:
        """Wait; false if that was cut short."""
        return not self._cut.wait(max(0.0, seconds))

    def cut(self) -> None:
        """End every wait, now and later, until `restore`."""
        self._cut.set()

    def restore(self) -> None:
        """Let waits take their time again."""
        self._cut.clear()


class Pace:
    """When the frames of a file are due.

    Args:
        clock: Tells the time and waits.
        rate_hz: Frames per second; null for as fast as they are read.
    """

    def __init__(self, clock: Clock, rate_hz: Optional[float]) -> None:
        self._clock = clock
        self._interval_ns = None if rate_hz is None else round(NS_PER_SECOND / rate_hz)
        self._due_ns: Optional[int] = None

    def wait(self) -> bool:
        """Wait until the next frame is due; false if that was cut short.

        A reader that is late by more than a frame goes on from now: it would else catch up in a burst.
        """
        if self._interval_ns is None:
            return True
        now_ns = self._clock.now_ns()
        if self._due_ns is None or now_ns > self._due_ns + self._interval_ns:
            self._due_ns = now_ns
        came = self._due_ns <= now_ns or self._clock.wait((self._due_ns - now_ns) / NS_PER_SECOND)
        self._due_ns += self._interval_ns
        return came
