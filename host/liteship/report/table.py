"""The comparison for terminal, Markdown and CSV.

Terminal and Markdown round for the reader; CSV keeps every number as it is, in the unit its name says. A figure that
does not exist is an en dash (nothing in CSV) and the status says why. Where a terminal is too narrow
for one line a row, figures are stacked in one cell instead of cutting any. Below the rows stand the tables of
`sections` and the sentences of `sentences`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from liteship.built_in import CAPTIONS, EMULATED
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.markdown import escape_markdown, markdown_row
from liteship.report.names import Name
from liteship.report.sections import (
    Section,
    against_section,
    confusion_section,
    flips_section,
    keras_section,
    process_section,
)
from liteship.report.sentences import (
    flip_sentences,
    forced_sentence,
    plausibility_sentences,
    row_name,
    setting_texts,
    sparse_sentences,
    validity_sentences,
    varying_settings,
)
from liteship.report.statuses import FORCED, GOLDEN_FAILED, PARITY_FAILED, THROTTLE_UNKNOWN
from liteship.report.text import (
    MISSING,
    count,
    cpu_list,
    interval,
    mebibytes,
    mebibytes_and_bytes,
    millions,
    milliseconds,
    milliseconds_within,
    multiple,
    multiple_interval,
    percent,
    plain,
)
from liteship.stats import P90_MIN_QUERIES

_NARROW_COLUMNS = 80
_UNLIMITED = 10_000
_STATUS_STYLES = {
    "valid": "green",
    "repeated": "green",
    THROTTLE_UNKNOWN: "yellow",
    "unstable": "yellow",
    "refused": "yellow",
    PARITY_FAILED: "red",
    GOLDEN_FAILED: "red",
    "failed": "red",
    "not run": "dim",
}
# Room for "repeated" and "throttle" over "unknown".
_STATUS_WIDTH = 8
_SETTING_TITLES = {"threads": "threads", "cpus": "CPUs", "runtime": "runtime"}


@dataclass(frozen=True)
class _Cells:
    """The figures of one row as text; `size` and `gzip` in MiB, latencies in ms; `settings` by name, what varies."""

    variant: str
    settings: dict[str, str]
    sparsity: str
    size: str
    gzip: str
    accuracy: str
    interval: str
    host_accuracy: str
    multiply_adds: str
    median: str
    p90: str
    p90_bound: str
    ratio: str
    ratio_interval: str
    status: str


def render_terminal(comparison: Comparison, console: Console) -> None:
    """Print the table in the console's width: one line a row where that fits, else stacked, never below 80 columns."""
    varying = varying_settings(comparison.rows)
    cells = [_cells(row, varying) for row in comparison.rows]
    for line in _heading(comparison.header):
        console.print(Text(line, style="bold"))
    if forced := forced_sentence(comparison.header):
        console.print(Text(forced, style="bold yellow"))
    console.print()
    times = _times(comparison.header)
    latency_style = "bright_black" if comparison.header.target == EMULATED else ""
    wide = _wide_table(cells, varying, times, latency_style)
    fits = console.measure(wide, options=console.options.update(width=_UNLIMITED)).maximum <= console.width
    wide.columns[-1].max_width = None  # What is left over is the status's.
    _print_table(wide if fits else _narrow_table(cells, times, latency_style), console)
    reasons = [f"{row_name(row, varying)} {plain(row.status)}" for row in comparison.rows if ": " in row.status]
    _print_lines([*reasons, *validity_sentences(comparison)], console)
    for section in _filled(
        against_section(comparison), process_section(comparison.rows), keras_section(comparison.rows)
    ):
        console.print(Text(section.title, style="bold"))
        _print_table(_section_table(section), console)
    _print_lines(_closing_sentences(comparison), console)
    for note in _notes(comparison.header):
        console.print(Text(note, style="dim"))


def render_markdown(comparison: Comparison) -> str:
    """The table as GitHub-flavored Markdown, with exact bytes beside the MiB, flips and confusion matrices."""
    varying = varying_settings(comparison.rows)
    titles = (
        *("variant", *(_SETTING_TITLES[name] for name in varying), "sparsity", "size MiB (bytes)", "gzip MiB (bytes)"),
        *("accuracy on target (95 % interval)", "accuracy on host", "M mult-adds", "median ms (95 % interval)"),
        *("p90 ms", "p90 bound ms", f"{_times(comparison.header)} (95 % interval)", "status"),
    )
    lines = [escape_markdown(" · ".join(_heading(comparison.header))), "", markdown_row(titles)]
    if forced := forced_sentence(comparison.header):
        lines[1:1] = ["", f"**{escape_markdown(forced)}**"]
    lines.append(markdown_row([":--", *["--:"] * (len(titles) - 2), ":--"]))
    lines += [markdown_row(map(escape_markdown, _markdown_cells(row, varying))) for row in comparison.rows]
    sentences = validity_sentences(comparison)
    lines += ["", *(f"- {escape_markdown(text)}" for text in sentences)] if sentences else []
    for section in _filled(
        against_section(comparison),
        process_section(comparison.rows),
        keras_section(comparison.rows, exact=True),
        flips_section(comparison.answers),
        confusion_section(comparison.answers),
    ):
        lines += [
            "",
            escape_markdown(section.title),
            "",
            markdown_row([escape_markdown(title.replace("\n", " ")) for title in section.columns]),
        ]
        lines.append(markdown_row([":--", *["--:"] * (len(section.columns) - 1)]))
        lines += [markdown_row(map(escape_markdown, line)) for line in section.lines]
    notes = [*_closing_sentences(comparison), *_notes(comparison.header)]
    return "\n".join([*lines, "", *(f"- {escape_markdown(text)}" for text in notes)]) + "\n"


def render_csv(comparison: Comparison) -> str:
    """One line per row, columns named as the fields of `Row`, exact numbers, nothing where there is no figure.

    CPUs stand as 0-3, several reasons or rounds in one cell between semicolons.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    header = comparison.header
    writer.writerow(["target", "job_id", *(field.name for field in dataclasses.fields(Row))])
    for row in comparison.rows:
        cells = {**dataclasses.asdict(row), "cpus": "" if row.cpus is None else cpu_list(row.cpus)}
        cells |= {name: "; ".join(getattr(row, name)) for name in ("reasons", "peak_reasons")}
        cells["round_medians_ns"] = "; ".join("" if ns is None else str(ns) for ns in row.round_medians_ns)
        writer.writerow([header.target, header.job_id, *cells.values()])
    return out.getvalue()


def _cells(row: Row, varying: Sequence[str]) -> _Cells:
    ratio_interval = multiple_interval(row.ratio_low, row.ratio_high)
    return _Cells(
        variant=plain(row.variant),
        settings=setting_texts(row, varying),
        sparsity=percent(row.achieved_sparsity),
        size=mebibytes(row.size_bytes),
        gzip=mebibytes(row.gzip_bytes),
        accuracy=percent(row.target_accuracy_ratio),
        interval=interval(row.target_accuracy_low_ratio, row.target_accuracy_high_ratio),
        host_accuracy=percent(row.host_accuracy_ratio),
        multiply_adds=millions(row.multiply_adds),
        median=milliseconds_within(row.median_ns, row.median_low_ns, row.median_high_ns),
        p90=milliseconds(row.p90_ns),
        p90_bound=milliseconds(row.p90_bound_ns),
        ratio=multiple(row.ratio_to_baseline),
        # The baseline is one times itself, without an interval.
        ratio_interval=MISSING if row.latency_tie is None else ratio_interval + (" tie" if row.latency_tie else ""),
        status=plain(row.status),
    )


def _times(header: Header) -> str:
    """Title of the ratios."""
    return "x float" if header.baseline_is_float else "x base"


def _wide_table(rows: Iterable[_Cells], varying: Sequence[str], times: str, latency_style: str) -> Table:
    table = _empty_table(
        "ignore",
        *(_SETTING_TITLES[name] for name in varying),
        *("spar-\nsity", "size\nMiB", "gzip\nMiB", "accuracy", "95 %\ninterval", "on\nhost"),
        *("mult-\nadds M", "median\nms", "p90\nms", "p90\nbound", times.replace(" ", "\n"), "95 %\ninterval"),
    )
    for row in rows:
        settings = [_short(row.settings.get(name, MISSING)) for name in varying]
        figures = (row.sparsity, row.size, row.gzip, row.accuracy, row.interval, row.host_accuracy, row.multiply_adds)
        latencies = (row.median, row.p90, row.p90_bound, row.ratio, row.ratio_interval)
        shown = [Text(figure, style=latency_style) for figure in latencies]
        table.add_row(Text(row.variant), *settings, *figures, *shown, _status_text(row.status))
    return table


def _narrow_table(rows: Iterable[_Cells], times: str, latency_style: str) -> Table:
    table = _empty_table(
        "fold",
        *("spar-\nsity", "size\ngzip\nMiB", "accuracy\ninterval\non host"),
        *("median\np90\nbound ms", f"{times}\n95 %\ninterval"),
    )
    for row in rows:
        table.add_row(
            Name("\n".join([row.variant, *row.settings.values()])),
            row.sparsity,
            _stacked(row.size, row.gzip),
            _stacked(row.accuracy, row.interval, row.host_accuracy),
            Text(_stacked(row.median, row.p90, row.p90_bound), style=latency_style),
            Text(_stacked(row.ratio, *row.ratio_interval.split(" ")), style=latency_style),
            _status_text(row.status),
        )
    return table


def _empty_table(names: Literal["fold", "ignore"], *figures: str) -> Table:
    """Status words, and names where they may be folded, give way to the figures."""
    table = bare_table()
    table.add_column("variant", overflow=names, no_wrap=names == "ignore")
    for title in figures:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("status", overflow="fold", min_width=_STATUS_WIDTH, max_width=_STATUS_WIDTH)
    return table


def bare_table() -> Table:
    """Columns with a line below their titles and nothing else, for `add_column`."""
    return Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))


def _filled(*sections: Section) -> list[Section]:
    """Those that have something to say."""
    return [section for section in sections if section.lines]


def _section_table(section: Section) -> Table:
    """Names give way to the figures here too."""
    table = bare_table()
    name_title, *titles = section.columns
    table.add_column(name_title, overflow="fold")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    for name, *figures in section.lines:
        table.add_row(Name(name), *figures)
    return table


def _stacked(*figures: str) -> str:
    """Figures under each other; those that end in missing ones are cut."""
    shown = list(figures)
    while len(shown) > 1 and shown[-1] == MISSING:
        shown.pop()
    return "\n".join(shown)


def _short(setting: str) -> str:
    """A setting under its title: without the word that stands there."""
    return setting.removeprefix("CPUs ").removesuffix(" threads").removesuffix(" thread")


def _status_text(status: str) -> Text:
    """Its words; the reason stands below the table."""
    word = status.partition(":")[0]
    return Text(word, style=_STATUS_STYLES.get(word.removeprefix(FORCED), ""))


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
    """What was measured, and how; what differs between the rows stands in them."""
    caption = CAPTIONS.get(header.target)
    machine = (f"{header.target} ({caption})" if caption else header.target, header.board or "unknown board")
    settings = (
        f"{header.runtime} {header.runtime_version}" if header.runtime else "",
        "" if header.threads is None else count(header.threads, "thread"),
        f"CPUs {cpu_list(header.cpus)}" if header.cpus else "",
    )
    conditions = (f"tier {header.tier}", count(header.image_count, "image"), header.date or f"job {header.job_id}")
    return plain(" · ".join(machine)), plain(" · ".join([*filter(None, settings), *conditions]))


def _closing_sentences(comparison: Comparison) -> list[str]:
    return [
        *plausibility_sentences(comparison.rows),
        *flip_sentences(comparison),
        *sparse_sentences(comparison.rows),
    ]


def _notes(header: Header) -> list[str]:
    baseline = plain(header.baseline or "the baseline")
    return [
        "sparsity: share of zero weights in the file. MiB: 1,048,576 bytes; gzip -9.",
        "accuracy: on the target, 95 % Wilson interval; on host: same file, all images.",
        "median, p90: latency of one invocation, one image; ±: half of the 95 % interval.",
        f"p90, bound (which it keeps to at 99 % confidence): from {P90_MIN_QUERIES} queries on.",
        f"{_times(header)}: latency as a multiple of {baseline}'s in the same rounds.",
        "tie: the 95 % interval holds no difference. p: exact McNemar test.",
        "mult-adds: multiply-adds of one inference. removed: share of all filters.",
        "real gains: times smaller or faster, from 1.05 on; memory: if in every round.",
        f"latency gain: only where the whole interval of {_times(header)} is below 1.",
        "warm-up: until latency stays. end to end: from an image file to its scores.",
    ]


def _markdown_cells(row: Row, varying: Sequence[str]) -> tuple[str, ...]:
    cells = _cells(row, varying)
    low, high = milliseconds(row.median_low_ns), milliseconds(row.median_high_ns)
    return (
        *(cells.variant, *(_short(cells.settings.get(name, MISSING)) for name in varying), cells.sparsity),
        *(mebibytes_and_bytes(row.size_bytes), mebibytes_and_bytes(row.gzip_bytes)),
        *(_with(cells.accuracy, cells.interval), cells.host_accuracy, cells.multiply_adds),
        _with(milliseconds(row.median_ns), MISSING if row.median_low_ns is None else f"{low}–{high}"),
        *(cells.p90, cells.p90_bound, _with(cells.ratio, cells.ratio_interval), cells.status),
    )


def _with(figure: str, its_interval: str) -> str:
    return figure if its_interval == MISSING else f"{figure} ({its_interval})"
