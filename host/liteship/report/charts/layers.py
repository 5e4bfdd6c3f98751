"""Sparsity by layer: the zeros in each weight tensor of each file."""

from __future__ import annotations

from typing import Any

from liteship.report.charts.chart import Chart, Section, Table, band_height, named, to_spec, with_labels_above
from liteship.report.comparison import Comparison
from liteship.report.text import percent, plain
from liteship_agent.manifest import Manifest, ManifestEntry

_LEAST_RATIO = 0.01
"""Fewer zeros are chance: quantization makes some of small weights."""


def layers_section(manifest: Manifest, comparison: Comparison) -> Section:
    """The chart of the files that have zeros; sentences for the others."""
    shown = {row.sha256 for row in comparison.rows}
    entries = [entry for entry in manifest.entries if entry.sha256 in shown]
    sparse = [entry for entry in entries if max(_ratios(entry), default=0.0) >= _LEAST_RATIO]
    dense = [plain(entry.variant) for entry in entries if entry not in sparse]
    sentences = []
    if dense:
        names = ", ".join(dense[:8]) + (f" and {len(dense) - 8} more" if len(dense) > 8 else "")
        sentences.append(f"Without zeros in any layer (less than 1 %): {names}.")
    return Section("layers", "Sparsity by layer", (_chart(sparse),) if sparse else (), tuple(sentences))


def _ratios(entry: ManifestEntry) -> list[float]:
    return [layer.zeros / layer.weights for layer in entry.sparsity_by_layer if layer.weights]


def _chart(entries: list[ManifestEntry]) -> Chart:
    import altair

    values: list[dict[str, Any]] = [
        {
            "variant": plain(entry.variant),
            "layer": index,
            "name": plain(layer.name),
            "zeros": round(layer.zeros / layer.weights, 4),
            "weights": layer.weights,
        }
        for entry in entries
        for index, layer in enumerate(entry.sparsity_by_layer, start=1)
        if layer.weights
    ]
    names = [plain(entry.variant) for entry in entries]
    chart = (
        altair.Chart(named("tensors"))
        .mark_rect(stroke="@surface", strokeWidth=1)
        .encode(
            x=altair.X(
                "layer:O",
                title="weight tensor, in graph order",
                scale=altair.Scale(paddingInner=0, paddingOuter=0),
                axis=altair.Axis(labelAngle=0, labelOverlap="greedy", labelSeparation=6),
            ),
            y=altair.Y("variant:N", title=None, sort=None, scale=altair.Scale(domain=names)),
            color=altair.Color(
                "zeros:Q",
                title="zeros",
                scale=altair.Scale(domain=[0, 1], range=["@heat_low", "@heat_high"]),
                legend=altair.Legend(format="%", orient="top", gradientLength=160, title="zeros", titleOrient="left"),
            ),
            tooltip=[
                altair.Tooltip("variant:N"),
                altair.Tooltip("name:N", title="tensor"),
                altair.Tooltip("zeros:Q", format=".1%"),
                altair.Tooltip("weights:Q", format=","),
            ],
        )
        .properties(height=band_height(len(names)))
    )
    return Chart(
        name="layers",
        title="Sparsity by layer",
        summary=f"Share of zeros in each weight tensor of {len(names)} files, counted in the files.",
        spec=with_labels_above(to_spec(chart, tensors=values), len(names)),
        table=Table(
            ("variant", "tensor", "weights", "zeros"),
            tuple(
                (value["variant"], value["name"], f"{value['weights']:,}", percent(value["zeros"])) for value in values
            ),
        ),
    )
