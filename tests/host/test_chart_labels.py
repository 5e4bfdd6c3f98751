from __future__ import annotations

import random

from liteship.report.charts.labels import Label, Mark, place_labels

SIZE = (640, 360)


def box(mark: Mark, label: Label) -> tuple[float, float, float, float]:
    """What a label covers, with letters of 6.8 pixels."""
    width = 6.8 * len(mark.texts[label.choice])
    left = mark.x + label.dx - {"left": 0.0, "center": width / 2, "right": width}[label.align]
    return left, mark.y + label.dy - 10, left + width, mark.y + label.dy + 3


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_labels_cover_neither_each_other_nor_points():
    chance = random.Random(1)
    marks = [
        Mark(chance.uniform(60, 580), chance.uniform(40, 320), (), (f"variant-{at}", f"{at:02}")) for at in range(30)
    ]

    labels = place_labels(marks, range(30), SIZE)

    boxes = [box(mark, label) for mark, label in zip(marks, labels, strict=True)]
    points = [(mark.x - 5, mark.y - 5, mark.x + 5, mark.y + 5) for mark in marks]
    assert not [(a, b) for a in range(30) for b in range(a) if overlap(boxes[a], boxes[b])]
    assert not [(a, b) for a in range(30) for b in range(30) if overlap(boxes[a], points[b])]
    assert all(left >= 0 and top >= 0 and right <= 640 and low <= 360 for left, top, right, low in boxes)


def test_an_interval_of_another_point_is_left_free():
    beside = Mark(140, 100, ((139, 40, 141, 160),), ("00",))
    mark = Mark(100, 100, (), ("a long name", "00"))

    first, _ = place_labels([mark, beside], (0, 1), SIZE)

    assert first.choice == 0
    assert not overlap(box(mark, first), beside.lines[0])


def test_without_room_for_a_name_there_is_a_number():
    fence = tuple((x, 0.0, x + 2.0, 360.0) for x in (70.0, 80.0, 120.0, 130.0))
    mark = Mark(100, 100, (), ("a long name", "00"))

    (label,) = place_labels([mark], (0,), SIZE, fence)

    assert label.choice == 1
    assert not any(overlap(box(mark, label), line) for line in fence)


def test_an_important_name_rather_stands_on_lines():
    fence = tuple((x, 0.0, x + 2.0, 360.0) for x in (70.0, 80.0, 120.0, 130.0))

    (label,) = place_labels([Mark(100, 100, (), ("a long name", "00"), most_crossed=50)], (0,), SIZE, fence)

    assert label.choice == 0


def test_a_label_that_stands_apart_has_a_line_to_its_point():
    crowd = [Mark(100 + 9 * (at % 5), 100 + 9 * (at // 5), (), ("00",)) for at in range(25)]

    labels = place_labels(crowd, range(25), SIZE)

    assert any(label.lead_x or label.lead_y for label in labels)
    assert all((label.lead_x, label.lead_y) == (0, 0) for label in labels if abs(label.dx) < 15 and abs(label.dy) < 15)
