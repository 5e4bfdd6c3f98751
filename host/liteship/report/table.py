"""The comparison table for terminal, Markdown, CSV and JSON.

Terminal and Markdown round for the reader; CSV and JSON keep every number as it is, in the unit its name says. A figure
that does not exist is an en dash (nothing in CSV, null in JSON) and the status says why. A narrow terminal stacks two
figures in one cell instead of cutting any.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from liteship.report.rows import Header, Row
from liteship.stats import P90_MIN_QUERIES

JSON_SCHEMA_VERSION = 1

_MISSING = "–"
_WIDE_COLUMNS = 130
_NARROW_COLUMNS = 80
_CAPTIONS = {"loopback": "this computer, not a board"}
_STATUS_STYLES = {"ok": "green", "failed": "red", "refused": "yellow", "not run": "dim"}


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
    table = _wide_table(cells) if wide else _narrow_table(cells)
    if console.width < _NARROW_COLUMNS:
        table.width = _NARROW_COLUMNS
    console.print(table, crop=False)
    console.print()
    if not wide:
        _print_reasons(cells, console)
    for note in _notes(header):
        console.print(Text(note, style="dim"))


def render_markdown(rows: Sequence[Row], header: Header) -> str:
    """The table as GitHub-flavored Markdown, with exact bytes beside the MiB."""
    titles = (
        *("variant", "sparsity", "size MiB (bytes)", "gzip MiB (bytes)", "accuracy on target (95 % interval)"),
        *("accuracy on host", "median ms", "p90 ms", "x float", "status"),
    )
    lines = [_escape(" · ".join(_heading(header))), "", _markdown_line(titles)]
    lines.append(_markdown_line([":--", *["--:"] * (len(titles) - 2), ":--"]))
    lines += [_markdown_line([_escape(cell) for cell in _markdown_cells(row)]) for row in rows]
    lines += ["", *(f"- {_escape(note)}" for note in _notes(header))]
    return "\n".join(lines) + "\n"


def render_csv(rows: Sequence[Row], header: Header) -> str:
    """One line per row, columns named as the fields of `Row`, exact numbers, nothing where there is no figure."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["target", "job_id", *(field.name for field in dataclasses.fields(Row))])
    writer.writerows([header.target, header.job_id, *dataclasses.astuple(row)] for row in rows)
    return out.getvalue()


def render_json(rows: Sequence[Row], header: Header) -> str:
    """One object: schema_version, target, caption, job (the other fields of `Header`), rows (the fields of `Row`)."""
    job = dataclasses.asdict(header)
    document = {
        "schema_version": JSON_SCHEMA_VERSION,
        "target": job.pop("target"),
        "caption": _CAPTIONS.get(header.target),
        "job": job,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _cells(row: Row) -> _Cells:
    return _Cells(
        variant=_plain(row.variant),
        sparsity=_percent(row.achieved_sparsity),
        size=_mebibytes(row.size_bytes),
        gzip=_mebibytes(row.gzip_bytes),
        accuracy=_percent(row.target_accuracy_ratio),
        interval=_interval(row.target_accuracy_low_ratio, row.target_accuracy_high_ratio),
        host_accuracy=_percent(row.host_accuracy_ratio),
        median=_milliseconds(row.median_ns),
        p90=_milliseconds(row.p90_ns),
        ratio=_MISSING if row.ratio_to_float is None else f"{row.ratio_to_float:.2f}",
        status=_plain(row.status),
    )


def _wide_table(rows: Iterable[_Cells]) -> Table:
    table = _empty_table(
        *("sparsity", "size\nMiB", "gzip\nMiB", "accuracy\non target", "95 %\ninterval", "accuracy\non host"),
        *("median\nms", "p90\nms", "x float"),
    )
    for row in rows:
        figures = (row.sparsity, row.size, row.gzip, row.accuracy, row.interval, row.host_accuracy)
        table.add_row(Text(row.variant), *figures, row.median, row.p90, row.ratio, _status_text(row.status, row.status))
    return table


def _narrow_table(rows: Iterable[_Cells]) -> Table:
    table = _empty_table(
        "spar-\nsity", "size\ngzip\nMiB", "accuracy\n95 %\ninterval", "on\nhost", "median\np90\nms", "x\nfloat"
    )
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
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("variant", overflow="fold")
    for title in figures:
        table.add_column(title, justify="right", min_width=max(map(len, title.split("\n"))))
    table.add_column("status", overflow="fold", min_width=max(map(len, _STATUS_STYLES)))
    return table


def _stacked(upper: str, lower: str) -> str:
    return upper if upper == lower == _MISSING else f"{upper}\n{lower}"


def _status_word(status: str) -> str:
    return status.partition(":")[0]


def _status_text(status: str, shown: str) -> Text:
    return Text(shown, style=_STATUS_STYLES.get(_status_word(status), ""))


def _print_reasons(rows: Iterable[_Cells], console: Console) -> None:
    """The reasons that a narrow table has no room for."""
    reasons = [f"{row.variant} {row.status}" for row in rows if ": " in row.status]
    for reason in reasons:
        console.print(Text(reason))
    if reasons:
        console.print()


def _heading(header: Header) -> tuple[str, str]:
    """What was measured, and how."""
    caption = _CAPTIONS.get(header.target)
    runtime = f"{header.runtime} {header.runtime_version}" if header.runtime else "no runtime"
    machine = (f"{header.target} ({caption})" if caption else header.target, header.board or "unknown board")
    conditions = (
        *(runtime, _count(header.threads, "thread"), f"tier {header.tier}", _count(header.image_count, "image")),
        header.date or f"job {header.job_id}",
    )
    return _plain(" · ".join(machine)), _plain(" · ".join(conditions))


def _notes(header: Header) -> list[str]:
    baseline = _plain(header.baseline or "the baseline")
    return [
        "sparsity: share of zero weights in the file. MiB: 1,048,576 bytes; gzip -9.",
        "accuracy: on the target, 95 % Wilson interval; on host: same file, all images.",
        f"median, p90: latency of one invocation, one image; p90 from {P90_MIN_QUERIES} queries on.",
        f"x float: latency as a multiple of {baseline}'s in the same rounds.",
    ]


def _markdown_cells(row: Row) -> tuple[str, ...]:
    cells = _cells(row)
    accuracy = cells.accuracy if cells.interval == _MISSING else f"{cells.accuracy} ({cells.interval})"
    return (
        *(cells.variant, cells.sparsity, _with_bytes(cells.size, row.size_bytes)),
        *(_with_bytes(cells.gzip, row.gzip_bytes), accuracy, cells.host_accuracy),
        *(cells.median, cells.p90, cells.ratio, cells.status),
    )


def _markdown_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escape(text: str) -> str:
    """Text that Markdown shows as it is: no cell border, emphasis, code, link or HTML in it."""
    return "".join(f"\\{letter}" if letter in "\\|*_`[]<>~" else letter for letter in text)


def _plain(text: str) -> str:
    """One line without control characters: reasons come from another machine and may hold terminal escapes."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _percent(ratio: float | None) -> str:
    return _MISSING if ratio is None else f"{100 * ratio:.1f} %"


def _interval(low: float | None, high: float | None) -> str:
    return _MISSING if low is None or high is None else f"{100 * low:.1f}–{100 * high:.1f}"


def _mebibytes(size_bytes: int | None) -> str:
    return _MISSING if size_bytes is None else _three_digits(size_bytes / 2**20)


def _with_bytes(mebibytes: str, size_bytes: int | None) -> str:
    return mebibytes if size_bytes is None else f"{mebibytes} ({size_bytes:,})"


def _milliseconds(latency_ns: float | None) -> str:
    return _MISSING if latency_ns is None else _three_digits(latency_ns / 1e6)


def _three_digits(value: float) -> str:
    """At least three significant digits, never an exponent: 0.0123, 1.54, 13.6, 254, 1254."""
    rounded = float(f"{value:.3g}")
    if rounded <= 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(rounded)))}f}"
