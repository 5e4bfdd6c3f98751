"""Accuracy against latency: which rows are on the Pareto front, and which cannot be shipped."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liteship.built_in import EMULATED
from liteship.report.charts.chart import (
    NARROW,
    Chart,
    Section,
    Table,
    is_spread,
    latency_scale,
    named,
    shortened,
    to_spec,
)
from liteship.report.charts.labels import Box, Mark, place_labels
from liteship.report.charts.standing import COLORS, DOMINATED, FRONT, SHAPES, standings
from liteship.report.comparison import Comparison, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.text import interval, milliseconds, percent, plain

_HEIGHT = 360
_ACROSS_PADDING, _DOWN_PADDING = 30, 14
_POINT_RADIUS, _RING_RADIUS = 6.0, 11.0
_ANY = 50  # lines: rather over some than without a name


@dataclass(frozen=True)
class _Layout:
    """Labels are placed for a plot of about this width; a wider one has more room between the points.

    Args:
        width: In pixels.
        longest: Letters of a name.
        key_columns, key_pixels: Of the list of numbered rows below the plot.
        names_dominated: Whether rows that cannot win may have their name at the point.
    """

    width: int
    longest: int
    key_columns: int
    key_pixels: int
    names_dominated: bool


_WIDE = _Layout(width=640, longest=28, key_columns=3, key_pixels=190, names_dominated=True)
_NARROW = _Layout(width=250, longest=20, key_columns=1, key_pixels=240, names_dominated=False)


def trade_off_section(comparison: Comparison, winner: Row | None = None) -> Section:
    """The chart, and in words what has no place in it.

    Args:
        comparison: Of one job.
        winner: The row that the verdict names, ringed.
    """
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
    if any(row is winner for row, _, _ in shown):
        sentences.insert(0, "Ringed: the row that the verdict ships.")
    if target == EMULATED:
        sentences.insert(0, "This machine is emulated: no latency is faster than another, and there is no front.")
    elif shown and FRONT not in stands:
        sentences.insert(0, "No row can be shipped by its latency, so there is no front.")
    charts = (_chart(shown, winner),) if shown else ()
    return Section("trade-off", "Accuracy against latency", charts, tuple(sentences))


def _chart(shown: Sequence[tuple[Row, str, str]], winner: Row | None) -> Chart:
    values = [{**_value(row, name, stand), "shipped": row is winner} for row, name, stand in shown]
    front = sum(stand == FRONT for _, _, stand in shown)
    return Chart(
        name="trade-off",
        title="Accuracy against latency",
        summary=f"{len(shown)} rows by median latency and accuracy on the target, with 95 % intervals; "
        f"{front} of them on the Pareto front: nothing is both faster and more accurate.",
        spec=_spec(values),
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

    stands = [stand for stand in COLORS if any(value["stand"] == stand for value in values)]
    x_scale = latency_scale(_latencies(values), nice=False, padding=_ACROSS_PADDING)
    y_scale = altair.Scale(zero=False, nice=False, padding=_DOWN_PADDING)
    legend = altair.Legend(title=None, orient="top")
    base = altair.Chart(named("rows")).encode(
        x=altair.X("latency:Q", title="median latency of one image, ms", scale=x_scale),
        y=altair.Y("accuracy:Q", title="accuracy on the target", scale=y_scale, axis=altair.Axis(format=".1%")),
    )
    colored = base.encode(
        color=altair.Color(
            "stand:N",
            scale=altair.Scale(domain=stands, range=[COLORS[stand] for stand in stands]),
            legend=legend,
        ),
    )
    points = colored.mark_point(filled=True, size=110, opacity=1).encode(
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
    front = colored.transform_filter(altair.datum.stand == FRONT)
    line = front.mark_line(interpolate="step-after", strokeWidth=1.5, strokeDash=[4, 3], opacity=0.8)
    rule = colored.mark_rule(strokeWidth=1.5, opacity=0.55)
    ring = base.transform_filter(altair.datum.shipped)
    layers = [
        line.encode(order=altair.Order("latency:Q")),
        rule.encode(x=altair.X("latency_low:Q"), x2=altair.X2("latency_high")),
        rule.encode(y=altair.Y("accuracy_low:Q"), y2=altair.Y2("accuracy_high")),
        ring.mark_point(filled=False, size=math.pi * _RING_RADIUS**2, color="@ink", strokeWidth=2, opacity=1),
        *_label_layers(base),
        points,
    ]
    spec = to_spec(altair.LayerChart(layer=layers, height=_HEIGHT))
    return {**spec, **_with_labels(spec, values, _WIDE), "usermeta": {NARROW: _with_labels(spec, values, _NARROW)}}


def _label_layers(base: Any) -> list[Any]:
    """Lines to labels that stand apart, halos that keep other lines off, and the letters."""
    import altair

    def of_row(field: str) -> Any:
        return altair.ExprRef(expr=f"datum.{field}")

    leads = base.transform_filter("datum.lead_x != 0 || datum.lead_y != 0").encode(
        x2=altair.X2("latency"), y2=altair.Y2("accuracy")
    )
    offsets = {"x2Offset": of_row("lead_x"), "y2Offset": of_row("lead_y")}
    edge = {"stroke": "@surface", "strokeWidth": 4, "strokeJoin": "round"}
    place = {"align": of_row("align"), "baseline": "alphabetic", "dx": of_row("dx"), "dy": of_row("dy")}
    text = base.encode(text=altair.Text("label:N"))
    return [
        leads.mark_rule(color="@muted", strokeWidth=1, **offsets),
        text.mark_text(**place, **edge).encode(color=altair.value("@surface")),
        text.mark_text(**place).encode(color=altair.value("@ink")),
    ]


def _with_labels(spec: Mapping[str, Any], values: Sequence[dict[str, Any]], layout: _Layout) -> dict[str, Any]:
    """The layers and data of a width: they differ in where labels stand, and in what the numbers mean."""
    import altair

    labeled = _labeled(values, layout)
    keys = [value["key"] for value in labeled if "key" in value]
    layers = list(spec["layer"])
    if keys:
        legend = altair.Legend(
            title=None, orient="bottom", columns=layout.key_columns, labelLimit=layout.key_pixels, symbolSize=0
        )
        scale = altair.Scale(domain=keys, range=["transparent"] * len(keys))
        numbered = altair.Chart(named("rows")).transform_filter("isValid(datum.key)").mark_point(size=1, strokeWidth=0)
        key = numbered.encode(fill=altair.Fill("key:N", scale=scale, legend=legend))
        # Under the points, which are pointed at.
        layers.insert(len(layers) - 1, {name: part for name, part in to_spec(key).items() if name != "datasets"})
    return {"layer": layers, "datasets": {"rows": labeled}}


def _labeled(values: Sequence[dict[str, Any]], layout: _Layout) -> list[dict[str, Any]]:
    """From left to right, each with its name where that fits, else with a number and what it means."""
    ordered = sorted(values, key=lambda value: (value["latency"], -value["accuracy"]))
    marks, front = _marks(ordered, layout)
    order = sorted(range(len(ordered)), key=lambda at: (not ordered[at]["shipped"], _weight(ordered[at]["stand"])))
    labels = place_labels(marks, order, (layout.width, _HEIGHT), front)
    found, numbers = [], 0
    for value, mark, label in zip(ordered, marks, labels, strict=True):
        is_number = label.choice == len(mark.texts) - 1
        numbers += is_number
        name = shortened(value["variant"], layout.longest)
        told = (
            {"label": str(numbers), "key": f"{numbers}  {name}"} if is_number else {"label": mark.texts[label.choice]}
        )
        place = {"align": label.align, "dx": label.dx, "dy": label.dy, "lead_x": label.lead_x, "lead_y": label.lead_y}
        found.append({**value, **told, **place})
    return found


def _weight(stand: str) -> int:
    return 0 if stand == FRONT else 2 if stand == DOMINATED else 1


def _marks(values: Sequence[dict[str, Any]], layout: _Layout) -> tuple[list[Mark], list[Box]]:
    """Where points and intervals will be, and the line of the front."""
    xs = _latencies(values)
    ys = [value[key] for value in values for key in ("accuracy_low", "accuracy", "accuracy_high") if value[key]]
    scale = math.log if is_spread(xs) else float
    low, high = scale(min(xs)), scale(max(xs))
    width, height = layout.width - 2 * _ACROSS_PADDING, _HEIGHT - 2 * _DOWN_PADDING
    top, extent = max(ys, default=0.0), max(max(ys, default=0.0) - min(ys, default=0.0), 1e-9)

    def across(latency: float) -> float:
        return _ACROSS_PADDING + (scale(latency) - low) / max(high - low, 1e-9) * width

    def down(accuracy: float) -> float:
        return _DOWN_PADDING + (top - accuracy) / extent * height

    marks = []
    for value in values:
        x, y = across(value["latency"]), down(value["accuracy"])
        lines = []
        if value["latency_low"] is not None and value["latency_high"] is not None:
            lines.append((across(value["latency_low"]), y - 1, across(value["latency_high"]), y + 1))
        if value["accuracy_low"] is not None and value["accuracy_high"] is not None:
            lines.append((x - 1, down(value["accuracy_high"]), x + 1, down(value["accuracy_low"])))
        is_named = value["shipped"] or value["stand"] != DOMINATED
        radius = _RING_RADIUS if value["shipped"] else _POINT_RADIUS
        marks.append(Mark(x, y, tuple(lines), _texts(value, layout), _ANY if is_named else 0, radius))
    corners = [(mark.x, mark.y) for mark, value in zip(marks, values, strict=True) if value["stand"] == FRONT]
    steps: list[Box] = []
    for (x, y), (next_x, next_y) in itertools.pairwise(corners):
        steps += [(x, y - 1, next_x, y + 1), (next_x - 1, min(y, next_y), next_x + 1, max(y, next_y))]
    return marks, steps


def _texts(value: dict[str, Any], layout: _Layout) -> tuple[str, ...]:
    """The name where the row may have one at its point, then room for a number."""
    name = shortened(value["variant"], layout.longest)
    if value["shipped"] and layout.names_dominated:
        return f"{name}: ship this", name, "00"
    is_named = layout.names_dominated or value["shipped"] or value["stand"] != DOMINATED
    return (name, "00") if is_named else ("00",)


def _latencies(values: Sequence[dict[str, Any]]) -> list[float]:
    return [value[key] for value in values for key in ("latency_low", "latency", "latency_high") if value[key]]
