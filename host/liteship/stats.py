"""The statistics of the tables: median, percentiles by nearest rank, the interval of an accuracy and of a difference
of two accuracies on the same images.

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
    z = _z(confidence)
    share = correct / total
    shrink = 1 + z * z / total
    center = (share + z * z / (2 * total)) / shrink
    half_width = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The bounds are exact at both ends; rounding would leave them a hair beside 0 and 1.
    low = 0.0 if correct == 0 else center - half_width
    high = 1.0 if correct == total else center + half_width
    return low, high


def paired_difference(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> tuple[float, float, float]:
    """Accuracy of b less that of a on the same images, with its 95 % interval by Tango's score method.

    Images that both or neither get right count only in the number of images, so that the interval is much narrower
    than one of two independent samples, and it is not empty where the two never disagree.

    Args:
        correct_a: For each image whether a classifies it correctly; at least one image.
        correct_b: The same of b, in the same order.
    Returns:
        Difference, lower and upper bound, from -1 to 1.
    Raises:
        ValueError: no images, or not equally many.
    Source: Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
        design (1998); recommended for few images by Fagerland, Lydersen and Laake (2014).
    """
    _require_values(correct_a)
    gained = sum(bool(b) and not a for a, b in zip(correct_a, correct_b, strict=True))
    lost = sum(bool(a) and not b for a, b in zip(correct_a, correct_b, strict=True))
    total = len(correct_a)
    difference = (gained - lost) / total
    low = _furthest_accepted(gained, lost, total, difference, -1.0)
    high = _furthest_accepted(gained, lost, total, difference, 1.0)
    return difference, low, high


def paired_mean_difference(differences: Sequence[Sequence[float]]) -> tuple[float, float, float, tuple[float, ...]]:
    """Mean over seeds of the difference of two accuracies, with its 95 % interval over the images.

    The images are the sample: each image's differences are averaged over the seeds first, so that more seeds do not
    pretend to be more images. The interval says how much other images would move the mean of these seeds; the values
    per seed say how much other seeds do. One image won and one lost are added for the interval, so that models that
    never disagree do not get an empty one.

    Args:
        differences: Shape (seeds, images): correct of b less correct of a, so -1, 0 or 1.
    Returns:
        Mean, lower and upper bound, from -1 to 1, and the mean difference of each seed.
    Raises:
        ValueError: no seeds or images, or not equally many images for each seed.
    Source: Bonett and Price, Adjusted Wald confidence interval for a difference of binomial proportions based on
        paired data (2012), here on the mean over seeds.
    """
    if not len(differences) or not len(differences[0]):
        raise ValueError("At least one value is required. Received: none")
    images = [sum(map(float, seeds)) / len(seeds) for seeds in zip(*differences, strict=True)]
    per_seed = tuple(sum(map(float, seed)) / len(seed) for seed in differences)
    adjusted = [*images, 1.0, -1.0]
    center = statistics.fmean(adjusted)
    half_width = _z(0.95) * statistics.pstdev(adjusted) / math.sqrt(len(adjusted))
    return statistics.fmean(images), max(-1.0, center - half_width), min(1.0, center + half_width), per_seed


def _furthest_accepted(gained: int, lost: int, total: int, difference: float, end: float) -> float:
    """The difference nearest to one end of the scale that the score test does not reject, by bisection."""
    inside, outside = difference, end
    if _is_accepted(gained, lost, total, end):
        return end
    for _ in range(60):  # beyond double precision
        middle = (inside + outside) / 2
        if _is_accepted(gained, lost, total, middle):
            inside = middle
        else:
            outside = middle
    return inside


def _is_accepted(gained: int, lost: int, total: int, difference: float) -> bool:
    """Whether the score test at 5 % accepts a true difference; `likeliest` is the share lost that fits it best."""
    a = 2 * total
    b = (2 * total - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    likeliest = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = total * (2 * likeliest + difference * (1 - difference))
    return (gained - lost - total * difference) ** 2 <= _z(0.95) ** 2 * max(0.0, variance)


def _z(confidence: float) -> float:
    """Standard deviations on either side of the mean that hold a share of the normal distribution."""
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)


def _require_values(values: Sequence[int] | Sequence[float]) -> None:
    if not len(values):
        raise ValueError("At least one value is required. Received: none")
