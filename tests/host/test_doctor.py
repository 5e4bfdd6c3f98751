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
    "soabi": "cpython-311-aarch64-linux-gnu",
    "symbols": {"GLIBC": "2.36", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"},
    "board_model": "Raspberry Pi 5 Model B Rev 1.0",
    "free_bytes": 20 * 2**30,
    "current": "0123456789ab",
}


REMEDY = "sudo usermod -aG video ada; log in again"
SENSORS = {
    "sample": {
        "temperature_celsius": 52.15,
        "arm_clock_hz": 2_400_033_792,
        "cpufreq_hz": 1_500_000_000,
        "throttled_bits": 0,
        "cooling_state": None,
        "undervoltage": False,
    },
    "sources": {"throttled_bits": {"source": "/dev/vcio_gencmd", "reason": None, "remedy": None}},
    "can_see_throttling": True,
}
LOGIN = {
    "kill_user_processes": {"value": False, "source": "logind", "reason": None},
    "remove_ipc": {"value": True, "source": "logind", "reason": None},
    "is_exempt": False,
    "lingers": True,
    "user": "pi",
    "has_systemd": True,
}


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.what: check for check in checks}


def connection(runtime: str = "auto", sensors: Any = SENSORS, login: Any = LOGIN, **probe: Any) -> Any:
    """What `check_target` asks a connection for."""
    answer = {**PROBE, **probe}
    target = SimpleNamespace(name="pi", runtime=runtime, folder="~/liteship")
    return SimpleNamespace(
        target=target, probe=lambda: answer, sensors=lambda: sensors, run=lambda program, arguments: login
    )


def blind(reason: str, remedy: str | None) -> dict[str, Any]:
    """Sensors of a machine that tells nothing."""
    return {
        "sample": dict.fromkeys(SENSORS["sample"]),
        "sources": {"throttled_bits": {"source": None, "reason": reason, "remedy": remedy}},
        "can_see_throttling": False,
    }


def throttling_check(**readings: Any) -> Check:
    sensors = {**SENSORS, "sample": {**SENSORS["sample"], **readings}}
    return by_name(check_target(connection(sensors=sensors)))["throttling"]


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


def test_each_runtime_of_a_list_is_checked() -> None:
    checks = check_target(connection("ai-edge-litert, tflite-runtime,nonsense"))
    found = [(check.passed, check.found) for check in checks if check.what == "runtime"]
    assert found[:2] == [(True, "ai-edge-litert==2.3.0"), (True, "tflite-runtime==2.14.0")]
    assert not found[2][0]
    assert len(by_name(checks)["Python"].found) > 0


def test_sensors_of_a_target_are_shown() -> None:
    checks = by_name(check_target(connection()))
    assert checks["temperature"].found == "52.1 °C"
    assert checks["clock"].found == "2400 MHz (firmware)"
    assert checks["throttling"] == Check("pi", "throttling", True, "none")


def test_throttling_since_boot_is_told_and_passes() -> None:
    assert throttling_check(throttled_bits=0x50000) == Check(
        "pi", "throttling", True, "not now; since boot: undervoltage, throttled"
    )


@pytest.mark.parametrize(
    ("readings", "found"),
    [
        ({"throttled_bits": 0x50008}, "now: throttled (soft temperature limit)"),
        ({"throttled_bits": 0x50001, "undervoltage": True}, "now: undervoltage"),
        ({"throttled_bits": None, "undervoltage": True}, "now: undervoltage"),
        ({"throttled_bits": None, "cooling_state": 2}, "now: throttled by the kernel"),
    ],
)
def test_throttled_target_fails(readings: dict[str, Any], found: str) -> None:
    check = throttling_check(**readings)
    assert (check.passed, check.found) == (False, found)
    assert check.remedy


def test_target_whose_throttling_could_be_read_fails_with_the_remedy() -> None:
    sensors = blind("/dev/vcio_gencmd: Permission denied", REMEDY)
    check = by_name(check_target(connection(sensors=sensors)))["throttling"]
    assert not check.passed
    assert "/dev/vcio_gencmd: Permission denied" in check.found
    assert check.remedy == REMEDY


def test_machine_that_has_no_throttle_sensor_is_told_and_passes() -> None:
    sensors = blind("Only the firmware of a Raspberry Pi tells it", None)
    checks = by_name(check_target(connection(sensors=sensors, board_model=None)))
    assert checks["throttling"].passed
    assert "no row will say valid" in checks["throttling"].found
    assert checks["temperature"].found == checks["clock"].found == "no sensor"


def test_clock_of_the_kernel_is_named_as_such() -> None:
    sensors = {**SENSORS, "sample": {**SENSORS["sample"], "arm_clock_hz": None}}
    assert by_name(check_target(connection(sensors=sensors)))["clock"].found == "1500 MHz (kernel)"


def login_checks(**answers: Any) -> dict[str, Check]:
    return by_name(check_target(connection(login={**LOGIN, **answers})))


def test_target_that_keeps_detached_jobs_passes() -> None:
    checks = login_checks()
    assert checks["KillUserProcesses"] == Check(
        "pi", "KillUserProcesses", True, "no: a job outlives the login that started it"
    )
    assert checks["RemoveIPC"] == Check(
        "pi", "RemoveIPC", True, "yes, which is harmless: liteship uses no named shared memory"
    )
    assert checks["lingering"] == Check("pi", "lingering", True, "yes")


def test_target_that_ends_jobs_at_logout_fails_with_the_remedy() -> None:
    setting = {"value": True, "source": "/etc/systemd/logind.conf", "reason": None}
    check = login_checks(kill_user_processes=setting)["KillUserProcesses"]
    assert not check.passed
    assert check.found == "yes (/etc/systemd/logind.conf): logind ends a job when its login ends"
    assert "KillUserProcesses=no" in check.remedy


def test_user_whose_processes_are_spared_passes() -> None:
    setting = {"value": True, "source": "logind", "reason": None}
    check = login_checks(kill_user_processes=setting, is_exempt=True, user="root")["KillUserProcesses"]
    assert (check.passed, check.found) == (True, "yes, but not for user root")


def test_target_without_systemd_is_told_and_passes() -> None:
    unknown = {"value": None, "source": None, "reason": "systemd does not run here"}
    checks = login_checks(kill_user_processes=unknown, remove_ipc=unknown, lingers=False, has_systemd=False)
    for what in ("KillUserProcesses", "RemoveIPC"):
        assert (checks[what].passed, checks[what].found) == (True, "unknown: systemd does not run here")
    assert (checks["lingering"].passed, checks["lingering"].found) == (True, "systemd does not run here")


def test_ipc_that_logind_keeps_and_a_user_who_does_not_linger_are_told() -> None:
    checks = login_checks(remove_ipc={"value": False, "source": "logind", "reason": None}, lingers=False)
    assert (checks["RemoveIPC"].passed, checks["RemoveIPC"].found) == (True, "no")
    assert checks["lingering"].passed
    assert "liteship service install" in checks["lingering"].found
