from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.special import xlogy
from scipy.stats import binomtest

from liteship.stats import (
    P90_MIN_QUERIES,
    median,
    p90,
    paired_difference,
    paired_mean_difference,
    percentile,
    wilson_interval,
)

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


def pairs(gained, lost, total):
    """Two models on the same images: b right where a is wrong, the reverse, and the rest."""
    rest = total - gained - lost
    kept = [True] * (rest // 2) + [False] * (rest - rest // 2)
    return [False] * gained + [True] * lost + kept, [True] * gained + [False] * lost + kept


def share_rejected(gained, lost, total, true_difference):
    """Tango's statistic from its definition: the likelihood is maximized by search, not by formula."""

    def negative_likelihood(share_lost):
        share_gained = share_lost + true_difference
        kept = 1 - share_gained - share_lost
        terms = ((gained, share_gained), (lost, share_lost), (total - gained - lost, kept))
        return -sum(xlogy(count, max(share, 1e-300)) for count, share in terms)

    bounds = (max(0.0, -true_difference), (1 - true_difference) / 2)
    best = minimize_scalar(negative_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    variance = total * (2 * best + true_difference * (1 - true_difference))
    return (gained - lost - total * true_difference) / math.sqrt(variance)


discordant = st.integers(min_value=1, max_value=2000).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n)).filter(lambda c: c[0] + c[1] <= c[2])
)


@pytest.mark.parametrize(("gained", "lost", "total"), [(1, 7, 21), (3, 3, 60), (2, 14, 290), (9, 40, 1000)])
def test_paired_difference_is_where_the_score_test_rejects(gained, lost, total):
    difference, low, high = paired_difference(*pairs(gained, lost, total))
    expected = [
        brentq(lambda at, z=z: share_rejected(gained, lost, total, at) - z, *bracket)
        for z, bracket in ((1.959964, (-0.99, difference)), (-1.959964, (difference, 0.99)))
    ]

    assert difference == (gained - lost) / total
    assert (low, high) == pytest.approx(expected, abs=1e-5)


def test_paired_difference_agrees_with_a_published_table():
    # Airway hyper-responsiveness before and after transplantation: Fagerland, Lydersen and Laake (2014), table of CIs.
    assert paired_difference(*pairs(1, 7, 21))[1:] == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_paired_difference_without_any_disagreement_is_zero_and_not_certain():
    assert paired_difference(*pairs(0, 0, 290)) == pytest.approx((0, -3.8415 / 293.8415, 3.8415 / 293.8415), abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(discordant)
def test_paired_difference_holds_the_estimate_and_turns_its_sign_with_the_order(counts):
    a, b = pairs(*counts)
    difference, low, high = paired_difference(a, b)

    assert -1 <= low <= difference <= high <= 1
    assert low < high
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low), abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(discordant)
def test_paired_difference_is_narrower_for_four_times_the_images(counts):
    _, low, high = paired_difference(*pairs(*counts))
    _, narrow_low, narrow_high = paired_difference(*pairs(*(4 * count for count in counts)))

    assert narrow_high - narrow_low < high - low


@pytest.mark.parametrize(("share_gained", "share_lost"), [(0.02, 0.02), (0.05, 0.02), (0.01, 0.05), (0.1, 0.2)])
def test_paired_difference_covers_the_truth_in_about_95_of_100_samples(share_gained, share_lost):
    total, covered, truth = 60, 0.0, share_gained - share_lost
    for gained in range(20):
        for lost in range(30):
            ways = math.comb(total, gained) * math.comb(total - gained, lost)
            rest = (1 - share_gained - share_lost) ** (total - gained - lost)
            _, low, high = paired_difference(*pairs(gained, lost, total))
            covered += ways * share_gained**gained * share_lost**lost * rest * (low <= truth <= high)

    assert 0.94 < covered < 0.985


@pytest.mark.parametrize(("a", "b", "message"), [([], [], "At least one"), ([True], [True, False], "zip")])
def test_paired_difference_needs_the_same_images(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_difference(a, b)


def test_the_mean_difference_over_seeds_takes_images_as_the_sample():
    one_seed = np.array([1, 0, 0, -1, -1, 0] * 40, float)
    mean, low, high, per_seed = paired_mean_difference(one_seed[None])
    thrice = paired_mean_difference(np.stack([one_seed] * 3))

    assert mean == pytest.approx(-1 / 6)
    assert per_seed == (mean,)
    assert thrice[:3] == pytest.approx((mean, low, high))
    # One seed is a pair of models: close to the score interval of the same counts.
    assert (mean, low, high) == pytest.approx(paired_difference(*pairs(40, 80, 240)), abs=2e-3)


def test_the_mean_difference_shows_each_seed():
    mean, low, high, per_seed = paired_mean_difference([[1, 0, 0, 0], [-1, -1, 0, 0]])

    assert per_seed == (0.25, -0.5)
    assert mean == -0.125
    assert low < mean < high


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 60).flatmap(
        lambda images: st.lists(
            st.lists(st.sampled_from((-1, 0, 1)), min_size=images, max_size=images), min_size=1, max_size=4
        )
    )
)
def test_the_mean_difference_holds_the_estimate_and_turns_its_sign(differences):
    mean, low, high, per_seed = paired_mean_difference(differences)
    turned = paired_mean_difference([[-value for value in seed] for seed in differences])

    assert -1 <= low <= mean <= high <= 1
    assert low < high
    assert turned[:3] == pytest.approx((-mean, -high, -low), abs=1e-12)
    assert min(per_seed) - 1e-12 <= mean <= max(per_seed) + 1e-12


def test_the_mean_difference_covers_the_truth_in_about_95_of_100_samples():
    random = np.random.default_rng(7)
    samples, covered = 600, 0
    for _ in range(samples):
        # What is hard about an image is common to the seeds: each image has its own chances to be won or lost.
        hard = random.beta(0.3, 2.0, size=(1, 120))
        drawn = random.random((3, 120))
        differences = (drawn < 0.5 * hard).astype(int) - (drawn > 1 - 0.8 * hard).astype(int)
        _, low, high, _ = paired_mean_difference(differences)
        covered += low <= (0.5 - 0.8) * 0.3 / 2.3 <= high

    assert 0.93 < covered / samples < 0.98


@pytest.mark.parametrize("differences", [[], [[]], [[0, 1], [0]]])
def test_the_mean_difference_needs_the_same_images_for_each_seed(differences):
    with pytest.raises(ValueError):
        paired_mean_difference(differences)


def test_reading_verbs_need_no_heavy_library():
    program = "import sys, liteship.stats, liteship.report.table; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert not {"numpy", "scipy", "tensorflow", "cv2", "paramiko", "altair"} & set(loaded)
