"""Measure the active release of a target: send a job, follow it, keep its report beside the study.

job -> events, shown as they come -> report -> intervals -> flips and their causes. The report is on the disk before the
causes of flips are looked for, which takes the link once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liteship.bench.follow import Follower
from liteship.bench.live import LiveTable
from liteship.built_in import EMULATED, LOOPBACK
from liteship.deploy import Deployment, agent_command
from liteship.errors import LinkError
from liteship.flips import ask_target, explain_flips, find_flips, find_other_pixels
from liteship.manifests import keep_manifest
from liteship.predictions import Predictions, read_predictions
from liteship.progress import Reporter
from liteship.remote import Connection, RemoteError
from liteship.report.accuracy import HOST
from liteship.report.summary import summarize
from liteship.targets import Target
from liteship_agent.job import Case, Job, Limits, Tier
from liteship_agent.manifest import Manifest
from liteship_agent.records import dumps, from_json, write_record
from liteship_agent.report import Refused, Report

_LIMITS = {
    LOOPBACK: Limits(canary_ratio=0.20, clock_drop_ratio=0.20),
    EMULATED: Limits(canary_ratio=0.50, others_cores=2.0, repeats=0, stall_seconds=600.0),
}
"""Of what is no board. A computer that its user works with changes its clock all the time: looser than for a board.
The latency of an emulated machine follows whatever else this computer does: no repetition would make it hold, so that
what is disturbed is marked at once, and its first start of a runtime may take minutes."""

_STOP_SECONDS = 20.0
"""Whoever interrupts waits no longer for a silent target; its job may go on, and the same command joins it."""


def make_job(
    target: Target,
    manifest: Manifest,
    deployment: Deployment,
    cases: Sequence[Case],
    tier: Tier,
    limit: int | None = None,
    forced: bool = False,
) -> Job:
    """The request for a job.

    Args:
        target: With the canary ratio of the inventory; without one it is 0.05, on this computer 0.20, on an
            emulated one 0.50.
        manifest: Of the study; its seed orders the blocks.
        deployment: What is active on the target.
        cases: In the order of the table, the baseline first.
        tier: How long each is timed.
        limit: Most validation images, None for all.
        forced: Measure although the machine is not fit; every row is marked.
    """
    limits = _LIMITS.get(target.name, Limits())
    if target.canary_ratio is not None:
        limits = replace(limits, canary_ratio=target.canary_ratio)
    job = Job(
        schema_version=Job.SCHEMA_VERSION,
        job_id="",
        target=target.name,
        release_id=deployment.release,
        tier=tier,
        cases=tuple(cases),
        runtimes=deployment.runtimes,
        limits=limits,
        seed=manifest.entries[0].lineage.seed,
        limit=limit,
        forced=forced,
    )
    return with_new_id(job)


def with_new_id(job: Job) -> Job:
    """The same request at another time."""
    return replace(job, job_id=f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{job.key()}")


def bench(
    connection: Connection, study: Path, manifest: Manifest, deployment: Deployment, job: Job, say: Reporter
) -> Report:
    """Run one job, go on with the same one that was interrupted, or follow it where it runs; keep its report.

    Args:
        connection: To the target.
        study: Folder of the study; the report goes to reports/<target>/.
        manifest: Of the study.
        deployment: What is active on the target.
        job: What to measure.
        say: Progress.

    Raises:
        DataError: the host's predictions are missing in the study, or are not of its images.
        LinkError: the link was lost, the target is in use or not fit to measure on, or the job failed; it can be gone
            on with.
    """
    shape = (len(manifest.validation.images), len(manifest.labels))
    predictions = {sha256: read_predictions(study, sha256, shape) for sha256 in deployment.artefacts}
    answer = _follow(connection, manifest, deployment, job, say)
    report = from_json(Report, answer["report"], f"report of {job.target}")
    report = _completed(report, manifest, deployment, predictions)
    keep_manifest(study, manifest)
    path = report_path(study, report)
    write_record(report, path)
    mark_fetched(connection, deployment, report.job.job_id)
    report = _with_causes(connection, study, manifest, deployment, report, predictions, say)
    write_record(report, path)
    return report


def mark_fetched(connection: Connection, deployment: Deployment, job_id: str) -> None:
    """Tell the target that the report is here; if the link is lost first, the same command fetches it once more."""
    words = ("fetched", "--folder", deployment.folder, "--job", job_id)
    with contextlib.suppress(LinkError):
        connection.call(agent_command(connection, deployment, *words))


def report_path(study: Path, report: Report) -> Path:
    """Where a report is kept."""
    return study / "reports" / report.job.target / f"{report.job.job_id}.json"


def _follow(
    connection: Connection, manifest: Manifest, deployment: Deployment, job: Job, say: Reporter
) -> dict[str, Any]:
    """Start the job and show its events until it is done; Ctrl-C stops it there too."""
    blocks = len(job.cases) * job.tier.rounds
    words = ("bench", "--folder", deployment.folder)
    table = LiveTable(is_board=job.target != EMULATED)
    with say.task(f"measure on {job.target} ({job.tier.name})", blocks) as advance, say.above(table) as is_seen:
        follower = Follower(manifest, job, say, advance, table if is_seen else None)
        try:
            return connection.call(agent_command(connection, deployment, *words), [dumps(job)], on_event=follower)
        except RemoteError as exc:
            raise _with_hint(exc) from exc
        except KeyboardInterrupt:
            stop = ("stop", "--folder", deployment.folder, "--job", follower.job.job_id)
            try:
                connection.call(agent_command(connection, deployment, *stop), idle_seconds=_STOP_SECONDS)
                done = f"{len(follower.done)} of {blocks} blocks"
                say.say(f"stopped after {done}; the same command goes on from there")
            except LinkError as exc:
                say.say(f"the job may still run on {job.target}: {exc}")
            raise


def _with_hint(error: RemoteError) -> RemoteError:
    """What to do where a job was not let in."""
    hints = {
        "preflight": "Wait until that is over, or measure in spite of it with --force, which marks every row.",
        "locked": "Wait until it is done; the command that started it shows how far it is.",
    }
    return RemoteError(error.message, error.hint or hints.get(error.kind, ""), error.kind)


def _completed(
    report: Report, manifest: Manifest, deployment: Deployment, predictions: Mapping[str, Predictions]
) -> Report:
    """A report with what the host adds: what was refused, intervals, flips, and how many images look otherwise."""
    refused = [
        Refused(sha256, runtime, reason)
        for runtime, reasons in deployment.refused.items()
        for sha256, reason in reasons.items()
    ]
    other = find_other_pixels(manifest, report, predictions)
    pixels = {"compared": report.image_count, "different": len(other), "largest_difference": None if other else 0}
    return replace(
        report,
        refused=tuple(refused),
        summaries=summarize(report),
        flips=find_flips(manifest, report, predictions),
        extra={**report.extra, "pixels": pixels},
    )


def _with_causes(
    connection: Connection,
    study: Path,
    manifest: Manifest,
    deployment: Deployment,
    report: Report,
    predictions: Mapping[str, Predictions],
    say: Reporter,
) -> Report:
    """A report whose flips against the host have their causes, as far as they were found."""
    with say.task(f"explain flips on {report.target}", None):
        ask = ask_target(connection, deployment, report)
        found = explain_flips(manifest, report, predictions, study, ask)
    unexplained = sum(flip.against == HOST and flip.cause is None for flip in found.flips)
    if found.interruption is not None:
        say.say(f"the report is kept; the causes of {unexplained} flips were not found: {found.interruption}")
    pixels = {**report.extra["pixels"], "largest_difference": found.largest_difference}
    return replace(report, flips=found.flips, extra={**report.extra, "pixels": pixels})
