"""Quantiles that the intervals need, of the standard library alone."""

from __future__ import annotations

import functools
import math
import statistics


@functools.cache
def normal_quantile(confidence: float) -> float:
    """Standard deviations on either side of the mean that hold a share of the normal distribution."""
    return statistics.NormalDist().inv_cdf((1 + confidence) / 2)


@functools.cache
def student_quantile(freedom: float) -> float:
    """Student's t that 97.5 % of the distribution lies below, by Newton's method.

    Right of 0 the distribution function is concave, so that every step from the normal quantile, which is never above
    the one of t, stays on the left of the result.

    Args:
        freedom: Degrees of freedom, at least 1; not only whole ones.
    Raises:
        ValueError: freedom is below 1.
    """
    if not freedom >= 1:
        raise ValueError(f"At least one degree of freedom is required. Received: {freedom}")
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(freedom * math.pi) / 2
    t = normal_quantile(0.95)
    for _ in range(100):
        density = math.exp(log_scale - (freedom + 1) / 2 * math.log1p(t * t / freedom))
        step = (_upper_tail(t, freedom) - 0.025) / density
        t += step
        if abs(step) <= 1e-13 * t:
            break
    return t


def _upper_tail(t: float, freedom: float) -> float:
    """Share of Student's distribution above t > 0: half the regularized incomplete beta function.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.1 with 26.5.2 and the continued fraction
    26.5.8.
    """
    x = freedom / (freedom + t * t)
    a, b = freedom / 2, 0.5
    swapped = x > (a + 1) / (a + b + 2)
    if swapped:  # The fraction converges fast on this side only.
        a, b, x = b, a, 1 - x
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    share = math.exp(log_front) / (a * _continued_fraction(a, b, x))
    return (1 - share if swapped else share) / 2


def _continued_fraction(a: float, b: float, x: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)) of the incomplete beta function, from the inside out."""
    value = 1.0
    for m in range(60, 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        value = 1 + odd / (1 + even / value)
    return value
