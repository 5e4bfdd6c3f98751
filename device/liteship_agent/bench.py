"""A job from its request to its report: start it detached, follow it, stop it, run it.

A job that was interrupted goes on with the blocks that its journal does not have. The process that runs it is
detached from the login that started it; `follow` shows the journal to whoever asks, as often as asked.
"""

from __future__ import annotations

import fcntl
import os
import signal
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, Optional, TextIO

from liteship_agent import journal, preflight
from liteship_agent.cpus import resolve
from liteship_agent.errors import AgentError, LockedError, PreflightError, RecordError
from liteship_agent.job import Job
from liteship_agent.outcome import log_lines, write_report
from liteship_agent.records import parse_json, read_record, write_record
from liteship_agent.release import InstalledRelease
from liteship_agent.rounds import Rounds
from liteship_agent.sensors import Sensors
from liteship_agent.watch import python_with_agent

_JOURNAL, _REPORT = "journal.jsonl", "report.json"
_FETCHED = "fetched"
_POLL_SECONDS = 0.25
_STOP = "stop"
_HEARTBEAT_SECONDS = 15
_START_SECONDS = 30  # a slow board may need so long to start Python and take the lock
_LOCK_ATTEMPTS = 5


# --- the folder of a job ---


def job_folder(folder: Path, job_id: str) -> Path:
    """Where a job is kept."""
    return folder / "jobs" / job_id


def find_unfinished(folder: Path, key: str) -> Optional[Job]:
    """The latest job of the same request whose report no host has; jobs of another version are not looked at."""
    for path in sorted((folder / "jobs").glob("*/job.json"), reverse=True):
        try:
            job = read_record(Job, path)
        except RecordError:
            continue
        if job.key() == key and not (path.parent / _FETCHED).exists():
            return job
    return None


def mark_fetched(folder: Path, job_id: str) -> None:
    """Note that a host has the report of a job: the same request is a new job from now on."""
    path = job_folder(folder, job_id)
    if path.exists():
        (path / _FETCHED).touch()


def start(
    folder: Path,
    job: Job,
    say: Callable[[str], None],
    sensors: Optional[Sensors] = None,
    pause: Callable[[float], None] = time.sleep,
) -> Job:
    """Start a job detached, or go on with an unfinished one of the same request, or find it running.

    Args:
        folder: The liteship folder.
        job: The request.
        say: Told what is waited for.
        sensors: Of this machine.
        pause: Sleeps for some seconds.

    Returns:
        The job to follow: with its CPUs chosen, and with the unfinished one's id where there was one.
    Raises:
        LockedError: another job holds the target.
        PreflightError: the machine is not fit to measure on, and the job is not forced.
    """
    job = replace(job, cases=tuple(replace(case, cpus=resolve(case.cpus, case.threads)) for case in job.cases))
    unfinished = find_unfinished(folder, job.key())
    if unfinished is not None:
        job = replace(unfinished, forced=unfinished.forced or job.forced)
        if (job_folder(folder, job.job_id) / _REPORT).exists():
            return unfinished  # only the link was lost before the host had it
    holder = lock_holder(folder)
    if holder == job.job_id:
        return job
    if holder is not None:
        raise LockedError(f"a free target is required. Received: one that job {holder} holds")
    sensors = sensors or Sensors()
    problems = preflight.wait_until_fit(
        sensors, folder, job.limits, preflight.own_cpu_ns, pause, say, patient=not job.forced
    )
    if problems and not job.forced:
        raise PreflightError(f"a machine that is fit to measure on is required. Received: {'; '.join(problems)}")
    path = job_folder(folder, job.job_id)
    path.mkdir(parents=True, exist_ok=True)
    write_record(job, path / "job.json")
    (path / _STOP).unlink(missing_ok=True)
    celsius = sensors.sample()["temperature_celsius"]
    journal.append(path / _JOURNAL, {"event": "session", "problems": problems, "start_celsius": celsius})
    with open(path / "log.txt", "ab") as log:
        subprocess.Popen(
            [*python_with_agent(), "run-job", "--folder", str(folder), "--job", job.job_id],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    return job


def follow(folder: Path, job_id: str, emit: Callable[[Dict[str, Any]], None]) -> Any:
    """Emit every event of a job's journal, from its first, until its report is there.

    Returns:
        The report as a JSON object.
    Raises:
        AgentError: the job ended without a report; the message has the last line of its log.
    """
    path = job_folder(folder, job_id)
    tail = journal.Tail(path / _JOURNAL)
    seen = False
    started = spoken = time.monotonic()
    while True:
        # The lock is looked at before the report: a job that ends in between has written its report by then.
        holds = lock_holder(folder) == job_id
        seen = seen or holds
        alive = holds or (not seen and time.monotonic() - started < _START_SECONDS)
        finished = (path / _REPORT).exists()
        for event in tail.new_events():
            emit(_shown(event))
        if finished:
            return parse_json((path / _REPORT).read_bytes(), str(path / _REPORT))
        if time.monotonic() - spoken > _HEARTBEAT_SECONDS:
            spoken = time.monotonic()
            emit({"event": "alive"})
        if not alive:
            raise AgentError(f"job {job_id} ended without a report: {_last_words(path / 'log.txt')}")
        time.sleep(_POLL_SECONDS)


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "it was ended from outside"


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


def run_job(
    folder: Path, job_id: str, sensors: Optional[Sensors] = None, pause: Callable[[float], None] = time.sleep
) -> None:
    """Run what a job's journal does not have yet, then write its report.

    Raises:
        AgentError: it was stopped, or cannot go on; the message says why.
    """
    path = job_folder(folder, job_id)
    job = read_record(Job, path / "job.json")
    with _acquire_lock(folder, job_id):
        if (path / _STOP).exists():
            raise AgentError("stopped before it began")
        release = InstalledRelease(folder, job.release_id)
        manifest = release.manifest()
        for case in job.cases:
            if manifest.entry(case.artefact) is None:
                raise AgentError(f"an artefact of the manifest is required. Received: {case.artefact}")
        sensors = sensors or Sensors()
        rounds = Rounds(release, manifest, job, path / _JOURNAL, sensors, pause)
        try:
            rounds.run()
            for line in log_lines(manifest, job, path / _JOURNAL, rounds.progress):
                print(line, flush=True)
                rounds.record({"event": "log", "line": line})
            write_report(path / _REPORT, manifest, job, path / _JOURNAL, rounds.progress, sensors)
        except OSError as exc:
            raise AgentError(
                f"space and a sound disk under {path} are required. Received: {exc.strerror or exc}. "
                "What was measured is kept; the same command goes on from there"
            ) from exc
