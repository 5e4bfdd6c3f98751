"""`liteship report`: the comparison of a measurement, again, in any form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from liteship.cli.options import MODELS, JobOption, JsonOption, ReportTargetOption, StudyOption
from liteship.cli.output import check_output, write_output
from liteship.errors import ReportError, UsageError, did_you_mean
from liteship.report.comparison import Comparison
from liteship.report.document import render_json
from liteship.report.schema import render_schema
from liteship.report.store import ReportFile, find_report_file, load_comparison
from liteship.report.table import render_csv, render_markdown, render_terminal
from liteship.verdict.shipping import print_verdict, verdict_markdown

_TERMINAL, _HTML, _PNG = "terminal", "html", "png"
FormatOption = Annotated[
    str,
    typer.Option(
        "--format",
        help="terminal, markdown, csv or json; html: one page with charts; png: a folder of charts.",
        show_default=True,
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="PATH",
        help="Write to this file, or for png into this folder.  \\[default: stdout; html and png beside the report]",
    ),
]


def report_command(
    job: JobOption = "latest",
    target: ReportTargetOption = None,
    study: StudyOption = None,
    form: FormatOption = "terminal",
    output: OutputOption = None,
    open_it: Annotated[bool, typer.Option("--open", help="With --format html: show the page in a browser.")] = False,
    as_json: JsonOption = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Published figures beside ours: reference (benchmarks/reference.toml) or a file like it.",
        ),
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of --format json instead.")] = False,
) -> None:
    """Print the comparison table of a measurement again."""
    if schema:
        typer.echo(render_schema(), nl=False)
        return
    form = "json" if as_json else form
    if open_it and form != _HTML:
        raise UsageError(f"--open: --format html is required. Received: {form}.")
    if output is not None and (form == _TERMINAL or against is not None):
        received = "--against" if against is not None else "a table for the terminal"
        raise UsageError(f"--output: --format markdown, csv, json, html or png is required. Received: {received}.")
    if output is not None:
        check_output(output)
    if against is not None:
        from liteship.cli.against import print_against  # reads recipes, which takes pydantic

        print_against(against, job, study, target, form)
        return
    if form in (_HTML, _PNG):
        from liteship.cli.pages import write_page, write_pictures

        file = _raw_report(job, study, target)
        if form == _HTML:
            write_page(file, output, open_it)
        else:
            write_pictures(file, output)
        return
    print_comparison(load_comparison(MODELS, job, study, target), form, output)


def print_comparison(comparison: Comparison, form: str, output: Path | None = None) -> None:
    """Print a comparison in a form: terminal, markdown, csv or json.

    Args:
        comparison: To be shown.
        form: How.
        output: A file to write to instead, not for terminal; its path is printed.

    Raises:
        UsageError: another form, or nothing can be written there.
    """
    if form == _TERMINAL:
        render_terminal(comparison, Console())
        print_verdict(comparison, Console())
        return
    renderers = {"markdown": _render_markdown, "csv": render_csv, "json": render_json}
    if form not in renderers:
        forms = [_TERMINAL, *renderers, _HTML, _PNG]
        required = f"--format: one of {', '.join(forms)} is required. Received: {form}."
        raise UsageError(required, did_you_mean(form, forms))
    text = renderers[form](comparison)
    if output is None:
        typer.echo(text, nl=False)
        return
    write_output(output, text.encode())


def _raw_report(job: str, study: str | None, target: str | None) -> ReportFile:
    """The file of a report; a comparison that was kept as JSON cannot be drawn."""
    try:
        return find_report_file(MODELS, job, study, target)
    except ReportError as exc:
        if not Path(job).is_file():
            raise
        hint = "Charts are drawn from raw latencies, and a comparison kept as JSON has none."
        raise ReportError(exc.message, f"{hint} {exc.hint}".strip()) from exc


def _render_markdown(comparison: Comparison) -> str:
    return f"{render_markdown(comparison)}\n{verdict_markdown(comparison)}"
