"""Temperature, clocks, throttling, supply, fan and memory of a Linux machine: one sample of all sensors at a time.

What a machine offers is located once; a sample then only reads. Every file is read below a root folder, so that a
folder of recorded files is a machine too. A sensor that is not there, disappears or holds garbage is null, and
`Sensors.sources` says why and what to do about it.

On a Raspberry Pi neither the kernel's clock nor its cooling devices show the throttling that the firmware does; the
firmware itself is asked, as the program `vcgencmd` asks it: through /dev/vcio_gencmd, which newer kernels open to
users, through /dev/vcio, or by that program. A recorded machine has its answers as files under firmware/.

The host also sends the source text of this file over stdin (see store/sense.py): it imports the standard library only,
and nothing of liteship_agent.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import grp
import os
import pwd
import re
import stat
import struct
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple, Union

THROTTLED_NOW = {0: "undervoltage", 1: "clock capped", 2: "throttled", 3: "throttled (soft temperature limit)"}
"""Bits of get_throttled that tell the present."""

SINCE_BOOT_SHIFT = 16
"""So many places higher the same bits tell whether it ever was so since boot."""

_GENCMD_SECONDS = 0.5
_GENCMD_BYTES = 1024
_GENCMD_FORMAT = f"=6I{_GENCMD_BYTES}sI"
_GENCMD_TAG = 0x00030080  # GET_GENCMD_RESULT of the firmware's property interface
_GENCMD_DONE = 0x80000000
_PROPERTY_REQUEST = 3 << 30 | struct.calcsize("P") << 16 | 100 << 8  # _IOWR(100, 0, char *)

_INTEGER = rb"\A\s*(-?\d{1,18})\s*\Z"
_ZONE_TYPES = ("cpu-thermal", "cpu_thermal", "x86_pkg_temp", "cpu", "soc", "package", "bigcore")
_COOLING_TYPES = ("cpufreq-", "thermal-cpufreq", "Processor")
_PIECE_BYTES = 1 << 16
_TICK_NS = 10**9 // os.sysconf("SC_CLK_TCK")

Reading = Union[int, float, bool, None]


def describe_throttling(bits: int) -> Tuple[str, ...]:
    """The states of get_throttled that hold now, in words; those since boot are left out."""
    return tuple(text for bit, text in THROTTLED_NOW.items() if bits >> bit & 1)


class Sensors:
    """The sensors of one machine.

    Args:
        root: Folder below which all files are read; another than "/" is a recorded machine.

    Attributes:
        is_raspberry_pi: By the device tree; there `cpufreq_hz` and `cooling_state` say nothing about throttling.
        can_see_throttling: Whether throttling is visible: on a Raspberry Pi by the firmware's get_throttled, elsewhere
            by the kernel's cooling devices or throttle counts.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.is_raspberry_pi = (read_text(root / "proc/device-tree/model") or "").startswith("Raspberry Pi")
        self._firmware = _Firmware(root, self.is_raspberry_pi)
        self._files = _locate_files(root, self.is_raspberry_pi)
        self._policies = _locate_policies(root)
        self.can_see_throttling = (
            self._firmware.throttled_bits() is not None
            if self.is_raspberry_pi
            else any(self._files[name].read() is not None for name in ("cooling_state", "throttle_count"))
        )

    def sample(self, cpus: Sequence[int] = ()) -> Dict[str, Any]:
        """Read everything now.

        Args:
            cpus: CPUs whose kernel clock is wanted, all when empty.
        Returns:
            Every field of `report.Sample` but worker_rss_bytes. `cpufreq_hz` is the highest of the wanted CPUs: an
            idle one may be slow. `cost_ns` is CPU time of this thread; that of vcgencmd, where it is needed, is not
            in it.
        """
        at_ns, started_ns = time.monotonic_ns(), time.thread_time_ns()
        readings: Dict[str, Any] = {name: sensor.read() for name, sensor in self._files.items()}
        readings["cpufreq_hz"] = self._clock_sensor(cpus).read()
        readings["arm_clock_hz"] = self._firmware.arm_clock_hz()
        readings["throttled_bits"] = self._firmware.throttled_bits()
        return {"at_ns": at_ns, **readings, "cost_ns": time.thread_time_ns() - started_ns}

    def sources(self) -> Dict[str, Dict[str, Optional[str]]]:
        """Per sensor of `sample`: its `source`, or null with the `reason` why there is none now and the `remedy`."""
        found = {name: sensor.source() for name, sensor in self._files.items()}
        found["cpufreq_hz"] = self._clock_sensor(()).source()
        found["arm_clock_hz"] = self._firmware.source(self._firmware.arm_clock_hz())
        found["throttled_bits"] = self._firmware.source(self._firmware.throttled_bits())
        return found

    def busy_ns(self) -> Optional[int]:
        """CPU time that was used on this machine since boot: without idle and iowait, with what a hypervisor took."""
        fields = (read_text(self.root / "proc/stat") or "").partition("\n")[0].split()
        try:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
        except ValueError:
            return None
        return (user + nice + system + irq + softirq + steal) * _TICK_NS

    def process_cpu_ns(self) -> Dict[int, Tuple[str, int]]:
        """Name and CPU time so far of every process but this one, by its id."""
        found = {}
        for folder in _numbered(self.root / "proc"):
            if int(folder.name) != os.getpid():
                name, _, rest = (read_text(folder / "stat") or "").partition(" (")[2].rpartition(") ")
                with contextlib.suppress(IndexError, ValueError):
                    fields = rest.split()
                    found[int(folder.name)] = (name, (int(fields[11]) + int(fields[12])) * _TICK_NS)
        return found

    def _clock_sensor(self, cpus: Sequence[int]) -> _FileSensor:
        paths = [path for members, path in self._policies if not cpus or members.intersection(cpus)]
        return _FileSensor(self.root, paths, combine=lambda values: max(values) * 1000)


# --- files ---


def read_text(path: Path) -> Optional[str]:
    """A small file, without the zero bytes that end strings of the device tree; null where it cannot be read."""
    try:
        return _read(path).decode(errors="replace").rstrip("\0")
    except OSError:
        return None


def _read(path: Path) -> bytes:
    """A whole file; procfs gives less than it is asked for at a time."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _PIECE_BYTES), b""))
    finally:
        os.close(descriptor)


class _FileSensor:
    """A reading made of one integer in each of some files; null unless all of them can be read.

    Args:
        root, paths: The machine, and its files; none where it has no such sensor.
        pattern: Finds the integer.
        combine: Makes the reading of the integers.
        reason, remedy: Why there are no files, and what to do about it.
    """

    def __init__(
        self,
        root: Path,
        paths: Iterable[Path],
        pattern: bytes = _INTEGER,
        combine: Callable[[List[int]], Reading] = sum,
        reason: str = "This machine has none",
        remedy: Optional[str] = None,
    ) -> None:
        self._root, self._paths = root, tuple(paths)
        self._pattern, self._combine = re.compile(pattern, re.MULTILINE), combine
        self._reason, self._remedy = reason, remedy

    def read(self) -> Reading:
        try:
            return self._combine([self._integer(path) for path in self._paths]) if self._paths else None
        except (OSError, ValueError):
            return None

    def source(self) -> Dict[str, Optional[str]]:
        if not self._paths:
            return _source(None, self._reason, self._remedy)
        for path in self._paths:
            try:
                self._integer(path)
            except OSError as exc:
                return _source(None, f"{_shown(self._root, path)}: {exc.strerror}")
            except ValueError:
                return _source(None, f"{_shown(self._root, path)} holds no number")
        others = len(self._paths) - 1
        return _source(_shown(self._root, self._paths[0]) + (f" and {others} more" if others else ""))

    def _integer(self, path: Path) -> int:
        match = self._pattern.search(_read(path))
        if match is None:
            raise ValueError(path)
        return int(match.group(1))


def _source(source: Optional[str], reason: Optional[str] = None, remedy: Optional[str] = None) -> Dict[str, Any]:
    return {"source": source, "reason": reason, "remedy": remedy}


def _shown(root: Path, path: Path) -> str:
    return "/" + str(path.relative_to(root))


def _locate_files(root: Path, is_raspberry_pi: bool) -> Dict[str, _FileSensor]:
    thermal, cpus = root / "sys/class/thermal", root / "sys/devices/system/cpu"
    zone = _thermal_zone(_numbered(thermal, "thermal_zone"))
    coolers = [path for path in _numbered(thermal, "cooling_device") if _text(path / "type").startswith(_COOLING_TYPES)]
    counts = [
        path
        for cpu in _numbered(cpus, "cpu")
        for path in (cpu / "thermal_throttle/core_throttle_count", cpu / "thermal_throttle/package_throttle_count")
        if os.path.exists(path)
    ]
    monitors = _numbered(root / "sys/class/hwmon", "hwmon")
    alarm = [path / "in0_lcrit_alarm" for path in monitors if _text(path / "name") == "rpi_volt"]
    fans = sorted(
        (path / "fan1_input" for path in monitors if os.path.exists(path / "fan1_input")),
        key=lambda path: _text(path.parent / "name") != "pwmfan",
    )
    load_driver = "sudo modprobe raspberrypi-hwmon" if is_raspberry_pi else None
    sensor = functools.partial(_FileSensor, root)
    return {
        "temperature_celsius": sensor([zone / "temp"] if zone else [], combine=lambda values: values[0] / 1000),
        "cooling_state": sensor([path / "cur_state" for path in coolers]),
        "throttle_count": sensor(counts),
        "undervoltage": sensor(alarm[:1], combine=any, reason="No hwmon is named rpi_volt", remedy=load_driver),
        "fan_rpm": sensor(fans[:1]),
        "memory_available_bytes": sensor(
            [root / "proc/meminfo"], rb"^MemAvailable:\s*(\d+) kB", lambda values: values[0] * 1024
        ),
        "swapped_in_pages": sensor([root / "proc/vmstat"], rb"^pswpin (\d+)"),
    }


def _text(path: Path) -> str:
    return (read_text(path) or "").strip()


def _numbered(folder: Path, prefix: str = "") -> List[Path]:
    """Entries named prefix and a number, by number."""
    found = [path for path in folder.glob(f"{prefix}*") if path.name[len(prefix) :].isdecimal()]
    return sorted(found, key=lambda path: int(path.name[len(prefix) :]))


def _thermal_zone(zones: List[Path]) -> Optional[Path]:
    """The zone of the processor, else the first one."""
    wanted = (zone for name in _ZONE_TYPES for zone in zones if _text(zone / "type").startswith(name))
    return next(wanted, zones[0] if zones else None)


def _locate_policies(root: Path) -> List[Tuple[frozenset[int], Path]]:
    """CPUs of every clock domain, with the file that holds their present clock in kHz."""
    found = []
    for folder in _numbered(root / "sys/devices/system/cpu/cpufreq", "policy"):
        members = _text(folder / "related_cpus").split()
        found.append((frozenset(int(cpu) for cpu in members if cpu.isdecimal()), folder / "scaling_cur_freq"))
    return found


# --- firmware of a Raspberry Pi ---


class _Firmware:
    """The way in which this machine's firmware answers, if any."""

    def __init__(self, root: Path, is_raspberry_pi: bool) -> None:
        self._ask: Optional[Callable[[str], str]] = None
        self._source = self._remedy = None
        self._reason = "Only the firmware of a Raspberry Pi tells it"
        failures, remedies = [], []
        for path, ask in _firmware_ways(root):
            try:
                ask("get_throttled")
            except OSError as exc:
                failures.append(f"{_shown(root, path)}: {exc.strerror or exc}")
                if isinstance(exc, PermissionError):
                    remedies.append(_permission_remedy(path))
                continue
            self._ask, self._source = ask, _shown(root, path)
            return
        if is_raspberry_pi:
            self._reason = "; ".join(failures) or "There is no /dev/vcio_gencmd, /dev/vcio or vcgencmd"
            self._remedy = (remedies or ["Run the kernel of Raspberry Pi OS, which has /dev/vcio"])[0]

    def throttled_bits(self) -> Optional[int]:
        match = self._match("get_throttled", r"throttled=0x([0-9a-fA-F]+)")
        return int(match.group(1), 16) if match else None

    def arm_clock_hz(self) -> Optional[int]:
        match = self._match("measure_clock arm", r"frequency\(\d+\)=(\d{1,18})")
        return int(match.group(1)) if match else None

    def source(self, reading: Reading) -> Dict[str, Optional[str]]:
        if self._source is None:
            return _source(None, self._reason, self._remedy)
        return _source(None, f"{self._source} gave no number") if reading is None else _source(self._source)

    def _match(self, command: str, pattern: str) -> Optional[re.Match[str]]:
        if self._ask is None:
            return None
        try:
            return re.search(pattern, self._ask(command))
        except OSError:
            return None


def _firmware_ways(root: Path) -> List[Tuple[Path, Callable[[str], str]]]:
    """Files and functions that may answer commands, the best first."""
    ways: List[Tuple[str, Callable[[Path, str], str]]] = [
        ("firmware", _ask_files),
        ("dev/vcio_gencmd", _ask_mailbox),
        ("dev/vcio", _ask_mailbox),
        ("usr/bin/vcgencmd", _ask_program),
        ("opt/vc/bin/vcgencmd", _ask_program),
    ]
    return [(root / name, functools.partial(ask, root / name)) for name, ask in ways if os.path.exists(root / name)]


def _ask_files(folder: Path, command: str) -> str:
    return _read(folder / command.replace(" ", "_")).decode(errors="replace")


def _ask_mailbox(device: Path, command: str) -> str:
    """One command as a message of the property interface: header, tag with room for the answer, end tag."""
    size = struct.calcsize(_GENCMD_FORMAT)
    message = bytearray(
        struct.pack(_GENCMD_FORMAT, size, 0, _GENCMD_TAG, _GENCMD_BYTES, 0, 0, command.encode("ascii"), 0)
    )
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _PROPERTY_REQUEST, message, True)
    finally:
        os.close(descriptor)
    _, code, _, _, _, error, answer, _ = struct.unpack(_GENCMD_FORMAT, message)
    if code != _GENCMD_DONE or error:
        raise OSError(f"the firmware refused {command}")
    return str(answer.partition(b"\0")[0].decode(errors="replace"))


def _ask_program(program: Path, command: str) -> str:
    words = [str(program), *command.split()]
    try:
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GENCMD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise OSError(f"no answer within {_GENCMD_SECONDS} s") from exc
    if ended.returncode != 0:
        raise OSError(f"exit status {ended.returncode}")
    return ended.stdout.decode(errors="replace")


def _permission_remedy(device: Path) -> str:
    """Join the device's group where that may use it, else a udev rule that makes it so."""
    found = device.stat()
    name = _name_of(grp.getgrgid, found.st_gid, "gr_name")
    join = f"sudo usermod -aG {{}} {_name_of(pwd.getpwuid, os.getuid(), 'pw_name')}; log in again"
    if found.st_gid != 0 and found.st_mode & stat.S_IRGRP:
        return join.format(name)
    rule = 'KERNEL=="vcio*", GROUP="video", MODE="0660"'
    return f"echo '{rule}' | sudo tee /etc/udev/rules.d/99-vcio.rules; sudo udevadm trigger; " + join.format("video")


def _name_of(find: Callable[[int], Any], number: int, field: str) -> str:
    try:
        return str(getattr(find(number), field))
    except KeyError:
        return str(number)
