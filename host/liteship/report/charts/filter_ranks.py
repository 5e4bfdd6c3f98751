"""Filter ranks: what pruning removed of each layer, and by what scores."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liteship.errors import UsageError
from liteship.filter_ranks import FilterRank, read_ranks
from liteship.report.charts.chart import (
    NARROW_BAND_RATIO,
    Chart,
    Section,
    Table,
    named,
    shortened,
    to_spec,
    with_labels_above,
)
from liteship.report.text import plain

_COLORS = {"kept": "@blue", "removed": "@orange"}
_ROW_HEIGHT = 18
_STRIP_RATIO = 0.8  # of the height of a row
_MOST_LETTERS = 28
_SENTENCE = (
    "Dark: the score of a filter as a share of the largest of its layer. Beside the layer: filters kept, of all."
)
_MOST_STEPS = 64
_QUARTERS = [0, 0.25, 0.5, 0.75, 1]


def filter_ranks_section(study: Path) -> Section:
    """A chart for each pruned model; sentences where there is none, or where its file is damaged."""
    charts: list[Chart] = []
    sentences: list[str] = []
    for path in sorted((study / "keras").glob("*-ranks.csv")):
        try:
            ranks = read_ranks(path)
        except UsageError as exc:
            sentences.append(plain(exc.message))
            continue
        if ranks:
            charts.append(filter_ranks_chart(ranks, path.stem.removesuffix("-ranks")))
    if charts:
        sentences.append(_SENTENCE)
    elif not sentences:
        sentences.append("No filters were pruned in this study.")
    return Section("filters", "Filter ranks", tuple(charts), tuple(sentences))


def filter_ranks_chart(ranks: Sequence[FilterRank], model: str = "") -> Chart:
    """A strip for each layer: its filters from the smallest score to the largest, colored by what became of them.

    The dark part is the score as a share of the layer's largest. Where a layer has more filters than can be told
    apart, a step stands for several: its height is their mean, its two colors divide it by their numbers.

    Args:
        ranks: Every filter of every pruned layer, layers in graph order; at least one.
        model: Name of the model, may be empty.

    Raises:
        ValueError: there are no filters.
    """
    layers: dict[str, list[FilterRank]] = {}
    for rank in ranks:
        layers.setdefault(rank.layer, []).append(rank)
    if not layers:
        raise ValueError("At least one filter is required. Received: none")
    removed = sum(not rank.kept for rank in ranks)
    criteria = plain(", ".join(dict.fromkeys(rank.criterion for rank in ranks)))
    fate = f"{removed:,} of {len(ranks):,} removed ({removed / len(ranks):.0%})"
    return Chart(
        name=f"filters-{plain(model)}" if model else "filters",
        title=f"{plain(model)}: filters by {criteria}, {fate}" if model else f"Filters by {criteria}: {fate}",
        summary=f"The filters of {len(layers)} layers by their score; {fate}.",
        spec=_spec(layers),
        table=Table(
            ("layer", "filters", "kept", "removed", "smallest score", "largest score"),
            tuple(
                (
                    *(plain(name), f"{len(group):,}", f"{sum(rank.kept for rank in group):,}"),
                    f"{sum(not rank.kept for rank in group):,}",
                    f"{min(rank.score for rank in group):.4g}",
                    f"{max(rank.score for rank in group):.4g}",
                )
                for name, group in layers.items()
            ),
        ),
    )


def _spec(layers: dict[str, list[FilterRank]]) -> dict[str, Any]:
    import altair

    steps = [step for row, group in enumerate(layers.values()) for step in _strip(group, row)]
    labels = [
        f"{shortened(plain(name), _MOST_LETTERS)}  {sum(rank.kept for rank in group):,}/{len(group):,}"
        for name, group in layers.items()
    ]
    axis = altair.Axis(
        title=None,
        values=[row + 0.5 for row in range(len(layers))],
        labelExpr=f"{json.dumps(labels)}[floor(datum.value)]",
        labelOverlap=False,
        grid=False,
        ticks=False,
        domain=False,
    )
    strips = altair.Chart(named("steps")).encode(
        x=altair.X(
            "left:Q",
            title="filters by score, smallest first",
            scale=altair.Scale(domain=[0, 1]),
            axis=altair.Axis(format="%", grid=False, values=_QUARTERS, labelOverlap=False, labelFlush=True),
        ),
        x2=altair.X2("right"),
        y=altair.Y(
            "top:Q",
            scale=altair.Scale(domain=[len(layers), 0], nice=False),
            axis=axis,
        ),
        color=altair.Color(
            "fate:N",
            scale=altair.Scale(domain=list(_COLORS), range=list(_COLORS.values())),
            legend=altair.Legend(orient="top", title=None),
        ),
        tooltip=[
            altair.Tooltip("layer:N"),
            altair.Tooltip("fate:N"),
            altair.Tooltip("filters:Q"),
            altair.Tooltip("score:Q", title="mean score", format=".4~g"),
        ],
    )
    layered = [
        strips.mark_rect(opacity=0.3).encode(y2=altair.Y2("bottom")),
        strips.mark_rect().encode(y=altair.Y("height:Q", axis=axis), y2=altair.Y2("bottom")),
    ]
    spec = to_spec(altair.LayerChart(layer=layered, height=max(_ROW_HEIGHT * len(layers), 40)), steps=steps)
    return with_labels_above(spec, len(layers), transform=[_lower(end) for end in ("top", "bottom", "height")])


def _lower(end: str) -> dict[str, str]:
    """Strips of less height around the same middle."""
    middle = f"(floor(datum.{end}) + 0.5)"
    return {"calculate": f"{middle} + (datum.{end} - {middle}) * {NARROW_BAND_RATIO / _STRIP_RATIO}", "as": end}


def _strip(group: Sequence[FilterRank], row: int) -> list[dict[str, Any]]:
    """The rectangles of one layer, in rows from the top and shares of its filters."""
    ordered = sorted(group, key=lambda rank: rank.score)
    largest = ordered[-1].score or 1.0
    steps = min(len(ordered), _MOST_STEPS)
    bounds = [step * len(ordered) // steps for step in range(steps + 1)]
    top, bottom = row + 0.5 - _STRIP_RATIO / 2, row + 0.5 + _STRIP_RATIO / 2
    rectangles = []
    for first, last in itertools.pairwise(bounds):
        mean = sum(rank.score for rank in ordered[first:last]) / (last - first)
        removed = first + sum(not rank.kept for rank in ordered[first:last])
        for left, right, fate in ((first, removed, "removed"), (removed, last, "kept")):
            if left < right:
                rectangles.append(
                    {
                        "layer": plain(group[0].layer),
                        "left": round(left / len(ordered), 5),
                        "right": round(right / len(ordered), 5),
                        "top": top,
                        "bottom": bottom,
                        "height": round(bottom - (bottom - top) * mean / largest, 4),
                        "fate": fate,
                        "filters": right - left,
                        "score": float(f"{mean:.4g}"),
                    }
                )
    return rectangles
