"""Whether the figures of a comparison that was read from a document can be true, alone and beside each other.

A document may have been changed by hand; a verdict on figures that contradict each other would be worth nothing.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from liteship.report.accuracy import Answers
from liteship.report.comparison import Comparison, Row
from liteship.report.text import plain
from liteship_agent.errors import RecordError
from liteship_agent.report import REPEATED, UNKNOWN, UNSTABLE, VALID

_ROUNDING = 1e-9
_VALIDITIES = (VALID, REPEATED, UNSTABLE, UNKNOWN, None)
_ABOVE_0 = (
    *("size_bytes", "gzip_bytes", "keras_size_bytes", "keras_gzip_bytes", "rss_peak_bytes", "rss_anon_bytes"),
    *("threads", "queries", "image_count", "end_to_end_median_ns", "p90_bound_ns", "sparse_speedup_ratio"),
    *("file_gain", "gzip_gain", "memory_gain", "latency_gain"),
)
_FROM_0 = (
    *("blocks", "repeated", "void", "target_correct", "decode_ns", "preprocess_ns", "invoke_ns", "postprocess_ns"),
    *("init_ns", "first_ns", "warmup_ns", "warmup_count", "golden_difference", "golden_tolerance", "multiply_adds"),
    *("flips_host", "flips_host_pixels", "flips_host_kernels", "flips_baseline"),
)
_RATIOS = (
    *("requested_sparsity", "achieved_sparsity", "parity_max_drop_ratio", "parity_equal_ratio", "own_overhead_ratio"),
    *("target_accuracy_ratio", "target_accuracy_low_ratio", "target_accuracy_high_ratio", "host_accuracy_ratio"),
    "accuracy_p",
)
_DIFFERENCES = ("accuracy_difference_ratio", "accuracy_difference_low_ratio", "accuracy_difference_high_ratio")
# Lower bound, figure, upper bound.
_INTERVALS = (
    ("median_low_ns", "median_ns", "median_high_ns"),
    ("p90_low_ns", "p90_ns", "p90_high_ns"),
    ("ratio_low", "ratio_to_baseline", "ratio_high"),
    ("target_accuracy_low_ratio", "target_accuracy_ratio", "target_accuracy_high_ratio"),
    ("accuracy_difference_low_ratio", "accuracy_difference_ratio", "accuracy_difference_high_ratio"),
)
_POSITIVE_INTERVALS = _INTERVALS[:3]


def check_comparison(comparison: Comparison, source: str) -> None:
    """Every figure can be true, and agrees with the others.

    Args:
        comparison: As it was read.
        source: Name for the error, usually the file.

    Raises:
        RecordError: names the row and the field.
    """
    answers = {_ran(own): own for own in comparison.answers}
    for index, own in enumerate(comparison.answers):
        _Part(source, f"answers[{index}]", own.variant).check_answers(own)
    seen: dict[tuple[Any, ...], int] = {}
    for index, row in enumerate(comparison.rows):
        part = _Part(source, f"rows[{index}]", row.variant)
        part.check_figures(row)
        part.check_counts(row, answers.get(_ran(row)))
        key = (row.variant, *_ran(row), row.threads, row.cpus)
        if row.sha256 is not None and key in seen:
            part.refuse("variant", "another file, runtime or setting than in every other row", f"that of {seen[key]}")
        seen[key] = index
    variants = [row.variant for row in comparison.rows]
    baseline = comparison.header.baseline
    if baseline is not None and baseline not in variants:
        raise RecordError(source, "job.baseline", "the variant of a row", baseline)


class _Part:
    """A row or answers, and where they stand."""

    def __init__(self, source: str, place: str, variant: str) -> None:
        self._source, self._place, self._variant = source, place, plain(variant)[:60]

    def refuse(self, field: str, required: str, received: object) -> None:
        raise RecordError(self._source, f"{self._place}.{field} ({self._variant})", required, str(received)[:60])

    def check_figures(self, row: Row) -> None:
        """Each alone, and in its interval."""
        for name in (*_ABOVE_0, *(name for names in _POSITIVE_INTERVALS for name in names)):
            self._require_range(row, name, "a figure above 0", math.ulp(0.0), math.inf)
        for name in _FROM_0:
            self._require_range(row, name, "a figure from 0 on", 0.0, math.inf)
        for name in _RATIOS:
            self._require_range(row, name, "a ratio from 0 to 1", 0.0, 1.0)
        for name in _DIFFERENCES:
            self._require_range(row, name, "a difference from -1 to 1", -1.0, 1.0)
        for names in _INTERVALS:
            low, value, high = (getattr(row, name) for name in names)
            known = [figure for figure in (low, value, high) if figure is not None]
            if any(one > other + _ROUNDING * abs(other) for one, other in itertools.pairwise(known)):
                self.refuse(names[1], "a figure inside its interval", f"{low}, {value}, {high}")
        if any(ns is not None and ns <= 0 for ns in row.round_medians_ns):
            self.refuse("round_medians_ns", "latencies above 0", min(filter(None, row.round_medians_ns), default=0))
        if row.validity not in _VALIDITIES:
            self.refuse("validity", f"one of {', '.join(filter(None, _VALIDITIES))}", row.validity)

    def check_counts(self, row: Row, own: Answers | None) -> None:
        """Blocks and images, and the images with the answers of the same file in the same runtime."""
        if (row.void or 0) > (row.blocks or 0):
            self.refuse("void", f"at most the {row.blocks or 0} blocks", row.void)
        correct, count = row.target_correct, row.image_count
        if own is not None and correct is not None and (correct, count) != (own.correct, own.image_count):
            required = f"{own.correct} of {own.image_count}, as in answers,"
            self.refuse("target_correct", required, f"{correct} of {count}")
        if correct is None:
            if row.target_accuracy_ratio is not None:
                self.refuse("target_correct", "a count beside target_accuracy_ratio", None)
            return
        if own is None:
            self.refuse("target_correct", "answers of the same sha256 and runtime", f"{correct} without any")
        if count is None or correct > count:
            self.refuse("target_correct", "at most image_count", f"{correct} of {count}")
        ratio = row.target_accuracy_ratio
        if ratio is None or not math.isclose(ratio, correct / (count or 1), rel_tol=_ROUNDING, abs_tol=_ROUNDING):
            self.refuse("target_accuracy_ratio", f"{correct} / {count}", ratio)

    def check_answers(self, own: Answers) -> None:
        """The wrong images are those that are not right, each once."""
        if own.image_count < 1 or not 0 <= own.correct <= own.image_count:
            self.refuse("correct", "at most image_count", f"{own.correct} of {own.image_count}")
        if len(own.wrong) != own.image_count - own.correct:
            required = f"as many indices as are not correct ({own.image_count - own.correct})"
            self.refuse("wrong", required, len(own.wrong))
        # Between -1 and the number of images, so that the ends are checked with the order.
        if any(one >= other for one, other in itertools.pairwise((-1, *own.wrong, own.image_count))):
            self.refuse("wrong", f"each index from 0 to {own.image_count - 1} at most once, ascending", "another order")

    def _require_range(self, row: Row, name: str, required: str, low: float, high: float) -> None:
        value = getattr(row, name)
        if value is not None and not low <= value <= high:
            self.refuse(name, required, value)


def _ran(part: Row | Answers) -> tuple[str | None, ...]:
    return part.sha256, part.runtime, part.runtime_version
