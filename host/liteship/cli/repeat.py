"""`liteship repeat`: the same job again, another time; do its ratios agree?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from liteship.bench import bench, mark_fetched, with_new_id
from liteship.built_in import LOOPBACK
from liteship.cli.common import check_options, open_connection, reporter, runtime_cache
from liteship.cli.measure import ForceOption
from liteship.cli.options import MODELS, JsonOption, StudyOption, TargetOption, print_json
from liteship.deploy import Deployment, deploy
from liteship.errors import ReportError
from liteship.manifests import read_manifest, study_folder
from liteship.plan import Planner, Settings, read_history
from liteship.report.agreement import agreement_json, build_agreement, render_agreement
from liteship.report.checks import check_report
from liteship.report.store import LATEST, find_report, read_report
from liteship_agent.images import selected_images
from liteship_agent.job import Job
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report


def repeat_command(
    target: TargetOption = LOOPBACK,
    study: StudyOption = None,
    job: Annotated[str | None, typer.Option("--job", help="Id of the job to repeat.  \\[default: the latest]")] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure once more what was measured before, and tell whether the ratios agree inside their intervals.

    The same files are run in the same way, on the same CPUs; the exit code is 0 whether they agree or not.
    """
    check_options(target, None)
    folder = study_folder(MODELS, study)
    manifest = read_manifest(folder)
    _, before = read_report(find_report(MODELS, job or LATEST, folder.name, target))
    if before.manifest_sha256 != manifest.sha256():
        raise _changed(before, f"manifest {before.manifest_sha256[:12]}", manifest.sha256()[:12])
    check_report(manifest, before, selected_images(manifest, before.job.limit))
    if not any(summary.case_index and summary.ratio is not None for summary in before.summaries):
        raise ReportError(
            f"A job with a ratio to repeat is required. Received: {before.job.job_id}, which timed nothing beside the "
            "baseline in the same rounds.",
            "Measure several artefacts, threads or runtimes: liteship bench.",
        )
    with open_connection(target) as connection:
        runtimes = tuple(before.job.runtimes.values())
        deployment = deploy(connection, folder, manifest, runtimes, runtime_cache(), reporter())
        if deployment.release != before.job.release_id:
            raise _changed(before, f"release {before.job.release_id}", deployment.release)
        again = with_new_id(replace(before.job, forced=before.job.forced or force))
        reporter().say(_plan(folder, manifest, deployment, again))
        mark_fetched(connection, deployment, before.job.job_id)  # else the target hands out that report again
        now = bench(connection, folder, manifest, deployment, again, reporter())
    if now.job.job_id == before.job.job_id:
        raise ReportError(
            f"Another run than job {before.job.job_id} is required. Received: the same one once more.",
            "The target could not be told that its report was fetched; run the same command again.",
        )
    found = build_agreement(manifest, before, now)
    if as_json:
        print_json({"target": target, "jobs": [before.job.job_id, now.job.job_id], **agreement_json(found)})
        return
    for line in render_agreement(found):
        typer.echo(line)


def _plan(folder: Path, manifest: Manifest, deployment: Deployment, job: Job) -> str:
    """What will be measured again, and about how long that takes."""
    threads, cpus = (tuple(dict.fromkeys(getattr(case, name) for case in job.cases)) for name in ("threads", "cpus"))
    image_count = len(selected_images(manifest, job.limit))
    history = read_history(folder.parent, job.target)
    return str(Planner(manifest, deployment, Settings(threads, cpus), job.cases, image_count, history).plan(job.tier))


def _changed(report: Report, required: str, received: str) -> ReportError:
    """Another release would compare two things at once."""
    return ReportError(
        f"{required}, which job {report.job.job_id} measured, is required. Received: {received}.",
        "The study, the runtimes or liteship itself have changed since: run liteship bench, then repeat that.",
    )
