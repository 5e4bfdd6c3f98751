"""Measure the active release of a target: send a job, follow it, keep its report beside the study."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liteship.deploy import Deployment
from liteship.errors import LinkError
from liteship.progress import Advance, Reporter
from liteship.remote import Connection
from liteship_agent.job import TIERS, Job
from liteship_agent.manifest import Manifest
from liteship_agent.records import dumps, from_json, write_record
from liteship_agent.release import AGENT
from liteship_agent.report import Report


def bench(
    connection: Connection,
    study: Path,
    manifest: Manifest,
    deployment: Deployment,
    tier: str,
    threads: int,
    limit: int | None,
    say: Reporter,
) -> Report:
    """Run one job, or go on with the same one that was interrupted, and store its report.

    Args:
        connection: To the target.
        study: Folder of the study; the report goes to reports/<target>/.
        manifest: Of the study.
        deployment: What is active on the target.
        tier: "rapid", "quick" or "normal".
        threads: Interpreter threads.
        limit: Most validation images, None for all.
        say: Progress.

    Raises:
        LinkError: the link was lost, the target is in use, or the job failed; it can be gone on with.
    """
    job = Job(
        schema_version=Job.SCHEMA_VERSION,
        job_id="",
        target=connection.target.name,
        release_id=deployment.release,
        tier=TIERS[tier],
        threads=threads,
        runtime=deployment.runtime_folder,
        artefacts=deployment.artefacts,
        seed=manifest.entries[0].lineage.seed,
        limit=limit,
        # A block's process start and timing take a minute at most; the first also scores every image.
        block_timeout_seconds=900.0 + 10.0 * len(manifest.validation.images),
    )
    job = replace(job, job_id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{job.key()}")
    blocks = len(job.artefacts) * job.tier.rounds
    with say.task(f"measure on {job.target} ({tier})", blocks) as advance:
        follower = _Follower(manifest, job, say, advance)
        try:
            answer = connection.call(agent_command(connection, deployment, "bench"), [dumps(job)], on_event=follower)
        except KeyboardInterrupt:
            try:
                connection.call(agent_command(connection, deployment, "stop", "--job", follower.job.job_id))
                say.say(f"stopped after {follower.done} of {blocks} blocks; the same command goes on from there")
            except LinkError as exc:
                say.say(f"the job may still run on {job.target}: {exc}")
            raise
    report = from_json(Report, answer["report"], f"report of {job.target}")
    report = replace(report, extra={**report.extra, "refused": deployment.refused})
    write_record(report, report_path(study, report))
    return report


def agent_command(connection: Connection, deployment: Deployment, verb: str, *arguments: str) -> str:
    """Shell command for a verb of the active release's agent."""
    folder = deployment.folder
    words = ["-I", "-S", "-B", f"{folder}/releases/{deployment.release}/{AGENT}", verb, "--folder", folder, *arguments]
    return " ".join([connection.python, *(shlex.quote(word) for word in words)])


def report_path(study: Path, report: Report) -> Path:
    """Where a report is kept."""
    return study / "reports" / report.job.target / f"{report.job.job_id}.json"


class _Follower:
    """Shows the events of a job."""

    def __init__(self, manifest: Manifest, job: Job, say: Reporter, advance: Advance) -> None:
        self.manifest, self.job, self.say, self.advance = manifest, job, say, advance
        self.done = 0

    def __call__(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "started":
            started = from_json(Job, event["job"], "the target's answer")
            if started.job_id != self.job.job_id:
                self.say.say(f"going on with job {started.job_id}")
            self.job = started
        elif kind == "decode":
            self.say.say(f"decoding {event['images']} validation images on {self.job.target}")
        elif kind == "failed":
            entry = self.manifest.entry(event["artefact"])
            self.say.say(f"{entry.variant if entry else event['artefact']} failed: {event['reason']}")
            self.advance(self.job.tier.rounds - event["round_index"])
        elif kind == "block":
            self.done += 1
            self.advance(1)
        elif kind == "log":
            self.say.say(event["line"])
