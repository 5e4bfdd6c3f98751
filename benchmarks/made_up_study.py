"""A made-up study with a report: 24 artefacts measured 5,000 times each on a board that does not exist.

    python benchmarks/made_up_study.py FOLDER

makes FOLDER/models/pets. It has everything that a page shows: trade-offs, blocks that were throttled, measured again
or stayed void, a failed parity, a refused and a failed variant, training histories, filter ranks, photographs whose
answers flipped. The same every time.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from liteship.filter_ranks import FilterRank, write_ranks
from liteship.report.summary import summarize
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
from liteship_agent.records import write_record
from liteship_agent.report import VALID, VOID, Block, Canary, Flip, Refused, Report, Sample, Scores

STUDY, TARGET = "pets", "pi"
JOB_ID = "20261122-101500-0123456789ab"
_RUNTIME, _RUNTIME_NAME = "ai-edge-litert==2.3.0", "ai-edge-litert-2.3.0-cp311-aarch64"
_LABELS = ("Abyssinian", "beagle", "boxer", "Persian", "Siamese", "terrier")
_BASE_MS, _BASE_MIB, _BASE_WRONG = 24.0, 8.46, 0.052
_LAYERS = 26
_FULL_HZ, _LOW_HZ = 1_800_000_000, 1_000_000_000
_S = 1_000_000_000


@dataclass(frozen=True)
class _Effect:
    """What a pruning or a quantization does: factors of latency, file and gzip size, and wrong answers more."""

    latency: float = 1.0
    file: float = 1.0
    gzip: float = 1.0
    wrong: float = 0.0
    zeros: float = 0.0
    arithmetic: float = 1.0


_PRUNINGS: Mapping[str, _Effect] = {
    "none": _Effect(),
    "magnitude50": _Effect(latency=1.0, gzip=0.58, wrong=0.004, zeros=0.5),
    "magnitude75": _Effect(latency=1.0, gzip=0.34, wrong=0.021, zeros=0.75),
    "filter25": _Effect(latency=0.74, file=0.73, gzip=0.73, wrong=0.006, arithmetic=0.75),
    "filter50": _Effect(latency=0.52, file=0.48, gzip=0.48, wrong=0.019, arithmetic=0.5),
}
_QUANTIZATIONS: Mapping[str, _Effect] = {
    "none": _Effect(),
    "float16": _Effect(latency=1.01, file=0.5, gzip=0.5, wrong=0.0002),
    "dynamic": _Effect(latency=0.83, file=0.28, gzip=0.26, wrong=0.003),
    "int8": _Effect(latency=0.47, file=0.31, gzip=0.28, wrong=0.007),
}
_MORE = {
    "none-qat": _Effect(latency=0.47, file=0.31, gzip=0.28, wrong=0.002),
    "magnitude50-pqat": _Effect(latency=0.47, file=0.31, gzip=0.17, wrong=0.006, zeros=0.5),
    "latency80-none": _Effect(latency=0.66, file=0.29, gzip=0.26, wrong=0.013, zeros=0.74),
    "latency90-none": _Effect(latency=0.5, file=0.18, gzip=0.16, wrong=0.034, zeros=0.85),
}


def write_study(models: Path, artefacts: int = 24, queries: int = 5000, rounds: int = 10, images: int = 1000) -> Path:
    """Write the study and its report; gives its folder.

    Args:
        models: Folder of studies.
        artefacts: Files that are measured, 24 at most.
        queries: Latencies of each.
        rounds: Rounds of the job.
        images: Of the validation set.
    """
    folder, chance = models / STUDY, random.Random(6)
    effects = dict(list(_effects().items())[:artefacts])
    validation = _write_images(folder / "validation.tar", images, chance)
    entries = tuple(_entry(variant, effect, images) for variant, effect in effects.items())
    refused = replace(_entry("none-pqat", _Effect(file=0.31, gzip=0.27, wrong=0.003), images), variant="none-pqat")
    failures = (Failure("filter75-int8", "conversion", "a layer of 3 channels cannot lose another"),)
    manifest = Manifest(Manifest.SCHEMA_VERSION, STUDY, _LABELS, (*entries, refused), failures, validation)
    report = _report(manifest, effects, refused, queries, rounds, chance)
    write_record(manifest, folder / "manifest.json")
    write_record(report, folder / "reports" / TARGET / f"{JOB_ID}.json")
    _write_training(folder / "keras", chance)
    return folder


def _effects() -> dict[str, _Effect]:
    found = {
        f"{pruning}-{quantization}": _Effect(
            latency=one.latency * other.latency,
            file=one.file * other.file,
            gzip=one.gzip * other.gzip,
            wrong=one.wrong + other.wrong,
            zeros=one.zeros,
            arithmetic=one.arithmetic,
        )
        for pruning, one in _PRUNINGS.items()
        for quantization, other in _QUANTIZATIONS.items()
    }
    return found | _MORE


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _entry(variant: str, effect: _Effect, images: int) -> ManifestEntry:
    pruning, _, quantization = variant.rpartition("-")
    integer = quantization in ("int8", "qat", "pqat")
    file, gzip = (round(_BASE_MIB * 2**20 * share) for share in (effect.file, 0.92 * effect.gzip))
    drop = round(effect.wrong * images)
    right = round((1 - _BASE_WRONG) * images)
    parity_drop = drop if variant == "magnitude75-int8" else min(drop, round(0.019 * images))
    tensors = [(f"block_{at}/{'expand' if at % 2 else 'project'}", 864 + 1536 * at) for at in range(_LAYERS)]
    spared = (0, _LAYERS - 1)
    return ManifestEntry(
        variant=variant,
        sha256=_sha(variant),
        size_bytes=file,
        gzip_bytes=gzip,
        requested_sparsity=effect.zeros,
        achieved_sparsity=0.97 * effect.zeros,
        sparsity_by_layer=tuple(
            LayerSparsity(
                name, weights, 0 if at in spared else round(weights * effect.zeros * (0.8 + 0.4 * at / _LAYERS))
            )
            for at, (name, weights) in enumerate(tensors)
        ),
        keras=KerasModel(
            pruning,
            round(9_160_000 * (effect.file if pruning.startswith("filter") else 1)),
            round(8_400_000 * effect.gzip),
            round(2_259_265 * effect.arithmetic),
            1 - effect.arithmetic if pruning.startswith("filter") else None,
        ),
        multiply_adds=round(300_000_000 * effect.arithmetic),
        operators=(Operator("CONV_2D", 5 if integer else 1, 36), Operator("DEPTHWISE_CONV_2D", 3, 17)),
        minimum_runtime="2.3.0" if integer else "1.14.0",
        sparse_verdict=SparseVerdict(False, None, "kernels are stored densely", "ai-edge-litert 2.3 on aarch64"),
        dense_twin_of=None,
        parity=Parity(right - drop + parity_drop, images - 2 * drop, images, 0.08, 0.02, parity_drop <= 0.02 * images),
        input=InputContract(224, 224, "rgb", "crop", "area", (127.5,) * 3, (127.5,) * 3),
        output=OutputContract("softmax"),
        calibration=Calibration(100, _sha("calibration"), True) if integer else None,
        host_accuracy=HostAccuracy(right - drop, images, "ai-edge-litert 2.3.0"),
        golden=Golden(_sha("golden"), _sha("pixels"), {"ai-edge-litert": 0.01}),
        lineage=Lineage(_sha("recipe"), _sha("data"), "0123abc", 0, {"tensorflow": "2.21.0", "tf-keras": "2.21.0"}),
    )


def _report(
    manifest: Manifest,
    effects: Mapping[str, _Effect],
    refused: ManifestEntry,
    queries: int,
    rounds: int,
    chance: random.Random,
) -> Report:
    cases = tuple(Case(_sha(variant), _RUNTIME_NAME, 4, (0, 1, 2, 3)) for variant in effects)
    job = Job(
        schema_version=Job.SCHEMA_VERSION,
        job_id=JOB_ID,
        release_id="0123456789ab",
        target=TARGET,
        tier=Tier("normal", rounds, 1024, 60.0, 600.0),
        cases=cases,
        runtimes={_RUNTIME_NAME: _RUNTIME},
    )
    clock = _Clock()
    blocks: list[Block] = []
    canaries = []
    for index in range(rounds):
        canaries.append(Canary(0, index, 0, round(_BASE_MS * 1e6 * (1 + 0.004 * index)), VALID))
        order = range(len(cases)) if index % 2 == 0 else range(len(cases) - 1, -1, -1)
        for place, at in enumerate(order):
            effect = list(effects.values())[at]
            blocks += _blocks(job, at, index, place, effect, queries // rounds, clock, chance)
    scores = tuple(_scores(manifest, variant, effect, chance) for variant, effect in effects.items())
    report = Report(
        schema_version=Report.SCHEMA_VERSION,
        job=job,
        target=TARGET,
        manifest_sha256=manifest.sha256(),
        image_count=len(manifest.validation.images),
        blocks=tuple(blocks),
        canaries=tuple(canaries),
        failed=(),
        accuracy=scores,
        environment={
            "board_model": "Raspberry Pi 4 Model B Rev 1.5 (made up)",
            "cpu_count": 4,
            "cpu_model": "Cortex-A72",
            "governor": "ondemand",
            "kernel": "6.12.47+rpt-rpi-v8",
            "libc": "glibc 2.41",
            "machine": "aarch64",
            "memory_bytes": 4_040_000_000,
            "os": "Debian GNU/Linux 13 (trixie)",
            "python": "3.13.5",
        },
        sensors={
            name: {"source": "vcgencmd", "reason": None, "remedy": None}
            for name in Sample.__dataclass_fields__
            if name != "at_ns"
        },
        refused=(Refused(refused.sha256, _RUNTIME_NAME, "FULLY_CONNECTED version 13 is not in ai-edge-litert 2.3.0"),),
        flips=_flips(manifest, scores, chance),
    )
    return replace(report, summaries=summarize(report))


class _Clock:
    """Time that passes, and a board that warms up."""

    def __init__(self) -> None:
        self.now_ns = 100 * _S

    @property
    def celsius(self) -> float:
        """Rises towards 79."""
        return 79.0 - 31.0 * 2.718 ** (-(self.now_ns - 100 * _S) / (700 * _S))


def _blocks(
    job: Job,
    case_index: int,
    round_index: int,
    place: int,
    effect: _Effect,
    count: int,
    clock: _Clock,
    chance: random.Random,
) -> list[Block]:
    """A block, and before it those that were void."""
    is_doomed = case_index == 11 and round_index in (7, 8)  # void still after its last repetition
    is_throttled = is_doomed or (round_index >= 6 and (case_index * 7 + round_index) % 19 == 0)
    found = []
    for attempt in range(4 if is_doomed else 2 if is_throttled else 1):
        throttled = is_throttled and (is_doomed or attempt == 0)
        center = _BASE_MS * 1e6 * effect.latency * (1.35 if throttled else 1.0) * (1 + 0.002 * round_index)
        latencies = tuple(round(center * chance.lognormvariate(0, 0.03)) for _ in range(count))
        latencies = tuple(round(ns * 1.5) if chance.random() < 0.004 else ns for ns in latencies)
        found.append(_block(job, case_index, round_index, place, attempt, latencies, throttled, clock, chance))
    return found


def _block(
    job: Job,
    case_index: int,
    round_index: int,
    place: int,
    attempt: int,
    latencies: Sequence[int],
    throttled: bool,
    clock: _Clock,
    chance: random.Random,
) -> Block:
    case, total = job.cases[case_index], sum(latencies)
    start = clock.now_ns + 2 * _S
    samples = []
    for at in range(0, total + _S, 2 * _S):
        clock.now_ns = start + at
        hertz = _LOW_HZ if throttled and at > total // 3 else _FULL_HZ
        heat = clock.celsius + chance.uniform(-0.5, 0.5) + (3 if throttled else 0)
        samples.append(
            Sample(
                clock.now_ns,
                round(heat, 1),
                hertz,
                hertz,
                4 if hertz == _LOW_HZ else 0,
                memory_available_bytes=3 * 10**9,
            )
        )
    clock.now_ns = start + total + (20 * _S if throttled else 0)
    return Block(
        case_index=case_index,
        round_index=round_index,
        order=place,
        attempt=attempt,
        artefact=case.artefact,
        threads=case.threads,
        cpus=case.cpus,
        runtime="ai-edge-litert",
        runtime_version="2.3.0",
        delegated_nodes=64,
        total_nodes=65,
        init_ns=19_000_000,
        first_ns=2 * latencies[0],
        warmup_count=5,
        warmup_ns=5 * latencies[0],
        latencies_ns=tuple(latencies),
        end_to_end_ns=tuple(ns + 5_000_000 for ns in latencies[:20]),
        stages_ns={"decode": 3_000_000, "preprocess": 1_900_000, "invoke": latencies[0], "postprocess": 100_000},
        timed_from_ns=start,
        timed_to_ns=start + total,
        loop_ns=total + total // 200,
        invoke_cpu_ns=round(3.7 * total),
        others_cores=0.02,
        major_faults=0,
        swapped_in_pages=0,
        rss_peak_bytes=90_000_000,
        rss_anon_bytes=40_000_000 + 1000 * case_index,
        samples=tuple(samples),
        validity=VOID if throttled else VALID,
        reasons=("the clock fell from 1800 to 1000 MHz",) if throttled else (),
    )


def _scores(manifest: Manifest, variant: str, effect: _Effect, chance: random.Random) -> Scores:
    """Sure of the right label, but for some images, most of which are those that the baseline gets wrong too."""
    images = manifest.validation.images
    hard = list(range(3, len(images), 7))
    base = hard[: round(_BASE_WRONG * len(images))]
    own = [index for index in base if chance.random() > 0.06]
    own += chance.sample(range(len(images)), round(effect.wrong * len(images)) + len(base) - len(own))
    rows = []
    wrong = set(base if variant == "none-none" else own)
    for index, image in enumerate(images):
        answer = (image.label + 1 + index % 2 * (index % 5)) % len(_LABELS) if index in wrong else image.label
        rows.append(tuple(0.9 if label == answer else 0.02 for label in range(len(_LABELS))))
    return Scores(
        artefact=_sha(variant),
        runtime=_RUNTIME_NAME,
        scores=tuple(rows),
        pixel_hashes=tuple(_sha(image.path)[:16] for image in images),
        golden_difference=0.0004,
        golden_tolerance=0.01,
        pass_ns=30 * _S,
        decoded=variant == "none-none",
    )


def _flips(manifest: Manifest, scores: Sequence[Scores], chance: random.Random) -> tuple[Flip, ...]:
    """All against the baseline, and a few against the host."""
    answers = [[row.index(max(row)) for row in own.scores] for own in scores]
    flips = []
    for own, received in zip(scores, answers, strict=True):
        for index, image in enumerate(manifest.validation.images):
            expected = answers[0][index]
            if received[index] == expected:
                continue
            flips.append(
                Flip(own.artefact, own.runtime, image.path, "baseline", image.label, expected, received[index])
            )
            if chance.random() < 0.05:
                cause, steps = ("pixels", 2) if chance.random() < 0.5 else ("kernels", 0)
                flips.append(replace(flips[-1], against="host", cause=cause, largest_pixel_difference=steps))
    return tuple(flips)


def _write_images(path: Path, count: int, chance: random.Random) -> ValidationSet:
    """Drawings instead of photographs, behind each other as in an archive."""
    content = bytearray()
    images = []
    for index in range(count):
        label = index * len(_LABELS) // count
        encoded = _drawing(label, chance)
        images.append(ValidationImage(f"{_LABELS[label]}/{index:04d}.jpg", label, len(content), len(encoded)))
        content += encoded
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return ValidationSet(hashlib.sha256(content).hexdigest(), len(content), tuple(images))


def _drawing(label: int, chance: random.Random) -> bytes:
    """A face with two ears on a colored ground."""
    image = np.full((120, 160, 3), [chance.randint(90, 220) for _ in range(3)], np.uint8)
    fur = [(60, 90, 150), (90, 120, 190), (70, 80, 120), (200, 205, 215), (170, 190, 205), (110, 130, 150)][label]
    x, y, size = chance.randint(60, 100), chance.randint(55, 75), chance.randint(26, 40)
    for side in (-1, 1):
        ear = np.array(
            [(x + side * size, y - 2 * size // 3), (x + side * size // 2, y - size - 14), (x, y - size // 2)]
        )
        cv2.fillPoly(image, [ear], fur)
    cv2.ellipse(image, (x, y), (size, round(0.85 * size)), 0, 0, 360, fur, -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.circle(image, (x + side * size // 3, y - 4), 4, (20, 20, 20), -1, cv2.LINE_AA)
    cv2.ellipse(image, (x, y + size // 4), (5, 4), 0, 0, 360, (40, 40, 60), -1, cv2.LINE_AA)
    _, encoded = cv2.imencode(".jpg", image)
    return encoded.tobytes()


def _write_training(keras: Path, chance: random.Random) -> None:
    for pruning, effect in (*_PRUNINGS.items(), ("latency80", _MORE["latency80-none"])):
        epochs = 14 if pruning == "none" else 8
        first, last = (0.4, 0.96) if pruning == "none" else (0.8 - effect.wrong * 8, 0.955 - effect.wrong)
        history = []
        for epoch in range(epochs):
            share = 1 - 2.718 ** (-3.5 * epoch / (epochs - 1))
            accuracy = first + (last - first) * share
            history.append(
                {
                    "loss": 2.2 * (1 - accuracy) + 0.02 * chance.random(),
                    "accuracy": accuracy + 0.01,
                    "validation_accuracy": accuracy - 0.012 + 0.012 * chance.random(),
                }
            )
        keras.mkdir(parents=True, exist_ok=True)
        (keras / f"{pruning}.keras.json").write_text(json.dumps({"key": "", "history": history}))
    for pruning, ratio in (("filter25", 0.25), ("filter50", 0.5)):
        ranks = []
        for at in range(17):
            cut = min(0.9, max(0.05, ratio + 0.25 * chance.uniform(-1, 1)))
            scores = sorted(chance.gammavariate(2.0, 1.0 + at / 9) for _ in range(48 + 24 * at))
            ranks += [
                FilterRank(f"block_{at + 1}_expand", index, "taylor", score, index >= cut * len(scores))
                for index, score in enumerate(scores)
            ]
        write_ranks(ranks, keras / f"{pruning}-ranks.csv")


if __name__ == "__main__":
    print(write_study(Path(sys.argv[1]) / "models"))
