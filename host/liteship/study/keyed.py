"""Files kept under a key: beside each stands `<name>.json` with the key of all that it was made from, and facts.

A step whose key is unchanged is not done again, so that the same command goes on where an interrupted one stopped.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liteship.errors import DataError
from liteship_agent.errors import RecordError
from liteship_agent.records import parse_json, write_atomic


def make_key(parts: Sequence[Any]) -> str:
    """64 hex digits over values that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def sidecar(path: Path) -> Path:
    """Where the key of a file stands."""
    return path.with_name(path.name + ".json")


def read_facts(path: Path, key: str) -> dict[str, Any] | None:
    """What was written beside a file, or None where there is no whole file that was made under this key."""
    if not (path.exists() and sidecar(path).exists()):
        return None
    try:
        facts: dict[str, Any] = parse_json(sidecar(path).read_bytes(), str(sidecar(path)))
    except RecordError:
        return None
    return facts if facts.get("key") == key else None


def write_facts(path: Path, key: str, **facts: Any) -> None:
    """Say beside a file what it was made from, once it is whole."""
    write_atomic(sidecar(path), json.dumps({"key": key, **facts}, indent=1).encode())


def file_sha256(path: Path) -> str:
    """64 hex digits.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise DataError(f"{path}: a readable file is required. Received: {exc.strerror}.") from exc


def gzip_bytes(content: bytes) -> int:
    """Size after gzip at level 9, modification time 0."""
    return len(gzip.compress(content, 9, mtime=0))
