from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nct
from scipy.stats import t as student

from liteship.intervals import block_intervals
from liteship.stats import median, percentile


def make_job(noise, seed=0, queries=22, blocks=6):
    """Latencies in ns of blocks with effects of 2 % and exponential noise, shape (blocks, queries)."""
    random = np.random.default_rng(seed)
    return 1e6 * np.exp(random.normal(0, 0.02, (blocks, 1))) * (1 + noise * random.exponential(size=(blocks, queries)))


jobs = st.builds(make_job, st.sampled_from((0.001, 0.02, 0.3)), st.integers(0, 10**6), st.integers(1, 40))


@pytest.mark.parametrize("blocks", [2, 5, 6, 10])
def test_without_noise_the_intervals_are_those_of_a_normal_sample(blocks):
    logs = np.random.default_rng(blocks).normal(0, 0.02, blocks)
    of_median, of_p90 = np.log(block_intervals([[np.exp(value)] * 20 for value in logs]))
    center, error = logs.mean(), logs.std(ddof=1) / np.sqrt(blocks)

    # Student's t for the median; the noncentral t of tolerance limits for the 90th percentile.
    t_exact = student.ppf([0.025, 0.975], blocks - 1)
    nct_exact = nct.ppf([0.025, 0.975], blocks - 1, 1.2815516 * np.sqrt(blocks))
    assert (of_median - center) / error == pytest.approx(t_exact, rel=0.02)
    assert (of_p90 - center) / error == pytest.approx(nct_exact, rel=0.02 if blocks > 2 else 0.05, abs=0.02)


@settings(deadline=None, max_examples=40)
@given(jobs)
def test_intervals_hold_the_estimate(job):
    (low, high), (p90_low, p90_high) = block_intervals(job)

    assert low < median(job.ravel().tolist()) < high
    assert p90_low <= percentile(job.ravel().tolist(), 0.9) <= p90_high


@settings(deadline=None, max_examples=20)
@given(jobs, st.integers(0, 1000))
def test_intervals_do_not_depend_on_the_order_of_blocks_or_queries(job, seed):
    shuffled = np.random.default_rng(seed).permuted(job, axis=1)[::-1]

    assert np.array(block_intervals(shuffled)) == pytest.approx(np.array(block_intervals(job)), rel=1e-6)


@settings(deadline=None, max_examples=20)
@given(jobs, st.floats(1e-6, 1e6))
def test_intervals_scale_with_the_unit(job, factor):
    assert np.array(block_intervals(job * factor)) == pytest.approx(factor * np.array(block_intervals(job)), rel=1e-5)


def test_more_noise_makes_wider_intervals():
    quiet, loud = (np.diff(block_intervals(make_job(noise)), axis=1) for noise in (0.02, 0.3))

    assert (quiet < loud).all()


def test_blocks_of_different_lengths_are_taken_as_they_are():
    blocks = [block[: 30 + 3 * index].tolist() for index, block in enumerate(make_job(0.05, queries=60, blocks=10))]
    (low, high), _ = block_intervals(blocks)

    assert low < median([latency for block in blocks for latency in block]) < high


@pytest.mark.parametrize("latency", range(1, 40))
def test_equal_blocks_have_an_interval_without_width_that_still_holds_the_estimate(latency):
    for low, high in block_intervals([[latency] * 3] * 6):
        assert low <= latency <= high
        assert high - low < 1e-9


def test_equal_blocks_always_have_equal_intervals():
    program = (
        "from liteship.intervals import block_intervals\n"
        "print(block_intervals([[3 + b + q % 7 for q in range(30)] for b in range(6)]))"
    )
    run = [subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True) for _ in "ab"]

    assert run[0].stdout == run[1].stdout


@pytest.mark.parametrize("blocks", [[], [[1, 2]], [[1, 2], []]])
def test_intervals_need_two_blocks_with_latencies(blocks):
    with pytest.raises(ValueError, match="At least two blocks, none empty, are required"):
        block_intervals(blocks)


@pytest.mark.parametrize("latency", [0, -3])
def test_intervals_need_latencies_above_0(latency):
    with pytest.raises(ValueError, match="above 0 are required"):
        block_intervals([[1, 2], [latency, 5]])
