"""What the pipeline did, in constant memory: counts since the start, times over the last frames."""

from __future__ import annotations

import threading
from array import array
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional

from liteship_agent.camera.clock import NS_PER_SECOND

STAGES = ("capture", "preprocess", "invoke", "smooth", "publish")
"""`capture` is making pixels of what arrived, without the wait for it; `invoke` has the copies in and out."""
WINDOW = 512
"""Frames that percentiles are taken over."""


class Window:
    """The last values, in a ring.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int = WINDOW) -> None:
        self._values, self._size, self._next = array("q"), size, 0

    def add(self, value: int) -> None:
        """Put one in, in place of the oldest when it is full."""
        if len(self._values) < self._size:
            self._values.append(value)
        else:
            self._values[self._next] = value
        self._next = (self._next + 1) % self._size

    def ordered(self) -> List[int]:
        """Those that are kept, oldest first."""
        values = self._values.tolist()
        return values[self._next :] + values[: self._next] if len(values) == self._size else values


@dataclass(frozen=True)
class Times:
    """Median and 90th percentile by nearest rank, mean, and how many values they are of; nulls of none."""

    median_ns: Optional[int]
    p90_ns: Optional[int]
    mean_ns: Optional[float]
    count: int

    @classmethod
    def of(cls, values_ns: List[int]) -> Times:
        """Those of values in any order."""
        values = sorted(values_ns)
        if not values:
            return cls(None, None, None, 0)
        median, p90 = (values[-(-rank * len(values) // 10) - 1] for rank in (5, 9))
        return cls(median, p90, sum(values) / len(values), len(values))


@dataclass(frozen=True)
class Figures:
    """The pipeline at one moment.

    Args:
        captured: Frames that the source gave.
        classified: Frames that got a label.
        dropped: Frames that a newer one replaced before their turn.
        broken: Frames that were no picture.
        swaps: Models that took the place of another.
        captured_hz, classified_hz: Rates over the last frames, null before the second one.
        latency: From capture to label.
        stages: Of each of `STAGES`.
        last_error: Why the last broken frame was none.
    """

    captured: int
    classified: int
    dropped: int
    broken: int
    swaps: int
    captured_hz: Optional[float]
    classified_hz: Optional[float]
    latency: Times
    stages: Mapping[str, Times]
    last_error: Optional[str]

    def to_json(self) -> Dict[str, Any]:
        """One flat JSON object, for a line of a log or the page."""
        out: Dict[str, Any] = {
            name: getattr(self, name)
            for name in ("captured", "classified", "dropped", "broken", "swaps", "captured_hz", "classified_hz")
        }
        for name, times in (("latency", self.latency), *self.stages.items()):
            out[f"{name}_median_ns"], out[f"{name}_p90_ns"] = times.median_ns, times.p90_ns
        return {**out, "last_error": self.last_error}


class Recorder:
    """Collects the figures; any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"captured": 0, "classified": 0, "dropped": 0, "broken": 0, "swaps": 0}
        self._stages = {name: Window() for name in STAGES}
        self._latency = Window()
        self._moments = {"captured": Window(), "classified": Window()}
        self._last_error: Optional[str] = None

    def count(self, what: str, many: int = 1) -> None:
        """Add to one of the counts of `Figures`."""
        with self._lock:
            self._counts[what] += many

    def captured(self, at_ns: int, decode_ns: int) -> None:
        """A frame was captured."""
        with self._lock:
            self._counts["captured"] += 1
            self._moments["captured"].add(at_ns)
            self._stages["capture"].add(decode_ns)

    def skipped(self, many: int) -> None:
        """So many frames were captured, and dropped by the source for newer ones."""
        with self._lock:
            self._counts["captured"] += many
            self._counts["dropped"] += many

    def broken(self, reason: str) -> None:
        """A frame was no picture."""
        with self._lock:
            self._counts["broken"] += 1
            self._last_error = reason

    def classified(self, at_ns: int, latency_ns: int, stages_ns: Mapping[str, int]) -> None:
        """A frame got its label."""
        with self._lock:
            self._counts["classified"] += 1
            self._moments["classified"].add(at_ns)
            self._latency.add(latency_ns)
            for name, value in stages_ns.items():
                if name != "capture":  # that of every captured frame is there already
                    self._stages[name].add(value)

    def figures(self) -> Figures:
        """All of them now."""
        with self._lock:  # only for the copies: sorting them must not hold up the pipeline
            counts, last_error = dict(self._counts), self._last_error
            latency = self._latency.ordered()
            stages = {name: window.ordered() for name, window in self._stages.items()}
            moments = {name: window.ordered() for name, window in self._moments.items()}
        return Figures(
            **counts,
            captured_hz=_rate_hz(moments["captured"]),
            classified_hz=_rate_hz(moments["classified"]),
            latency=Times.of(latency),
            stages={name: Times.of(values) for name, values in stages.items()},
            last_error=last_error,
        )


def _rate_hz(moments: List[int]) -> Optional[float]:
    if len(moments) < 2 or moments[-1] <= moments[0]:
        return None
    return (len(moments) - 1) * NS_PER_SECOND / (moments[-1] - moments[0])
