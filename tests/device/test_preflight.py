from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from fake_sensors import FakeClock, FakeSensors
from machines import build, proc_stat, process, raspberry_pi_4

from liteship_agent import preflight
from liteship_agent.job import Limits
from liteship_agent.preflight import check, cool, wait_until_fit
from liteship_agent.sensors import Sensors

LIMITS = Limits()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def no_cpu() -> int:
    return 0


def problems(clock: FakeClock, tmp_path: Any, own_cpu_ns: Any = no_cpu, limits: Limits = LIMITS, **readings: Any):
    return check(FakeSensors(clock, **readings), tmp_path, limits, own_cpu_ns, clock.pause)


def test_fit_machine_has_no_problem_and_is_watched_for_two_seconds(clock, tmp_path):
    started = clock.now_ns

    assert problems(clock, tmp_path, others_cores=0.2) == ()
    assert clock.now_ns - started == 2 * 10**9


def test_throttling_since_boot_is_no_problem(clock, tmp_path):
    assert problems(clock, tmp_path, throttled_bits=0xF0000) == ()


@pytest.mark.parametrize(
    ("readings", "text"),
    [
        ({"throttled_bits": 0x50001}, "the supply voltage is too low now"),
        ({"undervoltage": True}, "the supply voltage is too low now"),
        ({"throttled_bits": 0x6}, "clock capped and throttled now"),
        ({"throttled_bits": 0x8}, "throttled (soft temperature limit) now"),
        ({"cooling_state": 2}, "throttled by the kernel now"),
        ({"temperature_celsius": 70.4}, "the processor is too hot: 70.4 °C, more than 70"),
        ({"memory_available_bytes": 40 * 2**20}, "too little memory is free: 40 MiB, less than 48"),
    ],
)
def test_what_makes_a_machine_unfit_is_one_line(clock, tmp_path, readings, text):
    (found,) = problems(clock, tmp_path, **readings)

    assert found.startswith(text)


def test_full_disk_is_a_problem(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))

    assert problems(clock, tmp_path) == (f"too little disk space is free at {tmp_path}: 1 MiB, less than 64",)


def test_missing_sensors_are_no_problem(clock, tmp_path):
    assert problems(clock, tmp_path, temperature_celsius=None, throttled_bits=None, memory_available_bytes=None) == ()
    assert check(Sensors(tmp_path), tmp_path, LIMITS, no_cpu, clock.pause) == ()


def test_others_are_named_by_the_cpu_time_that_they_use(clock, tmp_path):
    busy = {"chromium": 0.9, "node": 0.2, "Xorg": 0.1, "cron": 0.06, "sshd": 0.01}

    assert problems(clock, tmp_path, others_cores=1.27, processes=busy) == (
        "other processes use 1.3 cores, more than 0.25: chromium 0.9, node 0.2, Xorg 0.1",
    )
    assert problems(clock, tmp_path, others_cores=0.3, processes={"sshd": 0.01}) == (
        "other processes use 0.3 cores, more than 0.25",
    )


def test_own_cpu_time_is_not_of_others(clock, tmp_path):
    def own_cpu_ns() -> int:
        return clock.now_ns  # one whole core

    assert problems(clock, tmp_path, own_cpu_ns, others_cores=1.2) == ()
    assert problems(clock, tmp_path, own_cpu_ns, others_cores=1.3) != ()


def test_others_are_seen_on_a_recorded_machine(tmp_path, monkeypatch):
    """Over files, as on a board: 160 ticks of 10 ms within two seconds, 100 of them of a process that is new."""
    root = build(tmp_path, raspberry_pi_4.FILES)
    machine, clock = Sensors(root), FakeClock()
    sample = machine.sample
    monkeypatch.setattr(machine, "sample", lambda: {**sample(), "at_ns": clock()})

    def pause(seconds: float) -> None:
        clock.pause(seconds)
        build(root, {"proc/stat": proc_stat(4, 40_160), **process(733, "chromium-browse", 5180)})
        build(root, process(900, "apt", 100))

    assert check(machine, tmp_path, LIMITS, no_cpu, pause) == (
        "other processes use 0.8 cores, more than 0.25: apt 0.5, chromium-browse 0.3",
    )


# --- waiting ---


def wait(clock: FakeClock, tmp_path: Any, patient: bool = True, **readings: Any) -> tuple[tuple[str, ...], list[str]]:
    said: list[str] = []
    machine = FakeSensors(clock, **readings)
    found = wait_until_fit(machine, tmp_path, LIMITS, no_cpu, clock.pause, said.append, patient=patient)
    return found, said


def test_fit_machine_is_not_waited_for(clock, tmp_path):
    assert wait(clock, tmp_path) == ((), [])
    assert clock.now_ns == 3 * 10**9


def test_heat_and_others_are_waited_for_until_they_are_over(clock, tmp_path):
    found, said = wait(
        clock,
        tmp_path,
        temperature_celsius=lambda seconds: 80 - seconds,
        others_cores=lambda seconds: 1.0 if seconds < 5 else 0.0,
    )

    assert found == ()
    assert said == [
        "waiting 28 s at most, because the processor is too hot: 78.0 °C, more than 70; "
        "other processes use 1.0 cores, more than 0.25",
        "waiting 24 s at most, because the processor is too hot: 74.0 °C, more than 70",
    ]
    assert clock.now_ns == 11 * 10**9


def test_what_remains_after_the_longest_wait_is_returned(clock, tmp_path):
    found, said = wait(clock, tmp_path, others_cores=2.0)

    assert found == ("other processes use 2.0 cores, more than 0.25",)
    assert len(said) == 1
    assert clock.now_ns == 31 * 10**9


@pytest.mark.parametrize("lasting", [{"throttled_bits": 1}, {"memory_available_bytes": 1}])
def test_what_does_not_pass_is_not_waited_for(clock, tmp_path, lasting):
    found, said = wait(clock, tmp_path, temperature_celsius=90.0, **lasting)

    assert len(found) == 2
    assert said == []
    assert clock.now_ns == 3 * 10**9


def test_throttling_of_a_hot_processor_is_waited_for(clock, tmp_path):
    found, said = wait(clock, tmp_path, throttled_bits=lambda seconds: 8 if seconds < 3 else 0)

    assert found == ()
    assert len(said) == 1


def test_impatient_look_is_a_single_one(clock, tmp_path):
    found, said = wait(clock, tmp_path, patient=False, others_cores=2.0)

    assert len(found) == 1
    assert said == []
    assert clock.now_ns == 3 * 10**9


# --- cooling ---


def test_cooling_ends_two_degrees_above_the_start(clock):
    machine = FakeSensors(clock, temperature_celsius=lambda seconds: 60 - seconds)

    assert cool(machine, 48.0, LIMITS, clock.pause) == 10.0


def test_cooling_waits_for_the_end_of_throttling(clock):
    machine = FakeSensors(clock, throttled_bits=lambda seconds: 0x50004 if seconds < 7 else 0x50000)

    assert cool(machine, 50.0, LIMITS, clock.pause) == 7.0


def test_cooling_takes_no_longer_than_allowed(clock):
    assert cool(FakeSensors(clock), 20.0, LIMITS, clock.pause) == 180.0
    assert cool(FakeSensors(clock), 20.0, replace(LIMITS, cooling_seconds=0.0), clock.pause) == 0.0


def test_cooling_needs_a_temperature(clock):
    assert cool(FakeSensors(clock, temperature_celsius=None), 20.0, LIMITS, clock.pause) == 0.0
    assert cool(FakeSensors(clock), None, LIMITS, clock.pause) == 0.0
    vanishing = FakeSensors(clock, temperature_celsius=lambda seconds: 60.0 if seconds < 3 else None)
    assert cool(vanishing, 20.0, LIMITS, clock.pause) == 3.0


def test_cooling_does_not_wait_for_others(clock):
    assert cool(FakeSensors(clock, others_cores=2.0), 50.0, LIMITS, clock.pause) == 0.0
