"""The timed loops of a block: warm-up, invoke only, end to end.

A timed loop holds nothing but the work and readings of the clock; garbage collection is off in it, and the next query
starts when the previous one ends ("SingleStream").
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import numpy as np

from liteship_agent.manifest import ManifestEntry
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import decode, preprocess
from liteship_agent.runtime import Model

STAGES = ("decode", "preprocess", "invoke", "postprocess")

_WINDOW, _DRIFT_RATIO, _LEAST_RUNS, _MOST_RUNS = 5, 0.01, 5, 50
_SETTLE_NS = 100_000_000
"""A governor may need so long to raise the clock: a model of 0.1 ms would be steady at the low one long before."""


@dataclass(frozen=True)
class Invocations:
    """What the loop of invoke-only queries gave; see `report.Block`."""

    latencies_ns: List[int]
    loop_ns: int
    invoke_cpu_ns: int


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Collect garbage now and not while the body runs."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def time_invocation(model: Model, tensor: np.ndarray) -> int:
    """Nanoseconds of one invocation; setting the input is not part of it."""
    model.set_input(tensor)
    started = time.perf_counter_ns()
    model.invoke()
    return time.perf_counter_ns() - started


def warm_up(model: Model, tensors: Sequence[np.ndarray], seconds: float) -> List[int]:
    """Invoke until the latency is steady; the latencies, in nanoseconds.

    At least five times and 0.1 s. Then until the median of the last five moved by less than 1 % against that of the
    five before, but at most 50 times (more only within those 0.1 s), and no longer than `seconds` or 1 s, whichever is
    more: five runs of a slow model that took so long have met the clock and the caches that the timed ones will.
    """
    most_ns = max(10 * _SETTLE_NS, int(seconds * 1e9))
    latencies: List[int] = []
    spent_ns = 0
    while True:
        latencies.append(time_invocation(model, tensors[len(latencies) % len(tensors)]))
        spent_ns += latencies[-1]
        if len(latencies) < _LEAST_RUNS or spent_ns < _SETTLE_NS:
            continue
        if len(latencies) >= _MOST_RUNS or spent_ns >= most_ns or _is_steady(latencies):
            return latencies


def _is_steady(latencies: Sequence[int]) -> bool:
    if len(latencies) < 2 * _WINDOW:
        return False
    latest = statistics.median(latencies[-_WINDOW:])
    earlier = statistics.median(latencies[-2 * _WINDOW : -_WINDOW])
    return abs(latest - earlier) < _DRIFT_RATIO * earlier


def time_invocations(
    model: Model, tensors: Sequence[np.ndarray], min_queries: int, min_seconds: float, max_seconds: float
) -> Invocations:
    """Invoke the model on the tensors in turn until both minima are met or the maximum is; at least once."""
    latencies: List[int] = []
    count = len(tensors)
    clock, invoke, set_input = time.perf_counter_ns, model.invoke, model.set_input
    with without_collection():
        cpu_started = time.process_time_ns()
        started = ended = clock()
        enough, most = started + int(min_seconds * 1e9), started + int(max_seconds * 1e9)
        while not latencies or (ended < most and (len(latencies) < min_queries or ended < enough)):
            set_input(tensors[len(latencies) % count])
            begun = clock()
            invoke()
            ended = clock()
            latencies.append(ended - begun)
        cpu_ns = time.process_time_ns() - cpu_started
    return Invocations(latencies, ended - started, cpu_ns)


def end_to_end_query(model: Model, entry: ManifestEntry, data: bytes, name: str) -> Tuple[int, int, int, int]:
    """Nanoseconds of every stage from the bytes of an image file to its scores, in the order of `STAGES`.

    Raises:
        ImageError: the file is not a whole image.
    """
    clock = time.perf_counter_ns
    started = clock()
    image = decode(data, name)
    decoded = clock()
    tensor = preprocess(image, entry.input)
    preprocessed = clock()
    output = model.run(tensor)
    invoked = clock()
    to_scores(output, entry.output)
    return decoded - started, preprocessed - decoded, invoked - preprocessed, clock() - invoked


def time_end_to_end(
    query: Callable[[int], Tuple[int, ...]], min_queries: int, max_seconds: float
) -> Tuple[List[int], Dict[str, int]]:
    """Run queries 0, 1, 2 ... one after the other.

    Args:
        query: Runs one and gives the nanoseconds of its stages, see `end_to_end_query`.
        min_queries: How many, unless the time ends first.
        max_seconds: After so long no new one starts; one is run in any case.
    Returns:
        Nanoseconds of each query, and the median of each stage by its name.
    """
    queries: List[Tuple[int, ...]] = []
    with without_collection():
        most = time.perf_counter_ns() + int(max_seconds * 1e9)
        while not queries or (len(queries) < min_queries and time.perf_counter_ns() < most):
            queries.append(query(len(queries)))
    stages = {name: int(statistics.median(times)) for name, times in zip(STAGES, zip(*queries))}
    return [sum(stage) for stage in queries], stages
