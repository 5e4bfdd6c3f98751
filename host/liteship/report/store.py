"""Find and read the reports of a study."""

from __future__ import annotations

from pathlib import Path

from liteship.errors import ReportError
from liteship_agent.errors import RecordError
from liteship_agent.records import read_record
from liteship_agent.report import Report


def load_report(study: Path, target: str, job_id: str | None) -> Report:
    """One report of a study.

    Args:
        study: Folder of the study.
        target: Name of the target.
        job_id: Which one, None for the latest.

    Raises:
        ReportError: there is none, or it cannot be read.
    """
    folder = study / "reports" / target
    known = sorted(path.stem for path in folder.glob("*.json"))
    if not known or (job_id is not None and job_id not in known):
        raise ReportError(
            f"{folder}: a report {job_id or 'of a measurement'} is required. Received: {', '.join(known) or 'none'}.",
            f"Measure first: liteship bench --target {target}",
        )
    try:
        return read_record(Report, folder / f"{job_id or known[-1]}.json")
    except RecordError as exc:
        raise ReportError(str(exc), "Measure again.") from exc
