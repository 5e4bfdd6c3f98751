"""Keep a frame: a JPEG and beside it a JSON file with its label and scores, both or neither.

The names are made here, of the time and the frame's number: nothing that a browser or a model says is in a path.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import os
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import cv2

from liteship_agent.camera.errors import CameraError
from liteship_agent.camera.pipeline import Result
from liteship_agent.camera.tally import log_record
from liteship_agent.camera.web.picture import encode_pixels

_QUALITY = 95
_MOST_OF_ONE_SECOND = 100
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SaveError(CameraError):
    """A frame that could not be kept; nothing of it is left.

    Args:
        is_full: Whether for lack of space.
        message: Why.
    """

    def __init__(self, message: str, is_full: bool) -> None:
        self.is_full = is_full
        super().__init__(message)


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


class FrameSaver:
    """Saves frames into one folder.

    Args:
        folder: Made when the first one is saved.
        now: The time.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime.datetime] = _utc_now) -> None:
        self._folder, self._now = folder, now
        self._one_at_a_time = threading.Lock()  # every viewer has a thread of its own
        self.saved = 0

    def save(self, result: Result) -> str:
        """Keep a labelled frame as it was captured.

        Returns:
            The name of the JPEG.
        Raises:
            SaveError: the disk is full, or the folder cannot be written.
        """
        frame, now = result.frame, self._now()
        jpeg = frame.jpeg if frame.jpeg is not None else encode_pixels(frame.pixels, _QUALITY)
        about = json.dumps({**_about(result), "saved_at": now.isoformat(timespec="milliseconds")}, indent=1).encode()
        stem = f"frame-{now:%Y%m%dT%H%M%SZ}-{frame.number:06d}"
        try:
            with self._one_at_a_time:
                self._folder.mkdir(parents=True, exist_ok=True)
                name = self._put(stem, [(".json", about + b"\n"), (".jpg", jpeg)])
                self.saved += 1
        except OSError as exc:
            reason = exc.strerror or str(exc)
            raise SaveError(
                f"{self._folder}: a folder with space is required. Received: {reason}", exc.errno in _FULL
            ) from exc
        return name

    def _put(self, stem: str, files: List[Tuple[str, bytes]]) -> str:
        """Both files under temporary names, then under their own; the picture last."""
        stem = self._free(stem)
        made: List[Path] = []
        try:
            for ending, content in files:
                temporary = self._folder / f".{stem}{ending}.tmp"
                made.append(temporary)
                with open(
                    os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb"
                ) as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for ending, _ in files:
                os.rename(self._folder / f".{stem}{ending}.tmp", self._folder / f"{stem}{ending}")
                made.append(self._folder / f"{stem}{ending}")
        except OSError:
            for path in made:
                with contextlib.suppress(OSError):
                    path.unlink()
            raise
        return f"{stem}.jpg"

    def _free(self, stem: str) -> str:
        """The stem, or with a number the first that is not taken: a paused frame may be saved twice."""
        names = [stem, *(f"{stem}-{number}" for number in range(2, _MOST_OF_ONE_SECOND))]
        for name in names:
            if not any(os.path.lexists(self._folder / f"{name}{ending}") for ending in (".jpg", ".json")):
                return name
        raise FileExistsError(errno.EEXIST, f"{_MOST_OF_ONE_SECOND} files of this frame already", str(self._folder))


def _about(result: Result) -> Dict[str, Any]:
    """What is written beside the picture."""
    height, width = result.frame.pixels.shape[:2]
    labels, scores = result.classifier.labels, result.scores
    return {
        **log_record(result),
        "width": width,
        "height": height,
        "scores": {label: round(float(score), 6) for label, score in zip(labels, scores)},
        "opencv": cv2.__version__,
    }
