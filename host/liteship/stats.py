"""The statistics of the tables.

Of latencies: median and percentiles by nearest rank, the early-stopping bound, and the ratio of two cases from paired
rounds or of two jobs. Of accuracies: the interval of one, and of the difference of two on the same or on other images.
Of both: what is a tie, and whether two runs agree. Intervals of latencies are in intervals.py.

Pure functions of the standard library, so that reading a report needs neither numpy nor scipy.
"""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from liteship.distributions import normal_quantile, student_quantile

Number = TypeVar("Number", int, float)
Key = TypeVar("Key", bound=Hashable)
Ratio = tuple[float, float, float]
"""A ratio with the lower and upper bound of its 95 % interval."""

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
    return sorted(values)[nearest_rank(ratio, len(values)) - 1]


def nearest_rank(ratio: float, count: int) -> int:
    """Where a percentile stands in so many ascending values, from 1; the ratio is read as the decimal it prints as."""
    return math.ceil(Fraction(str(ratio)) * count)


def p90(values: Sequence[Number]) -> Number | None:
    """The 90th percentile by nearest rank, None below `P90_MIN_QUERIES` values."""
    return percentile(values, 0.9) if len(values) >= P90_MIN_QUERIES else None


def early_stopping_rank(count: int) -> int | None:
    """Which of so many ascending latencies bounds their 90th percentile with 99 % confidence.

    With t the largest number for which at most t of the queries are slower than the true 90th percentile in at most
    1 % of runs, the t - 1 slowest are discarded and the next one is the bound.

    Args:
        count: Queries, at least 0.
    Returns:
        Rank from 1 to count; None where there are too few queries for a bound, below `P90_MIN_QUERIES`.
    Source: MLPerf LoadGen, early stopping of the SingleStream scenario, confidence 0.99 and tolerance 0.
    """
    within, beyond = -1, count // 10 + 1
    while beyond - within > 1:
        middle = (within + beyond) // 2
        if _at_most(middle, count, 0.1) <= 0.01:
            within = middle
        else:
            beyond = middle
    return count - within + 1 if within >= 1 else None


def early_stopping_p90(latencies: Sequence[Number]) -> Number | None:
    """A bound that the true 90th percentile exceeds in at most 1 % of runs, None below `P90_MIN_QUERIES` values.

    Args:
        latencies: In any order; the result is one of them.
    Source: `early_stopping_rank`.
    """
    rank = early_stopping_rank(len(latencies))
    return None if rank is None else sorted(latencies)[rank - 1]


def paired_ratio(
    figures: Sequence[int] | Sequence[float], baseline: Sequence[int] | Sequence[float]
) -> tuple[float, float | None, float | None]:
    """How many times the baseline's time a case takes, from the rounds that timed both, with its 95 % interval.

    The geometric mean of the rounds' ratios, and Student's t over the rounds on their logarithms. The mean and not the
    median, because every second round runs in the reverse order of the one before it: a linear drift raises the ratio
    in the one by as much as it lowers it in the other. In the mean that cancels. The median stands between two such
    groups, rests on one value of each, and on a single group where a round is missing. Drift widens the interval, so
    that it does not cover too little.

    Args:
        figures: Of the case, one for each round, above 0; medians of its blocks.
        baseline: The same of the baseline, in the same order and unit.
    Returns:
        Ratio, lower and upper bound; no bounds for a single round.
    Raises:
        ValueError: no rounds, not equally many, or a figure that is not above 0.
    """
    _require_values(figures)
    if min(*figures, *baseline) <= 0:
        raise ValueError(f"Figures above 0 are required. Received: {min(*figures, *baseline)}")
    logs = [math.log(one / other) for one, other in zip(figures, baseline, strict=True)]
    center = statistics.fmean(logs)
    if len(logs) == 1:
        return math.exp(center), None, None
    half_width = student_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(center), math.exp(center - half_width), math.exp(center + half_width)


def independent_ratio(
    figures: Sequence[int] | Sequence[float], baseline: Sequence[int] | Sequence[float]
) -> tuple[float, float | None, float | None]:
    """How many times the time of one job another takes for the same case, with its 95 % interval.

    The rounds of two jobs have nothing in common, so that they are two independent samples: the ratio of geometric
    means, and Welch's t on the logarithms, which does not take both to scatter alike.

    Args:
        figures: Of the one job, one for each round, above 0; medians of its blocks.
        baseline: The same of the other, in the same unit, in any order and number.
    Returns:
        Ratio, lower and upper bound; no bounds where one of them has a single round.
    Raises:
        ValueError: one is empty, or a figure is not above 0.
    Source: Welch (1947), with the degrees of freedom of Satterthwaite (1946).
    """
    for values in (figures, baseline):
        _require_values(values)
        if min(values) <= 0:
            raise ValueError(f"Figures above 0 are required. Received: {min(values)}")
    logs = [[math.log(value) for value in values] for values in (figures, baseline)]
    center = statistics.fmean(logs[0]) - statistics.fmean(logs[1])
    if min(map(len, logs)) == 1:
        return math.exp(center), None, None
    parts = [statistics.variance(sample) / len(sample) for sample in logs]
    half_width = 0.0
    if (total := sum(parts)) > 0:
        # Shares of the total, because squares of tiny variances vanish.
        weights = [(part / total) ** 2 / (len(sample) - 1) for part, sample in zip(parts, logs, strict=True)]
        freedom = max(1.0, 1 / sum(weights))
        half_width = student_quantile(freedom) * math.sqrt(total)
    return math.exp(center), math.exp(center - half_width), math.exp(center + half_width)


def is_tie(low: float, high: float, neutral: float) -> bool:
    """Whether an interval from low to high leaves open which of two is better: it holds the value that means equal.

    That value, `neutral`, is 1 for a ratio and 0 for a difference. The bounds belong to the interval.
    """
    return low <= neutral <= high


def ratios_agree(first: Ratio, second: Ratio) -> bool:
    """Whether two measurements of one ratio differ by no more than the interval of their difference allows.

    |ln first - ln second| <= sqrt(h1^2 + h2^2), where h is half the width of an interval in logarithms.
    """
    widths = [math.log(high / low) / 2 for _, low, high in (first, second)]
    return abs(math.log(first[0] / second[0])) <= math.hypot(*widths)


def agreement(first: Mapping[Key, Ratio], second: Mapping[Key, Ratio]) -> tuple[dict[Key, bool], float | None]:
    """Whether two runs of the same job agree, by `ratios_agree`.

    Args:
        first: Ratio of each case with an interval; without the baseline, whose ratio is 1 by definition.
        second: The same of the other run.
    Returns:
        For each case that both have whether it agrees, in the order of the first; and the share that do, None where
        they have no case in common.
    """
    cases = {key: ratios_agree(ratio, second[key]) for key, ratio in first.items() if key in second}
    return cases, sum(cases.values()) / len(cases) if cases else None


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
    z = normal_quantile(confidence)
    share = correct / total
    shrink = 1 + z * z / total
    center = (share + z * z / (2 * total)) / shrink
    half_width = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # The bounds are exact at both ends; rounding would leave them a hair beside 0 and 1.
    low = 0.0 if correct == 0 else center - half_width
    high = 1.0 if correct == total else center + half_width
    return low, high


def independent_difference(correct_a: int, total_a: int, correct_b: int, total_b: int) -> tuple[float, float, float]:
    """Accuracy of b less that of a on other images, with its 95 % interval from the two Wilson intervals.

    Args:
        correct_a: Images that a classifies correctly, 0 to total_a.
        total_a: Images that a classified, at least 1.
        correct_b: The same of b.
        total_b: The same of b.
    Returns:
        Difference, lower and upper bound, from -1 to 1.
    Raises:
        ValueError: an argument is out of its range.
    Source: Newcombe, Interval estimation for the difference between independent proportions (1998), method 10.
    """
    low_a, high_a = wilson_interval(correct_a, total_a)
    low_b, high_b = wilson_interval(correct_b, total_b)
    share_a, share_b = correct_a / total_a, correct_b / total_b
    difference = share_b - share_a
    below = math.hypot(share_b - low_b, high_a - share_a)
    above = math.hypot(high_b - share_b, share_a - low_a)
    return difference, difference - below, difference + above


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
    return discordant_difference(*_discordant(correct_a, correct_b), len(correct_a))


def discordant_difference(gained: int, lost: int, total: int) -> tuple[float, float, float]:
    """`paired_difference` from the images on which the two disagree.

    Args:
        gained: Images that b classifies correctly and a does not.
        lost: Images that a classifies correctly and b does not.
        total: All images, at least 1 and at least gained + lost.
    Raises:
        ValueError: an argument is out of its range.
    """
    if min(gained, lost) < 0 or total < max(1, gained + lost):
        raise ValueError(f"gained + lost <= total, total at least 1, is required. Received: {gained}, {lost}, {total}")
    difference = (gained - lost) / total
    low = _furthest_accepted(gained, lost, total, difference, -1.0)
    high = _furthest_accepted(gained, lost, total, difference, 1.0)
    return difference, low, high


def mcnemar_exact(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> float:
    """How likely two equally accurate models disagree at least as unevenly as these do (two-sided p-value).

    Args:
        correct_a: For each image whether a classifies it correctly; at least one image.
        correct_b: The same of b, in the same order.
    Returns:
        From above 0 to 1; 1 where they never disagree.
    Raises:
        ValueError: no images, or not equally many.
    Source: McNemar (1947) with the exact binomial distribution of the discordant pairs.
    """
    gained, lost = _discordant(correct_a, correct_b)
    count = gained + lost
    tail = sum(math.comb(count, ways) for ways in range(min(gained, lost) + 1))
    return min(1.0, 2 * tail / (1 << count))


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
    half_width = normal_quantile(0.95) * statistics.pstdev(adjusted) / math.sqrt(len(adjusted))
    return statistics.fmean(images), max(-1.0, center - half_width), min(1.0, center + half_width), per_seed


def _discordant(correct_a: Sequence[bool], correct_b: Sequence[bool]) -> tuple[int, int]:
    """On how many images b is right and a wrong, and the reverse."""
    _require_values(correct_a)
    if len(correct_a) != len(correct_b):
        raise ValueError(f"Equally many images are required. Received: {len(correct_a)} and {len(correct_b)}")
    right_a, right_b = list(map(bool, correct_a)), list(map(bool, correct_b))
    return sum(map(operator.gt, right_b, right_a)), sum(map(operator.gt, right_a, right_b))


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
    return (gained - lost - total * difference) ** 2 <= normal_quantile(0.95) ** 2 * max(0.0, variance)


def _at_most(successes: int, count: int, probability: float) -> float:
    """P[Binomial(count, probability) <= successes], summed downwards from a term that no later one exceeds.

    So successes is at most about the mean, count x probability.
    """
    ways = math.lgamma(count + 1) - math.lgamma(successes + 1) - math.lgamma(count - successes + 1)
    term = math.exp(ways + successes * math.log(probability) + (count - successes) * math.log1p(-probability))
    total = 0.0
    while successes >= 0 and term > total * 1e-17:
        total += term
        term *= successes / (count - successes + 1) * (1 - probability) / probability
        successes -= 1
    return total


def _require_values(values: Sequence[int] | Sequence[float]) -> None:
    if not len(values):
        raise ValueError("At least one value is required. Received: none")
