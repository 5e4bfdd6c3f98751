"""Two measurements beside each other as a table for a terminal, as Markdown, and as a JSON object."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from liteship.report.markdown import escape_markdown, markdown_row
from liteship.report.names import Name, wrap_names
from liteship.report.statuses import status_word
from liteship.report.text import (
    MISSING,
    count,
    mebibytes,
    milliseconds,
    multiple,
    multiple_interval,
    plain,
    points,
    points_interval,
)
from liteship.verdict.choice_text import heading
from liteship.verdict.compare import BETTER, WORSE, Change, Changes, RowChange, start_ns
from liteship.verdict.environments import Difference, are_boards_equal

SCHEMA_VERSION = 1
_FIGURES = ("latency", "p90", "end_to_end", "start", "accuracy", "size", "gzip", "memory", "anonymous")
_WIDE_COLUMNS = 160
_UNJUDGED_TITLES = ("end to end ms", "load and first ms", "memory MiB", "anonymous MiB")
_STYLES = {WORSE: "red", BETTER: "green", None: "bright_black"}
_LATENCY_WORDS = {WORSE: "slower", BETTER: "faster"}
_ACCURACY_WORDS = {WORSE: "less accurate", BETTER: "more accurate"}
_SIZE_WORDS = {WORSE: "larger", BETTER: "smaller"}


@dataclass(frozen=True)
class Cell:
    """What a table shows of one figure.

    Args:
        lines: Figure, interval and word; one below the other where there is little room.
        verdict: As in `Change`.
    """

    lines: tuple[str, ...]
    verdict: str | None

    @property
    def text(self) -> str:
        """All in one line."""
        figure, *others = self.lines
        return f"{figure} ({', '.join(others)})" if others else figure


def latency_cell(change: Change) -> Cell:
    """1.21, 1.20–1.22, slower."""
    return _cell(change, multiple, multiple_interval, _LATENCY_WORDS)


def accuracy_cell(change: Change) -> Cell:
    """-2.4, -3.9 to -1.1, less accurate."""
    return _cell(change, points, points_interval, _ACCURACY_WORDS)


def size_cell(row: RowChange) -> Cell:
    """8.40, or 8.40 → 8.60 and larger, in MiB."""
    words = (_SIZE_WORDS[row.size.verdict],) if row.size.verdict in _SIZE_WORDS else ()
    return Cell((_from_to(mebibytes, row.first.size_bytes, row.second.size_bytes), *words), row.size.verdict)


def gzip_cell(row: RowChange) -> Cell:
    """The same after gzip."""
    words = (_SIZE_WORDS[row.gzip.verdict],) if row.gzip.verdict in _SIZE_WORDS else ()
    return Cell((_from_to(mebibytes, row.first.gzip_bytes, row.second.gzip_bytes), *words), row.gzip.verdict)


def row_sentences(row: RowChange, verdict: str) -> list[str]:
    """What became worse, or better, beyond doubt."""
    sentences = []
    if row.latency.verdict == verdict:
        p90 = "" if row.p90.verdict is None else f", p90 {_bounded(row.p90, multiple, 'x')}"
        sentences.append(f"{row.name} is {_LATENCY_WORDS[verdict]}: {_bounded(row.latency, multiple, 'x')}{p90}")
    elif row.p90.verdict == verdict:
        sentences.append(f"{row.name} is {_LATENCY_WORDS[verdict]} at p90: {_bounded(row.p90, multiple, 'x')}")
    if row.accuracy.verdict == verdict:
        sentences.append(f"{row.name} is {_ACCURACY_WORDS[verdict]}: {_bounded(row.accuracy, points, ' points')}")
    for change, cell, after in ((row.size, size_cell(row), ""), (row.gzip, gzip_cell(row), " after gzip")):
        if change.verdict == verdict:
            sentences.append(f"{row.name} is {_SIZE_WORDS[verdict]}{after}: {cell.lines[0]} MiB")
    return sentences


def summarize_changes(changes: Changes) -> list[tuple[str, list[str]]]:
    """Regressions, improvements, what is not judged and what only one side has: a headline each, and what is in it."""
    found: list[tuple[str, list[str]]] = []
    if not are_boards_equal(changes.first, changes.second):
        found.append(("A comparison of boards: what differs is neither a regression nor an improvement.", []))
    else:
        for verdict, word in ((WORSE, "regression"), (BETTER, "improvement")):
            sentences = [sentence for row in changes.rows for sentence in row_sentences(row, verdict)]
            found.append((count(len(sentences), word), sentences))
        # What neither has is nothing that changed.
        rows = [row for row in changes.rows if row.first.median_ns is not None or row.second.median_ns is not None]
        if unjudged := [f"{row.name}: {row.latency.reason}" for row in rows if row.latency.verdict is None]:
            found.append(("latency not judged", unjudged))
    if reasons := [
        plain(f"{row.name}: {row.first.status}, then {row.second.status}")
        for row in changes.rows
        if status_word(row.first) != status_word(row.second)
    ]:
        found.append(("another status", reasons))
    for name, alone in zip(changes.names, (changes.only_first, changes.only_second), strict=True):
        if alone:
            found.append((f"only in {name}", [one.name for one in alone]))
    return found


def print_changes(changes: Changes, console: Console) -> None:
    """Both headings, what changed beyond doubt, the rows, and what differs between the measurements."""
    for name, header in zip(changes.names, (changes.first, changes.second), strict=True):
        console.print(Text(f"{name}  {heading(header)}", style="dim"))
    console.print()
    for headline, sentences in summarize_changes(changes):
        console.print(Text(headline, style="bold"))
        for sentence in sentences:
            console.print(Padding(Text(sentence), (0, 0, 0, 2), expand=False))
    console.print()
    if changes.rows:
        print_rows(changes.rows, *changes.names, console)
    print_differences(changes.differences, changes.names, console)


def print_rows(rows: Sequence[RowChange], first: str, second: str, console: Console) -> None:
    """The rows under short names of both sides: what is judged, then what has no interval."""
    shared = _shared_notes(rows)
    tables = [_judged_table(rows, first, second, wide=console.width >= _WIDE_COLUMNS)]
    if any(set(_unjudged_cells(row)) != {MISSING} for row in rows):
        tables.append(_unjudged_table(rows, first, second))
    for table in tables:
        console.print(table)
        console.print()
    if shared:
        console.print(Text(f"Every row: {'; '.join(shared)}"))
        console.print()


def _shared_notes(rows: Sequence[RowChange]) -> tuple[str, ...]:
    """Notes that every row that both measured has, where there are several: they are told once."""
    noted = [row.notes for row in rows if None not in (row.first.median_ns, row.second.median_ns)]
    return tuple(note for note in noted[0] if all(note in notes for notes in noted)) if len(noted) > 1 else ()


def _judged_table(rows: Sequence[RowChange], first: str, second: str, *, wide: bool) -> Table:
    """Figures are stacked where there is little room."""
    table = bare_table()
    shared = _shared_notes(rows)
    names = [[row.name, *(f"({note})" for note in row.notes if note not in shared)] for row in rows]
    shown_names = [Text(" ".join(parts)) for parts in names] if wide else wrap_names(["\n".join(one) for one in names])
    table.add_column("variant", no_wrap=not wide, overflow="fold")
    table.add_column(f"median ms\n{first} → {second}", justify="right", no_wrap=True)
    titles = (f"{second} / {first}\n95 %", "p90\n95 %", "accuracy\npoints")
    for title in (*titles, "file MiB", *["gzip MiB"] * wide):
        table.add_column(title, justify="right", overflow="fold")
    for row, name in zip(rows, shown_names, strict=True):
        cells = [latency_cell(row.latency), latency_cell(row.p90), accuracy_cell(row.accuracy), size_cell(row)]
        if row.p90.reason == row.latency.reason != "":
            cells[1] = Cell((MISSING,), None)  # One reason is enough.
        cells += [gzip_cell(row)] if wide else []
        shown = [
            Text(cell.text if wide else "\n".join(cell.lines), style=_STYLES.get(cell.verdict, "")) for cell in cells
        ]
        table.add_row(name, _medians(row), *shown)
    return table


def _unjudged_table(rows: Sequence[RowChange], first: str, second: str) -> Table:
    table = bare_table()
    table.add_column(f"not judged\n{first} → {second}", no_wrap=True)
    for title in _UNJUDGED_TITLES:
        table.add_column(title, justify="right", overflow="fold")
    # A row that was not measured has nothing to show here.
    shown = [row for row in rows if set(_unjudged_cells(row)) != {MISSING}]
    for row, name in zip(shown, wrap_names([row.name for row in shown]), strict=True):
        table.add_row(name, *_unjudged_cells(row))
    return table


def print_differences(differences: Sequence[Difference], names: Sequence[str], console: Console) -> None:
    """What differs, a line each."""
    if not differences:
        console.print(Text("Nothing known differs between the measurements."))
        return
    table = bare_table()
    table.add_column("differs", no_wrap=True)
    for name in names:
        table.add_column(Text(name), overflow="fold")
    for difference in differences:
        table.add_row(difference.name, *map(Name, difference.values))
    console.print(table)


def changes_markdown(changes: Changes) -> str:
    """The same as GitHub-flavored Markdown."""
    first, second = changes.names
    lines = [
        f"**{escape_markdown(name)}**: {escape_markdown(heading(header))}  "
        for name, header in zip(changes.names, (changes.first, changes.second), strict=True)
    ]
    lines.append("")
    for headline, sentences in summarize_changes(changes):
        lines += [f"- {escape_markdown(headline)}", *(f"  - {escape_markdown(sentence)}" for sentence in sentences)]
    lines.append("")
    lines += [
        *rows_markdown(changes.rows, first, second),
        "",
        *differences_markdown(changes.differences, changes.names),
    ]
    return "\n".join(lines) + "\n"


def rows_markdown(rows: Sequence[RowChange], first: str, second: str) -> list[str]:
    """A table of rows; none without rows."""
    if not rows:
        return []
    ratio = f"{second} / {first}"
    titles = ("variant", f"median ms {first} → {second}", f"{ratio} (95 %)", f"p90 {ratio} (95 %)")
    others = ("accuracy points (95 %)", "file MiB", "gzip MiB", *_UNJUDGED_TITLES)
    lines = [markdown_row(map(escape_markdown, (*titles, *others, "notes")))]
    lines.append(markdown_row([":--", *["--:"] * (len(titles) - 1 + len(others)), ":--"]))
    for row in rows:
        cells = [latency_cell(row.latency), latency_cell(row.p90), accuracy_cell(row.accuracy)]
        cells += [size_cell(row), gzip_cell(row)]
        texts = [row.name, _medians(row), *(cell.text for cell in cells), *_unjudged_cells(row), "; ".join(row.notes)]
        lines.append(markdown_row(map(escape_markdown, texts)))
    return lines


def differences_markdown(differences: Sequence[Difference], names: Sequence[str]) -> list[str]:
    """A table of what differs."""
    if not differences:
        return ["Nothing known differs between the measurements."]
    lines = [markdown_row(map(escape_markdown, ("differs", *names))), markdown_row([":--"] * (1 + len(names)))]
    return lines + [markdown_row(map(escape_markdown, (found.name, *found.values))) for found in differences]


def changes_json(changes: Changes) -> dict[str, Any]:
    """As an object: reports, rows with a change for each figure, rows that only one has, differences."""
    return {
        "schema_version": SCHEMA_VERSION,
        "reports": [
            {"name": name, "target": header.target, "study": header.study, "job": header.job_id, "date": header.date}
            for name, header in zip(changes.names, (changes.first, changes.second), strict=True)
        ],
        "rows": [row_json(row) for row in changes.rows],
        "only_first": [alone.name for alone in changes.only_first],
        "only_second": [alone.name for alone in changes.only_second],
        "differences": [asdict(difference) for difference in changes.differences],
    }


def row_json(row: RowChange) -> dict[str, Any]:
    """One row: its name, the files, and for each figure estimate, interval, verdict and reason."""
    figures = {}
    for name in _FIGURES:
        change: Change = getattr(row, name)
        found = {"value": None, "low": None, "high": None} if change.estimate is None else asdict(change.estimate)
        figures[name] = {**found, "verdict": change.verdict, "reason": change.reason}
    return {
        "name": row.name,
        "variant": row.first.variant,
        "sha256": [row.first.sha256, row.second.sha256],
        "status": [row.first.status, row.second.status],
        "median_ns": [row.first.median_ns, row.second.median_ns],
        "size_bytes": [row.first.size_bytes, row.second.size_bytes],
        **figures,
        "notes": list(row.notes),
    }


def bare_table() -> Table:
    """Without edges, for what is printed between sentences."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))


def _cell(
    change: Change,
    figure: Callable[[float | None], str],
    interval: Callable[[float | None, float | None], str],
    words: dict[str, str],
) -> Cell:
    found = change.estimate
    lines = [] if found is None else [figure(found.value)]
    if found is not None and found.low is not None:
        lines.append(interval(found.low, found.high))
    lines += [text for text in (words.get(change.verdict or "", ""), change.reason) if text]
    return Cell(tuple(lines) or (MISSING,), change.verdict)


def _bounded(change: Change, figure: Callable[[float | None], str], unit: str) -> str:
    found = change.estimate
    if found is None:
        return MISSING
    interval = multiple_interval if figure is multiple else points_interval
    reason = f", {change.reason}" if change.reason else ""
    return f"{figure(found.value)}{unit} ({interval(found.low, found.high)}{reason})"


def _medians(row: RowChange) -> str:
    return _from_to(milliseconds, row.first.median_ns, row.second.median_ns)


def _unjudged_cells(row: RowChange) -> tuple[str, ...]:
    """What has no interval; the titles are `_UNJUDGED_TITLES`."""
    one, other = row.first, row.second
    return (
        _from_to(milliseconds, one.end_to_end_median_ns, other.end_to_end_median_ns),
        _from_to(milliseconds, start_ns(one), start_ns(other)),
        _from_to(mebibytes, one.rss_peak_bytes, other.rss_peak_bytes),
        _from_to(mebibytes, one.rss_anon_bytes, other.rss_anon_bytes),
    )


def _from_to(shown: Callable[[Any], str], one: float | None, other: float | None) -> str:
    """Once where both look alike."""
    before, after = shown(one), shown(other)
    return before if before == after else f"{before} → {after}"
