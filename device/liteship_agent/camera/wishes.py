"""What is asked of a running camera from outside; signals and other threads ask, one thread waits and acts."""

from __future__ import annotations

import contextlib
import os
import select
from typing import Optional

HOST_SILENT = "nothing was heard of the host for too long"
"""Why a camera ends whose link is frozen; a host that reads it after all may start the camera again."""


class Wishes:
    """What shall happen, until somebody has seen to it.

    Asking sets a field and writes to a pipe, which a signal's handler may do at any moment: a lock might be held by the
    very thread that it interrupted.
    """

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._end: Optional[str] = None
        self._shall_yield = False
        self._shall_pause = False

    @property
    def end_reason(self) -> Optional[str]:
        """Why the camera shall end, null while it shall not."""
        return self._end

    @property
    def shall_pause(self) -> bool:
        """Whether somebody who looks wants it paused."""
        return self._shall_pause

    def end(self, reason: str) -> None:
        """Let it end; the first reason counts."""
        self._end = self._end or reason
        self._wake()

    def yield_target(self) -> None:
        """Let it give up the target to a job."""
        self._shall_yield = True
        self._wake()

    def taken_yield(self) -> bool:
        """Whether to give up the target, asked since the last call."""
        shall, self._shall_yield = self._shall_yield, False
        return shall

    def pause(self, shall: bool) -> None:
        """Let it pause, or go on."""
        self._shall_pause = shall
        self._wake()

    def wait(self, seconds: float) -> None:
        """Wait until something is asked, at most so long."""
        if select.select([self._read], [], [], seconds)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._read, 4096)

    def close(self) -> None:
        """Give the pipe back; nobody may ask any more."""
        os.close(self._read)
        os.close(self._write)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is full: whoever waits wakes up anyway
            os.write(self._write, b"x")
