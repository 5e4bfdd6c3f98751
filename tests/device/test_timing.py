from __future__ import annotations

import gc
from types import SimpleNamespace

import pytest

from liteship_agent import timing

MILLISECOND = 1_000_000
SECOND = 1_000 * MILLISECOND


class Clock:
    """Stands still unless it is moved; takes the place of `time`. The process uses half of every moment."""

    def __init__(self) -> None:
        self.now_ns = 7 * MILLISECOND

    def perf_counter_ns(self) -> int:
        return self.now_ns

    def process_time_ns(self) -> int:
        return self.now_ns // 2


class FakeModel:
    """Each query takes 1 ms to run and 4 ms to set; `invoke_ns` may change from query to query."""

    def __init__(self, clock, invoke_ns=lambda query: MILLISECOND) -> None:
        self.clock, self.invoke_ns = clock, invoke_ns
        self.inputs, self.collecting = [], []

    def set_input(self, tensor):
        self.clock.now_ns += 4 * MILLISECOND
        self.inputs.append(tensor)

    def invoke(self):
        self.collecting.append(gc.isenabled())
        self.clock.now_ns += self.invoke_ns(len(self.inputs) - 1)

    def run(self, tensor):
        self.set_input(tensor)
        self.invoke()
        return "output"


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "time", clock)
    return clock


def invocations(model, tensors="ab", min_queries=0, min_seconds=0.0, max_seconds=60.0):
    return timing.time_invocations(model, tensors, min_queries, min_seconds, max_seconds)


# --- invoke only ---


def test_latency_is_the_invocation_alone_and_the_loop_is_all(clock):
    found = invocations(FakeModel(clock), min_queries=4)

    assert found == timing.Invocations([MILLISECOND] * 4, 20 * MILLISECOND, 10 * MILLISECOND)


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({"min_queries": 7}, 7),
        ({"min_queries": 2, "min_seconds": 0.048}, 10),  # 5 ms a query, the last one begins before 48 ms
        ({"min_queries": 20, "min_seconds": 0.048}, 20),
        ({"min_queries": 100, "min_seconds": 0.048, "max_seconds": 0.012}, 3),
        ({"min_queries": 100, "min_seconds": 100.0, "max_seconds": 0.001}, 1),
        ({"max_seconds": 0.0}, 1),
    ],
)
def test_queries_go_on_until_both_minima_are_met_or_the_maximum_is(clock, limits, count):
    assert len(invocations(FakeModel(clock), **limits).latencies_ns) == count


def test_queries_take_the_tensors_in_turn(clock):
    model = FakeModel(clock)

    invocations(model, "abc", min_queries=7)

    assert "".join(model.inputs) == "abcabca"


def test_garbage_is_collected_before_and_after_the_queries_only(clock):
    model = FakeModel(clock)

    invocations(model, min_queries=3)

    assert model.collecting == [False] * 3
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure(clock):
    def fail(query):
        raise RuntimeError("node 3 failed")

    with pytest.raises(RuntimeError, match="node 3"):
        invocations(FakeModel(clock, fail), min_queries=3)

    assert gc.isenabled()


def test_garbage_collection_that_was_off_stays_off(clock):
    gc.disable()
    try:
        invocations(FakeModel(clock), min_queries=3)
        assert not gc.isenabled()
    finally:
        gc.enable()


# --- warm-up ---


def test_warm_up_ends_when_two_windows_of_five_agree(clock):
    assert timing.warm_up(FakeModel(clock, lambda query: 20 * MILLISECOND), "a", 1.0) == [20 * MILLISECOND] * 10


def test_warm_up_waits_until_latencies_are_steady(clock):
    model = FakeModel(clock, lambda query: max(20, 40 - query) * MILLISECOND)

    latencies = timing.warm_up(model, "a", 10.0)

    assert latencies[-5:] == [20 * MILLISECOND] * 5
    assert 25 <= len(latencies) <= 30


@pytest.mark.parametrize(("drift", "count"), [(0.009, 10), (0.011, 13), (-0.009, 10), (-0.011, 13)])
def test_warm_up_ends_below_a_drift_of_one_percent(clock, drift, count):
    """All but the first five differ from those; after 13 most of the earlier window are of the second kind too."""
    model = FakeModel(clock, lambda query: int(100 * MILLISECOND * (1 + drift if query >= 5 else 1)))

    assert len(timing.warm_up(model, "a", 10.0)) == count


def test_warm_up_ends_after_fifty_runs_when_latencies_never_are_steady(clock):
    model = FakeModel(clock, lambda query: (query + 1) * MILLISECOND)

    assert len(timing.warm_up(model, "a", 10.0)) == 50


@pytest.mark.parametrize(("seconds", "count"), [(0.2, 9), (2.0, 13)])
def test_warm_up_that_is_never_steady_ends_after_its_time_and_not_before_one_second(clock, seconds, count):
    model = FakeModel(clock, lambda query: (query + 1) * 25 * MILLISECOND)

    assert len(timing.warm_up(model, "a", seconds)) == count


def test_slow_model_warms_up_five_times_however_long_that_takes(clock):
    assert timing.warm_up(FakeModel(clock, lambda query: 3 * SECOND), "a", 1.0) == [3 * SECOND] * 5


def test_fast_model_warms_up_for_a_tenth_of_a_second(clock):
    assert len(timing.warm_up(FakeModel(clock), "a", 1.0)) == 100


# --- end to end ---


@pytest.fixture
def stages(clock, monkeypatch):
    """Decoding takes 3 ms, preprocessing 2, postprocessing 1."""

    def spend(milliseconds, value):
        def run(*arguments):
            clock.now_ns += milliseconds * MILLISECOND
            return value

        return run

    monkeypatch.setattr(timing, "decode", spend(3, "image"))
    monkeypatch.setattr(timing, "preprocess", spend(2, "tensor"))
    monkeypatch.setattr(timing, "to_scores", spend(1, None))


@pytest.mark.usefixtures("stages")
def test_end_to_end_query_tells_its_stages_apart(clock):
    entry = SimpleNamespace(input=None, output=None)
    model = FakeModel(clock)

    found = timing.end_to_end_query(model, entry, b"file", "red/0.png")

    assert found == (3 * MILLISECOND, 2 * MILLISECOND, 5 * MILLISECOND, MILLISECOND)
    assert model.inputs == ["tensor"]


def queries(clock, asked=None):
    def query(number):
        if asked is not None:
            asked.append((number, gc.isenabled()))
        clock.now_ns += 10 * MILLISECOND
        return 3, 2, 1 + number, 1

    return query


def test_end_to_end_latency_is_the_sum_of_its_stages(clock):
    latencies, stages = timing.time_end_to_end(queries(clock), 3, 60.0)

    assert latencies == [7, 8, 9]
    assert stages == {"decode": 3, "preprocess": 2, "invoke": 2, "postprocess": 1}


@pytest.mark.parametrize(("seconds", "count"), [(60.0, 9), (0.025, 3), (0.0, 1)])
def test_end_to_end_queries_end_with_their_number_or_time_and_are_one_at_least(clock, seconds, count):
    asked = []

    latencies, _ = timing.time_end_to_end(queries(clock, asked), 9, seconds)

    assert len(latencies) == count
    assert asked == [(number, False) for number in range(count)]
    assert gc.isenabled()
