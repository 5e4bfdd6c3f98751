from __future__ import annotations

from dataclasses import replace

import pytest

from liteship_agent.job import Limits
from liteship_agent.report import UNKNOWN, VALID, VOID, Canary, Sample
from liteship_agent.validity import judge_block, void_rounds

SECOND = 10**9
LIMITS = Limits()


def pi_samples(**changes: object) -> list[Sample]:
    """A block of a Raspberry Pi, timed from 2 s to 5 s: one sample each half second from 0 s to 6 s."""
    return [
        replace(
            Sample(i * SECOND // 2, arm_clock_hz=1_500_000_000, cpufreq_hz=1_500_000_000, throttled_bits=0xF0000),
            undervoltage=False,
            **changes,
        )
        for i in range(13)
    ]


def board_samples(**changes: object) -> list[Sample]:
    """The same on another board, which has cooling devices."""
    return [
        replace(sample, arm_clock_hz=None, throttled_bits=None, undervoltage=None, cooling_state=0, **changes)
        for sample in pi_samples()
    ]


def judge(samples: list[Sample], **changes: object) -> tuple[str, tuple[str, ...]]:
    facts = {
        "timed_from_ns": 2 * SECOND,
        "timed_to_ns": 5 * SECOND,
        "others_cores": 0.1,
        "major_faults": 0,
        "swapped_in_pages": 0,
        "limits": LIMITS,
        "can_see_throttling": True,
        "is_raspberry_pi": samples == [] or samples[0].cooling_state is None,
        "cpu_count": 4,
    }
    return judge_block(samples, **{**facts, **changes})


def changed(samples: list[Sample], index: int, **changes: object) -> list[Sample]:
    return [*samples[:index], replace(samples[index], **changes), *samples[index + 1 :]]


@pytest.mark.parametrize("samples", [pi_samples(), board_samples(), board_samples(throttle_count=7)])
def test_undisturbed_block_is_valid_whatever_happened_since_boot(samples):
    assert judge(samples) == (VALID, ())


@pytest.mark.parametrize("index", [0, 5, 11])
@pytest.mark.parametrize(
    ("bits", "reason"),
    [
        (1, "undervoltage"),
        (2, "clock capped"),
        (4, "throttled"),
        (8, "throttled (soft temperature limit)"),
    ],
)
def test_bit_of_the_present_makes_a_block_void_in_any_sample(index, bits, reason):
    assert judge(changed(pi_samples(), index, throttled_bits=0xF0000 | bits)) == (VOID, (reason,))


@pytest.mark.parametrize("index", [1, 6, 11])
def test_since_boot_bit_that_appears_makes_a_block_void(index):
    samples = [replace(sample, throttled_bits=0x50000) for sample in pi_samples()]
    after = [replace(sample, throttled_bits=0xD0000) for sample in samples[index:]]

    assert judge(samples) == (VALID, ())
    assert judge([*samples[:index], *after]) == (VOID, ("throttled (soft temperature limit)",))


def test_supply_that_fails_makes_a_block_void_once():
    samples = changed(pi_samples(), 6, undervoltage=True, throttled_bits=0xF0001)

    assert judge(samples) == (VOID, ("undervoltage",))


def test_cooling_state_above_zero_makes_a_block_void():
    assert judge(changed(board_samples(), 7, cooling_state=1)) == (VOID, ("throttled by the kernel",))
    assert judge([replace(sample, cooling_state=2) for sample in board_samples()])[0] == VOID


def test_throttle_count_counts_only_where_it_rises():
    samples = board_samples(throttle_count=41)

    assert judge(changed(samples, 11, throttle_count=42)) == (VOID, ("throttled by the processor",))


def test_clock_that_falls_within_the_timed_part_makes_a_block_void():
    assert judge(changed(pi_samples(), 8, arm_clock_hz=1_000_000_000)) == (VOID, ("clock fell from 1500 to 1000 MHz",))


@pytest.mark.parametrize("index", [0, 3, 11, 12])
def test_clock_outside_the_timed_part_does_not_matter(index):
    assert judge(changed(pi_samples(), index, arm_clock_hz=600_000_000))[0] == VALID


def test_clock_that_rises_or_wavers_within_the_limit_is_valid():
    assert judge(changed(pi_samples(), 4, arm_clock_hz=1_400_000_000))[0] == VALID
    assert judge(changed(pi_samples(), 9, arm_clock_hz=1_471_000_000))[0] == VALID
    assert judge(changed(pi_samples(), 9, arm_clock_hz=1_469_000_000))[0] == VOID


def test_kernels_clock_counts_only_where_it_is_the_true_one():
    assert judge(changed(pi_samples(), 8, cpufreq_hz=600_000_000))[0] == VALID
    without_firmware = [replace(sample, arm_clock_hz=None) for sample in pi_samples()]
    assert judge(changed(without_firmware, 8, cpufreq_hz=600_000_000))[0] == VALID
    assert judge(changed(board_samples(), 8, cpufreq_hz=1_008_000_000)) == (VOID, ("clock fell from 1500 to 1008 MHz",))


def test_clock_that_cannot_be_read_in_between_is_judged_by_the_rest():
    samples = changed(pi_samples(), 4, arm_clock_hz=None)

    assert judge(samples)[0] == VALID
    assert judge(changed(samples, 8, arm_clock_hz=1_000_000_000))[0] == VOID


def test_others_may_be_counted_a_tick_too_many_per_cpu():
    short = {"timed_from_ns": 2 * SECOND, "timed_to_ns": 2 * SECOND + SECOND // 10}

    assert judge(pi_samples(), others_cores=0.26)[0] == VALID
    assert judge(pi_samples(), others_cores=0.27) == (VOID, ("others took 0.3 of a core",))
    assert judge(pi_samples(), others_cores=0.64, **short)[0] == VALID
    assert judge(pi_samples(), others_cores=1.64, **short) == (VOID, ("others took 1.6 cores",))
    assert judge(pi_samples(), others_cores=None) == (UNKNOWN, ("the CPU time of others cannot be read",))


def test_block_without_duration_is_judged_too():
    assert judge(pi_samples(), timed_to_ns=2 * SECOND, others_cores=9.0)[0] == VALID


def test_memory_from_the_disk_makes_a_block_void_with_every_reason():
    found = judge(pi_samples(), major_faults=3, swapped_in_pages=1, others_cores=0.8)

    assert found == (VOID, ("others took 0.8 of a core", "3 major faults", "1 page swapped in"))
    assert judge(pi_samples(), major_faults=1) == (VOID, ("1 major fault",))
    assert judge(pi_samples(), swapped_in_pages=None)[0] == VALID


# --- throttling that cannot be seen ---


def test_machine_without_throttle_sensor_is_unknown():
    assert judge(board_samples(), can_see_throttling=False) == (
        UNKNOWN,
        ("throttling cannot be read on this machine",),
    )


def test_throttle_sensor_that_vanishes_makes_a_block_unknown():
    samples = changed(changed(pi_samples(), 8, throttled_bits=None), 9, throttled_bits=None)

    assert judge(samples) == (UNKNOWN, ("throttling could not be read in 2 of 12 samples",))
    assert judge(changed(board_samples(), 8, cooling_state=None))[0] == UNKNOWN
    assert judge(changed(board_samples(throttle_count=3), 8, cooling_state=None))[0] == VALID


def test_cooling_devices_of_a_raspberry_pi_do_not_count_as_seen():
    samples = [replace(sample, throttled_bits=None, cooling_state=0) for sample in pi_samples()]

    assert judge(samples, is_raspberry_pi=True)[0] == UNKNOWN


def test_what_comes_after_the_first_sample_behind_the_timed_part_does_not_count():
    assert judge(changed(pi_samples(), 12, throttled_bits=0xF0004)) == (VALID, ())


def test_block_whose_sensors_were_not_read_while_it_was_timed_is_unknown():
    samples = pi_samples()

    assert judge([*samples[:4], *samples[11:]]) == (UNKNOWN, ("sensors were not read for 3.0 s",))


def test_canaries_of_another_case_are_not_compared():
    others = [replace(canary, case_index=1) for canary in canaries(0, 0, 300, 310)[2:]]

    assert void_rounds([*canaries(100, 101), *others], 0.05) == {}


def test_block_without_samples_is_unknown():
    assert judge([]) == (UNKNOWN, ("no sensor was read in this block",))


def test_unknown_block_is_void_where_something_disturbed_it():
    assert judge([], can_see_throttling=False, major_faults=1) == (VOID, ("1 major fault",))


# --- rounds ---


def canaries(*medians: int, attempt: int = 0) -> list[Canary]:
    return [Canary(0, index, attempt, median, VALID) for index, median in enumerate(medians)]


def test_round_whose_canary_stands_apart_is_void():
    assert void_rounds(canaries(100, 101, 99, 112, 100), 0.05) == {3: "canary 12% slower than that of the other rounds"}
    assert void_rounds(canaries(100, 101, 90, 100), 0.05) == {2: "canary 10% faster than that of the other rounds"}


def test_rounds_within_the_ratio_are_valid():
    assert void_rounds(canaries(100, 105, 95, 100), 0.05) == {}
    assert void_rounds(canaries(100, 119, 100), 0.20) == {}


def test_last_attempt_of_a_round_counts():
    first = canaries(100, 150, 101)

    assert 1 in void_rounds(first, 0.05)
    assert void_rounds([*first, Canary(0, 1, 1, 102, VALID)], 0.05) == {}
    assert 1 in void_rounds([Canary(0, 1, 1, 150, VALID), Canary(0, 1, 0, 100, VALID), *canaries(100)], 0.05)


def test_slower_one_of_two_rounds_is_void():
    assert set(void_rounds(canaries(100, 106), 0.05)) == {1}
    assert set(void_rounds(canaries(106, 100), 0.05)) == {0}
    assert void_rounds(canaries(100, 105), 0.05) == {}


def test_single_round_and_no_round_are_valid():
    assert void_rounds(canaries(100), 0.05) == {}
    assert void_rounds([], 0.05) == {}
