"""The append-only journal of a job: a finished block is on the disk before the next one starts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping


def append(path: Path, event: Mapping[str, Any]) -> None:
    """Add one line and wait until it is on the disk. Never called while something is timed."""
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


def read(path: Path) -> List[Dict[str, Any]]:
    """All whole events; a line that a power cut left half-written is dropped, its block runs again."""
    if not path.exists():
        return []
    with open(path, "rb") as file:
        return list(_events(file))


def _events(lines: Any) -> Iterator[Dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            yield event
