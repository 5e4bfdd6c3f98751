"""The figures that are told once a second: of the pipeline, of the last seconds, and of the machine."""

from __future__ import annotations

import collections
from typing import Any, Deque, Dict, Mapping, Optional, Tuple, Union

from liteship_agent.camera.clock import NS_PER_SECOND
from liteship_agent.camera.figures import Figures
from liteship_agent.sensors import Sensors, describe_throttling

_RATE_WINDOW = 4

Throttled = Union[None, bool, str]
"""What throttles the processor, in words; False for nothing, null where this machine does not tell."""


class RecentRate:
    """Labels per second over the last few readings; a pause shows, which an average over frames hides."""

    def __init__(self) -> None:
        self._readings: Deque[Tuple[int, int]] = collections.deque(maxlen=_RATE_WINDOW)

    def update(self, now_ns: int, classified: int) -> Optional[float]:
        """Take in a reading; null for the first one."""
        self._readings.append((now_ns, classified))
        first_ns, first = self._readings[0]
        return (classified - first) * NS_PER_SECOND / (now_ns - first_ns) if now_ns > first_ns else None


def pipeline_fields(figures: Figures, rate_hz: Optional[float]) -> Dict[str, Any]:
    """Counts, rate, latency and the median of each stage."""
    return {
        "captured": figures.captured,
        "classified": figures.classified,
        "dropped": figures.dropped,
        "broken": figures.broken,
        "rate_hz": None if rate_hz is None else round(rate_hz, 2),
        "latency_p50_ns": figures.latency.median_ns,
        "latency_p90_ns": figures.latency.p90_ns,
        "stages_ns": {name: times.median_ns for name, times in figures.stages.items()},
    }


def machine_fields(sensors: Sensors) -> Dict[str, Any]:
    """Temperature of the processor, and whether it is throttled."""
    sample = sensors.sample()
    return {"temperature_celsius": sample["temperature_celsius"], "throttled": throttled(sample, sensors)}


def throttled(sample: Mapping[str, Any], sensors: Sensors) -> Throttled:
    """What a sample of the sensors says about throttling and the supply."""
    found = list(describe_throttling(sample["throttled_bits"] or 0))
    if sample["undervoltage"] and not found:
        found.append("undervoltage")
    if sample["cooling_state"]:
        found.append("throttled by the kernel")
    if found:
        return ", ".join(found)
    return False if sensors.can_see_throttling else None
