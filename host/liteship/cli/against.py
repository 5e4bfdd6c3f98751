"""`liteship report --against`: published figures beside those of a measurement."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from liteship.cli.options import MODELS
from liteship.errors import UsageError
from liteship.report.against import build_against
from liteship.report.against_text import against_json, against_markdown, render_against
from liteship.report.reference import load_reference
from liteship.report.rows import build_comparison
from liteship.report.store import find_report_file, read_report

OWN = "reference"
_OWN_FILE = Path("benchmarks/reference.toml")


def print_against(name: str, job: str, study: str | None, target: str | None, form: str) -> None:
    """Print published figures beside ours.

    Args:
        name: `reference` for the file that comes with liteship, else a path.
        job: Reference of a report, see `liteship.report.store`; not a document, which has no artefacts.
        study: Where to look for it.
        target: Where to look for it.
        form: terminal, markdown or json.

    Raises:
        UsageError: another form, the file is missing or wrong, or no experiment stands beside the study.
        ReportError: the report cannot be read, or a file has other bytes.
    """
    forms = {"markdown": against_markdown, "json": against_json}
    if form != "terminal" and form not in forms:
        raise UsageError(f"--against: --format terminal, {' or '.join(forms)} is required. Received: {form}.")
    reference = load_reference(_OWN_FILE if name == OWN else Path(name))
    file = find_report_file(MODELS, job, study, target)
    manifest, report = read_report(file)
    against = build_against(reference, build_comparison(manifest, report), manifest, file.study)
    if form == "terminal":
        render_against(against, Console())
    else:
        typer.echo(forms[form](against), nl=False)
