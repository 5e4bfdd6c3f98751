"""What stands below the variants: which gain is real, the Keras models, and what sparse storage brings.

Pure functions from rows to text; `table` shows them in a terminal and as Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liteship.report.rows import NO_GAIN, Row
from liteship.report.text import MISSING, mebibytes, mebibytes_and_bytes, millions, percent, plain


@dataclass(frozen=True)
class Section:
    """A small table: a title, column titles, and a line of cells for each name; only the first column is text."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class KerasLine:
    """One model that artefacts were converted from.

    Args:
        name: The part before the quantization of its variants' names.
        size_bytes, gzip_bytes: Its file, plain and after gzip at level 9.
        parameters: Weights, trainable or not.
        multiply_adds: Of one inference of its float artefact, else of its first.
        removed_filters_ratio: Share of the baseline's filters that pruning removed, None where it removes none.
        achieved_sparsity: Zeros in its first artefact.
    """

    name: str
    size_bytes: int | None
    gzip_bytes: int | None
    parameters: int | None
    multiply_adds: int | None
    removed_filters_ratio: float | None
    achieved_sparsity: float | None


def keras_lines(rows: Sequence[Row]) -> list[KerasLine]:
    """The models behind the rows, each once, in the order of their first row."""
    first: dict[str, Row] = {}
    for row in rows:
        if row.keras_model is not None:
            first.setdefault(row.keras_model, row)
    floats = {row.keras_model: row for row in rows if row.variant == f"{row.keras_model}-none"}
    return [
        KerasLine(
            name=name,
            size_bytes=row.keras_size_bytes,
            gzip_bytes=row.keras_gzip_bytes,
            parameters=row.parameters,
            multiply_adds=floats.get(name, row).multiply_adds,
            removed_filters_ratio=row.removed_filters_ratio,
            achieved_sparsity=row.achieved_sparsity,
        )
        for name, row in first.items()
    ]


def keras_section(rows: Sequence[Row], *, exact: bool = False) -> Section:
    """The Keras models; with exact bytes beside the MiB."""
    size = mebibytes_and_bytes if exact else mebibytes
    return Section(
        "Keras models",
        ("model", "file MiB", "gzip MiB", "parameters", "M mult-adds", "removed", "zeros"),
        tuple(
            (
                *(plain(line.name), size(line.size_bytes), size(line.gzip_bytes)),
                MISSING if line.parameters is None else f"{line.parameters:,}",
                *(millions(line.multiply_adds), percent(line.removed_filters_ratio), percent(line.achieved_sparsity)),
            )
            for line in keras_lines(rows)
        ),
    )


def gains_section(rows: Sequence[Row], baseline: str) -> Section:
    """How many times smaller or faster than the baseline each other artefact really is."""
    return Section(
        f"Real gains over {plain(baseline)}",
        ("variant", "file", "gzip", "memory", "latency"),
        tuple(
            (plain(row.variant), *map(_gain, (row.file_gain, row.gzip_gain, row.memory_gain, row.latency_gain)))
            for row in rows
            if row.file_gain is not None and row.variant != baseline
        ),
    )


def sparse_sentences(rows: Sequence[Row]) -> list[str]:
    """One sentence for each file that is stored sparse: may sparse kernels run it, and was it faster here."""
    return [plain(f"{row.variant}: {_verdict(row)}; {_measured(row)}") for row in rows if row.stored_sparse]


def _verdict(row: Row) -> str:
    if row.sparse_eligible:
        return f"eligible for sparse kernels ({row.sparse_holds_for})"
    return f"not eligible for sparse kernels: {f'{row.sparse_layer}: ' if row.sparse_layer else ''}{row.sparse_reason}"


def _measured(row: Row) -> str:
    if row.sparse_speedup_ratio is None:
        return "not measured against a dense twin here"
    return f"measured {row.sparse_speedup_ratio:.2f}x against its dense twin here"


def _gain(gain: float | None) -> str:
    if gain is None:
        return MISSING
    return "none" if gain == NO_GAIN else f"{gain:.1f}x"
