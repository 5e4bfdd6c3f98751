"""Accuracy against latency: which rows are on the Pareto front, and which cannot be shipped."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from liteship.built_in import EMULATED
from liteship.report.charts.chart import Chart, Section, Table, is_spread, latency_scale, named, to_spec
from liteship.report.charts.standing import COLORS, DOMINATED, FRONT, SHAPES, standings
from liteship.report.comparison import Comparison, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.text import interval, milliseconds, percent, plain

_HEIGHT = 360
# Labels are placed for a plot of about this size and letters of about this width; narrow ones have none.
_PLOT = (640, 300)
_LETTER = 6.6
_LINE = 14
_LABELED_FROM = 520
_MOST_LABELS = 14
_ALL_LABELED = 8
_LONGEST_LABEL = 28
_SIDES = ((10, 4, "left"), (-10, 4, "right"), (0, -11, "center"), (0, 19, "center"))

Box = tuple[float, float, float, float]


def trade_off_section(comparison: Comparison) -> Section:
    """The chart, and in words what has no place in it."""
    rows, target = comparison.rows, comparison.header.target
    names = [row_name(row, varying_settings(rows)) for row in rows]
    stands = standings(rows, target)
    shown = [
        (row, name, stand)
        for row, name, stand in zip(rows, names, stands, strict=True)
        if row.median_ns is not None and row.target_accuracy_ratio is not None
    ]
    sentences = [
        f"Without a point: {name}, {plain(row.status)}."
        for row, name in zip(rows, names, strict=True)
        if row.median_ns is None or row.target_accuracy_ratio is None
    ]
    if target == EMULATED:
        sentences.insert(0, "This machine is emulated: no latency is faster than another, and there is no front.")
    elif shown and FRONT not in stands:
        sentences.insert(0, "No row can be shipped by its latency, so there is no front.")
    charts = (_chart(shown),) if shown else ()
    return Section("trade-off", "Accuracy against latency", charts, tuple(sentences))


def _chart(shown: Sequence[tuple[Row, str, str]]) -> Chart:
    values = [_value(row, name, stand) for row, name, stand in shown]
    front = sum(stand == FRONT for _, _, stand in shown)
    return Chart(
        name="trade-off",
        title="Accuracy against latency",
        summary=f"{len(shown)} rows by median latency and accuracy on the target, with 95 % intervals; "
        f"{front} of them on the Pareto front: nothing is both faster and more accurate.",
        spec=_spec(_place(values)),
        table=Table(
            ("variant", "median ms", "95 % interval", "accuracy", "95 % interval", "stands"),
            tuple(
                (
                    *(name, milliseconds(row.median_ns)),
                    f"{milliseconds(row.median_low_ns)}–{milliseconds(row.median_high_ns)}",
                    percent(row.target_accuracy_ratio),
                    interval(row.target_accuracy_low_ratio, row.target_accuracy_high_ratio),
                    stand,
                )
                for row, name, stand in shown
            ),
        ),
    )


def _value(row: Row, name: str, stand: str) -> dict[str, Any]:
    def ms(latency_ns: float | None) -> float | None:
        return None if latency_ns is None else latency_ns / 1e6

    return {
        "variant": name,
        "stand": stand,
        "latency": ms(row.median_ns),
        "latency_low": ms(row.median_low_ns),
        "latency_high": ms(row.median_high_ns),
        "accuracy": row.target_accuracy_ratio,
        "accuracy_low": row.target_accuracy_low_ratio,
        "accuracy_high": row.target_accuracy_high_ratio,
        "status": plain(row.status),
    }


def _spec(values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    import altair

    latencies, _ = _across(values)
    stands = [stand for stand in COLORS if any(value["stand"] == stand for value in values)]
    x_scale = latency_scale(latencies, nice=False, padding=30)
    y_scale = altair.Scale(zero=False, padding=14)
    legend = altair.Legend(title=None, orient="top")
    base = altair.Chart(named("rows")).encode(
        x=altair.X("latency:Q", title="median latency of one image, ms", scale=x_scale),
        y=altair.Y("accuracy:Q", title="accuracy on the target", scale=y_scale, axis=altair.Axis(format=".1%")),
        color=altair.Color(
            "stand:N",
            scale=altair.Scale(domain=stands, range=[COLORS[stand] for stand in stands]),
            legend=legend,
        ),
    )
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        shape=altair.Shape(
            "stand:N",
            scale=altair.Scale(domain=stands, range=[SHAPES[stand] for stand in stands]),
            legend=legend,
        ),
        tooltip=[
            altair.Tooltip("variant:N"),
            altair.Tooltip("latency:Q", title="median ms", format=".3~f"),
            altair.Tooltip("accuracy:Q", format=".1%"),
            altair.Tooltip("stand:N", title="stands"),
            altair.Tooltip("status:N"),
        ],
    )
    front = base.transform_filter(altair.datum.stand == FRONT)
    line = front.mark_line(interpolate="step-after", strokeWidth=1.5, strokeDash=[4, 3], opacity=0.8)
    layers = [
        line.encode(order=altair.Order("latency:Q")),
        base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(x=altair.X("latency_low:Q"), x2=altair.X2("latency_high")),
        base.mark_rule(strokeWidth=1.5, opacity=0.55).encode(
            y=altair.Y("accuracy_low:Q"), y2=altair.Y2("accuracy_high")
        ),
        points,
        *(_labels(base, side, halo) for side in range(len(_SIDES)) for halo in (True, False)),
    ]
    return to_spec(altair.LayerChart(layer=layers, height=_HEIGHT), rows=values)


def _labels(base: Any, side: int, halo: bool) -> Any:
    """The labels that stand on one side of their points, or what keeps the lines behind them away."""
    import altair

    dx, dy, align = _SIDES[side]
    opacity = altair.ExprRef(expr=f"width < {_LABELED_FROM} ? 0 : 1")
    labels = base.transform_filter(altair.datum.side == side)
    edge = {"stroke": "@surface", "strokeWidth": 4, "strokeJoin": "round"} if halo else {}
    marked = labels.mark_text(align=align, dx=dx, dy=dy, baseline="alphabetic", opacity=opacity, **edge)
    return marked.encode(text=altair.Text("label:N"), color=altair.value("@surface" if halo else "@ink"))


def _place(values: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give labels to the front, then to others, of many not to the dominated; on the first side that covers nothing."""
    points = _points(values)
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    rules = _rules(values, points)
    placed = [dict(value) for value in values]
    order = sorted(range(len(values)), key=lambda index: values[index]["stand"] != FRONT)
    if len(values) > _ALL_LABELED:
        order = [index for index in order if values[index]["stand"] != DOMINATED]
    for index in order[:_MOST_LABELS]:
        label = _shortened(values[index]["variant"])
        for side, box in enumerate(_boxes(points[index], len(label) * _LETTER)):
            inside = box[0] >= 0 and box[2] <= _PLOT[0]
            others = [*(other for at, other in enumerate(taken) if at != index), *rules]
            if inside and not any(_overlap(box, other) for other in others):
                taken.append(box)
                placed[index] |= {"label": label, "side": side}
                break
    return placed


def _points(values: Sequence[dict[str, Any]]) -> list[tuple[float, float]]:
    """Where the points will be in a plot of the assumed size, from its upper left corner."""
    _, across = _across(values)
    ys = [value[key] for value in values for key in ("accuracy_low", "accuracy", "accuracy_high") if value[key]]
    height = max(max(ys, default=0.0) - min(ys, default=0.0), 1e-9)
    return [
        (across(value["latency"]), 14 + (max(ys, default=0.0) - value["accuracy"]) / height * (_PLOT[1] - 28))
        for value in values
    ]


def _across(values: Sequence[dict[str, Any]]) -> tuple[list[float], Callable[[float], float]]:
    """All latencies, and where one stands."""
    xs = [value[key] for value in values for key in ("latency_low", "latency", "latency_high") if value[key]]
    scale: Callable[[float], float] = math.log if is_spread(xs) else float
    low, high = scale(min(xs)), scale(max(xs))
    return xs, lambda x: 30 + (scale(x) - low) / max(high - low, 1e-9) * (_PLOT[0] - 60)


def _rules(values: Sequence[dict[str, Any]], points: Sequence[tuple[float, float]]) -> list[Box]:
    """The intervals of the latencies: horizontal lines that no label covers."""
    _, across = _across(values)
    return [
        (across(value["latency_low"]), y - 2, across(value["latency_high"]), y + 2)
        for value, (_, y) in zip(values, points, strict=True)
        if value["latency_low"] is not None and value["latency_high"] is not None
    ]


def _boxes(point: tuple[float, float], width: float) -> list[Box]:
    x, y = point
    lefts = {"left": 0.0, "right": -width, "center": -width / 2}
    return [
        (x + dx + lefts[align], y + dy - _LINE + 3, x + dx + lefts[align] + width, y + dy + 3)
        for dx, dy, align in _SIDES
    ]


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
