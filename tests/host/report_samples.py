"""Made-up studies and jobs on them, for the tests of rows and tables: six variants, and one of structured pruning.

Summaries are made up too: they hold the medians of the blocks, and intervals of one percent on either side.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liteship.report.summary import ratio_to
from liteship.stats import early_stopping_p90, p90
from liteship_agent.job import Case, Job, Tier
from liteship_agent.manifest import (
    Calibration,
    Failure,
    Golden,
    HostAccuracy,
    InputContract,
    KerasModel,
    LayerSparsity,
    Lineage,
    Manifest,
    ManifestEntry,
    Operator,
    OutputContract,
    Parity,
    SparseVerdict,
    ValidationImage,
    ValidationSet,
)
from liteship_agent.records import read_record
from liteship_agent.report import VALID, Block, Canary, Flip, Refused, Report, Sample, Scores, Summary

IMAGE_COUNT = 290
REFUSED_REASON = "FULLY_CONNECTED version 12 is not in tflite-runtime 2.14.0; take a LiteRT runtime"
FAILURE_REASON = "representative images hold a NaN"
SPARSE_ON = "ai-edge-litert 2.3 on aarch64"
LITERT, TFLITE = "abcdef", "fedcba"
RUNTIMES = {LITERT: "ai-edge-litert==2.3.0", TFLITE: "tflite-runtime==2.14.0"}
ROUNDS = 6
FIELDS_WITHOUT_SENSORS = ("throttled_bits", "cooling_state", "throttle_count")


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def make_entry(variant: str, **changes: Any) -> ManifestEntry:
    fields: dict[str, Any] = {
        "variant": variant,
        "sha256": sha(variant),
        "size_bytes": 8_808_040,
        "gzip_bytes": 8_159_264,
        "requested_sparsity": 0.0,
        "achieved_sparsity": 0.0,
        "sparsity_by_layer": (LayerSparsity("Conv1", 864, 0),),
        "keras": KerasModel(variant.rpartition("-")[0], 9_160_000, 8_400_000, 2_259_265),
        "multiply_adds": 58_000_000,
        "operators": (Operator("CONV_2D", 1, 35),),
        "minimum_runtime": "1.14.0",
        "sparse_verdict": SparseVerdict(False, None, "kernels are stored densely", SPARSE_ON),
        "dense_twin_of": None,
        "parity": Parity(269, 288, IMAGE_COUNT, 0.0007, 0.02, True),
        "input": InputContract(96, 96, "rgb", "crop", "area", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
        "output": OutputContract("sigmoid"),
        "calibration": None,
        "host_accuracy": HostAccuracy(268, IMAGE_COUNT, "ai-edge-litert 2.3.0"),
        "golden": Golden(sha("golden"), sha("pixels"), {"ai-edge-litert": 0.001}),
        "lineage": Lineage(sha("recipe"), sha("data"), "0123abc", 0, {"tensorflow": "2.21.0"}),
    }
    return ManifestEntry(**{**fields, **changes})


def make_manifest(image_count: int = IMAGE_COUNT, **changes: Any) -> Manifest:
    half = {"requested_sparsity": 0.5, "achieved_sparsity": 0.4952}
    int8 = {"size_bytes": 2_652_912, "calibration": Calibration(100, sha("calibration"), True)}
    images = tuple(ValidationImage(f"{'cat' if i % 2 else 'dog'}/{i}.jpg", i % 2, 512, 9) for i in range(image_count))
    fields: dict[str, Any] = {
        "schema_version": Manifest.SCHEMA_VERSION,
        "study": "pets",
        "labels": ("dog", "cat"),
        "entries": (
            make_entry("none-none"),
            make_entry("none-int8", gzip_bytes=2_301_004, **int8),
            make_entry("magnitude50-none", gzip_bytes=4_750_101, **half),
            make_entry("magnitude50-dynamic", size_bytes=2_443_180, gzip_bytes=1_503_222, **half),
            make_entry("magnitude50-int8", gzip_bytes=1_611_034, **int8, **half),
        ),
        "failures": (Failure("magnitude75-int8", "conversion", FAILURE_REASON),),
        "validation": ValidationSet(sha("validation"), 10_000, images),
    }
    return Manifest(**{**fields, **changes})


def make_pruned_manifest(**verdict: Any) -> Manifest:
    """A study whose int8 fails its parity, and which has filter pruning and a sparse file with its dense twin."""
    half = KerasModel("filter50", 4_300_000, 3_900_000, 1_052_000, 0.3512)
    sparse = KerasModel("latency90", 9_170_000, 1_800_000, 2_261_000)
    zeros = {"requested_sparsity": 0.9, "achieved_sparsity": 0.8511, "gzip_bytes": 1_402_000, "keras": sparse}
    stored = {"operators": (Operator("DENSIFY", 1, 34),), "size_bytes": 1_530_000}
    eligible = {"eligible": True, "layer": None, "reason": "every rule is met", "holds_for": SPARSE_ON}
    bad = {"host_accuracy": HostAccuracy(257, IMAGE_COUNT, "ai-edge-litert 2.3.0"), "size_bytes": 2_652_912}
    filtered = {"size_bytes": 4_100_000, "gzip_bytes": 3_800_000, "keras": half, "multiply_adds": 29_000_000}
    entries = (
        make_entry("none-none"),
        make_entry("none-int8", parity=Parity(269, 271, IMAGE_COUNT, 0.41, 0.02, False), gzip_bytes=2_301_004, **bad),
        make_entry("filter50-none", **filtered),
        make_entry("latency90-none", sparse_verdict=SparseVerdict(**{**eligible, **verdict}), **zeros, **stored),
        make_entry("latency90-none-twin", dense_twin_of=sha("latency90-none"), **zeros),
    )
    return make_manifest(entries=entries, failures=())


def make_case(variant: str, **changes: Any) -> Case:
    """A variant on LiteRT with one thread on four CPUs."""
    fields: dict[str, Any] = {"artefact": sha(variant), "runtime": LITERT, "threads": 1, "cpus": (0, 1, 2, 3)}
    return Case(**{**fields, **changes})


def make_job(*cases: str | Case, rounds: int = ROUNDS, **changes: Any) -> Job:
    """A job of cases; a variant's name stands for `make_case` of it."""
    fields: dict[str, Any] = {
        "schema_version": Job.SCHEMA_VERSION,
        "job_id": "20261122T101500Z-0123456789ab",
        "release_id": "0123456789ab",
        "target": "pi",
        "tier": Tier("rapid", rounds, 64, 6.0, 30.0),
        "cases": tuple(make_case(case) if isinstance(case, str) else case for case in cases),
        "runtimes": RUNTIMES,
    }
    return Job(**{**fields, **changes})


def make_sample(at_ns: int = 0, **changes: Any) -> Sample:
    """A cool board at its full clock."""
    fields: dict[str, Any] = {
        "temperature_celsius": 48.5,
        "arm_clock_hz": 2_400_000_000,
        "cpufreq_hz": 2_400_000_000,
        "throttled_bits": 0,
        "memory_available_bytes": 3_000_000_000,
        "cost_ns": 200_000,
    }
    return Sample(at_ns, **{**fields, **changes})


def make_block(job: Job, case_index: int, round_index: int, latencies_ns: Sequence[int], **changes: Any) -> Block:
    """A valid block of one of the job's cases, run as it asks for."""
    case = job.cases[case_index]
    distribution, _, version = job.runtimes[case.runtime].partition("==")
    total_ns = sum(latencies_ns)
    fields: dict[str, Any] = {
        "case_index": case_index,
        "round_index": round_index,
        "order": case_index,
        "attempt": 0,
        "artefact": case.artefact,
        "threads": case.threads,
        "cpus": case.cpus,
        "runtime": distribution,
        "runtime_version": version,
        "delegated_nodes": 64,
        "total_nodes": 65,
        "init_ns": 9_000_000,
        "first_ns": 4_000_000,
        "warmup_count": 5,
        "warmup_ns": 8_000_000,
        "latencies_ns": tuple(latencies_ns),
        "end_to_end_ns": tuple(latency + 1_000_000 for latency in latencies_ns),
        "stages_ns": {"decode": 600_000, "preprocess": 300_000, "invoke": 1_500_000, "postprocess": 100_000},
        "timed_from_ns": 1_000_000_000,
        "timed_to_ns": 1_000_000_000 + 3 * total_ns,
        "loop_ns": total_ns + total_ns // 100,
        "invoke_cpu_ns": case.threads * total_ns,
        "others_cores": 0.01,
        "major_faults": 0,
        "swapped_in_pages": 0,
        "rss_peak_bytes": 90_000_000,
        "rss_anon_bytes": 40_000_000 + round_index,
        "samples": (make_sample(1_000_000_000), make_sample(1_000_000_000 + 3 * total_ns)),
        "validity": VALID,
    }
    return Block(**{**fields, **changes})


def make_blocks(job: Job, medians_ns: Sequence[int], step_ns: int = 10_000, **changes: Any) -> tuple[Block, ...]:
    """A block of 13 queries for every case and round, each round slower than the one before by `step_ns`."""
    return tuple(
        make_block(job, case_index, i, [center + step_ns * i + 1_000 * q for q in range(-6, 7)], **changes)
        for i in range(job.tier.rounds)
        for case_index, center in enumerate(medians_ns)
    )


def make_summary(job: Job, blocks: Sequence[Block], case_index: int, **changes: Any) -> Summary:
    """Figures of one case: those of its blocks, with intervals of one percent on either side."""
    own = [block for block in blocks if block.case_index == case_index]
    latencies = [latency for block in own for latency in block.latencies_ns]
    middle = statistics.median(latencies)
    by_round = [{b.round_index: b for b in blocks if b.case_index == index} for index in (0, case_index)]
    ratio = 1.0 if case_index == 0 else ratio_to(*by_round)[0]
    high = p90(latencies)
    fields: dict[str, Any] = {
        "case_index": case_index,
        "validity": VALID,
        "reasons": (),
        "blocks": len(own),
        "repeated": 0,
        "void": 0,
        "queries": len(latencies),
        "median_ns": middle,
        "median_low_ns": 0.99 * middle,
        "median_high_ns": 1.01 * middle,
        "p90_ns": high,
        "p90_low_ns": None if high is None else 0.99 * high,
        "p90_high_ns": None if high is None else 1.01 * high,
        "p90_bound_ns": early_stopping_p90(latencies),
        "end_to_end_median_ns": middle + 1_000_000,
        "ratio": ratio,
        "ratio_low": None if ratio is None else ratio if case_index == 0 else 0.99 * ratio,
        "ratio_high": None if ratio is None else ratio if case_index == 0 else 1.01 * ratio,
    }
    return Summary(**{**fields, **changes})


def make_summaries(job: Job, blocks: Sequence[Block], **changes: Any) -> tuple[Summary, ...]:
    """Of every case that has a block."""
    measured = sorted({block.case_index for block in blocks})
    return tuple(make_summary(job, blocks, case_index, **changes) for case_index in measured)


def make_scores(variant: str, wrong: int, image_count: int = IMAGE_COUNT, **changes: Any) -> Scores:
    """Right for every image but the first `wrong` ones."""
    right = [(0.1, 0.9) if i % 2 else (0.9, 0.1) for i in range(image_count)]
    fields: dict[str, Any] = {
        "artefact": sha(variant),
        "runtime": LITERT,
        "scores": tuple(row[::-1] if i < wrong else row for i, row in enumerate(right)),
        "pixel_hashes": tuple(sha(f"pixels {i}")[:16] for i in range(image_count)),
        "golden_difference": 0.0,
        "golden_tolerance": 0.001,
        "pass_ns": 500_000_000,
        "decoded": wrong == 0,
    }
    return Scores(**{**fields, **changes})


def make_flip(variant: str, index: int, **changes: Any) -> Flip:
    """One image that the target's pixels turn, of a label that the host got right."""
    fields: dict[str, Any] = {
        "artefact": sha(variant),
        "runtime": LITERT,
        "path": f"{'cat' if index % 2 else 'dog'}/{index}.jpg",
        "against": "host",
        "label": index % 2,
        "expected": index % 2,
        "received": 1 - index % 2,
        "cause": "pixels",
        "largest_pixel_difference": 1,
    }
    return Flip(**{**fields, **changes})


def make_sensors(**changes: Any) -> dict[str, Any]:
    """A board that tells everything; `without_throttling` gives one that does not tell about throttling."""
    known = {"source": "/sys", "reason": None, "remedy": None}
    return {name: known for name in Sample.__dataclass_fields__ if name != "at_ns"} | changes


def without_throttling() -> dict[str, Any]:
    """A board on which nothing tells about throttling."""
    reason = {"source": None, "reason": "no such file", "remedy": "add this user to the group video"}
    return make_sensors(**dict.fromkeys(FIELDS_WITHOUT_SENSORS, reason))


def make_report(manifest: Manifest, **changes: Any) -> Report:
    """Four artefacts measured in six rounds of 13 queries, one of the five refused by the host.

    Without `summaries` among the changes those of the blocks are made up.
    """
    medians_ns = {"none-none": 1_540_000, "none-int8": 1_800_000, "magnitude50-none": 1_530_000}
    medians_ns["magnitude50-int8"] = 1_790_000
    job: Job = changes.get("job", make_job(*medians_ns))
    blocks = changes.get("blocks", make_blocks(job, list(medians_ns.values())[: len(job.cases)]))
    fields: dict[str, Any] = {
        "schema_version": Report.SCHEMA_VERSION,
        "job": job,
        "target": "pi",
        "manifest_sha256": manifest.sha256(),
        "image_count": IMAGE_COUNT,
        "blocks": blocks,
        "canaries": tuple(Canary(0, i, 0, 1_540_000, VALID) for i in range(job.tier.rounds)),
        "failed": (),
        "accuracy": tuple(make_scores(variant, wrong) for wrong, variant in enumerate(medians_ns, start=22)),
        "environment": {"board_model": "Raspberry Pi 5 Model B Rev 1.0", "cpu_model": "0xd0b", "machine": "aarch64"},
        "sensors": make_sensors(),
        "refused": (Refused(sha("magnitude50-dynamic"), LITERT, REFUSED_REASON),),
        "summaries": make_summaries(job, blocks),
    }
    return Report(**{**fields, **changes})


def make_pruned_report(manifest: Manifest, **changes: Any) -> Report:
    """All of the pruned study measured: filter pruning takes half the time, the sparse file as long as its twin."""
    medians_ns = {"none-none": 1_540_000, "none-int8": 1_530_000, "filter50-none": 770_000}
    medians_ns |= {"latency90-none": 1_500_000, "latency90-none-twin": 1_530_000}
    job = make_job(*medians_ns)
    blocks = tuple(
        make_block(job, at, i, [center + 50_000 * i + q for q in range(-6, 7)], rss_anon_bytes=20_000_000 + 8 * center)
        for i in range(ROUNDS)
        for at, center in enumerate(medians_ns.values())
    )
    scores = tuple(make_scores(variant, wrong) for wrong, variant in enumerate(medians_ns, start=22))
    parts = {"job": job, "blocks": blocks, "accuracy": scores, "refused": ()}
    return make_report(manifest, **{**parts, **changes})


def last_report(study: Path, target: str = "pi") -> Report:
    """The latest report that was kept in a study."""
    return read_record(Report, max((study / "reports" / target).glob("*.json")))
