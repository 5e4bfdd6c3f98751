"""A simulated board whose clock drifts or throttles: what the order of blocks and their repetition do to the ratios."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pytest
from report_samples import make_block, make_job, make_manifest, make_report

from liteship.report.summary import summarize
from liteship_agent.report import REPEATED, VALID, VOID
from liteship_agent.schedule import block_order, queries_per_block

NAMES = tuple(f"variant{index}" for index in range(14))
MANIFEST = make_manifest()
JOB = make_job(*NAMES)
# 1.5 ms of the baseline, others from a third of it to twice it, in no order.
TRUE_RATIOS = (1.0, 0.6, 1.9, 0.35, 1.2, 0.8, 0.5, 1.05, 1.4, 0.7, 0.95, 0.4, 1.6, 0.55)
BASELINE_NS = 1_500_000
THROTTLED = 1.6


@dataclass
class Board:
    """Runs one block after the other; time goes on only in blocks.

    Args:
        drift_per_second: By how much latency grows, as a ratio of the first.
        noise: Of blocks, standard deviation in logarithms; of queries, mean of an exponential.
    """

    drift_per_second: float = 0.0
    noise: float = 0.0
    seed: int = 0
    elapsed_seconds: float = 0.0

    def __post_init__(self):
        self.random = random.Random(self.seed)

    def run(self, case_index, round_index, **changes):
        """A block that lasts a second, and longer for a slower artefact."""
        pace = BASELINE_NS * TRUE_RATIOS[case_index] * (THROTTLED if changes.get("validity") == VOID else 1.0)
        block_pace = pace * self.random.lognormvariate(0, self.noise)
        latencies = []
        for _ in range(queries_per_block(JOB.tier)):
            drift = 1 + self.drift_per_second * self.elapsed_seconds
            latencies.append(round(block_pace * drift * (1 + self.random.expovariate(1) * self.noise)))
            self.elapsed_seconds += 0.09 + latencies[-1] / 1e9
        return make_block(JOB, case_index, round_index, latencies, **changes)


def summaries(blocks):
    return summarize(make_report(MANIFEST, job=JOB, blocks=tuple(blocks), summaries=()))


def interleaved(seed):
    return [
        (case, index)
        for index, cases in enumerate(block_order(range(len(NAMES)), JOB.tier.rounds, seed))
        for case in cases
    ]


def sequential():
    return [(case, index) for case in range(len(NAMES)) for index in range(JOB.tier.rounds)]


def farthest(plan):
    """By how much the worst ratio is off after a job in which latency grows by 10 %."""
    still = Board()
    for case, index in plan:
        still.run(case, index)
    board = Board(drift_per_second=0.1 / still.elapsed_seconds)
    found = summaries(board.run(case, index) for case, index in plan)
    return max(abs(summary.ratio / truth - 1) for summary, truth in zip(found, TRUE_RATIOS, strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_a_slow_drift_leaves_every_ratio_within_one_percent_in_the_order_of_a_job(seed):
    assert farthest(interleaved(seed)) < 0.001  # 1 % is required; random orders without reversal reach that too


def test_a_slow_drift_spoils_the_ratios_of_artefacts_timed_one_after_the_other():
    assert farthest(sequential()) > 0.05


def test_a_slow_drift_spoils_ratios_if_no_round_is_reversed():
    assert farthest([(case, index) for index in range(JOB.tier.rounds) for case in range(len(NAMES))]) > 0.01


def throttled(board, case, rounds):
    """A job in which one case's blocks of some rounds are throttled, void, and repeated."""
    blocks = []
    for index, number in interleaved(0):
        if hot := index == case and number in rounds:
            blocks.append(board.run(index, number, validity=VOID, reasons=("throttled",)))
        blocks.append(board.run(index, number, attempt=int(hot)))
    return blocks


@pytest.mark.parametrize("rounds", [{1}, {0, 3}, {0, 1, 2, 3, 4, 5}])
def test_throttled_blocks_that_were_repeated_leave_the_ratio_as_it_is_without_throttling(rounds):
    case = 4
    quiet = throttled(Board(noise=0.01, seed=1), case, rounds=set())
    hot = throttled(Board(noise=0.01, seed=2), case, rounds)
    expected, received = (summaries(blocks)[case] for blocks in (quiet, hot))

    assert (expected.validity, received.validity) == (VALID, REPEATED)
    assert (received.repeated, received.void, received.reasons) == (len(rounds), 0, ("throttled",))
    assert expected.ratio_low < received.ratio < expected.ratio_high
    assert received.ratio_low < expected.ratio < received.ratio_high
    # With the throttled blocks in the place of their repetitions it is another ratio.
    first_attempts = [replace(block, validity=VALID) for block in hot if block.attempt == 0]
    assert summaries(first_attempts)[case].ratio > expected.ratio_high
