"""Distribution of latencies: a box over all raw values of each row, and some of the values themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liteship.built_in import EMULATED
from liteship.report.charts.chart import (
    Chart,
    Section,
    Table,
    band_height,
    latency_scale,
    named,
    to_spec,
    with_labels_above,
)
from liteship.report.comparison import Comparison, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.summary import counting_blocks
from liteship.report.text import milliseconds
from liteship.stats import nearest_rank
from liteship_agent.report import Report

SHOWN_VALUES = 160
"""Raw values of a row that are drawn; those that every figure is made from are all."""

_BOX = (0.01, 0.25, 0.5, 0.75, 0.9, 0.99)
_BOX_PIXELS, _BAR_PIXELS = 13, 10
_NAMES = ("low", "q1", "median", "q3", "p90", "high")


def latencies_section(comparison: Comparison, report: Report) -> Section:
    """The chart; a sentence where nothing was timed."""
    rows = comparison.rows
    of_rows: list[tuple[str, list[int]]] = []
    for row in rows:
        values = _latencies(row, report)
        if values:
            of_rows.append((row_name(row, varying_settings(rows)), values))
    if not of_rows:
        return Section("latencies", "Distribution of latencies", (), ("Nothing was timed.",))
    color = "@slate" if comparison.header.target == EMULATED else "@blue"
    sentence = (
        "Box: the middle half of all values, with the median; line: from the 1st to the 99th percentile; bar: the "
        f"90th. Points: {SHOWN_VALUES} of the values of each row at most, evenly by rank, with the smallest and the "
        "largest."
    )
    return Section("latencies", "Distribution of latencies", (_chart(of_rows, color),), (sentence,))


def thinned(ordered: Sequence[int], most: int = SHOWN_VALUES) -> list[int]:
    """So many of ascending values, evenly by rank, with the first and the last."""
    if len(ordered) <= most:
        return list(ordered)
    return [ordered[step * (len(ordered) - 1) // (most - 1)] for step in range(most)]


def _latencies(row: Row, report: Report) -> list[int]:
    """All raw values of the blocks that count, ascending."""
    for index, case in enumerate(report.job.cases):
        name, _, version = report.job.runtimes[case.runtime].partition("==")
        if (case.artefact, case.threads, case.cpus) == (row.sha256, row.threads, row.cpus) and (name, version) == (
            row.runtime,
            row.runtime_version,
        ):
            blocks = counting_blocks(report, index).values()
            return sorted(latency for block in blocks for latency in block.latencies_ns)
    return []


def _chart(of_rows: Sequence[tuple[str, list[int]]], color: str) -> Chart:
    boxes = [[ordered[nearest_rank(ratio, len(ordered)) - 1] for ratio in _BOX] for _, ordered in of_rows]
    return Chart(
        name="latencies",
        title="Distribution of latencies",
        summary=f"Latencies of single invocations of {len(of_rows)} rows, each as a box over all its values.",
        spec=_spec(of_rows, boxes, color),
        table=Table(
            ("variant", "values", "1 % ms", "25 % ms", "median ms", "75 % ms", "90 % ms", "99 % ms", "largest ms"),
            tuple(
                (name, f"{len(ordered):,}", *map(milliseconds, box), milliseconds(ordered[-1]))
                for (name, ordered), box in zip(of_rows, boxes, strict=True)
            ),
        ),
    )


def _spec(of_rows: Sequence[tuple[str, list[int]]], boxes: Sequence[Sequence[int]], color: str) -> dict[str, Any]:
    import altair

    names = [name for name, _ in of_rows]
    drawn = [
        {
            "variant": name,
            "count": len(ordered),
            **{key: round(ns / 1e6, 6) for key, ns in zip(_NAMES, box, strict=True)},
        }
        for (name, ordered), box in zip(of_rows, boxes, strict=True)
    ]
    # A fixed scatter across the row keeps values apart that are nearly equal.
    dots = [
        {"v": name, "x": round(ns / 1e6, 5), "y": at * 7 % 11}
        for name, ordered in of_rows
        for at, ns in enumerate(thinned(ordered))
    ]
    scale = latency_scale([ns / 1e6 for _, ordered in of_rows for ns in (ordered[0], ordered[-1])], nice=True)
    rows = altair.Scale(domain=names)
    axis = altair.Axis(title=None)
    x_title = "latency of one invocation, ms"
    points = (
        altair.Chart(named("values"))
        .mark_circle(size=9, opacity=0.35, color="@slate")
        .encode(
            x=altair.X("x:Q", title=x_title, scale=scale),
            y=altair.Y("v:N", scale=rows, sort=None, axis=axis),
            yOffset=altair.YOffset("y:Q", scale=altair.Scale(domain=[-3, 13])),
        )
    )
    tooltip = [altair.Tooltip("variant:N"), altair.Tooltip("count:Q", title="values", format=",")]
    tooltip += [altair.Tooltip(f"{key}:Q", title=f"{key} ms", format=".3~f") for key in ("q1", "median", "q3", "p90")]
    base = altair.Chart(named("boxes")).encode(
        y=altair.Y("variant:N", scale=rows, sort=None, axis=axis), tooltip=tooltip
    )

    def x(name: str) -> Any:
        return altair.X(f"{name}:Q", title=x_title, scale=scale)

    layers = [
        points,
        base.mark_rule(color=color, strokeWidth=1.5).encode(x=x("low"), x2=altair.X2("high")),
        base.mark_bar(color=color, fillOpacity=0.35, stroke=color, size=_BOX_PIXELS).encode(
            x=x("q1"), x2=altair.X2("q3")
        ),
        base.mark_tick(color="@ink", thickness=2, size=_BOX_PIXELS).encode(x=x("median")),
        base.mark_tick(color="@orange", thickness=2, size=_BAR_PIXELS).encode(x=x("p90")),
    ]
    spec = to_spec(altair.LayerChart(layer=layers, height=band_height(len(names))), values=dots, boxes=drawn)
    return with_labels_above(spec, len(names))
