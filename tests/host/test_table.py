from __future__ import annotations

import csv
import io
import itertools
import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import (
    FAILURE_REASON,
    REFUSED_REASON,
    TFLITE,
    make_blocks,
    make_case,
    make_flip,
    make_job,
    make_manifest,
    make_pruned_manifest,
    make_pruned_report,
    make_report,
    make_scores,
    without_throttling,
)
from rich.console import Console

from liteship.report import checks, table
from liteship.report.comparison import Row
from liteship.report.document import render_json
from liteship.report.rows import build_comparison
from liteship.report.table import render_csv
from liteship_agent.report import REPEATED, UNKNOWN, UNSTABLE


@pytest.fixture(autouse=True)
def summaries_are_made_up(monkeypatch):
    """A table shows what a summary says; that it is of its blocks is tested with the checks."""
    monkeypatch.setattr(checks, "check_figures", lambda report: None)


MANIFEST = make_manifest()
REPORT = make_report(MANIFEST)
COMPARISON = build_comparison(MANIFEST, REPORT)
ROWS, HEADER = COMPARISON.rows, COMPARISON.header
PRUNED = make_pruned_manifest()
PRUNED_COMPARISON = build_comparison(PRUNED, make_pruned_report(PRUNED))
PRUNED_ROWS = PRUNED_COMPARISON.rows
FULL_ROW = Row(
    variant="magnitude50-dynamic",
    sha256="a" * 64,
    status="valid",
    runtime="ai-edge-litert",
    runtime_version="2.3.0",
    threads=1,
    cpus=(0, 1, 2, 3),
    achieved_sparsity=0.99949,
    size_bytes=999 * 2**20,
    gzip_bytes=998 * 2**20,
    target_accuracy_ratio=1.0,
    target_accuracy_low_ratio=0.98944,
    target_accuracy_high_ratio=1.0,
    host_accuracy_ratio=1.0,
    multiply_adds=15_470_264_320,
    keras_model="magnitude50",
    keras_size_bytes=997 * 2**20,
    keras_gzip_bytes=996 * 2**20,
    parameters=138_357_544,
    removed_filters_ratio=0.98765,
    file_gain=123.456,
    gzip_gain=1.0,
    memory_gain=234.567,
    latency_gain=345.678,
    validity="valid",
    median_ns=12_345e6,
    median_low_ns=12_001e6,
    median_high_ns=12_444e6,
    p90_ns=99_999_000_000,
    p90_bound_ns=98_765_000_000,
    ratio_to_baseline=1234.56,
    ratio_low=1111.11,
    ratio_high=2222.22,
    latency_tie=False,
    accuracy_difference_ratio=-0.123,
    accuracy_difference_low_ratio=-0.234,
    accuracy_difference_high_ratio=0.101,
    accuracy_tie=True,
    accuracy_p=0.0123,
    init_ns=123_456_000_000,
    first_ns=23_456_000_000,
    warmup_ns=34_567_000_000,
    end_to_end_median_ns=45_678_000_000,
    rss_peak_bytes=995 * 2**20,
    cores_used=3.98,
    delegated_nodes=164,
    total_nodes=165,
)


def comparison_of(rows, header=HEADER, answers=()):
    return replace(COMPARISON, rows=tuple(rows), header=header, answers=answers)


def terminal(width, rows=None, header=HEADER):
    return shown(width, COMPARISON if rows is None and header is HEADER else comparison_of(rows or ROWS, header))


def shown(width, comparison):
    out = io.StringIO()
    table.render_terminal(comparison, Console(file=out, width=width))
    return out.getvalue()


def render_markdown(rows=ROWS, header=HEADER):
    return table.render_markdown(comparison_of(rows, header))


def with_summary(case_index, **changes):
    """The comparison of a report with another summary of one case."""
    summaries = tuple(replace(s, **changes) if s.case_index == case_index else s for s in REPORT.summaries)
    return build_comparison(MANIFEST, replace(REPORT, summaries=summaries))


def settings_comparison(*changes):
    """Two artefacts, each in several settings."""
    cases = [make_case(variant, **change) for variant in ("none-none", "none-int8") for change in changes]
    job = make_job(*cases)
    runtimes = dict.fromkeys(case.runtime for case in cases)
    accuracy = tuple(make_scores(v, 22, runtime=runtime) for v in ("none-none", "none-int8") for runtime in runtimes)
    blocks = make_blocks(job, [1_000_000 + 100_000 * index for index in range(len(cases))])
    return build_comparison(MANIFEST, make_report(MANIFEST, job=job, blocks=blocks, accuracy=accuracy, refused=()))


def lines_of(text, variant):
    """The lines that start with a variant: its figures, then its gains."""
    return [" ".join(line.split()) for line in text.splitlines() if line.split()[:1] == [variant]]


def test_terminal_of_80_columns_shows_every_figure_whole():
    text = terminal(80)

    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    words = text.split()
    for figure in ("8.40", "7.78", "88.8–94.9", "92.1", "1.56", "±0.02", "1.59", "1.60", "1.17", "1.15–1.18", "49.5"):
        assert figure in words
    for row in ROWS:
        assert row.variant in words
    assert "…" not in text


def test_terminal_of_140_columns_has_one_line_for_each_row():
    lines = terminal(140).splitlines()

    figures = lines_of(terminal(140), "none-int8")[0]
    assert figures == (
        "none-int8 0.0 % 2.53 2.19 92.1 % 88.4–94.7 92.4 % 58.0 1.82 ±0.02 1.85 1.86 1.17 1.15–1.18 valid"
    )
    assert max(map(len, lines)) <= 140


@pytest.mark.parametrize("variant", ["magnitude50-dynamic", "a name that somebody gave an imported model"])
@pytest.mark.parametrize("width", [80, 100, 130, 140, 200])
def test_the_widest_figures_are_not_cut_and_names_give_way(width, variant):
    row = replace(FULL_ROW, variant=variant, keras_model=variant, status="forced, failed: " + "a long reason " * 9)
    text = terminal(width, [ROWS[0], row])

    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    figures = ("99.9 %", "999", "998", "98.9–100.0", "100.0 %", "12345 ±344", "99999", "98765", "1234.56")
    figures += ("1111.11–2222.22", "123.5x", "345.7x", "997", "996", "138,357,544", "15470", "98.8 %")
    figures += ("-12.3 tie", "-23.4 to +10.1", "0.012", "123456", "34567", "45678", "995", "3.98", "164 of 165")
    for figure in figures:
        assert f" {figure} " in f" {text} ".replace("\n", " \n")


def test_a_terminal_that_is_too_narrow_cuts_no_figure():
    words = terminal(40, [ROWS[0], FULL_ROW]).split()

    assert {"98.9–100.0", "12345", "1234.56", "123.5x", "138,357,544"} <= set(words)


@pytest.mark.parametrize("width", [80, 140])
def test_terminal_gives_the_reason_of_what_is_missing(width):
    text = " ".join(terminal(width).split())

    assert f"magnitude50-dynamic refused: {REFUSED_REASON}" in text
    assert f"magnitude75-int8 failed: conversion: {FAILURE_REASON}" in text


def test_a_missing_figure_is_an_en_dash():
    figures, _, gains = lines_of(terminal(140), "magnitude50-dynamic")

    assert figures == "magnitude50-dynamic 49.5 % 2.33 1.43 – – 92.4 % 58.0 – – – – – refused"
    assert gains == "magnitude50-dynamic 3.6x 5.4x – – – – –"


@pytest.mark.parametrize("width", [80, 140])
def test_ties_are_said_to_be_ties(width):
    # Its ratio is 0.99 with an interval from 0.98 to just above 1.
    text = shown(width, with_summary(2, ratio_high=1.004))

    assert lines_of(text, "magnitude50-none")[-2] == "magnitude50-none none 1.7x none tie -0.7 tie -2.5 to +0.6 0.50"
    assert "0.98–1.00 tie" in " ".join(text.split()) if width == 140 else "tie" in text.split()
    assert "none-int8 3.3x 3.5x none none -0.3 tie -1.9 to +1.0 1.00" in " ".join(text.split())


def test_the_baseline_has_no_interval_of_its_ratio_and_no_gains():
    baseline = lines_of(terminal(140), "none-none")

    assert baseline[0].endswith(" 1.56 ±0.02 1.59 1.60 1.00 – valid")
    assert len(baseline) == 2


@pytest.mark.parametrize("width", [80, 140])
def test_a_row_that_is_not_simply_valid_has_a_sentence_with_its_reasons(width):
    repeated = with_summary(1, validity=REPEATED, repeated=2, reasons=("clock fell from 1500 to 1000 MHz",))
    unstable = with_summary(1, validity=UNSTABLE, void=4, repeated=18, reasons=("throttled", "undervoltage"))

    text = shown(width, repeated)
    assert "none-int8: 2 blocks repeated (clock fell from 1500 to 1000 MHz)\n" in text
    assert " repeated\n" in "\n".join(line.rstrip() for line in text.splitlines())
    assert "none-int8: 4 of 6 blocks void after 3 repetitions (throttled; undervoltage): it cannot win" in " ".join(
        shown(width, unstable).split()
    )
    assert "- none-int8: 2 blocks repeated (clock fell" in table.render_markdown(repeated)


def test_rows_with_the_same_reason_share_a_sentence():
    unknown = {"validity": UNKNOWN, "reasons": ("throttling cannot be read on this machine",)}
    report = replace(REPORT, sensors=without_throttling())
    every = tuple(replace(summary, **unknown) for summary in REPORT.summaries)
    two = (*every[:2], *REPORT.summaries[2:])

    text = shown(200, build_comparison(MANIFEST, replace(report, summaries=every)))
    assert "every row: throttle unknown (throttling cannot be read on this machine)\n" in text
    assert text.count("cannot be read") == 1
    assert (
        "nothing here tells about throttling: throttled_bits, cooling_state, throttle_count: no such file; "
        "add this user to the group video\n"
    ) in text
    text = shown(200, build_comparison(MANIFEST, replace(report, summaries=two)))
    assert "none-none; none-int8: throttle unknown (throttling cannot be read on this machine)\n" in text


def test_reasons_that_differ_in_figures_share_a_sentence_with_their_range():
    reasons = (("others took 1.2 cores",), ("others took 0.6 of a core", "others took 1.8 cores"))
    rows = [
        replace(row, validity=UNSTABLE, reasons=reason, void=void, repeated=9)
        for row, reason, void in zip(ROWS, reasons, (6, 4), strict=False)
    ]
    text = shown(200, comparison_of(rows))

    assert (
        "every row: 4 to 6 of 6 blocks void after 3 repetitions (others took 0.6 to 1.8 cores): it cannot win\n" in text
    )
    clocks = ("clock fell from 1500 to 1000 MHz", "clock fell from 1500 to 900 MHz")
    text = shown(200, comparison_of([replace(rows[0], reasons=clocks)]))
    assert "6 of 6 blocks void after 3 repetitions (clock fell from 1500 to 900–1000 MHz): it" in text


def test_forced_problems_that_differ_in_figures_are_one():
    header = replace(HEADER, forced=True, problems=("others use 1.2 cores", "too hot", "others use 2.0 cores"))

    assert "\nforced: others use 1.2 to 2.0 cores; too hot\n" in terminal(140, header=header)


@pytest.mark.parametrize("unstable", [0, 1])
def test_gains_that_are_disturbed_are_unstable(unstable):
    comparison = with_summary(unstable, validity=UNSTABLE)

    assert " unstable " in lines_of(shown(140, comparison), "none-int8")[1]
    assert json.loads(render_json(comparison))["rows"][1]["latency_gain"] is None


def test_a_ratio_without_an_interval_is_a_bare_figure():
    comparison = with_summary(1, ratio=0.5, ratio_low=None, ratio_high=None)
    (line, gains, *_) = lines_of(shown(140, comparison), "none-int8")

    assert line.endswith(" 0.50 – valid")
    assert "tie" not in gains.partition("–")[0]
    assert " | 0.50 | valid |" in table.render_markdown(comparison)


@pytest.mark.parametrize(("is_float", "title"), [(True, "x float"), (False, "x base")])
def test_the_title_of_ratios_says_float_only_of_a_float_file(is_float, title):
    header = replace(HEADER, baseline_is_float=is_float)
    other = {"x float": "x base", "x base": "x float"}[title]

    for text in (terminal(80, header=header), render_markdown(header=header)):
        assert f"{title}: latency as a multiple" in text
        assert f"interval of {title} is below 1" in text
        assert other not in text


def test_flips_without_a_cause_say_why():
    def said(count):
        flips = tuple(make_flip("none-int8", i, cause=None, largest_pixel_difference=None) for i in range(count))
        return " ".join(shown(140, build_comparison(MANIFEST, replace(REPORT, flips=flips))).split())

    assert "2 without a known cause (dog/0.jpg, cat/1.jpg: the host resizes them otherwise today, or" in said(2)
    assert "65 without a known cause (dog/0.jpg, cat/1.jpg, dog/2.jpg, ...: not looked for beyond 64)" in said(65)


@pytest.mark.parametrize("width", [80, 140])
def test_what_was_forced_stands_in_the_heading_and_in_every_row(width):
    report = replace(REPORT, job=replace(REPORT.job, forced=True), problems=("72 °C is too hot", "others are busy"))
    text = shown(width, build_comparison(MANIFEST, report))

    assert "\nforced: 72 °C is too hot; others are busy\n" in text
    assert text.count("forced, ") == 4
    assert "**forced: 72 °C is too hot; others are busy**" in table.render_markdown(build_comparison(MANIFEST, report))
    report = replace(report, problems=())
    assert "forced: the preflight found nothing to override" in shown(80, build_comparison(MANIFEST, report))


def test_settings_are_columns_only_where_they_vary():
    lines = shown(140, settings_comparison({}, {"threads": 2}, {"threads": 4})).splitlines()

    assert "ai-edge-litert 2.3.0 · CPUs 0-3 · tier rapid" in lines[1]
    titles = next(line for line in lines if line.startswith("variant"))
    assert (titles.split()[1], "CPUs" in titles) == ("threads", False)
    assert [line[:28].split() for line in lines if line.startswith("none-")][:6] == [
        [variant, threads] for variant in ("none-none", "none-int8") for threads in ("1", "2", "4")
    ]


def test_a_narrow_terminal_stacks_what_varies_under_the_name():
    text = shown(80, settings_comparison({}, {"threads": 4, "cpus": (4, 5, 6, 7)}, {"runtime": TFLITE, "cpus": (0, 2)}))
    names = [line[:21].strip() for line in text.splitlines()]

    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    at = names.index("none-int8")
    assert names[at : at + 4] == ["none-int8", "1 thread", "CPUs 0-3", "ai-edge-litert 2.3.0"]
    assert {"4 threads", "CPUs 4-7", "CPUs 0,2", "tflite-runtime 2.14.0"} <= set(names)
    assert "pi · Raspberry Pi 5 Model B Rev 1.0\ntier rapid · 290 images" in text


def test_markdown_has_a_column_for_each_setting_that_varies():
    changes = ({}, {"threads": 4, "cpus": (4, 5, 6, 7)}, {"runtime": TFLITE, "cpus": (0, 2)})
    lines = table.render_markdown(settings_comparison(*changes)).splitlines()

    assert "| variant | threads | CPUs | runtime | sparsity |" in lines[2]
    assert lines[5].startswith("| none-none | 4 | 4-7 | ai-edge-litert 2.3.0 | 0.0 % |")
    assert lines[6].startswith("| none-none | 1 | 0,2 | tflite-runtime 2.14.0 | 0.0 % |")
    assert any(line.startswith("| none-int8, 4 threads, CPUs 4-7, ai-edge-litert 2.3.0 | 3.3x |") for line in lines)


FLIPS = (
    *(make_flip("none-int8", index) for index in (1, 3, 5, 7)),
    make_flip("none-int8", 9, cause="kernels", largest_pixel_difference=0),
    make_flip("none-int8", 11, cause=None, largest_pixel_difference=None),
    make_flip("magnitude50-none", 13, against="baseline", cause=None, largest_pixel_difference=None),
)


@pytest.mark.parametrize("width", [80, 140])
def test_flips_are_told_shortly_with_the_first_names_of_each_cause(width):
    report = replace(REPORT, flips=FLIPS, extra={"pixels": {"compared": 290, "different": 12, "largest_difference": 1}})
    text = " ".join(shown(width, build_comparison(MANIFEST, report)).split())

    assert (
        "none-int8: 6 of 290 answers differ from the host's: 4 by pixels (cat/1.jpg, cat/3.jpg, cat/5.jpg, ...), "
        "1 by kernels (cat/9.jpg), 1 without a known cause (cat/11.jpg: the host resizes them otherwise today, or the "
        "link was lost)"
    ) in text
    assert "the resized pixels of 12 of 290 images are not the host's, by 1 of 255 at most" in text
    assert "cat/13.jpg" not in text


def test_markdown_and_json_list_every_flip_by_its_file_name():
    comparison = build_comparison(MANIFEST, replace(REPORT, flips=FLIPS))
    lines = table.render_markdown(comparison).splitlines()
    (answers,) = [a for a in json.loads(render_json(comparison))["answers"] if a["variant"] == "magnitude50-none"]

    assert "| cat/9.jpg | none-int8 | ai-edge-litert 2.3.0 | host | cat | cat | dog | kernels | 0 |" in lines
    assert "| cat/13.jpg | magnitude50-none | ai-edge-litert 2.3.0 | baseline | cat | cat | dog | – | – |" in lines
    assert answers["flips"] == [
        {
            "path": "cat/13.jpg",
            "against": "baseline",
            "label": "cat",
            "expected": "cat",
            "received": "dog",
            "cause": None,
            "largest_pixel_difference": None,
        }
    ]


def test_without_flips_nothing_is_said_of_them():
    for text in (terminal(140), table.render_markdown(COMPARISON)):
        assert "differ from" not in text
        assert "Answers that differ" not in text
        assert "resized pixels" not in text


def test_what_is_taken_for_what_stands_in_markdown_and_json():
    # Of the baseline's 22 wrong answers half are dogs (even images) and half cats.
    answers = json.loads(render_json(COMPARISON))["answers"][0]

    assert (answers["labels"], answers["confusion"]) == (["dog", "cat"], [[134, 11], [11, 134]])
    lines = table.render_markdown(COMPARISON).splitlines()
    assert "| none-none, ai-edge-litert 2.3.0 | dog | 134 | 11 |" in lines


def test_a_confusion_matrix_of_many_labels_is_left_to_json():
    answers = tuple(
        replace(own, labels=tuple("abcdefghijk"), confusion=((1,) * 11,) * 11) for own in COMPARISON.answers
    )
    comparison = replace(COMPARISON, answers=answers)

    assert "taken for what" not in table.render_markdown(comparison)
    assert len(json.loads(render_json(comparison))["answers"][0]["confusion"]) == 11


def test_an_implausible_latency_is_said_with_its_causes():
    low = replace(ROWS[1], peak_ratio=0.031, peak_core="a Cortex-A76", peak_clock_hz=2.4e9, peak_reasons=("a", "b"))
    high = replace(ROWS[2], peak_ratio=0.3, peak_core="a Cortex-A76", peak_clock_hz=2.4e9)
    unknown = replace(ROWS[0], peak_reasons=("multiply-adds per cycle of this core are not known",))
    sentence = "none-int8: 3.1 % of the float32 peak of a Cortex-A76 at 2400 MHz: a; b"

    for text in (terminal(140, [unknown, low, high]), render_markdown([unknown, low, high])):
        assert sentence in text
        assert text.count("peak") == 1


def test_what_happens_around_the_invocation_has_a_table():
    line = next(line for line in terminal(80).splitlines() if "64 of 65" in line)

    assert " ".join(line.split()) == "none-none 9.00 4.00 8.00 2.56 85.8 1.00 64 of 65"
    assert "| variant | init ms | first ms | warm-up ms | end to end ms |" in render_markdown()


def test_heading_states_target_and_conditions():
    text = terminal(80)

    assert "pi · Raspberry Pi 5 Model B Rev 1.0\n" in text
    assert "ai-edge-litert 2.3.0 · 1 thread · CPUs 0-3 · tier rapid · 290 images · \n2026-11-22 10:15\n" in text


def test_heading_of_loopback_says_that_it_is_not_a_board():
    header = replace(HEADER, target="loopback", board=None, date=None, threads=4, cpus=(0, 2, 3))
    text = " ".join(terminal(80, header=header).split())

    assert "loopback (this computer, not a board) · unknown board" in text
    assert "2.3.0 · 4 threads · CPUs 0,2-3 · tier rapid · 290 images · job 20261122T101500Z-0123456789ab" in text
    assert "this computer, not a board" in render_markdown(ROWS, header)
    assert json.loads(render_json(comparison_of(ROWS, header)))["caption"] == "this computer, not a board"


@pytest.mark.parametrize("width", [80, 160])
def test_latency_of_an_emulated_machine_is_grey(width):
    def is_grey(target):
        comparison = comparison_of(ROWS, replace(HEADER, target=target))
        console = Console(width=width, file=io.StringIO(), record=True, force_terminal=True, color_system="standard")
        table.render_terminal(comparison, console)
        return f"\x1b[90m{ROWS[0].median_ns / 1e6:.2f}" in console.export_text(styles=True)

    assert is_grey("emulated")
    assert not is_grey("pi")


def test_heading_of_an_emulated_machine_says_that_its_latency_is_no_boards():
    header = replace(HEADER, target="emulated", board="linux,dummy-virt")

    assert "say nothing about a board) · linux,dummy-virt" in " ".join(terminal(80, header=header).split())
    assert json.loads(render_json(comparison_of(ROWS, header)))["caption"].startswith("an emulated machine")


def test_notes_define_the_columns():
    text = terminal(80)

    assert "95 % Wilson interval" in text
    assert "multiple of none-none's in the same rounds" in text


def test_control_characters_and_markup_in_a_reason_reach_no_terminal():
    row = replace(ROWS[0], status="failed: \x1b[31mred\x1b[0m [bold]x[/bold]\nnext\r")

    for text in (terminal(80, [row]), terminal(140, [row]), render_markdown([row])):
        assert "\x1b" not in text
        assert "\r" not in text
    assert "[bold]x[/bold] next" in terminal(80, [row])


def test_markdown_has_exact_bytes_and_one_line_per_row():
    lines = table.render_markdown(COMPARISON).splitlines()

    figures, gains = (line for line in lines if line.startswith("| none-int8 ") and " 9.00 " not in line)
    assert figures == (
        "| none-int8 | 0.0 % | 2.53 (2,652,912) | 2.19 (2,301,004) | 92.1 % (88.4–94.7) | 92.4 % "
        "| 58.0 | 1.82 (1.81–1.84) | 1.85 | 1.86 | 1.17 (1.15–1.18) | valid |"
    )
    assert gains == "| none-int8 | 3.3x | 3.5x | none | none | -0.3 tie | -1.9 to +1.0 | 1.00 |"
    tables = [list(table) for is_table, table in itertools.groupby(lines, lambda line: line[:1] == "|") if is_table]
    assert [len({line.count("|") for line in table}) for table in tables] == [1, 1, 1, 1, 1]


def test_markdown_escapes_what_would_break_the_table():
    row = replace(ROWS[0], status="failed: a|b <b> *c* _d_ `e` [f](g)")

    assert "failed: a\\|b \\<b\\> \\*c\\* \\_d\\_ \\`e\\` \\[f\\](g) |" in render_markdown([row])


def test_a_failed_parity_is_a_status_with_its_reason_and_cuts_no_figure():
    narrow, wide = terminal(80, PRUNED_ROWS), terminal(140, PRUNED_ROWS)
    reason = "parity failed: accuracy drops by 4.1 points (2.0 allowed); 93.4 % equal answers"

    for text in (narrow, wide):
        assert f"none-int8 {reason}" in " ".join(text.split())
    assert lines_of(narrow, "none-int8")[0] == "none-int8 0.0 % 2.53 92.1 % 1.66 ±0.02 0.99 parity"
    assert lines_of(wide, "none-int8")[0].endswith(" 1.66 ±0.02 1.78 1.78 0.99 0.98–1.00 tie parity failed")
    assert f"| {reason} |" in render_markdown(PRUNED_ROWS)


@pytest.mark.parametrize("width", [80, 140])
def test_gains_are_shown_only_where_they_are_real(width):
    text = terminal(width, PRUNED_ROWS)

    assert "Real gains over none-none, and accuracy against it in points\n" in text
    assert lines_of(text, "filter50-none")[1] == "filter50-none 2.1x 2.1x 1.2x 1.9x -0.7 tie -2.5 to +0.6 0.50"
    twin = next(line for line in lines_of(text, "latency90-none-twin") if "5.8x" in line)
    assert twin == "latency90-none-twin none 5.8x none tie -1.4 -3.5 to -0.1 0.12"


@pytest.mark.parametrize("width", [80, 140])
def test_each_keras_model_has_one_line(width):
    text = terminal(width, [*PRUNED_ROWS, replace(PRUNED_ROWS[2], variant="filter50-int8", multiply_adds=7)])

    assert lines_of(text, "none") == ["none 8.74 8.01 2,259,265 58.0 – 0.0 %"]
    assert lines_of(text, "filter50") == ["filter50 4.10 3.72 1,052,000 29.0 35.1 % 0.0 %"]
    assert lines_of(text, "latency90") == ["latency90 8.75 1.72 2,261,000 58.0 – 85.1 %"]


def test_the_multiply_adds_of_a_keras_model_are_those_of_its_float_artefact():
    rows = [replace(PRUNED_ROWS[2], variant="filter50-int8", multiply_adds=7, achieved_sparsity=0.25), PRUNED_ROWS[2]]
    models = json.loads(render_json(comparison_of(rows)))["keras_models"]

    assert models == [
        {
            "name": "filter50",
            "size_bytes": 4_300_000,
            "gzip_bytes": 3_900_000,
            "parameters": 1_052_000,
            "multiply_adds": 29_000_000,
            "removed_filters_ratio": 0.3512,
            "achieved_sparsity": 0.25,
        }
    ]
    assert json.loads(render_json(comparison_of(rows[:1])))["keras_models"][0]["multiply_adds"] == 7


def test_markdown_has_the_keras_models_with_exact_bytes():
    assert (
        "| filter50 | 4.10 (4,300,000) | 3.72 (3,900,000) | 1,052,000 | 29.0 | 35.1 % | 0.0 % |"
        in render_markdown(PRUNED_ROWS).splitlines()
    )


def test_without_a_model_or_another_artefact_there_is_no_empty_table():
    rows = [replace(PRUNED_ROWS[0], keras_model=None)]

    for text in (terminal(80, rows), render_markdown(rows)):
        assert "Keras models" not in text
        assert "Real gains" not in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {},
            "latency90-none: eligible for sparse kernels (ai-edge-litert 2.3 on aarch64); "
            "measured 1.02x against its dense twin here",
        ),
        (
            {"sparse_eligible": False, "sparse_layer": "Conv1", "sparse_reason": "no", "sparse_speedup_ratio": 0.979},
            "latency90-none: not eligible for sparse kernels: Conv1: no; measured 0.98x against its dense twin here",
        ),
        (
            {"sparse_eligible": False, "sparse_reason": "too dense", "sparse_speedup_ratio": None},
            "latency90-none: not eligible for sparse kernels: too dense; not measured against a dense twin here",
        ),
    ],
)
def test_each_file_that_is_stored_sparse_has_its_verdict(changes, sentence):
    rows = [replace(row, **changes) if row.stored_sparse else row for row in PRUNED_ROWS]

    for text in (terminal(80, rows), terminal(140, rows)):
        assert " ".join(text.split()).count(sentence) == 1
        assert text.count("sparse kernels") == 1
    assert f"- {sentence}" in render_markdown(rows).splitlines()


def test_the_verdict_of_a_sparse_file_is_structured_in_json_and_csv():
    (row,) = [row for row in json.loads(render_json(PRUNED_COMPARISON))["rows"] if row["stored_sparse"]]
    (line,) = [
        line for line in csv.DictReader(io.StringIO(render_csv(PRUNED_COMPARISON))) if line["stored_sparse"] == "True"
    ]

    assert (row["variant"], row["sparse_eligible"]) == ("latency90-none", True)
    assert (line["sparse_eligible"], line["sparse_reason"]) == ("True", "every rule is met")
    assert float(line["sparse_speedup_ratio"]) == row["sparse_speedup_ratio"]


def test_no_note_is_wider_than_80_columns():
    wide = terminal(200).splitlines()

    assert max(len(line) for line in wide[wide.index("Keras models") :]) <= 80


def test_csv_keeps_exact_numbers_under_the_names_of_the_fields():
    row = replace(ROWS[1], status='failed: "quoted", with\nnew line', reasons=("a", "b"))
    lines = list(csv.DictReader(io.StringIO(render_csv(comparison_of([row, ROWS[-1]])))))

    assert list(lines[0]) == ["target", "job_id", *(field.name for field in fields(Row))]
    assert lines[0]["status"] == 'failed: "quoted", with\nnew line'
    assert float(lines[0]["target_accuracy_ratio"]) == row.target_accuracy_ratio
    assert int(lines[0]["size_bytes"]) == 2_652_912
    assert (lines[0]["cpus"], lines[0]["reasons"]) == ("0-3", "a; b")
    assert (lines[1]["median_ns"], lines[1]["cpus"]) == ("", "")


def test_json_keeps_exact_numbers_and_null():
    document = json.loads(render_json(COMPARISON))

    assert (document["schema_version"], document["target"], document["caption"]) == (4, "pi", None)
    assert document["job"]["job_id"] == HEADER.job_id
    assert document["rows"] == json.loads(json.dumps([asdict(row) for row in ROWS]))
    assert document["rows"][-1]["median_ns"] is None


def shown_median(**changes):
    line = render_markdown([replace(FULL_ROW, median_low_ns=None, median_high_ns=None, **changes)]).splitlines()[4]
    return line.split(" | ")[7]


@settings(deadline=None)
@given(st.floats(min_value=1, max_value=1e13))
def test_milliseconds_are_within_half_a_percent_and_have_no_exponent(latency_ns):
    median = shown_median(median_ns=latency_ns)

    assert "e" not in median
    assert float(median) == pytest.approx(latency_ns / 1e6, rel=0.00501)


@pytest.mark.parametrize(
    ("latency_ns", "shown"),
    [
        (12_345, "0.0123"),
        (1_540_000, "1.54"),
        (9_996_000, "10.0"),
        (99_960_000, "100"),
        (254_400_000, "254"),
        (1_254_000_000, "1254"),
    ],
)
def test_milliseconds_have_three_digits(latency_ns, shown):
    assert shown_median(median_ns=latency_ns) == shown


@pytest.mark.parametrize(
    ("median_ns", "low_ns", "high_ns", "shown"),
    [
        (1_540_000, 1_520_000, 1_550_000, "1.54 ±0.02"),
        (1_540_000, 1_539_000, 1_541_000, "1.54 ±0.01"),
        (1_540_000, 1_540_000, 1_540_000, "1.54 ±0.00"),
        (254_400_000, 251_000_000, 255_000_000, "254 ±4"),
        (12_345, 12_245, 12_346, "0.0123 ±0.0001"),
        (12_345, None, None, "0.0123"),
    ],
)
def test_the_interval_of_a_median_has_its_digits_and_is_rounded_up(median_ns, low_ns, high_ns, shown):
    row = replace(FULL_ROW, median_ns=median_ns, median_low_ns=low_ns, median_high_ns=high_ns)

    assert f" {shown} " in terminal(200, [ROWS[0], row])


@pytest.mark.parametrize(
    ("ratio", "low", "high", "shown"),
    [(0.5, 0.456, 0.544, "0.50 (0.46–0.54)"), (0.05, 0.0456, 0.0544, "0.050 (0.046–0.054)"), (1.5, None, None, "1.50")],
)
def test_a_ratio_has_its_interval_beside_it(ratio, low, high, shown):
    tie = None if low is None else False
    row = replace(FULL_ROW, ratio_to_baseline=ratio, ratio_low=low, ratio_high=high, latency_tie=tie)

    assert f"| {shown} |" in render_markdown([row])


@pytest.mark.parametrize(
    ("p", "shown"), [(1.0, "1.00"), (0.456, "0.46"), (0.0123, "0.012"), (0.0009, "<0.001"), (None, "–")]
)
def test_p_has_as_many_digits_as_it_needs(p, shown):
    lines = terminal(140, [ROWS[0], replace(FULL_ROW, accuracy_p=p)]).splitlines()

    assert next(line for line in lines if "123.5x" in line).split()[-1] == shown


@pytest.mark.parametrize(("ratio", "shown"), [(-0.0034, "-0.3"), (0.0034, "+0.3"), (-0.0004, "0.0"), (0.101, "+10.1")])
def test_a_difference_of_accuracy_has_its_sign(ratio, shown):
    row = replace(FULL_ROW, accuracy_difference_ratio=ratio, accuracy_tie=False)

    assert f" | {shown} | -23.4 to +10.1 | " in render_markdown([ROWS[0], row])
