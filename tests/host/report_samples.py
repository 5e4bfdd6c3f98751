"""Made-up studies and jobs on them, for the tests of rows and tables: six variants, and one of structured pruning."""

from __future__ import annotations

import hashlib
from typing import Any

from liteship_agent.job import Job, Tier
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
from liteship_agent.report import Block, Report, Scores

IMAGE_COUNT = 290
REFUSED_REASON = "FULLY_CONNECTED version 12 is not in tflite-runtime 2.14.0; take a LiteRT runtime"
FAILURE_REASON = "representative images hold a NaN"
SPARSE_ON = "ai-edge-litert 2.3 on aarch64"


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
        "golden": Golden(sha("golden"), {"ai-edge-litert": 0.001}),
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


def make_block(variant: str, round_index: int, latencies_ns: tuple[int, ...], **changes: Any) -> Block:
    fields: dict[str, Any] = {
        "artefact": sha(variant),
        "round_index": round_index,
        "order": 0,
        "threads": 1,
        "runtime": "ai-edge-litert",
        "runtime_version": "2.3.0",
        "delegated_nodes": 64,
        "total_nodes": 65,
        "init_ns": 9_000_000,
        "first_ns": 4_000_000,
        "warmup_count": 3,
        "latencies_ns": latencies_ns,
        "end_to_end_ns": tuple(latency + 1_000_000 for latency in latencies_ns),
        "rss_peak_bytes": 90_000_000,
        "rss_anon_bytes": 40_000_000 + round_index,
    }
    return Block(**{**fields, **changes})


def make_scores(variant: str, wrong: int, image_count: int = IMAGE_COUNT) -> Scores:
    """Right for every image but the first `wrong` ones."""
    right = [(0.1, 0.9) if i % 2 else (0.9, 0.1) for i in range(image_count)]
    return Scores(sha(variant), tuple(row[::-1] if i < wrong else row for i, row in enumerate(right)))


def make_job(*variants: str, rounds: int = 5, **changes: Any) -> Job:
    fields: dict[str, Any] = {
        "schema_version": 1,
        "job_id": "20261122T101500Z-0123456789ab",
        "release_id": "0123456789ab",
        "target": "pi",
        "tier": Tier("rapid", rounds, 64, 6.0, 30.0),
        "threads": 1,
        "runtime": "abcdef",
        "artefacts": tuple(sha(variant) for variant in variants),
    }
    return Job(**{**fields, **changes})


def make_report(manifest: Manifest, **changes: Any) -> Report:
    """Four artefacts measured in five rounds of 13 queries, one of the five refused by the host."""
    medians_ns = {"none-none": 1_540_000, "none-int8": 1_800_000, "magnitude50-none": 1_530_000}
    medians_ns["magnitude50-int8"] = 1_790_000
    blocks = tuple(
        make_block(variant, i, tuple(center + 10_000 * i + 1_000 * q for q in range(-6, 7)), order=order)
        for i in range(5)
        for order, (variant, center) in enumerate(medians_ns.items())
    )
    fields: dict[str, Any] = {
        "schema_version": 1,
        "job": make_job(*medians_ns),
        "target": "pi",
        "manifest_sha256": manifest.sha256(),
        "image_count": IMAGE_COUNT,
        "blocks": blocks,
        "failed": (),
        "accuracy": tuple(make_scores(variant, wrong) for wrong, variant in enumerate(medians_ns, start=22)),
        "environment": {"board_model": "Raspberry Pi 5 Model B Rev 1.0", "cpu_model": "0xd0b"},
        "extra": {"refused": {sha("magnitude50-dynamic"): REFUSED_REASON}},
    }
    return Report(**{**fields, **changes})


def make_pruned_report(manifest: Manifest, **changes: Any) -> Report:
    """All of the pruned study measured: filter pruning takes half the time, the sparse file as long as its twin."""
    medians_ns = {"none-none": 1_540_000, "none-int8": 1_530_000, "filter50-none": 770_000}
    medians_ns |= {"latency90-none": 1_500_000, "latency90-none-twin": 1_530_000}
    blocks = tuple(
        make_block(
            variant, i, tuple(center + 50_000 * i + q for q in range(-6, 7)), rss_anon_bytes=20_000_000 + 8 * center
        )
        for i in range(5)
        for variant, center in medians_ns.items()
    )
    scores = tuple(make_scores(variant, wrong) for wrong, variant in enumerate(medians_ns, start=22))
    return make_report(
        manifest, **{"job": make_job(*medians_ns), "blocks": blocks, "accuracy": scores, "extra": {}, **changes}
    )
