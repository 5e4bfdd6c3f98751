"""Which row to ship: the best of those that keep to every budget, why each other lost, and what cannot be told apart.

Only rows that were measured and can be trusted can win; on an emulated machine none. Point estimates decide who keeps
to the budgets (their bounds too where certainty is asked for) and who is best; intervals decide what is a tie.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from liteship.built_in import CAPTIONS, EMULATED
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.statuses import THROTTLE_UNKNOWN, status_word
from liteship.report.text import mebibytes, milliseconds, percent, plain, points
from liteship.verdict.budgets import Budgets
from liteship.verdict.limits import (
    difference_text,
    figures_apart,
    is_p90,
    latency_figure,
    limits_of,
    miss_text,
    open_text,
    ratio_text,
)
from liteship.verdict.pairs import Estimate, answers_of_row, difference_of_answers, ratio_in_rounds, ratio_of_p90
from liteship.verdict.trust import EMULATED_REASON, flaws, is_forced, obstacles

_PREFERENCES = ("accuracy", "latency", "size")


@dataclass(frozen=True)
class Tie:
    """A row that keeps to every budget and cannot be told apart from the winner on the preferred figure.

    Args:
        name: Of the row.
        row: The row.
        interval: The interval that leaves it open, in words.
        better: What it is better at, in words; empty where it is at nothing.
    """

    name: str
    row: Row
    interval: str
    better: tuple[str, ...]


@dataclass(frozen=True)
class Loss:
    """A row that did not win.

    Args:
        name: Of the row.
        row: The row.
        can_win: Whether it was measured and can be trusted.
        meets: Whether it keeps to every budget.
        reasons: Why it lost, at least one.
    """

    name: str
    row: Row
    can_win: bool
    meets: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """A verdict.

    Args:
        header: Of the comparison.
        budgets: What was asked.
        winner, runner_up: The best row and the next; None where there is none.
        winner_name, runner_up_name: Their names.
        met: How many rows keep to every budget.
        ties: Rows that tie with the winner on the preferred figure.
        losses: Every row but the winner, in the order of the table.
        caveats: What to know about the winner.
        nearest: Without a winner: of the rows that could have won the one that misses least.
        obstacle: Why no row can win at all, None where some could.
    """

    header: Header
    budgets: Budgets
    winner: Row | None
    winner_name: str
    runner_up: Row | None
    runner_up_name: str
    met: int
    ties: tuple[Tie, ...]
    losses: tuple[Loss, ...]
    caveats: tuple[str, ...]
    nearest: Loss | None
    obstacle: str | None


def choose(comparison: Comparison, budgets: Budgets) -> Choice:
    """The verdict on a comparison.

    Args:
        comparison: Of one job.
        budgets: Checked by `budgets.join_budgets`.

    Raises:
        ReportError: the answers of a row do not fit their number of images.
    """
    rows, header = comparison.rows, comparison.header
    blocked = [obstacles(row, header) for row in rows]
    misses = [_misses(row, budgets, header) for row in rows]
    meeting = [index for index in range(len(rows)) if not blocked[index] and not misses[index]]
    ranked = [rows[index] for index in sorted(meeting, key=lambda index: (*_rank(rows[index], budgets), index))]
    winner, runner_up = (*ranked, None, None)[:2]
    varying = varying_settings(rows)
    losses, ties = [], []
    for row, unfit, missed in zip(rows, blocked, misses, strict=True):
        if row is winner:
            continue
        name = row_name(row, varying)
        reasons = [*unfit] or missed
        if winner is not None and not reasons:
            tie, reason = _against(comparison, row, winner, budgets)
            reasons = [reason]
            ties += [Tie(name, row, reason, _better(comparison, row, winner, budgets))] if tie else []
        losses.append(Loss(name, row, not unfit, not (unfit or missed), tuple(reasons)))
    return Choice(
        header=header,
        budgets=budgets,
        winner=winner,
        winner_name=row_name(winner, varying) if winner else "",
        runner_up=runner_up,
        runner_up_name=row_name(runner_up, varying) if runner_up else "",
        met=len(meeting),
        ties=tuple(ties),
        losses=tuple(losses),
        caveats=_caveats(winner, header, budgets) if winner else (),
        nearest=None if winner else _nearest(losses, budgets, header),
        obstacle=_joint_obstacle(comparison) if all(blocked) else None,
    )


def _joint_obstacle(comparison: Comparison) -> str:
    if comparison.header.target == EMULATED:
        return EMULATED_REASON
    # A row without a flaw has no sha256.
    kinds = sorted({flaw for row in comparison.rows for flaw in flaws(row) or ("without a sha256",)})
    return plain(f"every row is {' or '.join(kinds)}") if kinds else "the report has no rows"


def _misses(row: Row, budgets: Budgets, header: Header) -> list[str]:
    """Every budget that is missed; and the preferred figure, where there is none to be preferred for."""
    certain = bool(budgets.certain)
    found = limits_of(row, budgets, is_baseline=row.variant == header.baseline)
    missed = [miss_text(limit, budgets, certain=certain) for limit in found if not limit.is_kept(certain=certain)]
    if not missed and _preference(row, budgets, budgets.preferred) == math.inf:
        return [f"its {budgets.preferred} is not known, which decides"]
    return missed


def _preference(row: Row, budgets: Budgets, name: str) -> float:
    """A figure that is better where it is lower, infinite where it is not known."""
    figures = {
        "accuracy": None if row.target_accuracy_ratio is None else -row.target_accuracy_ratio,
        "latency": latency_figure(row, budgets),
        "size": row.size_bytes,
    }
    value = figures[name]
    return math.inf if value is None else value


def _rank(row: Row, budgets: Budgets) -> tuple[float, ...]:
    """The preferred figure, and of equal ones the next of accuracy, latency and size."""
    names = sorted(_PREFERENCES, key=lambda name: name != budgets.preferred)
    return tuple(_preference(row, budgets, name) for name in names)


def _against(comparison: Comparison, row: Row, winner: Row, budgets: Budgets) -> tuple[bool, str]:
    """Whether a row ties with the winner on the preferred figure, and the reason why it lost, in words."""
    if budgets.preferred == "latency":
        return _against_latency(row, winner, budgets)
    if budgets.preferred == "size":
        if row.size_bytes == winner.size_bytes:
            return True, "tie: as large as the winner"
        return False, f"larger than the winner: {_sizes(row.size_bytes, winner.size_bytes)}"
    found = _accuracy(comparison, row, winner)
    if found is None:
        difference = (row.target_accuracy_ratio or 0.0) - (winner.target_accuracy_ratio or 0.0)
        lost = difference_text(Estimate(difference, None, None)).partition(" (")[0]
        return False, f"less accurate than the winner: {lost} (no interval)"
    if found.is_open(0.0):
        return True, f"tie: as accurate as the winner within the interval, {difference_text(found)}"
    return False, f"less accurate than the winner: {difference_text(found)}"


def _against_latency(row: Row, winner: Row, budgets: Budgets) -> tuple[bool, str]:
    """By the ratio of what decides: of the 90th percentiles, or of the medians in the rounds that both have."""
    what = "p90" if is_p90(budgets) else "median"
    own, other = ((latency_figure(one, budgets) or 0.0) / 1e6 for one in (row, winner))
    figures = "{} {} instead of {} ms".format(what, *figures_apart(own, other))
    found = _latency_ratio(row, winner, budgets)
    if found is None or found.low is None:
        return False, f"slower than the winner: {figures} (no interval)"
    words = ratio_text(found)
    if is_p90(budgets):
        words = f"{figures}, {words}"
    elif found.value < 1:
        # Medians of all invocations rank the rows, those of the rounds tell what is open: they may disagree.
        words = f"{figures}, {words} by the medians of the same rounds"
        if found.is_below(1):
            return False, f"not as fast as the winner over all rounds: {words}"
    if found.is_open(1.0):
        return True, f"tie: as fast as the winner within the interval, {words}"
    return False, f"slower than the winner: {words}"


def _latency_ratio(row: Row, other: Row, budgets: Budgets) -> Estimate | None:
    """Of the latency that decides."""
    return ratio_of_p90(row, other) if is_p90(budgets) else ratio_in_rounds(row, other)


def _better(comparison: Comparison, row: Row, winner: Row, budgets: Budgets) -> tuple[str, ...]:
    """What a tie is better at than the winner: beyond doubt, or exactly."""
    found = []
    accuracy, ratio = _accuracy(comparison, row, winner), _latency_ratio(row, winner, budgets)
    if accuracy is not None and accuracy.is_above(0):
        found.append(f"more accurate, {difference_text(accuracy)}")
    if budgets.preferred != "latency" and ratio is not None and ratio.is_below(1):
        found.append(f"faster, {ratio_text(ratio)}")
    for word, own, other in (
        ("smaller", row.size_bytes, winner.size_bytes),
        ("smaller after gzip", row.gzip_bytes, winner.gzip_bytes),
    ):
        if own is not None and other is not None and own < other:
            found.append(f"{word}, {_sizes(own, other)}")
    return tuple(found)


def _accuracy(comparison: Comparison, row: Row, other: Row) -> Estimate | None:
    own, others = answers_of_row(comparison, row), answers_of_row(comparison, other)
    if own is None or others is None or own.image_count != others.image_count:
        return None
    return difference_of_answers(own, others)


def _sizes(size_bytes: int | None, other_bytes: int | None) -> str:
    return "{} instead of {} MiB".format(*figures_apart((size_bytes or 0) / 2**20, (other_bytes or 0) / 2**20))


def _caveats(winner: Row, header: Header, budgets: Budgets) -> tuple[str, ...]:
    """What to know before the winner is shipped."""
    found = []
    if is_forced(winner):
        problems = "; ".join(header.problems) or "the preflight found nothing to override"
        found.append(f"the measurement was forced although {problems}")
    if status_word(winner) == THROTTLE_UNKNOWN:
        found.append("throttle unknown: nothing there tells whether the clock was lowered")
    limits = limits_of(winner, budgets, is_baseline=winner.variant == header.baseline)
    found += [text for limit in limits if (text := open_text(limit, budgets)) is not None]
    if sum(ns is not None for ns in winner.round_medians_ns) < 2:
        found.append("fewer than two rounds: no latency can be told apart from another")
    if header.target in CAPTIONS:
        found.append(f"measured on {CAPTIONS[header.target]}")
    return tuple(plain(text) for text in found)


def _nearest(losses: Sequence[Loss], budgets: Budgets, header: Header) -> Loss | None:
    """Of the rows that could have won the one that misses the fewest budgets, and those by the least."""

    def distance(loss: Loss) -> tuple[int, float]:
        certain = bool(budgets.certain)
        limits = limits_of(loss.row, budgets, is_baseline=loss.row.variant == header.baseline)
        missed = [limit.excess_ratio(certain=certain) for limit in limits if not limit.is_kept(certain=certain)]
        return len(missed), max(missed, default=math.inf)

    return min((loss for loss in losses if loss.can_win), key=distance, default=None)


def figures_text(row: Row, budgets: Budgets) -> str:
    """The figures of a row that decide, in one line; what a budget asks for stands with it."""
    latency = f"{milliseconds(row.median_ns)} ms"
    if row.median_low_ns is not None and row.median_high_ns is not None:
        latency += f" ({milliseconds(row.median_low_ns)}–{milliseconds(row.median_high_ns)})"
    parts = [latency]
    if is_p90(budgets):
        parts.append(f"p90 {milliseconds(row.p90_ns)} ms")
    accuracy = f"{percent(row.target_accuracy_ratio)} right"
    if row.accuracy_difference_ratio is not None:
        accuracy += f" ({points(row.accuracy_difference_ratio)} points)"
    parts += [accuracy, f"{mebibytes(row.size_bytes)} MiB"]
    if budgets.max_gzip_mib is not None:
        parts.append(f"gzip {mebibytes(row.gzip_bytes)} MiB")
    if budgets.max_memory_mib is not None:
        parts.append(f"memory {mebibytes(row.rss_peak_bytes)} MiB")
    return ", ".join(parts)
