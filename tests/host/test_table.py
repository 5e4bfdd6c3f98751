from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import FAILURE_REASON, REFUSED_REASON, make_manifest, make_report
from rich.console import Console

from liteship.report.rows import Row, build_header, build_rows
from liteship.report.table import render_csv, render_json, render_markdown, render_terminal

MANIFEST = make_manifest()
REPORT = make_report(MANIFEST)
ROWS = build_rows(MANIFEST, REPORT)
HEADER = build_header(MANIFEST, REPORT)
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
    median_ns=12_345e6,
    p90_ns=99_999_000_000,
    ratio_to_float=1234.56,
)


def terminal(width, rows=ROWS, header=HEADER):
    out = io.StringIO()
    render_terminal(rows, header, Console(file=out, width=width))
    return out.getvalue()


def test_terminal_of_80_columns_shows_every_figure_whole():
    text = terminal(80)

    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    words = text.split()
    for figure in ("8.40", "7.78", "88.8–94.9", "92.1", "1.56", "1.58", "1.17", "49.5"):
        assert figure in words
    assert "…" not in text


def test_terminal_of_140_columns_has_one_line_for_each_measured_row():
    lines = terminal(140).splitlines()

    (line,) = [line for line in lines if line.startswith("none-int8")]
    assert " ".join(line.split()) == "none-int8 0.0 % 2.53 2.19 92.1 % 88.4–94.7 92.4 % 1.82 1.84 1.17 ok"
    assert max(map(len, lines)) <= 140


@pytest.mark.parametrize("variant", ["magnitude50-dynamic", "a name that somebody gave an imported model"])
@pytest.mark.parametrize("width", [80, 100, 130, 140, 200])
def test_the_widest_figures_are_not_cut_and_names_give_way(width, variant):
    text = terminal(width, [replace(FULL_ROW, variant=variant, status="failed: " + "a long reason " * 9)])

    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for figure in ("99.9 %", "999", "998", "98.9–100.0", "100.0 %", "12345", "99999", "1234.56"):
        assert f" {figure} " in text.replace("\n", " \n")


def test_a_terminal_that_is_too_narrow_cuts_no_figure():
    words = terminal(40, [FULL_ROW]).split()

    assert {"98.9–100.0", "12345", "1234.56"} <= set(words)


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
    (line,) = [line for line in terminal(140).splitlines() if line.startswith("magnitude50-dynamic")]

    assert " ".join(line.split()).startswith("magnitude50-dynamic 49.5 % 2.33 1.43 – – 92.4 % – – – refused: ")


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

    (line,) = [line for line in lines if line.startswith("| none-int8 ")]
    assert line == (
        "| none-int8 | 0.0 % | 2.53 (2,652,912) | 2.19 (2,301,004) | 92.1 % (88.4–94.7) | 92.4 % "
        "| 1.82 | 1.84 | 1.17 | ok |"
    )
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_markdown_escapes_what_would_break_the_table():
    row = replace(ROWS[0], status="failed: a|b <b> *c* _d_ `e` [f](g)")

    assert "failed: a\\|b \\<b\\> \\*c\\* \\_d\\_ \\`e\\` \\[f\\](g) |" in render_markdown([row], HEADER)


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

    assert (document["schema_version"], document["target"], document["caption"]) == (1, "pi", None)
    assert document["job"]["job_id"] == HEADER.job_id
    assert document["rows"] == [asdict(row) for row in ROWS]
    assert document["rows"][-1]["median_ns"] is None


@settings(deadline=None)
@given(st.floats(min_value=1, max_value=1e13))
def test_milliseconds_are_within_half_a_percent_and_have_no_exponent(latency_ns):
    line = render_markdown([replace(FULL_ROW, median_ns=latency_ns)], HEADER).splitlines()[4]
    shown = line.split(" | ")[6]

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

    assert line.split(" | ")[6] == shown
