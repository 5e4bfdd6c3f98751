from __future__ import annotations

import io

import pytest
from rich.console import Console

from liteship.progress import Reporter


def reporter(*, terminal: bool) -> tuple[Reporter, io.StringIO]:
    shown = io.StringIO()
    return Reporter(Console(file=shown, force_terminal=terminal, width=100)), shown


def test_lines_stay_as_they_are_written() -> None:
    say, shown = reporter(terminal=False)
    text = "[bold]none-int8[/bold]: 0.5 MiB, 98.3 % of 120 images " + "x" * 100
    say.say(text)
    assert shown.getvalue() == text + "\n"


def test_nothing_moves_where_nobody_watches() -> None:
    say, shown = reporter(terminal=False)
    with say.task("train", 3) as advance:
        advance(1)
        say.say("a line")
    assert shown.getvalue().strip() == "a line"


@pytest.mark.parametrize("terminal", [True, False])
def test_tasks_stand_inside_each_other(terminal: bool) -> None:
    say, shown = reporter(terminal=terminal)
    with say.task("compress", 4) as outer:
        with say.task("train magnitude50", 2) as inner:
            inner(1)
            with say.task("hash images", None) as innermost:
                innermost(1)
            inner(1)
        outer(2)
        with say.task("train magnitude75", 2) as inner:
            inner(2)
        say.say("made")
        outer(2)
    with say.task("convert", 10**7, is_bytes=True) as advance:
        advance(10**6)
    text = shown.getvalue()
    assert "made" in text
    names = ("compress", "train magnitude50", "train magnitude75", "convert")
    assert [name in text for name in names] == [terminal] * 4


@pytest.mark.parametrize("terminal", [True, False])
def test_tasks_end_in_any_order(terminal: bool) -> None:
    say, _ = reporter(terminal=terminal)
    with say.task("compress", 2):
        bars = [say.task(name, 1) for name in ("first", "second")]
        advances = [bar.__enter__() for bar in bars]
        for bar, advance in zip(bars, advances):
            advance(1)
            bar.__exit__(None, None, None)


@pytest.mark.parametrize("terminal", [True, False])
def test_task_that_fails_leaves_the_others_and_the_next_ones_working(terminal: bool) -> None:
    say, shown = reporter(terminal=terminal)
    with say.task("compress", 2) as outer:
        with pytest.raises(ValueError, match="inner"), say.task("inner", 1):
            raise ValueError("inner")
        outer(1)
    with pytest.raises(KeyboardInterrupt), say.task("interrupted", 2), say.task("inside", 1):
        raise KeyboardInterrupt
    with say.task("next", 1) as advance:
        advance(1)
    say.say("and on")
    assert "and on" in shown.getvalue()
    assert ("next" in shown.getvalue()) == terminal


def test_innermost_bar_says_what_it_is_told() -> None:
    say, shown = reporter(terminal=True)
    say.describe("nobody shows this")
    with say.task("deploy", 2), say.task("measure", 3):
        say.describe("round 1 [of 6]")
    assert "round 1 [of 6]" in shown.getvalue()
    assert "nobody" not in shown.getvalue()
