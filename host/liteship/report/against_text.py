"""Published figures beside ours, for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from liteship.report.against import (
    ACCURACY,
    LATENCY_MS,
    LATENCY_RATIO,
    PARAMETERS,
    Against,
    Condition,
    ExperimentBeside,
    Figure,
    OtherExperiment,
    RowBeside,
)
from liteship.report.markdown import escape_markdown, markdown_row
from liteship.report.table import bare_table
from liteship.report.text import MISSING, interval, multiple, multiple_interval, percent, plain, points, three_digits
from liteship_agent.report import VALID

_NARROW_COLUMNS = 80
_NAMES = {
    "file_mib": "file MiB",
    "gzip_mib": "gzip MiB",
    "keras_file_mib": "Keras file MiB",
    "keras_gzip_mib": "Keras gzip MiB",
    PARAMETERS: "parameters",
    ACCURACY: "accuracy",
    LATENCY_MS: "ms/image",
    LATENCY_RATIO: "x float",
}
_FIGURE_TITLES = ("figure", "theirs", "ours", "ours/theirs")
_CONDITION_TITLES = ("what differs", "theirs", "ours")
_LEGEND = (
    "accuracy: ours on the target with its 95 % interval, the difference in points.",
    "x float: latency as a multiple of the same model's in float, each on its own machine.",
    "ms/image of two machines says nothing about either model: it is not compared.",
)


def render_against(against: Against, console: Console) -> None:
    """Print all tables in the console's width, never below 80 columns."""
    console.print(Text(_heading(against), style="bold"))
    for experiment in against.experiments:
        console.print()
        console.print(Text(_title(experiment), style="bold"))
        _print_table(_figure_table(experiment.rows), console)
        console.print()
        _print_table(_condition_table(experiment.differs), console)
        _print_lines(experiment.notes, console)
    console.print()
    console.print(Text("The others", style="bold"))
    _print_lines([_other(other) for other in against.others], console)
    console.print()
    for line in _LEGEND:
        console.print(Text(line, style="dim"))


def against_markdown(against: Against) -> str:
    """All tables as GitHub-flavored Markdown."""
    lines = [escape_markdown(_heading(against))]
    for experiment in against.experiments:
        lines += ["", f"**{escape_markdown(_title(experiment))}**", ""]
        lines += [
            markdown_row(("row", "variant", *_FIGURE_TITLES, "status")),
            "| :-- | :-- | :-- | --: | --: | --: | :-- |",
        ]
        for row in experiment.rows:
            for figure in row.figures:
                cells = (row.name, row.variant, *_cells(figure), row.status)
                lines.append(markdown_row(escape_markdown(plain(cell)) for cell in cells))
        lines += ["", markdown_row(_CONDITION_TITLES), "| :-- | :-- | :-- |"]
        for condition in experiment.differs:
            lines.append(markdown_row(escape_markdown(plain(cell)) for cell in _condition(condition)))
        lines += ["", *(f"- {escape_markdown(plain(note))}" for note in experiment.notes)]
    lines += ["", "**The others**", "", *(f"- {escape_markdown(plain(_other(other)))}" for other in against.others)]
    return "\n".join([*lines, "", *(f"- {text}" for text in _LEGEND)]) + "\n"


def against_json(against: Against) -> str:
    """One object with the fields of `Against`."""
    return json.dumps(dataclasses.asdict(against), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _heading(against: Against) -> str:
    when = against.date or f"job {against.job_id}"
    return plain(f"Theirs: {against.reference}. Ours: study {against.study} on {against.target}, {when}.")


def _title(experiment: ExperimentBeside) -> str:
    return plain(f"{experiment.id} {experiment.what}")


def _other(other: OtherExperiment) -> str:
    where = f" (study {', '.join(other.studies)})" if other.studies else ""
    sentences = [*([f"{other.verdict}."] if other.verdict else ()), *other.notes]
    return f"{other.id} {other.what}{where}" + f": {' '.join(sentences)}" * bool(sentences)


def _figure_table(rows: Sequence[RowBeside]) -> Table:
    """A block of lines for each row, its figures under each other."""
    table = bare_table()
    table.add_column("row\nvariant of ours", overflow="fold")
    table.add_column("figure", no_wrap=True)
    for title in _FIGURE_TITLES[1:]:
        table.add_column(title, justify="right", no_wrap=True)
    for row in rows:
        columns = zip(*map(_cells, row.figures), strict=True)
        name = Text(f"{plain(row.name)}\n{plain(row.variant)}")
        if row.status != VALID:
            name.append(f"\n{plain(row.status)}", style="yellow")
        table.add_row(name, *(Text("\n".join(column)) for column in columns))
    return table


def _condition_table(conditions: Sequence[Condition]) -> Table:
    table = bare_table()
    for title in _CONDITION_TITLES:
        table.add_column(title, overflow="fold")
    for condition in conditions:
        table.add_row(*(Text(plain(cell)) for cell in _condition(condition)))
    return table


def _condition(condition: Condition) -> tuple[str, str, str]:
    return condition.what, condition.theirs or "not known", condition.ours or "not known"


def _cells(figure: Figure) -> tuple[str, str, str, str]:
    """Name, theirs, ours with its interval, and the one to the other."""
    ours = _shown(figure.name, figure.ours)
    bounds = _bounds(figure)
    if bounds != MISSING:
        ours = f"{ours} ({bounds})"
    return _NAMES[figure.name], _shown(figure.name, figure.theirs), ours, _to_theirs(figure)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return MISSING
    if name == PARAMETERS:
        return f"{value:,.0f}"
    if name == ACCURACY:
        return percent(value)
    return multiple(value) if name == LATENCY_RATIO else three_digits(value)


def _bounds(figure: Figure) -> str:
    if figure.name == ACCURACY:
        return interval(figure.ours_low, figure.ours_high)
    return multiple_interval(figure.ours_low, figure.ours_high) if figure.name == LATENCY_RATIO else MISSING


def _to_theirs(figure: Figure) -> str:
    if figure.difference is not None:
        return f"{points(figure.difference)} points" if figure.name == ACCURACY else f"{figure.difference:+,.0f}"
    return MISSING if figure.ratio is None else f"{multiple(figure.ratio)}x"


def _print_table(table: Table, console: Console) -> None:
    if console.width < _NARROW_COLUMNS:
        table.width = _NARROW_COLUMNS
    console.print(table, crop=False)


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(Text(f"- {plain(line)}"))
