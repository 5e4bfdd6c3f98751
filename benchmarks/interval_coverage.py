"""How often the intervals of latencies and ratios hold the truth: simulated jobs whose truth is known.

    python benchmarks/interval_coverage.py --repetitions 2000 > benchmarks/results/interval_coverage.md

A job is 6 or 10 blocks of as many queries as a block of its tier has. Latency is a lognormal effect of its block times
skewed noise; the truth is the median or 90th percentile of that mixture. Beside liteship's intervals stand those of a
bootstrap that resamples whole blocks: its percentiles, Hesterberg's (2015) expanded percentiles, and its standard error
with Student's t.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from liteship.intervals import block_intervals
from liteship.stats import nearest_rank, paired_ratio
from liteship_agent.schedule import block_order

HEAD = """# How often a 95 % interval holds the truth

Share of {count:,} simulated jobs, in %; each figure is uncertain by {uncertain:.1f} points. Made by
`python benchmarks/interval_coverage.py --repetitions {count}`.

## Latency: median / 90th percentile

Effects: standard deviation of the blocks. Noise: mean of an exponential above the least latency. Beside liteship stand
three bootstraps that resample whole blocks. They cannot show what lies beyond the slowest block, so that the 90th
percentile escapes them where effects exceed the noise. With 66 queries, of them three long outliers, it is the noise of
which too little is known: only there liteship's interval of the 90th percentile holds less than 93 % or more than 97 %.

| blocks x queries | block effects | noise | liteship | percentile | expanded percentile | s.e. with t |
| :-- | --: | :-- | --: | --: | --: | --: |"""
RATIO_HEAD = """
## Ratio to the baseline, from paired rounds

In the order of a job, each second round reversed: drift cancels in the ratio and widens its interval.

| rounds | block effects | drift over the job | liteship |
| --: | --: | --: | --: |"""

RATIOS = (0.5, 0.9)
STUDENT_T = {6: 2.570582, 10: 2.262157}  # 97.5 %, blocks - 1 degrees of freedom
TIERS = {"rapid": (6, 11), "quick": (6, 22), "normal": (10, 103)}


@dataclass(frozen=True)
class Noise:
    """Latency over the least possible one: 1 plus an exponential, for some queries plus a longer one."""

    name: str
    scale: float
    outlier_ratio: float = 0.0
    outlier_scale: float = 0.3

    def draw(self, random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        """Factors of that shape."""
        outlier = random.random(shape) < self.outlier_ratio
        return 1 + np.where(outlier, self.outlier_scale, self.scale) * random.exponential(size=shape)

    def share_below(self, factors: np.ndarray) -> np.ndarray:
        """The distribution function."""
        over = np.maximum(factors - 1, 0)
        usual = (1 - self.outlier_ratio) * -np.expm1(-over / self.scale)
        return usual + self.outlier_ratio * -np.expm1(-over / self.outlier_scale)


NOISES = (Noise("1 %", 0.01), Noise("5 %", 0.05), Noise("2 %, 5 % of queries 30 %", 0.02, 0.05))
EFFECTS = (0.0, 0.01, 0.03)


@dataclass(frozen=True)
class Scenario:
    """A kind of job: the tier, the standard deviation of the block effects in logarithms, and the noise."""

    tier: str
    effect: float
    noise: Noise

    def truth(self, ratio: float) -> float:
        """That percentile of the mixture, by bisection of its distribution function."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(40)
        effects = np.exp(self.effect * nodes)
        low, high = 0.5, 5.0
        for _ in range(50):
            middle = (low + high) / 2
            if weights @ self.noise.share_below(middle / effects) < ratio * weights.sum():
                low = middle
            else:
                high = middle
        return low

    def jobs(self, count: int, seed: int = 0) -> Iterator[np.ndarray]:
        """Latencies of so many jobs, each of shape (blocks, queries)."""
        random = np.random.default_rng(seed)
        blocks, queries = TIERS[self.tier]
        for _ in range(count):
            effects = np.exp(self.effect * random.standard_normal((blocks, 1)))
            yield effects * self.noise.draw(random, (blocks, queries))


Intervals = tuple[tuple[float, float], ...]


def bootstraps(latencies: np.ndarray, resamples: np.ndarray) -> dict[str, Intervals]:
    """The intervals that resampling whole blocks gives.

    Args:
        latencies: Shape (blocks, queries).
        resamples: How often each takes each block, shape (resamples, blocks).
    """
    blocks, queries = latencies.shape
    t, widening = STUDENT_T[blocks], math.sqrt(blocks / (blocks - 1))
    outer = NormalDist().cdf(-t * widening)
    order = np.argsort(latencies, axis=None)
    ascending = latencies.ravel()[order]
    counts = resamples @ np.cumsum(order // queries == np.arange(blocks)[:, None], axis=1)
    intervals: dict[str, list[tuple[float, float]]] = {"percentile": [], "expanded": [], "student": []}
    for ratio in RATIOS:
        rank = nearest_rank(ratio, len(ascending))
        drawn = ascending[np.argmax(counts >= rank, axis=1)]
        half_width = t * widening * np.log(drawn).std()
        intervals["percentile"].append(tuple(np.quantile(drawn, (0.025, 0.975))))
        intervals["expanded"].append(tuple(np.quantile(drawn, (outer, 1 - outer))))
        intervals["student"].append(tuple(ascending[rank - 1] * np.exp((-half_width, half_width))))
    return {method: tuple(found) for method, found in intervals.items()}


def coverage(
    scenario: Scenario, repetitions: int, methods: Callable[[np.ndarray], dict[str, Intervals]]
) -> dict[str, tuple[float, ...]]:
    """The share of jobs whose interval holds the truth, for each method and each of `RATIOS`."""
    truths = [scenario.truth(ratio) for ratio in RATIOS]
    held: dict[str, np.ndarray] = {}
    for latencies in scenario.jobs(repetitions):
        for method, intervals in methods(latencies).items():
            holds = [low <= truth <= high for truth, (low, high) in zip(truths, intervals, strict=True)]
            held[method] = held.get(method, 0) + np.array(holds)
    return {method: tuple(count / repetitions) for method, count in held.items()}


def ratio_coverage(rounds: int, effect: float, drift: float, repetitions: int) -> float:
    """The share of jobs whose interval of a ratio, truly 0.6, holds it.

    Args:
        rounds: Of four cases in the order of `block_order`; the ratio is of the fourth to the first.
        effect: Standard deviation of a block's median, in logarithms.
        drift: By how much latency grows over the job, linearly, as a ratio.
        repetitions: Jobs, each with an order of its own.
    """
    random = np.random.default_rng(0)
    held = 0
    for seed in range(repetitions):
        order = [case for cases in block_order(range(4), rounds, seed) for case in cases]
        pace = (1 + drift * np.arange(len(order)) / (len(order) - 1)) * np.exp(
            effect * random.standard_normal(len(order))
        )
        baseline, other = ([pace[place] for place, case in enumerate(order) if case == wanted] for wanted in (0, 3))
        _, low, high = paired_ratio([0.6 * value for value in other], baseline)
        held += low is not None and high is not None and low <= 0.6 <= high
    return held / repetitions


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    repetitions = parser.parse_args().repetitions
    print(HEAD.format(count=repetitions, uncertain=196 * math.sqrt(0.95 * 0.05 / repetitions)))
    for scenario in (Scenario(tier, effect, noise) for noise in NOISES for tier in TIERS for effect in EFFECTS):
        blocks, queries = TIERS[scenario.tier]
        resamples = np.random.default_rng(1).multinomial(blocks, [1 / blocks] * blocks, size=400)
        shares = coverage(
            scenario,
            repetitions,
            lambda latencies, resamples=resamples: {
                "liteship": block_intervals(latencies),
                **bootstraps(latencies, resamples),
            },
        )
        cells = (f"{100 * median:.1f} / {100 * p90:.1f}" for median, p90 in shares.values())
        row = f"| {blocks} x {queries} | {scenario.effect:.0%} | {scenario.noise.name} | {' | '.join(cells)} |"
        print(row, flush=True)
    print(RATIO_HEAD)
    for rounds in (6, 10):
        for effect, drift in ((0.01, 0.0), (0.03, 0.0), (0.01, 0.1), (0.001, 0.1)):
            share = ratio_coverage(rounds, effect, drift, repetitions)
            print(f"| {rounds} | {effect:.1%} | {drift:.0%} | {100 * share:.1f} |", flush=True)


if __name__ == "__main__":
    main()
