"""What a terminal shows while a job runs: a line for each case, in place.

Drawing costs CPU time, and what is measured on this computer meanwhile must not be disturbed: the lines are laid out
once for each change, however often the terminal is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from liteship.report.text import MISSING, milliseconds, plain

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
_STYLES = {WAITING: "dim", RUNNING: "bold cyan", DONE: "green", FAILED: "red"}
_STATE_WIDTH = max(map(len, _STYLES))
_OTHER_LINES = 5  # titles, the line of the rest, two bars, and that of the cursor
_BAR_CELLS = 8
_OTHER_CELLS, _LEAST_NAME_CELLS = 48, 12  # of a line, beside its name


@dataclass(frozen=True)
class CaseLine:
    """How far one case is.

    Args:
        name: What tells it from the others.
        state: WAITING, RUNNING, DONE or FAILED.
        done, rounds: Blocks that it has, of all.
        valid, void: Measurements that were not disturbed, and those that were, also where they were repeated since.
        median_ns: Median of the medians of its blocks so far; of the void ones only where it has no others.
        temperature_celsius: Of the processor after its last block; None where there is no such sensor.
    """

    name: str
    state: str
    done: int
    rounds: int
    valid: int
    void: int
    median_ns: float | None
    temperature_celsius: float | None


class LiveTable:
    """The lines of all cases, as many as fit the terminal: those around the one that runs; the rest is counted.

    Args:
        is_board: False where milliseconds say nothing about a board.
    """

    def __init__(self, is_board: bool = True) -> None:
        self._latency_style = "" if is_board else "bright_black"
        self._lines: tuple[CaseLine, ...] = ()
        self._drawn: tuple[object, list[list[Segment]]] = (None, [])

    def show(self, lines: Sequence[CaseLine]) -> None:
        """Show these from the next time it is drawn on; another thread may be drawing meanwhile."""
        self._lines = tuple(lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = self._lines
        key = lines, options.max_width, console.size.height
        known, drawn = self._drawn
        if known != key:
            most, name_cells = console.size.height - _OTHER_LINES, options.max_width - _OTHER_CELLS
            table = _table(lines, most, max(_LEAST_NAME_CELLS, name_cells), self._latency_style)
            drawn = console.render_lines(table, options.update(height=None), pad=False)
            self._drawn = key, drawn
        for segments in drawn:
            yield from segments
            yield Segment.line()


def _table(lines: Sequence[CaseLine], most: int, name_cells: int, latency_style: str) -> Table:
    shown = visible(lines, most)
    rest = [line for index, line in enumerate(lines) if index not in shown]
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", expand=False)
    table.add_column("case", overflow="ellipsis", no_wrap=True)
    table.add_column("blocks", no_wrap=True)
    for title in ("median ms", "°C", "valid", "void"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True, min_width=_STATE_WIDTH)
    for index in shown:
        name = Text(plain(lines[index].name))
        name.truncate(name_cells, overflow="ellipsis")
        table.add_row(name, *_cells(lines[index], latency_style))
    if rest:
        counts = Counter(line.state for line in rest)
        words = ", ".join(f"{counts[state]} {state}" for state in _STYLES if counts[state])
        table.add_row(Text(f"and {len(rest)} more: {words}", style="dim"))
    return table


def visible(lines: Sequence[CaseLine], most: int) -> range:
    """Which lines are shown: all, else a window around the one that runs; at least one.

    Args:
        lines: Of all cases.
        most: How many fit.
    """
    most = max(1, most)
    if len(lines) <= most:
        return range(len(lines))
    running = next((index for index, line in enumerate(lines) if line.state == RUNNING), None)
    if running is None:  # a canary, or a wait: the first that is not done
        running = next((index for index, line in enumerate(lines) if line.state == WAITING), 0)
    first = min(max(0, running - most // 2), len(lines) - most)
    return range(first, first + most)


def _cells(line: CaseLine, latency_style: str) -> tuple[Text, ...]:
    filled = _BAR_CELLS * line.done // line.rounds
    blocks = Text.assemble(
        ("━" * filled, "cyan"), ("━" * (_BAR_CELLS - filled), "bright_black"), f" {line.done}/{line.rounds}"
    )
    celsius = MISSING if line.temperature_celsius is None else f"{line.temperature_celsius:.0f}"
    return (
        blocks,
        Text(milliseconds(line.median_ns), style=latency_style),
        Text(celsius),
        Text(str(line.valid)),
        Text(str(line.void), style="yellow" if line.void else "dim"),
        Text(line.state, style=_STYLES[line.state]),
    )
