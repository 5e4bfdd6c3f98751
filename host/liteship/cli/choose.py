"""`liteship choose`: which model of a measurement to ship."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liteship.cli.options import (
    MODELS,
    JobOption,
    JsonOption,
    ReportTargetOption,
    StudyOption,
    plain_console,
    print_json,
)
from liteship.errors import GateError
from liteship.report.store import load_comparison
from liteship.verdict.budgets import Budgets, join_budgets
from liteship.verdict.choice_text import choice_json, print_choice
from liteship.verdict.choose import choose
from liteship.verdict.shipping import default_budgets


def choose_command(
    job: JobOption = "latest",
    target: ReportTargetOption = None,
    study: StudyOption = None,
    max_latency_ms: Annotated[
        float | None, typer.Option("--max-latency-ms", metavar="MS", help="Of one invocation, at the percentile.")
    ] = None,
    percentile: Annotated[
        int | None,
        typer.Option("--percentile", metavar="50|90", help="That the latency budget is for.  \\[default: 90]"),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop", metavar="RATIO", help="Accuracy lost against the baseline on the same images (0.01: 1 point)."
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None, typer.Option("--min-accuracy", metavar="RATIO", help="Share of images classified correctly.")
    ] = None,
    max_size_mib: Annotated[
        float | None, typer.Option("--max-size-mib", metavar="MIB", help="Of the .tflite file.")
    ] = None,
    max_gzip_mib: Annotated[
        float | None, typer.Option("--max-gzip-mib", metavar="MIB", help="Of the file after gzip -9.")
    ] = None,
    max_memory_mib: Annotated[
        float | None, typer.Option("--max-memory-mib", metavar="MIB", help="Largest resident set of its processes.")
    ] = None,
    prefer: Annotated[
        str | None,
        typer.Option(
            "--prefer",
            metavar="FIGURE",
            help="accuracy, latency or size: decides between those that keep to all budgets.  \\[default: accuracy "
            "where latency, size or memory is limited and accuracy is not, else latency]",
        ),
    ] = None,
    certain: Annotated[
        bool, typer.Option("--certain", help="The bounds of latency and accuracy must keep to the budgets too.")
    ] = False,
    budgets: Annotated[
        Path | None,
        typer.Option(
            "--budgets", metavar="FILE", help="TOML: schema_version = 1 and the budgets by their names (max_drop)."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the model to ship: the best that keeps to every budget, and why each other lost.

    Point estimates decide; a bound or interval that reaches over a budget, and
    ties, are named. A row that is unstable, refused, failed, or failed its
    parity or golden outputs never wins, and none of an emulated machine.
    Without any budget it is asked for what "What to ship" of a table is: no
    more loss of accuracy than the study's parity allows (else 2 points).

    Exit code 4: nothing keeps to every budget.
    """
    asked = Budgets(
        max_latency_ms=max_latency_ms,
        percentile=percentile,
        max_drop=max_drop,
        min_accuracy=min_accuracy,
        max_size_mib=max_size_mib,
        max_gzip_mib=max_gzip_mib,
        max_memory_mib=max_memory_mib,
        prefer=prefer,
        certain=certain or None,
    )
    joined = join_budgets(asked, budgets)
    comparison = load_comparison(MODELS, job, study, target)
    by_default = not joined.limits()
    choice = choose(comparison, default_budgets(comparison, joined) if by_default else joined)
    if as_json:
        print_json(choice_json(choice, by_default=by_default))
    else:
        print_choice(choice, plain_console(), by_default=by_default)
    if choice.winner is None:
        raise typer.Exit(GateError.exit_code)
