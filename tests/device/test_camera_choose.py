"""Which model is loaded, what the page says about it, and the options that say what is wanted."""

from __future__ import annotations

import argparse
import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from camera_samples import classifier
from release_samples import RUNTIME, good_artefact, make_job, sha
from session_samples import add_release, camera_options, other_model

from liteship_agent.camera import process, start
from liteship_agent.camera.card import Accuracy, card_rows, measured_accuracy
from liteship_agent.camera.choose import choose, current
from liteship_agent.camera.errors import CameraError
from liteship_agent.camera.figures import Recorder
from liteship_agent.camera.options import CameraOptions, add_camera_options
from liteship_agent.camera.terminal import PlainView, TerminalView
from liteship_agent.camera.vitals import RecentRate, pipeline_fields, throttled
from liteship_agent.errors import AgentError, StoreError
from liteship_agent.records import to_json, write_record
from liteship_agent.release import ReleaseRuntime
from liteship_agent.sensors import Sensors

ARTEFACTS = {"none-none": good_artefact(), "none-int8": good_artefact("int8"), "magnitude50-none": other_model()}


@pytest.fixture
def release(tmp_path):
    return add_release(tmp_path / "board", ARTEFACTS)


def give_runtimes(release, **refused: tuple[str, ...]) -> None:
    """Let a release have runtimes, each of which refuses variants."""
    names = {name: tuple(sha(ARTEFACTS[one].content) for one in variants) for name, variants in refused.items()}
    runtimes = tuple(ReleaseRuntime(name.replace("_", "-"), sha(name), shas) for name, shas in names.items())
    write_record(replace(release.record(), runtimes=runtimes), release.path / "release.json")


# --- choosing ---


def test_baseline_comes_first(release):
    chosen = choose(release, None, None)
    assert (chosen.runtime, chosen.variants) == (RUNTIME, ("none-none", "none-int8", "magnitude50-none"))


def test_wanted_variant_is_the_only_one(release):
    assert choose(release, "none-int8", None).variants == ("none-int8",)


def test_preferred_variant_comes_first_where_it_is_there(release):
    assert choose(release, None, None, "none-int8").variants[0] == "none-int8"
    assert choose(release, None, None, "filter30-none").variants[0] == "none-none"


def test_runtime_that_refuses_the_variant_is_passed_over(release):
    give_runtimes(release, ai_edge_litert_2=("none-none",), tflite_runtime_2=())
    assert choose(release, None, None).runtime == "tflite-runtime-2"
    chosen = choose(release, None, "ai-edge-litert")
    assert (chosen.runtime, chosen.variants) == ("ai-edge-litert-2", ("none-int8", "magnitude50-none"))


def test_nothing_that_loads_is_told(release):
    give_runtimes(release, tflite_runtime_2=("none-int8",))
    with pytest.raises(StoreError, match=r"tflite-runtime-2 can load is required\. Received: none-int8"):
        choose(release, "none-int8", None)


@pytest.mark.parametrize(
    ("variant", "runtime", "message"),
    [
        ("x", None, r"none-none, none-int8, magnitude50-none\) is required"),
        (None, "y", r"a runtime .*\(site\) is required"),
    ],
)
def test_unknown_names_are_told_with_those_that_there_are(release, variant, runtime, message):
    with pytest.raises(StoreError, match=message):
        choose(release, variant, runtime)


def test_variant_whose_file_was_not_sent_is_none_of_the_release(tmp_path):
    release = add_release(tmp_path / "board", {**ARTEFACTS, "none-int8": replace(good_artefact("int8"), sent=False)})
    assert choose(release, None, None).variants == ("none-none", "magnitude50-none")


def test_current_is_looked_up_once(release):
    found = current(release.folder)
    add_release(release.folder, {"none-none": other_model(2)})
    assert found.release_id == release.release_id


def test_folder_without_a_release_is_told(tmp_path):
    with pytest.raises(StoreError, match="an active release is required"):
        current(tmp_path)


def test_process_becomes_one_with_the_runtime_and_the_resolved_release(release, monkeypatch):
    became = []
    monkeypatch.setattr(os, "execv", lambda program, words: became.append(words))
    start.start(camera_options(release.folder), ["--folder", "f", "--mirror"])
    words = became[0]
    at = words.index("--runtime")
    assert words[at : at + 3] == ["--runtime", str(release.folder / "runtimes" / RUNTIME), "camera-runtime"]
    tail = ["--release", release.release_id, "--runtime-folder", RUNTIME, "--variants", "none-none"]
    assert words[at + 3 : at + 12] == ["--folder", "f", "--mirror", *tail]
    assert not any("current" in word for word in words)


def test_missing_token_is_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(CameraError, match="a token is required"):
        start.start(camera_options(tmp_path, view="web", host="0.0.0.0"), [])


def test_cpus_that_are_not_there_are_refused(release):
    with pytest.raises(AgentError, match="CPUs that run and may be used"):
        start.start(camera_options(release.folder, cpus="4000"), [])


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 1), (4, 3), (8, 4)])
def test_one_cpu_is_left_for_frames_and_viewers(cpus, threads):
    assert start.default_threads(cpus) == threads


# --- the card ---


def write_report(release, rows, job_id: str = "20261122-101500-0123456789ab", **changes) -> Path:
    job = make_job(release, job_id=job_id)
    path = release.folder / "jobs" / job_id / "report.json"
    path.parent.mkdir(parents=True)
    scores = [{"artefact": sha(ARTEFACTS["none-none"].content), "runtime": RUNTIME, "scores": rows}]
    manifest = sha((release.path / "manifest.json").read_bytes())
    path.write_text(json.dumps({"job": to_json(job), "manifest_sha256": manifest, "accuracy": scores, **changes}))
    return path


RED = [[1.0, 0.0, 0.0]] * 12
ARTEFACT = sha(ARTEFACTS["none-none"].content)


def test_accuracy_is_counted_from_the_latest_report_that_has_the_artefact(release):
    write_report(release, [[0.0, 1.0, 0.0]] * 3 + RED[3:], "20261121-101500-0123456789ab")
    write_report(release, RED)
    write_report(release, RED, "20261123-101500-0123456789ab", accuracy=[])
    assert measured_accuracy(release.folder, ARTEFACT) == Accuracy(4, 12, "20261122-101500-0123456789ab")
    assert measured_accuracy(release.folder, sha("another")) is None


@pytest.mark.parametrize("changes", [{"manifest_sha256": "0" * 64}, {"accuracy": [{}]}, {"accuracy": 5}, {"job": {}}])
def test_report_that_cannot_be_read_is_passed_over(release, changes):
    write_report(release, RED, **changes)
    assert measured_accuracy(release.folder, ARTEFACT) is None


def test_report_of_other_images_is_passed_over(release):
    write_report(release, RED[:5])
    assert measured_accuracy(release.folder, ARTEFACT) is None


def test_card_tells_what_was_measured_here(release):
    entry = release.manifest().entries[0]
    made = replace(classifier(), release_id="0123456789ab", entry=entry)
    rows = dict(card_rows(made, Accuracy(11, 12, "job-7"), "/dev/video0", "pets"))
    assert rows["Accuracy"] == "91.7 % of 12 images, measured here"
    assert rows["Report"] == "job-7"
    assert (rows["Variant"], rows["Study"], rows["Threads"], rows["Source"]) == (
        "none-none",
        "pets",
        "1",
        "/dev/video0",
    )
    assert rows["Runtime"].startswith("ai-edge-litert ")
    assert rows["Size"].endswith(f"({entry.size_bytes:,} bytes)")


# --- options ---


def parse(*words: str) -> CameraOptions:
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--folder", type=Path)
    add_camera_options(parser)
    return CameraOptions.of(parser.parse_args(["--folder", "f", *words]))


def test_defaults_are_those_that_are_documented():
    options = parse()
    assert (options.source, options.size, options.view, options.host, options.port) == (
        "auto",
        (640, 480),
        "web",
        "127.0.0.1",
        0,
    )
    assert (options.threshold, options.smoothing, options.save_folder) == (0.6, 0.7, Path("f/frames"))


@pytest.mark.parametrize(
    "words",
    [
        ("--size", "640"),
        ("--size", "0x4"),
        ("--rate", "nan"),
        ("--rate", "-1"),
        ("--rotate", "45"),
        ("--crop", "0,0,1"),
        ("--crop", "0.5,0,0.6,1"),
        ("--crop", "a,b,c,d"),
        ("--threshold", "1.5"),
        ("--smoothing", "1"),
        ("--port", "70000"),
        ("--frames", "0"),
        ("--duration", "0"),
        ("--threads", "0"),
        ("--view", "gui"),
    ],
)
def test_option_out_of_its_range_is_refused(words, capsys):
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parse(*words)


def test_files_keep_their_own_size_and_rate_and_cameras_are_asked(tmp_path):
    asked = process.frame_options(parse("--mirror", "--crop", "0.25,0,0.5,1"))
    assert (asked.width, asked.height, asked.rate_hz, asked.paced) == (640, 480, 30.0, True)
    assert (asked.mirror, asked.crop) == (True, (0.25, 0.0, 0.5, 1.0))
    own = process.frame_options(parse("--source", str(tmp_path)))
    assert (own.width, own.rate_hz, own.paced) == (None, None, True)
    fast = process.frame_options(parse("--source", str(tmp_path), "--rate", "0", "--loop"))
    assert (fast.rate_hz, fast.paced, fast.loop) == (None, False, True)


def test_smoothing_leaves_its_share_after_a_tenth_of_a_second():
    import math

    assert process.smoothing(parse("--smoothing", "0")).seconds == 0
    assert math.exp(-0.1 / process.smoothing(parse("--smoothing", "0.7")).seconds) == pytest.approx(0.7)


# --- figures and views ---


def test_rate_is_that_of_the_last_readings():
    rate = RecentRate()
    readings = [rate.update(second * 10**9, count) for second, count in enumerate([0, 30, 60, 90, 90, 90, 90])]
    assert readings == [None, 30, 30, 30, 20, 10, 0]


def test_figures_of_nothing_are_nulls():
    fields = pipeline_fields(Recorder().figures(), None)
    assert (fields["captured"], fields["rate_hz"], fields["latency_p50_ns"], fields["stages_ns"]["invoke"]) == (
        0,
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ({}, False),
        ({"throttled_bits": 0x50005}, "undervoltage, throttled"),
        ({"undervoltage": True}, "undervoltage"),
        ({"cooling_state": 2}, "throttled by the kernel"),
    ],
)
def test_throttling_in_words(sample, said, tmp_path):
    sensors = Sensors(tmp_path)
    sensors.can_see_throttling = True
    nothing = {"throttled_bits": None, "undervoltage": None, "cooling_state": None}
    assert throttled({**nothing, **sample}, sensors) == said
    sensors.can_see_throttling = False
    assert throttled(nothing, sensors) is None


FRAME = {"event": "frame", "label": "cat\x1b[2J", "score": 0.93, "top": [], "number": 1, "at_ns": 1, "latency_ns": 1}
FIGURES = {
    "event": "figures",
    "rate_hz": 29.7,
    "latency_p50_ns": 8_400_000,
    "temperature_celsius": 61.2,
    "throttled": False,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_rewrites_one_line_and_class_names_move_no_cursor():
    out = Terminal()
    view = TerminalView(out)
    for event in (FRAME, FIGURES, {"event": "state", "state": "paused", "reason": None}):
        view.tell(event)
    view.end()
    lines = out.getvalue().split("\r\x1b[2K")
    assert lines[1].startswith("cat?[2J  93 % ███████████████████·")
    assert lines[2].endswith("29.7 Hz  8 ms  61 °C")
    assert (lines[3][:6], lines[4], "\n" in out.getvalue()) == ("paused", "", False)
    assert all(len(line) < 80 for line in lines)


def test_what_is_no_terminal_gets_a_line_with_each_figures():
    out = io.StringIO()
    view = TerminalView(out)
    for event in (FRAME, FRAME, FIGURES):
        view.tell(event)
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


def test_lines_tell_address_changes_and_summary():
    out = io.StringIO()
    view = PlainView(out)
    told = {
        "event": "camera",
        "host": "::1",
        "port": 80,
        "token": "secret-one",
        "source": "cam",
        "variant": "v",
        "release": "r",
    }
    summary = {
        "seconds": 2.0, "captured": 60, "classified": 58, "dropped": 2, "rate_hz": 29.0, "latency_p50_ns": 8e6,
        "latency_p90_ns": 9e6, "labels": {"1": 50, "unsure": 8},
    }  # fmt: skip
    for event in (
        told,
        {"event": "state", "state": "measuring", "reason": "job 7 runs"},
        {"event": "state", "state": "measuring", "reason": "job 7 runs"},
        FRAME,
        {"event": "swapped", "variant": "v2", "release": "r2", "gap_ns": 3e6},
        {"event": "notice", "message": "one"},
        {"event": "done", "summary": summary},
    ):
        view.tell(event)
    assert out.getvalue().splitlines() == [
        "http://[::1]:80/?token=secret-one shows cam, labelled by v of release r",
        "measuring: job 7 runs",
        "now v2 of release r2, 3 ms without a label",
        "one",
        "2.0 s: 60 frames captured, 58 labelled, 2 dropped, 29.0 a second; latency 8.0 ms, p90 9.0 ms; "
        "1 (50), unsure (8)",
    ]
