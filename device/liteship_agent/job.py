"""One benchmark request, as the host sends it: everything the agent needs, so that it can go on without the host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Optional, Tuple

from liteship_agent.records import dumps


@dataclass(frozen=True)
class Tier:
    """How long one artefact is timed in all, over all rounds (DESIGN.md section 7).

    Args:
        rounds: Rounds, each times every artefact once.
        min_queries, min_seconds: Both must be reached per artefact; a block does its 1/rounds of them.
        max_seconds: Where timing of one artefact ends even if min_queries is not reached.
    """

    name: str
    rounds: int
    min_queries: int
    min_seconds: float
    max_seconds: float


TIERS: Dict[str, Tier] = {
    tier.name: tier
    for tier in (
        Tier("rapid", 5, 64, 6.0, 30.0),
        Tier("quick", 6, 128, 10.0, 60.0),
        Tier("normal", 10, 1024, 60.0, 600.0),
    )
}


@dataclass(frozen=True)
class Job:
    """What to measure.

    Args:
        job_id: Time and key, sorts by time; names the folder under jobs/.
        target: Name of the target in the host's inventory.
        release_id: The release that is measured.
        tier: How long.
        threads: Interpreter threads, the same for every artefact.
        runtime: Folder name under runtimes/ of the runtime that is used.
        artefacts: sha256 of each artefact, in manifest order; the first is the baseline.
        seed: Of the block order.
        limit: Use at most so many validation images, null for all.
        block_timeout_seconds: A block that takes longer is ended and reported as failed.
    """

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int
    job_id: str
    target: str
    release_id: str
    tier: Tier
    threads: int
    runtime: str
    artefacts: Tuple[str, ...]
    seed: int = 0
    limit: Optional[int] = None
    block_timeout_seconds: float = 900.0
    extra: Dict[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """Twelve hex digits that are equal for equal requests: an unfinished job with the same key is gone on with."""
        anonymous = Job(**{**self.__dict__, "job_id": ""})
        return hashlib.sha256(dumps(anonymous)).hexdigest()[:12]
