"""In which order cases are timed: interleaved, so that drift of the board meets all of them alike."""

from __future__ import annotations

import math
import random
from typing import List, Sequence, TypeVar

from liteship_agent.job import Tier

Item = TypeVar("Item")


def block_order(cases: Sequence[Item], rounds: int, seed: int) -> List[List[Item]]:
    """The cases of each round.

    Rounds 1, 3, 5 ... are in a seeded random order, each round after one of those in its reverse: over a pair every
    case stands at the same mean position, so that a linear drift cancels (ABBA).

    Args:
        cases: Without repetition.
        rounds: At least 1.
        seed: Equal seeds give equal orders.
    """
    generator = random.Random(seed)  # noqa: S311 (an order, not a secret)
    order: List[List[Item]] = []
    for index in range(rounds):
        if index % 2 == 0:
            order.append(generator.sample(list(cases), len(cases)))
        else:
            order.append(order[-1][::-1])
    return order


def queries_per_block(tier: Tier) -> int:
    """Least number of timed queries of one block."""
    return math.ceil(tier.min_queries / tier.rounds)
