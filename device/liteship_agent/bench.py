"""Run a job: decode once, then round by round, a worker process per block, everything journaled.

A job that was interrupted goes on with the blocks that its journal does not have. The process that runs it is
detached from the login that started it; `follow` shows the journal to whoever asks, as often as asked.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, TextIO, Tuple

import liteship_agent
from liteship_agent import journal
from liteship_agent.errors import AgentError, LockedError, RecordError
from liteship_agent.images import pixels_path, selected_images
from liteship_agent.job import Job
from liteship_agent.manifest import Manifest, ManifestEntry
from liteship_agent.records import from_json, read_record, to_json, write_record
from liteship_agent.release import InstalledRelease
from liteship_agent.report import Block, FailedBlock, Report, Scores
from liteship_agent.schedule import block_order, queries_per_block
from liteship_agent.system import environment

_POLL_SECONDS = 0.25
_STOP = "stop"
_HEARTBEAT_SECONDS = 15
_START_SECONDS = 30  # a slow board may need so long to start Python and take the lock
_LOCK_ATTEMPTS = 5


def agent_command(runtime: Path, *arguments: str) -> List[str]:
    """Command line of another process of this agent, with a runtime's site folder on its path."""
    return [*_python_with_agent(), "--runtime", str(runtime), *arguments]


def _python_with_agent() -> List[str]:
    """An isolated interpreter that runs this agent: the archive of a release, or the installed package."""
    isolated = [sys.executable, "-I", "-S", "-B"]
    place = Path(liteship_agent.__file__).parents[1]
    if place.is_file():
        return [*isolated, str(place)]
    program = f"import runpy, sys; sys.path.insert(0, {str(place)!r}); runpy.run_module('liteship_agent')"
    return [*isolated, "-c", program]


# --- the folder of a job ---


def job_folder(folder: Path, job_id: str) -> Path:
    """Where a job is kept."""
    return folder / "jobs" / job_id


def find_unfinished(folder: Path, key: str) -> Optional[Job]:
    """The latest job without a report whose request is the same; jobs of another version are not looked at."""
    for path in sorted((folder / "jobs").glob("*/job.json"), reverse=True):
        try:
            job = read_record(Job, path)
        except RecordError:
            continue
        if job.key() == key and not (path.parent / "report.json").exists():
            return job
    return None


def start(folder: Path, job: Job) -> Job:
    """Start a job detached, or go on with an unfinished one of the same request.

    Returns:
        The job that runs now; its id is the unfinished one's where there was one.
    Raises:
        LockedError: another job holds the target.
    """
    unfinished = find_unfinished(folder, job.key())
    if unfinished is not None:
        job = unfinished
    holder = lock_holder(folder)
    if holder == job.job_id:
        return job
    if holder is not None:
        raise LockedError(f"a free target is required. Received: one that job {holder} holds")
    path = job_folder(folder, job.job_id)
    path.mkdir(parents=True, exist_ok=True)
    write_record(job, path / "job.json")
    (path / _STOP).unlink(missing_ok=True)
    with open(path / "log.txt", "ab") as log:
        subprocess.Popen(
            [*_python_with_agent(), "run-job", "--folder", str(folder), "--job", job.job_id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    return job


def follow(folder: Path, job_id: str, emit: Callable[[Dict[str, Any]], None]) -> Report:
    """Emit every event of a job's journal, from its first, until its report is there.

    Raises:
        AgentError: the job ended without a report; the message has the last line of its log.
    """
    path = job_folder(folder, job_id)
    shown = 0
    seen = False
    started = spoken = time.monotonic()
    while True:
        # The lock is looked at before the report: a job that ends in between has written its report by then.
        holds = lock_holder(folder) == job_id
        seen = seen or holds
        alive = holds or (not seen and time.monotonic() - started < _START_SECONDS)
        finished = (path / "report.json").exists()
        events = journal.read(path / "journal.jsonl")
        for event in events[shown:]:
            emit(_summary(event))
        shown = len(events)
        if finished:
            return read_record(Report, path / "report.json")
        if time.monotonic() - spoken > _HEARTBEAT_SECONDS:
            spoken = time.monotonic()
            emit({"event": "alive"})
        if not alive:
            lines = (path / "log.txt").read_text(errors="replace").strip().splitlines() or ["no output"]
            raise AgentError(f"job {job_id} ended without a report: {lines[-1]}")
        time.sleep(_POLL_SECONDS)


def _summary(event: Dict[str, Any]) -> Dict[str, Any]:
    """An event without what only the report needs: scores, and raw latencies beyond their median."""
    short = {key: value for key, value in event.items() if key not in ("scores", "latencies_ns", "end_to_end_ns")}
    if "latencies_ns" in event:
        short["median_ns"] = statistics.median(event["latencies_ns"])
    return short


def stop(folder: Path, job_id: str) -> None:
    """End a job and its worker, or keep it from starting; what is journaled stays."""
    path = job_folder(folder, job_id)
    if path.exists():
        (path / _STOP).touch()
    if lock_holder(folder) != job_id:
        return
    pid = int((folder / "lock").read_text().split()[0])
    os.killpg(pid, signal.SIGTERM)


# --- the lock of the target ---


def lock_holder(folder: Path) -> Optional[str]:
    """Id of the job that holds the target now, or None."""
    try:
        with open(folder / "lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                fields = file.read().split()
                return fields[1] if len(fields) == 2 else "starting"
    except FileNotFoundError:
        pass
    return None


def _acquire_lock(folder: Path, job_id: str) -> TextIO:
    """Hold the target until the returned file is closed, which the kernel does when the process ends."""
    file = open(folder / "lock", "a+")  # noqa: SIM115 (open as long as the job runs)
    # `lock_holder` holds the lock for an instant when it looks, which must not refuse a job.
    if not any(_try_lock(file) for _ in range(_LOCK_ATTEMPTS)):
        file.close()
        raise LockedError("a free target is required. Received: one that another job holds")
    file.truncate(0)
    file.write(f"{os.getpid()} {job_id}\n")
    file.flush()
    return file


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_POLL_SECONDS / 5)
        return False
    return True


# --- running ---


def run_job(folder: Path, job_id: str) -> None:
    """Run what a job's journal does not have yet, then write its report."""
    path = job_folder(folder, job_id)
    job = read_record(Job, path / "job.json")
    with _acquire_lock(folder, job_id):
        if (path / _STOP).exists():
            raise AgentError("stopped before it began")
        release = InstalledRelease(folder, job.release_id)
        manifest = release.manifest()
        record = _Recorder(path / "journal.jsonl")
        _decode_images(release, manifest, job, record)
        _run_rounds(release, manifest, job, record)
        report = _build_report(manifest, job, record.events)
        for line in _log_lines(manifest, report):
            print(line, flush=True)
            record({"event": "log", "line": line})
        write_record(report, path / "report.json")


class _Recorder:
    """The events of a job: those of its journal, and those that are added, which go to the disk at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = journal.read(path)

    def __call__(self, event: Dict[str, Any]) -> None:
        journal.append(self.path, event)
        self.events.append(event)


def _decode_images(release: InstalledRelease, manifest: Manifest, job: Job, record: _Recorder) -> None:
    for entry in _entries(manifest, job):
        if pixels_path(release.folder, manifest, entry.input, job.limit).exists():
            continue
        total = len(selected_images(manifest, job.limit))
        record({"event": "decode", "images": total})
        command = agent_command(release.runtime(job.runtime), "decode")
        request = {"folder": str(release.folder), "job": to_json(job), "artefact": entry.sha256}
        ended = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, check=False)
        if ended.returncode:
            raise AgentError(f"decoding the validation images failed: {_reason(ended.returncode, ended.stderr)}")


def _entries(manifest: Manifest, job: Job) -> Iterator[ManifestEntry]:
    for sha256 in job.artefacts:
        entry = manifest.entry(sha256)
        if entry is None:
            raise AgentError(f"an artefact of the manifest is required. Received: {sha256}")
        yield entry


def _run_rounds(release: InstalledRelease, manifest: Manifest, job: Job, record: _Recorder) -> None:
    done, broken, scored = _progress(record.events)
    rounds = block_order(job.artefacts, job.tier.rounds, job.seed)
    for round_index, artefacts in enumerate(rounds):
        for order, sha256 in enumerate(artefacts):
            if sha256 in broken or (round_index, sha256) in done:
                continue
            result = _run_block(release, job, sha256, round_index, with_scores=sha256 not in scored)
            if "reason" in result:
                broken.add(sha256)
                failure = FailedBlock(sha256, round_index, result["reason"])
                record({"event": "failed", **to_json(failure)})
                continue
            if "scores" in result:
                scored.add(sha256)
                record({"event": "scores", "artefact": sha256, "scores": result.pop("scores")})
            record({"event": "block", "round_index": round_index, "order": order, **result})


def _progress(events: List[Dict[str, Any]]) -> Tuple[Set[Tuple[int, str]], Set[str], Set[str]]:
    """Blocks that are done, artefacts that failed, artefacts that have scores."""
    done = {(event["round_index"], event["artefact"]) for event in events if event["event"] == "block"}
    broken = {event["artefact"] for event in events if event["event"] == "failed"}
    scored = {event["artefact"] for event in events if event["event"] == "scores"}
    return done, broken, scored


def _run_block(release: InstalledRelease, job: Job, sha256: str, round_index: int, with_scores: bool) -> Dict[str, Any]:
    """The worker's result, or `{"reason": ...}` where it gave none."""
    request = {
        "folder": str(release.folder),
        "release_id": release.release_id,
        "artefact": sha256,
        "threads": job.threads,
        "min_queries": queries_per_block(job.tier),
        "min_seconds": job.tier.min_seconds / job.tier.rounds,
        "max_seconds": job.tier.max_seconds / job.tier.rounds,
        "seed": job.seed + round_index,
        "limit": job.limit,
        "with_scores": with_scores,
    }
    try:
        ended = subprocess.run(
            agent_command(release.runtime(job.runtime), "worker"),
            input=json.dumps(request).encode(),
            capture_output=True,
            check=False,
            timeout=job.block_timeout_seconds,
        )
    except subprocess.TimeoutExpired:
        return {"reason": f"no result after {job.block_timeout_seconds:.0f} s"}
    if ended.returncode:
        return {"reason": _reason(ended.returncode, ended.stderr)}
    try:
        result: Dict[str, Any] = json.loads(ended.stdout)
    except ValueError:
        return {"reason": "the worker answered with something else than a result"}
    return result


def _reason(returncode: int, stderr: bytes) -> str:
    if returncode < 0:
        return f"the process was ended by {signal.Signals(-returncode).name}"
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit code {returncode}"


def _build_report(manifest: Manifest, job: Job, events: List[Dict[str, Any]]) -> Report:
    def records(kind: str, cls: Any) -> Tuple[Any, ...]:
        found = [{**event} for event in events if event["event"] == kind]
        for event in found:
            del event["event"]
        return tuple(from_json(cls, event, "journal.jsonl") for event in found)

    blocks = sorted(records("block", Block), key=lambda block: (block.round_index, block.order))
    return Report(
        schema_version=Report.SCHEMA_VERSION,
        job=job,
        target=job.target,
        manifest_sha256=manifest.sha256(),
        image_count=len(selected_images(manifest, job.limit)),
        blocks=tuple(blocks),
        failed=records("failed", FailedBlock),
        accuracy=records("scores", Scores),
        environment=environment(),
    )


def _log_lines(manifest: Manifest, report: Report) -> Iterator[str]:
    """Images, ms/image and accuracy of every artefact, in the order of the job."""
    images = selected_images(manifest, report.job.limit)
    classes = len({image.label for image in images})
    scores = {scores.artefact: scores.scores for scores in report.accuracy}
    for entry in _entries(manifest, report.job):
        yield f"{entry.variant} ({entry.sha256[:12]})"
        failure = next((failed.reason for failed in report.failed if failed.artefact == entry.sha256), None)
        if failure is not None:
            yield f"Failed: {failure}"
            continue
        latencies = [ns for block in report.blocks if block.artefact == entry.sha256 for ns in block.latencies_ns]
        answers = [row.index(max(row)) for row in scores[entry.sha256]]
        correct = sum(answer == image.label for answer, image in zip(answers, images))
        yield f"Found {len(images)} images belonging to {classes} classes."
        yield f"Performance: {statistics.median(latencies) / 1e6:.3f} ms/image"
        yield f"Accuracy: {100 * correct / len(images):.2f} % ({correct} of {len(images)})"
