"""Sensors whose readings are scripted, and a clock that only goes when it is told to.

A reading is a value, or a function of the seconds since the fake was made; `set` changes readings from now on:

    FakeSensors(arm_clock_hz=lambda seconds: round(1.5e9 * (1 - 0.001 * seconds)))        a drifting clock
    FakeSensors(throttled_bits=lambda seconds: 0x4 if (folder / "running").exists() else 0)   throttled in some blocks
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

READINGS: dict[str, Any] = {
    "temperature_celsius": 50.0,
    "arm_clock_hz": 2_400_000_000,
    "cpufreq_hz": 2_400_000_000,
    "throttled_bits": 0,
    "cooling_state": None,
    "throttle_count": None,
    "undervoltage": False,
    "fan_rpm": 2700,
    "memory_available_bytes": 4 * 2**30,
    "swapped_in_pages": 0,
    "cost_ns": 100_000,
}


class FakeClock:
    """Nanoseconds that go on only by `pause`."""

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000

    def __call__(self) -> int:
        return self.now_ns

    def pause(self, seconds: float) -> None:
        """What takes the place of time.sleep."""
        self.now_ns += round(seconds * 1e9)


class FakeSensors:
    """The protocol of `liteship_agent.sensors.Sensors`, by default that of an idle Raspberry Pi 5.

    Args:
        clock: Monotonic nanoseconds.
        is_raspberry_pi, can_see_throttling: As of Sensors.
        others_cores: How many cores other processes use: a value or a function of seconds.
        processes: Name of every process and the cores that it uses.
        readings: Those that differ from READINGS.
    """

    def __init__(
        self,
        clock: Callable[[], int] = time.monotonic_ns,
        *,
        is_raspberry_pi: bool = True,
        can_see_throttling: bool = True,
        others_cores: Any = 0.0,
        processes: Mapping[str, float] | None = None,
        **readings: Any,
    ) -> None:
        self.root = Path("/")
        self.is_raspberry_pi, self.can_see_throttling = is_raspberry_pi, can_see_throttling
        self.processes = dict(processes or {})
        self._clock, self._started_ns = clock, clock()
        self._readings = {**READINGS, "others_cores": others_cores}
        self._busy_ns, self._counted_ns = 5e9, self._started_ns
        self.set(**readings)

    def set(self, **readings: Any) -> None:
        """Change readings from now on."""
        unknown = readings.keys() - self._readings.keys()
        assert not unknown, unknown
        self.busy_ns()
        self._readings.update(readings)

    def sample(self, cpus: Sequence[int] = ()) -> dict[str, Any]:
        now_ns = self._clock()
        return {"at_ns": now_ns, **{name: self._reading(name) for name in READINGS}}

    def sources(self) -> dict[str, dict[str, str | None]]:
        return {
            name: {"source": "fake", "reason": None, "remedy": None}
            if self._reading(name) is not None
            else {"source": None, "reason": "This machine has none", "remedy": None}
            for name in READINGS
            if name != "cost_ns"
        }

    def busy_ns(self) -> int:
        """Grows with `others_cores`; what was set before the last call counts since then."""
        now_ns = self._clock()
        self._busy_ns += self._reading("others_cores") * (now_ns - self._counted_ns)
        self._counted_ns = now_ns
        return round(self._busy_ns)

    def process_cpu_ns(self) -> dict[int, tuple[str, int]]:
        elapsed_ns = self._clock() - self._started_ns
        return {pid: (name, round(cores * elapsed_ns)) for pid, (name, cores) in enumerate(self.processes.items(), 2)}

    def _reading(self, name: str) -> Any:
        value = self._readings[name]
        return value((self._clock() - self._started_ns) / 1e9) if callable(value) else value
