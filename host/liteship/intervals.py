"""Intervals of the percentiles of latency over blocks, made once per job and stored in its report.

numpy is imported by the functions that need it, so that what only reads a report does not load it.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from liteship.stats import nearest_rank

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DRAWS = 4000
# Normal effects that stand for equal shares of the distribution; 0.5 and 0.9 are the middle of a share.
# With 17 times as many the bounds move by at most 3 % of the interval.
_EFFECTS = 25


def block_intervals(
    blocks: Sequence[Sequence[int] | Sequence[float]], ratios: Sequence[float] = (0.5, 0.9)
) -> tuple[tuple[float, float], ...]:
    """95 % intervals of percentiles of latency, by a parametric bootstrap in which the blocks are the sample.

    A latency is modeled as the effect of its block times noise: effects are lognormal, the noise has any distribution.
    A draw takes a spread of the effects that fits the one seen (chi-squared) and with it moves (a) where the blocks
    lie as a whole and (b) the percentile of the mixture, which the spread widens. (a) alone is Student's t on the
    logarithms of the blocks' own percentiles. Resampling whole blocks would show nothing beyond the slowest of six:
    where effects exceed the noise its interval of the 90th percentile covers 56 to 83 instead of 95 %
    (benchmarks/results/interval_coverage.md).

    The draws are a lattice instead of random numbers, so that equal blocks have equal intervals.

    Args:
        blocks: Latencies above 0 of each block, at least two blocks; the result has their unit.
        ratios: Which percentiles; 0.5 is the median.
    Returns:
        Lower and upper bound for each ratio; they hold the median or percentile of all values.
    Raises:
        ValueError: fewer than two blocks, an empty one, or a latency that is not above 0.
    Source: generalized intervals, Weerahandi (1993), for the percentiles of random-effects models in Krishnamoorthy
        and Mathew, Statistical Tolerance Regions (2009).
    """
    import numpy as np

    if len(blocks) < 2 or not all(len(block) for block in blocks):
        raise ValueError(f"At least two blocks, none empty, are required. Received: {[len(block) for block in blocks]}")
    ascending = [np.sort(np.asarray(block, float)) for block in blocks]
    if (least := min(block[0] for block in ascending)) <= 0:
        raise ValueError(f"Latencies above 0 are required. Received: {least:g}")
    logs = [np.log(block) for block in ascending]
    pooled = np.sort(np.concatenate(ascending))
    of_blocks = np.array([np.quantile(block, (0.5, *ratios)) for block in logs])
    medians = of_blocks[:, 0]
    noise = np.sort(np.concatenate(logs) - np.repeat(medians, [len(block) for block in blocks]))
    scales, shifts = _draws(len(blocks))
    knots = np.quantile(scales, np.linspace(0, 1, 9))
    widened = _mixture_percentiles(noise, medians.std(ddof=1) * knots, ratios)
    errors = of_blocks[:, 1:].std(axis=0, ddof=1) / math.sqrt(len(blocks))

    intervals = []
    for ratio, at_knots, error in zip(ratios, widened, errors, strict=True):
        estimate = np.median(pooled) if ratio == 0.5 else pooled[nearest_rank(ratio, len(pooled)) - 1]
        drawn = medians.mean() + np.interp(scales, knots, at_knots) + scales * shifts * error
        low, high = np.exp(np.quantile(drawn, (0.025, 0.975)))
        intervals.append((float(min(low, estimate)), float(max(high, estimate))))
    return tuple(intervals)


@functools.cache
def _draws(blocks: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each draw the true spread of the block effects as a multiple of the one seen, and a standard normal value.

    The pairs are an evenly filled lattice of their two distributions, by the golden ratio.
    """
    import numpy as np

    shares = (np.arange(_DRAWS) + 0.5) / _DRAWS
    squares = np.quantile(np.random.default_rng(0).chisquare(blocks - 1, 500_000), shares)
    golden = (math.sqrt(5) - 1) / 2
    inverse = statistics.NormalDist().inv_cdf
    shifts = np.array([inverse((index + 0.5) * golden % 1) for index in range(_DRAWS)])
    return np.sqrt((blocks - 1) / squares), shifts


def _mixture_percentiles(
    noise: NDArray[np.float64], spreads: NDArray[np.float64], ratios: Sequence[float]
) -> NDArray[np.float64]:
    """Percentiles of noise, ascending, plus normal effects of each spread, by bisection: shape (ratios, spreads)."""
    import numpy as np

    normal = statistics.NormalDist()
    effects = np.array([normal.inv_cdf((index + 0.5) / _EFFECTS) for index in range(_EFFECTS)])
    moves = spreads[:, None] * effects
    wanted = np.array(ratios)[:, None]
    low = np.tile(noise[0] + moves[:, 0], (len(wanted), 1))
    high = np.tile(noise[-1] + moves[:, -1], (len(wanted), 1))
    for _ in range(24):  # less than a ten-millionth of the range
        middle = (low + high) / 2
        share = np.searchsorted(noise, middle[:, :, None] - moves, side="right").mean(axis=2) / len(noise)
        low, high = np.where(share < wanted, middle, low), np.where(share < wanted, high, middle)
    return high
