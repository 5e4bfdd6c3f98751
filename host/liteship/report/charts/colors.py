"""The colors of page and charts in both themes, and the Vega configuration made from them.

A specification names colors as `@blue`; `resolve` puts in those of a theme, and the page's script does the same when
the theme is switched. Text has a contrast of 4.5 to its background, marks of 3 (WCAG 2.2, AA).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LIGHT: Mapping[str, str] = {
    "surface": "#ffffff",
    "ink": "#1c2128",
    "muted": "#57606a",
    "grid": "#e2e6ea",
    "axis": "#8b949e",
    "blue": "#0a5fb4",
    "slate": "#6e7781",
    "orange": "#b45309",
    "red": "#c4303f",
    "purple": "#7c3aed",
    "teal": "#0f766e",
    "pink": "#b0307a",
    "olive": "#5b7300",
    "heat_low": "#edf3fa",
    "heat_high": "#0a5fb4",
}
DARK: Mapping[str, str] = {
    "surface": "#161b22",
    "ink": "#e6edf3",
    "muted": "#9da7b3",
    "grid": "#2b323b",
    "axis": "#768390",
    "blue": "#58a6ff",
    "slate": "#8b949e",
    "orange": "#e3963e",
    "red": "#ff7b72",
    "purple": "#b392f0",
    "teal": "#39c5bb",
    "pink": "#f778ba",
    "olive": "#a5c261",
    "heat_low": "#1f2935",
    "heat_high": "#58a6ff",
}
SERIES = ("@blue", "@orange", "@teal", "@purple", "@red", "@olive", "@pink", "@slate")
"""For what has no color of its own, in this order."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', 'DejaVu Sans', sans-serif"
_DATA = ("data", "datasets", "values")


def resolve(spec: Any, colors: Mapping[str, str]) -> Any:
    """A specification with the colors of a theme; data keep every text as it is."""
    if isinstance(spec, str):
        return colors.get(spec[1:], spec) if spec.startswith("@") else spec
    if isinstance(spec, Mapping):
        return {key: value if key in _DATA else resolve(value, colors) for key, value in spec.items()}
    return [resolve(item, colors) for item in spec] if isinstance(spec, list | tuple) else spec


def vega_config(colors: Mapping[str, str]) -> dict[str, Any]:
    """What all charts share in a theme."""
    config: dict[str, Any] = resolve(_CONFIG, colors)
    return config


_TEXT = {"labelColor": "@muted", "titleColor": "@ink", "labelFontSize": 12, "titleFontSize": 12}
_CONFIG = {
    "background": "@surface",
    "aria": False,
    "font": FONT,
    "view": {"stroke": None},
    "text": {"color": "@ink", "fontSize": 12},
    "title": {"color": "@ink", "fontSize": 13, "anchor": "start", "fontWeight": 600},
    "axis": {
        **_TEXT,
        "titleFontWeight": 500,
        "gridColor": "@grid",
        "domainColor": "@axis",
        "tickColor": "@axis",
        "labelPadding": 6,
        "titlePadding": 10,
    },
    "axisX": {"labelOverlap": "greedy", "labelSeparation": 8, "tickCount": 9},
    "axisY": {"labelLimit": 260},
    "axisBand": {"grid": False, "ticks": False, "domain": False},
    "legend": {
        **_TEXT,
        "titleFontWeight": 500,
        "orient": "top",
        "title": None,
        "labelLimit": 260,
        "symbolSize": 90,
        "symbolOpacity": 1,
    },
}
