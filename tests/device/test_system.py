from __future__ import annotations

import json
import os
import platform
import sys

import pytest
from machines import SWAPS, build, raspberry_pi_4, raspberry_pi_5, rk3588, x86_vm

from liteship_agent import system


def test_environment_of_a_board(tmp_path):
    environment = system.environment(build(tmp_path, raspberry_pi_5.FILES))

    assert environment["board_model"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert environment["os"] == "Debian GNU/Linux 13 (trixie)"
    assert environment["kernel"] == "6.12.47+rpt-rpi-2712"
    assert environment["cpu_model"] == "Cortex-A76"
    assert environment["cpu_count"] == 4
    assert "asimddp" in environment["cpu_flags"]
    assert environment["cpu_mhz"] is None
    assert environment["governor"] == "ondemand"
    assert environment["memory_bytes"] == 8_256_128 * 1024
    assert environment["swap_bytes"] == 2_097_136 * 1024
    assert environment["swap_kind"] == "zram"


def test_environment_of_a_board_with_two_core_types(tmp_path):
    environment = system.environment(build(tmp_path, rk3588.FILES))

    assert environment["cpu_model"] == "Cortex-A76 + Cortex-A55"
    assert environment["cpu_types"] == [
        {
            "cpus": [4, 5, 6, 7],
            "name": "Cortex-A76",
            "implementer": 0x41,
            "part": 0xD0B,
            "capacity": 1024,
            "max_hz": 2_352_000_000,
        },
        {
            "cpus": [0, 1, 2, 3],
            "name": "Cortex-A55",
            "implementer": 0x41,
            "part": 0xD05,
            "capacity": 530,
            "max_hz": 1_800_000_000,
        },
    ]
    assert environment["governor"] == "0-5 ondemand, 6-7 performance"
    assert (environment["swap_bytes"], environment["swap_kind"]) == (0, None)


def test_environment_of_a_pc_has_its_clock_and_no_board(tmp_path):
    environment = system.environment(build(tmp_path, x86_vm.FILES))

    assert environment["board_model"] is None
    assert environment["cpu_mhz"] == pytest.approx(2200.192)
    assert environment["cpu_model"] == "Intel(R) Xeon(R) CPU @ 2.20GHz"
    assert "avx512f" in environment["cpu_flags"]
    assert environment["governor"] is None


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ("/var/swap file 1 0 -2\n", "file"),
        ("/dev/mmcblk0p3 partition 1 0 -2\n/swap file 1 0 -3\n", "partition"),
        ("/swap file 1 0 -2\n/dev/zram0 partition 1 0 100\n", "zram"),
        ("damaged\n", None),
        ("/swap file 1 0 -x\n", None),
    ],
)
def test_kind_of_swap_is_that_of_the_highest_priority(tmp_path, lines, kind):
    root = build(tmp_path, {**raspberry_pi_4.FILES, "proc/swaps": SWAPS + lines})

    assert system.environment(root)["swap_kind"] == kind


def test_what_the_machine_does_not_offer_is_null(tmp_path):
    environment = system.environment(tmp_path)

    missing = ("board_model", "kernel", "os", "cpu_model", "cpu_mhz", "governor", "memory_bytes", "swap_kind")
    assert [environment[key] for key in missing] == [None] * len(missing)
    assert environment["cpu_flags"] == environment["cpu_types"] == []


@pytest.mark.parametrize("path", sorted(rk3588.FILES))
def test_environment_of_a_machine_with_a_damaged_file_is_json(tmp_path, path):
    environment = system.environment(build(tmp_path, {**rk3588.FILES, path: "\xff?\n\nprocessor : \u00b2\n\n-"}))

    assert json.loads(json.dumps(environment)) == environment


def test_memory_is_the_peak_and_the_anonymous_part(tmp_path):
    build(tmp_path, raspberry_pi_4.FILES)

    assert system.own_memory(tmp_path) == {"rss_peak_bytes": 24064 * 1024, "rss_anon_bytes": 9216 * 1024}


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
    assert environment["kernel"] == platform.release()
    assert environment["cpu_count"] >= 1
    assert environment["memory_bytes"] > 0
