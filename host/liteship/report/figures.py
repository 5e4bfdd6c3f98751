"""The figures of one case: latency from its stored summary, everything else from the blocks that count.

For each round the block with the highest attempt counts; the void ones before it do not. No latency is computed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from liteship.built_in import EMULATED
from liteship.report.comparison import NO_GAIN, Row
from liteship.report.plausibility import Run, judge_plausibility, measured_clock_hz
from liteship.report.summary import counting_blocks
from liteship.stats import is_tie, median
from liteship_agent.manifest import Manifest
from liteship_agent.report import UNSTABLE, VOID, Block, Report, Summary

Value = TypeVar("Value")

# Less does not show in "1.0x".
_SMALLEST_GAIN = 1.05
_INTEGER_QUANTIZATIONS = ("dynamic", "int8", "qat", "pqat")


def add_figures(row: Row, manifest: Manifest, report: Report, case_index: int) -> Row:
    """A row with all that was measured of its case but accuracy.

    Args:
        row: With the description of the file.
        manifest: Of the study.
        report: On it; checked by `checks.check_report`.
        case_index: Into the job's cases.
    """
    case = report.job.cases[case_index]
    runtime, _, version = report.job.runtimes[case.runtime].partition("==")
    row = replace(
        row,
        runtime=runtime,
        runtime_version=version,
        threads=case.threads,
        cpus=case.cpus,
        forced=report.job.forced,
    )
    summary = _summary(report, case_index)
    if summary is None:
        return row
    by_round = counting_blocks(report, case_index)
    row = _add_process(_add_latency(row, summary), list(by_round.values()))
    medians = tuple(_round_median(by_round.get(index)) for index in range(report.job.tier.rounds))
    row = _add_gains(replace(row, round_medians_ns=medians), summary, by_round, report)
    row = replace(row, sparse_speedup_ratio=_sparse_speedup(manifest, report, summary))
    if report.target == EMULATED:
        row = _without_speed_up(row)
    return _add_plausibility(row, manifest, report, list(by_round.values()))


def gain(ratios: Iterable[float]) -> float | None:
    """How many times smaller: `NO_GAIN` unless every ratio says so, None without any."""
    found = list(ratios)
    if not found:
        return None
    times = 1 / median(found)
    return times if max(found) < 1 and times >= _SMALLEST_GAIN else NO_GAIN


def ratios(pairs: Iterable[tuple[float | None, float | None]]) -> list[float]:
    """Quotients; a figure that is missing or 0 has none."""
    return [one / other for one, other in pairs if one and other]


def _summary(report: Report, case_index: int) -> Summary | None:
    return next((summary for summary in report.summaries if summary.case_index == case_index), None)


def _round_median(block: Block | None) -> float | None:
    return None if block is None or block.validity == VOID else median(block.latencies_ns)


def _add_latency(row: Row, summary: Summary) -> Row:
    is_baseline = summary.case_index == 0
    low, high = summary.ratio_low, summary.ratio_high
    return replace(
        row,
        validity=summary.validity,
        reasons=summary.reasons,
        blocks=summary.blocks,
        repeated=summary.repeated,
        void=summary.void,
        queries=summary.queries,
        median_ns=summary.median_ns,
        median_low_ns=summary.median_low_ns,
        median_high_ns=summary.median_high_ns,
        p90_ns=summary.p90_ns,
        p90_low_ns=summary.p90_low_ns,
        p90_high_ns=summary.p90_high_ns,
        p90_bound_ns=summary.p90_bound_ns,
        end_to_end_median_ns=summary.end_to_end_median_ns,
        ratio_to_baseline=summary.ratio,
        ratio_low=low,
        ratio_high=high,
        latency_tie=None if is_baseline or low is None or high is None else is_tie(low, high, 1.0),
    )


def _add_process(row: Row, blocks: Sequence[Block]) -> Row:
    """What the processes of the blocks took beside the invocations."""
    invoked_ns = sum(sum(block.latencies_ns) for block in blocks)
    loop_ns = sum(block.loop_ns for block in blocks)
    return replace(
        row,
        decode_ns=_stage(blocks, "decode"),
        preprocess_ns=_stage(blocks, "preprocess"),
        invoke_ns=_stage(blocks, "invoke"),
        postprocess_ns=_stage(blocks, "postprocess"),
        init_ns=median([block.init_ns for block in blocks]),
        first_ns=median([block.first_ns for block in blocks]),
        warmup_ns=median([block.warmup_ns for block in blocks]),
        warmup_count=median([block.warmup_count for block in blocks]),
        rss_peak_bytes=max(block.rss_peak_bytes for block in blocks) or None,
        rss_anon_bytes=max(block.rss_anon_bytes for block in blocks) or None,
        cores_used=sum(block.invoke_cpu_ns for block in blocks) / invoked_ns,
        own_overhead_ratio=max(0.0, 1 - invoked_ns / loop_ns) if loop_ns > 0 else None,
        delegated_nodes=common(block.delegated_nodes for block in blocks),
        total_nodes=common(block.total_nodes for block in blocks),
    )


def _add_gains(row: Row, summary: Summary, blocks: Mapping[int, Block], report: Report) -> Row:
    """Memory against the baseline in the rounds that have both, and latency by the interval of its ratio.

    No latency is gained or not where the row or the baseline is unstable, or where the ratio has no interval.
    """
    baseline = counting_blocks(report, 0)
    shared = sorted(blocks.keys() & baseline.keys())
    memory = ratios((blocks[index].rss_anon_bytes, baseline[index].rss_anon_bytes) for index in shared)
    first = _summary(report, 0)
    unstable = UNSTABLE in (summary.validity, first.validity if first else None)
    latency = None
    if summary.ratio is not None and summary.ratio_high is not None and not unstable:
        latency = gain([summary.ratio]) if summary.ratio_high < 1 else NO_GAIN
    return replace(row, memory_gain=gain(memory), latency_gain=latency)


def _without_speed_up(row: Row) -> Row:
    """An emulated machine's milliseconds are those of the emulation: none is faster or slower than another.

    What remains is how a file stored sparse compares with its dense twin, which tells whether sparse kernels ran.
    """
    return replace(row, ratio_to_baseline=None, ratio_low=None, ratio_high=None, latency_tie=None, latency_gain=None)


def _sparse_speedup(manifest: Manifest, report: Report, summary: Summary) -> float | None:
    """How many times faster than its dense twin in the same setting, through their ratios to the baseline."""
    case = report.job.cases[summary.case_index]
    twin = next((entry.sha256 for entry in manifest.entries if entry.dense_twin_of == case.artefact), None)
    if twin is None or (twin_case := replace(case, artefact=twin)) not in report.job.cases:
        return None
    other = _summary(report, report.job.cases.index(twin_case))
    found = [] if other is None else ratios([(other.ratio, summary.ratio)])
    return found[0] if found else None


def _add_plausibility(row: Row, manifest: Manifest, report: Report, blocks: Sequence[Block]) -> Row:
    entry = manifest.entry(row.sha256 or "")
    integer = row.variant.rpartition("-")[2] in _INTEGER_QUANTIZATIONS
    run = Run(
        multiply_adds=row.multiply_adds or 0,
        median_ns=row.median_ns or 0.0,
        threads=row.threads or 1,
        cpus=row.cpus or (),
        cores_used=row.cores_used or 0.0,
        delegated_nodes=row.delegated_nodes,
        validity=row.validity or "",
        clock_hz=measured_clock_hz(blocks),
        runtime=row.runtime or "",
        integer=integer or (entry is not None and entry.input.dtype != "float32"),
        emulated=report.target == EMULATED,
    )
    found = judge_plausibility(run, report.environment)
    return replace(
        row,
        peak_ratio=found.peak_ratio,
        peak_core=found.core,
        peak_clock_hz=found.clock_hz,
        peak_reasons=found.reasons,
    )


def _stage(blocks: Sequence[Block], name: str) -> float | None:
    times = [block.stages_ns[name] for block in blocks if name in block.stages_ns]
    return median(times) if times else None


def common(values: Iterable[Value | None]) -> Value | None:
    """The value that all have, None if they differ or there are none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
