"""What the verbs that measure share: their options, and the way from a study to a report.

release -> cases -> plan, told before anything is measured -> job -> report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from liteship.bench import bench, make_job
from liteship.cli.common import runtime_cache, with_connection
from liteship.deploy import deploy
from liteship.errors import UsageError
from liteship.plan import Planner, Settings, make_cases, read_history
from liteship.progress import Reporter
from liteship.recipe import BenchSettings, load_recipe
from liteship.remote import Connection
from liteship.targets import Target, split_runtimes
from liteship_agent.cpus import parse_cpus
from liteship_agent.errors import AgentError
from liteship_agent.images import selected_images
from liteship_agent.job import TIERS
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report

ThreadsOption = Annotated[
    str | None,
    typer.Option(
        "--threads",
        metavar="N[,N]",
        help="Interpreter threads; 1,4 measures both.  \\[default: the recipe's, else all of the target's]",
    ),
]
CpusOption = Annotated[
    list[str] | None,
    typer.Option(
        "--cpus",
        metavar="SET",
        help="The CPUs that the models may use, such as 4-7 or 0,2; give it again to compare sets.  "
        "\\[default: the target's, else all of its fastest kind]",
    ),
]
TierOption = Annotated[
    str | None,
    typer.Option("--tier", help="rapid, quick or normal: how long each model is timed.  \\[default: the recipe's]"),
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", metavar="TIME", help="Take the longest tier that fits into 90s, 20m or 2h."),
]
ForceOption = Annotated[
    bool,
    typer.Option("--force", help="Measure although the target is hot, throttled or busy; every row is marked."),
]

_MOST_THREADS = 64
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Wishes:
    """How a study is to be measured; None is left to the target or the recipe.

    Args:
        runtimes: Names, see `liteship.provision.choose_runtime`.
        threads, cpus: Axes, see `liteship.plan.Settings`.
        tier, budget: One of them at most; a budget as it was typed, see `read_seconds`.
        limit: Most validation images.
        forced: Measure although the target is not fit for it.
    """

    runtimes: tuple[str, ...] | None = None
    threads: tuple[int, ...] | None = None
    cpus: tuple[tuple[int, ...], ...] | None = None
    tier: str | None = None
    budget: str | None = None
    limit: int | None = None
    forced: bool = False

    def settings(self, target: Target, recipe: BenchSettings) -> Settings:
        """The axes for a target.

        Raises:
            UsageError: a set of CPUs has fewer than a thread count.
        """
        inventory = f"targets.toml: [targets.{target.name}]"
        if self.threads:
            threads, asked = self.threads, "--threads"
        elif recipe.threads:
            threads, asked = (recipe.threads,), "the recipe's bench.threads"
        else:
            threads, asked = tuple(dict.fromkeys(target.threads)), f"{inventory} threads"
        cpus = self.cpus or (tuple(sorted(set(target.cpus))),)
        for chosen in cpus:
            if chosen and max(threads) > len(chosen):
                raise UsageError(
                    f"{'--cpus' if self.cpus else f'{inventory} cpus'}: a CPU for each of {max(threads)} threads "
                    f"({asked}) is required. Received: {', '.join(map(str, chosen))}."
                )
        return Settings(threads, cpus)


def read_wishes(
    runtime: str | None = None,
    threads: str | None = None,
    cpus: Sequence[str] | None = None,
    tier: str | None = None,
    budget: str | None = None,
    limit: int | None = None,
    forced: bool = False,
) -> Wishes:
    """Options as they were typed, checked.

    Raises:
        UsageError: one of them cannot be read, or both --tier and --budget are given.
    """
    if tier is not None and tier not in TIERS:
        raise UsageError(f"--tier: one of {', '.join(TIERS)} is required. Received: {tier}.")
    if tier is not None and budget is not None:
        raise UsageError("--tier or --budget is required. Received: both.", "A budget chooses the tier.")
    if budget is not None:
        read_seconds(budget)
    return Wishes(
        runtimes=None if runtime is None else split_runtimes(runtime),
        threads=None if threads is None else _read_threads(threads),
        cpus=tuple(dict.fromkeys(_read_cpus(text) for text in cpus)) if cpus else None,
        tier=tier,
        budget=budget,
        limit=limit,
        forced=forced,
    )


def _read_threads(text: str) -> tuple[int, ...]:
    counts = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if not all(1 <= count <= _MOST_THREADS for count in counts):
        raise UsageError(f"--threads: numbers from 1 to {_MOST_THREADS} such as 1,4 are required. Received: {text}.")
    return tuple(dict.fromkeys(counts))


def _read_cpus(text: str) -> tuple[int, ...]:
    try:
        return parse_cpus(text)
    except AgentError as exc:
        raise UsageError(f"--cpus: {exc}.") from exc


def read_seconds(text: str) -> float:
    """A time such as 90s, 20m or 2h in seconds, above 0.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if found is None or float(found[1]) == 0:
        raise UsageError(f"--budget: a time above 0 such as 90s, 20m or 2h is required. Received: {text}.")
    return float(found[1]) * _UNIT_SECONDS[found[2]]


def measure(folder: Path, manifest: Manifest, target: str, wishes: Wishes, say: Reporter) -> Report:
    """Deploy a study where it is not yet, tell the plan, and measure; go on where the link was lost meanwhile.

    Args:
        folder: Of the study.
        manifest: Of the study.
        target: Its name.
        wishes: How.
        say: Progress, and the plan.
    """
    recipe = load_recipe(folder / "recipe.toml").bench
    told: set[str] = set()

    def tell(line: str) -> None:
        """Say something once, however often the link is lost."""
        if line not in told:
            told.add(line)
            say.say(line)

    def deploy_and_measure(connection: Connection) -> Report:
        settings = wishes.settings(connection.target, recipe)
        runtimes = wishes.runtimes or split_runtimes(connection.target.runtime)
        deployment = deploy(connection, folder, manifest, runtimes, runtime_cache(), say)
        cases = make_cases(manifest, deployment, settings)
        if cases[0].runtime != next(iter(deployment.runtimes)):
            tell(f"ratios refer to {manifest.entries[0].variant} in {deployment.runtimes[cases[0].runtime]}")
        image_count = len(selected_images(manifest, wishes.limit))
        history = read_history(folder.parent, connection.target.name)
        planner = Planner(manifest, deployment, settings, cases, image_count, history)
        if wishes.budget is None:
            plan = planner.plan(TIERS[wishes.tier or recipe.tier])
        else:
            plan = planner.longest_within(read_seconds(wishes.budget), wishes.budget)
        tell(str(plan))
        job = make_job(connection.target, manifest, deployment, cases, plan.tier, wishes.limit, wishes.forced)
        return bench(connection, folder, manifest, deployment, job, say)

    return with_connection(target, deploy_and_measure, say)
