"""The tables that stand below the rows: what is gained over the baseline at what accuracy, what happens around the
invocation, the Keras models, which answers flipped, and what is taken for what.

Pure functions from a comparison to text; `table` shows them in a terminal and as Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liteship.report.accuracy import Answers
from liteship.report.comparison import NO_GAIN, Comparison, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.text import (
    MISSING,
    mebibytes,
    mebibytes_and_bytes,
    millions,
    milliseconds,
    percent,
    plain,
    points,
    points_interval,
    probability,
)
from liteship_agent.report import UNSTABLE

_MOST_LABELS = 10
"""A confusion matrix of more labels is no table for a page; JSON has it."""


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


def against_section(comparison: Comparison) -> Section:
    """How many times smaller or faster than the baseline each other row really is, and how its accuracy differs."""
    baseline = comparison.header.baseline
    first = next((row for row in comparison.rows if row.variant == baseline), None)
    is_unstable = first is not None and first.validity == UNSTABLE
    varying = varying_settings(comparison.rows)
    return Section(
        f"Real gains over {plain(baseline or '')}, and accuracy against it in points",
        ("variant", "file", "gzip", "memory", "latency", "accuracy", "95 % interval", "p"),
        tuple(
            (
                *(row_name(row, varying), _gain(row.file_gain), _gain(row.gzip_gain), _gain(row.memory_gain)),
                _latency_gain(row, is_unstable),
                points(row.accuracy_difference_ratio) + (" tie" if row.accuracy_tie else ""),
                points_interval(row.accuracy_difference_low_ratio, row.accuracy_difference_high_ratio),
                probability(row.accuracy_p),
            )
            for row in comparison.rows
            if row.file_gain is not None and row is not first
        ),
    )


def process_section(rows: Sequence[Row]) -> Section:
    """What a process takes beside the timed invocations, and how it was run."""
    varying = varying_settings(rows)
    return Section(
        "Around the invocation",
        (
            *("variant", "init\nms", "first\nms", "warm-up\nms", "end to\nend ms", "memory\nMiB"),
            *("cores\nused", "XNNPACK\nnodes"),
        ),
        tuple(
            (
                *(row_name(row, varying), milliseconds(row.init_ns), milliseconds(row.first_ns)),
                *(milliseconds(row.warmup_ns), milliseconds(row.end_to_end_median_ns), mebibytes(row.rss_peak_bytes)),
                MISSING if row.cores_used is None else f"{row.cores_used:.2f}",
                MISSING if row.delegated_nodes is None else f"{row.delegated_nodes} of {row.total_nodes}",
            )
            for row in rows
            if row.median_ns is not None
        ),
    )


def flips_section(answers: Sequence[Answers]) -> Section:
    """Every image that is classified otherwise than by the host, or by the baseline, by its file name."""
    return Section(
        "Answers that differ",
        (
            "image",
            "artefact",
            "runtime",
            "against",
            "truth",
            "expected",
            "received",
            "cause",
            "largest pixel difference",
        ),
        tuple(
            (
                *(plain(flip.path), plain(own.variant), f"{own.runtime} {own.runtime_version}", flip.against),
                *(plain(flip.label), plain(flip.expected), plain(flip.received), flip.cause or MISSING),
                MISSING if flip.largest_pixel_difference is None else str(flip.largest_pixel_difference),
            )
            for own in answers
            for flip in own.flips
        ),
    )


def confusion_section(answers: Sequence[Answers]) -> Section:
    """What is taken for what: a line for each artefact, runtime and true label; none where labels are too many."""
    labels = tuple(plain(label) for label in answers[0].labels) if answers else ()
    lines = [
        (f"{plain(own.variant)}, {own.runtime} {own.runtime_version}", truth, *map(str, counts))
        for own in answers
        for truth, counts in zip(labels, own.confusion, strict=True)
    ]
    return Section(
        "What is taken for what",
        ("artefact", "truth", *labels),
        tuple(lines) if len(labels) <= _MOST_LABELS else (),
    )


def _latency_gain(row: Row, is_baseline_unstable: bool) -> str:
    if row.median_ns is not None and (is_baseline_unstable or row.validity == UNSTABLE):
        return UNSTABLE
    return "tie" if row.latency_tie else _gain(row.latency_gain)


def _gain(gain: float | None) -> str:
    if gain is None:
        return MISSING
    return "none" if gain == NO_GAIN else f"{gain:.1f}x"
