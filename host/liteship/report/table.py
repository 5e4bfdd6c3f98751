"""The comparison table for terminal, Markdown, CSV and JSON.

Terminal and Markdown round for the reader; CSV and JSON keep every number as it is, in the unit its name says. A figure
that does not exist is an en dash (nothing in CSV, null in JSON) and the status says why. A narrow terminal stacks two
figures in one cell instead of cutting any. Below the variants stand the sections of `sections`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from liteship.report.rows import Header, Row
from liteship.report.sections import Section, gains_section, keras_lines, keras_section, sparse_sentences
from liteship.report.text import (
    MISSING,
    count,
    interval,
    mebibytes,
    mebibytes_and_bytes,
    millions,
    milliseconds,
    percent,
    plain,
)
from liteship.stats import P90_MIN_QUERIES

JSON_SCHEMA_VERSION = 2

_WIDE_COLUMNS = 130
_NARROW_COLUMNS = 80
_CAPTIONS = {"loopback": "this computer, not a board"}
_STATUS_STYLES = {"ok": "green", "parity failed": "red", "failed": "red", "refused": "yellow", "not run": "dim"}
# Room for "refused" and "not run"; "parity failed" takes two lines.
_STATUS_WIDTH = 7


@dataclass(frozen=True)
class _Cells:
    """The figures of one row as text; `size` and `gzip` in MiB, `median` and `p90` in ms."""

    variant: str
    sparsity: str
    size: str
    gzip: str
    accuracy: str
    interval: str
    host_accuracy: str
    multiply_adds: str
    median: str
    p90: str
    ratio: str
    status: str


def render_terminal(rows: Sequence[Row], header: Header, console: Console) -> None:
    """Print the table in the console's width: from 130 columns on one line a row, below that two, never below 80."""
    cells = [_cells(row) for row in rows]
    for line in _heading(header):
        console.print(Text(line, style="bold"))
    console.print()
    wide = console.width >= _WIDE_COLUMNS
    _print_table(_wide_table(cells) if wide else _narrow_table(cells), console)
    if not wide:
        # The reasons that a narrow table has no room for.
        _print_lines([f"{row.variant} {row.status}" for row in cells if ": " in row.status], console)
    for section in _sections(rows, header):
        console.print(Text(section.title, style="bold"))
        _print_table(_section_table(section), console)
    _print_lines(sparse_sentences(rows), console)
    for note in _notes(header):
        console.print(Text(note, style="dim"))


def render_markdown(rows: Sequence[Row], header: Header) -> str:
    """The table as GitHub-flavored Markdown, with exact bytes beside the MiB."""
    titles = (
        *("variant", "sparsity", "size MiB (bytes)", "gzip MiB (bytes)", "accuracy on target (95 % interval)"),
        *("accuracy on host", "M mult-adds", "median ms", "p90 ms", "x float", "status"),
    )
    lines = [_escape(" · ".join(_heading(header))), "", _markdown_line(titles)]
    lines.append(_markdown_line([":--", *["--:"] * (len(titles) - 2), ":--"]))
    lines += [_markdown_line([_escape(cell) for cell in _markdown_cells(row)]) for row in rows]
    for section in _sections(rows, header, exact=True):
        lines += ["", _escape(section.title), "", _markdown_line(section.columns)]
        lines.append(_markdown_line([":--", *["--:"] * (len(section.columns) - 1)]))
        lines += [_markdown_line(map(_escape, line)) for line in section.lines]
    sentences = sparse_sentences(rows)
    lines += ["", *(f"- {_escape(text)}" for text in [*sentences, *_notes(header)])]
    return "\n".join(lines) + "\n"


def render_csv(rows: Sequence[Row], header: Header) -> str:
    """One line per row, columns named as the fields of `Row`, exact numbers, nothing where there is no figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["target", "job_id", *(field.name for field in dataclasses.fields(Row))])
    writer.writerows([header.target, header.job_id, *dataclasses.astuple(row)] for row in rows)
    return out.getvalue()


def render_json(rows: Sequence[Row], header: Header) -> str:
    """One object: schema_version, target, caption, job (the other fields of `Header`), rows (the fields of `Row`),
    keras_models (the fields of `KerasLine`).
    """
    job = dataclasses.asdict(header)
    document = {
        "schema_version": JSON_SCHEMA_VERSION,
        "target": job.pop("target"),
        "caption": _CAPTIONS.get(header.target),
        "job": job,
        "rows": [dataclasses.asdict(row) for row in rows],
        "keras_models": [dataclasses.asdict(line) for line in keras_lines(rows)],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _cells(row: Row) -> _Cells:
    return _Cells(
        variant=plain(row.variant),
        sparsity=percent(row.achieved_sparsity),
        size=mebibytes(row.size_bytes),
        gzip=mebibytes(row.gzip_bytes),
        accuracy=percent(row.target_accuracy_ratio),
        interval=interval(row.target_accuracy_low_ratio, row.target_accuracy_high_ratio),
        host_accuracy=percent(row.host_accuracy_ratio),
        multiply_adds=millions(row.multiply_adds),
        median=milliseconds(row.median_ns),
        p90=milliseconds(row.p90_ns),
        ratio=MISSING if row.ratio_to_float is None else f"{row.ratio_to_float:.2f}",
        status=plain(row.status),
    )


def _wide_table(rows: Iterable[_Cells]) -> Table:
    table = _empty_table(
        *("sparsity", "size\nMiB", "gzip\nMiB", "accuracy\non target", "95 %\ninterval", "accuracy\non host"),
        *("M mult-\nadds", "median\nms", "p90\nms", "x float"),
    )
    for row in rows:
        figures = (row.sparsity, row.size, row.gzip, row.accuracy, row.interval, row.host_accuracy, row.multiply_adds)
        table.add_row(Text(row.variant), *figures, row.median, row.p90, row.ratio, _status_text(row.status, row.status))
    return table


def _narrow_table(rows: Iterable[_Cells]) -> Table:
    table = _empty_table(
        "spar-\nsity", "size\ngzip\nMiB", "accuracy\n95 %\ninterval", "on\nhost", "median\np90\nms", "x\nfloat"
    )
    table.columns[-1].max_width = _STATUS_WIDTH
    for row in rows:
        table.add_row(
            Text(row.variant),
            row.sparsity,
            _stacked(row.size, row.gzip),
            _stacked(row.accuracy, row.interval),
            row.host_accuracy,
            _stacked(row.median, row.p90),
            row.ratio,
            _status_text(row.status, _status_word(row.status)),
        )
    return table


def _empty_table(*figures: str) -> Table:
    """Names and reasons, as the widest columns, give way to the figures."""
    table = _bare_table()
    table.add_column("variant", overflow="fold")
    for title in figures:
        table.add_column(title, justify="right", min_width=max(map(len, title.split("\n"))))
    table.add_column("status", overflow="fold", min_width=_STATUS_WIDTH)
    return table


def _bare_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _sections(rows: Sequence[Row], header: Header, *, exact: bool = False) -> list[Section]:
    """Those that have something to say."""
    sections = (gains_section(rows, header.baseline or ""), keras_section(rows, exact=exact))
    return [section for section in sections if section.lines]


def _section_table(section: Section) -> Table:
    """Names give way to the figures here too."""
    table = _bare_table()
    name_title, *titles = section.columns
    table.add_column(name_title, overflow="fold")
    for title in titles:
        table.add_column(title, justify="right")
    for name, *figures in section.lines:
        table.add_row(Text(name), *figures)
    return table


def _stacked(upper: str, lower: str) -> str:
    return upper if upper == lower == MISSING else f"{upper}\n{lower}"


def _status_word(status: str) -> str:
    return status.partition(":")[0]


def _status_text(status: str, shown: str) -> Text:
    return Text(shown, style=_STATUS_STYLES.get(_status_word(status), ""))


def _print_table(table: Table, console: Console) -> None:
    if console.width < _NARROW_COLUMNS:
        table.width = _NARROW_COLUMNS
    console.print(table, crop=False)
    console.print()


def _print_lines(lines: Sequence[str], console: Console) -> None:
    for line in lines:
        console.print(Text(line))
    if lines:
        console.print()


def _heading(header: Header) -> tuple[str, str]:
    """What was measured, and how."""
    caption = _CAPTIONS.get(header.target)
    runtime = f"{header.runtime} {header.runtime_version}" if header.runtime else "no runtime"
    machine = (f"{header.target} ({caption})" if caption else header.target, header.board or "unknown board")
    conditions = (
        *(runtime, count(header.threads, "thread"), f"tier {header.tier}", count(header.image_count, "image")),
        header.date or f"job {header.job_id}",
    )
    return plain(" · ".join(machine)), plain(" · ".join(conditions))


def _notes(header: Header) -> list[str]:
    baseline = plain(header.baseline or "the baseline")
    return [
        "sparsity: share of zero weights in the file. MiB: 1,048,576 bytes; gzip -9.",
        "accuracy: on the target, 95 % Wilson interval; on host: same file, all images.",
        f"median, p90: latency of one invocation, one image; p90 from {P90_MIN_QUERIES} queries on.",
        f"x float: latency as a multiple of {baseline}'s in the same rounds.",
        "mult-adds: multiply-adds of one inference. removed: share of all filters.",
        "real gains: times smaller or faster; memory and latency only if in every round.",
    ]


def _markdown_cells(row: Row) -> tuple[str, ...]:
    cells = _cells(row)
    accuracy = cells.accuracy if cells.interval == MISSING else f"{cells.accuracy} ({cells.interval})"
    return (
        *(cells.variant, cells.sparsity, mebibytes_and_bytes(row.size_bytes)),
        *(mebibytes_and_bytes(row.gzip_bytes), accuracy, cells.host_accuracy),
        *(cells.multiply_adds, cells.median, cells.p90, cells.ratio, cells.status),
    )


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: no cell border, emphasis, code, link or HTML in it."""
    return "".join(f"\\{letter}" if letter in "\\|*_`[]<>~" else letter for letter in text)
