"""From a manifest and a report to a comparison: header, rows and answers.

First the report is checked against the manifest (checks). Then each manifest entry becomes a row for each case that
ran it and for each runtime that cannot load it, or one row that says that it was not run: what is known of the file
before it runs, then what was measured of it (figures, accuracy). Each variant that could not be made is another row.
A figure that was not measured is None and the row's status says why; nothing is estimated.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from liteship.report.accuracy import BASELINE, HOST, KERNELS, PIXELS, Answers, build_answers
from liteship.report.checks import check_report
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.figures import add_figures, common, gain, ratios
from liteship.report.statuses import FORCED, THROTTLE_UNKNOWN
from liteship_agent.images import selected_images
from liteship_agent.manifest import Manifest, ManifestEntry, ValidationImage
from liteship_agent.report import UNKNOWN, Report

_THROTTLING_SENSORS = ("throttled_bits", "cooling_state", "throttle_count")


def build_comparison(manifest: Manifest, report: Report) -> Comparison:
    """All that a table shows of a report.

    Raises:
        ReportError: the report was made from another manifest, one of its parts names what is not in the job or the
            manifest, or a part is incomplete or stands there twice.
    """
    images = selected_images(manifest, report.job.limit)
    check_report(manifest, report, images)
    answers = build_answers(manifest, report, images)
    rows = [row for entry in manifest.entries for row in _entry_rows(entry, manifest, report, answers)]
    rows += [Row(failure.variant, None, f"failed: {failure.stage}: {failure.reason}") for failure in manifest.failures]
    return Comparison(_header(manifest, report, images), tuple(rows), tuple(answers))


def _header(manifest: Manifest, report: Report, images: Sequence[ValidationImage]) -> Header:
    board = report.environment.get("board_model") or report.environment.get("cpu_model")
    job, entry = report.job, _baseline(manifest, report)
    runtime, _, version = (common(job.runtimes[case.runtime] for case in job.cases) or "").partition("==")
    return Header(
        target=report.target,
        study=manifest.study,
        board=None if board is None else str(board),
        runtime=runtime or None,
        runtime_version=version or None,
        threads=common(case.threads for case in job.cases),
        cpus=common(case.cpus for case in job.cases),
        tier=job.tier.name,
        image_count=report.image_count,
        job_id=job.job_id,
        date=job_date(job.job_id),
        baseline=None if entry is None else entry.variant,
        baseline_is_float=entry is not None and _is_float(entry),
        repeats=job.limits.repeats,
        forced=job.forced,
        problems=report.problems,
        blind_sensors=_blind_sensors(report),
        pixels_different=report.extra.get("pixels", {}).get("different"),
        largest_pixel_difference=report.extra.get("pixels", {}).get("largest_difference"),
        images_sha256=_images_sha256(images),
        manifest_sha256=report.manifest_sha256,
        environment=report.environment,
    )


def _images_sha256(images: Sequence[ValidationImage]) -> str:
    """Of names, labels and sizes: studies of the same pictures share it."""
    return hashlib.sha256(repr([(image.path, image.label, image.size) for image in images]).encode()).hexdigest()


def _baseline(manifest: Manifest, report: Report) -> ManifestEntry | None:
    """What ratios and gains refer to: the artefact of the job's first case."""
    return manifest.entry(report.job.cases[0].artefact)


def _is_float(entry: ManifestEntry) -> bool:
    """Whether neither its name nor its input says that it is quantized."""
    return entry.variant.rpartition("-")[2] == "none" and entry.input.dtype == "float32"


def _blind_sensors(report: Report) -> tuple[str, ...]:
    """Where throttling is unknown: what would tell about it, with the reason why it does not, and the remedy."""
    if all(summary.validity != UNKNOWN for summary in report.summaries):
        return ()
    missing: dict[str, list[str]] = {}
    for name in _THROTTLING_SENSORS:
        sensor: Mapping[str, Any] = report.sensors.get(name) or {}
        if not sensor.get("source"):
            texts = [str(text) for text in (sensor.get("reason"), sensor.get("remedy")) if text]
            missing.setdefault("; ".join(texts) or "no reason is known", []).append(name)
    return tuple(f"{', '.join(names)}: {reason}" for reason, names in missing.items())


def _entry_rows(entry: ManifestEntry, manifest: Manifest, report: Report, answers: list[Answers]) -> list[Row]:
    """The rows of one artefact."""
    described = _described(entry)
    if (baseline := _baseline(manifest, report)) is not None:
        described = replace(
            described,
            file_gain=gain(ratios([(entry.size_bytes, baseline.size_bytes)])),
            gzip_gain=gain(ratios([(entry.gzip_bytes, baseline.gzip_bytes)])),
        )
    rows = [
        _case_row(described, manifest, report, index, answers)
        for index, case in enumerate(report.job.cases)
        if case.artefact == entry.sha256
    ]
    for refused in report.refused:
        if refused.artefact == entry.sha256:
            runtime, _, version = report.job.runtimes.get(refused.runtime, "").partition("==")
            status = f"refused: {refused.reason}"
            rows.append(replace(described, status=status, runtime=runtime or None, runtime_version=version or None))
    return rows or [described]


def _case_row(described: Row, manifest: Manifest, report: Report, index: int, answers: list[Answers]) -> Row:
    """The row of one case."""
    row = add_figures(described, manifest, report, index)
    own = next((a for a in answers if _ran(a) == _ran(row)), None)
    if own is not None:
        row = _with_answers(row, own)
    failure = next((block.reason for block in report.failed if block.case_index == index), None)
    return replace(row, status=(FORCED if row.forced else "") + _status(row, failure))


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


def _ran(part: Row | Answers) -> tuple[str | None, ...]:
    return part.sha256, part.runtime, part.runtime_version


def _with_answers(row: Row, answers: Answers) -> Row:
    """A row with the accuracy of its file in its runtime."""
    return replace(
        row,
        target_correct=answers.correct,
        image_count=answers.image_count,
        target_accuracy_ratio=answers.correct / answers.image_count,
        target_accuracy_low_ratio=answers.low_ratio,
        target_accuracy_high_ratio=answers.high_ratio,
        accuracy_difference_ratio=answers.difference_ratio,
        accuracy_difference_low_ratio=answers.difference_low_ratio,
        accuracy_difference_high_ratio=answers.difference_high_ratio,
        accuracy_p=answers.p,
        accuracy_tie=answers.tie,
        golden_difference=answers.golden_difference,
        golden_tolerance=answers.golden_tolerance,
        golden_within_tolerance=answers.golden_within_tolerance,
        flips_host=answers.count_flips(HOST),
        flips_host_pixels=answers.count_flips(HOST, PIXELS),
        flips_host_kernels=answers.count_flips(HOST, KERNELS),
        flips_baseline=answers.count_flips(BASELINE),
    )


def _status(row: Row, failure: str | None) -> str:
    """Why figures are missing, else why it must not be shipped, else how far its latency can be trusted."""
    if failure is not None:
        return f"failed: {failure}"
    if row.target_correct is None or row.validity is None:
        return "failed: no scores in the report"
    if row.parity_passed is False:
        return f"parity failed: {_parity_failure(row)}"
    if not row.golden_within_tolerance:
        return f"golden failed: scores differ by {row.golden_difference:.2g} ({row.golden_tolerance:.2g} allowed)"
    return THROTTLE_UNKNOWN if row.validity == UNKNOWN else row.validity


def _parity_failure(row: Row) -> str:
    drop, allowed, equal = (
        100 * (ratio or 0.0) for ratio in (row.parity_drop_ratio, row.parity_max_drop_ratio, row.parity_equal_ratio)
    )
    # As many digits as show that the one is above the other.
    digits = next((digits for digits in (1, 2, 3) if round(drop, digits) > round(allowed, digits)), 4)
    return f"accuracy drops by {drop:.{digits}f} points ({allowed:.{digits}f} allowed); {equal:.1f} % equal answers"


def _share(count: int, total: int) -> float | None:
    return count / total if total > 0 else None


def job_date(job_id: str) -> str | None:
    """When a job was made, by the host's clock ("2026-11-22 10:15"); None if its id does not say."""
    match = re.match(r"(\d{4})-?(\d\d)-?(\d\d)[-T_]?(\d\d):?(\d\d)", job_id)
    return "{}-{}-{} {}:{}".format(*match.groups()) if match else None
