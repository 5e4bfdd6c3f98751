"""Three measurements and more beside each other: each row's figures in all of them, against the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from liteship.report.comparison import Comparison, Header, Row
from liteship.report.markdown import escape_markdown, markdown_row
from liteship.report.names import wrap_names
from liteship.report.sentences import row_name, varying_settings
from liteship.report.text import MISSING, mebibytes, milliseconds, percent
from liteship.verdict.changes_text import (
    SCHEMA_VERSION,
    bare_table,
    differences_markdown,
    latency_cell,
    print_differences,
)
from liteship.verdict.choice_text import heading
from liteship.verdict.compare import Change, compare_latency
from liteship.verdict.environments import Difference, find_differences
from liteship.verdict.matching import match_rows

_FIGURES = ("ms", "x {}", "right", "MiB")


@dataclass(frozen=True)
class Line:
    """One row in all measurements.

    Args:
        name: Its variant and setting.
        rows: In each measurement, None where it has none.
        latencies: In each against the first measurement; None in the first, and where one of the two has no row.
    """

    name: str
    rows: tuple[Row | None, ...]
    latencies: tuple[Change | None, ...]


@dataclass(frozen=True)
class SideBySide:
    """Measurements beside each other.

    Args:
        names: A letter for each.
        headers: Of each.
        lines: Of the first in its order, then of what only others have.
        differences: What is not the same in all.
    """

    names: tuple[str, ...]
    headers: tuple[Header, ...]
    lines: tuple[Line, ...]
    differences: tuple[Difference, ...]


def put_side_by_side(comparisons: Sequence[Comparison]) -> SideBySide:
    """Put two measurements or more beside each other; rows are matched with the first that has them."""
    names = tuple(_letter(index) for index in range(len(comparisons)))
    found: list[dict[int, Row]] = [{0: row} for row in comparisons[0].rows]
    for index, comparison in enumerate(comparisons[1:], start=1):
        known = Comparison(comparison.header, tuple(next(iter(rows.values())) for rows in found), ())
        matched = match_rows(known, comparison)
        by_id = {id(one): other for one, other in matched.pairs}
        for rows, one in zip(found, known.rows, strict=True):
            if id(one) in by_id:
                rows[index] = by_id[id(one)]
        found += [{index: row} for row in matched.only_second]
    varying = tuple(dict.fromkeys(name for comparison in comparisons for name in varying_settings(comparison.rows)))
    return SideBySide(
        names=names,
        headers=tuple(comparison.header for comparison in comparisons),
        lines=tuple(_line(rows, comparisons, names, varying) for rows in found),
        differences=find_differences(comparisons),
    )


def print_side_by_side(found: SideBySide, console: Console) -> None:
    """Headings, a table with four lines a row and a column a measurement, and what differs."""
    for name, header in zip(found.names, found.headers, strict=True):
        console.print(Text(f"{name}  {heading(header)}", style="dim"))
    console.print()
    table = bare_table()
    table.add_column("variant", no_wrap=True)
    table.add_column("")
    for name in found.names:
        table.add_column(name, justify="right", overflow="fold")
    for line, wrapped in zip(found.lines, wrap_names([line.name for line in found.lines]), strict=True):
        cells = [_cells(row, change) for row, change in zip(line.rows, line.latencies, strict=True)]
        # Beside the first figures stand the lines of the name, beside the last what is left of them.
        names = [*wrapped.plain.split("\n", len(_FIGURES) - 1), *[""] * len(_FIGURES)]
        for index, (title, name) in enumerate(zip(_FIGURES, names, strict=False)):
            shown = [Text(cell[index] if index < len(cell) else "") for cell in cells]
            table.add_row(Text(name), title.format(found.names[0]), *shown, end_section=index == len(_FIGURES) - 1)
    console.print(table)
    console.print()
    print_differences(found.differences, found.names, console)


def side_by_side_markdown(found: SideBySide) -> str:
    """The same as GitHub-flavored Markdown."""
    lines = [
        f"**{name}**: {escape_markdown(heading(header))}  "
        for name, header in zip(found.names, found.headers, strict=True)
    ]
    titles = [f"{name}: {', '.join(_FIGURES).format(found.names[0])}" for name in found.names]
    lines += ["", markdown_row(["variant", *titles]), markdown_row([":--", *["--:"] * len(titles)])]
    for line in found.lines:
        cells = [_cells(row, change) for row, change in zip(line.rows, line.latencies, strict=True)]
        lines.append(markdown_row(map(escape_markdown, (line.name, *(", ".join(cell) for cell in cells)))))
    return "\n".join([*lines, "", *differences_markdown(found.differences, found.names)]) + "\n"


def side_by_side_json(found: SideBySide) -> dict[str, Any]:
    """As an object: reports, rows with a list of figures each, differences."""
    return {
        "schema_version": SCHEMA_VERSION,
        "reports": [
            {"name": name, "target": header.target, "study": header.study, "job": header.job_id, "date": header.date}
            for name, header in zip(found.names, found.headers, strict=True)
        ],
        "rows": [
            {
                "name": line.name,
                "figures": [
                    None
                    if row is None
                    else {
                        "status": row.status,
                        "sha256": row.sha256,
                        "median_ns": row.median_ns,
                        "target_accuracy_ratio": row.target_accuracy_ratio,
                        "size_bytes": row.size_bytes,
                        "latency": None if change is None else asdict(change),
                    }
                    for row, change in zip(line.rows, line.latencies, strict=True)
                ],
            }
            for line in found.lines
        ],
        "differences": [asdict(difference) for difference in found.differences],
    }


def _line(
    rows: dict[int, Row], comparisons: Sequence[Comparison], names: Sequence[str], varying: Sequence[str]
) -> Line:
    first = rows.get(0)
    latencies = [
        compare_latency(comparisons[0].header, first, comparison.header, rows[index], (names[0], names[index]))
        if first is not None and index in rows and index > 0
        else None
        for index, comparison in enumerate(comparisons)
    ]
    return Line(
        name=row_name(next(iter(rows.values())), varying),
        rows=tuple(rows.get(index) for index in range(len(comparisons))),
        latencies=tuple(latencies),
    )


def _cells(row: Row | None, change: Change | None) -> tuple[str, ...]:
    if row is None:
        return (MISSING,)
    figures = (milliseconds(row.median_ns), MISSING if change is None else latency_cell(change).text)
    return (*figures, percent(row.target_accuracy_ratio), mebibytes(row.size_bytes))


def _letter(index: int) -> str:
    """A, B, ... Z, then 27, 28 and so on."""
    return chr(ord("A") + index) if index < 26 else str(index + 1)
