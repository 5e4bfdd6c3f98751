"""The figures of each case, computed once when a report arrives and stored in it.

Of a block that was repeated the last attempt counts. From the counting blocks come median and 90th percentile with
their intervals, the early-stopping bound, and the ratio to the first case by rounds that timed both. Reading a report
needs none of this: its verbs read `report.summaries`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from liteship.intervals import block_intervals
from liteship.stats import P90_MIN_QUERIES, early_stopping_p90, median, p90, paired_ratio
from liteship_agent.report import REPEATED, UNKNOWN, UNSTABLE, VALID, VOID, Block, Report, Summary

Interval = tuple[float | None, float | None]

_LEAST_BLOCKS = 3
_NO_INTERVAL: Interval = (None, None)


def summarize(report: Report) -> tuple[Summary, ...]:
    """One summary for each case that has at least one block, in the order of the job's cases."""
    baseline = counting_blocks(report, 0)
    indices = sorted({block.case_index for block in report.blocks})
    return tuple(_summary(report, index, baseline) for index in indices)


def counting_blocks(report: Report, case_index: int) -> dict[int, Block]:
    """The last attempt at each block of a case, by round in ascending order."""
    blocks = (block for block in report.blocks if block.case_index == case_index)
    return {block.round_index: block for block in sorted(blocks, key=lambda block: (block.round_index, block.attempt))}


def _summary(report: Report, case_index: int, baseline: Mapping[int, Block]) -> Summary:
    measured = [block for block in report.blocks if block.case_index == case_index]
    counting = counting_blocks(report, case_index)
    blocks = list(counting.values())
    latencies = sorted(latency for block in blocks for latency in block.latencies_ns)
    end_to_end = sorted(latency for block in blocks for latency in block.end_to_end_ns)
    of_median, of_p90 = _intervals(blocks)
    ratio, ratio_low, ratio_high = (1.0, 1.0, 1.0) if case_index == 0 else ratio_to(baseline, counting)
    return Summary(
        case_index=case_index,
        validity=case_validity(blocks, len(measured)),
        reasons=tuple(dict.fromkeys(reason for block in measured for reason in block.reasons)),
        blocks=len(blocks),
        repeated=len(measured) - len(blocks),
        void=sum(block.validity == VOID for block in blocks),
        queries=len(latencies),
        median_ns=median(latencies),
        median_low_ns=of_median[0],
        median_high_ns=of_median[1],
        p90_ns=p90(latencies),
        p90_low_ns=of_p90[0] if len(latencies) >= P90_MIN_QUERIES else None,
        p90_high_ns=of_p90[1] if len(latencies) >= P90_MIN_QUERIES else None,
        p90_bound_ns=early_stopping_p90(latencies),
        end_to_end_median_ns=median(end_to_end) if end_to_end else None,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
    )


def _intervals(blocks: Sequence[Block]) -> tuple[Interval, Interval]:
    """Of median and 90th percentile; of two blocks it would span decades."""
    if len(blocks) < _LEAST_BLOCKS:
        return _NO_INTERVAL, _NO_INTERVAL
    of_median, of_p90 = block_intervals([block.latencies_ns for block in blocks])
    return of_median, of_p90


def case_validity(counting: Sequence[Block], measured: int) -> str:
    """The worst that is true of a case; a repetition does not make known what cannot be read."""
    found = {block.validity for block in counting}
    if VOID in found:
        return UNSTABLE
    if UNKNOWN in found:
        return UNKNOWN
    return REPEATED if measured > len(counting) else VALID


def ratio_to(
    baseline: Mapping[int, Block], blocks: Mapping[int, Block]
) -> tuple[float | None, float | None, float | None]:
    """From the rounds that timed both undisturbed; a figure without an interval where there are none of these."""
    common = sorted(blocks.keys() & baseline.keys())
    if not common:
        return None, None, None
    undisturbed = [index for index in common if VOID not in (blocks[index].validity, baseline[index].validity)]
    rounds = undisturbed or common
    ratio, low, high = paired_ratio(
        [median(blocks[index].latencies_ns) for index in rounds],
        [median(baseline[index].latencies_ns) for index in rounds],
    )
    return (ratio, low, high) if undisturbed else (ratio, None, None)
