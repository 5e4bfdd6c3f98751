"""The statistics of the table: median, percentiles by nearest rank, and the interval of an accuracy.

Pure functions of the standard library, so that reading a report needs neither numpy nor scipy.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeVar

Number = TypeVar("Number", int, float)

P90_MIN_QUERIES = 64
"""Below this many queries a 90th percentile is not shown. Source: MLPerf LoadGen, whose early stopping needs 64
queries before it gives any bound for the 90th percentile of a SingleStream run."""


def median(values: Sequence[int] | Sequence[float]) -> float:
    """The middle value, or the mean of the two middle ones.

    Args:
        values: At least one, in any order; the result has their unit.
    Raises:
        ValueError: values is empty.
    """
    _require_values(values)
    return float(statistics.median(values))


def percentile(values: Sequence[Number], ratio: float) -> Number:
    """The smallest value with at least that share of all values at or below it ("nearest rank").

    It is always one of the values and never lies between two of them.

    Args:
        values: At least one, in any order; the result has their unit.
        ratio: Share, above 0 and at most 1, taken as the decimal that it is written as: 0.07 of 100 values is rank 7,
            although the binary number nearest to 0.07 is a little larger.
    Raises:
        ValueError: values is empty, or ratio is not above 0 and at most 1.
    Source: Hyndman and Fan, Sample Quantiles in Statistical Packages (1996), definition 1; MLPerf LoadGen.
    """
    _require_values(values)
    if not 0 < ratio <= 1:
        raise ValueError(f"A ratio above 0 and at most 1 is required. Received: {ratio}")
    rank = math.ceil(Fraction(str(ratio)) * len(values))
    return sorted(values)[rank - 1]


def p90(values: Sequence[Number]) -> Number | None:
    """The 90th percentile by nearest rank, None below `P90_MIN_QUERIES` values."""
    return percentile(values, 0.9) if len(values) >= P90_MIN_QUERIES else None


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share, without continuity correction.

    Unlike the normal approximation it stays within 0 to 1 and is honest near both ends and for few images.

    Args:
        correct: Images classified correctly, 0 to total.
        total: Images, at least 1.
        confidence: Share of such intervals that hold the true value, above 0 and below 1.
    Returns:
        Lower and upper bound, as ratios from 0 to 1.
    Raises:
        ValueError: an argument is out of its range.
    Source: Wilson (1927); Brown, Cai and DasGupta, Interval Estimation for a Binomial Proportion (2001).
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"0 <= correct <= total, total at least 1, is required. Received: {correct} of {total}")
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence above 0 and below 1 is required. Received: {confidence}")
    z = statistics.NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    shrink = 1 + z * z / total
    center = (share + z * z / (2 * total)) / shrink
    half_width = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The bounds are exact at both ends; rounding would leave them a hair beside 0 and 1.
    low = 0.0 if correct == 0 else center - half_width
    high = 1.0 if correct == total else center + half_width
    return low, high


def _require_values(values: Sequence[int] | Sequence[float]) -> None:
    if not values:
        raise ValueError("At least one value is required. Received: none")
