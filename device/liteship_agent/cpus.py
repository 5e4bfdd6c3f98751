"""The CPUs of this machine by core type, and which of them a case runs on.

A board may have slow and fast cores side by side. A measurement that wanders between them means nothing, so a case
always runs on CPUs of one type: those that were asked for, or all of the fastest type.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Set, Tuple

from liteship_agent.errors import AgentError
from liteship_agent.sensors import read_text

_SAME_CLOCK_RATIO = 0.9
"""Cores of one design whose highest clocks differ by less are one type: chips are binned by a few percent."""

_MOST_CPUS = 4096

_ARM = 0x41
_CORES: Mapping[Tuple[int, int], str] = {
    (_ARM, 0xC07): "Cortex-A7",
    (_ARM, 0xC0F): "Cortex-A15",
    (_ARM, 0xD03): "Cortex-A53",
    (_ARM, 0xD04): "Cortex-A35",
    (_ARM, 0xD05): "Cortex-A55",
    (_ARM, 0xD07): "Cortex-A57",
    (_ARM, 0xD08): "Cortex-A72",
    (_ARM, 0xD09): "Cortex-A73",
    (_ARM, 0xD0A): "Cortex-A75",
    (_ARM, 0xD0B): "Cortex-A76",
    (_ARM, 0xD0C): "Neoverse-N1",
    (_ARM, 0xD0D): "Cortex-A77",
    (_ARM, 0xD0E): "Cortex-A76AE",
    (_ARM, 0xD40): "Neoverse-V1",
    (_ARM, 0xD41): "Cortex-A78",
    (_ARM, 0xD42): "Cortex-A78AE",
    (_ARM, 0xD44): "Cortex-X1",
    (_ARM, 0xD46): "Cortex-A510",
    (_ARM, 0xD47): "Cortex-A710",
    (_ARM, 0xD48): "Cortex-X2",
    (_ARM, 0xD49): "Neoverse-N2",
    (_ARM, 0xD4B): "Cortex-A78C",
    (_ARM, 0xD4C): "Cortex-X1C",
    (_ARM, 0xD4D): "Cortex-A715",
    (_ARM, 0xD4E): "Cortex-X3",
    (_ARM, 0xD4F): "Neoverse-V2",
    (_ARM, 0xD80): "Cortex-A520",
    (_ARM, 0xD81): "Cortex-A720",
    (_ARM, 0xD82): "Cortex-X4",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
    (0x61, 0x022): "Icestorm",
    (0x61, 0x023): "Firestorm",
    (0xC0, 0xAC3): "Ampere-1",
}
"""Core design by implementer and part of the main ID register (MIDR_EL1), as the makers' manuals list them."""


@dataclass(frozen=True)
class Cpu:
    """One online CPU.

    Args:
        index: Its number.
        name: Core design, or model of a PC's processor; null where /proc/cpuinfo tells neither.
        implementer, part: Of an ARM core's main ID register, null elsewhere.
        capacity: Of the kernel's scheduler, 1024 for the fastest; null where it tells none.
        max_hz: Highest clock, null without cpufreq.
    """

    index: int
    name: Optional[str]
    implementer: Optional[int]
    part: Optional[int]
    capacity: Optional[int]
    max_hz: Optional[int]


@dataclass(frozen=True)
class CoreType:
    """CPUs of one design and one highest clock.

    Args:
        name: Of the design, with the clock where slower ones of the same design are a type of their own.
        cpus: Ascending by number.
    """

    name: str
    cpus: Tuple[Cpu, ...]

    def indices(self) -> Tuple[int, ...]:
        """The numbers of its CPUs, ascending."""
        return tuple(cpu.index for cpu in self.cpus)

    def describe(self) -> str:
        """For example "0-3 Cortex-A55"."""
        return f"{format_cpus(self.indices())} {self.name}"


def parse_cpus(text: str) -> Tuple[int, ...]:
    """CPU numbers of a list as the kernel writes it, ascending and each once: "0-3,6" gives (0, 1, 2, 3, 6).

    Raises:
        AgentError: it is no such list.
    """
    found: Set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?", part, re.ASCII)
        first, last = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (1, 0)
        if not first <= last < _MOST_CPUS:
            raise AgentError(f"a list of CPUs such as 0-3,6 is required. Received: {text!r}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def format_cpus(cpus: Sequence[int]) -> str:
    """The reverse of `parse_cpus`: (0, 1, 2, 3, 6) gives "0-3,6"."""
    runs: List[List[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def online_cpus(root: Path = Path("/")) -> Tuple[Cpu, ...]:
    """Every CPU that runs now, by number; /proc/cpuinfo lists only those."""
    found = []
    for text in (read_text(root / "proc/cpuinfo") or "").split("\n\n"):
        fields = _fields(text)
        if not fields.get("processor", "").isdecimal():
            continue
        index = int(fields["processor"])
        implementer, part = _hexadecimal(fields, "CPU implementer"), _hexadecimal(fields, "CPU part")
        folder = root / "sys/devices/system/cpu" / f"cpu{index}"
        kilohertz = _integer(folder / "cpufreq/cpuinfo_max_freq")
        found.append(
            Cpu(
                index=index,
                name=_core_name(implementer, part) or fields.get("model name"),
                implementer=implementer,
                part=part,
                capacity=_integer(folder / "cpu_capacity"),
                max_hz=None if kilohertz is None else kilohertz * 1000,
            )
        )
    return tuple(sorted(found, key=lambda cpu: cpu.index))


def core_types(root: Path = Path("/")) -> Tuple[CoreType, ...]:
    """The online CPUs by type, the fastest type first: by capacity, then by highest clock."""
    cpus = online_cpus(root)
    highest: Dict[Optional[str], int] = {}
    for cpu in cpus:
        highest[cpu.name] = max(highest.get(cpu.name, 0), cpu.max_hz or 0)
    groups: Dict[str, List[Cpu]] = {}
    for cpu in cpus:
        name = cpu.name or "unknown core"
        if cpu.max_hz is not None and cpu.max_hz < highest[cpu.name] * _SAME_CLOCK_RATIO:
            name += f" at {cpu.max_hz / 1e6:.0f} MHz"
        groups.setdefault(name, []).append(cpu)
    types = [CoreType(name, tuple(members)) for name, members in groups.items()]
    return tuple(sorted(types, key=_speed, reverse=True))


def resolve(cpus: Sequence[int], threads: int, root: Path = Path("/")) -> Tuple[int, ...]:
    """The CPUs that a case runs on.

    Args:
        cpus: Those that are asked for; empty for all of the fastest type that this process may use.
        threads: Of the interpreter.
        root: Of the machine.
    Returns:
        Their numbers, ascending; as many as threads at least.
    Raises:
        AgentError: one does not run or may not be used, they are of several types, or there are fewer than threads.
    """
    types = core_types(root)
    usable = _usable_cpus(root, types)
    if not usable:
        raise AgentError("a CPU that /proc/cpuinfo lists and that may be used is required. Received: none")
    if cpus:
        chosen = tuple(sorted(set(cpus)))
        _require_usable(chosen, usable)
        _require_one_type(chosen, types)
    else:
        allowed = (tuple(index for index in kind.indices() if index in usable) for kind in types)
        chosen = next(indices for indices in allowed if indices)
    if not 1 <= threads <= len(chosen):
        raise AgentError(
            f"threads between 1 and {len(chosen)}, the number of CPUs in {_describe(chosen, types)}, are required. "
            f"Received: {threads}. Choose fewer threads, or more CPUs of one type"
        )
    return chosen


def _usable_cpus(root: Path, types: Sequence[CoreType]) -> Set[int]:
    """Those that run and that this process may use: a container or a service may be confined to a few."""
    online = {index for kind in types for index in kind.indices()}
    allowed = _fields(read_text(root / "proc/self/status") or "").get("Cpus_allowed_list")
    return online & set(parse_cpus(allowed)) if allowed else online


def _require_usable(chosen: Sequence[int], usable: Set[int]) -> None:
    missing = [cpu for cpu in chosen if cpu not in usable]
    if missing:
        raise AgentError(
            f"CPUs that run and may be used, {format_cpus(tuple(usable))}, are required. "
            f"Received: {format_cpus(missing)}"
        )


def _require_one_type(chosen: Sequence[int], types: Sequence[CoreType]) -> None:
    if sum(bool(set(kind.indices()).intersection(chosen)) for kind in types) > 1:
        described = ", ".join(kind.describe() for kind in sorted(types, key=lambda kind: kind.indices()))
        raise AgentError(f"CPUs of one type ({described}) are required. Received: {format_cpus(chosen)}")


def _describe(chosen: Sequence[int], types: Sequence[CoreType]) -> str:
    name = next((kind.name for kind in types if set(kind.indices()).issuperset(chosen)), "")
    return f"{format_cpus(chosen)} ({name})"


def _speed(kind: CoreType) -> Tuple[int, int]:
    return max(cpu.capacity or 0 for cpu in kind.cpus), max(cpu.max_hz or 0 for cpu in kind.cpus)


def _core_name(implementer: Optional[int], part: Optional[int]) -> Optional[str]:
    if implementer is None or part is None:
        return None
    return _CORES.get((implementer, part), f"ARM core {implementer:#04x}/{part:#05x}")


def _fields(text: str) -> Dict[str, str]:
    """Lines "name : value" as a mapping."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _integer(path: Path) -> Optional[int]:
    try:
        return int(read_text(path) or "")
    except ValueError:
        return None


def _hexadecimal(fields: Mapping[str, str], name: str) -> Optional[int]:
    try:
        return int(fields[name], 16)
    except (KeyError, ValueError):
        return None
