from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import make_block, make_job, make_manifest, make_report

from liteship.intervals import block_intervals
from liteship.report.summary import counting_blocks, summarize
from liteship.stats import early_stopping_p90, median, paired_ratio, percentile
from liteship_agent.report import REPEATED, UNKNOWN, UNSTABLE, VALID, VOID

MANIFEST = make_manifest()
JOB = make_job("none-none", "none-int8", "magnitude50-none")


def block(case_index, round_index, pace_ns=1_000_000, count=13, **changes):
    """Of unequal latencies that are slower in later rounds."""
    latencies = [pace_ns + 1_000 * round_index + 7_919 * index % 90_000 for index in range(count)]
    return make_block(JOB, case_index, round_index, latencies, **changes)


def rounds_of(case_index, pace_ns=1_000_000, count=6, **changes):
    return tuple(block(case_index, index, pace_ns + 3_000 * (index % 3), **changes) for index in range(count))


def report_of(*blocks):
    return make_report(MANIFEST, job=JOB, blocks=blocks, summaries=())


def summary_of(case_index, *blocks):
    return {found.case_index: found for found in summarize(report_of(*blocks))}[case_index]


def test_the_figures_are_those_of_the_statistics():
    baseline, blocks = rounds_of(0), rounds_of(1, 600_000)
    found = summary_of(1, *baseline, *blocks)
    latencies = [latency for block in blocks for latency in block.latencies_ns]
    of_median, of_p90 = block_intervals([block.latencies_ns for block in blocks])
    by_round = paired_ratio(
        [median(block.latencies_ns) for block in blocks], [median(block.latencies_ns) for block in baseline]
    )

    assert (found.blocks, found.queries, found.repeated, found.void) == (6, 78, 0, 0)
    assert (found.median_ns, found.median_low_ns, found.median_high_ns) == (median(latencies), *of_median)
    assert (found.p90_ns, found.p90_low_ns, found.p90_high_ns) == (percentile(latencies, 0.9), *of_p90)
    assert found.p90_bound_ns == early_stopping_p90(latencies)
    assert found.end_to_end_median_ns == median(latencies) + 1_000_000
    assert (found.ratio, found.ratio_low, found.ratio_high) == by_round
    assert (found.validity, found.reasons) == (VALID, ())


def test_the_ratio_of_the_first_case_to_itself_is_exactly_one():
    found = summary_of(0, *rounds_of(0), *rounds_of(1))

    assert (found.ratio, found.ratio_low, found.ratio_high) == (1, 1, 1)


def test_a_case_without_a_block_has_no_summary():
    assert [found.case_index for found in summarize(report_of(*rounds_of(2), *rounds_of(0)))] == [0, 2]
    assert summarize(report_of()) == ()


def test_below_64_queries_there_is_nothing_of_the_90th_percentile():
    found = summary_of(0, *rounds_of(0, count=4))

    assert found.queries == 52
    assert (found.p90_ns, found.p90_low_ns, found.p90_high_ns, found.p90_bound_ns) == (None,) * 4
    assert found.median_low_ns < found.median_ns < found.median_high_ns


def test_a_single_block_has_figures_without_intervals():
    found = summary_of(1, block(0, 2, count=70), block(1, 2, 500_000, count=70))

    assert None not in (found.median_ns, found.p90_ns, found.p90_bound_ns, found.ratio)
    assert (found.median_low_ns, found.median_high_ns, found.p90_low_ns, found.p90_high_ns) == (None,) * 4
    assert (found.ratio_low, found.ratio_high) == (None, None)


def test_without_end_to_end_queries_there_is_no_figure_of_them():
    assert summary_of(0, *(replace(block, end_to_end_ns=()) for block in rounds_of(0))).end_to_end_median_ns is None


def test_of_a_repeated_block_the_last_attempt_counts_in_whatever_order_they_stand():
    hot = block(1, 1, 9_000_000, validity=VOID, reasons=("throttled",))
    warm = block(1, 1, 5_000_000, validity=VOID, reasons=("clock fell", "throttled"), attempt=1)
    good = block(1, 1, 600_000, attempt=2)
    rest = [block(1, index, 600_000) for index in (0, 2, 3, 4, 5)]
    undisturbed = summary_of(1, *rounds_of(0), *rest, replace(good, attempt=0))

    found = summary_of(1, *rounds_of(0), good, hot, *rest, warm)
    assert (found.validity, found.repeated, found.void, found.blocks) == (REPEATED, 2, 0, 6)
    assert found.reasons == ("throttled", "clock fell")
    assert replace(found, validity=VALID, repeated=0, reasons=()) == undisturbed


def test_a_block_that_stayed_void_makes_the_case_unstable_and_keeps_its_latencies():
    void = [block(1, 1, 900_000, validity=VOID, reasons=("throttled",), attempt=attempt) for attempt in (0, 1)]
    rest = [block(1, index, 600_000) for index in (0, 2, 3, 4, 5)]
    found = summary_of(1, *rounds_of(0), *void, *rest)

    assert (found.validity, found.void, found.repeated, found.queries) == (UNSTABLE, 1, 1, 78)


@pytest.mark.parametrize("void_case", [0, 1])
def test_rounds_in_which_either_block_stayed_void_are_not_in_the_ratio(void_case):
    blocks = [*rounds_of(0), *rounds_of(1, 600_000)]
    clean = summary_of(1, *(block for block in blocks if block.round_index != 3))
    spoiled = [
        replace(block, validity=VOID, latencies_ns=tuple(2 * latency for latency in block.latencies_ns))
        if (block.case_index, block.round_index) == (void_case, 3)
        else block
        for block in blocks
    ]
    found = summary_of(1, *spoiled)

    assert (found.ratio, found.ratio_low, found.ratio_high) == (clean.ratio, clean.ratio_low, clean.ratio_high)


@pytest.mark.parametrize("void_case", [0, 1])
def test_where_every_round_is_void_the_ratio_is_a_figure_without_an_interval(void_case):
    blocks = (*rounds_of(0), *rounds_of(1, 2_000_000))
    disturbed = [replace(block, validity=VOID) if block.case_index == void_case else block for block in blocks]

    found = summary_of(1, *disturbed)

    assert found.ratio == pytest.approx(2, rel=0.1)
    assert (found.ratio_low, found.ratio_high) == (None, None)


def test_two_blocks_have_figures_without_intervals():
    found = summary_of(0, *rounds_of(0, count=2))

    assert (found.median_low_ns, found.median_high_ns, found.p90_low_ns) == (None, None, None)


def test_the_ratio_takes_only_rounds_that_timed_both():
    found = summary_of(1, block(0, 0), block(0, 1), block(1, 1, 500_000), block(1, 2, 9_000_000))

    assert found.ratio == pytest.approx(0.5, abs=0.05)
    assert found.ratio_low is None


def test_without_a_common_round_there_is_no_ratio():
    found = summary_of(1, block(0, 0), block(1, 1))

    assert (found.ratio, found.ratio_low, found.ratio_high) == (None, None, None)


def test_what_cannot_be_known_stays_unknown_after_a_repetition():
    unknown = {"validity": UNKNOWN, "reasons": ("throttling cannot be read",)}
    void = block(1, 1, validity=VOID, reasons=("others took 0.4 cores", "throttling cannot be read"))
    blocks = [void, *(replace(block, attempt=int(block.round_index == 1)) for block in rounds_of(1, **unknown))]
    found = summary_of(1, *rounds_of(0), *blocks)

    assert (found.validity, found.repeated) == (UNKNOWN, 1)
    assert found.reasons == ("others took 0.4 cores", "throttling cannot be read")


def test_a_case_that_stays_void_is_unstable_even_where_throttling_is_unknown():
    blocks = [block(0, index, validity=VOID if index == 2 else UNKNOWN) for index in range(6)]

    assert summary_of(0, *blocks).validity == UNSTABLE


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.sampled_from((VALID, VOID, UNKNOWN))), min_size=1))
def test_every_block_counts_once_or_is_counted_as_repeated(places):
    attempts = {}
    blocks = []
    for case, index, validity in places:
        attempt = attempts[case, index] = attempts.get((case, index), -1) + 1
        blocks.append(block(case, index, count=3, validity=validity, attempt=attempt))
    found = summarize(report_of(*blocks))

    assert sum(summary.blocks + summary.repeated for summary in found) == len(blocks)
    assert sum(summary.blocks for summary in found) == len(attempts)
    for summary in found:
        counting = counting_blocks(report_of(*blocks), summary.case_index)
        assert all(block.attempt == attempts[summary.case_index, index] for index, block in counting.items())
        assert summary.void == sum(block.validity == VOID for block in counting.values())
