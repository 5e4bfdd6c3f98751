"""Where a row stands in a plot: on the Pareto front, dominated, or not to be shipped, and why. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from liteship.built_in import EMULATED
from liteship.report.comparison import Row
from liteship.report.statuses import FAILED, GOLDEN_FAILED, NOT_RUN, PARITY_FAILED, REFUSED, WINNING, status_word
from liteship_agent.report import UNSTABLE

FRONT, DOMINATED = "Pareto front", "dominated"
COLORS = {
    FRONT: "@blue",
    DOMINATED: "@slate",
    UNSTABLE: "@orange",
    PARITY_FAILED: "@red",
    GOLDEN_FAILED: "@purple",
    REFUSED: "@pink",
    FAILED: "@pink",
    NOT_RUN: "@slate",
    EMULATED: "@slate",
}
SHAPES = {
    FRONT: "circle",
    DOMINATED: "diamond",
    UNSTABLE: "triangle-up",
    PARITY_FAILED: "square",
    GOLDEN_FAILED: "triangle-down",
    REFUSED: "cross",
    FAILED: "cross",
    NOT_RUN: "stroke",
    EMULATED: "triangle-right",
}


def standings(rows: Sequence[Row], target: str) -> tuple[str, ...]:
    """Where each row stands; on an emulated machine no row is faster than another.

    Args:
        rows: All of a comparison.
        target: Where they were measured.
    """
    words = [status_word(row) for row in rows]
    if target == EMULATED:
        return tuple(EMULATED if word in (*WINNING, UNSTABLE) else word for word in words)
    eligible = [row for row, word in zip(rows, words, strict=True) if word in WINNING]
    return tuple(
        word if word not in WINNING else DOMINATED if _is_dominated(row, eligible) else FRONT
        for row, word in zip(rows, words, strict=True)
    )


def _is_dominated(row: Row, others: Sequence[Row]) -> bool:
    """Whether another row is at least as fast and as accurate, and better in one of them."""
    latency, accuracy = row.median_ns, row.target_accuracy_ratio
    if latency is None or accuracy is None:
        return True
    return any(
        other.median_ns <= latency
        and other.target_accuracy_ratio >= accuracy
        and (other.median_ns, other.target_accuracy_ratio) != (latency, accuracy)
        for other in others
        if other.median_ns is not None and other.target_accuracy_ratio is not None
    )
