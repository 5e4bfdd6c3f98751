from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from types import SimpleNamespace
from typing import Any

import pytest

from liteship import doctor
from liteship.doctor import Check, check_host, check_target

PROBE = {
    "python_version": "3.11.2",
    "machine": "aarch64",
    "word_bits": 64,
    "libc": ["glibc", "2.36"],
    "board_model": "Raspberry Pi 5 Model B Rev 1.0",
    "free_bytes": 20 * 2**30,
    "current": "0123456789ab",
}


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.what: check for check in checks}


def connection(runtime: str = "auto", **probe: Any) -> Any:
    """What `check_target` asks a connection for."""
    answer = {**PROBE, **probe}
    return SimpleNamespace(target=SimpleNamespace(name="pi", runtime=runtime), store=lambda verb: answer)


def test_host_that_has_everything_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9 * 2**30))
    checks = by_name(check_host())
    assert checks["tensorflow"].found == importlib.metadata.version("tensorflow")
    assert checks["free space"].found == "9.0 GiB"
    assert [check.what for check in checks.values() if not check.passed] == []
    assert {check.where for check in checks.values()} == {"host"}


def test_missing_package_pip_space_and_python_have_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**30))

    class Old(tuple):  # type: ignore[type-arg]
        major, minor, micro = 3, 10, 4

    monkeypatch.setattr(doctor, "sys", SimpleNamespace(version_info=Old((3, 10, 4))))
    checks = by_name(check_host())
    assert not any(check.passed for check in checks.values())
    assert checks["Python"].found == "3.10.4"
    assert checks["tensorflow"].remedy == "make setup"
    assert checks["pip"].remedy == "python3 -m ensurepip"
    assert checks["free space"].remedy == "free 3072 MiB"
    assert all(check.remedy for check in checks.values())


def test_target_that_has_everything_passes() -> None:
    checks = by_name(check_target(connection()))
    assert all(check.passed for check in checks.values())
    assert checks["board"].found == PROBE["board_model"]
    assert checks["runtime"].found == "ai-edge-litert==2.3.0"
    assert checks["release"].found == "0123456789ab"
    assert {check.where for check in checks.values()} == {"pi"}


def test_target_without_a_fitting_interpreter_or_space_fails() -> None:
    checks = by_name(check_target(connection(machine="armv7l", word_bits=32, free_bytes=0, current=None)))
    assert not checks["runtime"].passed
    assert checks["runtime"].found == "Python 3.11, 32-bit armv7l, glibc 2.36"
    assert "64-bit" in checks["runtime"].remedy
    assert checks["free space"].remedy == "free 400 MiB"
    assert checks["release"].found == "none yet"
