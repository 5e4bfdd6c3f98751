"""What a job will measure and about how long that takes, told before anything is measured.

settings x artefacts -> cases -> seconds of each tier, from what earlier reports of the target say about its pace, else
from constants of its kind of machine -> one plan.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from liteship.built_in import EMULATED
from liteship.deploy import Deployment
from liteship.errors import ConversionError, UsageError
from liteship.report.store import parse_thin
from liteship_agent.errors import RecordError
from liteship_agent.job import TIERS, Case, Limits, Tier
from liteship_agent.manifest import Manifest
from liteship_agent.records import from_json, read_record
from liteship_agent.report import Block, Report
from liteship_agent.schedule import queries_per_block

_REPORTS_READ = 3
_PARTS = tuple(part.name for part in fields(Report))
_STEADY_QUERIES, _LEAST_QUERIES = 12, 5
_SETTLE_SECONDS, _LONGEST_WARMUP_SECONDS = 0.1, 1.0
_Setting = tuple[str, str, int, tuple[int, ...]]  # sha256, runtime folder, threads, cpus


@dataclass(frozen=True)
class Settings:
    """The ways in which every artefact is run, beside the runtimes.

    Args:
        threads: Thread counts; each is measured.
        cpus: Sets of CPUs, each ascending; an empty set leaves the choice to the target.
    """

    threads: tuple[int, ...]
    cpus: tuple[tuple[int, ...], ...] = ((),)


def make_cases(manifest: Manifest, deployment: Deployment, settings: Settings) -> tuple[Case, ...]:
    """Every artefact in every setting that can load it, in the order of the table.

    The first is the baseline artefact in the first runtime that loads it: ratios refer to that case.

    Raises:
        ConversionError: none of the runtimes loads the baseline.
    """
    baseline = manifest.entries[0]
    if baseline.sha256 not in deployment.artefacts:
        reasons = "; ".join(reasons[baseline.sha256] for reasons in deployment.refused.values())
        raise ConversionError(
            f"A runtime that loads the baseline, {baseline.variant}, is required: ratios refer to it. "
            f"Received: {reasons}.",
            "Name one more runtime that does, such as --runtime ai-edge-litert,tflite-runtime.",
        )
    combinations = itertools.product(deployment.artefacts, deployment.runtimes, settings.cpus, settings.threads)
    return tuple(
        Case(artefact, runtime, threads, cpus)
        for artefact, runtime, cpus, threads in combinations
        if artefact not in deployment.refused[runtime]
    )


@dataclass(frozen=True)
class Pace:
    """How fast a kind of machine is, where nothing was measured on it.

    Args:
        startup_seconds: Of a block, from the start of its process to its first invocation.
        multiply_adds_per_second: Of one invocation; measured on models of MobileNetV2's kind with one thread.
        decode_seconds: From the bytes of an image file of a photograph to pixels of the model's size.
    """

    startup_seconds: float
    multiply_adds_per_second: float
    decode_seconds: float


_PACES = {"x86_64": Pace(1.0, 20e9, 0.003), "aarch64": Pace(3.0, 3e9, 0.012), EMULATED: Pace(8.0, 0.1e9, 0.3)}


@dataclass(frozen=True)
class History:
    """What earlier reports of one target say about its pace.

    Args:
        job_id: Of the latest of them, None without any.
        startup_seconds: Of a block, None without any.
        latencies: Median seconds of an invocation, the latest of each setting; under an empty set of CPUs that of any.
        rates: Multiply-adds per second of each invocation that was measured, by runtime folder and threads.
    """

    job_id: str | None = None
    startup_seconds: float | None = None
    latencies: Mapping[_Setting, float] = field(default_factory=dict)
    rates: Mapping[tuple[str, int], Sequence[float]] = field(default_factory=dict)


def read_history(models: Path, target: str) -> History:
    """Read the latest reports of a target, of whatever study; one that cannot be read is as good as none.

    Args:
        models: Folder of studies.
        target: Name of the target.
    """
    paths = [path for path in models.glob(f"*/reports/{target}/*.json") if not path.parents[2].is_symlink()]
    job_id: str | None = None
    startup_seconds: float | None = None
    latencies: dict[_Setting, float] = {}
    rates: dict[tuple[str, int], list[float]] = {}
    for path in sorted(paths, key=lambda path: path.stem, reverse=True)[:_REPORTS_READ]:
        try:
            report = _sound(from_json(Report, parse_thin(path, _PARTS), str(path)), path)
            manifest = read_record(Manifest, path.parents[2] / "manifest.json")
        except RecordError:
            continue
        job_id = job_id or report.job.job_id
        startup_seconds = startup_seconds or _startup_seconds(report.blocks)
        for summary in report.summaries:
            case, seconds = report.job.cases[summary.case_index], summary.median_ns / 1e9
            for cpus in (case.cpus, ()):
                latencies.setdefault((case.artefact, case.runtime, case.threads, cpus), seconds)
            entry = manifest.entry(case.artefact)
            if entry is not None:
                rates.setdefault((case.runtime, case.threads), []).append(entry.multiply_adds / seconds)
    return History(job_id, startup_seconds, latencies, rates)


def _sound(report: Report, path: Path) -> Report:
    """The report, if every summary is of one of its cases and has a latency.

    Raises:
        RecordError: it is damaged.
    """
    for summary in report.summaries:
        if not 0 <= summary.case_index < len(report.job.cases) or summary.median_ns <= 0:
            received = f"case {summary.case_index} with {summary.median_ns} ns"
            raise RecordError(str(path), "summaries", "a case of the job with a latency", received)
    return report


def _startup_seconds(blocks: Sequence[Block]) -> float | None:
    """Median time of a block beside what is invoked in it; the few that score all images too do not count in it."""
    seconds = [
        (block.samples[-1].at_ns - block.samples[0].at_ns - (block.timed_to_ns - block.timed_from_ns)) / 1e9
        - (block.first_ns + block.warmup_ns) / 1e9
        for block in blocks
        if len(block.samples) > 1
    ]
    return max(0.0, statistics.median(seconds)) if seconds else None


@dataclass(frozen=True)
class Plan:
    """What will be measured.

    Args:
        tier: How long each case is timed.
        seconds: Estimate for all, without repeats and cooling.
        content: "14 artefacts x 2 thread counts = 28 cases".
        case_count: Cases.
        basis: What the estimate rests on.
    """

    tier: Tier
    seconds: float
    content: str
    case_count: int
    basis: str

    def __str__(self) -> str:
        rounds = self.tier.rounds
        return (
            f"{self.content}, {rounds} rounds, {self.case_count * rounds} blocks and {rounds} canaries, "
            f"tier {self.tier.name}: about {duration(self.seconds)} without repetitions ({self.basis})"
        )


class Planner:
    """Estimates jobs on one target.

    Args:
        manifest: Of the study.
        deployment: What is active on the target.
        settings, cases: What is measured, see `make_cases`.
        image_count: Validation images that are scored.
        history: Of the target.
    """

    def __init__(
        self,
        manifest: Manifest,
        deployment: Deployment,
        settings: Settings,
        cases: Sequence[Case],
        image_count: int,
        history: History,
    ) -> None:
        self.manifest, self.deployment, self.settings = manifest, deployment, settings
        self.cases, self.image_count, self.history = cases, image_count, history
        self.pace = _PACES[EMULATED if deployment.target == EMULATED else deployment.machine]

    def plan(self, tier: Tier) -> Plan:
        """The plan for a tier."""
        startup = self.history.startup_seconds or self.pace.startup_seconds
        canaries = startup + _warmup_seconds(self.latency_seconds(self.cases[0])) + Limits().canary_seconds
        a_round = canaries + sum(self._block_seconds(case, tier, startup) for case in self.cases)
        seconds = tier.rounds * a_round + self._scores_seconds()
        return Plan(tier, seconds, self._content(), len(self.cases), self._basis(startup))

    def longest_within(self, budget_seconds: float, typed: str) -> Plan:
        """The plan for the longest tier that fits a budget.

        Args:
            budget_seconds: Of all, without repetitions.
            typed: The same as the user wrote it, for the message.

        Raises:
            UsageError: not even the shortest does.
        """
        plans = [self.plan(tier) for tier in TIERS.values()]
        fitting = [plan for plan in plans if plan.seconds <= budget_seconds]
        if fitting:
            return fitting[-1]
        shortest = plans[0]
        raise UsageError(
            f"--budget: about {_above(shortest.seconds, budget_seconds)} for {shortest.content} in tier "
            f"{shortest.tier.name} are required ({shortest.basis}). Received: {typed}.",
            "Give more time, or measure fewer threads, CPU sets or runtimes.",
        )

    def latency_seconds(self, case: Case) -> float:
        """Of one invocation: as measured on this target before, else by the model's multiply-adds."""
        for cpus in (case.cpus, ()):
            known = self.history.latencies.get((case.artefact, case.runtime, case.threads, cpus))
            if known is not None:
                return known
        entry = self.manifest.entry(case.artefact)
        return (entry.multiply_adds if entry else 0) / self._rate(case)

    def _rate(self, case: Case) -> float:
        rates = self.history.rates
        measured = rates.get((case.runtime, case.threads)) or list(itertools.chain.from_iterable(rates.values()))
        return statistics.median(measured) if measured else self.pace.multiply_adds_per_second

    def _block_seconds(self, case: Case, tier: Tier, startup_seconds: float) -> float:
        latency, queries = self.latency_seconds(case), queries_per_block(tier)
        invoke = min(max(tier.min_seconds / tier.rounds, queries * latency), tier.max_seconds / tier.rounds)
        end_to_end = min(queries * (latency + self.pace.decode_seconds), invoke)
        return startup_seconds + _warmup_seconds(latency) + invoke + end_to_end

    def _scores_seconds(self) -> float:
        """Every image once by each artefact in each runtime, decoded in the first of these passes."""
        first: dict[tuple[str, str], Case] = {}
        for case in self.cases:
            first.setdefault((case.artefact, case.runtime), case)
        passes = sum(self.latency_seconds(case) for case in first.values())
        return self.image_count * (passes + self.pace.decode_seconds)

    def _content(self) -> str:
        counts = {
            "artefact": len(self.deployment.artefacts),
            "runtime": len(self.deployment.runtimes),
            "CPU set": len(self.settings.cpus),
            "thread count": len(self.settings.threads),
        }
        factors = [_count(count, name) for name, count in counts.items() if count > 1 or name == "artefact"]
        refused = math.prod(counts.values()) - len(self.cases)
        text = " x ".join(factors) + (f" - {refused} refused" if refused else "")
        return f"{text} = {_count(len(self.cases), 'case')}"

    def _basis(self, startup_seconds: float) -> str:
        if self.history.job_id is None:
            rate = self.pace.multiply_adds_per_second / 1e9
            return (
                f"nothing was measured on {self.deployment.target} yet: {startup_seconds:.1f} s to start a block and "
                f"{rate:g} billion multiply-adds a second are assumed"
            )
        known = sum((case.artefact, case.runtime, case.threads, ()) in self.history.latencies for case in self.cases)
        rest = "" if known == len(self.cases) else ", the rest by multiply-adds"
        return (
            f"{startup_seconds:.1f} s to start a block and {known} of {len(self.cases)} latencies from earlier reports "
            f"of {self.deployment.target}{rest}"
        )


def _warmup_seconds(latency_seconds: float) -> float:
    """What the agent's warm-up takes of a model that soon is steady."""
    steady = max(_SETTLE_SECONDS, _STEADY_QUERIES * latency_seconds)
    return max(_LEAST_QUERIES * latency_seconds, min(_LONGEST_WARMUP_SECONDS, steady))


def _count(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def _above(seconds: float, budget_seconds: float) -> str:
    """A time that does not fit a budget, in words that say so: in seconds where minutes would hide it."""
    return duration(seconds) if duration(seconds) != duration(budget_seconds) else f"{math.ceil(seconds)} s"


def duration(seconds: float) -> str:
    """For people: "80 s", "9 min", "1 h 20 min"."""
    if seconds < 119.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
