"""The figures of a row against its budgets: kept to, missed, or kept to by the figure and not by its bound."""

from __future__ import annotations

import math
from dataclasses import dataclass

from liteship.report.comparison import Row
from liteship.report.text import MISSING, points, points_interval, three_digits
from liteship.verdict.budgets import DEFAULT_PERCENTILE, Budgets
from liteship.verdict.pairs import Estimate

_MIB = 2**20
_NS_PER_MS = 1_000_000
_MOST_DIGITS, _HINT_DIGITS = 7, 2


@dataclass(frozen=True)
class Limit:
    """One budget of one row, turned so that less is better.

    Args:
        name: Of the budget, as in `Budgets`.
        limit: What the figure may be at most.
        figure: The point estimate, in the same unit; None where it is not known.
        bound: What it does not exceed with confidence; None where that is not known, the figure where it is exact.
    """

    name: str
    limit: float
    figure: float | None
    bound: float | None

    def is_kept(self, *, certain: bool) -> bool:
        """Whether the figure, or with certainty its bound too, is known and within the budget."""
        asked = (self.figure, self.bound) if certain else (self.figure,)
        return all(value is not None and value <= self.limit for value in asked)

    def excess_ratio(self, *, certain: bool) -> float:
        """By which share of the budget it is missed, accuracies by which share of the images; infinite if unknown."""
        value = self.bound if certain else self.figure
        if value is None:
            return math.inf
        scale = 1.0 if self.name in ("max_drop", "min_accuracy") else self.limit
        return max(0.0, value - self.limit) / scale


def latency_figure(row: Row, budgets: Budgets) -> float | None:
    """The latency that decides, in ns: at the percentile of the latency budget, else the median."""
    return row.p90_ns if is_p90(budgets) else row.median_ns


def is_p90(budgets: Budgets) -> bool:
    """Whether the 90th percentile was asked for."""
    return budgets.max_latency_ms is not None and (budgets.percentile or DEFAULT_PERCENTILE) == DEFAULT_PERCENTILE


def limits_of(row: Row, budgets: Budgets, *, is_baseline: bool) -> list[Limit]:
    """Each budget that is asked for, in the order of `Budgets`, with the row's figure.

    Args:
        row: Of the comparison.
        budgets: What is asked.
        is_baseline: Whether it is the row that drops refer to: it loses nothing.
    """
    found = []
    if budgets.max_latency_ms is not None:
        bound = row.p90_bound_ns if is_p90(budgets) else row.median_high_ns
        found.append(Limit("max_latency_ms", budgets.max_latency_ms * _NS_PER_MS, latency_figure(row, budgets), bound))
    if budgets.max_drop is not None:
        difference, low = row.accuracy_difference_ratio, row.accuracy_difference_low_ratio
        if is_baseline and row.target_accuracy_ratio is not None:
            difference = low = 0.0
        found.append(Limit("max_drop", budgets.max_drop, _negative(difference), _negative(low)))
    if budgets.min_accuracy is not None:
        share, low = row.target_accuracy_ratio, row.target_accuracy_low_ratio
        found.append(Limit("min_accuracy", -budgets.min_accuracy, _negative(share), _negative(low)))
    for name, limit_mib, size_bytes in (
        ("max_size_mib", budgets.max_size_mib, row.size_bytes),
        ("max_gzip_mib", budgets.max_gzip_mib, row.gzip_bytes),
        ("max_memory_mib", budgets.max_memory_mib, row.rss_peak_bytes),
    ):
        if limit_mib is not None:
            found.append(Limit(name, limit_mib * _MIB, size_bytes, size_bytes))
    return found


def miss_text(limit: Limit, budgets: Budgets, *, certain: bool) -> str:
    """Why a budget is not kept to: the figure, or the bound where that alone is asked too much of, and the budget."""
    by_bound = limit.is_kept(certain=False) and certain
    value = limit.bound if by_bound else limit.figure
    what = _what(limit.name, budgets)
    if value is None:
        return f"no bound of its {what} is known" if by_bound else f"its {what} is not known"
    if limit.name == "max_drop":
        figure, allowed = _apart(100 * value, 100 * limit.limit, 1)
        return f"{'may lose' if by_bound else 'loses'} {figure} points of accuracy ({allowed} allowed)"
    if limit.name == "min_accuracy":
        figure, asked = _apart(-100 * value, -100 * limit.limit, 1)
        return f"{'lower bound of its accuracy,' if by_bound else 'accuracy'} {figure} % is below {asked} %"
    figure, allowed, unit = _amounts(limit, value)
    return f"{f'bound of its {what},' if by_bound else what} {figure} {unit} exceeds {allowed} {unit}"


def open_text(limit: Limit, budgets: Budgets) -> str | None:
    """What is left open where the figure keeps to the budget and its bound does not; None where nothing is."""
    if not limit.is_kept(certain=False) or limit.is_kept(certain=True):
        return None
    what = _what(limit.name, budgets)
    if limit.bound is None:
        return f"its {what} is within the budget, but has no bound"
    if limit.name == "max_drop":
        bound, _ = _apart(100 * limit.bound, 100 * limit.limit, 1)
        return f"its {what} is within the budget of {points_text(limit.limit)}, but the interval reaches to {bound}"
    if limit.name == "min_accuracy":
        bound, asked = _apart(-100 * limit.bound, -100 * limit.limit, 1)
        return f"its {what} is within the budget of {asked} %, but the interval reaches down to {bound} %"
    bound, allowed, unit = _amounts(limit, limit.bound)
    return f"its {what} is within the budget of {allowed} {unit}, but its bound of {bound} {unit} is not"


def budget_text(name: str, limit: float, budgets: Budgets) -> str:
    """A budget in words: p90 at most 10 ms."""
    what = _what(name, budgets)
    if name == "max_drop":
        return f"{what} at most {points_text(limit)}"
    if name == "min_accuracy":
        return f"{what} at least {100 * limit:g} %"
    return f"{what} at most {limit:g} {'ms' if name == 'max_latency_ms' else 'MiB'}"


def points_text(ratio: float) -> str:
    """An allowance in percentage points: 1 point, 0.5 points."""
    return f"{100 * ratio:.10g} point{'' if math.isclose(ratio, 0.01) else 's'}"


def ratio_text(found: Estimate, limit: float = 1.0) -> str:
    """A ratio and its interval, with as many digits as show on which side of a limit its bounds are."""
    figures = [value for value in (found.value, found.low, found.high) if value is not None]
    digits = 2 if min(figures) >= 0.0995 else 3
    is_beyond = found.is_above(limit) or found.is_below(limit)
    # What is open needs no more than a hint.
    for _ in range(_MOST_DIGITS if is_beyond else _HINT_DIGITS):
        if all(figure == limit or round(figure, digits) != round(limit, digits) for figure in figures[-2:]):
            break
        digits += 1
    shown = [f"{figure:.{digits}f}" for figure in figures]
    return f"{shown[0]}x ({'–'.join(shown[1:]) or 'no interval'})"


def difference_text(found: Estimate) -> str:
    """A difference of accuracies and its interval in points, with as many digits as tell it from none."""
    if not found.value or round(100 * found.value, 1):
        return f"{points(found.value)} points ({points_interval(found.low, found.high)})"
    digits = next((digits for digits in range(2, 9) if round(100 * found.value, digits)), 9)
    shown = [MISSING if value is None else f"{100 * value:+.{digits}f}" for value in (found.low, found.high)]
    return f"{100 * found.value:+.{digits}f} points ({' to '.join(shown)})"


def figures_apart(value: float, other: float) -> tuple[str, str]:
    """Two figures in one unit with three digits, and with more where they would look alike and are not."""
    texts = three_digits(value), three_digits(other)
    for digits in range(min(len(text.partition(".")[2]) for text in texts) + 1, 13):
        if value == other or texts[0] != texts[1]:
            break
        texts = f"{value:.{digits}f}", f"{other:.{digits}f}"
    return texts


def _what(name: str, budgets: Budgets) -> str:
    latency = "p90" if is_p90(budgets) else "median"
    return {
        "max_latency_ms": latency,
        "max_drop": "loss of accuracy",
        "min_accuracy": "accuracy",
        "max_size_mib": "file",
        "max_gzip_mib": "gzip size",
        "max_memory_mib": "memory",
    }[name]


def _amounts(limit: Limit, value: float) -> tuple[str, str, str]:
    """Figure and budget in the unit of the budget, and that unit."""
    scale, unit = (_NS_PER_MS, "ms") if limit.name == "max_latency_ms" else (_MIB, "MiB")
    return *_apart(value / scale, limit.limit / scale, None), unit


def _apart(value: float, limit: float, digits: int | None) -> tuple[str, str]:
    """Figure and budget, the figure with as many digits as show on which side of the budget it is.

    Args:
        value: The figure.
        limit: The budget, shown as it was given.
        digits: After the point, at least; None for three digits in all.
    """
    text = three_digits(value) if digits is None else f"{value:.{digits}f}"
    for more in range(len(text.partition(".")[2]) + 1, 12):
        if (float(text) > limit) == (value > limit) and (float(text) < limit) == (value < limit):
            break
        text = f"{value:.{more}f}"
    return text, f"{limit:.10g}"


def _negative(value: float | None) -> float | None:
    return None if value is None else -value
