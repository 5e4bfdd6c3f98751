from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from verdict_samples import make_comparison, make_row, sha

from liteship.errors import UsageError
from liteship.verdict.gate import IMPROVED, NEW, PASSED, REGRESSED, TOLD, UNJUDGED, Allowances, check_allowances, judge
from liteship.verdict.gate_text import gate_json, gate_markdown, print_gate, verdict_line

UNMEASURED = {"threads": None, "cpus": None, "median_ns": None, "round_medians_ns": (), "validity": None}


def one(row=None, wrong=range(20), **header):
    return make_comparison((make_row() if row is None else row, wrong), **header)


def gate(baseline, candidate, accuracy_only=False, **allowed):
    return judge(baseline, candidate, Allowances(**allowed), accuracy_only=accuracy_only)


def texts(found, outcome):
    return [f"{finding.figure}: {finding.text}" for finding in found.of(outcome)]


# --- what is a regression ---


def test_the_same_measurement_passes():
    found = gate(one(), one())
    assert (found.outcome, found.exit_code) == (PASSED, 0)
    assert verdict_line(found) == "Passed: 1 row (latency, accuracy and size), nothing worse than allowed"


def test_a_latency_regresses_where_its_whole_interval_is_beyond_the_allowance():
    found = gate(one(), one(make_row(ms=2.2)))
    assert found.exit_code == 4
    assert texts(found, REGRESSED)[0].startswith("latency: median 1.10x (1.0")
    assert "1.05x allowed" in texts(found, REGRESSED)[0]


def test_an_interval_that_reaches_over_the_allowance_passes_and_is_named():
    found = gate(one(), one(make_row(ms=2.1)))
    assert found.exit_code == 0
    assert "median and p90 may be slower than the 1.05x allowed" in texts(found, TOLD)[0]
    out = io.StringIO()
    print_gate(found, Console(file=out, width=140))
    for shown in (out.getvalue(), gate_markdown(found).partition("<details>")[0]):
        assert "may be slower than the 1.05x allowed" in shown


@given(st.floats(0.5, 2), st.floats(0, 1))
@settings(deadline=None)
def test_a_larger_allowance_never_finds_more(factor, allowed):
    baseline, candidate = one(), one(make_row(ms=2 * factor))
    codes = [gate(baseline, candidate, max_slowdown=share).exit_code for share in (allowed, allowed + 0.1)]
    assert codes[0] >= codes[1]


def test_a_drop_regresses_by_its_figure_and_tells_whether_it_is_certain():
    certain, uncertain = gate(one(), one(wrong=range(40))), gate(one(), one(wrong=range(3, 26)))
    assert (certain.exit_code, uncertain.exit_code) == (4, 4)
    assert texts(certain, REGRESSED)[0].endswith("a loss of 1 point allowed; its interval excludes no change")
    assert texts(uncertain, REGRESSED)[0].endswith("a loss of 1 point allowed; its interval holds no change")


def test_a_drop_of_exactly_what_is_allowed_passes():
    assert gate(one(), one(wrong=range(22)), max_drop=0.01).exit_code == 0
    assert gate(one(), one(wrong=range(22)), max_drop=0.009).exit_code == 4


@pytest.mark.parametrize(("field", "figure"), [("size_bytes", "file"), ("gzip_bytes", "gzip")])
def test_growth_beyond_the_allowance_regresses(field, figure):
    found = gate(one(make_row(**{field: 1000})), one(make_row(**{field: 1021})))
    assert texts(found, REGRESSED) == [f"{figure}: +2.1 %, +2 % allowed"]
    assert gate(one(make_row(**{field: 1000})), one(make_row(**{field: 1020}))).exit_code == 0


@pytest.mark.parametrize("status", ["refused: version 12", "failed: crash", "not run"])
def test_a_row_that_was_measured_and_is_not_any_more_regresses(status):
    found = gate(one(), one(make_row(status=status, **UNMEASURED)))
    assert found.exit_code == 4
    assert texts(found, REGRESSED) == [f"row: {status}; it was measured"]


def test_a_row_that_is_gone_regresses():
    found = gate(make_comparison((make_row(), ()), (make_row("none-int8"), ())), one(wrong=()))
    assert texts(found, REGRESSED) == ["row: gone: the candidate has no such row"]


@pytest.mark.parametrize("word", ["parity failed: drops", "golden failed: differs"])
def test_a_row_that_fails_its_parity_now_regresses_and_one_that_always_did_does_not(word):
    failed = one(make_row(status=word))
    assert gate(one(), failed).exit_code == 4
    assert gate(failed, failed).exit_code == 0


def test_new_rows_are_told_and_pass():
    found = gate(one(wrong=()), make_comparison((make_row(), ()), (make_row("none-int8"), ())))
    assert found.exit_code == 0
    assert texts(found, NEW) == ["row: the baseline has no such row: valid"]


def test_a_row_that_was_refused_and_runs_now_is_new():
    found = gate(
        make_comparison((make_row("b"), ()), (make_row(status="refused: x", **UNMEASURED), ())),
        make_comparison((make_row("b"), ()), (make_row(), ())),
    )
    assert found.exit_code == 0
    assert texts(found, NEW) == ["row: measured now; it was refused: x"]


def test_a_row_that_could_never_be_made_is_not_missed():
    unmade = make_row("x-int8", status="failed: conversion: NaN", **UNMEASURED)
    both = make_comparison((make_row(), ()), (unmade, ()))
    assert gate(both, both).exit_code == 0
    assert gate(both, one(wrong=())).exit_code == 0


def test_improvements_are_told():
    found = gate(one(), one(make_row(ms=1.0, size_bytes=2**20), range(4)))
    assert found.exit_code == 0
    assert [finding.figure for finding in found.of(IMPROVED)] == ["latency", "accuracy", "file"]


# --- what cannot be judged ---


@pytest.mark.parametrize(
    ("row", "header", "reason"),
    [
        ({}, {"board": "Raspberry Pi 4"}, "other board"),
        ({}, {"environment": {"machine": "armv7l"}}, "other board"),
        ({}, {"target": "emulated"}, "candidate emulated"),
        ({"runtime": "tflite-runtime"}, {}, "other runtime: ai-edge-litert and tflite-runtime"),
        ({"threads": 4}, {}, "1 and 4 threads"),
        ({"cpus": (2, 3)}, {}, "CPUs 0-3 and 2-3"),
        ({"status": "unstable", "validity": "unstable"}, {}, "unstable in candidate"),
        ({"round_medians_ns": (2e6,)}, {}, "a single round: no interval"),
        ({"round_medians_ns": (None, None)}, {}, "no undisturbed round"),
    ],
)
def test_what_cannot_be_compared_does_not_pass_unless_accuracy_alone_is_asked_for(row, header, reason):
    candidate = one(make_row(**row), **header)
    found = gate(one(), candidate)
    assert (found.outcome, found.exit_code) == (UNJUDGED, 6)
    assert texts(found, UNJUDGED) == [f"latency: {reason}"]
    assert reason in verdict_line(found)
    assert gate(candidate, one()).exit_code == 6
    accuracy_only = gate(one(), candidate, accuracy_only=True)
    assert accuracy_only.exit_code == 0
    assert "not latency" in verdict_line(accuracy_only)


def test_another_version_of_the_runtime_is_judged():
    assert gate(one(), one(make_row(ms=2.4, runtime_version="2.4.0"))).exit_code == 4


def test_a_drop_counts_on_another_board_too():
    assert gate(one(), one(wrong=range(40), board="Pi 4"), accuracy_only=True).exit_code == 4


def test_a_regression_outweighs_what_cannot_be_judged():
    rows = [(make_row(), ()), (make_row("none-int8"), ())]
    worse = [(make_row(status="unstable", validity="unstable"), ()), (make_row("none-int8", 3.0), ())]
    found = gate(make_comparison(*rows), make_comparison(*worse))
    assert found.exit_code == 4
    assert verdict_line(found) == "Regression: 1 figure of 1 row worse than allowed; 1 not judged"


def test_other_images_are_judged_and_told():
    found = gate(one(), one(wrong=range(24), images_sha256=sha("others")))
    assert "other images, as independent samples" in texts(found, REGRESSED)[0]
    assert "Other images: accuracies are compared as independent samples" in above_the_fold(found)


def test_a_baseline_without_a_measured_row_judges_nothing():
    empty = one(make_row(status="not run", **UNMEASURED))
    assert gate(empty, one()).exit_code == 6
    assert gate(make_comparison(), make_comparison()).exit_code == 6


# --- p90, and what is told ---


def test_a_p90_alone_makes_a_row_worse_and_is_named():
    row = make_row()
    slow = replace(row, p90_ns=3 * row.p90_ns, p90_low_ns=3 * row.p90_low_ns, p90_high_ns=3 * row.p90_high_ns)
    found = gate(one(row), one(slow))
    assert found.exit_code == 4
    assert texts(found, REGRESSED) == ["latency: p90 3.00x (2.96–3.04), 1.05x allowed; median 1.00x (0.99–1.01)"]


def test_a_p90_without_an_interval_is_not_judged_and_said():
    found = gate(one(), one(make_row(p90_low_ns=None, p90_high_ns=None)))
    assert found.exit_code == 0
    assert texts(found, PASSED)[0].endswith("; p90 not judged: no interval")


@pytest.mark.parametrize(
    ("field", "figure"),
    [
        ("rss_peak_bytes", "resident"),
        ("rss_anon_bytes", "memory"),
        ("end_to_end_median_ns", "end to end"),
        ("init_ns", "start"),
    ],
)
def test_what_has_no_interval_is_told_where_it_grew_clearly(field, figure):
    base = {"rss_peak_bytes": 1000, "rss_anon_bytes": 500, "end_to_end_median_ns": 4e6, "init_ns": 9e6, "first_ns": 1e3}
    baseline = one(make_row(**base))
    found = gate(baseline, one(make_row(**{**base, field: base[field] * 3})))
    assert found.exit_code == 0
    assert [(finding.figure, finding.text) for finding in found.of(TOLD)] == [
        (figure, "+200.0 %, not judged: no interval")
    ]
    assert f"| {figure} |" in above_the_fold(found)
    assert not gate(baseline, one(make_row(**{**base, field: base[field] * 1.09}))).of(TOLD)


def test_memory_is_judged_where_it_is_asked_for():
    baseline, larger = one(make_row(rss_anon_bytes=1000)), one(make_row(rss_anon_bytes=1060))
    assert gate(baseline, larger).exit_code == 0
    found = gate(baseline, larger, max_memory_growth=0.05)
    assert texts(found, REGRESSED) == ["memory: +6.0 %, +5 % allowed"]
    assert gate(baseline, larger, max_memory_growth=0.06).exit_code == 0
    assert texts(gate(one(), one(), max_memory_growth=0.1), UNJUDGED) == ["memory: not known"]


def test_a_bound_that_reaches_over_the_allowance_shows_it():
    rounds = tuple(2.0e6 * one for one in (0.9995, 1.0005, 1.0, 1.0, 1.0))
    found = gate(
        one(make_row(round_medians_ns=rounds)), one(make_row(round_medians_ns=tuple(1.0498 * ns for ns in rounds)))
    )
    assert "median 1.0498x (1.0493–1.0503)" in texts(found, TOLD)[0]


def test_a_ratio_that_rounds_to_the_allowance_has_more_digits():
    row = make_row()
    slow = replace(row, round_medians_ns=tuple(1.0502 * ns for ns in row.round_medians_ns))
    still = replace(row, round_medians_ns=(2e6, 2e6, 2e6))
    found = gate(one(still), one(replace(slow, round_medians_ns=(2.1003e6,) * 3)))
    assert "median 1.0502x" not in str(found.findings)
    assert "median 1.0501x (1.0501–1.0501)" in texts(found, REGRESSED)[0]


# --- rows that contradict their status, and counts ---


@pytest.mark.parametrize(
    ("changes", "outcome", "text"),
    [
        ({"parity_passed": False}, REGRESSED, "row: parity failed; it passed"),
        ({"golden_within_tolerance": False}, REGRESSED, "row: golden failed; it passed"),
        ({"validity": "unstable"}, UNJUDGED, "latency: unstable in candidate"),
        ({"void": 6}, UNJUDGED, "latency: unstable in candidate"),
    ],
)
def test_a_status_alone_does_not_make_a_row_good(changes, outcome, text):
    found = gate(one(), one(make_row(**changes)))
    assert found.outcome == outcome
    assert texts(found, outcome) == [text]


def test_the_verdict_counts_the_rows_that_both_measured():
    refused = (make_row("none-int8", status="refused: x", **UNMEASURED), ())
    comparison = make_comparison((make_row(), ()), refused)
    assert verdict_line(gate(comparison, comparison)) == (
        "Passed: 1 row (latency, accuracy and size), nothing worse than allowed; 1 row not measured on both sides"
    )


# --- what differs ---


def above_the_fold(found):
    return gate_markdown(found).partition("<details>")[0]


def machine(**changes):
    return {"environment": {"machine": "aarch64", "kernel": "6.6.31", "python": "3.11.2", **changes}}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (machine(cpu_count=2), "other CPUs online: – and 2"),
        (machine(governor="powersave"), "other governor: – and powersave"),
        ({"forced": True, "problems": ("too hot",)}, "one side was forced"),
    ],
)
def test_another_machine_state_is_not_judged(header, reason):
    found = gate(one(), one(make_row(ms=3.0), **header))
    assert (found.exit_code, texts(found, UNJUDGED)) == (6, [f"latency: {reason}"])
    assert gate(one(**header), one()).exit_code == 6
    assert gate(one(), one(**header), accuracy_only=True).exit_code == 0


@pytest.mark.parametrize(
    ("row", "header", "words"),
    [
        ({}, machine(kernel="5.0"), "kernel 6.6.31, then 5.0"),
        ({}, machine(os="Debian 13"), "operating system –, then Debian 13"),
        ({}, machine(python="3.13"), "Python 3.11.2, then 3.13"),
        ({}, {"tier": "thorough"}, "tier rapid, then thorough"),
        ({}, {"images_sha256": sha("others")}, "images 200 of"),
        ({}, {"target": "pi2"}, "target pi, then pi2"),
        ({}, {"study": "other"}, "study pets, then other"),
        ({}, machine(memory_bytes=2**30), "memory –, then 1024 MiB"),
        ({"runtime_version": "9.9"}, {}, "runtime ai-edge-litert 2.3.0, then ai-edge-litert 9.9"),
    ],
)
def test_what_differs_and_does_not_hinder_stands_in_sight(row, header, words):
    found = gate(one(), one(make_row(**row), **header))
    assert found.exit_code == 0
    out = io.StringIO()
    print_gate(found, Console(file=out, width=300))
    assert f"⚠ Not the same: {words}" in out.getvalue()
    folded = above_the_fold(found).replace("\\", "")
    assert "⚠️ Not the same" in folded
    assert words.split(",")[0] in folded
    assert any(words in text for text in gate_json(found)["warnings"])


def test_what_hinders_every_row_is_one_line():
    names = ("none-none", "none-int8", "none-float16", "none-dynamic")
    rows = [(make_row(name), ()) for name in names]
    found = gate(make_comparison(*rows), make_comparison(*rows, **machine(governor="powersave")))
    assert above_the_fold(found).count("| not judged |") == 1
    assert "| not judged | 4 rows | latency | other governor: – and powersave |" in above_the_fold(found)
    assert len(found.of(UNJUDGED)) == 4


def test_both_forced_is_judged_and_said():
    hot = {"forced": True, "problems": ("too hot",)}
    found = gate(one(**hot), one(**hot))
    assert found.exit_code == 0
    assert "Both sides were forced: too hot, then too hot" in above_the_fold(found)


def test_other_models_are_what_a_gate_is_for():
    assert not gate(one(), one(manifest_sha256=sha("new"))).warnings()


# --- allowances and forms ---


@pytest.mark.parametrize("name", ["max_slowdown", "max_drop", "max_growth"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_an_allowance_that_is_none_is_refused(name, value):
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: a ratio from 0"):
        check_allowances(Allowances(**{name: value}))


def test_a_drop_is_at_most_everything():
    check_allowances(Allowances(max_slowdown=3, max_drop=1, max_growth=3))
    with pytest.raises(UsageError, match="from 0 to 1"):
        check_allowances(Allowances(max_drop=1.1))


def test_a_comment_begins_with_the_verdict_and_folds_the_details():
    text = gate_markdown(gate(one(), one(make_row(ms=3.0), board=None, target="pi")))
    assert text.startswith("⚠️ **Not judged: 1 figure (other board)**")
    text = gate_markdown(gate(one(), one(make_row(ms=3.0))))
    assert text.startswith("❌ **Regression: 1 figure of 1 row worse than allowed**\n\n| outcome |")
    assert text.count("<details>") == text.count("</details>") == 2
    assert "\n\n| variant |" in text


def test_a_hostile_name_stays_in_its_cell_and_line():
    hostile = "\x1b[31m|</details><script>x</script>\n`x`\u202e"
    found = gate(one(make_row(hostile)), one(make_row(hostile, 3.0, status="failed: |<b>\x1b", **UNMEASURED)))
    text = gate_markdown(found)
    assert text.count("</details>") == 2
    assert "\\<script\\>" in text
    out = io.StringIO()
    print_gate(found, Console(file=out, width=80))
    for shown in (text, out.getvalue(), verdict_line(found)):
        assert not {"\x1b", "\u202e"} & set(shown)
    assert max(map(len, out.getvalue().splitlines())) <= 80


def test_the_object_tells_outcome_and_findings():
    found = json.loads(json.dumps(gate_json(gate(one(), one(make_row(ms=3.0)))), allow_nan=False))
    assert (found["outcome"], found["exit_code"]) == ("regressed", 4)
    assert found["findings"][0]["figure"] == "latency"
    assert found["changes"]["rows"][0]["latency"]["verdict"] == "worse"
