"""Was a block disturbed, and did a round's canary move: pure judgement of what was read and counted."""

from __future__ import annotations

import statistics
from typing import Dict, Iterator, Optional, Sequence, Tuple

from liteship_agent.job import Limits
from liteship_agent.report import UNKNOWN, VALID, VOID, Canary, Sample
from liteship_agent.sensors import SINCE_BOOT_SHIFT, THROTTLED_NOW, describe_throttling

_TICK_SECONDS = 0.01  # of /proc/stat
_LONGEST_GAP_SECONDS = 1.5  # sensors are read twice a second


def judge_block(
    samples: Sequence[Sample],
    *,
    timed_from_ns: int,
    timed_to_ns: int,
    others_cores: Optional[float],
    major_faults: int,
    swapped_in_pages: Optional[int],
    limits: Limits,
    can_see_throttling: bool,
    is_raspberry_pi: bool,
    cpu_count: int,
) -> Tuple[str, Tuple[str, ...]]:
    """Judge one block.

    Throttling and the supply are judged by all samples, before and after the timed part too: a bit that appeared
    between two of them may have been set for the timed part only. What came after the first sample behind it, in the
    accuracy pass, does not count. The clock is judged within the timed part, against
    its first sample there: a governor may be slow before and after. On a Raspberry Pi the kernel's clock does not
    count, because the firmware's throttling does not show in it.

    Args:
        samples: In order of time.
        timed_from_ns: As in `report.Block`.
        timed_to_ns: Likewise.
        others_cores: Likewise; each CPU of the machine may be counted one tick of 10 ms too many.
        major_faults: Likewise.
        swapped_in_pages: Likewise.
        limits: Of the job.
        can_see_throttling: As in `sensors.Sensors`.
        is_raspberry_pi: Likewise.
        cpu_count: CPUs of the machine.
    Returns:
        VALID, VOID or UNKNOWN, with short reasons for people.
    """
    ended = next((i for i, sample in enumerate(samples) if sample.at_ns > timed_to_ns), len(samples))
    samples = samples[: ended + 1]
    timed = [sample for sample in samples if timed_from_ns <= sample.at_ns <= timed_to_ns]
    seconds = max(timed_to_ns - timed_from_ns, 1) / 1e9
    reasons = [
        *_throttling(samples),
        *_clock_drop(timed, is_raspberry_pi, limits.clock_drop_ratio),
        *_disturbance(others_cores, limits.others_cores + cpu_count * _TICK_SECONDS / seconds),
        *_counted(major_faults, "major fault"),
        *_counted(swapped_in_pages or 0, "page", " swapped in"),
    ]
    if reasons:
        return VOID, tuple(dict.fromkeys(reasons))
    unseen = [
        *_unseen(samples, can_see_throttling, is_raspberry_pi),
        *_gap([timed_from_ns, *(sample.at_ns for sample in timed), timed_to_ns] if samples else []),
    ]
    if others_cores is None:
        unseen.append("the CPU time of others cannot be read")
    return (UNKNOWN, tuple(unseen)) if unseen else (VALID, ())


def void_rounds(canaries: Sequence[Canary], canary_ratio: float) -> Dict[int, str]:
    """Rounds whose canary stands apart from those of the other rounds.

    The last attempt of each round counts, and only canaries of the same case are compared. A round is void when its
    median latency differs from the median of all rounds by more than `canary_ratio` of the latter. That of an even
    number of rounds is the lower one of the two in the middle, never a value between them: of two rounds the slower
    one is void, because a machine is disturbed into being slow, not into being fast; their mean would lie so close to
    both that it hid twice the difference.

    Returns:
        Reason by round index, empty when all agree.
    """
    last: Dict[int, Canary] = {}
    for canary in canaries:
        if canary.round_index not in last or canary.attempt >= last[canary.round_index].attempt:
            last[canary.round_index] = canary
    reasons: Dict[int, str] = {}
    for case_index in {canary.case_index for canary in last.values()}:
        alike = [canary for canary in last.values() if canary.case_index == case_index]
        middle = statistics.median_low([canary.median_ns for canary in alike])
        for canary in alike:
            if abs(canary.median_ns - middle) > canary_ratio * middle:
                reasons[canary.round_index] = _moved(canary.median_ns / middle - 1)
    return dict(sorted(reasons.items()))


def _moved(ratio: float) -> str:
    return f"canary {abs(ratio):.0%} {'slower' if ratio > 0 else 'faster'} than that of the other rounds"


def _throttling(samples: Sequence[Sample]) -> Iterator[str]:
    known = [sample.throttled_bits for sample in samples if sample.throttled_bits is not None]
    appeared = 0
    for earlier, later in zip(known, known[1:]):
        appeared |= (later & ~earlier) >> SINCE_BOOT_SHIFT
    now = 0
    for bits in known:
        now |= bits
    yield from describe_throttling(now | appeared)
    if any(sample.undervoltage for sample in samples):
        yield THROTTLED_NOW[0]
    if any(sample.cooling_state for sample in samples):
        yield "throttled by the kernel"
    counts = [sample.throttle_count for sample in samples if sample.throttle_count is not None]
    if counts and max(counts) > counts[0]:
        yield "throttled by the processor"


def _clock_drop(timed: Sequence[Sample], is_raspberry_pi: bool, drop_ratio: float) -> Iterator[str]:
    readings = [sample.arm_clock_hz if is_raspberry_pi else sample.cpufreq_hz for sample in timed]
    clocks = [clock for clock in readings if clock is not None]
    if clocks and min(clocks) < clocks[0] * (1 - drop_ratio):
        yield f"clock fell from {clocks[0] / 1e6:.0f} to {min(clocks) / 1e6:.0f} MHz"


def _disturbance(others_cores: Optional[float], most: float) -> Iterator[str]:
    if others_cores is not None and others_cores > most:
        yield f"others took {others_cores:.1f} {'of a core' if others_cores < 1 else 'cores'}"


def _counted(count: int, noun: str, what: str = "") -> Iterator[str]:
    if count > 0:
        yield f"{count} {noun}{'' if count == 1 else 's'}{what}"


def _unseen(samples: Sequence[Sample], can_see_throttling: bool, is_raspberry_pi: bool) -> Iterator[str]:
    """Why throttling may have gone unseen. A sensor must have answered in every sample to count."""
    if not can_see_throttling:
        yield "throttling cannot be read on this machine"
        return
    if not samples:
        yield "no sensor was read in this block"
        return
    fields = ("throttled_bits",) if is_raspberry_pi else ("cooling_state", "throttle_count")
    unread = min(sum(getattr(sample, field) is None for sample in samples) for field in fields)
    if unread:
        yield f"throttling could not be read in {unread} of {len(samples)} samples"


def _gap(times_ns: Sequence[int]) -> Iterator[str]:
    """Where no sensor was read for long in the timed part."""
    longest = max((later - earlier for earlier, later in zip(times_ns, times_ns[1:])), default=0) / 1e9
    if longest > _LONGEST_GAP_SECONDS:
        yield f"sensors were not read for {longest:.1f} s"
