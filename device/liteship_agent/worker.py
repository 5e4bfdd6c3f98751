"""One block: one artefact timed in a process of its own, so that memory never holds two models.

Reads a request as one JSON object from stdin, writes the result as one JSON line to stdout. The timed loop holds
nothing but invocations of the interpreter between two readings of the monotonic clock; garbage collection is off and
input tensors of real images are made before it.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from liteship_agent.errors import ModelError
from liteship_agent.images import load_pixels, pixels_path, read_image, selected_images
from liteship_agent.manifest import ManifestEntry, ValidationImage
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import decode, preprocess, to_tensor
from liteship_agent.records import from_json
from liteship_agent.release import VALIDATION, InstalledRelease
from liteship_agent.runtime import Model
from liteship_agent.system import own_memory, readings

_DISTINCT_IMAGES = 64
_WARMUP_WINDOW, _WARMUP_DRIFT_RATIO, _WARMUP_MOST = 5, 0.01, 50


@dataclass(frozen=True)
class Request:
    """What a worker does.

    Args:
        folder, release_id: Where the artefact is.
        artefact: Its sha256.
        threads: Interpreter threads.
        min_queries, min_seconds, max_seconds: Of the timed loop: both minima are met unless the maximum comes first.
        seed: Of the choice of images.
        limit: Most validation images, null for all.
        with_scores: Run every validation image once, after the timed part.
    """

    folder: str
    release_id: str
    artefact: str
    threads: int
    min_queries: int
    min_seconds: float
    max_seconds: float
    seed: int
    limit: Optional[int]
    with_scores: bool


def main() -> None:
    """Serve the one request on stdin."""
    request = from_json(Request, json.load(sys.stdin), "worker request")
    json.dump(run_block(request), sys.stdout)
    sys.stdout.write("\n")


def run_block(request: Request) -> Dict[str, Any]:
    """Time one artefact; the result has the fields of `report.Block` that a worker knows, and `scores` if asked."""
    cv2.setNumThreads(request.threads)
    release = InstalledRelease(Path(request.folder), request.release_id)
    manifest = release.manifest()
    entry = manifest.entry(request.artefact)
    if entry is None:
        raise ModelError(f"an artefact of the manifest is required. Received: {request.artefact}")
    images = selected_images(manifest, request.limit)
    pixels = load_pixels(pixels_path(release.folder, manifest, entry.input, request.limit))
    before = readings()
    model = Model(release.artefact(entry), request.threads, entry.variant)
    chosen = random.Random(request.seed).sample(range(len(images)), min(_DISTINCT_IMAGES, len(images)))  # noqa: S311
    tensors = [to_tensor(pixels[index : index + 1], entry.input) for index in chosen]
    first_ns = _time_invocation(model, tensors[0])
    warmup_count = _warm_up(model, tensors)
    latencies = _time_invocations(model, tensors, request)
    with open(release.path / VALIDATION, "rb") as archive:
        end_to_end = _time_end_to_end(model, entry, archive, [images[index] for index in chosen], request)
    memory = own_memory()
    delegated, total = model.node_counts()
    result: Dict[str, Any] = {
        "artefact": entry.sha256,
        "threads": request.threads,
        "runtime": model.runtime.name,
        "runtime_version": model.runtime.version,
        "delegated_nodes": delegated,
        "total_nodes": total,
        "init_ns": model.init_ns,
        "first_ns": first_ns,
        "warmup_count": warmup_count,
        "latencies_ns": latencies,
        "end_to_end_ns": end_to_end,
        "sensors": {"before": before, "after": readings()},
        **memory,
    }
    if request.with_scores:
        result["scores"] = _scores(model, entry, pixels)
    return result


def _time_invocation(model: Model, tensor: np.ndarray) -> int:
    model.set_input(tensor)
    started = time.perf_counter_ns()
    model.invoke()
    return time.perf_counter_ns() - started


def _warm_up(model: Model, tensors: Sequence[np.ndarray]) -> int:
    """Invoke until the median of the last five moves by less than 1 % against the five before, 50 times at most."""
    latencies: List[int] = []
    while len(latencies) < _WARMUP_MOST:
        latencies.append(_time_invocation(model, tensors[len(latencies) % len(tensors)]))
        if len(latencies) >= 2 * _WARMUP_WINDOW:
            latest = statistics.median(latencies[-_WARMUP_WINDOW:])
            earlier = statistics.median(latencies[-2 * _WARMUP_WINDOW : -_WARMUP_WINDOW])
            if abs(latest - earlier) < _WARMUP_DRIFT_RATIO * earlier:
                break
    return len(latencies)


def _time_invocations(model: Model, tensors: Sequence[np.ndarray], request: Request) -> List[int]:
    """Latency of each query in nanoseconds; the next query starts when the previous one ends."""
    latencies: List[int] = []
    clock, invoke, set_input = time.perf_counter_ns, model.invoke, model.set_input
    gc.collect()
    gc.disable()
    try:
        started = clock()
        enough, most = started + int(request.min_seconds * 1e9), started + int(request.max_seconds * 1e9)
        ended = started
        while ended < most and (len(latencies) < request.min_queries or ended < enough):
            set_input(tensors[len(latencies) % len(tensors)])
            begun = clock()
            invoke()
            ended = clock()
            latencies.append(ended - begun)
    finally:
        gc.enable()
    return latencies


def _time_end_to_end(
    model: Model, entry: ManifestEntry, archive: BinaryIO, images: Sequence[ValidationImage], request: Request
) -> List[int]:
    """Latency from the bytes of an image file to its scores, in nanoseconds."""
    latencies: List[int] = []
    most = time.perf_counter_ns() + int(request.max_seconds * 1e9)
    gc.disable()
    try:
        while len(latencies) < request.min_queries and time.perf_counter_ns() < most:
            image = images[len(latencies) % len(images)]
            data = read_image(archive, image)
            begun = time.perf_counter_ns()
            to_scores(model.run(preprocess(decode(data, image.path), entry.input)), entry.output)
            latencies.append(time.perf_counter_ns() - begun)
    finally:
        gc.enable()
    return latencies


def _scores(model: Model, entry: ManifestEntry, pixels: np.ndarray) -> List[Tuple[float, ...]]:
    """Probabilities of every image, in order."""
    rows = [
        to_scores(model.run(to_tensor(pixels[index : index + 1], entry.input)), entry.output)
        for index in range(len(pixels))
    ]
    scores = np.concatenate(rows)
    if not np.isfinite(scores).all():
        raise ModelError(f"{entry.variant}: finite scores are required. Received: NaN or infinity")
    return [tuple(row) for row in scores.tolist()]
