"""What a terminal shows of a running camera: drawn in place, or as lines where it is not one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.align import Align
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from liteship.camera.follow import LINK_LOST, STOPPING, CameraState
from liteship.camera.log import Event
from liteship.camera.summary import Summary
from liteship.cli.big_text import big_text
from liteship.progress import Reporter

UNSURE = "unsure"
_WIDTH = 80
_BAR_WIDTH = 44
_TOP = 5
_DRAW_SECONDS = 0.2
_LINE_SECONDS = 1.0
_STYLES = {"running": "green", LINK_LOST: "bold red"}

Clock = Callable[[], float]


class Notes:
    """Says what changes and is no figure: the state, the model.

    Args:
        say: Lines on stderr.
        tells_state: Whether a line tells each new state; a drawing shows it anyway.
    """

    def __init__(self, say: Reporter, tells_state: bool = True) -> None:
        self._say, self._tells_state = say, tells_state
        self._told: tuple[Any, ...] = ()

    def __enter__(self) -> Notes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is left to be undone."""

    def __call__(self, state: CameraState, event: Event) -> None:
        """Hear an event."""
        kind = event["event"]
        if kind == "swapped":
            gap = f", {event['gap_ns'] / 1e6:.0f} ms without an answer" if event.get("gap_ns") is not None else ""
            self._say.say(f"{state.target}: now {event['variant']} of release {event['release']}{gap}")
        elif kind == "notice":
            self._say.say(f"{state.target}: {event['message']}")
        elif kind == "state" and self._tells_state and (state.state, state.reason) != self._told:
            is_plain = state.state == "running" and not self._told  # that it began is told by its page
            self._told = (state.state, state.reason)
            if state.state not in (STOPPING, LINK_LOST) and not is_plain:
                self._say.say(f"{state.target}: {_state(state)}")


class Lines(Notes):
    """One line with the label and the figures, once a second at most."""

    def __init__(self, say: Reporter, clock: Clock = time.monotonic) -> None:
        super().__init__(say)
        self._clock, self._next = clock, 0.0

    def __call__(self, state: CameraState, event: Event) -> None:
        """Hear an event."""
        super().__call__(state, event)
        if event["event"] == "figures" and self._clock() >= self._next:
            self._next = self._clock() + _LINE_SECONDS
            frame = state.frame or {}
            score = frame.get("score")
            label = f"{frame.get('label') or UNSURE}" + (f" {score:.2f}" if score is not None else "")
            self._say.say(f"{state.target}: {label}, {_figures(event)}, {_counts(event)}, {_state(state)}")


class Drawing(Notes):
    """A drawing in place of the one before, at most five times a second.

    Args:
        say: Whose console it is drawn on.
        clock: Seconds.
    """

    def __init__(self, say: Reporter, clock: Clock = time.monotonic) -> None:
        super().__init__(say, tells_state=False)
        self._live = Live(console=say.console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._clock, self._next = clock, 0.0
        self._drawn = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """The last drawing stays."""
        self._live.stop()

    def __call__(self, state: CameraState, event: Event) -> None:
        """Hear an event."""
        super().__call__(state, event)
        is_new = state.state != self._drawn
        if not is_new and self._clock() < self._next:
            return
        self._drawn = state.state
        self._next = self._clock() + _DRAW_SECONDS
        self._live.start()  # with the first event: before it a deploy may have a bar there; nothing if it runs
        self._live.update(draw(state), refresh=True)


def draw(state: CameraState) -> Group:
    """Label, classes, figures and state, 80 columns wide."""
    camera, frame, figures = state.camera or {}, state.frame or {}, state.figures or {}
    title = f"{state.target}  {camera.get('variant')} of release {camera.get('release')}  {camera.get('source')}"
    lines: list[RenderableType] = [_line(title, "dim"), _label(frame), *_bars(frame.get("top") or [])]
    lines += [_line(_figures(figures)), _line(_counts(figures))]
    lines.append(_line(_stages(figures.get("stages_ns") or {}), "dim"))
    if heat := _heat(figures):
        lines.append(_line(heat, "bold red" if figures.get("throttled") else ""))
    return Group(*lines, _line(_state(state), _STYLES.get(state.state, "bold yellow")))


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis", end="\n")


def _label(frame: Event) -> Panel:
    label = frame.get("label") or UNSURE
    style = "bold green" if frame.get("label") else "dim"
    lines = Text("\n".join(big_text(label, _WIDTH - 4)), style=style, no_wrap=True, overflow="ellipsis")
    return Panel(Align.center(lines), width=_WIDTH)  # as a block: each line alone would lose its leading blanks


def _bars(top: Sequence[Sequence[Any]]) -> list[Text]:
    """A line for each of the best classes: `name  ######   93 %`."""
    lines = []
    for name, score in top[:_TOP]:
        full = round(min(max(score, 0.0), 1.0) * _BAR_WIDTH)
        text = Text(no_wrap=True)
        name = Text(str(name))
        name.truncate(24, overflow="ellipsis", pad=True)
        text.append_text(name).append("  ").append("█" * full, "cyan").append("░" * (_BAR_WIDTH - full), "dim")
        lines.append(text.append(f" {score:5.1%}"))
    return lines


def _figures(figures: Event) -> str:
    rate = figures.get("rate_hz")
    latency = " / ".join(_milliseconds(figures.get(f"latency_{name}_ns")) for name in ("p50", "p90"))
    told = "-" if rate is None else f"{rate:.1f}"
    return f"{told} Hz, latency {latency} ms (p50 / p90)"


def _counts(figures: Event) -> str:
    counts = " / ".join(str(figures.get(name, "-")) for name in ("captured", "classified", "dropped"))
    return f"frames {counts} (captured / classified / dropped)"


def _stages(stages_ns: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {_milliseconds(value)} ms" for name, value in stages_ns.items())


def _heat(figures: Event) -> str:
    celsius, throttled = figures.get("temperature_celsius"), figures.get("throttled")
    words = [] if celsius is None else [f"{celsius:.0f} °C"]
    if throttled is not None:
        words.append(f"throttled: {throttled}" if throttled else "not throttled")
    return ", ".join(words)


def _state(state: CameraState) -> str:
    return f"{state.state}: {state.reason}" if state.reason else state.state


def _milliseconds(value_ns: float | None) -> str:
    return "-" if value_ns is None else f"{value_ns / 1e6:.1f}"


def print_summary(summary: Summary, console: Console) -> None:
    """The table at the end."""
    table = Table(box=SIMPLE_HEAD, title=f"{summary.target}: {summary.variant}, {summary.source}", title_justify="left")
    table.add_column("camera", no_wrap=True)
    table.add_column("", overflow="fold")
    rate = "-" if summary.rate_hz is None else f"{summary.rate_hz:.1f} Hz"
    latency = f"{_milliseconds(summary.latency_p50_ns)} / {_milliseconds(summary.latency_p90_ns)} ms"
    for name, value in (
        ("seconds", f"{summary.seconds:.1f}"),
        ("frames captured / classified / dropped", f"{summary.captured} / {summary.classified} / {summary.dropped}"),
        *([("frames that were no picture", str(summary.broken))] if summary.broken else []),
        ("rate", rate),
        ("latency p50 / p90", latency),
        ("stages", _stages(summary.stages_ns) or "-"),
        ("labels", ", ".join(f"{name} {count}" for name, count in summary.labels.items()) or "-"),
        ("models swapped", str(summary.swaps)),
        ("frames saved", str(summary.saved)),
        ("links lost", str(summary.lost_links)),
    ):
        table.add_row(name, Text(value))
    console.print(table)
