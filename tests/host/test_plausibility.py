from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import make_block, make_job, make_sample

from liteship.report.plausibility import Run, find_core, judge_plausibility, measured_clock_hz
from liteship_agent.report import UNSTABLE, VALID

PI_5 = {
    "cpu_types": [
        {"cpus": [0, 1, 2, 3], "name": "Cortex-A76", "implementer": 0x41, "part": 0xD0B, "max_hz": 2_400_000_000}
    ],
    "cpu_flags": ["fp", "asimd"],
    "governor": "ondemand",
}
# 8 multiply-adds x 2.4 GHz x 1 core x 10 ms: exactly at the peak.
PEAK = Run(
    multiply_adds=192_000_000,
    median_ns=10e6,
    threads=1,
    cpus=(0, 1, 2, 3),
    cores_used=1.0,
    delegated_nodes=64,
    validity=VALID,
    clock_hz=2.4e9,
    runtime="ai-edge-litert",
    integer=False,
    emulated=False,
)
SLOW = replace(PEAK, median_ns=200e6)


def reasons(environment=PI_5, **changes):
    return judge_plausibility(replace(SLOW, **changes), environment).reasons


def test_the_ratio_is_of_the_peak_of_one_core():
    found = judge_plausibility(PEAK, PI_5)

    assert found.peak_ratio == pytest.approx(1.0)
    assert (found.core, found.clock_hz, found.reasons, found.low) == ("a Cortex-A76", 2.4e9, (), False)


@pytest.mark.parametrize(("threads", "cpus", "cores"), [(4, (0, 1, 2, 3), 4), (4, (0, 1), 2), (2, (0, 1, 2, 3), 2)])
def test_only_the_cores_that_can_be_used_count(threads, cpus, cores):
    found = judge_plausibility(replace(PEAK, threads=threads, cpus=cpus), PI_5)

    assert found.peak_ratio == pytest.approx(1 / cores)


def test_the_measured_clock_is_preferred_to_the_highest():
    assert judge_plausibility(replace(PEAK, clock_hz=1.2e9), PI_5).peak_ratio == pytest.approx(2.0)
    assert judge_plausibility(replace(PEAK, clock_hz=None), PI_5).clock_hz == 2.4e9


@pytest.mark.parametrize(
    ("part", "name", "multiply_adds"),
    [
        (0xD03, "a Cortex-A53", 4),
        (0xD05, "a Cortex-A55", 4),
        (0xD08, "a Cortex-A72", 4),
        (0xD09, "a Cortex-A73", 4),
        (0xD0B, "a Cortex-A76", 8),
        (0xD41, "a Cortex-A78", 8),
        (0xD0C, "a Neoverse N1", 8),
        (0xD44, "a Cortex-X1", 16),
    ],
)
def test_arm_cores_are_known_by_their_part(part, name, multiply_adds):
    core = find_core((5,), {"cpu_types": [{"cpus": [5], "implementer": 0x41, "part": part, "max_hz": None}]})

    assert core is not None
    assert (core.name, core.multiply_adds_per_cycle) == (name, multiply_adds)


def test_of_two_kinds_of_core_the_one_that_ran_it_counts():
    kinds = [
        {"cpus": [4, 5], "implementer": 0x41, "part": 0xD0B, "max_hz": 2_400_000_000},
        {"cpus": [0, 1, 2, 3], "implementer": 0x41, "part": 0xD05, "max_hz": 1_800_000_000},
    ]
    core = find_core((0, 1), {"cpu_types": kinds})

    assert core is not None
    assert (core.name, core.max_hz) == ("a Cortex-A55", 1_800_000_000)


@pytest.mark.parametrize(
    ("flags", "multiply_adds"), [(["avx2", "fma", "avx512f"], 32), (["avx2", "fma"], 16), (["avx2"], None)]
)
def test_x86_cores_are_known_by_their_vector_units(flags, multiply_adds):
    core = find_core((0,), {"cpu_flags": flags})

    assert (core and core.multiply_adds_per_cycle) == multiply_adds


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"cpu_types": None, "cpu_flags": None},
        {"cpu_types": [{"cpus": [0], "implementer": 0x41, "part": 0xFFF, "max_hz": None}]},
        {"cpu_types": [{"cpus": [0], "implementer": 0x51, "part": 0xD0B, "max_hz": None}]},
        {"cpu_types": [{"cpus": [0], "implementer": None, "part": None, "max_hz": None}]},
    ],
)
def test_an_unknown_core_has_no_ratio_and_says_so(environment):
    found = judge_plausibility(SLOW, environment)

    assert (found.peak_ratio, found.low) == (None, False)
    assert found.reasons == ("multiply-adds per cycle of this core are not known",)


def test_the_clock_of_cpuinfo_is_the_last_resort():
    environment = {"cpu_flags": ["avx2", "fma"], "cpu_mhz": 2100.5}
    run = replace(SLOW, clock_hz=None)

    assert judge_plausibility(run, environment).clock_hz == 2.1005e9
    assert judge_plausibility(run, {"cpu_flags": ["avx512f"]}).reasons == ("its clock is not known",)


def test_above_a_tenth_nothing_is_explained():
    assert judge_plausibility(replace(PEAK, median_ns=99e6, delegated_nodes=0), PI_5).reasons == ()


def test_below_a_tenth_without_a_cause_it_says_that():
    assert judge_plausibility(SLOW, PI_5).low
    assert reasons() == ("nothing that is known here explains it",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"emulated": True}, "the machine is emulated"),
        ({"clock_hz": 0.6e9, "median_ns": 1e9}, "its clock was 600 of 2400 MHz (governor ondemand)"),
        ({"threads": 4, "cores_used": 1.04}, "4 threads are set and 1.0 cores were used"),
        ({"delegated_nodes": 0}, "no node is delegated to XNNPACK"),
        ({"delegated_nodes": None}, "the runtime does not tell whether XNNPACK runs it"),
        ({"integer": True, "runtime": "tflite-runtime"}, "tflite-runtime has no fast kernels for integers"),
        ({"validity": UNSTABLE}, "it was disturbed while it was timed"),
        (
            {"multiply_adds": 1_000_000},
            "it is so small that starting its operators takes longer than their arithmetic",
        ),
    ],
)
def test_each_cause_is_named(changes, reason):
    assert reasons(**changes) == (reason,)


def test_several_causes_are_all_named():
    assert len(reasons(delegated_nodes=0, threads=4, cores_used=1.0)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 4, "cpus": (2,), "cores_used": 1.0},
        {"threads": 4, "cores_used": 3.1, "median_ns": 1e9},
        {"integer": True},
    ],
)
def test_what_is_no_cause_is_not_named(changes):
    assert reasons(**changes) == ("nothing that is known here explains it",)


def test_a_clock_near_the_highest_is_no_cause():
    assert reasons(clock_hz=2.35e9) == ("nothing that is known here explains it",)


def block_with(*samples):
    return make_block(make_job("none-none"), 0, 0, [10, 10], timed_from_ns=100, timed_to_ns=200, samples=samples)


def test_the_clock_is_the_median_of_the_samples_in_the_timed_part():
    samples = [make_sample(at, arm_clock_hz=hz, cpufreq_hz=9) for at, hz in ((99, 1), (100, 20), (150, 40), (200, 30))]

    assert measured_clock_hz([block_with(*samples), block_with()]) == 30


def test_without_the_firmware_the_kernel_tells_the_clock():
    samples = [make_sample(150, arm_clock_hz=None, cpufreq_hz=hz) for hz in (10, None, 20)]

    assert measured_clock_hz([block_with(*samples)]) == 15
    assert measured_clock_hz([block_with(make_sample(150, arm_clock_hz=None, cpufreq_hz=None))]) is None
