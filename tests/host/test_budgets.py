from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteship.verdict.budgets import BudgetError, Budgets, join_budgets

WHOLE = """
schema_version = 1
max_latency_ms = 10
percentile = 50
max_drop = 0.01
min_accuracy = 0.9
max_size_mib = 4.5
max_gzip_mib = 4
max_memory_mib = 100
prefer = "size"
certain = true
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "budgets.toml"
        path.write_text(text)
        return path

    return write


def refused(options: Budgets, path: Path | None = None) -> str:
    with pytest.raises(BudgetError) as info:
        join_budgets(options, path)
    assert info.value.exit_code == 2
    assert "\n" not in str(info.value)
    return str(info.value)


def test_a_file_holds_every_budget(write):
    assert join_budgets(Budgets(), write(WHOLE)) == Budgets(10, 50, 0.01, 0.9, 4.5, 4, 100, "size", True)


def test_options_and_file_complete_each_other_and_may_repeat_each_other(write):
    path = write("schema_version = 1\nmax_latency_ms = 10")
    assert join_budgets(Budgets(max_latency_ms=10.0, max_drop=0.01), path) == Budgets(10, max_drop=0.01)


@pytest.mark.parametrize(
    ("option", "line"),
    [
        (Budgets(max_latency_ms=8.0), "max_latency_ms = 10"),
        (Budgets(max_latency_ms=8.0, percentile=90), "max_latency_ms = 8\npercentile = 50"),
        (Budgets(prefer="size"), 'prefer = "latency"'),
        (Budgets(max_drop=0.1, certain=True), "certain = false"),
    ],
)
def test_another_value_in_the_file_contradicts_and_both_are_named(write, option, line):
    name, _, value = line.splitlines()[-1].partition(" = ")
    error = refused(option, write(f"schema_version = 1\n{line}"))
    assert f"--{name.replace('_', '-')} and {name} in " in error
    assert value.strip('"') in error


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0])
@pytest.mark.parametrize("name", ["max_latency_ms", "max_size_mib", "max_gzip_mib", "max_memory_mib"])
def test_amounts_are_above_zero_and_finite(name, value):
    assert f"--{name.replace('_', '-')}: a number of" in refused(Budgets(**{name: value}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.01, 1.01])
@pytest.mark.parametrize("name", ["max_drop", "min_accuracy"])
def test_ratios_are_from_0_to_1(name, value):
    assert f"--{name.replace('_', '-')}: a ratio from 0 to 1 is required" in refused(Budgets(**{name: value}))


@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.floats(1e-6, 1e9))
def test_values_in_their_range_are_taken_as_they_are(drop, accuracy, latency):
    budgets = Budgets(latency, 90, drop, accuracy, certain=True)
    assert join_budgets(budgets, None) == budgets


def test_percentiles_are_50_and_90():
    assert "--percentile: 50 or 90 is required. Received: 99" in refused(Budgets(max_latency_ms=1, percentile=99))


def test_a_percentile_needs_a_latency_budget():
    assert "--percentile: a latency budget" in refused(Budgets(percentile=90))


def test_certainty_needs_a_budget():
    assert "--certain: a budget" in refused(Budgets(certain=True))


def test_certainty_of_no_error_at_all_can_never_be_shown():
    assert "min_accuracy below 1" in refused(Budgets(min_accuracy=1.0, certain=True))
    assert join_budgets(Budgets(min_accuracy=1.0), None).min_accuracy == 1


def test_a_mistyped_preference_names_the_nearest():
    assert "Did you mean accuracy?" in refused(Budgets(prefer="acuracy"))


def test_a_range_in_a_file_names_file_and_key(write):
    assert "budgets.toml: max_drop: a ratio from 0 to 1 is required. Received: 5.0" in (
        refused(Budgets(), write("schema_version = 1\nmax_drop = 5"))
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max_drop = 0.1", "schema_version: 1 is required. Received: nothing"),
        ("schema_version = 2", "schema_version: 1 is required. Received: 2"),
        (
            "schema_version = 1\nmax_latency = 3",
            "a known key is required. Received: max_latency. Did you mean max_latency_ms?",
        ),
        ("schema_version = 1\nqqq = 3", "Known keys: schema_version, max_latency_ms"),
        ("schema_version = 1\nmax_drop = 'a'", "max_drop: a number is required. Received: a"),
        ("schema_version = 1\nmax_drop = true", "max_drop: a number is required. Received: true"),
        ("schema_version = 1\nmax_drop = nan", "max_drop: a ratio from 0 to 1 is required. Received: nan"),
        ("schema_version = 1\nmax_latency_ms = 1\npercentile = 90.5", "percentile: 50 or 90 is required"),
        ("schema_version = 1\ncertain = 1", "certain: true or false is required. Received: 1"),
        ("schema_version = 1\n[more]\na = 1", "a known key is required. Received: more"),
        ("schema_version = ", "valid TOML is required"),
        ("\x00", "valid TOML is required"),
    ],
)
def test_a_file_that_is_wrong_is_told_in_one_line(write, text, expected):
    assert expected in refused(Budgets(), write(text))


def test_a_file_that_is_missing_or_no_text_is_told(write, tmp_path):
    assert "a readable file of budgets is required" in refused(Budgets(), tmp_path / "none.toml")
    path = write("")
    path.write_bytes(b"\xff\xfe\x00")
    assert "valid TOML is required" in refused(Budgets(), path)


@pytest.mark.parametrize(
    ("budgets", "preferred"),
    [
        (Budgets(), "latency"),
        (Budgets(max_latency_ms=1), "accuracy"),
        (Budgets(max_memory_mib=1), "accuracy"),
        (Budgets(max_latency_ms=1, max_drop=0.1), "latency"),
        (Budgets(max_size_mib=1, min_accuracy=0.1), "latency"),
        (Budgets(min_accuracy=0.1), "latency"),
        (Budgets(max_latency_ms=1, prefer="size"), "size"),
    ],
)
def test_what_decides_follows_from_the_budgets(budgets, preferred):
    assert budgets.preferred == preferred
