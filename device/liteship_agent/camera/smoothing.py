"""From the scores of single frames to one steady answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Optional, Sequence

import numpy as np

from liteship_agent.camera.clock import NS_PER_SECOND
from liteship_agent.camera.errors import CameraError

UNSURE = "unsure"


@dataclass(frozen=True)
class Smoothing:
    """How steady the answer is.

    Args:
        seconds: Time constant of the exponential smoothing; 0 for none. It is a time and not a count of frames, so that
            a slow model is not slower still: of a change, 63 % is seen after so long.
        margin: By how much a new label must lead before it takes the place of the one that is shown, 0 to 1.
        threshold: Least smoothed score of a label that is shown, 0 to 1; below, the answer is `unsure`.
    Raises:
        CameraError: a value out of its range.
    """

    seconds: float = 0.3
    margin: float = 0.1
    threshold: float = 0.4

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < float("inf"):
            raise CameraError(f"a time constant of 0 s or more is required. Received: {self.seconds}")
        for name, ratio in (("margin", self.margin), ("threshold", self.threshold)):
            if not 0 <= ratio <= 1:
                raise CameraError(f"a {name} from 0 to 1 is required. Received: {ratio}")


@dataclass(frozen=True)
class Answer:
    """What is shown.

    Args:
        label: Of the highest smoothed score, with hysteresis; or `unsure`.
        index: Of the label, null when unsure.
        score: The label's smoothed score; the highest one when unsure.
        scores: Smoothed, float32, shape (labels,).
    """

    label: str
    index: Optional[int]
    score: float
    scores: np.ndarray


class Smoother:
    """Exponential smoothing with hysteresis, over the frames of one model.

    Args:
        smoothing: How steady.
        labels: Names, in the order of the scores.
    """

    def __init__(self, smoothing: Smoothing, labels: Sequence[str]) -> None:
        self._smoothing, self._labels = smoothing, labels
        self._scores: Optional[np.ndarray] = None
        self._at_ns = 0
        self._shown: Optional[int] = None

    def update(self, scores: np.ndarray, at_ns: int) -> Answer:
        """Take in the scores of the next frame.

        Args:
            scores: float32, shape (labels,), finite.
            at_ns: When the frame was captured.
        """
        smoothed = self._smoothed(scores, at_ns)
        best = int(smoothed.argmax())
        threshold, margin = self._smoothing.threshold, self._smoothing.margin
        shown = best if self._shown is None else self._shown
        kept, highest = float(smoothed[shown]), float(smoothed[best])
        # A label that is not shown any more protects nothing.
        if kept < threshold or highest - kept >= margin:
            shown = best
        if highest < threshold:
            self._shown = None
            return Answer(UNSURE, None, highest, smoothed)
        self._shown = shown
        return Answer(self._labels[shown], shown, float(smoothed[shown]), smoothed)

    def _smoothed(self, scores: np.ndarray, at_ns: int) -> np.ndarray:
        before = self._scores
        elapsed_seconds = max(0, at_ns - self._at_ns) / NS_PER_SECOND
        if before is None or self._smoothing.seconds == 0:
            smoothed = scores.astype(np.float32)
        else:
            weight = np.float32(-math.expm1(-elapsed_seconds / self._smoothing.seconds))
            smoothed = before + weight * (scores - before)
        self._scores, self._at_ns = smoothed, at_ns
        return smoothed
