"""The accuracy pass: every validation image exactly once, in order, through one loaded model.

    files or decoded pixels -> threads: decode, resize, hash, scale (a bounded number of chunks ahead) -> interpreter

OpenCV, hashing and the interpreter let other Python threads run, so that decoding uses the cores that the interpreter
leaves idle.
"""

from __future__ import annotations

import collections
import hashlib
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple, TypeVar

import cv2
import numpy as np

from liteship_agent.images import Images, NewPixels
from liteship_agent.manifest import ManifestEntry
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import to_tensor
from liteship_agent.release import InstalledRelease
from liteship_agent.runtime import Model
from liteship_agent.smoke import compare_golden, require_finite

Announce = Callable[..., None]
Result = TypeVar("Result")

_CHUNK_BYTES = 2**20
"""Of the float tensors that a thread prepares at a time. Decoding an image before each invocation would empty the
caches each time: MobileNetV2 at 96 then takes a fifth longer."""

_CHUNKS_AHEAD = 2  # for each thread
_PROGRESS_SECONDS = 1.0
_SILENT_SECONDS = 10.0
"""The longest that one image, or giving the decoded pixels their name, is expected to take."""


def run_accuracy_pass(
    model: Model, release: InstalledRelease, entry: ManifestEntry, runtime: str, images: Images, announce: Announce
) -> Dict[str, Any]:
    """Score every image, keep its pixels where they are not yet, and compare the golden outputs.

    Args:
        model: The loaded artefact.
        release: Whose golden files are compared with.
        entry: Of the artefact.
        runtime: Folder name of the runtime.
        images: To score; those that are not decoded yet are decoded on the way.
        announce: Called with ("accuracy", seconds, done=, total=) about once a second.
    Returns:
        The fields of `report.Scores`.
    Raises:
        ImageError: a file is not a whole image; the message names it.
        ModelError: a score is NaN or infinite.
    """
    cv2.setNumThreads(1)  # images are decoded side by side, each by one thread
    decoded = not images.are_decoded
    hashes: List[str] = []
    rows: List[np.ndarray] = []
    chunks, cpus = _chunks(images), len(os.sched_getaffinity(0))
    with images.new_pixels() as kept:

        def prepare(number: int) -> Tuple[List[str], np.ndarray]:
            return _prepare(images, chunks[number], kept)

        started = time.monotonic()
        announced = started - _PROGRESS_SECONDS
        for pixel_hashes, tensors in prepare_ahead(prepare, len(chunks), cpus, model.threads):
            hashes += pixel_hashes
            for tensor in tensors:
                now = time.monotonic()
                if now - announced >= _PROGRESS_SECONDS:
                    announced = now
                    announce("accuracy", _PROGRESS_SECONDS + _SILENT_SECONDS, done=len(rows), total=len(images))
                rows.append(to_scores(model.run(tensor[np.newaxis]), entry.output))
        pass_ns = int((time.monotonic() - started) * 1e9)
        announce("accuracy", _SILENT_SECONDS, done=len(rows), total=len(images))
    scores = np.concatenate(rows)
    require_finite(scores, entry.variant)
    golden = compare_golden(model, release, entry)
    return {
        "artefact": entry.sha256,
        "runtime": runtime,
        "scores": scores.tolist(),
        "pixel_hashes": hashes,
        "golden_difference": golden.difference,
        "golden_tolerance": golden.tolerance,
        "pass_ns": pass_ns,
        "decoded": decoded,
    }


def prepare_ahead(
    prepare: Callable[[int], Result], count: int, cpus: int, interpreter_threads: int
) -> Iterator[Result]:
    """prepare(0), prepare(1) ... in order, made by a thread per CPU a bounded number of chunks before they are taken.

    Where the interpreter leaves no CPU idle, its threads and these take turns: the former wait for each other with
    busy loops, so that one that has no CPU costs the others theirs.
    """
    takes_turns = interpreter_threads >= cpus
    pending: Deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(cpus) as pool:
        try:
            for chunk in range(count):
                pending.append(pool.submit(prepare, chunk))
                if len(pending) < cpus * _CHUNKS_AHEAD and chunk < count - 1:
                    continue
                if takes_turns:
                    wait(pending)
                yield pending.popleft().result()
                while pending and (takes_turns or chunk == count - 1):
                    yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def pixel_hash(pixels: np.ndarray) -> str:
    """First 16 hex digits of the sha256 of resized pixels, uint8, shape (height, width, 3)."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


def _chunks(images: Images) -> List[range]:
    """The indices of all images, in order."""
    tensor_bytes = images.contract.height * images.contract.width * 3 * 4
    length = max(1, _CHUNK_BYTES // tensor_bytes)
    return [range(start, min(start + length, len(images))) for start in range(0, len(images), length)]


def _prepare(images: Images, indices: range, kept: Optional[NewPixels]) -> Tuple[List[str], np.ndarray]:
    """Pixel hashes and input tensors of some images; keeps their pixels where there is a place for them."""
    pixels = np.stack([images.pixels(index) for index in indices])
    if kept is not None:
        kept.put(indices[0], pixels)
    return [pixel_hash(image) for image in pixels], to_tensor(pixels, images.contract)
