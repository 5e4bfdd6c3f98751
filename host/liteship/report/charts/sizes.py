"""File size, plain and after gzip, by sparsity."""

from __future__ import annotations

from liteship.report.charts.chart import Chart, Section, Table, named, to_spec
from liteship.report.charts.colors import SERIES
from liteship.report.comparison import Comparison, Row
from liteship.report.text import mebibytes_and_bytes, percent, plain

_HEIGHT = 280
_OTHER = "other"
_PLAIN, _GZIP = "file", "after gzip -9"


def sizes_section(comparison: Comparison) -> Section:
    """One point for the file and one for what is left of it after gzip, for each artefact."""
    first: dict[str, Row] = {}
    for row in comparison.rows:
        if row.sha256 is not None and row.size_bytes is not None and row.achieved_sparsity is not None:
            first.setdefault(row.sha256, row)
    rows = tuple(first.values())
    return Section("sizes", "Size by sparsity", (_chart(rows),) if rows else ())


def _chart(rows: tuple[Row, ...]) -> Chart:
    import altair

    kinds = _kinds(rows)
    values = [
        {
            "variant": plain(row.variant),
            "quantization": kinds.get(_quantization(row), _OTHER),
            "sparsity": row.achieved_sparsity,
            "file": (row.size_bytes or 0) / 2**20,
            "gzip": (row.gzip_bytes or 0) / 2**20,
        }
        for row in rows
    ]
    domain = list(dict.fromkeys(value["quantization"] for value in values))
    base = altair.Chart(named("files")).encode(
        x=altair.X(
            "sparsity:Q",
            title="zeros among the weights",
            axis=altair.Axis(format=".0%", tickCount=6),
            scale=altair.Scale(domain=[0, _end(rows)], nice=False),
        ),
        color=altair.Color(
            "quantization:N",
            scale=altair.Scale(domain=domain, range=[SERIES[at % len(SERIES)] for at in range(len(domain))]),
            legend=altair.Legend(title="quantization", orient="top", titleOrient="left"),
        ),
        tooltip=[
            altair.Tooltip("variant:N"),
            altair.Tooltip("sparsity:Q", format=".1%"),
            altair.Tooltip("file:Q", title="file MiB", format=".3f"),
            altair.Tooltip("gzip:Q", title="gzip MiB", format=".3f"),
        ],
    )
    scale = altair.Scale(domainMin=0, nice=True)
    points = base.transform_fold(["file", "gzip"], as_=["kind", "mebibytes"]).transform_calculate(
        kind=f"datum.kind == 'file' ? '{_PLAIN}' : '{_GZIP}'"
    )
    shapes = altair.Scale(domain=[_PLAIN, _GZIP], range=["circle", "triangle-down"])
    layers = [
        base.mark_rule(strokeWidth=1.5, opacity=0.45).encode(
            y=altair.Y("gzip:Q", title="MiB", scale=scale), y2=altair.Y2("file")
        ),
        points.mark_point(filled=True, size=95, opacity=1).encode(
            y=altair.Y("mebibytes:Q", title="MiB", scale=scale),
            shape=altair.Shape("kind:N", scale=shapes, legend=altair.Legend(title=None, orient="top")),
        ),
    ]
    return Chart(
        name="sizes",
        title="File size by sparsity",
        summary=f"Size of {len(rows)} files, plain and after gzip, by the share of zeros among their weights.",
        spec=to_spec(altair.LayerChart(layer=layers, height=_HEIGHT), files=values),
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


def _end(rows: tuple[Row, ...]) -> float:
    """Of the axis, with room for the last point."""
    return min(1.0, max(0.1, 1.1 * max(row.achieved_sparsity or 0.0 for row in rows)))


def _quantization(row: Row) -> str:
    return plain(row.variant.rpartition("-")[2])


def _kinds(rows: tuple[Row, ...]) -> dict[str, str]:
    """Quantizations that have a color; where there are too many the rest shares one."""
    found = list(dict.fromkeys(map(_quantization, rows)))
    kept = found if len(found) <= len(SERIES) else found[: len(SERIES) - 1]
    return {name: name for name in kept}
