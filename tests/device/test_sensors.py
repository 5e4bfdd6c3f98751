from __future__ import annotations

import inspect
import json
import os
import struct
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_sensors import FakeSensors
from machines import build, policy, process, raspberry_pi_4, raspberry_pi_5, rk3588, x86_vm

from liteship import programs
from liteship_agent import sensors
from liteship_agent.report import Sample
from liteship_agent.sensors import Sensors, describe_throttling
from liteship_agent.store.events import EVENT_MARK

SENSORS = {field.name for field in fields(Sample)} - {"at_ns", "cost_ns", "worker_rss_bytes"}
MEMORY = {"memory_available_bytes", "swapped_in_pages"}


def readings(root: Path) -> dict:
    sample = Sensors(root).sample()
    return {name: sample[name] for name in SENSORS}


def without_firmware(files: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if not name.startswith("firmware/")}


# --- recorded machines ---


def test_raspberry_pi_5_has_every_sensor_but_those_of_other_machines(tmp_path):
    root = build(tmp_path, raspberry_pi_5.FILES)

    assert readings(root) == {
        "temperature_celsius": pytest.approx(52.15),
        "arm_clock_hz": 2_400_033_792,
        "cpufreq_hz": 2_400_000_000,
        "throttled_bits": 0,
        "cooling_state": None,
        "throttle_count": None,
        "undervoltage": False,
        "fan_rpm": 2713,
        "memory_available_bytes": 7_301_920 * 1024,
        "swapped_in_pages": 0,
    }
    assert Sensors(root).sample()["undervoltage"] is False
    assert Sensors(root).can_see_throttling
    assert Sensors(root).is_raspberry_pi


def test_raspberry_pi_4_tells_what_happened_since_boot_and_has_no_fan(tmp_path):
    found = readings(build(tmp_path, raspberry_pi_4.FILES))

    assert found["throttled_bits"] == 0x50000
    assert found["arm_clock_hz"] == 1_500_345_728
    assert found["cpufreq_hz"] == 1_800_000_000, "the kernel does not see the firmware's throttling"
    assert found["fan_rpm"] is None
    assert found["swapped_in_pages"] == 17


def test_rk3588_shows_throttling_by_its_cpu_cooling_devices_only(tmp_path):
    root = build(tmp_path, rk3588.FILES)
    machine = Sensors(root)

    assert machine.sample()["cooling_state"] == 0, "the fan's state of 3 is not throttling"
    assert machine.sample()["temperature_celsius"] == pytest.approx(41.615)
    assert machine.can_see_throttling
    assert not machine.is_raspberry_pi
    build(root, {f"sys/class/thermal/cooling_device{i}/cur_state": f"{i + 1}\n" for i in range(3)})
    assert machine.sample()["cooling_state"] == 6


def test_x86_vm_has_memory_only(tmp_path):
    root = build(tmp_path, x86_vm.FILES)

    assert {name for name, value in readings(root).items() if value is not None} == MEMORY
    assert not Sensors(root).can_see_throttling


def test_x86_counts_of_every_cpu_and_package_are_added(tmp_path):
    folder = "sys/devices/system/cpu/cpu{}/thermal_throttle/{}_throttle_count"
    counts = {folder.format(cpu, kind): f"{cpu + 3}\n" for cpu in (0, 1) for kind in ("core", "package")}
    zones = {"sys/class/thermal/thermal_zone0/type": "acpitz\n", "sys/class/thermal/thermal_zone0/temp": "27800\n"}
    zones |= {"sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n", "sys/class/thermal/thermal_zone1/temp": "61000"}
    root = build(tmp_path, {**x86_vm.FILES, **counts, **zones})

    assert readings(root)["throttle_count"] == 3 + 3 + 4 + 4
    assert readings(root)["temperature_celsius"] == 61.0
    assert Sensors(root).can_see_throttling


def test_first_zone_is_read_where_none_is_the_processors(tmp_path):
    zone = "sys/class/thermal/thermal_zone{}/{}"
    files = {zone.format(10, "type"): "b\n", zone.format(10, "temp"): "1\n"}
    files |= {zone.format(2, "type"): "acpitz\n", zone.format(2, "temp"): "27800\n"}

    assert readings(build(tmp_path, files))["temperature_celsius"] == 27.8


def test_fan_of_the_processor_is_read_where_there_are_more(tmp_path):
    other = {"sys/class/hwmon/hwmon0/fan1_input": "900\n"}
    root = build(tmp_path, {**raspberry_pi_5.FILES, **other})

    assert readings(root)["fan_rpm"] == 2713
    (root / "sys/class/hwmon/hwmon2/fan1_input").unlink()
    assert readings(root)["fan_rpm"] == 900


def test_kernel_clock_is_the_highest_of_the_wanted_cpus(tmp_path):
    machine = Sensors(build(tmp_path, rk3588.FILES))

    assert machine.sample()["cpufreq_hz"] == 2_352_000_000
    assert machine.sample((6, 7))["cpufreq_hz"] == 408_000_000
    assert machine.sample((0, 6))["cpufreq_hz"] == 1_800_000_000


def test_raspberry_pi_does_not_take_cooling_devices_for_the_firmware(tmp_path):
    cooler = {"sys/class/thermal/cooling_device0/type": "cpufreq-cpu0\n"}
    cooler |= {"sys/class/thermal/cooling_device0/cur_state": "0\n"}
    machine = Sensors(build(tmp_path, {**without_firmware(raspberry_pi_5.FILES), **cooler}))

    assert machine.sample()["cooling_state"] == 0
    assert not machine.can_see_throttling


def test_sample_is_a_record_of_the_report(tmp_path):
    sample = Sensors(build(tmp_path, raspberry_pi_5.FILES)).sample()

    assert Sample(**sample, worker_rss_bytes=None).temperature_celsius == pytest.approx(52.15)
    assert set(sample) == {field.name for field in fields(Sample)} - {"worker_rss_bytes"}
    assert sample["cost_ns"] > 0


def test_time_of_samples_goes_on(tmp_path):
    machine = Sensors(tmp_path)

    assert machine.sample()["at_ns"] < machine.sample()["at_ns"]


# --- what goes wrong ---


SOURCES = {
    "sys/class/thermal/thermal_zone0/temp": "temperature_celsius",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "cpufreq_hz",
    "firmware/measure_clock_arm": "arm_clock_hz",
    "firmware/get_throttled": "throttled_bits",
    "sys/class/hwmon/hwmon3/in0_lcrit_alarm": "undervoltage",
    "sys/class/hwmon/hwmon2/fan1_input": "fan_rpm",
    "proc/meminfo": "memory_available_bytes",
    "proc/vmstat": "swapped_in_pages",
}


@pytest.mark.parametrize("garbage", [None, "", "-\n", "<unknown>\n", "1 2\n", "9" * 5000, "\xff\x00\xfe", "0x\n"])
@pytest.mark.parametrize(("path", "name"), SOURCES.items())
def test_sensor_file_that_fails_in_the_middle_is_null_and_the_others_go_on(tmp_path, path, name, garbage):
    root = build(tmp_path, raspberry_pi_5.FILES)
    machine = Sensors(root)
    before = machine.sample()
    assert before[name] is not None

    if garbage is None:
        (root / path).unlink()
    else:
        (root / path).write_text(garbage)
    after = machine.sample()

    assert {key for key in SENSORS if after[key] != before[key]} == {name}
    assert after[name] is None
    assert machine.sources()[name]["reason"]
    assert machine.sources()[name]["source"] is None
    build(root, raspberry_pi_5.FILES)
    assert machine.sample()[name] == before[name], "it is read again when it is back"


def test_sensor_file_that_cannot_be_read_is_null_with_the_reason(tmp_path):
    root = build(tmp_path, raspberry_pi_5.FILES)
    temperature = root / "sys/class/thermal/thermal_zone0/temp"
    temperature.unlink()
    temperature.mkdir()
    machine = Sensors(root)

    assert machine.sample()["temperature_celsius"] is None
    told = machine.sources()["temperature_celsius"]
    assert told["reason"] == "/sys/class/thermal/thermal_zone0/temp: Is a directory"


def test_one_of_several_files_missing_makes_their_sum_null(tmp_path):
    root = build(tmp_path, rk3588.FILES)
    machine = Sensors(root)
    (root / "sys/class/thermal/cooling_device1/cur_state").unlink()

    assert machine.sample()["cooling_state"] is None
    assert machine.sources()["cooling_state"]["reason"].startswith("/sys/class/thermal/cooling_device1/cur_state")


def test_empty_machine_has_nothing_and_says_so(tmp_path):
    machine = Sensors(tmp_path)

    assert all(value is None for name, value in machine.sample().items() if name in SENSORS)
    assert set(machine.sources()) == SENSORS
    assert all(told["source"] is None and told["reason"] for told in machine.sources().values())
    assert machine.busy_ns() is None
    assert machine.process_cpu_ns() == {}


@pytest.mark.parametrize("path", sorted({*raspberry_pi_5.FILES, *rk3588.FILES}))
def test_machine_with_any_damaged_file_can_be_located_and_read(tmp_path, path):
    for files in (raspberry_pi_5.FILES, rk3588.FILES):
        machine = Sensors(build(tmp_path, {**files, path: "\xff?\n\n-"}))
        machine.sample()
        machine.sources()
        machine.busy_ns()
        machine.process_cpu_ns()


# --- sources ---


def test_sources_name_the_file_or_the_reason(tmp_path):
    told = Sensors(build(tmp_path, raspberry_pi_5.FILES)).sources()

    assert set(told) == SENSORS
    assert told["fan_rpm"]["source"] == "/sys/class/hwmon/hwmon2/fan1_input"
    assert told["throttled_bits"] == {"source": "/firmware", "reason": None, "remedy": None}
    assert told["throttle_count"] == {"source": None, "reason": "This machine has none", "remedy": None}


def test_sources_count_further_files(tmp_path):
    told = Sensors(build(tmp_path, rk3588.FILES)).sources()

    assert told["cooling_state"]["source"] == "/sys/class/thermal/cooling_device0/cur_state and 2 more"
    assert told["throttled_bits"]["reason"] == "Only the firmware of a Raspberry Pi tells it"
    assert told["throttled_bits"]["remedy"] is None


def test_undervoltage_of_a_raspberry_pi_without_driver_has_a_remedy(tmp_path):
    files = {name: text for name, text in raspberry_pi_5.FILES.items() if "hwmon3" not in name}

    told = Sensors(build(tmp_path, files)).sources()["undervoltage"]
    assert told["remedy"] == "sudo modprobe raspberrypi-hwmon"


# --- the firmware ---


class FakeFirmware:
    """Takes the place of fcntl.ioctl: reads a message of the property interface and answers as the firmware does."""

    SIZE = 7 * 4 + 1024

    def __init__(self, code: int = 0x80000000, error: int = 0) -> None:
        self.code, self.error = code, error
        self.asked: list[tuple[str, str]] = []

    def __call__(self, descriptor: int, request: int, message: bytearray, mutate: bool) -> int:
        assert mutate
        assert request == 0xC0006400 | struct.calcsize("P") << 16
        assert len(message) == self.SIZE
        header = struct.unpack_from("=6I", message)
        assert header == (self.SIZE, 0, 0x00030080, 1024, 0, 0)
        assert message[-4:] == bytes(4), "the end tag"
        command = bytes(message[24:-4]).partition(b"\0")[0].decode()
        self.asked.append((os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")), command))
        answer = {"get_throttled": b"throttled=0x50005", "measure_clock arm": b"frequency(48)=600169920"}[command]
        message[:] = struct.pack("=6I1024sI", self.SIZE, self.code, 0x00030080, 1024, 0, self.error, answer, 0)
        return 0


@pytest.fixture
def firmware(monkeypatch):
    fake = FakeFirmware()
    monkeypatch.setattr(sensors.fcntl, "ioctl", fake)
    return fake


def raspberry_pi_with(tmp_path: Path, *devices: str) -> Path:
    files = {**without_firmware(raspberry_pi_5.FILES), **dict.fromkeys(devices, "")}
    return build(tmp_path, files)


def test_firmware_is_asked_through_the_device_that_users_may_open(tmp_path, firmware):
    machine = Sensors(raspberry_pi_with(tmp_path, "dev/vcio_gencmd", "dev/vcio"))
    firmware.asked.clear()

    assert machine.sample()["throttled_bits"] == 0x50005
    assert machine.sample()["arm_clock_hz"] == 600_169_920
    assert set(firmware.asked) == {("vcio_gencmd", "get_throttled"), ("vcio_gencmd", "measure_clock arm")}
    assert machine.can_see_throttling
    assert machine.sources()["arm_clock_hz"]["source"] == "/dev/vcio_gencmd"


def test_firmware_is_asked_through_vcio_by_older_kernels(tmp_path, firmware):
    assert Sensors(raspberry_pi_with(tmp_path, "dev/vcio")).sample()["throttled_bits"] == 0x50005
    assert {device for device, _ in firmware.asked} == {"vcio"}


@pytest.mark.parametrize("fake", [FakeFirmware(code=0x80000001), FakeFirmware(code=0), FakeFirmware(error=1)])
def test_answer_that_the_firmware_calls_an_error_is_none(tmp_path, monkeypatch, fake):
    monkeypatch.setattr(sensors.fcntl, "ioctl", fake)
    machine = Sensors(raspberry_pi_with(tmp_path, "dev/vcio"))

    assert machine.sample()["throttled_bits"] is None
    assert not machine.can_see_throttling
    assert machine.sources()["throttled_bits"]["reason"] == "/dev/vcio: the firmware refused get_throttled"


def test_firmware_that_stops_answering_is_null(tmp_path, firmware, monkeypatch):
    machine = Sensors(raspberry_pi_with(tmp_path, "dev/vcio"))

    def fail(*arguments):
        raise OSError(110, "Connection timed out")

    monkeypatch.setattr(sensors.fcntl, "ioctl", fail)
    assert machine.sample()["arm_clock_hz"] is None
    assert machine.sources()["arm_clock_hz"]["reason"] == "/dev/vcio gave no number"


def test_program_is_asked_where_no_device_is(tmp_path):
    root = raspberry_pi_with(tmp_path)
    script(root, 'case "$*" in "measure_clock arm") echo "frequency(48)=700000000";; *) echo throttled=0x4;; esac')
    machine = Sensors(root)

    assert machine.sample()["arm_clock_hz"] == 700_000_000
    assert machine.sample()["throttled_bits"] == 4
    assert machine.sources()["arm_clock_hz"]["source"] == "/usr/bin/vcgencmd"


def test_program_that_fails_is_told_with_its_status(tmp_path):
    root = raspberry_pi_with(tmp_path)
    script(root, "echo VCHI initialization failed; exit 255")

    assert Sensors(root).sources()["throttled_bits"]["reason"] == "/usr/bin/vcgencmd: exit status 255"


def test_program_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(sensors, "_GENCMD_SECONDS", 0.05)
    root = raspberry_pi_with(tmp_path)
    script(root, "echo $$ >>$0.pid; exec tail -f /dev/null")

    assert Sensors(root).sample()["throttled_bits"] is None
    for pid in (root / "usr/bin/vcgencmd.pid").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def script(root: Path, lines: str) -> None:
    path = root / "usr/bin/vcgencmd"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


@pytest.fixture
def deny(monkeypatch):
    """Makes devices that may not be opened, which root could in any case."""
    open_file = os.open

    def refuse(path, *arguments):
        if "/dev/vcio" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return open_file(path, *arguments)

    monkeypatch.setattr(os, "open", refuse)


@pytest.fixture
def device_of(monkeypatch):
    """Makes /dev/vcio_gencmd belong to a group, with a mode, and this process to a user named ada."""

    def own(gid: int, mode: int) -> None:
        real, found = Path.stat, os.stat_result((0o20000 | mode, 0, 0, 1, 0, gid, 0, 0, 0, 0))
        monkeypatch.setattr(
            Path, "stat", lambda path, **how: found if path.name == "vcio_gencmd" else real(path, **how)
        )
        monkeypatch.setattr(sensors.grp, "getgrgid", lambda gid: SimpleNamespace(gr_name={0: "root", 44: "video"}[gid]))
        monkeypatch.setattr(sensors.pwd, "getpwuid", lambda uid: SimpleNamespace(pw_name="ada"))

    return own


def test_denied_device_of_a_group_asks_to_join_it(tmp_path, deny, device_of):
    device_of(44, 0o660)
    told = Sensors(raspberry_pi_with(tmp_path, "dev/vcio_gencmd")).sources()["throttled_bits"]

    assert told["reason"] == "/dev/vcio_gencmd: Permission denied"
    assert told["remedy"] == "sudo usermod -aG video ada; log in again"


@pytest.mark.parametrize(("gid", "mode"), [(0, 0o600), (0, 0o660), (44, 0o600)])
def test_denied_device_that_no_group_may_open_asks_for_a_udev_rule(tmp_path, deny, device_of, gid, mode):
    device_of(gid, mode)
    machine = Sensors(raspberry_pi_with(tmp_path, "dev/vcio_gencmd"))

    told = machine.sources()["throttled_bits"]
    assert 'KERNEL=="vcio*", GROUP="video", MODE="0660"' in told["remedy"]
    assert told["remedy"].endswith("sudo usermod -aG video ada; log in again")
    assert not machine.can_see_throttling


def test_raspberry_pi_with_another_kernel_is_told_so(tmp_path):
    told = Sensors(raspberry_pi_with(tmp_path)).sources()["throttled_bits"]

    assert told["reason"] == "There is no /dev/vcio_gencmd, /dev/vcio or vcgencmd"
    assert "Raspberry Pi OS" in told["remedy"]


def test_throttling_is_described_by_its_present_bits():
    assert describe_throttling(0x50005) == ("undervoltage", "throttled")
    assert describe_throttling(0x8) == ("throttled (soft temperature limit)",)
    assert describe_throttling(0xF0000) == ()


# --- CPU time ---


def test_busy_time_counts_what_was_stolen_and_not_idle_or_waiting(tmp_path):
    machine = Sensors(tmp_path)
    build(tmp_path, {"proc/stat": "cpu  10 2 30 1000 500 4 5 6 7 8\ncpu0 1 1 1 1 1 1 1 1 1 1\n"})

    assert machine.busy_ns() == (10 + 2 + 30 + 4 + 5 + 6) * 10**9 // os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu 1 2 3\n", "cpu a b c d e f g h\n"])
def test_damaged_stat_has_no_busy_time(tmp_path, text):
    build(tmp_path, {"proc/stat": text})

    assert Sensors(tmp_path).busy_ns() is None


def test_processes_have_names_with_any_characters_and_their_time(tmp_path):
    root = build(tmp_path, raspberry_pi_4.FILES)
    build(root, {**process(900, "a) R 1 (b", 60), "proc/901/stat": "901 (gone", "proc/self/stat": "x"})
    build(root, process(os.getpid(), "python3", 99))
    tick = 10**9 // os.sysconf("SC_CLK_TCK")

    assert Sensors(root).process_cpu_ns() == {
        1: ("systemd", 910 * tick),
        412: ("(sd-pam) x", 3 * tick),
        733: ("chromium-browse", 5120 * tick),
        900: ("a) R 1 (b", 60 * tick),
    }


def test_own_process_is_found_on_this_machine():
    found = Sensors().process_cpu_ns()

    assert os.getppid() in found
    assert os.getpid() not in found
    assert Sensors().busy_ns() > 0


# --- as a program, and the fake ---


def test_source_runs_alone_over_stdin():
    command = [sys.executable, "-I", "-S", "-B", "-c", programs.SENSORS.loader]
    ended = subprocess.run(command, input=programs.SENSORS.packed, capture_output=True, check=True)

    mark, _, text = ended.stdout.partition(b"{")
    assert mark == EVENT_MARK
    answer = json.loads(b"{" + text)
    assert set(answer) == {"event", "sample", "sources", "can_see_throttling"}
    assert answer["event"] == "done"
    assert answer["sample"]["memory_available_bytes"] > 0


def test_policies_are_ordered_by_number(tmp_path):
    root = build(tmp_path, {**policy(range(10, 12), 1, 1, "x"), **policy(range(2, 4), 2, 2, "x")})

    assert Sensors(root).sources()["cpufreq_hz"]["source"].startswith("/sys/devices/system/cpu/cpufreq/policy2/")


def test_fake_shares_the_protocol_of_the_real_sensors(tmp_path):
    real, fake = Sensors(build(tmp_path, raspberry_pi_5.FILES)), FakeSensors()
    public = {name for name in dir(real) if not name.startswith("_")}

    assert public <= set(dir(fake))
    for name in public:
        if callable(getattr(real, name)):
            assert inspect.signature(getattr(real, name)).parameters.keys() == (
                inspect.signature(getattr(fake, name)).parameters.keys()
            )
    assert set(real.sample()) == set(fake.sample())
    assert set(real.sources()) == set(fake.sources())
