"""`liteship reports`: everything that was measured, the latest first."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich.console import Console

from liteship.cli.options import MODELS, JsonOption, print_json
from liteship.manifests import study_folder
from liteship.report.history import past_reports, render_past
from liteship.report.store import find_reports, require_target


def reports_command(
    study: Annotated[str | None, typer.Option("--study", help="Of this study alone.  \\[default: of all]")] = None,
    target: Annotated[str | None, typer.Option("--target", help="Of this target alone.  \\[default: of all]")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many, the latest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List what was measured, the latest first; every id is one for report, choose, compare and gate."""
    if target is not None:
        require_target(MODELS, target)
    files = find_reports(MODELS, None if study is None else study_folder(MODELS, study).name, target)
    lines = past_reports(files[:limit])
    older = len(files) - len(lines)
    if as_json:
        print_json({"reports": [dataclasses.asdict(line) for line in lines], "older": older})
        return
    if not lines:
        typer.echo("No report yet. Measure: liteship bench")
        return
    render_past(lines, Console())
    if older:
        typer.echo(f"{older} older: liteship reports --limit {len(files)}")
