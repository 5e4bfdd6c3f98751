"""The lock of a target: one job or camera at a time, and how a job gets it from a camera.

`lock` is held by flock, which the kernel gives back when its process ends; its content is "PID NAME", where the name is
a job's id or `camera-` and the releases that the camera uses. `lock.wanted` is shared by all that want to measure,
for as long as they do: no camera runs meanwhile. A camera that holds the target is asked by a signal to give it up,
and takes it again when neither file is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional, Sequence, TextIO

from liteship_agent.errors import LockedError

STARTING = "starting"
"""Name of a holder that has not said its own yet."""
YIELD_SIGNAL = signal.SIGUSR1
"""What asks a camera to give up the target."""

_CAMERA = "camera-"
_LOCK, _WANTED = "lock", "lock.wanted"
_POLL_SECONDS = 0.05
_ATTEMPTS = 5
_YIELD_SECONDS = 10.0  # a camera needs 2 at most; a board that swaps may need longer


@dataclass(frozen=True)
class Holder:
    """Who holds a target now.

    Args:
        name: Id of a job, a camera's name, or STARTING.
        pid: Its process, null while it is starting.
    """

    name: str
    pid: Optional[int] = None

    @property
    def is_camera(self) -> bool:
        """Whether it gives the target up when asked."""
        return self.name.startswith(_CAMERA)

    def describe(self) -> str:
        """For messages."""
        kind = "a camera" if self.is_camera else "a job" if self.name == STARTING else f"job {self.name}"
        return f"{kind} (process {self.pid})" if self.is_camera else kind


def holder(folder: Path) -> Optional[Holder]:
    """Who holds the target now, or None."""
    try:
        with open(folder / _LOCK, encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                words = file.read().split()
                there = len(words) == 2 and words[0].isdecimal()
                return Holder(words[1], int(words[0])) if there else Holder(STARTING)
    except FileNotFoundError:
        pass
    return None


def lock_holder(folder: Path) -> Optional[str]:
    """Name of who holds the target now: a job's id, a camera's name or STARTING; None where it is free."""
    found = holder(folder)
    return None if found is None else found.name


def acquire_for_job(folder: Path, job_id: str) -> TextIO:
    """Hold the target until the returned file is closed, which the kernel does when the process ends.

    Raises:
        LockedError: another job holds it, or a camera that does not give it up.
    """
    ask_camera(folder)
    file = _acquire(folder, job_id)
    if file is None:
        raise LockedError("a free target is required. Received: one that another job holds")
    return file


@contextmanager
def wanted(folder: Path) -> Iterator[None]:
    """No camera runs on this target while the body does; a job that runs is not touched.

    Raises:
        LockedError: a camera does not give the target up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / _WANTED, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # a camera that looks has it for an instant only
        ask_camera(folder)
        yield


def ask_camera(folder: Path) -> None:
    """Let a camera give up the target, where one holds it.

    Raises:
        LockedError: it does not.
    """
    found = holder(folder)
    if found is None or not found.is_camera or found.pid is None:
        return
    if not _is_camera_process(found.pid):
        return  # what is left of one that was killed; another process has the lock and writes its name just now
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(found.pid, YIELD_SIGNAL)
    for _ in range(round(_YIELD_SECONDS / _POLL_SECONDS)):
        if holder(folder) not in (found, Holder(STARTING)):  # nameless for an instant, while it gives the target up
            return
        time.sleep(_POLL_SECONDS)
    raise LockedError(
        f"a camera that gives up the target within {_YIELD_SECONDS:.0f} s is required. Received: {found.describe()}, "
        "which does not; end it"
    )


def _is_camera_process(pid: int) -> bool:
    """Whether a signal would reach what we mean: a process id may have gone to another program."""
    try:
        return b"camera" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class CameraLock:
    """A camera's hold on its target.

    Args:
        folder: The liteship folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: Optional[TextIO] = None

    @property
    def is_held(self) -> bool:
        """Whether this camera holds the target."""
        return self._file is not None

    def take(self, releases: Sequence[str]) -> Optional[str]:
        """Hold the target if nobody measures or wants to.

        Args:
            releases: Ids of those that the camera uses; no collection removes them.
        Returns:
            None if it is held now, else who measures, in words.
        Raises:
            LockedError: another camera holds the target.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._is_wanted():
            return "a measurement begins"
        self._file = _acquire(self._folder, _name(releases))
        if self._file is not None:
            return None
        found = holder(self._folder)
        if found is not None and found.is_camera:
            raise LockedError(f"a free target is required. Received: one that {found.describe()} holds; end it first")
        return f"{found.describe()} runs" if found is not None else "a job has just ended"

    def rename(self, releases: Sequence[str]) -> None:
        """Tell the releases that are used from now on; nothing where the target is not held."""
        if self._file is not None:
            _write_name(self._file, _name(releases))

    def give_up(self) -> None:
        """Let others have the target; nothing where it is not held."""
        if self._file is not None:
            self._file.truncate(0)  # so that nobody takes our process for the next holder
            self._file.close()
            self._file = None

    def _is_wanted(self) -> bool:
        with open(self._folder / _WANTED, "a+") as file:
            return not _try(file)


def _name(releases: Sequence[str]) -> str:
    return _CAMERA + "+".join(dict.fromkeys(releases))


def _acquire(folder: Path, name: str) -> Optional[TextIO]:
    file = hold(folder / _LOCK)
    if file is not None:
        _write_name(file, name)
    return file


def hold(path: Path) -> Optional[TextIO]:
    """Hold a file until it is closed; null where another process does."""
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open as long as it is held)
    # Who looks for a holder holds the file for an instant, which must not refuse anybody.
    for _ in range(_ATTEMPTS):
        if _try(file):
            return file
        time.sleep(_POLL_SECONDS)
    file.close()
    return None


def _try(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write_name(file: TextIO, name: str) -> None:
    file.truncate(0)
    file.write(f"{os.getpid()} {name}\n")
    file.flush()
