"""`liteship compare|gate`: measurements beside each other, and whether one may follow another."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from liteship.cli.options import MODELS, JsonOption, ReportTargetOption, StudyOption, plain_console, print_json
from liteship.cli.output import check_output, write_file
from liteship.errors import UsageError, did_you_mean
from liteship.report.store import LATEST, load_comparison
from liteship.verdict.changes_text import changes_json, changes_markdown, print_changes
from liteship.verdict.compare import compare
from liteship.verdict.gate import Allowances, Gate, check_allowances, judge
from liteship.verdict.gate_text import gate_json, gate_markdown, print_gate, verdict_line
from liteship.verdict.side_by_side import (
    print_side_by_side,
    put_side_by_side,
    side_by_side_json,
    side_by_side_markdown,
)

_FILE_COLUMNS = 120
_FORMS = ("terminal", "markdown")
FormatOption = Annotated[str, typer.Option("--format", help="terminal or markdown.", show_default=True)]


def compare_command(
    reports: Annotated[
        list[str],
        typer.Argument(
            metavar="REPORT",
            help="Two or more: a job's id or its first digits, latest, TARGET:latest, or a file (a report, or what "
            "liteship report --format json wrote); liteship reports lists them.",
        ),
    ],
    target: ReportTargetOption = None,
    study: StudyOption = None,
    form: FormatOption = "terminal",
    as_json: JsonOption = False,
) -> None:
    """Compare measurements row by row: boards, days, runtimes, studies; with intervals, and with what differs.

    Of two, regressions and improvements are those whose 95 % interval excludes
    no change: of latencies over the rounds of both, of accuracies image by
    image where the images are the same. A latency of an emulated machine, of
    other threads or CPUs, or of an unstable row is not judged, and one of
    another board is shown and never flagged.
    """
    require_form(form)
    if len(reports) < 2:
        raise UsageError(
            f"At least two reports are required. Received: {len(reports)}.", "liteship reports lists them."
        )
    comparisons = [load_comparison(MODELS, reference, study, target) for reference in reports]
    first, second, *more = comparisons
    if not more:
        changes = compare(first, second)
        if as_json:
            print_json(changes_json(changes))
        elif form == "markdown":
            typer.echo(changes_markdown(changes), nl=False)
        else:
            print_changes(changes, plain_console())
        return
    found = put_side_by_side(comparisons)
    if as_json:
        print_json(side_by_side_json(found))
    elif form == "markdown":
        typer.echo(side_by_side_markdown(found), nl=False)
    else:
        print_side_by_side(found, plain_console())


def gate_command(
    baseline: Annotated[
        str,
        typer.Argument(
            metavar="BASELINE", help="A report as for liteship compare; a committed --format json file is enough."
        ),
    ],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="What is judged.")] = LATEST,
    target: ReportTargetOption = None,
    study: StudyOption = None,
    max_slowdown: Annotated[
        float, typer.Option("--max-slowdown", metavar="RATIO", help="By which the latency of a row may grow.")
    ] = Allowances.max_slowdown,
    max_drop: Annotated[
        float, typer.Option("--max-drop", metavar="RATIO", help="Accuracy that a row may lose (0.01: 1 point).")
    ] = Allowances.max_drop,
    max_growth: Annotated[
        float, typer.Option("--max-growth", metavar="RATIO", help="By which a file, plain or gzip, may grow.")
    ] = Allowances.max_growth,
    max_memory_growth: Annotated[
        float | None,
        typer.Option(
            "--max-memory-growth",
            metavar="RATIO",
            help="By which the anonymous memory of a row may grow.  \\[default: told, not judged]",
        ),
    ] = None,
    accuracy_only: Annotated[
        bool, typer.Option("--accuracy-only", help="Do not judge latency: for machines that cannot be compared.")
    ] = False,
    form: FormatOption = "terminal",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Write it there, and print only the verdict."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Judge a measurement by a baseline: exit code 4 where a row became worse, 6 where it cannot be judged.

    Latency is worse where the whole 95 % interval of its median or p90 lies
    beyond the allowance, accuracy where its point estimate does; a row that is
    gone, refused or failed now is a regression too. Another board, CPU count,
    governor, runtime, thread count or set of CPUs, one side that was forced, an
    emulated machine, and unstable rows cannot be judged, unless
    --accuracy-only. What else differs is told.
    """
    require_form(form)
    allowances = Allowances(max_slowdown, max_drop, max_growth, max_memory_growth)
    check_allowances(allowances)
    if output is not None:
        check_output(output)
    first, second = (load_comparison(MODELS, reference, study, target) for reference in (baseline, candidate))
    gate = judge(first, second, allowances, accuracy_only=accuracy_only)
    if output is not None:
        write_file(output, (gate_markdown(gate) if form == "markdown" else _as_text(gate)).encode())
    if as_json:
        print_json(gate_json(gate))
    elif output is not None:
        typer.echo(verdict_line(gate))
    elif form == "markdown":
        typer.echo(gate_markdown(gate), nl=False)
    else:
        print_gate(gate, plain_console())
    if gate.exit_code:
        raise typer.Exit(gate.exit_code)


def _as_text(gate: Gate) -> str:
    """What a terminal shows, without colours."""
    out = io.StringIO()
    print_gate(gate, Console(file=out, width=_FILE_COLUMNS, emoji=False, markup=False, highlight=False))
    return out.getvalue()


def require_form(form: str) -> None:
    """A form that can be printed.

    Raises:
        UsageError: it is another one.
    """
    if form not in _FORMS:
        required = f"--format: one of {', '.join(_FORMS)} is required. Received: {form}."
        raise UsageError(required, did_you_mean(form, _FORMS))
