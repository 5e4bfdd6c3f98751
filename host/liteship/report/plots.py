"""Plots, drawn by Vega-Lite from its bundled copy: nothing is fetched.

Altair takes half a second to import and is imported only where a chart is made.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from liteship.errors import UsageError
from liteship_agent.records import write_atomic

if TYPE_CHECKING:
    import altair

# Okabe and Ito (2008): distinct for every kind of color vision, and in grey.
_COLORS = {"kept": "#0072B2", "removed": "#E69F00"}
_WIDTH = 480
_ROW_HEIGHT = 16
_LABEL_WIDTH = 240
_MOST_STEPS = 64


class FilterRank(Protocol):
    """What became of one filter; liteship.compress makes them."""

    @property
    def layer(self) -> str:
        """Its layer."""

    @property
    def criterion(self) -> str:
        """What the filters are ranked by."""

    @property
    def score(self) -> float:
        """Its rank, 0 or more."""

    @property
    def kept(self) -> bool:
        """Whether pruning left it."""


def filter_ranks_chart(ranks: Sequence[FilterRank]) -> altair.LayerChart:
    """A strip for each layer: its filters from the smallest score to the largest, colored by what became of them.

    The dark part is the score as a share of the layer's largest. Where a layer has more filters than can be told
    apart, a step stands for several: its height is their mean, its two colors divide it by their numbers.

    Args:
        ranks: Every filter of every pruned layer, layers in graph order; at least one.

    Raises:
        ValueError: there are no filters.
    """
    import altair

    layers: dict[str, list[FilterRank]] = {}
    for rank in ranks:
        layers.setdefault(rank.layer, []).append(rank)
    if not layers:
        raise ValueError("At least one filter is required. Received: none")
    steps = [step for row, group in enumerate(layers.values()) for step in _strip(group, row)]
    strips = altair.Chart(altair.InlineData(values=steps)).encode(
        x=altair.X(
            "left:Q",
            title="filters of the layer, smallest score first; dark: score, of the layer's largest",
            scale=altair.Scale(domain=[0, 1]),
            axis=altair.Axis(format="%", grid=False),
        ),
        x2="right:Q",
        y=altair.Y("top:Q", scale=altair.Scale(domain=[len(layers), 0], nice=False), axis=None),
        color=altair.Color(
            "fate:N",
            scale=altair.Scale(domain=list(_COLORS), range=list(_COLORS.values())),
            legend=altair.Legend(orient="top", title=None),
        ),
    )
    middles = [row + 0.5 for row in range(len(layers))]
    kept = [f"{sum(rank.kept for rank in group):,} of {len(group):,}" for group in layers.values()]
    return altair.LayerChart(
        layer=[
            strips.mark_rect(opacity=0.3).encode(y2="bottom:Q"),
            strips.mark_rect().encode(y=altair.Y("height:Q"), y2="bottom:Q"),
            _labels(middles, list(layers), -8, "right"),
            _labels([-0.5, *middles], ["kept", *kept], _WIDTH + 8, "left"),
        ],
        width=_WIDTH,
        height=_ROW_HEIGHT * len(layers),
        title=_title(ranks),
        config=altair.Config(view=altair.ViewConfig(stroke=None)),
    )


def save_chart(chart: altair.TopLevelMixin, path: Path) -> None:
    """Write a chart as PNG (two pixels per point) or SVG, by the suffix of the name.

    Raises:
        UsageError: another suffix.
    """
    if path.suffix == ".png":
        image = io.BytesIO()
        chart.save(image, format="png", scale_factor=2)
        write_atomic(path, image.getvalue())
    elif path.suffix == ".svg":
        text = io.StringIO()
        chart.save(text, format="svg")
        write_atomic(path, text.getvalue().encode())
    else:
        raise UsageError(f"{path}: a name that ends in .png or .svg is required. Received: {path.suffix or 'none'}.")


def _strip(group: Sequence[FilterRank], row: int) -> list[dict[str, Any]]:
    """The rectangles of one layer, in rows from the top and shares of its filters."""
    ordered = sorted(group, key=lambda rank: rank.score)
    largest = ordered[-1].score or 1.0
    steps = min(len(ordered), _MOST_STEPS)
    bounds = [step * len(ordered) // steps for step in range(steps + 1)]
    top, bottom = row + 0.1, row + 0.9
    rectangles = []
    for first, last in itertools.pairwise(bounds):
        mean = sum(rank.score for rank in ordered[first:last]) / (last - first)
        removed = first + sum(not rank.kept for rank in ordered[first:last])
        for left, right, fate in ((first, removed, "removed"), (removed, last, "kept")):
            if left < right:
                place = {"left": left / len(ordered), "right": right / len(ordered), "top": top, "bottom": bottom}
                rectangles.append({**place, "height": bottom - (bottom - top) * mean / largest, "fate": fate})
    return rectangles


def _labels(rows: Sequence[float], texts: Sequence[str], x: int, align: Literal["left", "right"]) -> altair.Chart:
    """One text beside each row."""
    import altair

    values = [{"row": row, "text": text} for row, text in zip(rows, texts, strict=True)]
    chart = altair.Chart(altair.InlineData(values=values))
    marked: altair.Chart = chart.mark_text(align=align, color="#444", limit=_LABEL_WIDTH)
    return marked.encode(x=altair.value(x), y=altair.Y("row:Q"), text="text:N")


def _title(ranks: Sequence[FilterRank]) -> str:
    removed = sum(not rank.kept for rank in ranks)
    criteria = ", ".join(dict.fromkeys(rank.criterion for rank in ranks))
    return f"Filters by {criteria}: {removed:,} of {len(ranks):,} removed ({removed / len(ranks):.0%})"
