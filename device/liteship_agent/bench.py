"""A job from its request to its report: start it detached, follow it, stop it, run it.

A job that was interrupted goes on with the blocks that its journal does not have. The process that runs it is
detached from the login that started it; `follow` shows the journal to whoever asks, as often as asked.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import statistics
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from liteship_agent import journal, preflight
from liteship_agent.cpus import resolve
from liteship_agent.errors import AgentError, LockedError, PreflightError, RecordError
from liteship_agent.job import Job
from liteship_agent.lock import STARTING, acquire_for_job, holder, lock_holder
from liteship_agent.outcome import log_lines, write_report
from liteship_agent.records import read_record, write_record
from liteship_agent.release import InstalledRelease
from liteship_agent.rounds import Rounds
from liteship_agent.sensors import Sensors
from liteship_agent.watch import python_with_agent

_JOURNAL, _REPORT = "journal.jsonl", "report.json"
_FETCHED = "fetched"
_POLL_SECONDS = 0.25
_STOP = "stop"
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)
_LOG_BYTES = 65536
_HEARTBEAT_SECONDS = 15
_START_SECONDS = 30  # a slow board may need so long to start Python and take the lock


# --- the folder of a job ---


def job_folder(folder: Path, job_id: str) -> Path:
    """Where a job is kept."""
    return folder / "jobs" / job_id


def find_unfinished(folder: Path, key: str) -> Optional[Job]:
    """The job of the same request whose report no host has; jobs of another version are not looked at.

    Of several it is the one that runs, else one that has its report, else the one that has measured most.
    """
    running = lock_holder(folder)
    found: Dict[Tuple[bool, bool, int, str], Job] = {}
    for path in (folder / "jobs").glob("*/job.json"):
        try:
            job = read_record(Job, path)
        except RecordError:
            continue
        if job.key() == key and not (path.parent / _FETCHED).exists():
            measured = path.with_name(_JOURNAL)
            size = measured.stat().st_size if measured.exists() else 0
            found[job.job_id == running, path.with_name(_REPORT).exists(), size, job.job_id] = job
    return found[max(found)] if found else None


def is_unfinished(path: Path) -> bool:
    """Whether the job of a folder was started and has neither its report nor was stopped."""
    return (path / _JOURNAL).exists() and not has_report(path) and not was_stopped(path)


def has_report(path: Path) -> bool:
    """Whether the job of a folder is done."""
    return (path / _REPORT).exists()


def was_stopped(path: Path) -> bool:
    """Whether its user ended the job of a folder."""
    return (path / _STOP).exists()


def mark_fetched(folder: Path, job_id: str) -> None:
    """Note that a host has the report of a job: the same request is a new job from now on."""
    path = job_folder(folder, job_id)
    if path.exists():
        (path / _FETCHED).touch()


def start(
    folder: Path,
    request: Job,
    started: Callable[[Job], None],
    say: Callable[[str], None],
    sensors: Optional[Sensors] = None,
    pause: Callable[[float], None] = time.sleep,
) -> Job:
    """Start a job detached, or go on with an unfinished one of the same request, or find it running.

    Args:
        folder: The liteship folder.
        request: The job, of which the CPUs may be left open.
        started: Told which job it is, before anything is waited for, so that it can be stopped from then on.
        say: Told what is waited for.
        sensors: Of this machine.
        pause: Sleeps for some seconds.

    Returns:
        The job to follow: with its CPUs chosen, and with the unfinished one's id where there was one.

    Raises:
        LockedError: another job holds the target.
        PreflightError: the machine is not fit to measure on, and the job is not forced.
        AgentError: it is no job, was stopped, or the disk is full or broken.
    """
    _require_content(request)
    cases = tuple(replace(case, cpus=resolve(case.cpus, case.threads)) for case in request.cases)
    with sound_disk(folder):
        job = _chosen(folder, replace(request, cases=cases))
        started(job)
        path = job_folder(folder, job.job_id)
        if (path / _REPORT).exists() or lock_holder(folder) == job.job_id:
            return job  # it runs, or only the link was lost before the host had the report
        (path / _STOP).unlink(missing_ok=True)
        sensors = sensors or Sensors()
        problems = preflight.wait_until_fit(
            sensors, folder, job.limits, preflight.own_cpu_ns, pause, say, patient=not job.forced
        )
        if problems and not job.forced:
            raise PreflightError(f"a machine that is fit to measure on is required. Received: {'; '.join(problems)}")
        if (path / _STOP).exists():
            raise AgentError("stopped before it began")
        # Another host may have begun in the meantime.
        latest = _chosen(folder, job)
        if lock_holder(folder) == latest.job_id:
            started(latest)
            return latest
        launch(folder, job, problems, sensors.sample()["temperature_celsius"], python_with_agent())
    return job


def _require_content(job: Job) -> None:
    """Raise AgentError for a job that measures nothing or names a runtime that it does not describe."""
    for required, is_met in (
        ("at least one case", bool(job.cases)),
        ("at least one round", job.tier.rounds >= 1),
        ("a limit of at least one image", job.limit is None or job.limit >= 1),
        ("the name of every runtime", all(case.runtime in job.runtimes for case in job.cases)),
    ):
        if not is_met:
            raise AgentError(f"the job on stdin: {required} is required. Received: none")


def _chosen(folder: Path, job: Job) -> Job:
    """The unfinished job of the same request, else this one.

    Raises:
        LockedError: another job holds the target.
    """
    unfinished = find_unfinished(folder, job.key())
    if unfinished is not None:
        job = replace(unfinished, forced=unfinished.forced or job.forced)
    other = holder(folder)
    if other is not None and other.name != job.job_id:
        raise LockedError(f"a free target is required. Received: one that {other.describe()} holds")
    return job


def launch(
    folder: Path, job: Job, problems: Tuple[str, ...], celsius: Optional[float], agent: List[str]
) -> subprocess.Popen[bytes]:
    """Run a job in a process of its own, detached from the login.

    Args:
        folder: The liteship folder.
        job: What to run.
        problems: What the preflight found and was overridden.
        celsius: Temperature of the processor now, null where it has no sensor.
        agent: The command that runs an agent.
    """
    path = job_folder(folder, job.job_id)
    path.mkdir(parents=True, exist_ok=True)
    write_record(job, path / "job.json")
    journal.append(path / _JOURNAL, {"event": "session", "problems": problems, "start_celsius": celsius})
    with open(path / "log.txt", "wb") as log:
        return subprocess.Popen(
            [*agent, "run-job", "--folder", str(folder), "--job", job.job_id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )


@contextmanager
def sound_disk(folder: Path) -> Iterator[None]:
    """One clear line where the disk is full, read-only or broken."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _DISK_ERRORS:
            raise
        raise AgentError(
            f"space and a sound disk under {folder} are required. Received: {exc.strerror}. "
            "What was measured is kept; the same command goes on from there"
        ) from exc


def follow(folder: Path, job_id: str, emit: Callable[[Dict[str, Any]], None]) -> Path:
    """Emit every event of a job's journal, from its first, until its report is there.

    Returns:
        The file of the report.

    Raises:
        LockedError: another job was quicker to take the target.
        AgentError: the job ended without a report; the message has the last line of its log.
    """
    path = job_folder(folder, job_id)
    tail = journal.Tail(path / _JOURNAL)
    seen = False
    started = spoken = time.monotonic()
    while True:
        # The lock is looked at before the report: a job that ends in between has written its report by then.
        other = holder(folder)
        holds = other is not None and other.name == job_id
        seen = seen or holds
        alive = holds or (not seen and time.monotonic() - started < _START_SECONDS)
        finished = (path / _REPORT).exists()
        for event in tail.new_events():
            emit(_shown(event))
        if finished:
            return path / _REPORT
        # A camera gives the target up when the job's process asks it to.
        if other is not None and not (holds or other.is_camera or other.name == STARTING):
            raise LockedError(f"a free target is required. Received: one that {other.describe()} holds")
        if time.monotonic() - spoken > _HEARTBEAT_SECONDS:
            spoken = time.monotonic()
            emit({"event": "alive"})
        if not alive:
            raise AgentError(f"job {job_id} ended without a report: {last_words(path / 'log.txt')}")
        time.sleep(_POLL_SECONDS)


def last_words(log: Path) -> str:
    """Why a job ended, as the last line of its log says."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    if lines:
        return lines[-1]
    is_full = shutil.disk_usage(log.parent).free < _LOG_BYTES
    return f"no space is left under {log.parent}" if is_full else "it was ended from outside"


def _shown(event: Dict[str, Any]) -> Dict[str, Any]:
    """An event without what only the report needs: raw latencies, scores, samples."""
    kind = event["event"]
    if kind == "block":
        block = event["block"]
        fields = ("case_index", "round_index", "attempt", "validity", "reasons")
        celsius = block["samples"][-1]["temperature_celsius"] if block["samples"] else None
        return {
            "event": kind,
            **{name: block[name] for name in fields},
            "median_ns": statistics.median(block["latencies_ns"]),
            "temperature_celsius": celsius,
        }
    if kind == "scores":
        return {"event": kind, "artefact": event["scores"]["artefact"]}
    if kind in ("canary", "failed"):
        return {"event": kind, **event["canary" if kind == "canary" else "failure"]}
    return event


def stop(folder: Path, job_id: str) -> None:
    """End a job and its worker, or keep it from starting; what is journaled stays."""
    path = job_folder(folder, job_id)
    path.mkdir(parents=True, exist_ok=True)
    (path / _STOP).touch()
    if lock_holder(folder) != job_id:
        return
    with contextlib.suppress(ProcessLookupError, IndexError, ValueError):  # it ends at this moment
        os.killpg(int((folder / "lock").read_text().split()[0]), signal.SIGTERM)


# --- running ---


def run_job(
    folder: Path, job_id: str, sensors: Optional[Sensors] = None, pause: Callable[[float], None] = time.sleep
) -> None:
    """Run what a job's journal does not have yet, then write its report.

    Raises:
        AgentError: it was stopped, or cannot go on; the message says why.
    """
    path = job_folder(folder, job_id)
    job = read_record(Job, path / "job.json")
    with sound_disk(folder), acquire_for_job(folder, job_id):
        if (path / _STOP).exists():
            raise AgentError("stopped before it began")
        release = InstalledRelease(folder, job.release_id)
        manifest = release.manifest()
        for case in job.cases:
            if manifest.entry(case.artefact) is None:
                raise AgentError(f"an artefact of the manifest is required. Received: {case.artefact}")
        sensors = sensors or Sensors()
        rounds = Rounds(release, manifest, job, path / _JOURNAL, sensors, pause)
        rounds.run()
        for line in log_lines(manifest, job, path / _JOURNAL, rounds.progress):
            print(line, flush=True)
            rounds.record({"event": "log", "line": line})
        write_report(path / _REPORT, manifest, job, path / _JOURNAL, rounds.progress, sensors)
