"""Run the rounds of a job: a canary, then every case once in a process of its own; what is void is measured again.

Everything is journaled before the next thing starts, and all that this module knows of a job it knows from the
journal: after a reboot or a kill the same code goes on with what is missing. Raw latencies stay in the journal; the
process holds none of them.
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

from liteship_agent import journal, preflight
from liteship_agent.job import BlockRequest, Job
from liteship_agent.manifest import Manifest
from liteship_agent.records import from_json, to_json
from liteship_agent.release import InstalledRelease
from liteship_agent.report import VOID, Canary, FailedBlock, Sample
from liteship_agent.schedule import block_order, queries_per_block
from liteship_agent.sensors import Sensors
from liteship_agent.validity import judge_block, void_rounds
from liteship_agent.watch import Outcome, agent_command, run_worker

_SAMPLE_NS = 400_000_000  # a little above the 2 Hz that are asked for
Event = Dict[str, Any]


@dataclass(frozen=True)
class _Measured:
    """What is remembered of a block: under which opening of its round, and whether it is void."""

    opening: int
    validity: str


class Progress:
    """What a job has done, from the events of its journal.

    Attributes:
        canaries: All, in order.
        openings: Per round, how often it was opened anew; absent before the first time.
        void_openings: Reason by (round, opening) of those that were given up for another.
        failed: Cases that gave no figures.
        scored: (artefact, runtime) of all scores.
        problems: What the preflight found and --force overrode.
        start_celsius: Temperature at the start of the job, null where it cannot be read.
    """

    def __init__(self) -> None:
        self.canaries: List[Canary] = []
        self.openings: Dict[int, int] = {}
        self.void_openings: Dict[Tuple[int, int], str] = {}
        self.failed: Dict[int, FailedBlock] = {}
        self.scored: Set[Tuple[str, str]] = set()
        self.problems: Tuple[str, ...] = ()
        self.start_celsius: Optional[float] = None
        self._blocks: Dict[Tuple[int, int], List[_Measured]] = defaultdict(list)

    def take(self, event: Event) -> None:
        """Learn one event."""
        kind = event["event"]
        if kind == "session":
            self.problems = (*self.problems, *(text for text in event["problems"] if text not in self.problems))
            if self.start_celsius is None:
                self.start_celsius = event["start_celsius"]
        elif kind == "canary":
            self.canaries.append(from_json(Canary, event["canary"], "journal.jsonl"))
            self.openings[event["canary"]["round_index"]] = event["opening"]
        elif kind == "void_round":
            self.void_openings[event["round_index"], event["opening"]] = event["reason"]
        elif kind == "block":
            block = event["block"]
            measured = _Measured(event["opening"], block["validity"])
            self._blocks[block["round_index"], block["case_index"]].append(measured)
        elif kind == "failed":
            failure = from_json(FailedBlock, event["failure"], "journal.jsonl")
            self.failed[failure.case_index] = failure
        elif kind == "scores":
            self.scored.add((event["scores"]["artefact"], event["scores"]["runtime"]))

    def opening(self, round_index: int) -> int:
        """Of a round, now; 0 where it has no canary."""
        return self.openings.get(round_index, 0)

    def attempts(self, round_index: int, case_index: int) -> int:
        """How often a block was measured."""
        return len(self._blocks[round_index, case_index])

    def lacks(self, round_index: int, case_index: int, repeats: int) -> bool:
        """Whether a block is still to be measured: never was under this opening, or is void and may be repeated."""
        blocks, opening = self._blocks[round_index, case_index], self.opening(round_index)
        is_new = not blocks or blocks[-1].opening != opening
        may_repeat = bool(blocks) and blocks[-1].validity == VOID and len(blocks) <= repeats
        return case_index not in self.failed and (is_new or may_repeat)


def read_progress(path: Path) -> Progress:
    """The progress of a job, from its journal."""
    progress = Progress()
    for event in journal.read(path):
        progress.take(event)
    return progress


class Rounds:
    """The measuring of one job.

    Args:
        release: What is measured.
        manifest: Of the release.
        job: With the CPUs that were chosen.
        path: Of its journal.
        sensors: Of this machine.
        pause: Sleeps for some seconds.
    """

    def __init__(
        self,
        release: InstalledRelease,
        manifest: Manifest,
        job: Job,
        path: Path,
        sensors: Sensors,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.release, self.manifest, self.job, self.path = release, manifest, job, path
        self.sensors, self.pause = sensors, pause
        self.progress = read_progress(path)
        self._is_patient = True

    def record(self, event: Event) -> None:
        """Journal one event."""
        journal.append(self.path, event)
        self.progress.take(event)

    def run(self) -> Progress:
        """Measure what the journal does not have yet."""
        order = block_order(range(len(self.job.cases)), self.job.tier.rounds, self.job.seed)
        for round_index, cases in enumerate(order):
            if any(self._lacks(round_index, case_index) for case_index in cases):
                self._run_round(round_index, cases, goes_on=self._is_opened(round_index))
        while True:
            moved = self._moved_rounds()
            if not moved:
                break
            for round_index, reason in moved.items():
                self._give_up_opening(round_index, reason)
                self._settle(f"round {round_index + 1} is void: {reason}")
                self._run_round(round_index, order[round_index], goes_on=False)
        for case_index, case in enumerate(self.job.cases):
            # Only where the journal lost a line.
            if case_index not in self.progress.failed and (case.artefact, case.runtime) not in self.progress.scored:
                self._run_block(self.job.tier.rounds - 1, order[-1].index(case_index), case_index)
        return self.progress

    @property
    def _repeats(self) -> int:
        """A forced job takes what it gets: what disturbs it may well be there all the time."""
        return 0 if self.job.forced else self.job.limits.repeats

    def _moved_rounds(self) -> Mapping[int, str]:
        """Rounds whose canary stands apart and that may be measured again."""
        if self._canary_case() is None:
            return {}
        reasons = void_rounds(self.progress.canaries, self.job.limits.canary_ratio)
        return {index: text for index, text in reasons.items() if self.progress.opening(index) < self._repeats}

    def _is_opened(self, round_index: int) -> bool:
        return round_index in self.progress.openings

    def _lacks(self, round_index: int, case_index: int) -> bool:
        return self.progress.lacks(round_index, case_index, self._repeats)

    def _run_round(self, round_index: int, cases: List[int], goes_on: bool) -> None:
        """A canary, then what the round lacks.

        Args:
            round_index: From 0.
            cases: Indices in the order of this round.
            goes_on: The round was interrupted; what it has counts unless the canary has moved since.
        """
        self._open_round(round_index, goes_on)
        for order, case_index in enumerate(cases):
            while self._lacks(round_index, case_index):
                self._run_block(round_index, order, case_index)

    def _open_round(self, round_index: int, goes_on: bool) -> None:
        """Time canaries until one is quiet and where the others are, or until the repetitions of this round are over.

        A canary that was disturbed says nothing about the blocks from before an interruption; a quiet one decides.
        """
        opening = self.progress.opening(round_index) + (self._is_opened(round_index) and not goes_on)
        measured = sum(canary.round_index == round_index for canary in self.progress.canaries)
        for left in range(max(0, self._repeats - measured), -1, -1):
            canary = self._measure_canary(round_index)
            if canary is None:
                return
            reason = void_rounds([*self.progress.canaries, canary], self.job.limits.canary_ratio).get(round_index)
            if canary.validity == VOID:
                reason = "; ".join(canary.reasons)
            elif goes_on and (reason is not None or self._has_moved(canary)):
                self._give_up_opening(round_index, reason or "canary moved while the job was interrupted")
                opening, goes_on = opening + 1, False
            self.record({"event": "canary", "opening": opening, "canary": to_json(canary)})
            if reason is None:
                return
            if left:
                self._settle(f"the canary of round {round_index + 1} is off: {reason}")

    def _give_up_opening(self, round_index: int, reason: str) -> None:
        """What was measured in this round since it was opened last does not count."""
        opening = self.progress.opening(round_index)
        self.record({"event": "void_round", "round_index": round_index, "opening": opening, "reason": reason})

    def _has_moved(self, canary: Canary) -> bool:
        """Whether it differs from the last quiet one of the same round and case, taken before the interruption."""
        before = [
            other.median_ns
            for other in self.progress.canaries
            if (other.round_index, other.case_index) == (canary.round_index, canary.case_index)
            and other.validity != VOID
        ]
        return bool(before) and abs(canary.median_ns - before[-1]) > self.job.limits.canary_ratio * before[-1]

    def _canary_case(self) -> Optional[int]:
        """The first case that has not failed."""
        return next((index for index in range(len(self.job.cases)) if index not in self.progress.failed), None)

    def _measure_canary(self, round_index: int) -> Optional[Canary]:
        """The first case that can be, timed shortly; one that fails twice has failed. None where all have."""
        while True:
            case_index = self._canary_case()
            if case_index is None:
                return None
            request = self._canary_request(case_index, round_index)
            for _ in range(2):
                outcome, samples = self._measure(case_index, request)
                if outcome.result is not None:
                    return self._canary(case_index, round_index, outcome.result, samples)
            self._record_failure(case_index, round_index, outcome)

    def _canary_request(self, case_index: int, round_index: int) -> BlockRequest:
        seconds = self.job.limits.canary_seconds
        return replace(
            self._request(case_index, round_index),
            min_queries=1,
            min_seconds=seconds,
            max_seconds=seconds,
            with_scores=False,
            end_to_end=False,
        )

    def _canary(self, case_index: int, round_index: int, result: Mapping[str, Any], samples: List[Sample]) -> Canary:
        validity, reasons = self._judge(result, samples)
        return Canary(
            case_index=case_index,
            round_index=round_index,
            attempt=sum(canary.round_index == round_index for canary in self.progress.canaries),
            median_ns=round(statistics.median(result["latencies_ns"])),
            validity=validity,
            reasons=reasons,
        )

    def _run_block(self, round_index: int, order: int, case_index: int) -> None:
        outcome, samples = self._measure(case_index, self._request(case_index, round_index))
        result = outcome.result
        if result is None:
            self._record_failure(case_index, round_index, outcome)
            return
        scores = result.pop("scores")
        if scores is not None:
            self.record({"event": "scores", "scores": scores})
        validity, reasons = self._judge(result, samples)
        block = {
            "case_index": case_index,
            "round_index": round_index,
            "order": order,
            "attempt": self.progress.attempts(round_index, case_index),
            **result,
            "samples": [to_json(sample) for sample in samples],
            "validity": validity,
            "reasons": list(reasons),
        }
        self.record({"event": "block", "opening": self.progress.opening(round_index), "block": block})
        if self._lacks(round_index, case_index):
            self._settle(f"{self._name(case_index)} is void: {'; '.join(reasons)}")

    def _record_failure(self, case_index: int, round_index: int, outcome: Outcome) -> None:
        failure = FailedBlock(case_index, round_index, str(outcome.reason))
        self.record({"event": "failed", "failure": to_json(failure)})

    def _request(self, case_index: int, round_index: int) -> BlockRequest:
        job, case = self.job, self.job.cases[case_index]
        return BlockRequest(
            folder=str(self.release.folder),
            release_id=self.release.release_id,
            artefact=case.artefact,
            runtime=case.runtime,
            threads=case.threads,
            cpus=case.cpus,
            min_queries=queries_per_block(job.tier),
            min_seconds=job.tier.min_seconds / job.tier.rounds,
            max_seconds=job.tier.max_seconds / job.tier.rounds,
            seed=job.seed + round_index,
            limit=job.limit,
            with_scores=(case.artefact, case.runtime) not in self.progress.scored,
            end_to_end=True,
            agent_pid=os.getpid(),
        )

    def _measure(self, case_index: int, request: BlockRequest) -> Tuple[Outcome, List[Sample]]:
        """Run a worker, once more where a signal from elsewhere ended it."""
        command = agent_command(self.release.runtime(self.job.cases[case_index].runtime), "worker")
        for _ in range(2):
            watch = _Watch(self.sensors, self.job.cases[case_index].cpus, self.job.limits.free_memory_bytes)
            outcome = run_worker(command, to_json(request), self.job.limits.stall_seconds, watch)
            watch.sample(None)
            if not outcome.was_killed:
                break
        return outcome, watch.samples

    def _judge(self, result: Mapping[str, Any], samples: List[Sample]) -> Tuple[str, Tuple[str, ...]]:
        return judge_block(
            samples,
            timed_from_ns=result["timed_from_ns"],
            timed_to_ns=result["timed_to_ns"],
            others_cores=result["others_cores"],
            major_faults=result["major_faults"],
            swapped_in_pages=result["swapped_in_pages"],
            limits=self.job.limits,
            can_see_throttling=self.sensors.can_see_throttling,
            is_raspberry_pi=self.sensors.is_raspberry_pi,
            cpu_count=os.cpu_count() or 1,
        )

    def _settle(self, reason: str) -> None:
        """Before a repetition: cool down, and give what disturbs half a minute to pass."""
        self.record({"event": "wait", "reason": reason})
        limits = self.job.limits
        preflight.cool(self.sensors, self.progress.start_celsius, limits, self.pause)
        problems = preflight.wait_until_fit(
            self.sensors,
            self.release.folder,
            limits,
            preflight.own_cpu_ns,
            self.pause,
            lambda reason: None,
            patient=self._is_patient,
        )
        # What did not pass in that time is not waited for once more, before it has passed.
        self._is_patient = not problems

    def _name(self, case_index: int) -> str:
        entry = self.manifest.entry(self.job.cases[case_index].artefact)
        return entry.variant if entry else f"case {case_index}"


class _Watch:
    """Called while a worker runs: samples the sensors, and ends it before it takes the last memory."""

    def __init__(self, sensors: Sensors, cpus: Sequence[int], free_memory_bytes: int) -> None:
        self.sensors, self.cpus, self.free_memory_bytes = sensors, cpus, free_memory_bytes
        self.samples: List[Sample] = []
        self.sample(None)

    def sample(self, pid: Optional[int]) -> Sample:
        """Read all sensors now."""
        rss = None if pid is None else _resident_bytes(pid)
        sample = Sample(**self.sensors.sample(self.cpus), worker_rss_bytes=rss)
        self.samples.append(sample)
        return sample

    def __call__(self, pid: int) -> Optional[str]:
        """The reason to end the worker, or None: also where others took the memory."""
        if time.monotonic_ns() - self.samples[-1].at_ns < _SAMPLE_NS:
            return None
        sample = self.sample(pid)
        before, available = self.samples[0].memory_available_bytes, sample.memory_available_bytes
        rss = sample.worker_rss_bytes
        if before is None or available is None or rss is None or available >= self.free_memory_bytes:
            return None
        if rss < (before - available) / 2:
            return None
        return (
            f"it took {rss / 2**20:.0f} MiB of memory and left {available / 2**20:.0f} MiB "
            f"({self.free_memory_bytes / 2**20:.0f} MiB must stay free)"
        )


def _resident_bytes(pid: int) -> Optional[int]:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(found[0]) * 1024 if found else None
