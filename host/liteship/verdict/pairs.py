"""Two rows beside each other: how much slower one is, and how much less often right.

Rows of one job share rounds and images, so that they are compared in pairs; rows of two jobs share at most the images.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from liteship.errors import ReportError
from liteship.report.accuracy import Answers
from liteship.report.comparison import Comparison, Row
from liteship.stats import discordant_difference, independent_ratio, is_tie, paired_ratio


@dataclass(frozen=True)
class Estimate:
    """A ratio or a difference.

    Args:
        value: The point estimate.
        low, high: The bounds of its 95 % interval, None where it has none.
    """

    value: float
    low: float | None
    high: float | None

    def is_above(self, value: float) -> bool:
        """Whether the whole interval is above a value; never without an interval."""
        return self.low is not None and self.low > value

    def is_below(self, value: float) -> bool:
        """Whether the whole interval is below a value; never without an interval."""
        return self.high is not None and self.high < value

    def is_open(self, neutral: float) -> bool:
        """Whether the interval leaves open which of two is better: it holds the value that means equal."""
        return self.low is not None and self.high is not None and is_tie(self.low, self.high, neutral)


def ratio_in_rounds(row: Row, other: Row) -> Estimate | None:
    """How many times the other's time a row of the same job takes, from the rounds that have both; None without any."""
    pairs = [
        (one, two)
        for one, two in zip(row.round_medians_ns, other.round_medians_ns, strict=False)
        if one is not None and two is not None and min(one, two) > 0
    ]
    return Estimate(*paired_ratio([one for one, _ in pairs], [two for _, two in pairs])) if pairs else None


def ratio_of_p90(row: Row, other: Row) -> Estimate | None:
    """How many times the other's 90th percentile a row's is, with a 95 % interval from those that are stored of both.

    Half the width of each interval in logarithms, joined as the legs of a right triangle. That takes both intervals to
    be about even in logarithms, and both rows to be independent. Rows of one job share what disturbs a round, so that
    their interval is rather too wide than too narrow; a percentile of each round, to compare in pairs, is not kept.

    Returns:
        None where one has no 90th percentile; without bounds where one has none.
    """
    if not row.p90_ns or not other.p90_ns:
        return None
    ratio = row.p90_ns / other.p90_ns
    widths = []
    for one in (row, other):
        if not one.p90_low_ns or not one.p90_high_ns:
            return Estimate(ratio, None, None)
        widths.append(math.log(one.p90_high_ns / one.p90_low_ns) / 2)
    width = math.hypot(*widths)
    return Estimate(ratio, ratio * math.exp(-width), ratio * math.exp(width))


def ratio_of_jobs(row: Row, other: Row) -> Estimate | None:
    """How many times the other's time a row of another job takes; None where one has no round."""
    rounds = [[ns for ns in one.round_medians_ns if ns is not None and ns > 0] for one in (row, other)]
    return Estimate(*independent_ratio(*rounds)) if all(rounds) else None


def answers_of_row(comparison: Comparison, row: Row) -> Answers | None:
    """The answers of its file in its runtime; None where it has none.

    Raises:
        ReportError: they do not fit their number of images.
    """
    wanted = (row.sha256, row.runtime, row.runtime_version)
    found = next((own for own in comparison.answers if (own.sha256, own.runtime, own.runtime_version) == wanted), None)
    if found is not None:
        _check_answers(found)
    return found


def difference_of_answers(answers: Answers, other: Answers) -> Estimate:
    """Accuracy less the other's on the same images, image by image."""
    wrong, other_wrong = set(answers.wrong), set(other.wrong)
    return Estimate(*discordant_difference(len(other_wrong - wrong), len(wrong - other_wrong), answers.image_count))


def _check_answers(answers: Answers) -> None:
    wrong, count = answers.wrong, answers.image_count
    # Between -1 and the number of images, so that the ends are checked with the order.
    ascending = all(one < two for one, two in itertools.pairwise((-1, *wrong, count)))
    if not (ascending and count > 0 and len(wrong) + answers.correct == count):
        raise ReportError(
            f"Answers of {answers.variant}: indices of the wrong ones of all images, ascending, are required. "
            f"Received: {len(wrong)} wrong and {answers.correct} right of {count}."
        )
