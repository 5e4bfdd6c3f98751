"""Checks of the host and of a target: what was looked at, what was found, what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from liteship.errors import LinkError
from liteship.provision import Interpreter, choose_runtime
from liteship.remote import Connection

_HOST_FREE_BYTES = 4 * 2**30
_TARGET_FREE_BYTES = 400 * 2**20
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
    """Interpreter, runtime and disk of a target."""
    name = connection.target.name
    probe = connection.store("probe")
    interpreter = Interpreter.of(probe)
    checks = [Check(name, "board", True, probe["board_model"] or "no device tree (not a board)")]
    try:
        runtime = choose_runtime(interpreter, connection.target.runtime)
        checks.append(Check(name, "Python", True, interpreter.describe()))
        checks.append(Check(name, "runtime", True, runtime.requirement))
    except LinkError as exc:
        checks.append(Check(name, "runtime", False, interpreter.describe(), f"{exc.message} {exc.hint}"))
    checks.append(_disk(name, probe["free_bytes"], _TARGET_FREE_BYTES))
    active = probe["current"]
    checks.append(Check(name, "release", True, active or "none yet"))
    return checks


def _disk(where: str, free: int, needed: int) -> Check:
    passed = free >= needed
    remedy = "" if passed else f"free {(needed - free) / 2**20:.0f} MiB"
    return Check(where, "free space", passed, f"{free / 2**30:.1f} GiB", remedy)
