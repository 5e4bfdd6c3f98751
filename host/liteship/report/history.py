"""The list of all reports: what was measured when, where and with what success.

Of each report only what a line of the list needs is read, without raw latencies, scores and samples, which are nearly
all of it. One that cannot be read is a line that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from liteship.built_in import EMULATED
from liteship.errors import LiteshipError
from liteship.manifests import read_manifest_of
from liteship.report.names import Name
from liteship.report.rows import job_date
from liteship.report.statuses import FAILED, GOLDEN_FAILED, PARITY_FAILED, THROTTLE_UNKNOWN, WINNING
from liteship.report.store import ReportFile, parse_thin
from liteship.report.table import bare_table
from liteship.report.text import MISSING, milliseconds, plain
from liteship_agent.errors import RecordError
from liteship_agent.job import Case, Job
from liteship_agent.manifest import Manifest, ManifestEntry
from liteship_agent.records import from_json
from liteship_agent.report import UNKNOWN, FailedBlock, Refused, Report, Scores, Summary

_NARROW_COLUMNS = 80
_UNLIMITED = 10_000
_TIME_DIGITS = len("20261122-101500")
_DAMAGED = "damaged"


@dataclass(frozen=True)
class PastReport:
    """A line of the list; None is what is not known.

    Args:
        job_id: Of the job; ids sort by time.
        date: When the job was made, by the host's clock.
        study, target: What was measured, and where.
        path: Of the report.
        board: Model of the board, else of its CPU.
        tier: How long each case was timed.
        forced: Whether the preflight could be overridden.
        runtimes: Such as `ai-edge-litert==2.3.0`.
        rows: How many cases have which status, by the words of the table: "valid", "parity failed", "refused" ...
        best_variant, best_median_ns: The fastest of those that can be shipped; None on an emulated machine.
        problem: Why it cannot be read; None where it can.
    """

    job_id: str
    date: str | None
    study: str
    target: str
    path: str
    board: str | None = None
    tier: str | None = None
    forced: bool | None = None
    runtimes: tuple[str, ...] = ()
    rows: Mapping[str, int] | None = None
    best_variant: str | None = None
    best_median_ns: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class _Head:
    """The parts of a report that a line of the list is made from."""

    SCHEMA_VERSION: ClassVar[int] = Report.SCHEMA_VERSION

    job: Job
    manifest_sha256: str
    environment: Mapping[str, Any]
    failed: tuple[FailedBlock, ...]
    accuracy: tuple[Scores, ...]
    refused: tuple[Refused, ...]
    summaries: tuple[Summary, ...]


_PARTS = ("schema_version", *(field.name for field in fields(_Head)))


def past_reports(files: Iterable[ReportFile]) -> list[PastReport]:
    """A line for each report, in the same order.

    Args:
        files: Such as `store.find_reports` finds.
    """
    manifests: dict[tuple[Path, str], Manifest] = {}
    return [_line(file, manifests) for file in files]


def _line(file: ReportFile, manifests: dict[tuple[Path, str], Manifest]) -> PastReport:
    line = PastReport(file.job_id, job_date(file.job_id), file.study.name, file.target, str(file.path))
    try:
        head = from_json(_Head, parse_thin(file.path, _PARTS), str(file.path))
        key = file.study, head.manifest_sha256
        if key not in manifests:
            manifests[key] = read_manifest_of(*key)
        return _filled(line, head, manifests[key])
    except RecordError as exc:
        return replace(line, problem=str(exc))
    except LiteshipError as exc:
        return replace(line, problem=exc.message)


def _filled(line: PastReport, head: _Head, manifest: Manifest) -> PastReport:
    """A line with what its report says.

    Raises:
        RecordError: a summary is of no case of the job.
    """
    job, failed = head.job, {block.case_index for block in head.failed}
    known = {case.artefact for case in job.cases} | {refused.artefact for refused in head.refused}
    not_run = sum(entry.sha256 not in known for entry in manifest.entries)
    counts = Counter({"failed": len(failed) + len(manifest.failures), "refused": len(head.refused), "not run": not_run})
    timed: list[tuple[float, str]] = []
    for summary in head.summaries:
        if not 0 <= summary.case_index < len(job.cases):
            raise RecordError(line.path, "summaries", "a case of the job", str(summary.case_index))
        if summary.case_index in failed:
            continue
        entry = manifest.entry(job.cases[summary.case_index].artefact)
        word = _status_word(summary, job.cases[summary.case_index], entry, head.accuracy)
        counts[word] += 1
        if word in WINNING and entry is not None and line.target != EMULATED:
            timed.append((summary.median_ns, entry.variant))
    best_median_ns, best_variant = min(timed, default=(None, None))
    board = head.environment.get("board_model") or head.environment.get("cpu_model")
    return replace(
        line,
        board=None if board is None else str(board),
        tier=job.tier.name,
        forced=job.forced,
        runtimes=tuple(dict.fromkeys(job.runtimes[case.runtime] for case in job.cases if case.runtime in job.runtimes)),
        rows={word: number for word, number in counts.items() if number},
        best_variant=best_variant,
        best_median_ns=best_median_ns,
    )


def _status_word(summary: Summary, case: Case, entry: ManifestEntry | None, accuracy: Sequence[Scores]) -> str:
    """What the table says of a case that was timed, without the reason."""
    scores = next((own for own in accuracy if (own.artefact, own.runtime) == (case.artefact, case.runtime)), None)
    if scores is None:
        return FAILED
    if entry is not None and entry.parity is not None and not entry.parity.passed:
        return PARITY_FAILED
    if scores.golden_difference > scores.golden_tolerance:
        return GOLDEN_FAILED
    return THROTTLE_UNKNOWN if summary.validity == UNKNOWN else summary.validity


def render_past(lines: Sequence[PastReport], console: Console) -> None:
    """Print the list in the console's width: a line each where that fits, else stacked."""
    table = _wide_table(lines)
    if console.measure(table, options=console.options.update(width=_UNLIMITED)).maximum > console.width:
        table = _narrow_table(lines)
    if console.width < _NARROW_COLUMNS:
        table.width = _NARROW_COLUMNS
    console.print(table, crop=False)
    for line in lines:
        if line.problem is not None:
            console.print(Text(f"{line.target}:{line.job_id} {_DAMAGED}: {plain(line.problem)}"), soft_wrap=True)


def _wide_table(lines: Iterable[PastReport]) -> Table:
    table = bare_table()
    for title in ("id", "date", "study", "target", "board", "tier", "rows", "runtime", "fastest"):
        table.add_column(title, no_wrap=True)
    table.add_column("median\nms", justify="right", no_wrap=True)
    for line in lines:
        row = (line.job_id, line.date, line.study, line.target, line.board, _tier(line), ", ".join(_counts(line)))
        names = (", ".join(_runtimes(line)), line.best_variant)
        table.add_row(*map(_cell, (*row, *names)), _median(line))
    return table


def _narrow_table(lines: Sequence[PastReport]) -> Table:
    """What is long is stacked; of an id as many digits are shown as tell it from the others."""
    digits = _telling_digits([line.job_id for line in lines])
    table = bare_table()
    table.add_column("id\ndate", no_wrap=True)
    for title in ("study\ntarget\nboard", "rows\ntier", "runtime", "fastest"):
        table.add_column(title)
    table.add_column("median\nms", justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            _cell(line.job_id[:digits], line.date or ""),
            Name(_stacked(line.study, line.target, line.board or "")),
            Name(_stacked(*_counts(line), _tier(line) or "")),
            Name(_stacked(*(_runtimes(line) or [MISSING]))),
            Name(_stacked(line.best_variant)),
            _median(line),
        )
    return table


def _telling_digits(job_ids: Sequence[str]) -> int:
    """How many letters tell all ids apart, and at least those of the time."""
    longest = max(map(len, job_ids), default=0)
    different = len(set(job_ids))
    return next(
        (n for n in range(_TIME_DIGITS, longest) if len({job_id[:n] for job_id in job_ids}) == different), longest
    )


def _cell(*parts: str | None) -> Text:
    return Text(_stacked(*parts))


def _stacked(*parts: str | None) -> str:
    """Parts under each other; the empty ones are left out."""
    return "\n".join(MISSING if part is None else plain(part) for part in parts if part != "")


def _tier(line: PastReport) -> str | None:
    return f"{line.tier}, forced" if line.forced else line.tier


def _counts(line: PastReport) -> list[str]:
    if line.rows is None:
        return [_DAMAGED]
    return [f"{number} {word}" for word, number in line.rows.items()] or ["none"]


def _runtimes(line: PastReport) -> list[str]:
    return [name.replace("==", " ") for name in line.runtimes]


def _median(line: PastReport) -> Text:
    return Text(milliseconds(line.best_median_ns))
