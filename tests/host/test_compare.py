from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from verdict_samples import make_comparison, make_header, make_row, sha

from liteship.errors import ReportError
from liteship.verdict.changes_text import changes_json, changes_markdown, print_changes, summarize_changes
from liteship.verdict.compare import BETTER, OPEN, WORSE, compare
from liteship.verdict.environments import are_boards_equal, find_differences
from liteship.verdict.matching import match_rows
from liteship.verdict.side_by_side import (
    print_side_by_side,
    put_side_by_side,
    side_by_side_json,
    side_by_side_markdown,
)

TFLITE = {"runtime": "tflite-runtime", "runtime_version": "2.14.0"}
PI4 = {"target": "pi4", "board": "Raspberry Pi 4 Model B Rev 1.4"}


def one(row=None, wrong=range(20), **header):
    return make_comparison((make_row() if row is None else row, wrong), **header)


def only(first, second):
    (row,) = compare(first, second).rows
    return row


def printed(changes, width=80):
    out = io.StringIO()
    print_changes(changes, Console(file=out, width=width))
    return out.getvalue()


# --- latency ---


@pytest.mark.parametrize(("ms", "verdict"), [(2.2, WORSE), (1.8, BETTER), (2.001, OPEN)])
def test_a_latency_changed_where_its_whole_interval_says_so(ms, verdict):
    change = only(one(), one(make_row(ms=ms))).latency
    assert change.verdict == verdict
    assert change.estimate.value == pytest.approx(ms / 2)
    assert change.estimate.low <= change.estimate.value <= change.estimate.high


def test_a_latency_under_another_governor_is_shown_and_not_judged():
    slower = one(make_row(ms=3.0), environment={"machine": "aarch64", "governor": "powersave"})
    found = only(one(), slower)
    assert (found.latency.verdict, found.p90.verdict) == (None, None)
    assert found.latency.reason == "other governor: – and powersave"
    assert found.latency.estimate.value == pytest.approx(1.5, rel=0.02)
    assert summarize_changes(compare(one(), slower))[0] == ("0 regressions", [])


def test_three_measurements_are_judged_like_two():
    slower = one(make_row(ms=3.0), environment={"machine": "aarch64", "governor": "powersave"})
    text = json.dumps(side_by_side_json(put_side_by_side((one(), one(), slower))))
    assert "other governor: \\u2013 and powersave" in text
    assert '"worse"' not in text


@given(st.floats(0.5, 2))
@settings(deadline=None)
def test_the_other_way_round_the_verdict_turns(factor):
    first, second = one(), one(make_row(ms=2 * factor))
    there, back = only(first, second).latency, only(second, first).latency
    turned = {WORSE: BETTER, BETTER: WORSE, OPEN: OPEN}
    assert back.verdict == turned[there.verdict]
    assert back.estimate.value == pytest.approx(1 / there.estimate.value)


@pytest.mark.parametrize(
    ("row", "header", "reason"),
    [
        ({}, {"target": "emulated"}, "B emulated"),
        ({"status": "unstable", "validity": "unstable"}, {}, "unstable in B"),
        ({"status": "parity failed: x", "validity": "unstable"}, {}, "unstable in B"),
        ({"status": "refused: x", "threads": None, "cpus": None, "median_ns": None}, {}, "not measured in B"),
        ({"threads": 4}, {}, "1 and 4 threads"),
        ({"cpus": (2, 3)}, {}, "CPUs 0-3 and 2-3"),
        ({"round_medians_ns": (None,) * 6}, {}, "no undisturbed round"),
        ({"round_medians_ns": ()}, {}, "no undisturbed round"),
    ],
)
def test_a_latency_that_cannot_be_compared_has_no_ratio_and_says_why(row, header, reason):
    change = only(one(), one(make_row(**row), **header)).latency
    assert (change.estimate, change.verdict, change.reason) == (None, None, reason)


def test_a_single_round_has_a_ratio_that_is_not_judged():
    change = only(one(), one(make_row(ms=4, round_medians_ns=(4e6, None)))).latency
    assert change.estimate.value == pytest.approx(2, rel=0.01)
    assert (change.verdict, change.reason) == (None, "a single round: no interval")


def test_another_board_is_shown_and_never_flagged():
    changes = compare(one(), one(make_row(ms=4.0, size_bytes=8 * 2**20), range(60), **PI4))
    (row,) = changes.rows
    assert row.latency.estimate.value == pytest.approx(2)
    assert {row.latency.verdict, row.accuracy.verdict, row.size.verdict, row.gzip.verdict} == {None}
    assert summarize_changes(changes)[0][0].startswith("A comparison of boards")


def test_boards_are_equal_by_model_and_architecture_and_unknown_ones_by_target():
    pi, renamed = make_header(), make_header(target="pi-in-the-shed")
    assert are_boards_equal(pi, renamed)
    assert not are_boards_equal(pi, make_header(environment={"machine": "armv7l"}))
    unknown = make_header(board=None)
    assert are_boards_equal(unknown, unknown)
    assert not are_boards_equal(unknown, replace(unknown, target="other"))


# --- accuracy and size ---


@pytest.mark.parametrize(("wrong", "verdict"), [(range(40), WORSE), (range(5), BETTER), (range(2, 22), OPEN)])
def test_accuracies_on_the_same_images_are_compared_image_by_image(wrong, verdict):
    change = only(one(), one(wrong=wrong)).accuracy
    assert (change.verdict, change.reason) == (verdict, "")
    assert change.estimate.value == pytest.approx((20 - len(wrong)) / 200)


def test_accuracies_on_other_images_are_independent_and_so_less_certain():
    same, other = (
        only(one(), one(wrong=range(32))).accuracy,
        only(one(), one(wrong=range(32), images_sha256=sha("others"))).accuracy,
    )
    assert (same.verdict, other.verdict) == (WORSE, OPEN)
    assert other.reason == "other images"
    assert same.estimate.value == pytest.approx(other.estimate.value)


def test_accuracies_of_other_classes_are_not_compared():
    second = one()
    second = replace(second, answers=(replace(second.answers[0], labels=("ape", "bee")),))
    change = only(one(), second).accuracy
    assert (change.estimate, change.verdict, change.reason) == (None, None, "other classes")


def test_a_row_without_answers_says_where():
    change = only(one(), replace(one(), answers=())).accuracy
    assert (change.verdict, change.reason) == (None, "not measured in B")


def test_answers_out_of_their_images_are_an_invalid_report():
    second = one()
    broken = replace(second.answers[0], wrong=(*range(19), 10**12))
    with pytest.raises(ReportError, match="indices of the wrong ones"):
        compare(one(), replace(second, answers=(broken,)))


@pytest.mark.parametrize(
    ("size", "verdict"), [(4 * 2**20 + 1, OPEN), (5 * 2**20, WORSE), (3 * 2**20, BETTER), (None, None)]
)
def test_sizes_are_exact_but_for_a_thousandth(size, verdict):
    assert only(one(), one(make_row(size_bytes=size))).size.verdict == verdict


# --- matching ---


def names(rows):
    return [row.variant for row in rows]


def test_rows_are_matched_by_variant_threads_and_cpus_in_any_order():
    rows = [make_row(threads=1), make_row(threads=4), make_row("none-int8")]
    first = make_comparison(*[(row, ()) for row in rows])
    second = make_comparison(*[(row, ()) for row in reversed(rows)])
    matched = match_rows(first, second)
    assert [(a.variant, a.threads) for a, _ in matched.pairs] == [(b.variant, b.threads) for _, b in matched.pairs]
    assert (matched.only_first, matched.only_second) == ((), ())


def test_another_runtime_is_what_is_compared_and_named():
    row = only(one(), one(make_row(ms=2.2, **TFLITE)))
    assert row.latency.verdict == WORSE
    assert row.notes == ("ai-edge-litert 2.3.0, then tflite-runtime 2.14.0",)


def test_runtimes_are_kept_apart_where_a_report_has_several():
    first = make_comparison((make_row(), ()), (make_row(ms=3.0, **TFLITE), ()))
    second = one(make_row(ms=3.0, **TFLITE), ())
    changes = compare(first, second)
    assert [row.name for row in changes.rows] == ["none-none, tflite-runtime 2.14.0"]
    assert [alone.name for alone in changes.only_first] == ["none-none, ai-edge-litert 2.3.0"]


def test_versions_of_one_runtime_are_kept_apart_where_a_report_has_several():
    old = make_row(runtime_version="2.1.0")
    matched = match_rows(make_comparison((make_row(), ()), (old, ())), one(old))
    assert [one.runtime_version for one, _ in matched.pairs] == ["2.1.0"]


def test_a_row_that_was_refused_stands_for_every_setting_of_its_variant():
    first = make_comparison((make_row(threads=1), ()), (make_row(threads=4), ()))
    refused = make_row(status="refused: x", threads=None, cpus=None, median_ns=None)
    matched = match_rows(first, one(refused))
    assert [other.status for _, other in matched.pairs] == ["refused: x"] * 2
    assert matched.only_second == ()


def test_rows_that_only_one_has_are_named():
    first = make_comparison((make_row(), ()), (make_row("old-int8"), ()))
    second = make_comparison((make_row(), ()), (make_row("new-int8"), ()))
    headlines = dict(summarize_changes(compare(first, second)))
    assert (headlines["only in A"], headlines["only in B"]) == (["old-int8"], ["new-int8"])


def test_another_status_is_told_with_its_reason():
    changes = compare(one(), one(make_row(status="failed: out of\x1b memory", threads=None, median_ns=None)))
    assert dict(summarize_changes(changes))["another status"] == ["none-none: valid, then failed: out of memory"]
    assert changes.rows[0].notes == ("valid, then failed",)


@given(st.lists(st.sampled_from(("a", "b", "c")), max_size=5), st.lists(st.sampled_from(("a", "b", "c")), max_size=5))
@settings(deadline=None)
def test_every_row_is_in_a_pair_or_alone_and_a_measured_one_never_in_two(first, second):
    """Also where a file that somebody wrote holds a row twice."""
    sides = [
        make_comparison(*[(make_row(name, threads=1 + index % 2), ()) for index, name in enumerate(rows)])
        for rows in (first, second)
    ]
    matched = match_rows(*sides)
    assert sorted(names(one for one, _ in matched.pairs) + names(matched.only_first)) == sorted(first)
    assert sorted(names(other for _, other in matched.pairs) + names(matched.only_second)) == sorted(second)


# --- what differs ---


def test_what_differs_is_listed_and_what_is_equal_is_not():
    other = one(
        make_row(threads=4, **TFLITE),
        tier="quick",
        forced=True,
        problems=("the load is 3",),
        environment={"machine": "aarch64", "kernel": "6.12.1", "governor": "performance", "python": "3.11.2"},
        images_sha256=sha("others"),
    )
    found = {difference.name: difference.values for difference in find_differences((one(), other))}
    assert found == {
        "kernel": ("6.6.31", "6.12.1"),
        "governor": ("–", "performance"),
        "runtime": ("ai-edge-litert 2.3.0", "tflite-runtime 2.14.0"),
        "threads": ("1", "4"),
        "tier": ("rapid", "quick"),
        "images": (f"200 of {sha('images')[:12]}", f"200 of {sha('others')[:12]}"),
        "forced": ("no", "the load is 3"),
    }


def test_the_p90_is_compared_by_the_intervals_of_both():
    row = make_row()
    slow = replace(row, p90_ns=3 * row.p90_ns, p90_low_ns=3 * row.p90_low_ns, p90_high_ns=3 * row.p90_high_ns)
    change = only(one(row), one(slow)).p90
    half = math.hypot(*(2 * [math.log(1.06 / 1.04) / 2]))
    assert (change.verdict, change.estimate.value) == (WORSE, pytest.approx(3))
    assert math.log(change.estimate.high / change.estimate.low) / 2 == pytest.approx(half)
    assert "none-none is slower at p90: 3.00x (2.96–3.04)" in printed(compare(one(row), one(slow)))
    assert only(one(row), one(row)).p90.verdict == OPEN
    assert only(one(row), one(replace(slow, p90_low_ns=None))).p90.verdict is None
    assert only(one(row), one(slow, target="emulated")).p90.estimate is None


def test_what_has_no_interval_is_shown():
    fields = {"end_to_end_median_ns": 4e6, "init_ns": 9e6, "first_ns": 1e6, "rss_anon_bytes": 2**20}
    changes = compare(one(make_row(**fields)), one(make_row(**{**fields, "first_ns": 3e6, "rss_anon_bytes": 2**21})))
    for text in (printed(changes), changes_markdown(changes)):
        assert "10.0 → 12.0" in text
        assert "1.00 → 2.00" in text
    assert changes_json(changes)["rows"][0]["start"]["value"] == pytest.approx(1.2)


# --- forms ---


def test_what_is_noted_of_every_row_is_told_once_and_no_name_is_broken_inside_a_word():
    names = ("magnitude50-float16", "magnitude75-dynamic", "none-none")
    rows = [(make_row(name), range(20)) for name in names]
    newer = [(replace(row, runtime_version="2.4.0"), wrong) for row, wrong in rows]
    text = printed(compare(make_comparison(*rows), make_comparison(*newer)))
    assert text.count("2.3.0, then ai-edge-litert 2.4.0") == 1
    assert "magnitude50-" in text
    for line in text.splitlines():
        assert not line.startswith("-")


def test_regressions_come_first_with_their_intervals():
    first = make_comparison((make_row(), ()), (make_row("none-int8", 1.0), range(10)))
    second = make_comparison((make_row(), ()), (make_row("none-int8", 1.2), range(30)))
    (headline, regressions), (improvements, _) = summarize_changes(compare(first, second))
    assert (headline, improvements) == ("2 regressions", "0 improvements")
    assert regressions[0].startswith("none-int8 is slower: 1.20x (1.19–1.2")
    assert regressions[1].startswith("none-int8 is less accurate: -10.0 points (-1")


@pytest.mark.parametrize("width", [80, 140])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_cut(width):
    rows = [(make_row(f"magnitude75-int8-{index}", 123.4), range(30)) for index in range(3)]
    other = [(replace(row, median_ns=234.5e6), wrong) for row, wrong in rows]
    text = printed(compare(make_comparison(*rows), make_comparison(*other, **PI4)), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("123 → 234") == 3
    assert "…" not in text


def test_a_hostile_name_stays_in_its_cell():
    hostile = "\x1b[31m|evil|<script>alert(1)</script>\n`x`\u202e"
    changes = compare(one(make_row(hostile)), one(make_row(hostile, runtime="\x1b[2J|"), board="\x1b]0;x\x07<b>|"))
    text = changes_markdown(changes)
    assert "<script>" not in text.replace("\\<script", "")
    assert all(line.count("|") - line.count("\\|") in (0, 4, 13) for line in text.splitlines())
    for shown in (text, printed(changes)):
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_the_object_has_every_figure_and_is_json():
    found = json.loads(json.dumps(changes_json(compare(one(), one(make_row(ms=2.4)))), allow_nan=False))
    assert found["rows"][0]["latency"]["verdict"] == WORSE
    assert set(found) == {"schema_version", "reports", "rows", "only_first", "only_second", "differences"}


def test_three_stand_side_by_side_against_the_first():
    three = [
        make_comparison((make_row(ms=ms), range(20)), *more, **header)
        for ms, more, header in (
            (2.0, (), {}),
            (2.4, ((make_row("new"), ()),), {}),
            (4.0, ((make_row("new"), ()),), PI4),
        )
    ]
    found = put_side_by_side(three)
    assert [line.name for line in found.lines] == ["none-none", "new"]
    assert [change and change.verdict for change in found.lines[0].latencies] == [None, WORSE, None]
    assert [row is not None for row in found.lines[1].rows] == [False, True, True]
    assert found.lines[1].latencies == (None, None, None)
    out = io.StringIO()
    print_side_by_side(found, Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    assert "| none-none | 2.00, –, 90.0 %, 4.00 | 2.40, 1.20 (" in side_by_side_markdown(found)
    assert json.loads(json.dumps(side_by_side_json(found), allow_nan=False))["rows"][1]["figures"][0] is None
