"""From a manifest and a report to the rows of the comparison table.

First the report is checked against the manifest (checks.py). Then each manifest entry becomes one row, in manifest
order: what is known of the file before it runs, then what was measured of it on the target. Each variant that could
not be made is another row. A figure that was not measured is None and the row's status says why; nothing is estimated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from liteship.report.checks import check_report, refused_artefacts
from liteship.stats import median, p90, wilson_interval
from liteship_agent.images import selected_images
from liteship_agent.manifest import Failure, Manifest, ManifestEntry
from liteship_agent.report import Block, Report

Value = TypeVar("Value")

NO_GAIN = 1.0
# Less does not show in "1.0x".
_SMALLEST_GAIN = 1.05


@dataclass(frozen=True)
class Row:
    """One line of the comparison table; None is a figure that does not exist.

    Args:
        variant: For example `magnitude50-int8`.
        sha256: Of the .tflite file that every figure of the row belongs to.
        status: "ok", "parity failed: REASON", "failed: REASON", "refused: REASON" or "not run".
        requested_sparsity, achieved_sparsity: Ratio of zero weights, asked for and read back from the file.
        size_bytes, gzip_bytes: The file, plain and after gzip at level 9.
        multiply_adds: Of one inference.
        keras_model, keras_size_bytes, keras_gzip_bytes, parameters, removed_filters_ratio: The model it was converted
            from: name, its file, weights, and the share of the baseline's filters that pruning removed.
        parity_passed, parity_drop_ratio, parity_max_drop_ratio, parity_equal_ratio, parity_largest_difference: The file
            against that model on the host: whether it kept its accuracy, how much it lost (below 0: it gained) and may
            lose, the share of images with the same answer, the largest difference of a score.
        sparse_eligible, sparse_layer, sparse_reason, sparse_holds_for: Whether XNNPACK's sparse kernels take it, the
            first layer and rule that say no, and the runtime and machine that the rules are of.
        stored_sparse: Whether weights are stored in the sparse format.
        dense_twin_of: sha256 of the file whose weights this one stores densely.
        sparse_speedup_ratio: How many times faster than its dense twin it ran, by round as `ratio_to_float`.
        target_correct, image_count: Images classified correctly on the target, of all that were classified there.
        target_accuracy_ratio: Their share.
        target_accuracy_low_ratio, target_accuracy_high_ratio: Its 95 % Wilson interval.
        host_accuracy_ratio: Of the same bytes on the host, over the whole validation set.
        median_ns, p90_ns: Latency of one invocation; p90 only from 64 queries on.
        end_to_end_median_ns: Decoding to classification of one image.
        ratio_to_float: Latency as a multiple of the baseline's: the median, over the rounds that timed both, of the
            ratio of the two block medians; 0.62 takes 62 % of the baseline's time.
        file_gain, gzip_gain, memory_gain, latency_gain: How many times smaller or faster than the baseline's; 1.0
            where it is less than 1.05, or, for what was measured, where not every round shows it.
        rss_anon_bytes: Largest anonymous memory of its processes.
        runtime, runtime_version, threads: What ran it.
        delegated_nodes, total_nodes: Graph nodes run by the XNNPACK delegate, of all.
        queries: Timed invocations.
    """

    variant: str
    sha256: str | None
    status: str
    requested_sparsity: float | None = None
    achieved_sparsity: float | None = None
    size_bytes: int | None = None
    gzip_bytes: int | None = None
    multiply_adds: int | None = None
    keras_model: str | None = None
    keras_size_bytes: int | None = None
    keras_gzip_bytes: int | None = None
    parameters: int | None = None
    removed_filters_ratio: float | None = None
    parity_passed: bool | None = None
    parity_drop_ratio: float | None = None
    parity_max_drop_ratio: float | None = None
    parity_equal_ratio: float | None = None
    parity_largest_difference: float | None = None
    sparse_eligible: bool | None = None
    sparse_layer: str | None = None
    sparse_reason: str | None = None
    sparse_holds_for: str | None = None
    stored_sparse: bool | None = None
    dense_twin_of: str | None = None
    sparse_speedup_ratio: float | None = None
    target_correct: int | None = None
    image_count: int | None = None
    target_accuracy_ratio: float | None = None
    target_accuracy_low_ratio: float | None = None
    target_accuracy_high_ratio: float | None = None
    host_accuracy_ratio: float | None = None
    median_ns: float | None = None
    p90_ns: int | None = None
    end_to_end_median_ns: float | None = None
    ratio_to_float: float | None = None
    file_gain: float | None = None
    gzip_gain: float | None = None
    memory_gain: float | None = None
    latency_gain: float | None = None
    rss_anon_bytes: int | None = None
    runtime: str | None = None
    runtime_version: str | None = None
    threads: int | None = None
    delegated_nodes: int | None = None
    total_nodes: int | None = None
    queries: int | None = None


@dataclass(frozen=True)
class Header:
    """What all rows of one job share.

    Args:
        board: Model of the board, else of its CPU, None where neither is known.
        date: When the job was made, by the host's clock ("2026-11-22 10:15"), None if its id does not say.
        image_count: Validation images that were classified on the target.
        baseline: Variant that `ratio_to_float` refers to.
    """

    target: str
    board: str | None
    runtime: str | None
    runtime_version: str | None
    threads: int
    tier: str
    image_count: int
    job_id: str
    date: str | None
    baseline: str | None


def build_header(manifest: Manifest, report: Report) -> Header:
    """The header of a report's table."""
    board = report.environment.get("board_model") or report.environment.get("cpu_model")
    return Header(
        target=report.target,
        board=None if board is None else str(board),
        runtime=_common(block.runtime for block in report.blocks),
        runtime_version=_common(block.runtime_version for block in report.blocks),
        threads=report.job.threads,
        tier=report.job.tier.name,
        image_count=report.image_count,
        job_id=report.job.job_id,
        date=_date(report.job.job_id),
        baseline=manifest.entries[0].variant if manifest.entries else None,
    )


def build_rows(manifest: Manifest, report: Report) -> list[Row]:
    """One row for each manifest entry, in manifest order, then one for each variant that could not be made.

    Raises:
        ReportError: the report was made from another manifest, one of its parts names an artefact that is not in
            the job or the manifest, or a part is incomplete or stands there twice.
    """
    labels = [image.label for image in selected_images(manifest, report.job.limit)]
    check_report(manifest, report, labels)
    rows = [_measured(_described(entry), entry, manifest, report, labels) for entry in manifest.entries]
    return rows + [_failure_row(failure) for failure in manifest.failures]


def _described(entry: ManifestEntry) -> Row:
    """What is known of a file before it runs."""
    verdict = entry.sparse_verdict
    row = Row(
        variant=entry.variant,
        sha256=entry.sha256,
        status="not run",
        requested_sparsity=entry.requested_sparsity,
        achieved_sparsity=entry.achieved_sparsity,
        size_bytes=entry.size_bytes,
        gzip_bytes=entry.gzip_bytes,
        multiply_adds=entry.multiply_adds,
        sparse_eligible=verdict.eligible,
        sparse_layer=verdict.layer,
        sparse_reason=verdict.reason,
        sparse_holds_for=verdict.holds_for,
        stored_sparse=any(operator.name == "DENSIFY" for operator in entry.operators),
        dense_twin_of=entry.dense_twin_of,
        host_accuracy_ratio=_share(entry.host_accuracy.correct, entry.host_accuracy.total),
    )
    if entry.keras is not None:
        row = replace(
            row,
            keras_model=entry.keras.name,
            keras_size_bytes=entry.keras.size_bytes,
            keras_gzip_bytes=entry.keras.gzip_bytes,
            parameters=entry.keras.parameters,
            removed_filters_ratio=entry.keras.removed_filters_ratio,
        )
    if entry.parity is not None:
        parity = entry.parity
        row = replace(
            row,
            parity_passed=parity.passed,
            parity_drop_ratio=_share(parity.reference_correct - entry.host_accuracy.correct, parity.total),
            parity_max_drop_ratio=parity.max_drop,
            parity_equal_ratio=_share(parity.equal_top1, parity.total),
            parity_largest_difference=parity.largest_difference,
        )
    return row


def _measured(row: Row, entry: ManifestEntry, manifest: Manifest, report: Report, labels: Sequence[int]) -> Row:
    """A row with what a job measured of its file."""
    blocks = _blocks(report, entry.sha256)
    latencies = [latency for block in blocks.values() for latency in block.latencies_ns]
    end_to_end = [latency for block in blocks.values() for latency in block.end_to_end_ns]
    correct = _correct(report, entry.sha256, labels)
    low, high = (None, None) if correct is None else wilson_interval(correct, len(labels))
    row = replace(
        row,
        target_correct=correct,
        image_count=None if correct is None else len(labels),
        target_accuracy_ratio=None if correct is None else correct / len(labels),
        target_accuracy_low_ratio=low,
        target_accuracy_high_ratio=high,
        median_ns=median(latencies) if latencies else None,
        p90_ns=p90(latencies),
        end_to_end_median_ns=median(end_to_end) if end_to_end else None,
        rss_anon_bytes=max((block.rss_anon_bytes for block in blocks.values()), default=0) or None,
        runtime=_common(block.runtime for block in blocks.values()),
        runtime_version=_common(block.runtime_version for block in blocks.values()),
        threads=_common(block.threads for block in blocks.values()),
        delegated_nodes=_common(block.delegated_nodes for block in blocks.values()),
        total_nodes=_common(block.total_nodes for block in blocks.values()),
        queries=len(latencies) or None,
    )
    row = _compared(row, blocks, manifest, report)
    return replace(row, status=_status(row, entry.sha256, report))


def _compared(row: Row, blocks: Mapping[int, Block], manifest: Manifest, report: Report) -> Row:
    """A row with its ratios to the baseline and, for a file stored sparse, to its dense twin."""
    baseline = manifest.entries[0]
    baseline_blocks = _blocks(report, baseline.sha256)
    latencies = _round_ratios(blocks, baseline_blocks, lambda block: median(block.latencies_ns))
    twin = next((entry for entry in manifest.entries if entry.dense_twin_of == row.sha256), None)
    speedups = _round_ratios(
        {} if twin is None else _blocks(report, twin.sha256), blocks, lambda block: median(block.latencies_ns)
    )
    return replace(
        row,
        ratio_to_float=median(latencies) if latencies else None,
        file_gain=_gain(_ratios([(row.size_bytes, baseline.size_bytes)])),
        gzip_gain=_gain(_ratios([(row.gzip_bytes, baseline.gzip_bytes)])),
        memory_gain=_gain(_round_ratios(blocks, baseline_blocks, lambda block: block.rss_anon_bytes)),
        latency_gain=_gain(latencies),
        sparse_speedup_ratio=median(speedups) if speedups else None,
    )


def _failure_row(failure: Failure) -> Row:
    return Row(variant=failure.variant, sha256=None, status=f"failed: {failure.stage}: {failure.reason}")


def _blocks(report: Report, sha256: str) -> dict[int, Block]:
    """The blocks of one artefact by round."""
    return {block.round_index: block for block in report.blocks if block.artefact == sha256}


def _correct(report: Report, sha256: str, labels: Sequence[int]) -> int | None:
    """Images whose largest score stands at their label; of equal scores the first counts, as in numpy's argmax."""
    scores = next((scores.scores for scores in report.accuracy if scores.artefact == sha256), ())
    if not scores:
        return None
    return sum(row.index(max(row)) == label for row, label in zip(scores, labels, strict=True))


def _status(row: Row, sha256: str, report: Report) -> str:
    """Why figures are missing, else why it must not be shipped, else ok."""
    refused = refused_artefacts(report)
    if sha256 in refused:
        return f"refused: {refused[sha256]}"
    reason = next((block.reason for block in report.failed if block.artefact == sha256), None)
    if reason is not None:
        return f"failed: {reason}"
    if sha256 not in report.job.artefacts:
        return "not run"
    if row.target_correct is None:
        return "failed: no scores in the report"
    return "ok" if row.parity_passed is not False else f"parity failed: {_parity_failure(row)}"


def _parity_failure(row: Row) -> str:
    drop, allowed, equal = (
        100 * (ratio or 0.0) for ratio in (row.parity_drop_ratio, row.parity_max_drop_ratio, row.parity_equal_ratio)
    )
    # As many digits as show that the one is above the other.
    digits = next((digits for digits in (1, 2, 3) if round(drop, digits) > round(allowed, digits)), 4)
    return f"accuracy drops by {drop:.{digits}f} points ({allowed:.{digits}f} allowed); {equal:.1f} % equal answers"


def _round_ratios(
    blocks: Mapping[int, Block], others: Mapping[int, Block], figure: Callable[[Block], float]
) -> list[float]:
    """A figure as a multiple of another's in the rounds that have both: drift between rounds meets both sides."""
    return _ratios((figure(blocks[index]), figure(others[index])) for index in sorted(blocks.keys() & others.keys()))


def _ratios(pairs: Iterable[tuple[float | None, float | None]]) -> list[float]:
    """Quotients; a figure that is missing or 0 has none."""
    return [one / other for one, other in pairs if one and other]


def _gain(ratios: Sequence[float]) -> float | None:
    """How many times smaller or faster: `NO_GAIN` unless every ratio says so, None without any."""
    if not ratios:
        return None
    gain = 1 / median(ratios)
    return gain if max(ratios) < 1 and gain >= _SMALLEST_GAIN else NO_GAIN


def _share(count: int, total: int) -> float | None:
    return count / total if total > 0 else None


def _common(values: Iterable[Value | None]) -> Value | None:
    """The value that all have, None if they differ or there are none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _date(job_id: str) -> str | None:
    match = re.match(r"(\d{4})-?(\d\d)-?(\d\d)[-T_]?(\d\d):?(\d\d)", job_id)
    return "{}-{}-{} {}:{}".format(*match.groups()) if match else None
