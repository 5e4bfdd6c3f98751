"""Is the machine fit to be measured now: not throttled, undervolted, hot or busy, with memory and disk to spare."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from liteship_agent.job import Limits
from liteship_agent.sensors import THROTTLED_NOW, Sensors, describe_throttling

WATCH_SECONDS = 2.0
"""How long the CPU time of others is watched."""

_COOLING_STEP_SECONDS = 1.0
_COOLED_CELSIUS = 2.0  # this close to the start temperature is as cool
_NAMED_PROCESSES = 3
_NAMED_CORES = 0.05
_MIB = 2**20

Pause = Callable[[float], None]


@dataclass(frozen=True)
class _Problem:
    """What makes a machine unfit, and whether it may pass by itself within a short time."""

    kind: str
    text: str
    passes: bool = False


def check(
    sensors: Sensors, folder: Path, limits: Limits, own_cpu_ns: Callable[[], int], pause: Pause
) -> Tuple[str, ...]:
    """Look once, for about two seconds.

    Args:
        sensors: Of this machine.
        folder: Whose disk must have space.
        limits: Of the job.
        own_cpu_ns: CPU time so far of this process and all that belong to it.
        pause: Sleeps for some seconds.
    Returns:
        The problems, each one line; empty when the machine is fit. Throttling since boot is none: it may be long ago.
    """
    return _texts(_find_problems(sensors, folder, limits, own_cpu_ns, pause))


def wait_until_fit(
    sensors: Sensors,
    folder: Path,
    limits: Limits,
    own_cpu_ns: Callable[[], int],
    pause: Pause,
    say: Callable[[str], None],
    *,
    patient: bool = True,
) -> Tuple[str, ...]:
    """Look again and again while heat or the CPU time of others is all that is wrong.

    Args:
        sensors: Of this machine.
        folder: As for `check`.
        limits: Of the job; waits `quiet_seconds` at most.
        own_cpu_ns: As for `check`.
        pause: Sleeps for some seconds.
        say: Told what is waited for, when that changes.
        patient: False looks once only.
    Returns:
        The problems that remain.
    """
    remaining = limits.quiet_seconds if patient else 0.0
    said: List[str] = []
    while True:
        problems = _find_problems(sensors, folder, limits, own_cpu_ns, pause)
        remaining -= WATCH_SECONDS
        if remaining <= 0 or not problems or not all(problem.passes for problem in problems):
            return _texts(problems)
        kinds = [problem.kind for problem in problems]
        if kinds != said:
            say(f"waiting {remaining:.0f} s at most, because {'; '.join(_texts(problems))}")
            said = kinds


def cool(sensors: Sensors, start_celsius: Optional[float], limits: Limits, pause: Pause) -> float:
    """Wait until the processor is as cool as when the job started, and nothing throttles it.

    Args:
        sensors: Of this machine.
        start_celsius: Temperature when the job started; up to 2 degrees more is as cool. Null waits for nothing.
        limits: Of the job; waits `cooling_seconds` at most.
        pause: Sleeps for some seconds.
    Returns:
        Seconds waited.
    """
    waited = 0.0
    while waited < limits.cooling_seconds:
        sample = sensors.sample()
        celsius = sample["temperature_celsius"]
        if start_celsius is None or celsius is None:
            break
        if celsius <= start_celsius + _COOLED_CELSIUS and not any(_throttling(sample)):
            break
        pause(_COOLING_STEP_SECONDS)
        waited += _COOLING_STEP_SECONDS
    return waited


def own_cpu_ns() -> int:
    """CPU time of this process and of those that it started and that have ended."""
    return int(sum(os.times()[:4]) * 1e9)


def _find_problems(
    sensors: Sensors, folder: Path, limits: Limits, own_cpu_ns: Callable[[], int], pause: Pause
) -> List[_Problem]:
    others = list(_others(sensors, limits.others_cores, own_cpu_ns, pause))
    sample = sensors.sample()
    return [
        *_throttling(sample),
        *_heat(sample, limits.start_celsius),
        *others,
        *_memory(sample, limits.free_memory_bytes),
        *_disk(folder, limits.free_disk_bytes),
    ]


def _texts(problems: List[_Problem]) -> Tuple[str, ...]:
    return tuple(problem.text for problem in problems)


def _throttling(sample: Mapping[str, Any]) -> Iterator[_Problem]:
    """Those of a hot processor pass; a supply that is too weak does not."""
    states = describe_throttling(sample["throttled_bits"] or 0)
    if sample["undervoltage"] or THROTTLED_NOW[0] in states:
        yield _Problem("supply", "the supply voltage is too low now: use the supply that belongs to the board")
    hot = [text for text in states if text != THROTTLED_NOW[0]]
    if sample["cooling_state"]:
        hot.append("throttled by the kernel")
    if hot:
        yield _Problem("throttling", f"{' and '.join(hot)} now", passes=True)


def _heat(sample: Mapping[str, Any], most_celsius: float) -> Iterator[_Problem]:
    celsius = sample["temperature_celsius"]
    if celsius is not None and celsius > most_celsius:
        yield _Problem("heat", f"the processor is too hot: {celsius:.1f} °C, more than {most_celsius:.0f}", passes=True)


def _memory(sample: Mapping[str, Any], needed: int) -> Iterator[_Problem]:
    available = sample["memory_available_bytes"]
    if available is not None and available < needed:
        text = f"too little memory is free: {available / _MIB:.0f} MiB, less than {needed / _MIB:.0f}"
        yield _Problem("memory", text)


def _disk(folder: Path, needed: int) -> Iterator[_Problem]:
    free = shutil.disk_usage(folder).free
    if free < needed:
        text = f"too little disk space is free at {folder}: {free / _MIB:.0f} MiB, less than {needed / _MIB:.0f}"
        yield _Problem("disk", text)


def _others(sensors: Sensors, most_cores: float, own_cpu_ns: Callable[[], int], pause: Pause) -> Iterator[_Problem]:
    processes = sensors.process_cpu_ns()
    started_ns, busy_ns, own_ns = sensors.sample()["at_ns"], sensors.busy_ns(), own_cpu_ns()
    pause(WATCH_SECONDS)
    busy_later_ns, own_later_ns, ended_ns = sensors.busy_ns(), own_cpu_ns(), sensors.sample()["at_ns"]
    if busy_ns is None or busy_later_ns is None or ended_ns <= started_ns:
        return
    wall_ns = ended_ns - started_ns
    cores = (busy_later_ns - busy_ns - (own_later_ns - own_ns)) / wall_ns
    if cores > most_cores:
        text = f"other processes use {cores:.1f} cores, more than {most_cores}"
        yield _Problem("others", text + _busiest(processes, sensors.process_cpu_ns(), wall_ns), passes=True)


def _busiest(earlier: Mapping[int, Tuple[str, int]], later: Mapping[int, Tuple[str, int]], wall_ns: int) -> str:
    """The processes that used most CPU time in between, with their cores' worth, or nothing."""
    cores: Dict[int, float] = {
        pid: (cpu_ns - earlier.get(pid, (name, 0))[1]) / wall_ns for pid, (name, cpu_ns) in later.items()
    }
    most = sorted(cores, key=lambda pid: cores[pid], reverse=True)[:_NAMED_PROCESSES]
    named = [f"{later[pid][0]} {cores[pid]:.1f}" for pid in most if cores[pid] > _NAMED_CORES]
    return f": {', '.join(named)}" if named else ""
