"""Checks of the host and of a target: what was looked at, what was found, what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liteship.errors import LiteshipError
from liteship.provision import Interpreter, choose_runtime
from liteship.remote import Connection
from liteship.service import facts
from liteship.targets import split_runtimes
from liteship_agent.sensors import SINCE_BOOT_SHIFT, THROTTLED_NOW, describe_throttling

_HOST_FREE_BYTES = 4 * 2**30
_TARGET_FREE_BYTES = 400 * 2**20
_KEEP_PROCESSES = (
    "sudo mkdir -p /etc/systemd/logind.conf.d; printf '[Login]\\nKillUserProcesses=no\\n' | "
    "sudo tee /etc/systemd/logind.conf.d/liteship.conf; sudo reboot"
)
_PACKAGES = ("tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "opencv-python-headless")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Args:
        where: "host" or the target's name.
        what: What was looked at.
        passed: Whether it is as needed.
        found: What is there.
        remedy: What to do, empty when nothing.
    """

    where: str
    what: str
    passed: bool
    found: str
    remedy: str = ""


def check_host() -> list[Check]:
    """Python, packages, pip and disk of this computer; imports nothing heavy."""
    version = sys.version_info
    checks = [
        Check(
            "host",
            "Python",
            (3, 11) <= version[:2] <= (3, 13),
            f"{version.major}.{version.minor}.{version.micro}",
            "" if (3, 11) <= version[:2] <= (3, 13) else "install Python 3.11, 3.12 or 3.13",
        )
    ]
    for name in _PACKAGES:
        try:
            checks.append(Check("host", name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check("host", name, False, "not installed", "make setup"))
    has_pip = importlib.util.find_spec("pip") is not None
    checks.append(
        Check("host", "pip", has_pip, "there" if has_pip else "not there", "" if has_pip else "python3 -m ensurepip")
    )
    free = shutil.disk_usage(Path.cwd()).free
    checks.append(_disk("host", free, _HOST_FREE_BYTES))
    return checks


def check_target(connection: Connection) -> list[Check]:
    """Interpreter, runtime, disk and sensors of a target."""
    name = connection.target.name
    probe = connection.probe()
    interpreter = Interpreter.of(probe)
    checks = [Check(name, "board", True, probe["board_model"] or "no device tree (not a board)")]
    wanted = split_runtimes(connection.target.runtime)
    runtimes = [_runtime(name, interpreter, runtime) for runtime in wanted]
    if any(check.passed for check in runtimes):
        checks.append(Check(name, "Python", True, interpreter.describe()))
    checks += runtimes
    checks.append(_disk(name, probe["free_bytes"], _TARGET_FREE_BYTES))
    active = probe["current"]
    checks.append(Check(name, "release", True, active or "none yet"))
    return checks + _sensor_checks(name, connection.sensors()) + _login_checks(name, facts(connection))


def _runtime(name: str, interpreter: Interpreter, wanted: str) -> Check:
    """Whether a runtime that is wished for fits the interpreter."""
    try:
        return Check(name, "runtime", True, choose_runtime(interpreter, wanted).requirement)
    except LiteshipError as exc:
        return Check(name, "runtime", False, interpreter.describe(), f"{exc.message} {exc.hint}".strip())


def _sensor_checks(name: str, answer: dict[str, Any]) -> list[Check]:
    """Temperature, clock and throttling; a sensor that is missing fails only where something can be done about it."""
    sample, sources = answer["sample"], answer["sources"]
    celsius = sample["temperature_celsius"]
    found = "no sensor" if celsius is None else f"{celsius:.1f} °C"
    return [
        Check(name, "temperature", True, found),
        Check(name, "clock", True, _clock(sample)),
        _throttling(name, sample, sources, answer["can_see_throttling"]),
    ]


def _clock(sample: dict[str, Any]) -> str:
    for field, teller in (("arm_clock_hz", "firmware"), ("cpufreq_hz", "kernel")):
        if sample[field] is not None:
            return f"{sample[field] / 1e6:.0f} MHz ({teller})"
    return "no sensor"


def _throttling(name: str, sample: dict[str, Any], sources: dict[str, Any], is_visible: bool) -> Check:
    bits = sample["throttled_bits"] or 0
    now = list(describe_throttling(bits))
    if sample["undervoltage"] and THROTTLED_NOW[0] not in now:
        now.append(THROTTLED_NOW[0])
    if sample["cooling_state"]:
        now.append("throttled by the kernel")
    if now:
        remedy = "let it cool, or use a stronger supply; a throttled board is not measured"
        return Check(name, "throttling", False, f"now: {', '.join(now)}", remedy)
    if not is_visible:
        told = sources["throttled_bits"]
        found = "cannot be read, so no row will say valid"
        if told["remedy"] is None:
            return Check(name, "throttling", True, found)
        return Check(name, "throttling", False, f"{found} ({told['reason']})", told["remedy"])
    earlier = describe_throttling(bits >> SINCE_BOOT_SHIFT)
    return Check(name, "throttling", True, f"not now; since boot: {', '.join(earlier)}" if earlier else "none")


def _login_checks(name: str, answer: dict[str, Any]) -> list[Check]:
    """What becomes of a detached job when its login ends; see liteship_agent.service.logind.facts."""
    lingers = "yes" if answer["lingers"] else "no; only a service needs it, and `liteship service install` enables it"
    return [
        _kill_user_processes(name, answer),
        _remove_ipc(name, answer["remove_ipc"]),
        Check(name, "lingering", True, lingers if answer["has_systemd"] else "systemd does not run here"),
    ]


def _kill_user_processes(name: str, answer: dict[str, Any]) -> Check:
    setting, what = answer["kill_user_processes"], "KillUserProcesses"
    if setting["value"] is None:
        return Check(name, what, True, f"unknown: {setting['reason']}")
    if not setting["value"]:
        return Check(name, what, True, "no: a job outlives the login that started it")
    if answer["is_exempt"]:
        return Check(name, what, True, f"yes, but not for user {answer['user']}")
    return Check(
        name, what, False, f"yes ({setting['source']}): logind ends a job when its login ends", _KEEP_PROCESSES
    )


def _remove_ipc(name: str, setting: dict[str, Any]) -> Check:
    if setting["value"] is None:
        return Check(name, "RemoveIPC", True, f"unknown: {setting['reason']}")
    harmless = "yes, which is harmless: liteship uses no named shared memory"
    return Check(name, "RemoveIPC", True, harmless if setting["value"] else "no")


def _disk(where: str, free: int, needed: int) -> Check:
    passed = free >= needed
    remedy = "" if passed else f"free {(needed - free) / 2**20:.0f} MiB"
    return Check(where, "free space", passed, f"{free / 2**30:.1f} GiB", remedy)
