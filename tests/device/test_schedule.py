from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteship_agent.job import TIERS, Tier
from liteship_agent.schedule import block_order, queries_per_block

artefacts = st.lists(st.text("0123456789abcdef", min_size=4, max_size=4), min_size=1, max_size=8, unique=True)
rounds = st.integers(1, 12)
seeds = st.integers(0, 2**32)


@given(artefacts, rounds, seeds)
def test_every_round_has_every_artefact_once(artefacts, rounds, seed):
    order = block_order(artefacts, rounds, seed)

    assert len(order) == rounds
    assert all(sorted(found) == sorted(artefacts) for found in order)


@given(artefacts, rounds, seeds)
def test_every_second_round_is_the_one_before_reversed(artefacts, rounds, seed):
    order = block_order(artefacts, rounds, seed)

    assert all(later == earlier[::-1] for earlier, later in zip(order[::2], order[1::2]))


@given(artefacts, st.integers(1, 6), seeds, st.fractions(-10, 10))
def test_pairs_of_rounds_cancel_a_linear_drift(artefacts, pairs, seed, drift):
    latencies = {sha256: Fraction(0) for sha256 in artefacts}
    place = 0
    for found in block_order(artefacts, 2 * pairs, seed):
        for sha256 in found:
            latencies[sha256] += 100 + drift * place
            place += 1

    assert len(set(latencies.values())) == 1


@given(artefacts, rounds, seeds)
def test_equal_seeds_give_equal_orders(artefacts, rounds, seed):
    assert block_order(artefacts, rounds, seed) == block_order(tuple(artefacts), rounds, seed)


def test_other_seeds_give_other_orders():
    assert len({tuple(block_order("abcdef", 1, seed)[0]) for seed in range(20)}) > 10


def test_pairs_of_rounds_differ_from_each_other():
    order = block_order("abcdef", 12, 0)

    assert len({tuple(found) for found in order[::2]}) > 1


def test_more_rounds_begin_with_the_same_ones():
    assert block_order("abcdef", 10, 7)[:4] == block_order("abcdef", 4, 7)


@given(st.integers(1, 20), st.integers(0, 2000))
def test_blocks_together_reach_the_queries_of_the_tier(rounds, min_queries):
    block = queries_per_block(Tier("test", rounds, min_queries, 0.0, 1.0))

    assert block * rounds >= min_queries
    assert (block - 1) * rounds < min_queries


@pytest.mark.parametrize(("tier", "queries"), [("rapid", 11), ("quick", 22), ("normal", 103)])
def test_queries_of_a_block_of_each_tier(tier, queries):
    assert queries_per_block(TIERS[tier]) == queries


@pytest.mark.parametrize("tier", TIERS.values(), ids=lambda tier: tier.name)
def test_every_round_of_a_tier_has_its_reverse(tier):
    assert tier.rounds % 2 == 0
