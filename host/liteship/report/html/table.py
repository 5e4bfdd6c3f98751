"""The comparison table of the page: cells with what they are sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liteship.built_in import EMULATED
from liteship.report.charts.standing import FRONT, standings
from liteship.report.comparison import Comparison, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.statuses import GOLDEN_FAILED, PARITY_FAILED, THROTTLE_UNKNOWN, status_word
from liteship.report.text import (
    MISSING,
    cpu_list,
    interval,
    mebibytes,
    millions,
    milliseconds,
    milliseconds_within,
    multiple,
    multiple_interval,
    percent,
    plain,
)
from liteship_agent.report import UNSTABLE

_TONES = {
    "valid": "good",
    "repeated": "good",
    THROTTLE_UNKNOWN: "caution",
    "unstable": "caution",
    "refused": "bad",
    PARITY_FAILED: "bad",
    GOLDEN_FAILED: "bad",
    "failed": "bad",
}


@dataclass(frozen=True)
class Column:
    """A column.

    Args:
        title: A word or two.
        unit: Below it, may be empty.
        hint: What it is, in a sentence.
        is_text: Whether it is sorted as text.
        is_latency: Whether an emulated machine's figures are grey in it.
    """

    title: str
    unit: str = ""
    hint: str = ""
    is_text: bool = False
    is_latency: bool = False


@dataclass(frozen=True)
class Cell:
    """A figure.

    Args:
        text: As it is read.
        order: What it is sorted by, None for a figure that does not exist: those come last.
        detail: A second line, small.
        title: Exact value, shown by pointing at it.
    """

    text: str
    order: float | str | None = None
    detail: str = ""
    title: str = ""


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Args:
        variant: Its name.
        name: With what of its setting differs from other rows.
        cells: In the order of the columns, without variant and status.
        status: In words, without the reason.
        is_unstable: Whether the latency cannot be trusted either, where the status says something worse.
        reason: Of the status, may be empty.
        tone: "good", "caution", "bad" or empty.
        is_forced: Whether the preflight was overridden.
        is_front: Whether it is on the Pareto front.
        is_shipped: Whether the verdict ships it.
    """

    variant: str
    name: str
    cells: tuple[Cell, ...]
    status: str
    is_unstable: bool
    reason: str
    tone: str
    is_forced: bool
    is_front: bool
    is_shipped: bool

    @property
    def statuses(self) -> tuple[str, ...]:
        """All words that it is found by."""
        return (self.status, UNSTABLE) if self.is_unstable else (self.status,)


@dataclass(frozen=True)
class ComparisonTable:
    """All of it.

    Args:
        columns: Without variant and status.
        lines: In the order of the comparison.
        statuses: Those that there are, in the order of their first row.
        is_emulated: Whether its latencies are grey.
    """

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    statuses: tuple[str, ...]
    is_emulated: bool


def comparison_table(comparison: Comparison, winner: Row | None = None) -> ComparisonTable:
    """The table of a comparison.

    Args:
        comparison: Of one job.
        winner: The row that the verdict ships, None where it names none.
    """
    rows, header = comparison.rows, comparison.header
    varying = varying_settings(rows)
    stands = standings(rows, header.target)
    lines = tuple(_line(row, varying, stand, row is winner) for row, stand in zip(rows, stands, strict=True))
    times = "× float" if header.baseline_is_float else "× baseline"
    columns = (
        Column("accuracy", "on target", "On the target, with its 95 % Wilson interval."),
        Column("median", "ms", "Latency of one invocation; ± half of the 95 % interval.", is_latency=True),
        *_setting_columns(varying),
        Column("size", "MiB", "The .tflite file; 1 MiB is 1,048,576 bytes."),
        Column(times, "latency", "Latency as a multiple of the baseline's in the same rounds.", is_latency=True),
        Column("p90", "ms", "90th percentile of the latency, from 64 queries on.", is_latency=True),
        Column("p90 bound", "ms", "What the 90th percentile keeps to at 99 % confidence.", is_latency=True),
        Column("gzip", "MiB", "The file after gzip at level 9."),
        Column("sparsity", "zeros", "Share of zero weights in the file."),
        Column("on host", "accuracy", "The same file on the host, all validation images."),
        Column("mult-adds", "million", "Multiply-adds of one inference."),
    )
    statuses = tuple(dict.fromkeys(word for line in lines for word in line.statuses))
    return ComparisonTable(columns, lines, statuses, header.target == EMULATED)


def _setting_columns(varying: Sequence[str]) -> tuple[Column, ...]:
    columns = {
        "threads": Column("threads"),
        "cpus": Column("CPUs", is_text=True),
        "runtime": Column("runtime", is_text=True),
    }
    return tuple(columns[name] for name in varying)


def _line(row: Row, varying: Sequence[str], stand: str, is_shipped: bool) -> Line:
    word = status_word(row)
    _, _, reason = row.status.partition(": ")
    return Line(
        variant=plain(row.variant),
        name=row_name(row, varying),
        cells=_cells(row, varying),
        status=word,
        is_unstable=row.validity == UNSTABLE and word != UNSTABLE,
        reason=plain(reason),
        tone=_TONES.get(word, ""),
        is_forced=row.forced,
        is_front=stand == FRONT,
        is_shipped=is_shipped,
    )


def _setting_cells(row: Row, varying: Sequence[str]) -> tuple[Cell, ...]:
    runtime = plain(f"{row.runtime or ''} {row.runtime_version or ''}")
    cells = {
        "threads": Cell(MISSING if row.threads is None else str(row.threads), row.threads),
        "cpus": Cell(cpu_list(row.cpus), None if row.cpus is None else cpu_list(row.cpus)),
        "runtime": Cell(runtime or MISSING, runtime or None),
    }
    return tuple(cells[name] for name in varying)


def _cells(row: Row, varying: Sequence[str]) -> tuple[Cell, ...]:
    """In the order of the columns: what is decided by comes first, and is seen first on a phone."""
    answered = "" if row.image_count is None else f"{row.target_correct:,} of {row.image_count:,} images"
    ratio_interval = "" if row.latency_tie is None else multiple_interval(row.ratio_low, row.ratio_high)
    return (
        Cell(
            percent(row.target_accuracy_ratio),
            row.target_accuracy_ratio,
            _known(interval(row.target_accuracy_low_ratio, row.target_accuracy_high_ratio)),
            answered,
        ),
        Cell(milliseconds_within(row.median_ns, row.median_low_ns, row.median_high_ns), row.median_ns),
        *_setting_cells(row, varying),
        Cell(mebibytes(row.size_bytes), row.size_bytes, title=_bytes(row.size_bytes)),
        Cell(
            multiple(row.ratio_to_baseline),
            row.ratio_to_baseline,
            _known(ratio_interval) + (" tie" if row.latency_tie else ""),
        ),
        Cell(milliseconds(row.p90_ns), row.p90_ns),
        Cell(milliseconds(row.p90_bound_ns), row.p90_bound_ns),
        Cell(mebibytes(row.gzip_bytes), row.gzip_bytes, title=_bytes(row.gzip_bytes)),
        Cell(percent(row.achieved_sparsity), row.achieved_sparsity),
        Cell(percent(row.host_accuracy_ratio), row.host_accuracy_ratio),
        Cell(millions(row.multiply_adds), row.multiply_adds),
    )


def _bytes(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes:,} bytes"


def _known(text: str) -> str:
    return "" if text == MISSING else text
