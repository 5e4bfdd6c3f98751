"""`liteship run|bench`: from a recipe to the comparison table, and from a study to it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from liteship.built_in import LOOPBACK
from liteship.cli.common import build, check_targets, open_study
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
from liteship.cli.options import DEMO_RECIPE, MODELS, JsonOption, LimitOption, RuntimeOption, StudyOption, TargetsOption
from liteship.cli.report import print_comparison
from liteship.cli.several import Action, on_targets
from liteship.operators import known_runtime
from liteship.progress import Reporter
from liteship.recipe import load_recipe
from liteship.remote import RemoteError
from liteship.report.document import render_json
from liteship.report.rows import build_comparison
from liteship.targets import find_target
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report


def run_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe under benchmarks/.")] = DEMO_RECIPE,
    target: TargetsOption = LOOPBACK,
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
    names = check_targets(target, runtime)
    wishes = read_wishes(runtime, threads, cpus, tier, budget, forced=force)
    settings = load_recipe(recipe).with_overrides(data=data, weights=weights, epochs=epochs, tier=tier)
    settings = settings.with_overrides(runtime=_known_runtime(for_runtime or settings.convert.runtime))
    for name in names:
        wishes.settings(find_target(name), settings.bench)  # fails before anything is trained, not after
    manifest = build(settings, limit, skip_corrupt, jobs, max_drop)
    folder = MODELS / settings.name
    _print_measurements(
        names, manifest, lambda name, say: _measure_after_training(folder, manifest, name, wishes, say), as_json
    )


def _measure_after_training(folder: Path, manifest: Manifest, target: str, wishes: Wishes, say: Reporter) -> Report:
    """Measure; minutes of training must not end without a table because this computer does something else as well."""
    try:
        return measure(folder, manifest, target, wishes, say)
    except RemoteError as exc:
        if exc.kind != "preflight" or target != LOOPBACK:
            raise
        say.say(f"{exc.message}. This computer is no board: measured all the same, and every row is marked")
    return measure(folder, manifest, target, replace(wishes, forced=True), say)


def _print_measurements(names: Sequence[str], manifest: Manifest, act: Action[Report], as_json: bool) -> None:
    """Measure on every target, and print a table of each."""
    on_targets(
        names,
        lambda name, say: build_comparison(manifest, act(name, say)),
        lambda comparison: print_comparison(comparison, "terminal"),
        lambda comparison: json.loads(render_json(comparison)),
        as_json,
    )


def bench_command(
    target: TargetsOption = LOOPBACK,
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
    names = check_targets(target, runtime)
    wishes = read_wishes(runtime, threads, cpus, tier, budget, limit, force)
    folder, manifest = open_study(study)
    _print_measurements(names, manifest, lambda name, say: measure(folder, manifest, name, wishes, say), as_json)


def _known_runtime(name: str | None) -> str | None:
    return None if name is None else known_runtime(name)
