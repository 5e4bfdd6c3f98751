"""Go on with the jobs that a reboot or a crash cut: what the agent's service does when it starts.

A job runs with the agent of its own release, in a process of its own: all blocks of a report come from the same agent,
whatever release is active now, and whoever stops the job does not stop the service.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Optional, Tuple

from liteship_agent import bench, preflight
from liteship_agent.errors import AgentError, LockedError, PreflightError, RecordError
from liteship_agent.job import Job
from liteship_agent.lock import lock_holder, wanted
from liteship_agent.records import read_record
from liteship_agent.release import AGENT, InstalledRelease
from liteship_agent.sensors import Sensors
from liteship_agent.watch import python_with

PATIENCE_SECONDS = 900.0
"""How long a machine may be busy after its boot: nobody waits for an answer."""

Say = Callable[[str], None]


def resume(
    folder: Path,
    say: Say,
    sensors: Optional[Sensors] = None,
    pause: Callable[[float], None] = time.sleep,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Go on with every job that was started and has neither its report nor was stopped, the oldest first.

    Args:
        folder: The liteship folder.
        say: Told what becomes of every job.
        sensors: Of this machine.
        pause: Sleeps for some seconds.
        patience_seconds: Longest wait for a machine that is busy or hot, where the job itself has no longer one.

    Raises:
        AgentError: one of them could not be finished now; another try may.
    """
    failed = 0
    fitness = _Fitness(folder, say, sensors or Sensors(), pause, patience_seconds)
    for path in sorted(path.parent for path in (folder / "jobs").glob("*/job.json")):
        if bench.is_unfinished(path):
            try:
                with bench.sound_disk(folder), wanted(folder):
                    say(f"job {path.name}: {_go_on(folder, path, say, fitness)}")
            except AgentError as exc:
                failed += 1
                say(f"job {path.name}: {exc}")
    if failed:
        raise AgentError(f"every unfinished job done is required. Received: {failed} not done")


@dataclass(frozen=True)
class _Fitness:
    """Waits until the machine is fit for a job; see `resume` for the fields."""

    folder: Path
    say: Say
    sensors: Sensors
    pause: Callable[[float], None]
    patience_seconds: float

    def wait(self, job: Job) -> Tuple[str, ...]:
        """The problems that a forced job ignores.

        Raises:
            PreflightError: some remain, and the job is not forced.
        """
        limits = replace(job.limits, quiet_seconds=max(job.limits.quiet_seconds, self.patience_seconds))
        problems = preflight.wait_until_fit(
            self.sensors, self.folder, limits, preflight.own_cpu_ns, self.pause, self.say, patient=not job.forced
        )
        if problems and not job.forced:
            raise PreflightError(f"a machine that is fit to measure on is required. Received: {'; '.join(problems)}")
        return problems


def _go_on(folder: Path, path: Path, say: Say, fitness: _Fitness) -> str:
    """Run the job of a folder to its end; what became of it.

    Raises:
        LockedError: another job holds the target.
        PreflightError: the machine is not fit to measure on, and the job is not forced.
        AgentError: it ended without a report.
    """
    try:
        job = read_record(Job, path / "job.json")
    except RecordError as exc:
        return f"left as it is: {exc}"
    archive = InstalledRelease(folder, job.release_id).path / AGENT
    if not archive.is_file():
        return f"left as it is: its release {job.release_id} is not here any more"
    holder = lock_holder(folder)
    if holder == job.job_id:
        return "runs already"
    problems = fitness.wait(job)
    _require_free(folder, job)
    if not bench.is_unfinished(path):
        return "ended elsewhere"
    say(f"job {job.job_id}: goes on")
    celsius = fitness.sensors.sample()["temperature_celsius"]
    bench.launch(folder, job, problems, celsius, python_with(archive)).wait()
    if bench.has_report(path):
        return "done"
    if bench.was_stopped(path):
        return "stopped"
    raise AgentError(f"it ended without a report: {bench.last_words(path / 'log.txt')}")


def _require_free(folder: Path, job: Job) -> None:
    """Raise LockedError while another holds the target, or a host was quicker to go on with this very job."""
    holder = lock_holder(folder)
    if holder is not None:
        raise LockedError(f"a free target is required for job {job.job_id}. Received: one that job {holder} holds")
