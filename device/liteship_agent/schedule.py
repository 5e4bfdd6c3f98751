"""In which order artefacts are timed: interleaved, so that drift of the board meets all of them alike."""

from __future__ import annotations

import math
import random
from typing import List, Sequence

from liteship_agent.job import Tier


def block_order(artefacts: Sequence[str], rounds: int, seed: int) -> List[List[str]]:
    """The artefacts of each round.

    Rounds 1, 3, 5 ... are in a seeded random order, each round after one of those in its reverse: over a pair every
    artefact stands at the same mean position, so that a linear drift cancels (ABBA).

    Args:
        artefacts: Without repetition.
        rounds: At least 1.
        seed: Equal seeds give equal orders.
    """
    generator = random.Random(seed)  # noqa: S311 (an order, not a secret)
    order: List[List[str]] = []
    for index in range(rounds):
        if index % 2 == 0:
            order.append(generator.sample(list(artefacts), len(artefacts)))
        else:
            order.append(order[-1][::-1])
    return order


def queries_per_block(tier: Tier) -> int:
    """Least number of timed queries of one block."""
    return math.ceil(tier.min_queries / tier.rounds)
