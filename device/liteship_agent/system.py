"""What the machine is and how it does: environment of a report, readings around a block. Linux files only.

A reading that the machine does not offer is null.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any, Dict, Optional

_CPU = Path("/sys/devices/system/cpu/cpu0/cpufreq")
_THERMAL = Path("/sys/class/thermal/thermal_zone0/temp")


def environment() -> Dict[str, Any]:
    """Board, kernel and memory of this machine, as they are in the report."""
    return {
        "board_model": board_model(),
        "kernel": platform.release(),
        "os": _os_name(),
        "machine": os.uname().machine,
        "python": platform.python_version(),
        "libc": _libc(),
        "cpu_count": os.cpu_count(),
        "cpu_model": _cpuinfo("model name") or _cpuinfo("CPU part"),
        "cpu_flags": (_cpuinfo("flags") or _cpuinfo("Features") or "").split(),
        "governor": _text(_CPU / "scaling_governor"),
        "memory_bytes": _meminfo("MemTotal"),
        "page_size_bytes": os.sysconf("SC_PAGE_SIZE"),
    }


def board_model() -> Optional[str]:
    """Model from the device tree, for example "Raspberry Pi 5 Model B Rev 1.0"; null on a PC."""
    text = _text(Path("/proc/device-tree/model"))
    return text.strip("\0 \n") if text else None


def readings() -> Dict[str, Any]:
    """Sensors at this moment."""
    celsius = _integer(_THERMAL)
    kilohertz = _integer(_CPU / "scaling_cur_freq")
    return {
        "temperature_celsius": None if celsius is None else celsius / 1000,
        "frequency_hz": None if kilohertz is None else kilohertz * 1000,
        "memory_available_bytes": _meminfo("MemAvailable"),
        "load_average": os.getloadavg()[0],
    }


def own_memory() -> Dict[str, int]:
    """Peak resident set and present anonymous memory of this process, in bytes."""
    status = _text(Path("/proc/self/status")) or ""
    return {
        "rss_peak_bytes": _kibibytes(status, "VmHWM") or 0,
        "rss_anon_bytes": _kibibytes(status, "RssAnon") or 0,
    }


def _os_name() -> Optional[str]:
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', _text(Path("/etc/os-release")) or "", re.MULTILINE)
    return match.group(1) if match else None


def _libc() -> Optional[str]:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None


def _cpuinfo(key: str) -> Optional[str]:
    match = re.search(rf"^{key}\s*:\s*(.*)$", _text(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    return match.group(1) if match else None


def _meminfo(key: str) -> Optional[int]:
    return _kibibytes(_text(Path("/proc/meminfo")) or "", key)


def _kibibytes(text: str, key: str) -> Optional[int]:
    match = re.search(rf"^{key}:\s*(\d+) kB", text, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def _integer(path: Path) -> Optional[int]:
    text = _text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _text(path: Path) -> Optional[str]:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
