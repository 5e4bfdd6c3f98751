"""What a chart is, and its drawing as PNG or SVG by Vega-Lite's bundled copy: nothing is fetched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from liteship.report.charts.colors import LIGHT, resolve, vega_config

if TYPE_CHECKING:
    import altair

DRAWN_WIDTH = 760
MOST_WIDTH = "most_width"
"""Where a specification's `usermeta` says beyond what width in pixels it is not to be drawn."""
NARROW = "narrow"
"""Where `usermeta` says what takes the place of parts of the specification on a phone; its `config` is added."""

NARROW_BAND_RATIO = 0.45
"""Of the height of a row on a phone; its label stands above."""

_SCALE = 2
_ROW_HEIGHT = 24
_NARROW_ROW_HEIGHT = 40
_NARROW_LABEL_OFFSET = -17
_NARROW_LABEL_PIXELS = 300


@dataclass(frozen=True)
class Table:
    """The figures of a chart as text.

    Args:
        columns: Titles.
        lines: Cells of each line; the first names it.
    """

    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Chart:
    """One chart.

    Args:
        name: Unique in a report; of its PNG file and its place in the page.
        title: A few words.
        summary: What it shows, in a sentence or two, for those who do not see it.
        spec: Vega-Lite without width; colors as `@name`.
        table: Its figures.
    """

    name: str
    title: str
    summary: str
    spec: Mapping[str, Any]
    table: Table


@dataclass(frozen=True)
class Section:
    """Charts that belong together.

    Args:
        name: Unique in a report.
        title: A few words.
        charts: In their order; may be none.
        sentences: What is to be known about them, or why there are none.
        folded: Whether a reader opens each of them first.
    """

    name: str
    title: str
    charts: tuple[Chart, ...]
    sentences: tuple[str, ...] = ()
    folded: bool = False


def named(name: str) -> altair.NamedData:
    """Data that `to_spec` is given: Altair copies a chart at every step, and large data with it."""
    import altair

    return altair.NamedData(name=name)


def to_spec(chart: altair.TopLevelMixin, **datasets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The specification of an Altair chart; configuration and width are added when it is drawn.

    Args:
        chart: Whose data are `named`.
        datasets: Those data.
    """
    spec: dict[str, Any] = chart.to_dict(validate=False)
    kept = {key: value for key, value in spec.items() if key not in ("$schema", "config")}
    return {**kept, "datasets": {name: list(values) for name, values in datasets.items()}}


def band_height(count: int) -> int:
    """Height in pixels of a chart with so many rows."""
    return _ROW_HEIGHT * max(count, 1)


def with_labels_above(spec: Mapping[str, Any], count: int, **narrow: Any) -> dict[str, Any]:
    """A chart of rows that has, on a phone, the label of a row above its mark: beside it there is no room for names.

    Args:
        spec: Whose y axis has the labels, one in the middle of each row.
        count: Number of rows.
        narrow: More that takes the place of parts of it on a phone.
    """
    space = 1 - NARROW_BAND_RATIO
    config = {
        "axisY": {
            "labelAlign": "left",
            "labelLimit": _NARROW_LABEL_PIXELS,
            "labelOffset": _NARROW_LABEL_OFFSET,
            "labelPadding": 0,
        },
        "scale": {
            "barBandPaddingInner": space,
            "rectBandPaddingInner": space,
            "bandWithNestedOffsetPaddingInner": space,
            "bandWithNestedOffsetPaddingOuter": space / 2,
        },
    }
    height = _NARROW_ROW_HEIGHT * max(count, 1)
    return {**spec, "usermeta": {NARROW: {"height": height, "config": config, **narrow}}}


def shortened(text: str, most: int) -> str:
    """At most so many letters: names differ at their ends, so the middle is left out."""
    if len(text) <= most:
        return text
    first = (most - 1) // 2
    return f"{text[:first]}…{text[first + 1 - most :]}"


def is_spread(values: Sequence[float]) -> bool:
    """Whether positive values differ so much that small ones would only be seen on a logarithmic scale."""
    return bool(values) and 0 < 8 * min(values) < max(values)


def latency_scale(values: Sequence[float], **settings: Any) -> altair.Scale:
    """A scale for positive values, without 0, logarithmic where they are spread."""
    import altair

    return altair.Scale(type="log", **settings) if is_spread(values) else altair.Scale(zero=False, **settings)


def complete(spec: Mapping[str, Any], width: int = DRAWN_WIDTH) -> dict[str, Any]:
    """A specification that can be drawn, in light colors."""
    resolved = resolve(dict(spec), LIGHT)
    width = min(width, resolved.get("usermeta", {}).get(MOST_WIDTH, width))
    return {
        **resolved,
        "width": width,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": 12,
        "config": vega_config(LIGHT),
    }


def draw_png(chart: Chart) -> bytes:
    """A chart with its title as PNG, two pixels per point, on white."""
    import vl_convert

    return vl_convert.vegalite_to_png({**complete(chart.spec), "title": chart.title}, scale=_SCALE)


def draw_svg(chart: Chart) -> str:
    """A chart with its title as SVG, on white."""
    import vl_convert

    return vl_convert.vegalite_to_svg({**complete(chart.spec), "title": chart.title})
