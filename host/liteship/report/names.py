"""Names in the cells of a terminal's table: broken between words or after a hyphen, inside a word only at need."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len, chop_cells
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

_LEAST_CELLS, _MOST_CELLS = 14, 16
# A hyphen or underscore after a letter or digit and before another is where a name may be broken.
_PIECES = re.compile(r".+?(?:(?<=[^\W_])[-_](?=\w)|$)")


class Name:
    """A name, such as that of a variant or a runtime, for a cell.

    Args:
        text: Without control characters; lines are kept.
        style: As rich takes it.
    """

    def __init__(self, text: str, style: str = "") -> None:
        self.text, self.style = text, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [line for text in self.text.split("\n") for line in wrap_name(text, options.max_width)]
        yield Text("\n".join(lines), style=self.style, overflow="fold")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        widest = max(map(cell_len, self.text.split("\n")))
        return Measurement(self.longest_piece, widest).with_maximum(options.max_width)

    @property
    def longest_piece(self) -> int:
        """In cells: what is never broken while there is room."""
        return max((cell_len(piece) for word in self.text.split() for piece in _PIECES.findall(word)), default=0)


def wrap_names(names: Sequence[str]) -> list[Text]:
    """Names for a column that must not be narrowed (`no_wrap`), where figures need the room: broken as `Name` is.

    The column is as wide as its longest piece, up to `_MOST_CELLS`, and at least `_LEAST_CELLS`.
    """
    longest = max((Name(name).longest_piece for name in names), default=0)
    width = max(_LEAST_CELLS, min(longest, _MOST_CELLS))
    return [Text("\n".join(line for text in name.split("\n") for line in wrap_name(text, width))) for name in names]


def wrap_name(text: str, width: int) -> list[str]:
    """A line of text as lines of at most so many cells; at least one.

    Args:
        text: One line.
        width: In cells, at least 1.
    """
    lines = [""]
    for number, word in enumerate(text.split()):
        gap = " " if number and lines[-1] else ""
        if cell_len(lines[-1] + gap + word) <= width:
            lines[-1] += gap + word
            continue
        for piece in _PIECES.findall(word):
            if cell_len(lines[-1] + gap + piece) <= width:
                lines[-1] += gap + piece
            else:
                first, *more = chop_cells(piece, width)
                lines += [first, *more]
            gap = ""
    return [line for line in lines if line] or [""]
