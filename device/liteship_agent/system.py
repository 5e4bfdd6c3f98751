"""What the machine is: the environment of a report, and the memory of this process. Linux files only.

What the machine does not offer is null; what changes while a job runs is in `liteship_agent.sensors`.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any, Dict, List, Optional

from liteship_agent.cpus import CoreType, core_types, format_cpus
from liteship_agent.sensors import read_text

_ROOT = Path("/")


def environment(root: Path = _ROOT) -> Dict[str, Any]:
    """Board, kernel, processor and memory of this machine, as they are in the report.

    Args:
        root: Folder below which files are read; what only the running interpreter tells is always its own.
    Returns:
        A JSON object: board_model, kernel, os, machine, python, libc, page_size_bytes; cpu_count, cpu_model,
        cpu_types (fastest first; each with `cpus` as numbers, `name`, `implementer` and `part` as integers,
        `capacity`, `max_hz`), cpu_flags, cpu_mhz (now, where /proc/cpuinfo tells it); governor ("ondemand", or
        "0-3 ondemand, 4-7 performance"); memory_bytes, swap_bytes, swap_kind (zram, partition or file).
    """
    cpuinfo = read_text(root / "proc/cpuinfo") or ""
    types = core_types(root)
    megahertz = re.search(r"^cpu MHz\s*: (\d+(\.\d+)?)$", cpuinfo, re.MULTILINE)
    return {
        "board_model": board_model(root),
        "kernel": (read_text(root / "proc/sys/kernel/osrelease") or "").strip() or None,
        "os": _os_name(root),
        "machine": os.uname().machine,
        "python": platform.python_version(),
        "libc": _libc(),
        "page_size_bytes": os.sysconf("SC_PAGE_SIZE"),
        "cpu_count": sum(len(kind.cpus) for kind in types) or os.cpu_count(),
        "cpu_model": " + ".join(kind.name for kind in types) or None,
        "cpu_types": [_described_type(kind) for kind in types],
        "cpu_flags": (_field(cpuinfo, "flags") or _field(cpuinfo, "Features") or "").split(),
        "cpu_mhz": float(megahertz.group(1)) if megahertz else None,
        "governor": _governor(root),
        "memory_bytes": _meminfo(root, "MemTotal"),
        "swap_bytes": _meminfo(root, "SwapTotal"),
        "swap_kind": _swap_kind(root),
    }


def board_model(root: Path = _ROOT) -> Optional[str]:
    """Model from the device tree, for example "Raspberry Pi 5 Model B Rev 1.0"; null on a PC."""
    return (read_text(root / "proc/device-tree/model") or "").strip() or None


def own_memory(root: Path = _ROOT) -> Dict[str, int]:
    """Peak resident set and present anonymous memory of this process, in bytes."""
    status = read_text(root / "proc/self/status") or ""
    return {
        "rss_peak_bytes": _kibibytes(status, "VmHWM") or 0,
        "rss_anon_bytes": _kibibytes(status, "RssAnon") or 0,
    }


def _described_type(kind: CoreType) -> Dict[str, Any]:
    first = kind.cpus[0]
    return {
        "cpus": list(kind.indices()),
        "name": kind.name,
        "implementer": first.implementer,
        "part": first.part,
        "capacity": first.capacity,
        "max_hz": first.max_hz,
    }


def _governor(root: Path) -> Optional[str]:
    """That of all clock domains, or each with its CPUs where they differ."""
    governors: Dict[str, List[int]] = {}
    for folder in sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*")):
        name = (read_text(folder / "scaling_governor") or "").strip()
        members = (read_text(folder / "related_cpus") or "").split()
        if name:
            governors.setdefault(name, []).extend(int(cpu) for cpu in members if cpu.isdecimal())
    if len(governors) > 1:
        ordered = sorted(governors.items(), key=lambda item: item[1])
        return ", ".join(f"{format_cpus(members)} {name}" for name, members in ordered)
    return next(iter(governors), None)


def _swap_kind(root: Path) -> Optional[str]:
    """Of the swap that is used first, which is the one of the highest priority."""
    lines = [line.split() for line in (read_text(root / "proc/swaps") or "").splitlines()[1:]]
    areas = [line for line in lines if len(line) == 5 and line[4].lstrip("-").isdecimal()]
    if not areas:
        return None
    first = max(areas, key=lambda line: int(line[4]))
    return "zram" if first[0].startswith("/dev/zram") else first[1]


def _os_name(root: Path) -> Optional[str]:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', read_text(root / "etc/os-release") or "", re.MULTILINE)
    return match.group(1) if match else None


def _libc() -> Optional[str]:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None


def _field(text: str, key: str) -> Optional[str]:
    match = re.search(rf"^{key}\s*:[ \t]*(.*)$", text, re.MULTILINE)
    return match.group(1) if match else None


def _meminfo(root: Path, key: str) -> Optional[int]:
    return _kibibytes(read_text(root / "proc/meminfo") or "", key)


def _kibibytes(text: str, key: str) -> Optional[int]:
    match = re.search(rf"^{key}:\s*(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None
