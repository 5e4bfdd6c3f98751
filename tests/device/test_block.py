from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import cv2
import pytest
from release_samples import good_artefact, install, make_request, photographs, sha

from liteship_agent import block, images, timing
from liteship_agent.block import Counters, run_block
from liteship_agent.errors import ImageError, ModelError, RecordError
from liteship_agent.release import VALIDATION, artefact_path
from liteship_agent.runtime import Model

SECOND = 1_000_000_000
GOOD = good_artefact()


@pytest.fixture
def release(tmp_path):
    return install(tmp_path, {"none-none": GOOD, "none-int8": good_artefact("int8")})


def run(release, **changes):
    return run_block(make_request(release, **changes), lambda *_, **__: None)


# --- a whole block, with the real runtime ---


def test_block_has_as_many_latencies_as_were_asked_for(release, monkeypatch):
    monkeypatch.setattr(timing, "time_end_to_end", bounded_by(60.0))

    result = run(release)

    assert len(result["latencies_ns"]) == len(result["end_to_end_ns"]) == 5
    assert min(result["latencies_ns"] + result["end_to_end_ns"] + [result["init_ns"], result["first_ns"]]) > 0
    assert set(result["stages_ns"]) == {"decode", "preprocess", "invoke", "postprocess"}
    assert result["loop_ns"] >= sum(result["latencies_ns"])
    assert result["invoke_cpu_ns"] > 0
    assert result["warmup_count"] >= 5
    assert result["warmup_ns"] >= 100_000_000


def bounded_by(seconds):
    """End-to-end queries that may take so long, however quick the invocations were."""
    real = timing.time_end_to_end
    return lambda query, min_queries, _: real(query, min_queries, seconds)


def test_block_names_the_bytes_that_were_loaded_and_what_ran_them(release):
    result = run(release, threads=3)

    installed = (release.path / artefact_path("none-none")).read_bytes()
    assert result["artefact"] == sha(installed)
    assert (result["runtime"], result["threads"], result["total_nodes"]) == ("ai-edge-litert", 3, 3)
    assert result["cpus"] == sorted(os.sched_getaffinity(0))
    assert result["rss_peak_bytes"] > result["rss_anon_bytes"] > 1 << 20
    assert cv2.getNumThreads() == 3


def test_timed_part_lies_between_warm_up_and_result_and_holds_all_queries(release):
    result = run(release)

    timed_ns = result["timed_to_ns"] - result["timed_from_ns"]
    assert timed_ns >= result["loop_ns"] + sum(result["end_to_end_ns"])


def test_block_without_scores_has_none(release):
    assert run(release)["scores"] is None


def test_limit_is_the_number_of_images_that_are_scored(release):
    assert len(run(release, limit=3, with_scores=True)["scores"]["scores"]) == 3


def test_canary_runs_no_end_to_end_query(release, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("no image is wanted")

    monkeypatch.setattr(timing, "end_to_end_query", refuse)

    result = run(release, end_to_end=False)

    assert (result["end_to_end_ns"], result["stages_ns"]) == ([], {})
    assert len(result["latencies_ns"]) == 5


def test_phases_come_in_order_and_counters_are_read_around_the_timed_part_only(release, monkeypatch):
    order = []

    def record(owner, name, label=None):
        real = getattr(owner, name)

        def recorded(*arguments, **options):
            order.append(label or name)
            return real(*arguments, **options)

        monkeypatch.setattr(owner, name, recorded)

    record(block, "Model", "load")
    for name in ("time_invocations", "time_end_to_end", "warm_up", "end_to_end_query"):
        record(timing, name)
    record(Counters, "read", "counters")
    record(block, "run_accuracy_pass")
    first = timing.time_invocation
    monkeypatch.setattr(
        timing,
        "time_invocation",
        lambda *arguments: (order.append("first") if "warm_up" not in order else None, first(*arguments))[1],
    )

    def announce(phase, seconds, **details):
        assert seconds > 0
        order.append(f"[{phase}]")

    run_block(make_request(release, min_queries=1, with_scores=True), announce)

    assert order[:12] == [
        *("[load]", "load", "first", "[warm-up]", "end_to_end_query", "warm_up"),
        *("[timed]", "counters", "time_invocations", "time_end_to_end", "end_to_end_query", "counters"),
    ]
    assert order[12] == "run_accuracy_pass"
    assert set(order[13:]) == {"[accuracy]"}


def test_untimed_end_to_end_query_counts_as_warm_up(release, monkeypatch):
    monkeypatch.setattr(timing, "warm_up", lambda model, tensors, seconds: [10, 20, 30])
    monkeypatch.setattr(timing, "end_to_end_query", lambda *arguments: (1, 2, 5, 4))

    assert [run(release)[name] for name in ("warmup_count", "warmup_ns")] == [4, 65]
    assert [run(release, end_to_end=False)[name] for name in ("warmup_count", "warmup_ns")] == [3, 60]


def test_end_to_end_queries_take_no_longer_than_the_invocations_did(release, monkeypatch):
    asked = []
    monkeypatch.setattr(
        timing, "time_invocations", lambda *arguments: timing.Invocations([SECOND] * 5, 7 * SECOND, SECOND)
    )
    monkeypatch.setattr(
        timing, "time_end_to_end", lambda query, count, seconds: (asked.append((count, seconds)), ([1], {}))[1]
    )

    run(release)
    run(release, max_seconds=2.0)

    assert asked == [(5, 7.0), (5, 2.0)]


def test_only_timed_images_are_decoded_where_no_pixels_are_kept(release, monkeypatch):
    monkeypatch.setattr(block, "_DISTINCT_IMAGES", 2)
    read = []
    real = images.read_image
    monkeypatch.setattr(images, "read_image", lambda archive, image: (read.append(image.path), real(archive, image))[1])

    run(release, end_to_end=False, seed=1)

    assert len(read) == len(set(read)) == 2


def test_decoded_pixels_are_timed_where_they_are_kept(release, monkeypatch):
    run(release, with_scores=True)

    def refuse(archive, image):
        raise AssertionError("no file is wanted")

    monkeypatch.setattr(images, "read_image", refuse)

    assert len(run(release, end_to_end=False)["latencies_ns"]) == 5


def test_equal_seeds_time_the_same_images_and_others_do_not(monkeypatch):
    monkeypatch.setattr(block, "_DISTINCT_IMAGES", 4)

    assert block._choose(1000, 3) == block._choose(1000, 3) != block._choose(1000, 4)
    assert sorted(block._choose(3, 0)) == [0, 1, 2]


# --- what cannot be run ---


def test_unknown_artefact_is_refused(release):
    with pytest.raises(RecordError, match=r"an artefact of the manifest is required\. Received: ffff"):
        run(release, artefact="ffff")


def test_artefact_whose_bytes_are_others_is_refused(release):
    (release.path / artefact_path("none-none")).write_bytes(good_artefact("int8").content)

    with pytest.raises(RecordError, match=r"none-none\.tflite: content with sha256"):
        run(release)


def test_file_that_is_no_model_is_a_model_error(tmp_path):
    release = install(tmp_path, {"none-none": replace(GOOD, content=b"no model")})

    with pytest.raises(ModelError, match="none-none: "):
        run(release, artefact=sha(b"no model"))


def test_missing_validation_set_is_named(release):
    (release.path / VALIDATION).unlink()

    with pytest.raises(RecordError, match=r"validation\.tar: a readable validation set is required"):
        run(release)


def test_broken_image_is_named_in_one_line(tmp_path):
    files = [(path, label, data[:-30] if path == "green/1.png" else data) for path, label, data in photographs()]
    release = install(tmp_path, {"none-none": GOOD}, files)

    with pytest.raises(ImageError, match=r"^green/1\.png: a whole image is required[^\n]*$"):
        run(release)


def test_model_that_fails_while_it_is_timed_is_a_model_error(release, monkeypatch):
    def fail(self):
        raise ModelError("none-none: node 3 failed")

    monkeypatch.setattr(Model, "invoke", fail)

    with pytest.raises(ModelError, match="node 3"):
        run(release)


# --- what surrounds the timed part ---

BEFORE = Counters(at_ns=10 * SECOND, busy_ns=100 * SECOND, own_ns=3 * SECOND, major_faults=7, swapped_in_pages=50)


def test_cpu_time_of_others_is_what_the_machine_used_beyond_this_process():
    after = Counters(14 * SECOND, 108 * SECOND, 5 * SECOND, 9, 53)

    assert BEFORE.until(after) == {
        "timed_from_ns": 10 * SECOND,
        "timed_to_ns": 14 * SECOND,
        "others_cores": 1.5,
        "major_faults": 2,
        "swapped_in_pages": 3,
    }


def test_cpu_time_of_others_is_never_negative():
    """The kernel counts the machine in ticks and a process exactly."""
    after = replace(BEFORE, at_ns=11 * SECOND, own_ns=4 * SECOND)

    assert BEFORE.until(after)["others_cores"] == 0.0


@pytest.mark.parametrize("unknown", ["before", "after"])
def test_what_the_machine_does_not_tell_is_null(unknown):
    silent = replace(BEFORE, busy_ns=None, swapped_in_pages=None)
    before, after = (silent, BEFORE) if unknown == "before" else (BEFORE, silent)

    found = before.until(after)

    assert (found["others_cores"], found["swapped_in_pages"]) == (None, None)


def test_counters_are_those_of_this_machine_and_process():
    found = Counters.read(SimpleNamespace(busy_ns=lambda: 5))

    assert found.busy_ns == 5
    assert found.own_ns > 0
    assert found.swapped_in_pages is None or found.swapped_in_pages >= 0


@pytest.mark.parametrize(("text", "pages"), [("pswpin 42\npswpout 7\n", 42), ("nr_free_pages 3\n", None)])
def test_swapped_in_pages_are_read_from_the_kernel(tmp_path, monkeypatch, text, pages):
    (tmp_path / "vmstat").write_text(text)
    monkeypatch.setattr(block, "_VMSTAT", tmp_path / "vmstat")

    assert block._swapped_in_pages() == pages


def test_swapped_in_pages_are_null_without_the_kernels_file(tmp_path, monkeypatch):
    monkeypatch.setattr(block, "_VMSTAT", tmp_path / "missing")

    assert block._swapped_in_pages() is None
