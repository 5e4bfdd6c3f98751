from __future__ import annotations

import io
from typing import Any

import pytest
from report_samples import LITERT, make_case, make_job, make_manifest
from rich.console import Console

from liteship.bench.follow import Follower, case_name
from liteship.bench.live import DONE, FAILED, RUNNING, WAITING, CaseLine, LiveTable
from liteship.progress import Reporter
from liteship_agent.job import Job
from liteship_agent.manifest import Manifest
from liteship_agent.records import to_json
from liteship_agent.schedule import block_order

VARIANTS = ("none-none", "none-int8", "magnitude50-none", "magnitude50-int8")
ROUNDS = 2
Event = dict[str, Any]


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest()


@pytest.fixture
def job() -> Job:
    return make_job(*VARIANTS, rounds=ROUNDS)


@pytest.fixture
def order(job: Job) -> list[list[int]]:
    """The cases of each round, as the target runs them."""
    return block_order(range(len(job.cases)), ROUNDS, job.seed)


@pytest.fixture
def heard() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def follower(manifest: Manifest, job: Job, heard: io.StringIO) -> Follower:
    return Follower(manifest, job, Reporter(Console(file=heard)), lambda amount: None, LiveTable())


def block(case_index: int, round_index: int = 0, **changes: Any) -> Event:
    fields = {"attempt": 0, "validity": "valid", "reasons": [], "median_ns": 1.5e6, "temperature_celsius": 51.2}
    return {"event": "block", "case_index": case_index, "round_index": round_index, **fields, **changes}


def canary(round_index: int = 0) -> Event:
    return {"event": "canary", "round_index": round_index, "median_ns": 1.5e6}


def states(follower: Follower) -> list[str]:
    return [line.state for line in follower.lines()]


def test_every_case_waits_until_a_canary_opens_the_round(follower: Follower, order: list[list[int]]) -> None:
    assert states(follower) == [WAITING] * 4
    follower(canary())
    assert states(follower)[order[0][0]] == RUNNING
    assert states(follower).count(RUNNING) == 1


def test_next_of_the_round_runs_after_a_block(follower: Follower, order: list[list[int]]) -> None:
    follower(canary())
    for place, index in enumerate(order[0]):
        assert states(follower)[index] == RUNNING
        follower(block(index))
        assert states(follower).count(RUNNING) == (place < 3)
    follower(canary(1))
    assert states(follower)[order[1][0]] == RUNNING


def test_line_has_what_was_measured_so_far(follower: Follower) -> None:
    follower(block(1, 0, median_ns=1_000_000))
    follower(block(1, 1, median_ns=3_000_000, temperature_celsius=60.0))
    assert follower.lines()[1] == CaseLine("none-int8", DONE, 2, 2, 2, 0, 2_000_000, 60.0)
    assert follower.lines()[0] == CaseLine("none-none", WAITING, 0, 2, 0, 0, None, None)


def test_void_block_counts_as_void_and_runs_again(follower: Follower, order: list[list[int]]) -> None:
    index = order[0][0]
    follower(canary())
    follower(block(index, validity="void", reasons=["a throttle bit came"], median_ns=9e6))
    line = follower.lines()[index]
    assert (line.done, line.valid, line.void, line.median_ns) == (1, 0, 1, 9e6)
    assert states(follower)[order[0][1]] == RUNNING
    follower({"event": "wait", "reason": "it is void"})
    assert states(follower)[index] == RUNNING
    follower(block(index, attempt=1, median_ns=2e6))
    line = follower.lines()[index]
    assert (line.done, line.valid, line.void, line.median_ns) == (1, 1, 1, 2e6)


def test_blocks_of_a_void_round_are_void_and_lacking(follower: Follower, order: list[list[int]]) -> None:
    for index in range(4):
        follower(block(index, validity="void" if index == 0 else "valid"))
    follower({"event": "void_round", "round_index": 0, "opening": 0, "reason": "the canary moved"})
    follower({"event": "wait", "reason": "round 1 is void: the canary moved"})
    assert [(line.done, line.valid, line.void) for line in follower.lines()] == [(0, 0, 1)] * 4
    assert RUNNING not in states(follower)
    follower(canary())
    assert states(follower)[order[0][0]] == RUNNING


def test_failed_case_is_over(follower: Follower, order: list[list[int]]) -> None:
    first, second = order[0][:2]
    follower(canary())
    follower({"event": "failed", "case_index": first, "round_index": 0, "reason": "it was killed"})
    assert (states(follower)[first], states(follower)[second]) == (FAILED, RUNNING)
    for index in order[0][1:]:
        follower(block(index))
    follower(canary(1))
    assert states(follower)[first] == FAILED


def test_job_that_is_gone_on_with_is_shown_from_its_start(follower: Follower, job: Job, heard: io.StringIO) -> None:
    follower(block(0))
    other = make_job(*VARIANTS[:2], rounds=3, job_id="20261121-1")
    follower({"event": "started", "job": to_json(other)})
    assert [(line.name, line.done, line.rounds) for line in follower.lines()] == [
        ("none-none", 0, 3),
        ("none-int8", 0, 3),
    ]
    assert "going on with job 20261121-1" in heard.getvalue()


def test_machine_without_a_sensor_has_no_temperature(follower: Follower) -> None:
    follower(block(0, temperature_celsius=None))
    assert follower.lines()[0].temperature_celsius is None


def test_case_is_named_by_what_tells_it_from_others(manifest: Manifest) -> None:
    runtimes = {LITERT: "ai-edge-litert==2.3.0", "other": "tflite-runtime==2.14.0"}
    plain, threaded = make_case("none-none"), make_case("none-none", threads=4)
    jobs = {
        (plain,): "none-none",
        (plain, threaded): "none-none 1 thread",
        (threaded, plain): "none-none 4 threads",
        (plain, make_case("none-none", runtime="other")): "none-none ai-edge-litert",
        (plain, make_case("none-none", cpus=(4,))): "none-none CPU 0,1,2,3",
    }
    for cases, name in jobs.items():
        assert case_name(manifest, make_job(*cases, runtimes=runtimes), 0) == name


def test_progress_counts_every_block_of_a_round_once(manifest: Manifest) -> None:
    amounts: list[float] = []
    follower = Follower(manifest, make_job(*VARIANTS), Reporter(Console(file=io.StringIO())), amounts.append)
    follower(block(0))
    follower(block(0, attempt=1))
    follower(block(1, 0))
    assert sum(amounts) == 2
    follower({"event": "failed", "case_index": 1, "round_index": 1, "reason": "it hangs"})
    assert sum(amounts) == 1 + 6


@pytest.mark.parametrize("has_table", [True, False])
def test_bar_says_what_no_table_shows(has_table: bool, manifest: Manifest, job: Job) -> None:
    said: list[str] = []
    say = Reporter(Console(file=io.StringIO()))
    say.describe = said.append  # type: ignore[method-assign]
    follower = Follower(manifest, job, say, lambda amount: None, LiveTable() if has_table else None)
    follower(canary(1))
    follower(block(1, 1))
    rest = "" if has_table else ", none-int8 1.50 ms, 51 °C"
    assert said == ["pi: round 2 of 2, canary 1.50 ms", f"pi: round 2 of 2{rest}"]
