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
    make_manifest,
    make_pruned_manifest,
    make_pruned_report,
    make_report,
)
from rich.console import Console

from liteship.report.rows import Row, build_header, build_rows
from liteship.report.table import render_csv, render_json, render_markdown, render_terminal

MANIFEST = make_manifest()
REPORT = make_report(MANIFEST)
ROWS = build_rows(MANIFEST, REPORT)
HEADER = build_header(MANIFEST, REPORT)
PRUNED = make_pruned_manifest()
PRUNED_ROWS = build_rows(PRUNED, make_pruned_report(PRUNED))
FULL_ROW = Row(
    variant="magnitude50-dynamic",
    sha256="a" * 64,
    status="ok",
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
    median_ns=12_345e6,
    p90_ns=99_999_000_000,
    ratio_to_float=1234.56,
)


def terminal(width, rows=ROWS, header=HEADER):
    out = io.StringIO()
    render_terminal(rows, header, Console(file=out, width=width))
    return out.getvalue()


def lines_of(text, variant):
    """The lines that start with a variant: its figures, then its gains."""
    return [" ".join(line.split()) for line in text.splitlines() if line.split()[:1] == [variant]]


def test_terminal_of_80_columns_shows_every_figure_whole():
    text = terminal(80)

    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    words = text.split()
    for figure in ("8.40", "7.78", "88.8–94.9", "92.1", "1.56", "1.58", "1.17", "49.5"):
        assert figure in words
    assert "…" not in text


def test_terminal_of_140_columns_has_one_line_for_each_measured_row():
    lines = terminal(140).splitlines()

    figures, _ = lines_of(terminal(140), "none-int8")
    assert figures == "none-int8 0.0 % 2.53 2.19 92.1 % 88.4–94.7 92.4 % 58.0 1.82 1.84 1.17 ok"
    assert max(map(len, lines)) <= 140


@pytest.mark.parametrize("variant", ["magnitude50-dynamic", "a name that somebody gave an imported model"])
@pytest.mark.parametrize("width", [80, 100, 130, 140, 200])
def test_the_widest_figures_are_not_cut_and_names_give_way(width, variant):
    row = replace(FULL_ROW, variant=variant, keras_model=variant, status="failed: " + "a long reason " * 9)
    text = terminal(width, [row])

    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    figures = ("99.9 %", "999", "998", "98.9–100.0", "100.0 %", "12345", "99999", "1234.56", "123.5x", "345.7x")
    for figure in (*figures, "997", "996", "138,357,544", "15470", "98.8 %"):
        assert f" {figure} " in text.replace("\n", " \n")


def test_a_terminal_that_is_too_narrow_cuts_no_figure():
    words = terminal(40, [FULL_ROW]).split()

    assert {"98.9–100.0", "12345", "1234.56", "123.5x", "138,357,544"} <= set(words)


@pytest.mark.parametrize("width", [80, 140])
def test_terminal_gives_the_reason_of_what_is_missing(width):
    text = " ".join(terminal(width).split())

    assert "refused" in text
    assert "failed" in text
    if width == 80:
        assert f"magnitude50-dynamic refused: {REFUSED_REASON}" in text
        assert f"magnitude75-int8 failed: conversion: {FAILURE_REASON}" in text
    else:
        assert "refused: FULLY_CONNECTED version 12" in text


def test_a_missing_figure_is_an_en_dash():
    figures, gains = lines_of(terminal(140), "magnitude50-dynamic")

    assert figures.startswith("magnitude50-dynamic 49.5 % 2.33 1.43 – – 92.4 % 58.0 – – – refused: ")
    assert gains == "magnitude50-dynamic 3.6x 5.4x – –"


def test_heading_states_target_and_conditions():
    text = terminal(80)

    assert "pi · Raspberry Pi 5 Model B Rev 1.0\n" in text
    assert "ai-edge-litert 2.3.0 · 1 thread · tier rapid · 290 images · 2026-11-22 10:15\n" in text


def test_heading_of_loopback_says_that_it_is_not_a_board():
    header = replace(HEADER, target="loopback", board=None, date=None, threads=4, runtime=None)
    text = " ".join(terminal(80, header=header).split())

    assert "loopback (this computer, not a board) · unknown board" in text
    assert "no runtime · 4 threads · tier rapid · 290 images · job 20261122T101500Z-0123456789ab" in text
    assert "this computer, not a board" in render_markdown(ROWS, header)
    assert json.loads(render_json(ROWS, header))["caption"] == "this computer, not a board"


def test_notes_define_the_columns():
    text = terminal(80)

    assert "95 % Wilson interval" in text
    assert "multiple of none-none's in the same rounds" in text


def test_control_characters_and_markup_in_a_reason_reach_no_terminal():
    row = replace(ROWS[0], status="failed: \x1b[31mred\x1b[0m [bold]x[/bold]\nnext\r")

    for text in (terminal(80, [row]), terminal(140, [row]), render_markdown([row], HEADER)):
        assert "\x1b" not in text
        assert "\r" not in text
    assert "[bold]x[/bold] next" in terminal(80, [row])


def test_markdown_has_exact_bytes_and_one_line_per_row():
    lines = render_markdown(ROWS, HEADER).splitlines()

    figures, gains = (line for line in lines if line.startswith("| none-int8 "))
    assert figures == (
        "| none-int8 | 0.0 % | 2.53 (2,652,912) | 2.19 (2,301,004) | 92.1 % (88.4–94.7) | 92.4 % "
        "| 58.0 | 1.82 | 1.84 | 1.17 | ok |"
    )
    assert gains == "| none-int8 | 3.3x | 3.5x | none | none |"
    tables = [list(table) for is_table, table in itertools.groupby(lines, lambda line: line[:1] == "|") if is_table]
    assert [len({line.count("|") for line in table}) for table in tables] == [1, 1, 1]


def test_markdown_escapes_what_would_break_the_table():
    row = replace(ROWS[0], status="failed: a|b <b> *c* _d_ `e` [f](g)")

    assert "failed: a\\|b \\<b\\> \\*c\\* \\_d\\_ \\`e\\` \\[f\\](g) |" in render_markdown([row], HEADER)


def test_a_failed_parity_is_a_status_with_its_reason_and_cuts_no_figure():
    narrow, wide = terminal(80, PRUNED_ROWS), terminal(140, PRUNED_ROWS)
    reason = "parity failed: accuracy drops by 4.1 points (2.0 allowed); 93.4 % equal answers"

    assert f"none-int8 {reason}" in " ".join(narrow.split())
    assert lines_of(narrow, "none-int8")[0] == "none-int8 0.0 % 2.53 92.1 % 88.6 % 1.63 0.99 parity"
    assert lines_of(wide, "none-int8")[0].endswith(" 1.63 1.73 0.99 parity failed: accuracy drops by")
    assert f"| {reason} |" in render_markdown(PRUNED_ROWS, HEADER)


@pytest.mark.parametrize("width", [80, 140])
def test_gains_are_shown_only_where_they_are_real(width):
    text = terminal(width, PRUNED_ROWS)

    assert "Real gains over none-none\n" in text
    assert len(lines_of(text, "none-none")) == 1
    assert lines_of(text, "filter50-none")[1] == "filter50-none 2.1x 2.1x 1.2x 1.9x"
    assert lines_of(text, "latency90-none-twin")[1] == "latency90-none-twin none 5.8x none none"


@pytest.mark.parametrize("width", [80, 140])
def test_each_keras_model_has_one_line(width):
    text = terminal(width, [*PRUNED_ROWS, replace(PRUNED_ROWS[2], variant="filter50-int8", multiply_adds=7)])

    assert lines_of(text, "none") == ["none 8.74 8.01 2,259,265 58.0 – 0.0 %"]
    assert lines_of(text, "filter50") == ["filter50 4.10 3.72 1,052,000 29.0 35.1 % 0.0 %"]
    assert lines_of(text, "latency90") == ["latency90 8.75 1.72 2,261,000 58.0 – 85.1 %"]


def test_the_multiply_adds_of_a_keras_model_are_those_of_its_float_artefact():
    rows = [replace(PRUNED_ROWS[2], variant="filter50-int8", multiply_adds=7, achieved_sparsity=0.25), PRUNED_ROWS[2]]
    models = json.loads(render_json(rows, HEADER))["keras_models"]

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
    assert json.loads(render_json(rows[:1], HEADER))["keras_models"][0]["multiply_adds"] == 7


def test_markdown_has_the_keras_models_with_exact_bytes():
    assert (
        "| filter50 | 4.10 (4,300,000) | 3.72 (3,900,000) | 1,052,000 | 29.0 | 35.1 % | 0.0 % |"
        in render_markdown(PRUNED_ROWS, HEADER).splitlines()
    )


def test_without_a_model_or_another_artefact_there_is_no_empty_table():
    rows = [replace(PRUNED_ROWS[0], keras_model=None)]

    for text in (terminal(80, rows), render_markdown(rows, HEADER)):
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
    assert f"- {sentence}" in render_markdown(rows, HEADER).splitlines()


def test_the_verdict_of_a_sparse_file_is_structured_in_json_and_csv():
    (row,) = [row for row in json.loads(render_json(PRUNED_ROWS, HEADER))["rows"] if row["stored_sparse"]]
    (line,) = [
        line for line in csv.DictReader(io.StringIO(render_csv(PRUNED_ROWS, HEADER))) if line["stored_sparse"] == "True"
    ]

    assert (row["variant"], row["sparse_eligible"]) == ("latency90-none", True)
    assert (line["sparse_eligible"], line["sparse_reason"]) == ("True", "every rule is met")
    assert float(line["sparse_speedup_ratio"]) == row["sparse_speedup_ratio"]


def test_no_note_is_wider_than_80_columns():
    wide = terminal(200).splitlines()

    assert max(len(line) for line in wide[wide.index("Keras models") :]) <= 80


def test_csv_keeps_exact_numbers_under_the_names_of_the_fields():
    row = replace(ROWS[1], status='failed: "quoted", with\nnew line')
    lines = list(csv.DictReader(io.StringIO(render_csv([row, ROWS[-1]], HEADER))))

    assert list(lines[0]) == ["target", "job_id", *(field.name for field in fields(Row))]
    assert lines[0]["status"] == 'failed: "quoted", with\nnew line'
    assert float(lines[0]["target_accuracy_ratio"]) == row.target_accuracy_ratio
    assert int(lines[0]["size_bytes"]) == 2_652_912
    assert lines[1]["median_ns"] == ""


def test_json_keeps_exact_numbers_and_null():
    document = json.loads(render_json(ROWS, HEADER))

    assert (document["schema_version"], document["target"], document["caption"]) == (2, "pi", None)
    assert document["job"]["job_id"] == HEADER.job_id
    assert document["rows"] == [asdict(row) for row in ROWS]
    assert document["rows"][-1]["median_ns"] is None


@settings(deadline=None)
@given(st.floats(min_value=1, max_value=1e13))
def test_milliseconds_are_within_half_a_percent_and_have_no_exponent(latency_ns):
    line = render_markdown([replace(FULL_ROW, median_ns=latency_ns)], HEADER).splitlines()[4]
    shown = line.split(" | ")[7]

    assert "e" not in shown
    assert float(shown) == pytest.approx(latency_ns / 1e6, rel=0.00501)


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
    line = render_markdown([replace(FULL_ROW, median_ns=latency_ns)], HEADER).splitlines()[4]

    assert line.split(" | ")[7] == shown
