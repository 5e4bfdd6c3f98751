from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from verdict_samples import IMAGES, make_comparison, make_row

from liteship.errors import ReportError
from liteship.report.comparison import Row
from liteship.verdict.budgets import Budgets
from liteship.verdict.choice_text import choice_json, print_choice
from liteship.verdict.choose import choose
from liteship.verdict.shipping import default_budgets, default_verdict, verdict_markdown

STATUSES = (
    "valid",
    "valid",
    "valid",
    "repeated",
    "throttle unknown",
    "forced, valid",
    "unstable",
    "forced, unstable",
    "parity failed: drops",
    "golden failed: differs",
    "failed: crash",
    "refused: version",
    "not run",
)
NAMES = ("none-none", "none-int8", "filter50-none", "magnitude50-int8", "latency90-none")
BASELINE = (make_row("none-none", 2.0, size_bytes=8 * 2**20), range(20))


def reasons(choice, variant):
    return "; ".join(next(loss.reasons for loss in choice.losses if loss.row.variant == variant))


def winner(choice):
    return choice.winner.variant if choice.winner else None


# --- against a brute-force oracle ---


@st.composite
def comparisons(draw):
    """Few different values, so that budgets are met exactly, figures are equal and orders depend on the next figure."""
    rows = []
    for name in NAMES[: draw(st.integers(1, 5))]:
        ms = draw(st.sampled_from((1.0, 1.5, 2.0)))
        missing = draw(st.sampled_from((None,) * 6 + ("median_ns", "p90_ns", "p90_bound_ns", "size_bytes", "sha256")))
        row = make_row(
            name,
            ms,
            status=draw(st.sampled_from(STATUSES)),
            p90_ns=draw(st.sampled_from((1.1, 2.0, 2.2))) * 1e6,
            p90_bound_ns=draw(st.sampled_from((2.2, 2.4))) * 1e6,
            size_bytes=draw(st.sampled_from((2, 4, 8))) * 2**20,
            gzip_bytes=draw(st.sampled_from((1, 2, 4))) * 2**20,
            rss_peak_bytes=draw(st.sampled_from((50, 60))) * 2**20,
        )
        rows.append((replace(row, **{missing: None}) if missing else row, range(draw(st.sampled_from((10, 14, 20))))))
    target = draw(st.sampled_from(("pi",) * 9 + ("emulated",)))
    return make_comparison(*rows, target=target)


budgets = st.builds(
    Budgets,
    max_latency_ms=st.sampled_from((None, None, 1.0, 1.5, 2.0, 2.2, 2.4)),
    percentile=st.sampled_from((None, 50, 90)),
    max_drop=st.sampled_from((None, None, 0.0, 0.02, 0.03, 0.05)),
    min_accuracy=st.sampled_from((None, None, 0.85, 0.9, 0.93)),
    max_size_mib=st.sampled_from((None, None, 2.0, 4.0)),
    max_gzip_mib=st.sampled_from((None, None, 1.0, 2.0)),
    max_memory_mib=st.sampled_from((None, None, 50.0)),
    prefer=st.sampled_from((None, "accuracy", "latency", "size")),
    certain=st.sampled_from((None, True)),
)


def oracle(comparison, asked):
    """Winner and runner-up by going through every rule in turn, row by row, and comparing every pair."""
    p90 = asked.max_latency_ms is not None and asked.percentile != 50

    def passes(row: Row) -> bool:
        if comparison.header.target == "emulated" or row.sha256 is None:
            return False
        if row.status not in ("valid", "repeated", "throttle unknown", "forced, valid"):
            return False
        checks = []
        if asked.max_latency_ms is not None:
            ms = asked.max_latency_ms * 1e6
            checks += [(row.p90_ns if p90 else row.median_ns, ms)]
            if asked.certain:
                checks += [(row.p90_bound_ns if p90 else row.median_high_ns, ms)]
        if asked.max_size_mib is not None:
            checks += [(row.size_bytes, asked.max_size_mib * 2**20)]
        if asked.max_gzip_mib is not None:
            checks += [(row.gzip_bytes, asked.max_gzip_mib * 2**20)]
        if asked.max_memory_mib is not None:
            checks += [(row.rss_peak_bytes, asked.max_memory_mib * 2**20)]
        if any(figure is None or figure > limit for figure, limit in checks):
            return False
        if asked.min_accuracy is not None:
            share = row.target_accuracy_low_ratio if asked.certain else row.target_accuracy_ratio
            if share < asked.min_accuracy:
                return False
        if asked.max_drop is not None and row.variant != "none-none":
            gain = row.accuracy_difference_low_ratio if asked.certain else row.accuracy_difference_ratio
            if gain < -asked.max_drop or row.accuracy_difference_ratio < -asked.max_drop:
                return False
        return True

    def goodness(row: Row):
        latency = row.p90_ns if p90 else row.median_ns
        figures = {
            "accuracy": row.target_accuracy_ratio,
            "latency": float("-inf") if latency is None else -latency,
            "size": float("-inf") if row.size_bytes is None else -row.size_bytes,
        }
        first = asked.prefer
        if first is None:
            amounts = (asked.max_latency_ms, asked.max_size_mib, asked.max_gzip_mib, asked.max_memory_mib)
            limited = any(amount is not None for amount in amounts)
            first = "accuracy" if limited and asked.max_drop is None and asked.min_accuracy is None else "latency"
        ordered = [figures.pop(first), *figures.values()]
        return ordered, ordered[0] != float("-inf")

    passing = [row for row in comparison.rows if passes(row) and goodness(row)[1]]
    best: list[Row] = []
    while passing and len(best) < 2:
        leader = passing[0]
        for row in passing[1:]:
            if goodness(row)[0] > goodness(leader)[0]:
                leader = row
        best.append(leader)
        passing.remove(leader)
    return [row.variant for row in best]


@given(comparisons(), budgets)
@settings(max_examples=400, deadline=None)
def test_winner_and_runner_up_are_those_of_a_brute_force_search(comparison, asked):
    found = choose(comparison, asked)
    best = [row.variant for row in (found.winner, found.runner_up) if row is not None]
    assert best == oracle(comparison, asked)


@given(comparisons(), budgets)
@settings(deadline=None)
def test_every_row_wins_or_has_a_reason_and_all_of_it_can_be_printed(comparison, asked):
    found = choose(comparison, asked)
    assert len(found.losses) == len(comparison.rows) - (found.winner is not None)
    assert all(loss.reasons and all(loss.reasons) for loss in found.losses)
    assert {loss.row.variant for loss in found.losses if loss.can_win and loss.meets} == {
        *(tie.row.variant for tie in found.ties),
        *(loss.row.variant for loss in found.losses if loss.reasons[0].partition(" than the winner")[1]),
    }
    assert (found.winner is None) or found.nearest is None
    json.dumps(choice_json(found), allow_nan=False)
    print_choice(found, Console(file=io.StringIO(), width=80))


@given(comparisons(), budgets)
@settings(deadline=None)
def test_certainty_never_makes_a_row_meet_what_it_does_not_meet_without(comparison, asked):
    loose = choose(comparison, replace(asked, certain=None))
    strict = choose(comparison, replace(asked, certain=True))
    assert strict.met <= loose.met


# --- what can never win ---


@pytest.mark.parametrize("status", [status for status in STATUSES if "valid" not in status][2:])
def test_a_row_that_cannot_be_trusted_never_wins(status):
    fast = make_row("none-int8", 0.1, status=status, size_bytes=1)
    found = choose(make_comparison(BASELINE, (fast, ())), Budgets())
    assert winner(found) == "none-none"
    assert reasons(found, "none-int8") == status


def test_what_disturbed_a_row_is_its_reason_before_a_missing_sensor():
    reasons = ("throttling cannot be read on this machine", "others took 1.9 cores")
    fast = make_row("none-int8", 0.1, status="unstable", validity="unstable", reasons=reasons)
    found = choose(make_comparison((make_row(), ()), (fast, ())), Budgets())
    assert found.losses[-1].reasons == ("unstable: others took 1.9 cores",)


def test_a_reason_stands_with_an_unstable_row():
    fast = make_row("none-int8", 0.1, status="unstable", validity="unstable", reasons=("others took 1.9 cores",))
    assert reasons(choose(make_comparison(BASELINE, (fast, ())), Budgets()), "none-int8") == (
        "unstable: others took 1.9 cores"
    )


def test_nothing_wins_on_an_emulated_machine_and_it_is_said_why():
    found = choose(make_comparison(BASELINE, target="emulated"), Budgets(max_size_mib=100))
    assert (found.winner, found.nearest) == (None, None)
    assert "milliseconds of an emulated machine" in found.obstacle


def test_a_row_without_a_file_never_wins():
    found = choose(make_comparison((replace(BASELINE[0], sha256=None), ())), Budgets())
    assert found.winner is None
    assert "no sha256" in found.losses[0].reasons[0]


def test_a_report_without_rows_says_so():
    assert choose(make_comparison(), Budgets()).obstacle == "the report has no rows"


def test_kinds_of_rows_that_cannot_win_are_named_once():
    rows = [(make_row(name, status=status), ()) for name, status in zip(NAMES, ("unstable", "failed: x", "failed: y"))]
    assert choose(make_comparison(*rows), Budgets()).obstacle == "every row is failed or unstable"


# --- budgets ---


def test_a_budget_is_met_by_the_figure_and_the_bound_that_reaches_over_it_is_named():
    row = make_row("none-none", 9.0, p90_ns=9.8e6, p90_bound_ns=10.4e6)
    found = choose(make_comparison((row, ())), Budgets(max_latency_ms=10))
    assert winner(found) == "none-none"
    assert found.caveats == ("its p90 is within the budget of 10 ms, but its bound of 10.4 ms is not",)


def test_with_certainty_the_bound_decides():
    row = make_row("none-none", 9.0, p90_ns=9.8e6, p90_bound_ns=10.4e6)
    found = choose(make_comparison((row, ())), Budgets(max_latency_ms=10, certain=True))
    assert found.winner is None
    assert found.nearest.reasons == ("bound of its p90, 10.4 ms exceeds 10 ms",)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (Budgets(max_latency_ms=1.9, percentile=50), "median 2.00 ms exceeds 1.9 ms"),
        (Budgets(max_latency_ms=2.09), "p90 2.10 ms exceeds 2.09 ms"),
        (Budgets(max_latency_ms=2.099999), "p90 2.10 ms exceeds 2.099999 ms"),
        (Budgets(max_latency_ms=1.9999999, percentile=50), "median 2.00 ms exceeds 1.9999999 ms"),
        (Budgets(max_drop=0.049), "loses 5.0 points of accuracy (4.9 allowed)"),
        (Budgets(max_drop=0.05, certain=True), "may lose 9.0 points of accuracy (5 allowed)"),
        (Budgets(min_accuracy=0.96), "accuracy 95.0 % is below 96 %"),
        (Budgets(min_accuracy=0.94, certain=True), "lower bound of its accuracy, 91.0 % is below 94 %"),
        (Budgets(max_size_mib=3.999), "file 4.00 MiB exceeds 3.999 MiB"),
        (Budgets(max_gzip_mib=2), "gzip size 3.00 MiB exceeds 2 MiB"),
        (Budgets(max_memory_mib=80), "memory 90.0 MiB exceeds 80 MiB"),
    ],
)
def test_a_budget_that_is_missed_stands_with_figure_and_limit(asked, reason):
    comparison = make_comparison((make_row(), ()), (make_row("none-int8", 2.0), range(10)))
    assert reasons(choose(comparison, asked), "none-int8").startswith(reason)


def test_a_figure_has_as_many_digits_as_show_that_it_is_too_much():
    row = make_row(p90_ns=10.0004e6)
    found = choose(make_comparison((row, ())), Budgets(max_latency_ms=10))
    assert found.losses[0].reasons == ("p90 10.0004 ms exceeds 10 ms",)


def test_every_budget_that_is_missed_is_named():
    asked = Budgets(max_latency_ms=1, max_size_mib=1)
    assert len(choose(make_comparison(BASELINE), asked).losses[0].reasons) == 2


@pytest.mark.parametrize(
    ("field", "asked", "reason"),
    [
        ("p90_ns", Budgets(max_latency_ms=10), "its p90 is not known"),
        ("p90_bound_ns", Budgets(max_latency_ms=10, certain=True), "no bound of its p90 is known"),
        ("rss_peak_bytes", Budgets(max_memory_mib=1000), "its memory is not known"),
        ("accuracy_difference_ratio", Budgets(max_drop=1), "its loss of accuracy is not known"),
        ("median_ns", Budgets(), "its latency is not known, which decides"),
    ],
)
def test_a_figure_that_is_missing_meets_no_budget(field, asked, reason):
    comparison = make_comparison(BASELINE, (make_row("none-int8", 1.0), range(20)))
    rows = (comparison.rows[0], replace(comparison.rows[1], **{field: None}))
    assert reasons(choose(replace(comparison, rows=rows), asked), "none-int8") == reason


def test_the_nearest_misses_the_fewest_budgets_and_those_by_the_least():
    names = ("none-none", "filter50-none", "latency90-none")
    rows = [(make_row(name, ms), ()) for name, ms in zip(names, (9, 5, 7))]
    assert choose(make_comparison(*rows), Budgets(max_latency_ms=1)).nearest.row.variant == names[1]
    small_and_slow = (make_row("none-int8", 90, size_bytes=2**20), ())
    asked = Budgets(max_latency_ms=1, max_size_mib=3)
    assert choose(make_comparison(*rows, small_and_slow), asked).nearest.row.variant == "none-int8"


# --- ties ---


def test_a_tie_is_named_with_its_interval_and_what_it_is_better_at():
    small = make_row("none-int8", 2.001, size_bytes=2**20)
    found = choose(make_comparison(BASELINE, (small, range(60))), Budgets())
    assert winner(found) == "none-none"
    (tie,) = found.ties
    assert tie.interval == "tie: as fast as the winner within the interval, 1.00x (0.99–1.01)"
    assert tie.better == ("smaller, 1.00 instead of 8.00 MiB",)


def test_a_more_accurate_tie_says_so_only_beyond_doubt():
    better, equal = (make_row(name, 2.001, size_bytes=8 * 2**20) for name in ("none-int8", "filter50-none"))
    found = choose(make_comparison(BASELINE, (better, range(4)), (equal, range(19))), Budgets())
    assert [bool(tie.better) for tie in found.ties] == [True, False]
    assert found.ties[0].better[0].startswith("more accurate, +8.0 points (")


def test_slower_beyond_doubt_is_no_tie():
    found = choose(make_comparison(BASELINE, (make_row("none-int8", 2.2), ())), Budgets())
    assert found.ties == ()
    assert reasons(found, "none-int8") == "slower than the winner: 1.10x (1.09–1.11)"


def test_accuracies_are_told_apart_on_the_same_images():
    """Two models that differ on 14 images tie."""
    rows = [(make_row(), range(10)), (make_row("none-int8", 1.0), range(4, 18)), (make_row("qat", 1.0), range(40))]
    found = choose(make_comparison(*rows), Budgets(prefer="accuracy"))
    assert winner(found) == "none-none"
    assert [tie.row.variant for tie in found.ties] == ["none-int8"]
    assert found.ties[0].better[0].startswith("faster, 0.50x (")
    assert reasons(found, "qat").startswith("less accurate than the winner: -15.0 points (")


def test_sizes_tie_only_where_they_are_equal():
    rows = [(make_row(name, size_bytes=size), ()) for name, size in zip(NAMES, (1000, 1000, 1001))]
    found = choose(make_comparison(*rows), Budgets(prefer="size"))
    assert [tie.row.variant for tie in found.ties] == [NAMES[1]]


def test_a_single_round_has_no_interval_and_names_no_tie():
    rows = [(replace(make_row(name, ms), round_medians_ns=(ms * 1e6,)), ()) for name, ms in zip(NAMES, (1.0, 1.1))]
    found = choose(make_comparison(*rows), Budgets())
    assert found.ties == ()
    assert "(no interval)" in reasons(found, NAMES[1])
    assert any("fewer than two rounds" in caveat for caveat in found.caveats)


def test_answers_that_do_not_fit_their_images_are_refused():
    comparison = make_comparison(BASELINE, (make_row("none-int8", 3.0), range(20)))
    broken = tuple(replace(own, wrong=(IMAGES,)) for own in comparison.answers)
    with pytest.raises(ReportError, match="indices of the wrong ones"):
        choose(replace(comparison, answers=broken), Budgets(prefer="accuracy"))


def with_p90(row, ms, half_ms):
    low, high = (ms - half_ms) * 1e6, (ms + half_ms) * 1e6
    return replace(row, p90_ns=ms * 1e6, p90_low_ns=low, p90_high_ns=high, p90_bound_ns=high)


@pytest.mark.parametrize(
    ("half_ms", "reason"),
    [
        (0.6, "tie: as fast as the winner within the interval, p90 11.01 instead of 11.00 ms, 1.00x (0.9"),
        (0.0001, "slower than the winner: p90 11.01 instead of 11.00 ms, 1.001x (1.001–1.001)"),
    ],
)
def test_where_p90_decides_its_intervals_do(half_ms, reason):
    # By the medians of the rounds the other one is faster beyond doubt.
    rows = [
        (with_p90(make_row("none-none", 10), 11.0, half_ms), ()),
        (with_p90(make_row("none-int8", 8.9), 11.01, half_ms), ()),
    ]
    found = choose(make_comparison(*rows), Budgets(max_latency_ms=20, prefer="latency"))
    assert winner(found) == "none-none"
    assert reasons(found, "none-int8").startswith(reason)
    assert bool(found.ties) == reason.startswith("tie")


def test_a_p90_without_an_interval_names_no_tie():
    rows = [(replace(make_row(name, ms), p90_low_ns=None), ()) for name, ms in (("none-none", 2), ("none-int8", 2.001))]
    found = choose(make_comparison(*rows), Budgets(max_latency_ms=20, prefer="latency"))
    assert reasons(found, "none-int8") == "slower than the winner: p90 2.101 instead of 2.100 ms (no interval)"
    assert not found.ties


def test_medians_that_disagree_with_their_rounds_are_told_and_never_slower_by_less_than_1():
    base = make_row("none-none", 2.0)
    other = make_row("none-int8", 2.01, round_medians_ns=tuple(0.89 * ns for ns in base.round_medians_ns))
    found = choose(make_comparison((base, ()), (other, ())), Budgets())
    assert "slower" not in reasons(found, "none-int8")
    assert "not as fast as the winner over all rounds: median 2.01 instead of 2.00 ms, 0.89x" in (
        reasons(found, "none-int8")
    )


def test_sizes_that_round_alike_have_more_digits():
    rows = [(make_row("none-none", size_bytes=4 * 2**20), ()), (make_row("none-int8", size_bytes=4 * 2**20 + 100), ())]
    found = choose(make_comparison(*rows), Budgets(prefer="size"))
    assert reasons(found, "none-int8") == "larger than the winner: 4.0001 instead of 4.0000 MiB"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"validity": "unstable"}, "unstable"),
        ({"void": 6}, "unstable"),
        ({"parity_passed": False}, "parity failed"),
        ({"golden_within_tolerance": False}, "golden failed"),
    ],
)
def test_a_status_alone_does_not_make_a_row_win(changes, reason):
    fast = make_row("none-int8", 0.1, **changes)
    found = choose(make_comparison(BASELINE, (fast, ())), Budgets())
    assert winner(found) == "none-none"
    assert reasons(found, "none-int8") == reason


def test_two_flaws_are_two_reasons():
    bad = make_row(
        "none-int8", 0.1, status="parity failed: accuracy drops", validity="unstable", reasons=("too hot", "others ran")
    )
    found = choose(make_comparison(BASELINE, (bad, ())), Budgets())
    assert found.losses[-1].reasons == ("parity failed: accuracy drops", "unstable: too hot")


# --- caveats, and the verdict without budgets ---


def test_what_was_forced_or_measured_on_this_computer_stands_with_the_winner():
    row = make_row(status="forced, throttle unknown", forced=True)
    found = choose(make_comparison((row, ()), target="loopback", problems=("the load is 3",)), Budgets())
    assert found.caveats == (
        "the measurement was forced although the load is 3",
        "throttle unknown: nothing there tells whether the clock was lowered",
        "measured on this computer, not a board",
    )


def test_the_verdict_without_budgets_is_the_fastest_that_keeps_its_accuracy():
    fast, wrong = make_row("filter50-none", 1.0), make_row("none-int8", 0.5)
    verdict = default_verdict(make_comparison(BASELINE, (fast, range(22)), (wrong, range(60))))
    found = verdict.sentences
    assert verdict.winner is not None
    assert found[0].startswith(f"Ship {verdict.winner.variant}, ")
    assert found[0] == (
        "Ship filter50-none, the fastest of 2 rows that can be trusted and lose no more than 2 points of accuracy "
        "against none-none: 1.00 ms (0.990–1.01), 89.0 % right (-1.0 points), 4.00 MiB."
    )
    assert found[1].startswith("Next is none-none, slower than the winner: 2.00x (")


def test_the_verdict_without_budgets_takes_the_studys_own_allowance():
    fast = make_row("filter50-none", 1.0, parity_max_drop_ratio=0.001)
    assert (
        "none-none, the only row that can be trusted and loses no more than 0.1 points"
        in (default_verdict(make_comparison(BASELINE, (fast, range(22)))).sentences[0])
    )


@pytest.mark.parametrize("prefer", [None, "size"])
def test_without_a_budget_the_default_of_the_verdict_is_asked(prefer):
    wrong = make_row("none-int8", 0.5, size_bytes=1)
    comparison = make_comparison(BASELINE, (wrong, range(60)))
    asked = default_budgets(comparison, Budgets(prefer=prefer))
    assert asked == Budgets(max_drop=0.02, prefer=prefer)
    out = io.StringIO()
    print_choice(choose(comparison, asked), Console(file=out, width=120), by_default=True)
    assert "no budget, so that the default holds; asked: loss of accuracy at most 2 points" in out.getvalue()
    assert "Ship none-none" in out.getvalue()


def test_the_verdict_without_a_winner_is_one_sentence():
    assert default_verdict(make_comparison((make_row(status="unstable"), ()))).sentences == (
        "Nothing can win: every row is unstable.",
    )


def test_a_name_cannot_leave_its_line_or_markdown():
    hostile = make_row("\x1b[31m|a|<script>\nb", 1.0)
    text = verdict_markdown(make_comparison(BASELINE, (hostile, range(20))))
    assert "\x1b" not in text
    assert "\\[31m\\|a\\|\\<script\\> b" in text
    out = io.StringIO()
    print_choice(choose(make_comparison(BASELINE, (hostile, range(20))), Budgets()), Console(file=out, width=80))
    assert "\x1b" not in out.getvalue()
