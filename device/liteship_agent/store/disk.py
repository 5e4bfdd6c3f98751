"""Flushing, locking and free space of the file system that holds the liteship folder.

Flushes are counted, because a card takes tens of milliseconds for each: data goes out with one flush of the whole file
system, and then every folder in which a name changed is flushed once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import Callable, Iterator

from liteship_agent.store.events import MIB, StoreError

MARGIN_BYTES = 16 * MIB
LOCK_SECONDS = 45.0
"""Longer than a deploy whose host has gone needs to notice it (`transfer.IDLE_SECONDS`)."""

_SYNC_FILE_RANGE_WRITE = 2


def sync_filesystem(folder: Path) -> None:
    """Flush everything that was written to the file system of a folder: file contents and names.

    Raises:
        OSError: the disk did not take it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def begin_writing(descriptor: int) -> None:
    """Let the kernel start to write a file's contents, without waiting: the disk works while bytes still arrive."""
    with contextlib.suppress(AttributeError):  # only the time of the flush depends on it
        ctypes.CDLL(None).sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)


@contextlib.contextmanager
def locked(
    path: Path, wait_seconds: float = LOCK_SECONDS, pause: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold an exclusive flock on a file; it ends with this process at the latest.

    Raises:
        StoreError: another process holds it all the time.
    """
    with open(path, "ab") as file:
        deadline = time.monotonic() + wait_seconds
        while not _try_lock(file.fileno()):
            if time.monotonic() >= deadline:
                raise StoreError(
                    "locked",
                    f"{path} is required to be free. Received: another deploy is running",
                    "Wait until it is done.",
                )
            pause(0.2)
        yield


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def require_space(folder: Path, coming_bytes: int) -> None:
    """Raise a StoreError of kind space unless what is to come fits, with a margin."""
    needed = coming_bytes + MARGIN_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            "space",
            f"{needed / MIB:.1f} MiB of free space in {folder} is required. Received: {free / MIB:.1f} MiB",
            "Free some space on the target, or set `folder` to another disk.",
        )


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below a folder; a file that several names share counts once."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
