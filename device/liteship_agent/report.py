"""What the agent measured: raw latencies, scores per image, sensor readings and the environment they were made in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

from liteship_agent.job import Job


@dataclass(frozen=True)
class Block:
    """One artefact's part of one round, run in a process of its own.

    Args:
        artefact: sha256 of the file whose bytes were loaded, computed in that process.
        round_index, order: From 0; order is the place within the round.
        threads: Interpreter threads that were set.
        runtime, runtime_version: Distribution and version that ran it.
        delegated_nodes, total_nodes: Graph nodes run by the XNNPACK delegate, of all; null where the runtime does
            not tell.
        init_ns, first_ns: Loading with tensor allocation; the first invocation.
        warmup_count: Invocations between the first and the timed ones.
        latencies_ns: Invoke only, one per query, in order.
        end_to_end_ns: Decode, resize, scale, invoke and postprocess, one per query, in order.
        rss_peak_bytes, rss_anon_bytes: Largest resident set of the process; its anonymous memory after the timed part.
        sensors: Readings around the block; a missing sensor is null.
    """

    artefact: str
    round_index: int
    order: int
    threads: int
    runtime: str
    runtime_version: str
    delegated_nodes: Optional[int]
    total_nodes: Optional[int]
    init_ns: int
    first_ns: int
    warmup_count: int
    latencies_ns: Tuple[int, ...]
    end_to_end_ns: Tuple[int, ...]
    rss_peak_bytes: int
    rss_anon_bytes: int
    sensors: Mapping[str, Any] = field(default_factory=dict)
    extra: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FailedBlock:
    """A block that gave no figures, with the reason."""

    artefact: str
    round_index: int
    reason: str


@dataclass(frozen=True)
class Scores:
    """Every validation image once, by the bytes named here.

    Args:
        artefact: sha256 of the file whose bytes were loaded.
        scores: One row per image in the order of the validation set, one probability per label.
    """

    artefact: str
    scores: Tuple[Tuple[float, ...], ...]


@dataclass(frozen=True)
class Report:
    """One finished job."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int
    job: Job
    target: str
    manifest_sha256: str
    image_count: int
    blocks: Tuple[Block, ...]
    failed: Tuple[FailedBlock, ...]
    accuracy: Tuple[Scores, ...]
    environment: Mapping[str, Any]
    extra: Dict[str, Any] = field(default_factory=dict)
