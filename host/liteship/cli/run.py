"""`liteship run|deploy|bench|report`: from a recipe to the comparison table, in one command or step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from liteship.bench import bench
from liteship.cli.common import (
    DEMO_RECIPE,
    MODELS,
    JsonOption,
    LimitOption,
    RuntimeOption,
    StudyOption,
    TargetOption,
    ThreadsOption,
    TierOption,
    build,
    check_options,
    open_connection,
    print_json,
    reporter,
    runtime_cache,
)
from liteship.deploy import Deployment, deploy
from liteship.errors import LiteshipError, UsageError
from liteship.manifests import read_manifest, study_folder
from liteship.recipe import load_recipe
from liteship.remote import Connection
from liteship.report.rows import build_header, build_rows
from liteship.report.store import load_report
from liteship.report.table import render_csv, render_json, render_markdown, render_terminal
from liteship.targets import LOOPBACK
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report

FormatOption = Annotated[str, typer.Option("--format", help="terminal, markdown, csv or json.", show_default=True)]


def run_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe under benchmarks/.")] = DEMO_RECIPE,
    target: TargetOption = LOOPBACK,
    data: Annotated[
        str | None, typer.Option("--data", envvar="LITESHIP_DATA", help="Folder of images, instead of the recipe's.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", envvar="LITESHIP_WEIGHTS", help="none, imagenet or a file, instead of the recipe's."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", min=1, help="Instead of the recipe's, in every phase; the head gets no more."),
    ] = None,
    limit: LimitOption = None,
    runtime: RuntimeOption = None,
    tier: TierOption = None,
    threads: ThreadsOption = None,
    for_runtime: Annotated[
        str | None,
        typer.Option("--for-runtime", help="Make files that NAME==VERSION loads, or say which cannot be made."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0,
            max=1,
            help="Stop pruning harder where accuracy falls by more than this (0.05: 5 points).",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, help="Trainings beside each other.  \\[default: as cores and memory allow]"),
    ] = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out images that cannot be decoded.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train, compress, deploy, measure, and print the comparison table: the whole way of a recipe.

    Steps that are done already are not done again; after an interruption the same command goes on.
    """
    check_options(target, runtime, tier)
    settings = load_recipe(recipe).with_overrides(data=data, weights=weights, epochs=epochs, tier=tier)
    settings = settings.with_overrides(runtime=_known_runtime(for_runtime or settings.convert.runtime))
    manifest = build(settings, limit, skip_corrupt, jobs, max_drop)
    report = _measure(MODELS / settings.name, manifest, target, runtime, tier, threads, None)
    _print_report(manifest, report, "json" if as_json else "terminal")


def deploy_command(
    target: TargetOption = LOOPBACK,
    study: StudyOption = None,
    runtime: RuntimeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a study the active release of a target: only what it lacks is sent, verified there, and switched to."""
    check_options(target, runtime)
    folder, manifest = _open_study(study)
    with open_connection(target) as connection:
        deployment = _deploy(connection, folder, manifest, runtime)
    if as_json:
        print_json(deployment.to_json())
        return
    verb = "is active now" if deployment.activated else "was active already"
    typer.echo(
        f"{deployment.target}: release {deployment.release} {verb}; sent {deployment.blobs_sent} blobs, "
        f"{deployment.bytes_sent / 2**20:.2f} MiB ({deployment.bytes_sent} bytes); {deployment.runtime}"
    )


def bench_command(
    target: TargetOption = LOOPBACK,
    study: StudyOption = None,
    runtime: RuntimeOption = None,
    tier: TierOption = None,
    threads: ThreadsOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a study on a target and print the comparison table; what is not deployed yet is deployed first."""
    check_options(target, runtime, tier)
    folder, manifest = _open_study(study)
    report = _measure(folder, manifest, target, runtime, tier, threads, limit)
    _print_report(manifest, report, "json" if as_json else "terminal")


def report_command(
    target: TargetOption = LOOPBACK,
    study: StudyOption = None,
    job: Annotated[str | None, typer.Option("--job", help="Id of the job.  \\[default: the latest]")] = None,
    form: FormatOption = "terminal",
    as_json: JsonOption = False,
) -> None:
    """Print the comparison table of a measurement again."""
    folder = study_folder(MODELS, study)
    manifest = read_manifest(folder)
    if not (folder / "reports" / target).is_dir():
        check_options(target, None)
    _print_report(manifest, load_report(folder, target, job), "json" if as_json else form)


def _known_runtime(name: str | None) -> str | None:
    from liteship.flatbuffer import known_runtime

    return None if name is None else known_runtime(name)


def _open_study(name: str | None) -> tuple[Path, Manifest]:
    """A study and its manifest; without any study the demo is made first."""
    try:
        folder = study_folder(MODELS, name)
    except LiteshipError:
        if name is not None or not DEMO_RECIPE.exists():
            raise
        reporter().say(f"no study under {MODELS}/ yet: running {DEMO_RECIPE} first")
        build(load_recipe(DEMO_RECIPE))
        folder = study_folder(MODELS, None)
    return folder, read_manifest(folder)


def _deploy(connection: Connection, folder: Path, manifest: Manifest, runtime: str | None) -> Deployment:
    return deploy(connection, folder, manifest, runtime or connection.target.runtime, runtime_cache(), reporter())


def _measure(
    folder: Path,
    manifest: Manifest,
    target: str,
    runtime: str | None,
    tier: str | None,
    threads: int | None,
    limit: int | None,
) -> Report:
    settings = load_recipe(folder / "recipe.toml").bench
    tier, threads = tier or settings.tier, threads or settings.threads
    with open_connection(target) as connection:
        deployment = _deploy(connection, folder, manifest, runtime)
        return bench(
            connection, folder, manifest, deployment, tier, threads or connection.target.threads[0], limit, reporter()
        )


def _print_report(manifest: Manifest, report: Report, form: str) -> None:
    rows, header = build_rows(manifest, report), build_header(manifest, report)
    if form == "terminal":
        render_terminal(rows, header, Console())
        return
    renderers = {"markdown": render_markdown, "csv": render_csv, "json": render_json}
    if form not in renderers:
        raise UsageError(f"--format: one of terminal, {', '.join(renderers)} is required. Received: {form}.")
    typer.echo(renderers[form](rows, header), nl=False)
