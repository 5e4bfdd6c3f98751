"""Statistics of two jobs: latencies as independent samples, accuracies on other images."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from liteship.distributions import normal_quantile, student_quantile
from liteship.stats import independent_difference, independent_ratio, wilson_interval

rounds = st.lists(st.floats(1e3, 1e10), min_size=2, max_size=12)
shares = st.integers(1, 400).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total)))


@given(st.floats(1, 500))
def test_students_t_is_that_of_scipy_also_between_whole_degrees_of_freedom(freedom):
    assert student_quantile(freedom) == pytest.approx(reference.t.ppf(0.975, freedom), rel=1e-9)


@pytest.mark.parametrize("freedom", [0.5, 0, -1, math.nan])
def test_less_than_one_degree_of_freedom_is_refused(freedom):
    with pytest.raises(ValueError, match="At least one degree"):
        student_quantile(freedom)


@given(st.floats(0.01, 0.999))
def test_normal_quantile_holds_its_share(confidence):
    held = reference.norm.cdf(normal_quantile(confidence)) - reference.norm.cdf(-normal_quantile(confidence))
    assert held == pytest.approx(confidence)


@given(rounds, rounds)
def test_ratio_of_two_jobs_is_welchs(figures, baseline):
    logs = [[math.log(value) for value in values] for values in (figures, baseline)]
    if max(max(sample) - min(sample) for sample in logs) < 1e-6:
        return  # scipy loses its digits here
    expected = reference.ttest_ind(*logs, equal_var=False).confidence_interval(0.95)
    ratio, low, high = independent_ratio(figures, baseline)
    assert (math.log(low), math.log(high)) == pytest.approx((expected.low, expected.high), rel=1e-6, abs=1e-7)
    assert low <= ratio <= high


@given(rounds, rounds)
def test_ratio_the_other_way_round_is_its_reciprocal(figures, baseline):
    turned = independent_ratio(baseline, figures)
    assert independent_ratio(figures, baseline) == pytest.approx((1 / turned[0], 1 / turned[2], 1 / turned[1]))


@given(rounds, rounds, st.floats(0.1, 10), st.randoms())
def test_ratio_follows_the_scale_and_not_the_order(figures, baseline, factor, random):
    shuffled = random.sample(figures, len(figures))
    expected = [factor * bound for bound in independent_ratio(figures, baseline)]
    assert independent_ratio([factor * value for value in shuffled], baseline) == pytest.approx(expected)


def test_equal_rounds_leave_no_doubt():
    assert independent_ratio([3, 3], [2, 2, 2]) == pytest.approx((1.5, 1.5, 1.5))


@pytest.mark.parametrize(("figures", "baseline"), [([3], [2, 2]), ([3, 3], [2]), ([3], [2])])
def test_a_single_round_has_a_ratio_without_an_interval(figures, baseline):
    assert independent_ratio(figures, baseline) == (pytest.approx(1.5), None, None)


@pytest.mark.parametrize(("figures", "baseline"), [([], [1]), ([1], []), ([0, 1], [1, 1]), ([1, 1], [-1, 1])])
def test_no_rounds_or_figures_that_are_no_latencies_are_refused(figures, baseline):
    with pytest.raises(ValueError, match="required"):
        independent_ratio(figures, baseline)


def test_difference_on_other_images_is_newcombes_example():
    # Newcombe (1998), table II: 56 of 70 less 48 of 80.
    difference, low, high = independent_difference(48, 80, 56, 70)
    assert (round(difference, 4), round(low, 4), round(high, 4)) == (0.2, 0.0524, 0.3339)


@given(shares, shares)
def test_difference_on_other_images_stays_within_its_range_and_turns_its_sign(a, b):
    difference, low, high = independent_difference(*a, *b)
    assert -1 <= low <= difference <= high <= 1
    assert independent_difference(*b, *a) == pytest.approx((-difference, -high, -low))


@given(shares, shares)
def test_intervals_that_do_not_overlap_exclude_no_difference(a, b):
    if wilson_interval(*a)[1] < wilson_interval(*b)[0]:
        assert independent_difference(*a, *b)[1] > 0
