"""File size, plain and after gzip, in the order of sparsity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liteship.report.charts.chart import Chart, Section, Table, band_height, named, to_spec, with_labels_above
from liteship.report.comparison import Comparison, Row
from liteship.report.text import mebibytes_and_bytes, percent, plain

_SENTENCES = ("Before each name: the share of zeros among its weights.",)
_PLAIN, _GZIP = "file", "after gzip -9"


def sizes_section(comparison: Comparison) -> Section:
    """One point for the file and one for what is left of it after gzip, for each artefact."""
    first: dict[str, Row] = {}
    for row in comparison.rows:
        if row.sha256 is not None and row.size_bytes is not None and row.gzip_bytes is not None:
            first.setdefault(row.sha256, row)
    rows = sorted(first.values(), key=lambda row: (row.achieved_sparsity or 0.0, -(row.size_bytes or 0)))
    return Section("sizes", "Size by sparsity", (_chart(rows),) if rows else (), _SENTENCES)


def _chart(rows: Sequence[Row]) -> Chart:
    return Chart(
        name="sizes",
        title="File size by sparsity",
        summary=f"Size of {len(rows)} files, plain and after gzip, in the order of the zeros among their weights.",
        spec=_spec(rows),
        table=Table(
            ("variant", "zeros", "file MiB (bytes)", "gzip MiB (bytes)"),
            tuple(
                (
                    *(plain(row.variant), percent(row.achieved_sparsity)),
                    *(mebibytes_and_bytes(row.size_bytes), mebibytes_and_bytes(row.gzip_bytes)),
                )
                for row in rows
            ),
        ),
    )


def _spec(rows: Sequence[Row]) -> dict[str, Any]:
    import altair

    labels = [f"{percent(row.achieved_sparsity)}  {plain(row.variant)}" for row in rows]
    values = [
        {
            "label": label,
            "variant": plain(row.variant),
            "zeros": row.achieved_sparsity,
            "file": round((row.size_bytes or 0) / 2**20, 5),
            "gzip": round((row.gzip_bytes or 0) / 2**20, 5),
        }
        for label, row in zip(labels, rows, strict=True)
    ]
    points = [
        {**value, "kind": kind, "size": value[key]}
        for value in values
        for key, kind in (("file", _PLAIN), ("gzip", _GZIP))
    ]
    kinds = [_PLAIN, _GZIP]
    legend = altair.Legend(title=None, orient="top")
    scale = altair.Scale(domainMin=0, nice=True)
    base = altair.Chart(named("files")).encode(
        y=altair.Y("label:N", sort=None, title=None, scale=altair.Scale(domain=labels)),
        tooltip=[
            altair.Tooltip("variant:N"),
            altair.Tooltip("zeros:Q", format=".1%"),
            altair.Tooltip("file:Q", title="file MiB", format=".3f"),
            altair.Tooltip("gzip:Q", title="gzip MiB", format=".3f"),
        ],
    )
    rules = base.mark_rule(strokeWidth=2, color="@axis", opacity=0.7)
    marks = base.mark_point(filled=True, size=90, opacity=1).encode(
        x=altair.X("size:Q", title="MiB", scale=scale),
        color=altair.Color("kind:N", scale=altair.Scale(domain=kinds, range=["@blue", "@orange"]), legend=legend),
        shape=altair.Shape("kind:N", scale=altair.Scale(domain=kinds, range=["circle", "diamond"]), legend=legend),
    )
    marks.data = named("points")
    layers = [rules.encode(x=altair.X("gzip:Q", title="MiB", scale=scale), x2=altair.X2("file")), marks]
    chart = altair.LayerChart(layer=layers, height=band_height(len(rows)))
    return with_labels_above(to_spec(chart, files=values, points=points), len(rows))
