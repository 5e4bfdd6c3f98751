"""Whether a report belongs to a manifest and is whole: every part must name, by sha256, an artefact that both know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from liteship.errors import ReportError
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report

_REPEAT = "Run the bench again."


def check_report(manifest: Manifest, report: Report, labels: Sequence[int]) -> None:
    """Every part of a report is of this manifest, was asked for, and is complete.

    Args:
        manifest: What the report says that it was made from.
        report: Of one job.
        labels: Of the images that the job selects.

    Raises:
        ReportError: the report was made from another manifest, one of its parts names an artefact that is not in
            the job or the manifest, or a part is incomplete or stands there twice.
    """
    refused = refused_artefacts(report)
    _check_origin(manifest, report, refused)
    _check_blocks(report)
    _check_scores(manifest, report, labels)
    _check_complete(report, refused)


def refused_artefacts(report: Report) -> Mapping[str, str]:
    """Artefacts that the host did not send, by sha256, with the reason.

    Raises:
        ReportError: they do not stand there as such.
    """
    refused = report.extra.get("refused", {})
    if not isinstance(refused, dict) or not all(isinstance(reason, str) for reason in refused.values()):
        raise ReportError(f"refused as an object of sha256 and reason is required. Received: {refused!r}", _REPEAT)
    return refused


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
    counts = Counter(block.artefact for block in report.blocks)
    for sha256 in report.job.artefacts:
        count = counts[sha256]
        if sha256 in excused or count == report.job.tier.rounds:
            continue
        raise ReportError(
            f"{report.job.tier.rounds} blocks or a failure of artefact {sha256[:12]} are required. "
            f"Received: {count or 'neither'}",
            "The report is incomplete; run the same bench again.",
        )
    if report.target != report.job.target:
        raise ReportError(f"A report of {report.job.target} is required. Received: one of {report.target}", _REPEAT)
