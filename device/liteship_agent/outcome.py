"""What a finished job leaves: its report, and its result as lines of text.

Both are made from the journal, one block in memory at a time.
"""

from __future__ import annotations

import json
import statistics
from array import array
from pathlib import Path
from typing import Any, Dict, Iterator, List, Set, Tuple

from liteship_agent import journal
from liteship_agent.cpus import format_cpus
from liteship_agent.images import selected_images
from liteship_agent.job import Job
from liteship_agent.manifest import Manifest
from liteship_agent.records import atomic_file, to_json
from liteship_agent.report import VOID, Report
from liteship_agent.rounds import Progress
from liteship_agent.sensors import Sensors
from liteship_agent.system import environment
from liteship_agent.validity import void_rounds


def write_report(
    path: Path, manifest: Manifest, job: Job, journal_path: Path, progress: Progress, sensors: Sensors
) -> None:
    """Write the report of a job whose rounds are run: one line of ASCII, so that it can be sent as it is."""
    report = Report(
        schema_version=Report.SCHEMA_VERSION,
        job=job,
        target=job.target,
        manifest_sha256=manifest.sha256(),
        image_count=len(selected_images(manifest, job.limit)),
        blocks=(),
        canaries=tuple(progress.canaries),
        failed=tuple(progress.failed.values()),
        accuracy=(),
        environment=environment(),
        sensors=sensors.sources(),
        problems=progress.problems,
    )
    head = {key: value for key, value in to_json(report).items() if key not in ("blocks", "accuracy")}
    with atomic_file(path) as file:
        file.write(json.dumps(head, allow_nan=False)[:-1].encode())
        for name, parts in (
            ("blocks", _blocks(journal_path, void_openings(job, progress))),
            ("accuracy", _scores(journal_path)),
        ):
            file.write(f', "{name}": ['.encode())
            for index, part in enumerate(parts):
                file.write((b", " if index else b"") + json.dumps(part, allow_nan=False).encode())
            file.write(b"]")
        file.write(b"}\n")


def void_openings(job: Job, progress: Progress) -> Dict[Tuple[int, int], str]:
    """Reason by (round, opening) of those whose canary stood apart, repeated or not."""
    moved = void_rounds(progress.canaries, job.limits.canary_ratio)
    last = {(index, progress.opening(index)): reason for index, reason in moved.items()}
    return {**progress.void_openings, **last}


def log_lines(manifest: Manifest, job: Job, journal_path: Path, progress: Progress) -> Iterator[str]:
    """Images, ms/image and accuracy of every case, in the order of the job."""
    images = selected_images(manifest, job.limit)
    classes = len({image.label for image in images})
    latencies = _latencies(job, journal_path)
    correct = {
        (scores["artefact"], scores["runtime"]): sum(
            row.index(max(row)) == image.label for row, image in zip(scores["scores"], images)
        )
        for scores in _scores(journal_path)
    }
    for index, case in enumerate(job.cases):
        entry = manifest.entry(case.artefact)
        name = entry.variant if entry else "unknown"
        setting = f"threads {case.threads}, CPUs {format_cpus(case.cpus)}"
        yield f"{name} ({case.artefact[:12]}), {job.runtimes[case.runtime]}, {setting}"
        if index in progress.failed:
            yield f"Failed: {progress.failed[index].reason}"
            continue
        found = correct[case.artefact, case.runtime]
        yield f"Found {len(images)} images belonging to {classes} classes."
        yield f"Performance: {statistics.median(latencies[index]) / 1e6:.3f} ms/image"
        yield f"Accuracy: {100 * found / len(images):.2f} % ({found} of {len(images)})"


def _latencies(job: Job, journal_path: Path) -> List[array[int]]:
    """The latencies of the blocks that count, by case: of each round the last attempt."""
    attempts: Dict[Tuple[int, int], int] = {}
    for event in journal.read(journal_path):
        if event["event"] == "block":
            attempts[event["block"]["case_index"], event["block"]["round_index"]] = event["block"]["attempt"]
    latencies = [array("q") for _ in job.cases]
    for event in journal.read(journal_path):
        if event["event"] == "block":
            block = event["block"]
            if attempts[block["case_index"], block["round_index"]] == block["attempt"]:
                latencies[block["case_index"]].extend(block["latencies_ns"])
    return latencies


def _scores(journal_path: Path) -> Iterator[Dict[str, Any]]:
    """The scores of each artefact in each runtime as JSON, the first of each."""
    seen: Set[Tuple[str, str]] = set()
    for event in journal.read(journal_path):
        if event["event"] == "scores":
            scores = event["scores"]
            if (scores["artefact"], scores["runtime"]) not in seen:
                seen.add((scores["artefact"], scores["runtime"]))
                yield scores


def _blocks(journal_path: Path, void: Dict[Tuple[int, int], str]) -> Iterator[Dict[str, Any]]:
    """All blocks as JSON, those of a void round marked as such."""
    for event in journal.read(journal_path):
        if event["event"] == "block":
            block = event["block"]
            reason = void.get((block["round_index"], event["opening"]))
            if reason is not None:
                block.update(validity=VOID, reasons=[*block["reasons"], reason])
            yield block
