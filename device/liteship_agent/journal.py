"""The append-only journal of a job: a finished block is on the disk before the next one starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one line and wait until it is on the disk. Never called while something is timed.

    Raises:
        OSError: there is no space, or the disk failed; what stood there is unharmed.
    """
    line = json.dumps(event, ensure_ascii=False, allow_nan=False) + "\n"
    with open(path, "ab") as file:
        if file.tell() and not _ends_with_newline(path):
            file.write(b"\n")
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read(path: Path) -> Iterator[Dict[str, Any]]:
    """All whole events, one in memory at a time; a line that a power cut left half-written is dropped."""
    if path.exists():
        with open(path, "rb") as file:
            for line in file:
                yield from _parsed(line)


class Tail:
    """The events of a journal as they come, each once.

    Args:
        path: Of the journal; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def new_events(self) -> List[Dict[str, Any]]:
        """Whole events since the last call; a line that is being written is left for the next."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.splitlines() for event in _parsed(line)]


def _parsed(line: bytes) -> Iterator[Dict[str, Any]]:
    try:
        event = json.loads(line)
    except ValueError:
        return
    if isinstance(event, dict) and "event" in event:
        yield event
