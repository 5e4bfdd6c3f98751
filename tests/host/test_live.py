from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from liteship.bench.live import DONE, FAILED, RUNNING, WAITING, CaseLine, LiveTable, visible


def line(name: str = "magnitude50-int8", **changes: Any) -> CaseLine:
    fields: dict[str, Any] = {"state": WAITING, "done": 3, "rounds": 6, "valid": 2, "void": 1}
    fields |= {"median_ns": 1_540_000, "temperature_celsius": 51.4}
    return CaseLine(name=name, **{**fields, **changes})


def drawn(table: LiveTable, width: int = 80, height: int = 24, **options: Any) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, **options)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def table_of(*lines: CaseLine, **options: Any) -> LiveTable:
    table = LiveTable(**options)
    table.show(lines)
    return table


def test_line_has_every_figure() -> None:
    text = drawn(table_of(line()), color_system=None)
    assert text.splitlines()[0].split() == ["case", "blocks", "median", "ms", "°C", "valid", "void"]
    assert text.splitlines()[1].split() == ["magnitude50-int8", "━━━━━━━━", "3/6", "1.54", "51", "2", "1", "waiting"]


def test_what_is_not_known_is_a_dash() -> None:
    text = drawn(table_of(line(median_ns=None, temperature_celsius=None)), color_system=None)
    assert text.splitlines()[1].split()[-5:] == ["–", "–", "2", "1", "waiting"]


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", ["x" * 300, "板" * 60, "لوحة " * 30, "a\x1b[2Jb\nc\r", "👩‍🔬" * 50])
def test_any_name_keeps_to_the_width(name: str, width: int) -> None:
    text = drawn(table_of(line(name), line("none-none")), width, color_system=None)
    assert max(map(cell_len, text.splitlines())) <= width
    assert len(text.splitlines()) == 3
    assert "\x1b" not in text
    if width >= 80:
        assert text.splitlines()[1].rstrip().endswith("waiting")


@pytest.mark.parametrize("height", [1, 4, 8, 12, 24, 60])
def test_any_number_of_cases_fits_the_height(height: int) -> None:
    cases = [line(f"case {index}", state=RUNNING if index == 17 else DONE) for index in range(40)]
    text = drawn(table_of(*cases), height=height, color_system=None)
    assert len(text.splitlines()) <= max(height - 3, 3)
    assert "running" in text
    assert ("more:" in text) == (height < 60)


def test_cases_that_do_not_fit_are_counted_by_state() -> None:
    cases = [line(f"c{index}", state=DONE) for index in range(10)]
    cases += [line("now", state=RUNNING), line("bad", state=FAILED), *(line(f"w{index}") for index in range(20))]
    text = drawn(table_of(*cases), height=8, color_system=None)
    assert text.splitlines()[-1].strip() == "and 29 more: 20 waiting, 9 done"


@pytest.mark.parametrize(
    ("running", "expected"), [(0, range(5)), (1, range(5)), (10, range(8, 13)), (39, range(35, 40))]
)
def test_window_is_around_the_case_that_runs(running: int, expected: range) -> None:
    cases = [line(state=RUNNING if index == running else WAITING) for index in range(40)]
    assert visible(cases, 5) == expected


def test_window_between_rounds_is_at_the_first_that_waits() -> None:
    cases = [line(state=DONE if index < 20 else WAITING) for index in range(40)]
    assert 20 in visible(cases, 5)
    assert visible([line(state=DONE)] * 40, 5) == range(5)
    assert visible([], 5) == range(0)


def test_lines_are_laid_out_once_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    from liteship.bench import live

    made: list[int] = []
    make = live._table
    monkeypatch.setattr(live, "_table", lambda *arguments: made.append(1) or make(*arguments))
    table = table_of(line())
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    for _ in range(10):
        console.print(table)
    assert len(made) == 1
    table.show([line(done=4)])
    console.print(table)
    console.width = 100
    console.print(table)
    assert len(made) == 3


def test_milliseconds_of_no_board_are_grey() -> None:
    grey = r"\x1b\[90m *1\.54"
    assert re.search(grey, drawn(table_of(line(), is_board=False), color_system="standard"))
    assert not re.search(grey, drawn(table_of(line()), color_system="standard"))
