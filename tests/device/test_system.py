from __future__ import annotations

import json
import os
import platform
import sys

import pytest

from liteship_agent import system

STATUS = "VmPeak:\t  999 kB\nVmHWM:\t   2048 kB\nVmRSS:\t  1 kB\nRssAnon:\t    1024 kB\n"
BOARD = {
    "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd aes\nCPU part\t: 0xd0b\n\nprocessor\t: 1\n",
    "/proc/meminfo": "MemTotal:        8000 kB\nMemFree:  1 kB\nMemAvailable:    6000 kB\n",
    "/proc/self/status": STATUS,
    "/etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 13 (trixie)"\n',
    "/sys/class/thermal/thermal_zone0/temp": "48312\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
}


@pytest.fixture
def files(monkeypatch):
    """The files that the machine offers; a test may change them."""
    found = dict(BOARD)
    monkeypatch.setattr(system, "_text", lambda path: found.get(str(path)))
    return found


def test_environment_of_a_board(files):
    environment = system.environment()

    assert environment["board_model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert environment["os"] == "Debian GNU/Linux 13 (trixie)"
    assert environment["cpu_model"] == "0xd0b"
    assert environment["cpu_flags"] == ["fp", "asimd", "aes"]
    assert environment["governor"].strip() == "ondemand"
    assert environment["memory_bytes"] == 8000 * 1024


def test_readings_of_a_board_are_in_base_units(files):
    readings = system.readings()

    assert readings["temperature_celsius"] == pytest.approx(48.312)
    assert readings["frequency_hz"] == 2_400_000_000
    assert readings["memory_available_bytes"] == 6000 * 1024
    assert readings["load_average"] >= 0


def test_what_the_machine_does_not_offer_is_null(files):
    files.clear()

    assert {key for key, value in system.readings().items() if value is not None} == {"load_average"}
    environment = system.environment()
    assert [environment[key] for key in ("board_model", "os", "cpu_model", "governor", "memory_bytes")] == [None] * 5
    assert environment["cpu_flags"] == []


def test_sensor_that_gives_no_number_is_null(files):
    files["/sys/class/thermal/thermal_zone0/temp"] = "<unknown>\n"

    assert system.readings()["temperature_celsius"] is None


def test_memory_is_the_peak_and_the_anonymous_part(files):
    assert system.own_memory() == {"rss_peak_bytes": 2048 * 1024, "rss_anon_bytes": 1024 * 1024}


def test_memory_of_this_process_grows_with_what_it_holds():
    before = system.own_memory()["rss_anon_bytes"]

    held = bytearray(os.urandom(32 << 20))

    assert system.own_memory()["rss_anon_bytes"] - before >= len(held) * 0.9
    assert system.own_memory()["rss_peak_bytes"] >= system.own_memory()["rss_anon_bytes"]


def test_environment_of_this_machine_is_json():
    environment = system.environment()

    assert json.loads(json.dumps(environment)) == environment
    assert environment["python"] == platform.python_version() == ".".join(map(str, sys.version_info[:3]))
    assert environment["machine"] == os.uname().machine
    assert environment["memory_bytes"] > 0


def test_file_that_cannot_be_read_is_null(tmp_path):
    assert system._text(tmp_path) is None
    assert system._text(tmp_path / "missing") is None
