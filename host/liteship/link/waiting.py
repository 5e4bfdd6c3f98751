"""Deadlines of our own, because not every call of paramiko and of the resolver has one.

Whoever waits looks up ten times a second, so that an interruption is not held up, in whatever thread it comes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_futures
from typing import TypeVar

from paramiko.ssh_exception import SSHException

from liteship.errors import LostLinkError

Result = TypeVar("Result")

LOST = (OSError, EOFError, SSHException)
"""How paramiko tells that a connection is gone."""

_TICK_SECONDS = 0.1


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """Run an action that has no time limit of its own in a thread, and wait only so long.

    Raises:
        TimeoutError: it was not ready in time; its thread ends when what it waits for is closed.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as exc:
            outcome.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    deadline = time.monotonic() + seconds
    while not outcome.done() and time.monotonic() < deadline:
        wait_for_futures([outcome], _TICK_SECONDS)
    if not outcome.done():
        raise TimeoutError("no answer in time")
    return outcome.result()


def wait_for(event: threading.Event, seconds: float) -> bool:
    """Whether an event came in time."""
    deadline = time.monotonic() + seconds
    while not event.wait(min(_TICK_SECONDS, seconds)):
        if time.monotonic() >= deadline:
            return False
    return True


def pause(seconds: float) -> None:
    """Sleep."""
    wait_for(threading.Event(), seconds)


def lost(name: str, reason: object) -> LostLinkError:
    """The error for a connection to a target that ended under us."""
    told = str(reason) or "connection closed"
    return LostLinkError(
        f"{name}: an open connection is required. Received: link lost ({told}).",
        "The same command goes on where it stopped.",
        f"link lost ({told})",
    )
