"""One benchmark request, as the host sends it: everything the agent needs, so that it can go on without the host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

from liteship_agent.records import dumps


@dataclass(frozen=True)
class Tier:
    """How long one case is timed in all, over all rounds (DESIGN.md section 7).

    Args:
        rounds: Rounds, each times every case once; even, so that every round has its reverse.
        min_queries, min_seconds: Both must be reached per case; a block does its 1/rounds of them.
        max_seconds: Where timing of one case ends even if min_queries is not reached.
    """

    name: str
    rounds: int
    min_queries: int
    min_seconds: float
    max_seconds: float


TIERS: Dict[str, Tier] = {
    tier.name: tier
    for tier in (
        Tier("rapid", 6, 64, 6.0, 30.0),
        Tier("quick", 6, 128, 10.0, 60.0),
        Tier("normal", 10, 1024, 60.0, 600.0),
    )
}


@dataclass(frozen=True)
class Case:
    """One artefact in one way of running it: a row of the table.

    Args:
        artefact: sha256 of the .tflite file.
        runtime: Folder name under runtimes/ of the runtime that runs it.
        threads: Interpreter threads.
        cpus: The CPUs that it may use, ascending; empty in a request, where the target takes all of its fastest type.
    """

    artefact: str
    runtime: str
    threads: int
    cpus: Tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What is refused, void or given up.

    Args:
        canary_ratio: By how much a round's canary may differ from the median of all canaries before the round is void.
        others_cores: How many cores' worth of CPU time other processes may take, before a job and during a block.
        clock_drop_ratio: By how much the CPU clock may fall below its level after warm-up.
        start_celsius: The highest temperature at which a job may start.
        free_memory_bytes, free_disk_bytes: What must be free to start; a block that leaves less memory is ended.
        repeats: How often a void block or round is measured again.
        cooling_seconds: Longest wait for the start temperature before a repetition.
        quiet_seconds: Longest wait, before a job is refused, for the machine to be cool and quiet.
        stall_seconds: How long a worker may take beyond what it announced before it is ended.
        canary_seconds: How long a canary is timed.
    """

    canary_ratio: float = 0.05
    others_cores: float = 0.25
    clock_drop_ratio: float = 0.02
    start_celsius: float = 70.0
    free_memory_bytes: int = 48 * 2**20
    free_disk_bytes: int = 64 * 2**20
    repeats: int = 3
    cooling_seconds: float = 180.0
    quiet_seconds: float = 30.0
    stall_seconds: float = 120.0
    canary_seconds: float = 1.0


@dataclass(frozen=True)
class Job:
    """What to measure.

    Args:
        job_id: Time and key, sorts by time; names the folder under jobs/.
        target: Name of the target in the host's inventory.
        release_id: The release that is measured.
        tier: How long.
        cases: In the order of the table; the first is the baseline that ratios refer to, and the canary.
        runtimes: Distribution and version, such as "ai-edge-litert==2.3.0", by folder name.
        limits: What is refused, void or given up.
        seed: Of the block order.
        limit: Use at most so many validation images, null for all.
        forced: Go on although the preflight refuses; every row is marked.
    """

    SCHEMA_VERSION: ClassVar[int] = 2

    schema_version: int
    job_id: str
    target: str
    release_id: str
    tier: Tier
    cases: Tuple[Case, ...]
    runtimes: Mapping[str, str]
    limits: Limits = field(default_factory=Limits)
    seed: int = 0
    limit: Optional[int] = None
    forced: bool = False
    extra: Dict[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """Twelve hex digits that are equal for equal requests: an unfinished job with the same key is gone on with.

        Whether it is forced makes no difference: what was measured before is kept when the rest has to be forced.
        """
        anonymous = Job(**{**self.__dict__, "job_id": "", "forced": False})
        return hashlib.sha256(dumps(anonymous)).hexdigest()[:12]


@dataclass(frozen=True)
class BlockRequest:
    """What one worker is asked for, as one JSON object on its stdin.

    Args:
        folder, release_id: Where the artefact is.
        artefact: Its sha256.
        runtime: Folder name of the runtime, which is on this process's path.
        threads: Interpreter threads.
        cpus: CPUs to be bound to; empty to stay on those that the process was started on.
        min_queries, min_seconds, max_seconds: Of the timed loop: both minima are met unless the maximum comes first.
        seed: Of the choice of images.
        limit: Most validation images, null for all.
        with_scores: Run every validation image once, after the timed part.
        end_to_end: Time end-to-end queries too.
        agent_pid: The process that started the worker, which ends with it.
    """

    folder: str
    release_id: str
    artefact: str
    runtime: str
    threads: int
    cpus: Tuple[int, ...]
    min_queries: int
    min_seconds: float
    max_seconds: float
    seed: int
    limit: Optional[int]
    with_scores: bool
    end_to_end: bool
    agent_pid: int
