"""The log of a camera: a line for each classified frame, kept here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from liteship.errors import UsageError

Event = Mapping[str, Any]


class FrameLog:
    """A line of JSON for each classified frame, written when it comes; what is in the file stays there.

    Args:
        path: Made if it is not there.
    Raises:
        UsageError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def __enter__(self) -> FrameLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, frame: Event, camera: Event) -> None:
        """Add a frame, with the model in use where the frame names none.

        Raises:
            UsageError: the disk is full, or gone.
        """
        model = {name: camera.get(name) for name in ("variant", "release")}
        line = {name: value for name, value in {**model, **frame}.items() if name != "event"}
        try:
            rest = json.dumps(line, ensure_ascii=False).encode() + b"\n"
            while rest:  # a full disk takes a part first
                rest = rest[self._file.write(rest) :]
        except OSError as exc:
            raise self._unwritable(exc) from exc

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(f"--log: {self._path} is required to be writable. Received: {error.strerror}.")
