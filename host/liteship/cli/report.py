"""`liteship report`: the comparison of a measurement, again, in any form."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from liteship.cli.options import MODELS, JobOption, JsonOption, ReportTargetOption, StudyOption
from liteship.errors import UsageError
from liteship.report.comparison import Comparison
from liteship.report.document import render_json
from liteship.report.schema import render_schema
from liteship.report.store import load_comparison
from liteship.report.table import render_csv, render_markdown, render_terminal
from liteship.verdict.shipping import print_verdict, verdict_markdown

FormatOption = Annotated[str, typer.Option("--format", help="terminal, markdown, csv or json.", show_default=True)]


def report_command(
    job: JobOption = "latest",
    target: ReportTargetOption = None,
    study: StudyOption = None,
    form: FormatOption = "terminal",
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
    if against is not None:
        from liteship.cli.against import print_against  # reads recipes, which takes pydantic

        print_against(against, job, study, target, form)
        return
    print_comparison(load_comparison(MODELS, job, study, target), form)


def print_comparison(comparison: Comparison, form: str) -> None:
    """Print a comparison in a form: terminal, markdown, csv or json.

    Raises:
        UsageError: another form.
    """
    if form == "terminal":
        render_terminal(comparison, Console())
        print_verdict(comparison, Console())
        return
    renderers = {"markdown": _render_markdown, "csv": render_csv, "json": render_json}
    if form not in renderers:
        raise UsageError(f"--format: one of terminal, {', '.join(renderers)} is required. Received: {form}.")
    typer.echo(renderers[form](comparison), nl=False)


def _render_markdown(comparison: Comparison) -> str:
    return f"{render_markdown(comparison)}\n{verdict_markdown(comparison)}"
