from __future__ import annotations

import io

import pytest
from rich.console import Console

from liteship.progress import Reporter, Reporters


def reporter(*, terminal: bool) -> tuple[Reporter, io.StringIO]:
    shown = io.StringIO()
    return Reporter(Console(file=shown, force_terminal=terminal, width=100)), shown


def draw(say: Reporter) -> None:
    """Draw now, which otherwise happens twice a second."""
    assert say._progress is not None
    say._progress.refresh()


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
        draw(say)
    assert "round 1 [of 6]" in shown.getvalue()
    assert "nobody" not in shown.getvalue()


# --- several targets ---


def reporters(*, terminal: bool) -> tuple[Reporters, io.StringIO]:
    shown = io.StringIO()
    return Reporters(Console(file=shown, force_terminal=terminal, width=120), ("pi4", "desk")), shown


def test_lines_of_several_targets_have_their_names_once() -> None:
    says, shown = reporters(terminal=False)
    with says, says["pi4"].task("measure", 3) as advance:
        advance(1)
        says["pi4"].say("5 artefacts")
        says["desk"].say("desk: link lost; trying again in 1 s")
    assert shown.getvalue().splitlines() == ["pi4: 5 artefacts", "desk: link lost; trying again in 1 s"]


def test_each_target_has_one_line_with_its_innermost_task() -> None:
    says, shown = reporters(terminal=True)
    with (
        says,
        says["pi4"].task("measure on pi4", 4) as outer,
        says["desk"].task("send", 4 << 20, is_bytes=True) as sent,
    ):
        outer(3)
        sent(1 << 20)
        with says["pi4"].task("explain", None):
            says["pi4"].describe("pi4: round 1 [of 6]")
            says._progress.refresh()
            assert [task.description for task in says._progress.tasks] == ["pi4   round 1 \\[of 6]", "desk  send"]
        tasks = {task.description: task for task in says._progress.tasks}
        assert (tasks["pi4   measure on pi4"].completed, tasks["pi4   measure on pi4"].total) == (3, 4)
        says._progress.refresh()
        text = shown.getvalue()
    assert "pi4   round 1 [of 6]" in text
    assert "1.0/4.0 MiB" in text
    assert "3/4" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_line_of_a_target_survives_a_task_that_fails(terminal: bool) -> None:
    says, _ = reporters(terminal=terminal)
    with says:
        with pytest.raises(ValueError, match="inner"), says["pi4"].task("outer", 2), says["pi4"].task("inner", 1):
            raise ValueError("inner")
        with says["pi4"].task("next", 2) as advance:
            advance(2)
        says["pi4"].describe("nobody shows this")


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_make_room_for_a_question(terminal: bool) -> None:
    say, shown = reporter(terminal=terminal)
    with say.hidden():
        pass
    with say.task("send", 2) as advance:
        with say.hidden():
            before = shown.getvalue()
            advance(1)
            assert shown.getvalue() == before
        advance(1)


# --- what stands above the bars ---


def test_text_stands_above_the_bars_while_its_block_runs() -> None:
    say, shown = reporter(terminal=True)
    with say.task("measure", 2):
        with say.above("none-int8") as is_seen:
            draw(say)
            assert is_seen
            assert shown.getvalue().index("none-int8") < shown.getvalue().rindex("measure")
        before = shown.getvalue()
        draw(say)
        assert "none-int8" not in shown.getvalue()[len(before) :]


@pytest.mark.parametrize("terminal", [True, False])
def test_nobody_sees_what_stands_above_without_bars_of_its_own(terminal: bool) -> None:
    say, shown = reporter(terminal=terminal)
    with say.above("none-int8") as is_seen:
        assert not is_seen
    says, _ = reporters(terminal=terminal)
    with says, says["pi4"].task("measure", 2), says["pi4"].above("none-int8") as is_seen:
        assert not is_seen
    assert "none-int8" not in shown.getvalue()


def test_nothing_is_drawn_at_every_change(monkeypatch: pytest.MonkeyPatch) -> None:
    say, _ = reporter(terminal=True)
    drawn: list[int] = []
    with say.task("measure", 1000) as advance:
        monkeypatch.setattr(say._progress, "refresh", lambda: drawn.append(1))
        for index in range(1000):
            say.describe(f"block {index}")
            advance(1)
        assert drawn == []
