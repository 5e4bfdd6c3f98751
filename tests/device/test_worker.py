from __future__ import annotations

import gc
import io
import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from release_samples import LABELS, RUNTIME, good_artefact, install, photographs, sha

from liteship_agent import worker
from liteship_agent.errors import ModelError, RecordError
from liteship_agent.images import decode_all, pixels_path
from liteship_agent.records import from_json
from liteship_agent.release import VALIDATION, artefact_path
from liteship_agent.report import Block
from liteship_agent.worker import Request, run_block

MILLISECOND = 1_000_000
GOOD = good_artefact()


@pytest.fixture
def release(tmp_path):
    """A release whose validation images are decoded already, as run-job does before the first block."""
    release = install(tmp_path, {"none-none": GOOD, "none-int8": good_artefact("int8")})
    decode(release)
    return release


def decode(release, limit=None):
    manifest = release.manifest()
    images = worker.selected_images(manifest, limit)
    for _ in decode_all(
        release.path / VALIDATION, images, GOOD.input, pixels_path(release.folder, manifest, GOOD.input, limit)
    ):
        pass


def request_for(release, **changes):
    request = Request(
        folder=str(release.folder),
        release_id=release.release_id,
        artefact=sha(GOOD.content),
        threads=1,
        min_queries=5,
        min_seconds=0.0,
        max_seconds=60.0,
        seed=0,
        limit=None,
        with_scores=False,
    )
    return replace(request, **changes)


# --- a whole block, with the real runtime ---


def test_block_has_as_many_latencies_as_were_asked_for(release):
    result = run_block(request_for(release))

    assert len(result["latencies_ns"]) == len(result["end_to_end_ns"]) == 5
    assert min(result["latencies_ns"] + result["end_to_end_ns"] + [result["init_ns"], result["first_ns"]]) > 0
    assert 10 <= result["warmup_count"] <= 50


def test_block_names_the_bytes_that_were_loaded_and_what_ran_them(release):
    result = run_block(request_for(release, threads=2))

    installed = (release.path / artefact_path("none-none")).read_bytes()
    assert result["artefact"] == sha(installed)
    assert (result["runtime"], result["threads"], result["total_nodes"]) == ("ai-edge-litert", 2, 3)
    assert result["rss_peak_bytes"] > result["rss_anon_bytes"] > 1 << 20
    assert set(result["sensors"]) == {"before", "after"}


def test_block_is_a_record_of_the_report_once_it_has_its_place(release):
    result = json.loads(json.dumps(run_block(request_for(release))))

    block = from_json(Block, {**result, "round_index": 3, "order": 1}, "journal.jsonl")

    assert block.extra == {}
    assert len(block.latencies_ns) == 5


def test_block_without_scores_has_none(release):
    assert "scores" not in run_block(request_for(release))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_scores_are_one_row_per_image_in_the_order_of_the_set(release, dtype):
    artefact = sha(good_artefact(dtype).content)

    scores = run_block(request_for(release, artefact=artefact, with_scores=True))["scores"]

    answers = [LABELS[row.index(max(row))] for row in scores]
    labels = [path.split("/")[0] for path, _, _ in photographs()]
    assert answers == ["green", *labels[1:]]  # the first file shows another color than its folder says
    assert all(sum(row) == pytest.approx(1, abs=0.02) for row in scores)


def test_limit_is_the_number_of_images_that_are_scored(release):
    decode(release, 3)

    assert len(run_block(request_for(release, limit=3, with_scores=True))["scores"]) == 3


def test_timed_queries_end_with_the_maximum_even_if_they_are_too_few(release):
    result = run_block(request_for(release, min_queries=10**9, max_seconds=1e-9))

    assert len(result["latencies_ns"]) == 1


def test_artefact_whose_bytes_are_others_is_refused(release):
    (release.path / artefact_path("none-none")).write_bytes(good_artefact("int8").content)

    with pytest.raises(RecordError, match=r"none-none\.tflite: content with sha256"):
        run_block(request_for(release))


def test_file_that_is_no_model_is_a_model_error(tmp_path):
    release = install(tmp_path, {"none-none": replace(GOOD, content=b"no model")})
    decode(release)

    with pytest.raises(ModelError, match="none-none: "):
        run_block(request_for(release, artefact=sha(b"no model")))


def test_main_answers_the_request_on_stdin_with_one_line(release, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asdict(request_for(release)))))

    worker.main()

    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["artefact"] == sha(GOOD.content)


def test_request_without_a_field_is_refused(release, monkeypatch):
    incomplete = asdict(request_for(release))
    del incomplete["threads"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(incomplete)))

    with pytest.raises(RecordError, match="worker request: threads: this field is required"):
        worker.main()


# --- the timed loop, with a clock of its own ---


class Clock:
    """Stands still unless it is moved; takes the place of `time` in the worker."""

    def __init__(self) -> None:
        self.now_ns = 7 * MILLISECOND

    def perf_counter_ns(self) -> int:
        return self.now_ns


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


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(worker, "time", clock)
    return clock


def limits(min_queries=0, min_seconds=0.0, max_seconds=60.0):
    return SimpleNamespace(min_queries=min_queries, min_seconds=min_seconds, max_seconds=max_seconds)


def test_latency_is_the_invocation_alone(clock):
    assert worker._time_invocations(FakeModel(clock), "ab", limits(min_queries=3)) == [MILLISECOND] * 3


@pytest.mark.parametrize(
    ("limit", "count"),
    [
        (limits(min_queries=7), 7),
        (limits(min_queries=2, min_seconds=0.048), 10),  # 5 ms a query, the last one begins before 48 ms
        (limits(min_queries=20, min_seconds=0.048), 20),
        (limits(min_queries=100, min_seconds=0.048, max_seconds=0.012), 3),
        (limits(min_queries=100, min_seconds=100.0, max_seconds=0.001), 1),
    ],
)
def test_queries_go_on_until_both_minima_are_met_or_the_maximum_is(clock, limit, count):
    assert len(worker._time_invocations(FakeModel(clock), "ab", limit)) == count


def test_queries_take_the_tensors_in_turn(clock):
    model = FakeModel(clock)

    worker._time_invocations(model, "abc", limits(min_queries=7))

    assert "".join(model.inputs) == "abcabca"


def test_garbage_is_collected_before_and_after_the_queries_only(clock):
    model = FakeModel(clock)

    worker._time_invocations(model, "a", limits(min_queries=3))

    assert model.collecting == [False] * 3
    assert gc.isenabled()


def test_garbage_is_collected_again_after_a_failure(clock):
    def fail(query):
        raise RuntimeError("node 3 failed")

    with pytest.raises(RuntimeError, match="node 3"):
        worker._time_invocations(FakeModel(clock, fail), "a", limits(min_queries=3))

    assert gc.isenabled()


def test_warm_up_ends_when_latencies_are_steady(clock):
    assert worker._warm_up(FakeModel(clock), "a") == 10


def test_warm_up_waits_until_latencies_are_steady(clock):
    model = FakeModel(clock, lambda query: (20 - query) * MILLISECOND if query < 16 else MILLISECOND)

    assert 20 <= worker._warm_up(model, "a") <= 26


def test_warm_up_ends_after_fifty_when_latencies_never_are(clock):
    assert worker._warm_up(FakeModel(clock, lambda query: (query + 1) * MILLISECOND), "a") == 50


def test_end_to_end_counts_decoding_and_not_reading(clock, monkeypatch):
    def spend(nanoseconds, value):
        def run(*arguments):
            clock.now_ns += nanoseconds
            return value

        return run

    monkeypatch.setattr(worker, "read_image", spend(50 * MILLISECOND, b"file"))
    monkeypatch.setattr(worker, "decode", spend(3 * MILLISECOND, None))
    monkeypatch.setattr(worker, "preprocess", spend(2 * MILLISECOND, None))
    monkeypatch.setattr(worker, "to_scores", spend(0, None))
    model = SimpleNamespace(run=spend(MILLISECOND, None))
    entry, image = SimpleNamespace(input=None, output=None), SimpleNamespace(path="red/0.png")

    def run(limit):
        return worker._time_end_to_end(model, entry, None, [image], limit)

    assert run(limits(min_queries=4)) == [6 * MILLISECOND] * 4
    assert len(run(limits(min_queries=4, max_seconds=0.1))) == 2


def test_runtime_folder_of_the_samples_is_this_pythons(release):
    assert (release.runtime(RUNTIME) / "numpy").is_dir()


def test_score_that_is_not_a_number_is_a_model_error(release, monkeypatch):
    monkeypatch.setattr(worker, "to_scores", lambda output, contract: np.full((1, len(LABELS)), np.nan))

    with pytest.raises(ModelError, match="finite scores are required"):
        run_block(request_for(release, with_scores=True))
