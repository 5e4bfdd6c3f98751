"""Every labelled frame once: counted, written down and told, before viewers see the newest of them."""

from __future__ import annotations

import collections
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Counter, Deque, Dict, List, Optional

import numpy as np

from liteship_agent.camera.classifier import Classifier
from liteship_agent.camera.errors import CameraError
from liteship_agent.camera.pipeline import Result
from liteship_agent.camera.slot import Latest
from liteship_agent.camera.smoothing import UNSURE

Record = Dict[str, Any]
TOP = 5
_KEPT_SWAPS = 16
_WAITING_LINES = 10_000  # some seconds of the fastest model; a disk that stalls longer loses lines, and says so


def frame_record(result: Result) -> Record:
    """What is told of a labelled frame: label (null when unsure), score and the highest smoothed ones, latency."""
    scores = result.answer.scores
    best = np.argsort(-scores, kind="stable")[:TOP]
    labels = result.classifier.labels
    return {
        "number": result.frame.number,
        "at_ns": result.frame.captured_ns,
        "label": None if result.answer.index is None else result.answer.label,
        "score": round(result.answer.score, 4),
        "top": [[labels[index], round(float(scores[index]), 4)] for index in best],
        "latency_ns": result.latency_ns,
    }


def log_record(result: Result) -> Record:
    """What a line of a log holds: also the answer to this frame alone, its stages and where it comes from."""
    return {
        **frame_record(result),
        "prediction": result.classifier.labels[result.top],
        "prediction_score": round(float(result.scores[result.top]), 4),
        "stages_ns": dict(result.stages_ns),
        "variant": result.classifier.variant,
        "release": result.classifier.release_id,
        **({} if result.frame.name is None else {"name": result.frame.name}),
    }


@dataclass(frozen=True)
class Swap:
    """Another model has labelled its first frame.

    Args:
        classifier: That model.
        gap_ns: Since the last label of the one before; null where the camera was paused in between.
    """

    classifier: Classifier
    gap_ns: Optional[int]


class Tally(Latest[Result]):
    """The results of a pipeline, of which none is missed.

    Args:
        most_frames: After so many it is full, and takes no notice of more; null for never.
        write: Called with the log record of every frame, where one is wanted.
        now_ns: The time.
    """

    def __init__(
        self,
        most_frames: Optional[int] = None,
        write: Optional[Callable[[Record], None]] = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__()
        self._most, self._write, self._now_ns = most_frames, write, now_ns
        self.labels: Counter[str] = collections.Counter()
        """How often each answer was given, UNSURE among them."""
        self.full = threading.Event()
        self.swaps: Deque[Swap] = collections.deque(maxlen=_KEPT_SWAPS)
        """Those that nobody has taken out yet."""
        self._classifier: Optional[Classifier] = None
        self._last_ns: Optional[int] = None

    def interrupted(self) -> None:
        """A pause: the time until the next frame says nothing about a swap."""
        self._last_ns = None

    def publish(self, result: Result) -> None:
        """Count a frame, then show it."""
        if not self.full.is_set():
            self._note(result)
        super().publish(result)

    def _note(self, result: Result) -> None:
        now_ns = self._now_ns()
        if self._classifier is not None and self._classifier is not result.classifier:
            self.swaps.append(Swap(result.classifier, None if self._last_ns is None else now_ns - self._last_ns))
        self._classifier, self._last_ns = result.classifier, now_ns
        self.labels[UNSURE if result.answer.index is None else result.answer.label] += 1
        if self._write is not None:
            self._write(log_record(result))
        if self._most is not None and sum(self.labels.values()) >= self._most:
            self.full.set()


class FrameLog:
    """Writes lines in a thread of its own: a slow disk or link does not hold up the pipeline.

    Args:
        path: File that is appended to, a line a frame; null for none.
        tell: Called with every record too, where that is wanted.
    Raises:
        CameraError: the file cannot be written.
    """

    def __init__(self, path: Optional[Path], tell: Optional[Callable[[Record], None]]) -> None:
        self._path, self._tell = path, tell
        self._waiting: Deque[Record] = collections.deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._lost = 0
        self._error: Optional[str] = None
        try:
            self._file = None if path is None else open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed by close)
        except OSError as exc:
            raise CameraError(f"{path}: a file that can be written is required. Received: {exc.strerror}") from exc
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._lost

    @property
    def error(self) -> Optional[str]:
        """Why lines were lost, null while none were."""
        return self._error

    def write(self, record: Record) -> None:
        """Have a record written soon; never waits."""
        with self._changed:
            if len(self._waiting) < _WAITING_LINES:
                self._waiting.append(record)
                self._changed.notify()
            else:
                self._lose(1, "the disk or the link is too slow")

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        if self._file is not None:
            self._file.close()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closed)
                records = list(self._waiting)
                self._waiting.clear()
            if not records:
                return
            self._put(records)

    def _put(self, records: List[Record]) -> None:
        if self._tell is not None:
            for record in records:
                self._tell(record)
        if self._file is None:
            return
        try:
            self._file.write("".join(json.dumps(record) + "\n" for record in records))
            self._file.flush()
        except OSError as exc:
            self._lose(len(records), exc.strerror or str(exc))

    def _lose(self, lines: int, reason: str) -> None:
        self._lost += lines
        self._error = f"{self._path or 'the link'}: {self._lost} lines of the log are lost: {reason}"
