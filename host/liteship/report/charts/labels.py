"""Where the labels of points stand: on no point and no other label, and on as few lines as can be. Pure functions.

All lengths are in pixels from the upper left corner of the plot. Labels are placed one after the other, each where it
costs least: for a few dozen points that is enough, and it is the same every time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""

_LETTER_PIXELS = 6.8
_LED_FROM = 18.0  # from the edge of a mark: a label so far away has a line to it

_ASCENT, _DESCENT = 10.0, 3.0
_DISTANCES = (4.0, 9.0, 18.0, 30.0, 44.0)
_NEAR = 1
_DIRECTIONS = ((1, 0), (-1, 0), (1, -1), (-1, -1), (1, 1), (-1, 1), (0, -1), (0, 1))
_ON_LINE, _ON_OWN_LINE, _FARTHER, _ON_MARK = 10.0, 2.0, 3.0, 1000.0


@dataclass(frozen=True)
class Mark:
    """A point that is to have a label.

    Args:
        x, y: Its middle.
        lines: That belong to it.
        texts: To try, the best first. The last is always set; another only right beside the point, on no line, or
            where it may cross lines anywhere around.
        most_crossed: Lines of others that a text before the last may lie over.
        radius: Of what is drawn there.
    """

    x: float
    y: float
    lines: tuple[Box, ...]
    texts: tuple[str, ...]
    most_crossed: int = 0
    radius: float = 6.0


@dataclass(frozen=True)
class Label:
    """A text at a point.

    Args:
        choice: Index of its text.
        align: "left", "right" or "center": the end of the baseline that dx is of, so that no guess of widths parts it
            from its point.
        dx, dy: From the point.
        lead_x, lead_y: Where the line from the point ends; 0, 0 where the text stands beside it.
    """

    choice: int
    align: str
    dx: float
    dy: float
    lead_x: float = 0.0
    lead_y: float = 0.0


def place_labels(
    marks: Sequence[Mark], order: Sequence[int], size: tuple[float, float], lines: Sequence[Box] = ()
) -> tuple[Label, ...]:
    """A label for each mark.

    Args:
        marks: All points.
        order: Indices of all of them, the most important first.
        size: Width and height of the plot.
        lines: More lines that labels had better not cover.
    """
    labels: dict[int, Label] = {}
    taken: list[Box] = [_around(mark) for mark in marks]
    for index in order:
        mark = marks[index]
        others = [line for at, other in enumerate(marks) if at != index for line in other.lines] + list(lines)
        label, box = _best(mark, [*taken[:index], *taken[index + 1 :]], others, size)
        labels[index] = label
        taken.append(box)
    return tuple(labels[index] for index in range(len(marks)))


def _best(mark: Mark, taken: Sequence[Box], others: Sequence[Box], size: tuple[float, float]) -> tuple[Label, Box]:
    for choice, text in enumerate(mark.texts):
        is_last = choice == len(mark.texts) - 1
        distances = _DISTANCES if is_last or mark.most_crossed else _DISTANCES[:_NEAR]
        cost, label, box = _cheapest(mark, (choice, text), distances, taken, others, size)
        if is_last or cost < _ON_LINE * (mark.most_crossed + 1) + _FARTHER * (len(distances) - 1):
            return label, box
    raise ValueError("A mark with a text is required. Received: one without")


def _cheapest(
    mark: Mark,
    text: tuple[int, str],
    distances: Sequence[float],
    taken: Sequence[Box],
    others: Sequence[Box],
    size: tuple[float, float],
) -> tuple[float, Label, Box]:
    choice, letters = text
    found: tuple[float, Label, Box] = (math.inf, Label(choice, "left", 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    for at, distance in enumerate(distances):
        if found[0] <= at * _FARTHER:
            break
        for place, direction in enumerate(_DIRECTIONS):
            label, box = _stand(choice, len(letters) * _LETTER_PIXELS, (mark.radius, distance), direction)
            moved = (box[0] + mark.x, box[1] + mark.y, box[2] + mark.x, box[3] + mark.y)
            cost = at * _FARTHER + place * 0.1 + _cost(moved, mark, taken, others, size)
            if cost < found[0]:
                found = cost, label, moved
    return found


def _cost(box: Box, mark: Mark, taken: Sequence[Box], others: Sequence[Box], size: tuple[float, float]) -> float:
    is_inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
    return (
        (0 if is_inside else _ON_MARK)
        + _ON_MARK * sum(_overlap(box, other) for other in taken)
        + _ON_LINE * sum(_overlap(box, other) for other in others)
        + _ON_OWN_LINE * sum(_overlap(box, other) for other in mark.lines)
    )


def _around(mark: Mark) -> Box:
    return mark.x - mark.radius, mark.y - mark.radius, mark.x + mark.radius, mark.y + mark.radius


def _stand(choice: int, width: float, distances: tuple[float, float], direction: tuple[int, int]) -> tuple[Label, Box]:
    """A label in a direction from its point, so far from the edge of a mark of that radius; and its box from there."""
    radius, distance = distances
    across, down = direction
    away = (radius + distance) if 0 in direction else (radius + distance) / math.sqrt(2)
    anchor = across * away
    left = anchor - width * (1 - across) / 2
    middle = down * (away + (_ASCENT + _DESCENT) / 2) if down else 0.0
    baseline = middle + (_ASCENT - _DESCENT) / 2
    lead = (across * away, down * away) if distance >= _LED_FROM else (0.0, 0.0)
    box = (left - 1, baseline - _ASCENT, left + width + 1, baseline + _DESCENT)
    align = {1: "left", 0: "center", -1: "right"}[across]
    return Label(choice, align, round(anchor, 1), round(baseline, 1), round(lead[0], 1), round(lead[1], 1)), box


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
