"""`liteship run|deploy|bench`: from a recipe to the comparison table, in one command or step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from liteship.cli.common import (
    DEMO_RECIPE,
    MODELS,
    JsonOption,
    LimitOption,
    RuntimeOption,
    StudyOption,
    TargetOption,
    build,
    check_options,
    open_connection,
    print_json,
    reporter,
    runtime_cache,
)
from liteship.cli.measure import (
    BudgetOption,
    CpusOption,
    ForceOption,
    ThreadsOption,
    TierOption,
    Wishes,
    measure,
    read_wishes,
)
from liteship.cli.report import print_report
from liteship.deploy import deploy
from liteship.errors import LiteshipError
from liteship.manifests import read_manifest, study_folder
from liteship.recipe import load_recipe
from liteship.remote import RemoteError
from liteship.targets import LOOPBACK, find_target, split_runtimes
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report


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
    budget: BudgetOption = None,
    threads: ThreadsOption = None,
    cpus: CpusOption = None,
    force: ForceOption = False,
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
    check_options(target, runtime)
    wishes = read_wishes(runtime, threads, cpus, tier, budget, forced=force)
    settings = load_recipe(recipe).with_overrides(data=data, weights=weights, epochs=epochs, tier=tier)
    settings = settings.with_overrides(runtime=_known_runtime(for_runtime or settings.convert.runtime))
    wishes.settings(find_target(target), settings.bench)  # fails before anything is trained, not after
    manifest = build(settings, limit, skip_corrupt, jobs, max_drop)
    report = _measure_after_training(MODELS / settings.name, manifest, target, wishes)
    print_report(manifest, report, "json" if as_json else "terminal")


def _measure_after_training(folder: Path, manifest: Manifest, target: str, wishes: Wishes) -> Report:
    """Measure; minutes of training must not end without a table because this computer does something else as well."""
    try:
        return measure(folder, manifest, target, wishes)
    except RemoteError as exc:
        if exc.kind != "preflight" or target != LOOPBACK:
            raise
        reporter().say(f"{exc.message}. This computer is no board: measured all the same, and every row is marked")
    return measure(folder, manifest, target, replace(wishes, forced=True))


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
        names = split_runtimes(runtime or connection.target.runtime)
        deployment = deploy(connection, folder, manifest, names, runtime_cache(), reporter())
    if as_json:
        print_json(deployment.to_json())
        return
    verb = "is active now" if deployment.activated else "was active already"
    runtimes = ", ".join(deployment.runtimes.values())
    typer.echo(
        f"{deployment.target}: release {deployment.release} {verb}; sent {deployment.blobs_sent} blobs, "
        f"{deployment.bytes_sent / 2**20:.2f} MiB ({deployment.bytes_sent} bytes); {runtimes}"
    )


def bench_command(
    target: TargetOption = LOOPBACK,
    study: StudyOption = None,
    runtime: RuntimeOption = None,
    tier: TierOption = None,
    budget: BudgetOption = None,
    threads: ThreadsOption = None,
    cpus: CpusOption = None,
    limit: LimitOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure a study on a target and print the comparison table; what is not deployed yet is deployed first.

    While such a job runs, the same command shows how far it is; one that was interrupted goes on.
    """
    check_options(target, runtime)
    wishes = read_wishes(runtime, threads, cpus, tier, budget, limit, force)
    folder, manifest = _open_study(study)
    report = measure(folder, manifest, target, wishes)
    print_report(manifest, report, "json" if as_json else "terminal")


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
