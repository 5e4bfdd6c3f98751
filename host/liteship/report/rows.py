"""From a manifest and a report to the rows of the comparison table.

First the report is checked against the manifest: every part must name, by sha256, an artefact that both know.
Then each manifest entry becomes one row, in manifest order, and each variant that could not be made another one.
A figure that was not measured is None and the row's status says why; nothing is estimated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from liteship.errors import ReportError
from liteship.stats import median, p90, wilson_interval
from liteship_agent.images import selected_images
from liteship_agent.manifest import Failure, Manifest, ManifestEntry
from liteship_agent.report import Block, Report

Value = TypeVar("Value")


@dataclass(frozen=True)
class Row:
    """One line of the comparison table; None is a figure that does not exist.

    Args:
        variant: For example `magnitude50-int8`.
        sha256: Of the .tflite file that every figure of the row belongs to.
        status: "ok", "failed: REASON", "refused: REASON" or "not run".
        requested_sparsity, achieved_sparsity: Ratio of zero weights, asked for and read back from the file.
        size_bytes, gzip_bytes: The file, plain and after gzip at level 9.
        target_correct, image_count: Images classified correctly on the target, of all that were classified there.
        target_accuracy_ratio: Their share.
        target_accuracy_low_ratio, target_accuracy_high_ratio: Its 95 % Wilson interval.
        host_accuracy_ratio: Of the same bytes on the host, over the whole validation set.
        median_ns, p90_ns: Latency of one invocation; p90 only from 64 queries on.
        end_to_end_median_ns: Decoding to classification of one image.
        ratio_to_float: Latency as a multiple of the baseline's: the median, over the rounds that timed both, of the
            ratio of the two block medians; 0.62 takes 62 % of the baseline's time.
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
    refused = _refused(report)
    _check_origin(manifest, report, refused)
    _check_blocks(report)
    labels = [image.label for image in selected_images(manifest, report.job.limit)]
    _check_scores(manifest, report, labels)
    _check_complete(report, refused)
    rows = [_entry_row(manifest, entry, report, labels, refused) for entry in manifest.entries]
    return rows + [_failure_row(failure) for failure in manifest.failures]


def _refused(report: Report) -> Mapping[str, str]:
    """Artefacts that the host did not send, with the reason."""
    refused = report.extra.get("refused", {})
    if not isinstance(refused, dict) or not all(isinstance(reason, str) for reason in refused.values()):
        raise ReportError(f"refused as an object of sha256 and reason is required. Received: {refused!r}", _REPEAT)
    return refused


_REPEAT = "Run the bench again."


def _check_origin(manifest: Manifest, report: Report, refused: Mapping[str, str]) -> None:
    """Every part of the report is of this manifest and was asked for."""
    if report.manifest_sha256 != manifest.sha256():
        raise ReportError(
            f"A report on manifest {manifest.sha256()[:12]} is required. Received: {report.manifest_sha256[:12]}",
            "The study has changed since that job: deploy and bench it again, or name the study it was made from.",
        )
    in_manifest = {entry.sha256 for entry in manifest.entries}
    _require_known("job", "manifest", report.job.artefacts, in_manifest)
    _require_known("refused artefact", "manifest", refused, in_manifest)
    in_job = set(report.job.artefacts)
    _require_known("block", "job", (block.artefact for block in report.blocks), in_job)
    _require_known("failed block", "job", (block.artefact for block in report.failed), in_job)
    _require_known("scores", "job", (scores.artefact for scores in report.accuracy), in_job)


def _require_known(part: str, whole: str, artefacts: Iterable[str], known: set[str]) -> None:
    for sha256 in artefacts:
        if sha256 not in known:
            raise ReportError(
                f"{part}: the sha256 of an artefact in the {whole} is required. Received: {sha256[:12]}", _REPEAT
            )


def _check_blocks(report: Report) -> None:
    """At most one block per artefact and round, each with latencies, all run the same way."""
    for (sha256, round_index), count in Counter((b.artefact, b.round_index) for b in report.blocks).items():
        if count > 1:
            raise ReportError(
                f"One block of {sha256[:12]} in round {round_index} is required. Received: {count}", _REPEAT
            )
    for block in report.blocks:
        if not block.latencies_ns or min(*block.latencies_ns, *block.end_to_end_ns, 1) < 1:
            raise ReportError(
                f"A block of {block.artefact[:12]} with latencies above 0 ns is required. Received: "
                f"{len(block.latencies_ns)} latencies, smallest {min(block.latencies_ns, default=None)}",
                _REPEAT,
            )
    if len({(block.runtime, block.runtime_version) for block in report.blocks}) > 1:
        versions = sorted({f"{block.runtime} {block.runtime_version}" for block in report.blocks})
        raise ReportError(f"One runtime for all blocks is required. Received: {', '.join(versions)}", _REPEAT)
    for block in report.blocks:
        if block.threads != report.job.threads:
            raise ReportError(
                f"Blocks with {report.job.threads} threads are required. Received: {block.threads}", _REPEAT
            )


def _check_scores(manifest: Manifest, report: Report, labels: Sequence[int]) -> None:
    """Each artefact at most once, a row for every image and a probability for every label."""
    if report.image_count != len(labels):
        raise ReportError(
            f"The {len(labels)} images that the job selects are required. Received: {report.image_count}", _REPEAT
        )
    for sha256, count in Counter(scores.artefact for scores in report.accuracy).items():
        if count > 1:
            raise ReportError(f"Scores of {sha256[:12]} once are required. Received: {count} times", _REPEAT)
    for scores in report.accuracy:
        if len(scores.scores) != report.image_count:
            raise ReportError(
                f"Scores of {scores.artefact[:12]} for {report.image_count} images are required. "
                f"Received: {len(scores.scores)}",
                _REPEAT,
            )
        widths = {len(row) for row in scores.scores} - {len(manifest.labels)}
        if widths:
            raise ReportError(
                f"Scores of {scores.artefact[:12]} for {len(manifest.labels)} labels are required. "
                f"Received: {min(widths)}",
                _REPEAT,
            )


def _check_complete(report: Report, refused: Mapping[str, str]) -> None:
    """Whatever was asked for was measured, failed or refused."""
    excused = {block.artefact for block in report.failed} | set(refused)
    for sha256 in report.job.artefacts:
        count = len(_blocks(report, sha256))
        if sha256 in excused or count == report.job.tier.rounds:
            continue
        raise ReportError(
            f"{report.job.tier.rounds} blocks or a failure of artefact {sha256[:12]} are required. "
            f"Received: {count or 'neither'}",
            "The report is incomplete; run the same bench again.",
        )
    if report.target != report.job.target:
        raise ReportError(f"A report of {report.job.target} is required. Received: one of {report.target}", _REPEAT)


def _entry_row(
    manifest: Manifest, entry: ManifestEntry, report: Report, labels: Sequence[int], refused: Mapping[str, str]
) -> Row:
    blocks = _blocks(report, entry.sha256)
    latencies = [latency for block in blocks.values() for latency in block.latencies_ns]
    end_to_end = [latency for block in blocks.values() for latency in block.end_to_end_ns]
    correct = _correct(report, entry.sha256, labels)
    low, high = (None, None) if correct is None else wilson_interval(correct, len(labels))
    host = entry.host_accuracy
    return Row(
        variant=entry.variant,
        sha256=entry.sha256,
        status=_status(entry.sha256, report, refused, correct),
        requested_sparsity=entry.requested_sparsity,
        achieved_sparsity=entry.achieved_sparsity,
        size_bytes=entry.size_bytes,
        gzip_bytes=entry.gzip_bytes,
        target_correct=correct,
        image_count=None if correct is None else len(labels),
        target_accuracy_ratio=None if correct is None else correct / len(labels),
        target_accuracy_low_ratio=low,
        target_accuracy_high_ratio=high,
        host_accuracy_ratio=host.correct / host.total if host.total > 0 else None,
        median_ns=median(latencies) if latencies else None,
        p90_ns=p90(latencies),
        end_to_end_median_ns=median(end_to_end) if end_to_end else None,
        ratio_to_float=_ratio(blocks, _blocks(report, manifest.entries[0].sha256)),
        rss_anon_bytes=max((block.rss_anon_bytes for block in blocks.values()), default=0) or None,
        runtime=_common(block.runtime for block in blocks.values()),
        runtime_version=_common(block.runtime_version for block in blocks.values()),
        threads=_common(block.threads for block in blocks.values()),
        delegated_nodes=_common(block.delegated_nodes for block in blocks.values()),
        total_nodes=_common(block.total_nodes for block in blocks.values()),
        queries=len(latencies) or None,
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


def _status(sha256: str, report: Report, refused: Mapping[str, str], correct: int | None) -> str:
    if sha256 in refused:
        return f"refused: {refused[sha256]}"
    reason = next((block.reason for block in report.failed if block.artefact == sha256), None)
    if reason is not None:
        return f"failed: {reason}"
    if sha256 not in report.job.artefacts:
        return "not run"
    return "ok" if correct is not None else "failed: no scores in the report"


def _ratio(blocks: Mapping[int, Block], baseline: Mapping[int, Block]) -> float | None:
    """Median over the rounds that timed both; drift between rounds meets both sides of each ratio."""
    ratios = [
        median(block.latencies_ns) / median(baseline[round_index].latencies_ns)
        for round_index, block in blocks.items()
        if round_index in baseline
    ]
    return median(ratios) if ratios else None


def _common(values: Iterable[Value | None]) -> Value | None:
    """The value that all have, None if they differ or there are none."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def _date(job_id: str) -> str | None:
    match = re.match(r"(\d{4})-?(\d\d)-?(\d\d)[-T_]?(\d\d):?(\d\d)", job_id)
    return "{}-{}-{} {}:{}".format(*match.groups()) if match else None
