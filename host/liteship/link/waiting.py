"""Deadlines of our own, because not every call of paramiko and of the resolver has one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from paramiko.ssh_exception import SSHException

from liteship.errors import LostLinkError
from liteship.targets import Target

Result = TypeVar("Result")

LOST = (OSError, EOFError, SSHException)
"""How paramiko tells that a connection is gone."""


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
    return outcome.result(seconds)


def lost(target: Target, reason: Exception) -> LostLinkError:
    """The error for a connection that ended under us."""
    return LostLinkError(
        f"{target.name}: an open connection is required. Received: link lost ({reason or 'connection closed'}).",
        "The same command goes on where it stopped.",
    )
