"""Event lines, which the host reads from stdout, and the error that ends a verb.

An event line is EVENT_MARK, a JSON object and a line feed; everything else on stdout is noise of shells.
"""

from __future__ import annotations

import contextlib
import errno
import json
import signal
import sys
import threading
from typing import Any, Callable, Dict, Iterator

EVENT_MARK = b"\x1eliteship "
INVENTORY = "inventory"
"""The event with which a deploy begins: what `probe` tells, by which the host decides what it sends."""

MIB = 1 << 20
HEARTBEAT_SECONDS = 10.0

Event = Dict[str, Any]
Emit = Callable[[Event], None]

_STDOUT_LOCK = threading.Lock()


class StoreError(Exception):
    """The folder cannot be used as asked.

    Args:
        kind: One word for programs: space, hash, permission, locked, link, missing, archive, protocol, smoke, links
            or io.
        message: What was required and what was received, one line.
        hint: What to do next, or empty.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        self.kind, self.message, self.hint = kind, " ".join(message.split()), hint
        super().__init__(self.message)


def emit(event: Event) -> None:
    """Write one event line to stdout at once."""
    line = EVENT_MARK + json.dumps(event).encode("ascii") + b"\n"
    with _STDOUT_LOCK:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def heartbeat(stage: str, report: Emit) -> Iterator[None]:
    """Report `stage` every few seconds while the body runs, so that the host knows a silent target from a lost one."""
    finished = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):  # a lost link is found by the next report of the body
            report({"event": "progress", "stage": stage})
            while not finished.wait(HEARTBEAT_SECONDS):
                report({"event": "progress", "stage": stage})

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


def serve(action: Callable[[], Event]) -> int:
    """Run an action, answer with its result or its error as the final event; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    try:
        answer = action()
    except StoreError as exc:
        return _fail(exc)
    except OSError as exc:
        return _fail(wrapped(exc))
    emit({"event": "done", **answer})
    return 0


def _interrupted(number: int, frame: Any) -> None:
    raise StoreError("link", f"An uninterrupted command is required. Received: {signal.Signals(number).name}")


def _fail(error: StoreError) -> int:
    with contextlib.suppress(OSError):  # nobody may be listening any more
        emit({"event": "error", "kind": error.kind, "message": error.message, "hint": error.hint})
    return 1


def wrapped(error: OSError) -> StoreError:
    """What the operating system refused, as an error of the folder."""
    where = error.filename or "the liteship folder"
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("space", f"Free space at {where} is required. Received: {reason}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError("permission", f"Access to {where} is required. Received: {reason}")
    kind = "link" if isinstance(error, BrokenPipeError) else "io"
    return StoreError(kind, f"{where} is required to be usable. Received: {reason}")
