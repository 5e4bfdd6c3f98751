"""The events of a job while it runs: what is said of them, how far the bar is, and the line of each case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from liteship.bench.live import DONE, FAILED, RUNNING, WAITING, CaseLine, LiveTable
from liteship.progress import Advance, Reporter
from liteship.stats import median
from liteship_agent.job import Job
from liteship_agent.manifest import Manifest
from liteship_agent.records import from_json
from liteship_agent.report import VOID
from liteship_agent.schedule import block_order

# A wait says that a void block is measured again, and why; these say nothing about it.
_SAYS_NOTHING_OF_BLOCKS = ("wait", "preflight", "alive")


@dataclass
class _CaseState:
    """What was heard of one case.

    Attributes:
        blocks: (median, whether it is void) of the last measurement in each round.
        void: Measurements that were void, also those that were repeated since.
    """

    blocks: dict[int, tuple[float, bool]] = field(default_factory=dict)
    void: int = 0
    temperature_celsius: float | None = None
    has_failed: bool = False

    def line(self, name: str, rounds: int, is_running: bool) -> CaseLine:
        """The line that a terminal shows."""
        valid = [median_ns for median_ns, is_void in self.blocks.values() if not is_void]
        medians = valid or [median_ns for median_ns, _ in self.blocks.values()]
        if self.has_failed:
            state = FAILED
        elif is_running:
            state = RUNNING
        else:
            state = DONE if len(self.blocks) == rounds else WAITING
        return CaseLine(
            name=name,
            state=state,
            done=len(self.blocks),
            rounds=rounds,
            valid=len(valid),
            void=self.void,
            median_ns=median(medians) if medians else None,
            temperature_celsius=self.temperature_celsius,
        )


class Follower:
    """Shows the events of a job.

    Args:
        manifest: Of the study.
        job: That was asked for.
        say: Hears what stays, and what the bar says.
        advance: Moves the bar by blocks.
        table: Shown above the bar; None where nobody sees it, so that the bar says it all.

    Attributes:
        job: That runs, with its CPUs chosen.
        done: (case, round) of the blocks that were measured.
    """

    def __init__(
        self, manifest: Manifest, job: Job, say: Reporter, advance: Advance, table: LiveTable | None = None
    ) -> None:
        self.manifest, self.say, self.advance, self._table = manifest, say, advance, table
        self.done: set[tuple[int, int]] = set()
        self._void: str | None = None
        self._is_forced = False
        self._take(job)

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Take one event; of a kind that this version does not know, nothing is shown."""
        kind = event["event"]
        if self._void is not None and kind not in _SAYS_NOTHING_OF_BLOCKS:
            self.say.say(self._void)
            self._void = None
        show = getattr(self, f"_show_{kind}", None)
        if show is not None:
            show(event)
            self._draw()

    def lines(self) -> list[CaseLine]:
        """How far each case is, in the order of the job."""
        rounds = self.job.tier.rounds
        return [
            state.line(name, rounds, index == self._running)
            for index, (name, state) in enumerate(zip(self._names, self._cases, strict=True))
        ]

    def _take(self, job: Job) -> None:
        """Follow a job from its start."""
        self.job = job
        self._cases = [_CaseState() for _ in job.cases]
        self._names = [case_name(self.manifest, job, index) for index in range(len(job.cases))]
        self._order = block_order(range(len(job.cases)), job.tier.rounds, job.seed)
        self._running: int | None = None
        self._last: int | None = None
        self._draw()

    def _draw(self) -> None:
        if self._table is not None:
            self._table.show(self.lines())

    def _show_started(self, event: Mapping[str, Any]) -> None:
        started = from_json(Job, event["job"], "the target's answer")
        if started.job_id != self.job.job_id:
            self.say.say(f"going on with job {started.job_id}")
        self._take(started)

    def _show_preflight(self, event: Mapping[str, Any]) -> None:
        self.say.say(event["reason"])

    def _show_session(self, event: Mapping[str, Any]) -> None:
        self._is_forced = bool(event["problems"])
        for problem in event["problems"]:
            self.say.say(f"measured in spite of it (--force): {problem}")

    def _show_wait(self, event: Mapping[str, Any]) -> None:
        if self._void is not None:
            self._running = self._last  # it is this block that is measured again
        self._void = None
        self.say.say(f"measured again: {event['reason']}")

    def _show_canary(self, event: Mapping[str, Any]) -> None:
        self._running = self._next(event["round_index"])
        self._describe(f"{self._round(event)}, canary {_milliseconds(event)}")

    def _show_block(self, event: Mapping[str, Any]) -> None:
        index, round_index = event["case_index"], event["round_index"]
        name, reasons = self._names[index], "; ".join(event["reasons"])
        celsius, is_void = event.get("temperature_celsius"), event["validity"] == VOID
        heat = "" if celsius is None else f", {celsius:.0f} °C"
        if self._table is None:
            self._describe(f"{self._round(event)}, {name} {_milliseconds(event)}{heat}")
        else:
            self._describe(self._round(event))
        if is_void and not (self._is_forced or self.job.forced):
            self._void = f"{self._round(event)}: {name} stays void: {reasons}"
        case = self._cases[index]
        case.blocks[round_index] = event["median_ns"], is_void
        case.void += is_void
        case.temperature_celsius = celsius
        self._last, self._running = index, self._next(round_index)
        self._count(index, round_index)

    def _show_void_round(self, event: Mapping[str, Any]) -> None:
        """Its blocks are measured again, all of them."""
        for case in self._cases:
            _, is_void = case.blocks.pop(event["round_index"], (0.0, True))
            case.void += not is_void
        self._running = None

    def _show_failed(self, event: Mapping[str, Any]) -> None:
        index = event["case_index"]
        self.say.say(f"{self._names[index]} failed: {event['reason']}")
        self._cases[index].has_failed = True
        self._running = self._next(event["round_index"])
        for round_index in range(self.job.tier.rounds):
            self._count(index, round_index)

    def _show_log(self, event: Mapping[str, Any]) -> None:
        self.say.say(event["line"])

    def _next(self, round_index: int) -> int | None:
        """The case that the target measures now: the first of the round without a block; None after the last."""
        lacking = (
            index
            for index in self._order[round_index]
            if round_index not in self._cases[index].blocks and not self._cases[index].has_failed
        )
        return next(lacking, None)

    def _count(self, case_index: int, round_index: int) -> None:
        if (case_index, round_index) not in self.done:
            self.done.add((case_index, round_index))
            self.advance(1)

    def _describe(self, text: str) -> None:
        self.say.describe(f"{self.job.target}: {text}")

    def _round(self, event: Mapping[str, Any]) -> str:
        return f"round {event['round_index'] + 1} of {self.job.tier.rounds}"


def case_name(manifest: Manifest, job: Job, case_index: int) -> str:
    """A case for people: what it shares with all others is left out."""
    case, cases = job.cases[case_index], job.cases
    entry = manifest.entry(case.artefact)
    words = [entry.variant if entry else case.artefact[:12]]
    if _differ([other.runtime for other in cases]):
        words.append(job.runtimes[case.runtime].split("==")[0])
    if _differ([other.threads for other in cases]):
        words.append(f"{case.threads} thread{'s' * (case.threads != 1)}")
    if _differ([other.cpus for other in cases]):
        words.append("CPU " + ",".join(map(str, case.cpus)))
    return " ".join(words)


def _differ(settings: Sequence[Any]) -> bool:
    return len(set(settings)) > 1


def _milliseconds(event: Mapping[str, Any]) -> str:
    return f"{event['median_ns'] / 1e6:.2f} ms"
