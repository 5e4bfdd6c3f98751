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
from scipy.stats import binom, binomtest, ttest_1samp

from liteship.stats import (
    P90_MIN_QUERIES,
    agreement,
    early_stopping_p90,
    early_stopping_rank,
    is_tie,
    mcnemar_exact,
    median,
    nearest_rank,
    p90,
    paired_difference,
    paired_mean_difference,
    paired_ratio,
    percentile,
    ratios_agree,
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


def test_nearest_rank_is_where_the_percentile_stands():
    assert [nearest_rank(ratio, 10) for ratio in (0.01, 0.1, 0.11, 0.9, 1)] == [1, 1, 2, 9, 10]


def test_p90_needs_64_queries():
    assert P90_MIN_QUERIES == 64
    assert p90(range(63)) is None
    assert p90(range(1, 65)) == 58


@pytest.mark.parametrize(("count", "rank"), [(64, 64), (100, 98), (128, 124), (256, 243), (1024, 945), (5000, 4551)])
def test_early_stopping_takes_the_rank_of_mlperf(count, rank):
    assert early_stopping_rank(count) == rank
    assert early_stopping_p90(range(count, 0, -1)) == rank


def test_early_stopping_needs_64_queries():
    assert {early_stopping_rank(count) for count in range(P90_MIN_QUERIES)} == {None}
    assert early_stopping_p90(range(63)) is None


@pytest.mark.parametrize("count", [*range(64, 400, 7), 3000, 100_000, 10**6])
def test_early_stopping_agrees_with_scipy(count):
    beyond = count - early_stopping_rank(count) + 1

    assert binom.cdf(beyond, count, 0.1) <= 0.01 < binom.cdf(beyond + 1, count, 0.1)


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**9), min_size=64, max_size=300), st.integers(1, 1000))
def test_the_early_stopping_bound_is_a_latency_at_or_above_the_90th_percentile(values, factor):
    bound = early_stopping_p90(values)

    assert bound in values
    assert bound >= p90(values)
    assert early_stopping_p90(values[::-1]) == bound
    assert early_stopping_p90([factor * value for value in values]) == factor * bound


rounds = st.lists(st.tuples(st.floats(1, 1e9), st.floats(1, 1e9)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=50)
@given(rounds.filter(lambda pairs: len(pairs) > 1))
def test_the_ratio_agrees_with_scipys_t_test_on_logarithms(pairs):
    logs = [math.log(one / other) for one, other in pairs]
    ratio, low, high = paired_ratio(*zip(*pairs))
    # The test of equal logarithms has no interval, and warns.
    if np.ptp(logs) > 1e-6:
        expected = ttest_1samp(logs, 0).confidence_interval(0.95)
        assert (math.log(low), math.log(high)) == pytest.approx((expected.low, expected.high), rel=1e-7, abs=1e-9)

    assert math.log(ratio) == pytest.approx(np.mean(logs), abs=1e-9)
    assert low <= ratio <= high


@settings(deadline=None, max_examples=50)
@given(rounds, st.floats(0.01, 100), st.randoms())
def test_the_ratio_scales_turns_and_does_not_depend_on_the_order_of_rounds(pairs, factor, random):
    figures, baseline = zip(*pairs)
    found = paired_ratio(figures, baseline)
    turned = paired_ratio(baseline, figures)
    random.shuffle(pairs)

    known = [value for value in found if value is not None]
    scaled = paired_ratio([factor * value for value in figures], baseline)
    assert [value for value in scaled if value is not None] == pytest.approx([factor * value for value in known])
    assert [1 / value for value in turned if value is not None] == pytest.approx([known[0], *known[:0:-1]])
    assert [value for value in paired_ratio(*zip(*pairs)) if value is not None] == pytest.approx(known)


def test_a_ratio_of_equal_rounds_has_an_interval_without_width():
    assert paired_ratio([3, 6, 9], [2, 4, 6]) == pytest.approx((1.5, 1.5, 1.5))


def test_a_ratio_of_a_single_round_has_no_interval():
    assert paired_ratio([3], [2]) == (pytest.approx(1.5), None, None)


@pytest.mark.parametrize("missing", range(6))
def test_a_drift_cancels_in_the_mean_and_a_missing_round_leaves_it_less_of_it_than_the_median(missing):
    places = [(0, 1), (3, 2), (4, 5), (7, 6), (8, 9), (11, 10)]
    figures, baseline = [0.6 * 1.01**later for _, later in places], [1.01**first for first, _ in places]
    assert paired_ratio(figures, baseline)[0] == pytest.approx(0.6)

    del figures[missing], baseline[missing]
    of_mean = abs(paired_ratio(figures, baseline)[0] / 0.6 - 1)
    of_median = abs(median([one / other for one, other in zip(figures, baseline)]) / 0.6 - 1)
    assert of_mean < 0.25 * of_median


@pytest.mark.parametrize(("figures", "message"), [([], "At least one"), ([1], "zip"), ([1, 0], "above 0 are required")])
def test_a_ratio_needs_figures_of_the_same_rounds(figures, message):
    with pytest.raises(ValueError, match=message):
        paired_ratio(figures, [1, 2])


@pytest.mark.parametrize(
    ("low", "high", "neutral", "tie"),
    [(0.97, 1.02, 1, True), (1.0, 1.1, 1, True), (0.9, 1.0, 1, True), (0.6, 0.99, 1, False), (0.001, 0.02, 0, False)],
)
def test_a_tie_is_an_interval_that_holds_the_neutral_value(low, high, neutral, tie):
    assert is_tie(low, high, neutral) is tie


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ((0.60, 0.59, 0.61), (0.60, 0.60, 0.60), True),
        # Each is outside the other's interval, and both intervals together allow it.
        ((0.600, 0.592, 0.608), (0.610, 0.602, 0.618), True),
        ((0.600, 0.592, 0.608), (0.612, 0.604, 0.620), False),
        ((0.60, 0.60, 0.60), (0.60, 0.60, 0.60), True),
    ],
)
def test_two_ratios_agree_within_the_interval_of_their_difference(first, second, agree):
    assert ratios_agree(first, second) is agree
    assert ratios_agree(second, first) is agree


def test_the_agreement_of_two_runs_is_the_share_of_the_cases_that_both_have():
    first = {"a": (0.6, 0.59, 0.61), "b": (1.2, 1.19, 1.21), "c": (1.0, 0.9, 1.1), "d": (2.0, 1.9, 2.1)}
    second = {"d": (2.0, 1.9, 2.1), "a": (0.7, 0.69, 0.71), "b": (1.2, 1.1, 1.3)}

    assert agreement(first, second) == ({"a": False, "b": True, "d": True}, 2 / 3)
    assert list(agreement(first, second)[0]) == ["a", "b", "d"]
    assert agreement(first, {}) == ({}, None)


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


@settings(deadline=None, max_examples=50)
@given(discordant)
def test_mcnemar_agrees_with_scipys_binomial_test(counts):
    gained, lost, _ = counts
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0

    assert mcnemar_exact(*pairs(*counts)) == pytest.approx(expected, rel=1e-9)
    assert mcnemar_exact(*pairs(*counts)) == mcnemar_exact(*pairs(lost, gained, counts[2]))


def test_mcnemar_holds_for_many_disagreements():
    assert mcnemar_exact(*pairs(2500, 2300, 10_000)) == pytest.approx(binomtest(2300, 4800).pvalue, rel=1e-9)


@pytest.mark.parametrize(("a", "b", "message"), [([], [], "At least one"), ([True], [True, False], "Equally many")])
@pytest.mark.parametrize("function", [paired_difference, mcnemar_exact])
def test_two_models_are_compared_on_the_same_images(function, a, b, message):
    with pytest.raises(ValueError, match=message):
        function(a, b)


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
    program = "import sys, liteship.stats, liteship.report.table, liteship.report.summary; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert not {"numpy", "scipy", "tensorflow", "cv2", "paramiko", "altair"} & set(loaded)
