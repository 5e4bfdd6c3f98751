"""The phases of a block: load, first run, warm-up, invoke only, end to end, and the accuracy pass where asked.

What surrounds the timed part (CPU time of others, page faults, swap) is read before and after it, never in it.
"""

from __future__ import annotations

import os
import random
import re
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from liteship_agent import timing
from liteship_agent.accuracy import Announce, run_accuracy_pass
from liteship_agent.images import Images
from liteship_agent.job import BlockRequest
from liteship_agent.manifest import ManifestEntry
from liteship_agent.preprocess import to_tensor
from liteship_agent.release import InstalledRelease
from liteship_agent.runtime import Model
from liteship_agent.sensors import Sensors
from liteship_agent.system import own_memory

_DISTINCT_IMAGES = 32
_VMSTAT = Path("/proc/vmstat")
_LOAD_SECONDS = 60.0  # 32 large photographs and a large model from a slow card


@dataclass(frozen=True)
class Counters:
    """What the machine and this process have used until now.

    Args:
        at_ns: Monotonic clock.
        busy_ns, own_ns: CPU time of the whole machine, null where it does not tell, and of this process.
        major_faults: Of this process.
        swapped_in_pages: Of the machine, null where it does not tell.
    """

    at_ns: int
    busy_ns: Optional[int]
    own_ns: int
    major_faults: int
    swapped_in_pages: Optional[int]

    @classmethod
    def read(cls, sensors: Sensors) -> Counters:
        """Now."""
        return cls(
            time.monotonic_ns(),
            sensors.busy_ns(),
            time.process_time_ns(),
            resource.getrusage(resource.RUSAGE_SELF).ru_majflt,
            _swapped_in_pages(),
        )

    def until(self, after: Counters) -> Dict[str, Any]:
        """The fields of `report.Block` that tell what happened between two readings."""
        others = None
        if self.busy_ns is not None and after.busy_ns is not None:
            others_ns = after.busy_ns - self.busy_ns - (after.own_ns - self.own_ns)
            others = max(0.0, others_ns / max(1, after.at_ns - self.at_ns))
        swapped = None
        if self.swapped_in_pages is not None and after.swapped_in_pages is not None:
            swapped = after.swapped_in_pages - self.swapped_in_pages
        return {
            "timed_from_ns": self.at_ns,
            "timed_to_ns": after.at_ns,
            "others_cores": others,
            "major_faults": after.major_faults - self.major_faults,
            "swapped_in_pages": swapped,
        }


def run_block(request: BlockRequest, announce: Announce) -> Dict[str, Any]:
    """Run one block in this process.

    Args:
        request: What to run.
        announce: Called with the name of each phase and its longest duration in seconds.
    Returns:
        The fields of `report.Block` from `artefact` to `rss_anon_bytes`, and `scores`: those of `report.Scores`, or
        null where they were not asked for.
    Raises:
        ModelError: the runtime cannot load or run the artefact, or it gives NaN.
        RecordError: the release has no such artefact, or other bytes.
        ImageError: a validation image is broken; the message names it.
    """
    announce("load", _LOAD_SECONDS)
    cv2.setNumThreads(request.threads)
    release = InstalledRelease(Path(request.folder), request.release_id)
    manifest, entry = release.manifest_entry(request.artefact)
    with Images.of_release(release, manifest, entry.input, request.limit) as images:
        chosen = _choose(len(images), request.seed)
        tensors = [to_tensor(images.pixels(index)[np.newaxis], entry.input) for index in chosen]
        model = Model(release.artefact(entry), request.threads, entry.variant)
        result = {**_describe(model, entry), **_time(model, entry, images, chosen, tensors, request, announce)}
        del tensors
        scores = None
        if request.with_scores:
            scores = run_accuracy_pass(model, release, entry, request.runtime, images, announce)
    return {**result, "scores": scores}


def _choose(count: int, seed: int) -> List[int]:
    return random.Random(seed).sample(range(count), min(_DISTINCT_IMAGES, count))  # noqa: S311 (not a secret)


def _describe(model: Model, entry: ManifestEntry) -> Dict[str, Any]:
    delegated, total = model.node_counts()
    return {
        "artefact": entry.sha256,
        "threads": model.threads,
        "cpus": sorted(os.sched_getaffinity(0)),
        "runtime": model.runtime.name,
        "runtime_version": model.runtime.version,
        "delegated_nodes": delegated,
        "total_nodes": total,
        "init_ns": model.init_ns,
    }


def _time(
    model: Model,
    entry: ManifestEntry,
    images: Images,
    chosen: Sequence[int],
    tensors: Sequence[np.ndarray],
    request: BlockRequest,
    announce: Announce,
) -> Dict[str, Any]:
    """First run, warm-up and the timed part."""

    def query(number: int) -> Tuple[int, ...]:
        index = chosen[number % len(chosen)]
        return timing.end_to_end_query(model, entry, images.file(index), images.selected[index].path)

    sensors = Sensors()
    first_ns = timing.time_invocation(model, tensors[0])
    announce("warm-up", max(1.0, request.min_seconds) + 10 * first_ns / 1e9)
    warmups: List[int] = []
    if request.end_to_end:
        # Untimed, so that code and files that it needs are in memory before the timed part.
        warmups.append(query(0)[timing.STAGES.index("invoke")])
    warmups += timing.warm_up(model, tensors, request.min_seconds)
    announce("timed", 2 * request.max_seconds + 10 * max(warmups) / 1e9)
    before = Counters.read(sensors)
    loop = timing.time_invocations(model, tensors, request.min_queries, request.min_seconds, request.max_seconds)
    end_to_end: List[int] = []
    stages: Dict[str, int] = {}
    if request.end_to_end:
        # No longer than the invocations alone, so that a block stays short.
        seconds = min(request.max_seconds, loop.loop_ns / 1e9)
        end_to_end, stages = timing.time_end_to_end(query, request.min_queries, seconds)
    after = Counters.read(sensors)
    return {
        "first_ns": first_ns,
        "warmup_count": len(warmups),
        "warmup_ns": sum(warmups),
        "latencies_ns": loop.latencies_ns,
        "end_to_end_ns": end_to_end,
        "stages_ns": stages,
        "loop_ns": loop.loop_ns,
        "invoke_cpu_ns": loop.invoke_cpu_ns,
        **before.until(after),
        **own_memory(),
    }


def _swapped_in_pages() -> Optional[int]:
    try:
        match = re.search(r"^pswpin (\d+)$", _VMSTAT.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(match.group(1)) if match else None
