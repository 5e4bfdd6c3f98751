from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from liteship.stats import P90_MIN_QUERIES, median, p90, percentile, wilson_interval

latencies = st.lists(st.integers(min_value=1, max_value=10**12), min_size=1, max_size=200)
ratios = st.integers(min_value=1, max_value=1000).map(lambda thousandths: thousandths / 1000)


def test_median_of_an_even_number_is_the_mean_of_the_middle_two():
    assert median([4, 1, 3, 2]) == 2.5


@settings(deadline=None)
@given(latencies)
def test_median_agrees_with_numpy(values):
    assert median(values) == np.median(values)


@settings(deadline=None)
@given(latencies, ratios)
def test_percentile_is_the_smallest_value_with_that_share_at_or_below(values, ratio):
    result = percentile(values, ratio)

    thousandths = round(1000 * ratio)
    assert result in values
    assert 1000 * sum(value <= result for value in values) >= thousandths * len(values)
    smaller = [value for value in values if value < result]
    assert 1000 * len(smaller) < thousandths * len(values)


@settings(deadline=None)
@given(latencies, st.integers(min_value=1, max_value=64))
def test_percentile_agrees_with_numpy(values, sixty_fourths):
    # Binary holds these ratios exactly, so that numpy's rank is not off by its rounding.
    ratio = sixty_fourths / 64
    assert percentile(values, ratio) == np.quantile(values, ratio, method="inverted_cdf")


def test_percentile_takes_the_ratio_as_the_decimal_that_it_is_written_as():
    assert 0.07 * 100 > 7
    assert percentile(range(1, 101), 0.07) == 7
    assert percentile(range(1, 101), 0.9) == 90


@pytest.mark.parametrize("ratio", [0, -0.1, 1.01, math.nan])
def test_percentile_refuses_a_ratio_outside_its_range(ratio):
    with pytest.raises(ValueError, match="above 0 and at most 1 is required"):
        percentile([1, 2], ratio)


@pytest.mark.parametrize("function", [median, lambda values: percentile(values, 0.5)])
def test_no_values_are_refused(function):
    with pytest.raises(ValueError, match="At least one value is required"):
        function([])


def test_p90_needs_64_queries():
    assert P90_MIN_QUERIES == 64
    assert p90(range(63)) is None
    assert p90(range(1, 65)) == 58


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("correct", "total"), [(0, 1), (1, 1), (0, 290), (290, 290), (268, 290), (355, 360), (1, 3000)]
)
def test_wilson_interval_agrees_with_scipy(correct, total, confidence):
    expected = binomtest(correct, total).proportion_ci(confidence, method="wilson")

    assert wilson_interval(correct, total, confidence) == pytest.approx((expected.low, expected.high), abs=1e-12)


@settings(deadline=None)
@given(st.integers(min_value=1, max_value=10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_share_and_stays_within_0_and_1(counts):
    correct, total = counts
    low, high = wilson_interval(correct, total)

    assert 0 <= low <= correct / total <= high <= 1
    assert high - low > 0


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(correct, total):
    with pytest.raises(ValueError, match="is required"):
        wilson_interval(correct, total)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_wilson_interval_refuses_an_impossible_confidence(confidence):
    with pytest.raises(ValueError, match="confidence above 0 and below 1"):
        wilson_interval(1, 2, confidence)


def test_reading_verbs_need_no_heavy_library():
    program = "import sys, liteship.stats, liteship.report.table; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert not {"numpy", "scipy", "tensorflow", "cv2", "paramiko"} & set(loaded)
