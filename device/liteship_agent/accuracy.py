"""The accuracy pass: every validation image exactly once, in order, through one loaded model.

    files -> threads: decode, resize, hash, keep (a bounded number of chunks ahead) -> scale -> interpreter
    decoded pixels and their hashes, of an earlier pass                             -> scale -> interpreter

OpenCV, hashing and the interpreter let other Python threads run, so that decoding uses the cores that the interpreter
leaves idle. Scaling takes less time than handing a tensor from thread to thread, and leaves it in the caches of the
CPU that invokes.
"""

from __future__ import annotations

import collections
import hashlib
import itertools
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
HashedPixels = Tuple[np.ndarray, str]
Result = TypeVar("Result")

_CHUNK_BYTES = 2**19  # of the pixels that a thread decodes at a time
_CHUNKS_AHEAD = 2  # for each thread
_TURN_CHUNKS = 8
"""Each turn wakes threads, empties caches and finds the interpreter's still busy waiting: it must be long beside that,
and short beside a second."""

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
    hashes: List[str] = []
    outputs: List[np.ndarray] = []
    with images.new_pixels() as kept:
        started = time.monotonic()
        announced = started - _PROGRESS_SECONDS
        for pixels, pixels_hash in _hashed_pixels(images, kept, model.threads):
            now = time.monotonic()
            if now - announced >= _PROGRESS_SECONDS:
                announced = now
                announce("accuracy", _PROGRESS_SECONDS + _SILENT_SECONDS, done=len(outputs), total=len(images))
            outputs.append(model.run(to_tensor(pixels, images.contract)[np.newaxis]))
            hashes.append(pixels_hash)
        pass_ns = int((time.monotonic() - started) * 1e9)
        announce("accuracy", _SILENT_SECONDS, done=len(outputs), total=len(images))
    scores = to_scores(np.concatenate(outputs), entry.output)
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
        "decoded": not images.are_decoded,
    }


def _hashed_pixels(images: Images, kept: Optional[NewPixels], interpreter_threads: int) -> Iterator[HashedPixels]:
    """Pixels and `pixel_hash` of every image in order: as an earlier pass left them, or decoded, and then kept."""
    if images.are_decoded:
        return ((images.pixels(index), images.pixels_hash(index)) for index in range(len(images)))
    chunks, cpus = _chunks(images), len(os.sched_getaffinity(0))

    def decode_chunk(number: int) -> List[HashedPixels]:
        return [_decode(images, index, kept) for index in chunks[number]]

    return itertools.chain.from_iterable(prepare_ahead(decode_chunk, len(chunks), cpus, interpreter_threads))


def prepare_ahead(
    prepare: Callable[[int], Result], count: int, cpus: int, interpreter_threads: int
) -> Iterator[Result]:
    """prepare(0), prepare(1) ... in order, made by a thread per CPU a bounded number of chunks before they are taken.

    Where the interpreter leaves no CPU idle, its threads and these take turns: the former wait for each other with
    busy loops, so that one that has no CPU costs the others theirs.
    """
    takes_turns = interpreter_threads >= cpus
    ahead = _TURN_CHUNKS if takes_turns else cpus * _CHUNKS_AHEAD
    pending: Deque[Future[Result]] = collections.deque()
    with ThreadPoolExecutor(cpus) as pool:
        try:
            for chunk in range(count):
                pending.append(pool.submit(prepare, chunk))
                if len(pending) < ahead and chunk < count - 1:
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
    return hashlib.sha256(np.ascontiguousarray(pixels).data).hexdigest()[:16]


def _chunks(images: Images) -> List[range]:
    """The indices of all images, in order."""
    length = max(1, _CHUNK_BYTES // (images.contract.height * images.contract.width * 3))
    return [range(start, min(start + length, len(images))) for start in range(0, len(images), length)]


def _decode(images: Images, index: int, kept: Optional[NewPixels]) -> HashedPixels:
    """Pixels and hash of one image; keeps them where there is a place for them."""
    pixels = images.pixels(index)
    pixels_hash = pixel_hash(pixels)
    if kept is not None:
        kept.put(index, pixels, pixels_hash)
    return pixels, pixels_hash
