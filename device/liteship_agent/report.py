"""What was measured: raw latencies, scores per image, sensor samples, and the environment they were made in.

The agent writes all but `refused`, `summaries` and `flips`: those the host adds once and keeps with the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

from liteship_agent.job import Job

VALID, VOID, UNKNOWN = "valid", "void", "unknown"
"""Validity of a block: nothing disturbed it; something did; whether it was throttled cannot be read on this machine."""

REPEATED, UNSTABLE = "repeated", "unstable"
"""Validity of a case beside VALID and UNKNOWN: valid after repetitions; void still after the last one."""


@dataclass(frozen=True)
class Sample:
    """All sensors at one moment; null is a sensor that this machine does not have (`Report.sensors` says why).

    Args:
        at_ns: Monotonic clock of the machine, as all `_ns` times of a block.
        temperature_celsius: Of the processor.
        arm_clock_hz: CPU clock as the firmware measures it.
        cpufreq_hz: CPU clock as the kernel sees it; firmware throttling does not show in it.
        throttled_bits: The firmware's get_throttled; bits 0 to 3 are now, 16 to 19 since boot.
        cooling_state: Sum of the states of the kernel's CPU cooling devices; 0 is not throttled.
        throttle_count: Thermal throttle events of an x86 processor since boot.
        undervoltage: Whether the supply is too low now.
        fan_rpm: Speed of the fan.
        memory_available_bytes: Free memory, with what can be freed.
        swapped_in_pages: Since boot.
        worker_rss_bytes: Resident set of the measured process.
        cost_ns: CPU time that reading all this took.
    """

    at_ns: int
    temperature_celsius: Optional[float] = None
    arm_clock_hz: Optional[int] = None
    cpufreq_hz: Optional[int] = None
    throttled_bits: Optional[int] = None
    cooling_state: Optional[int] = None
    throttle_count: Optional[int] = None
    undervoltage: Optional[bool] = None
    fan_rpm: Optional[int] = None
    memory_available_bytes: Optional[int] = None
    swapped_in_pages: Optional[int] = None
    worker_rss_bytes: Optional[int] = None
    cost_ns: int = 0


@dataclass(frozen=True)
class Block:
    """One case's part of one round, run in a process of its own.

    Args:
        case_index: Index into the job's cases.
        round_index, order: From 0; order is the place within the round.
        attempt: From 0; how often this block was measured before.
        artefact: sha256 of the file whose bytes were loaded, computed in that process.
        threads, cpus: Interpreter threads that were set; CPUs that the process was bound to.
        runtime, runtime_version: Distribution and version that ran it.
        delegated_nodes, total_nodes: Graph nodes run by the XNNPACK delegate, of all; null where the runtime does
            not tell.
        init_ns, first_ns: Loading with tensor allocation; the first invocation.
        warmup_count, warmup_ns: Invocations between the first and the timed ones, and the time of all of them.
        latencies_ns: Invoke only, one per query, in order.
        end_to_end_ns: Decode, resize, scale, invoke and postprocess, one per query, in order.
        stages_ns: Median of each stage of the end-to-end queries: decode, preprocess, invoke, postprocess.
        timed_from_ns, timed_to_ns: Monotonic times of the end of the warm-up and of the last timed query.
        loop_ns, invoke_cpu_ns: Wall time of the loop of invoke-only queries, and CPU time of the process in it.
        others_cores: CPU time of all other processes in the timed part, divided by its wall time.
        major_faults, swapped_in_pages: Of the process, and of the machine, in the timed part.
        rss_peak_bytes, rss_anon_bytes: Largest resident set of the process; its anonymous memory after the timed part.
        samples: Of the sensors, before, during and after the block.
        validity: VALID, VOID or UNKNOWN.
        reasons: What made it void, or why it is unknown.
    """

    case_index: int
    round_index: int
    order: int
    attempt: int
    artefact: str
    threads: int
    cpus: Tuple[int, ...]
    runtime: str
    runtime_version: str
    delegated_nodes: Optional[int]
    total_nodes: Optional[int]
    init_ns: int
    first_ns: int
    warmup_count: int
    warmup_ns: int
    latencies_ns: Tuple[int, ...]
    end_to_end_ns: Tuple[int, ...]
    stages_ns: Mapping[str, int]
    timed_from_ns: int
    timed_to_ns: int
    loop_ns: int
    invoke_cpu_ns: int
    others_cores: Optional[float]
    major_faults: int
    swapped_in_pages: Optional[int]
    rss_peak_bytes: int
    rss_anon_bytes: int
    samples: Tuple[Sample, ...]
    validity: str
    reasons: Tuple[str, ...] = ()
    extra: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Canary:
    """The first case that has not failed, timed shortly where a round opens.

    Args:
        case_index: Index into the job's cases; canaries of different cases are not compared.
        round_index: From 0.
        attempt: From 0; a round whose canary moved is opened again.
        median_ns: Of its invocations.
        validity, reasons: As of a block; its movement is not judged here.
    """

    case_index: int
    round_index: int
    attempt: int
    median_ns: int
    validity: str
    reasons: Tuple[str, ...] = ()


@dataclass(frozen=True)
class FailedBlock:
    """A block that gave no figures, with the reason; its case is not tried again."""

    case_index: int
    round_index: int
    reason: str


@dataclass(frozen=True)
class Scores:
    """Every validation image once, by the bytes and the runtime named here.

    Args:
        artefact: sha256 of the file whose bytes were loaded.
        runtime: Folder name under runtimes/.
        scores: One row per image in the order of the validation set, one probability per label.
        pixel_hashes: Per image the first 16 hex digits of the sha256 of its resized uint8 pixels, shape (height,
            width, 3): what the model saw before scaling.
        golden_difference, golden_tolerance: Largest difference of a score to the host's golden outputs, and the
            largest allowed one.
        pass_ns: Wall time of the whole pass.
        decoded: Whether the pass decoded the images too; later ones read the decoded pixels.
    """

    artefact: str
    runtime: str
    scores: Tuple[Tuple[float, ...], ...]
    pixel_hashes: Tuple[str, ...]
    golden_difference: float
    golden_tolerance: float
    pass_ns: int
    decoded: bool


@dataclass(frozen=True)
class Summary:
    """The figures of one case, from the last attempt of each of its blocks.

    Args:
        case_index: Index into the job's cases.
        validity: VALID, REPEATED, UNSTABLE or UNKNOWN.
        reasons: Why, each once.
        blocks, repeated, void: Blocks that count; measurements beyond them; blocks that stayed void.
        queries: Timed invocations of the blocks that count.
        median_ns, median_low_ns, median_high_ns: Latency of an invocation with its 95 % interval over blocks.
        p90_ns, p90_low_ns, p90_high_ns: The 90th percentile likewise; null below 64 queries.
        p90_bound_ns: Early-stopping bound of the 90th percentile at 99 % confidence; null below 64 queries.
        end_to_end_median_ns: From the bytes of an image file to its scores.
        ratio, ratio_low, ratio_high: Latency as a multiple of the first case's, from paired rounds, with its 95 %
            interval; null without common rounds.
    """

    case_index: int
    validity: str
    reasons: Tuple[str, ...]
    blocks: int
    repeated: int
    void: int
    queries: int
    median_ns: float
    median_low_ns: Optional[float]
    median_high_ns: Optional[float]
    p90_ns: Optional[float]
    p90_low_ns: Optional[float]
    p90_high_ns: Optional[float]
    p90_bound_ns: Optional[float]
    end_to_end_median_ns: Optional[float]
    ratio: Optional[float]
    ratio_low: Optional[float]
    ratio_high: Optional[float]


@dataclass(frozen=True)
class Flip:
    """An image that an artefact classifies otherwise on the target than on the host, or than the baseline does there.

    Args:
        artefact, runtime: As in `Scores`.
        path: `<class>/<file name>` of the image.
        against: "host" or "baseline".
        label, expected, received: Indices into the labels: the truth, the other's answer, the target's answer.
        cause: "pixels" where the host's pixels give the host's answer on the target too, "kernels" where they do not;
            null where it was not looked for (against "baseline").
        largest_pixel_difference: Between host and target, 0 to 255; null likewise.
    """

    artefact: str
    runtime: str
    path: str
    against: str
    label: int
    expected: int
    received: int
    cause: Optional[str] = None
    largest_pixel_difference: Optional[int] = None


@dataclass(frozen=True)
class Refused:
    """An artefact that the host did not measure in a runtime, because that runtime cannot load it.

    Args:
        artefact, runtime: As in `Scores`.
        reason: The operator and version that it lacks.
    """

    artefact: str
    runtime: str
    reason: str


@dataclass(frozen=True)
class Report:
    """One finished job.

    Args:
        job: As it was run, with the CPUs that were chosen.
        blocks: All, also void ones that were repeated, in the order in which they ended.
        environment: Board, kernel, libc and so on.
        sensors: Per field of `Sample` its `source`, or the `reason` why there is none.
        problems: What the preflight found and --force overrode.
    """

    SCHEMA_VERSION: ClassVar[int] = 2

    schema_version: int
    job: Job
    target: str
    manifest_sha256: str
    image_count: int
    blocks: Tuple[Block, ...]
    canaries: Tuple[Canary, ...]
    failed: Tuple[FailedBlock, ...]
    accuracy: Tuple[Scores, ...]
    environment: Mapping[str, Any]
    sensors: Mapping[str, Any]
    problems: Tuple[str, ...] = ()
    refused: Tuple[Refused, ...] = ()
    summaries: Tuple[Summary, ...] = ()
    flips: Tuple[Flip, ...] = ()
    extra: Dict[str, Any] = field(default_factory=dict)
