"""`liteship report`: the comparison table of a measurement, again."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from liteship.cli.common import MODELS, JsonOption, StudyOption, TargetOption, check_options
from liteship.errors import UsageError
from liteship.manifests import read_manifest, study_folder
from liteship.report.rows import build_comparison
from liteship.report.store import load_report
from liteship.report.table import render_csv, render_json, render_markdown, render_terminal
from liteship.targets import LOOPBACK
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report

FormatOption = Annotated[str, typer.Option("--format", help="terminal, markdown, csv or json.", show_default=True)]


def report_command(
    target: TargetOption = LOOPBACK,
    study: StudyOption = None,
    job: Annotated[str | None, typer.Option("--job", help="Id of the job.  \\[default: the latest]")] = None,
    form: FormatOption = "terminal",
    as_json: JsonOption = False,
) -> None:
    """Print the comparison table of a measurement again."""
    folder = study_folder(MODELS, study)
    manifest = read_manifest(folder)
    if not (folder / "reports" / target).is_dir():
        check_options(target, None)
    print_report(manifest, load_report(folder, target, job), "json" if as_json else form)


def print_report(manifest: Manifest, report: Report, form: str) -> None:
    """Print a report in a form: terminal, markdown, csv or json.

    Raises:
        UsageError: another form.
        ReportError: the report is not of this manifest.
    """
    comparison = build_comparison(manifest, report)
    if form == "terminal":
        render_terminal(comparison, Console())
        return
    renderers = {"markdown": render_markdown, "csv": render_csv, "json": render_json}
    if form not in renderers:
        raise UsageError(f"--format: one of terminal, {', '.join(renderers)} is required. Received: {form}.")
    typer.echo(renderers[form](comparison), nl=False)
