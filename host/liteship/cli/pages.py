"""`liteship report --format html` and `--format png`: a measurement to look at, as files."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path

from liteship.cli.output import write_output
from liteship.report.html.scripts import ScriptBundle
from liteship.report.rows import build_comparison
from liteship.report.store import ReportFile, read_report
from liteship.verdict.shipping import default_verdict


def write_page(file: ReportFile, output: Path | None, open_it: bool) -> None:
    """Write the page of a report and print its path.

    Args:
        file: Of the report.
        output: The file; without one it stands beside the report.
        open_it: Show it in a browser too.

    Raises:
        UsageError: nothing can be written there.
        ReportError: the report cannot be read.
    """
    path = output or file.path.with_suffix(".html")
    write_output(path, _page(file, ScriptBundle(_cache())).encode())
    if open_it:
        webbrowser.open(path.resolve().as_uri())


def write_pictures(file: ReportFile, output: Path | None) -> None:
    """Write every chart of a report as PNG into a folder and print their paths.

    Args:
        file: Of the report.
        output: The folder; without one it stands beside the report.

    Raises:
        UsageError: nothing can be written there.
        ReportError: the report cannot be read.
    """
    from liteship.report.charts.chart import draw_png
    from liteship.report.charts.gallery import build_sections

    folder = output or file.path.with_suffix("")
    manifest, report = read_report(file)
    comparison = build_comparison(manifest, report)
    winner = default_verdict(comparison).winner
    for section in build_sections(manifest, report, comparison, file.study, winner):
        for chart in section.charts:
            if chart.spec:
                write_output(folder / f"{chart.name}.png", draw_png(chart))


def _page(file: ReportFile, bundle: ScriptBundle) -> str:
    from liteship.report.html.page import Source, render_page

    manifest, report = read_report(file)
    comparison = build_comparison(manifest, report)
    verdict = default_verdict(comparison)
    source = Source(manifest, report, comparison, file.study, verdict.sentences, verdict.winner)
    return render_page(source, bundle.text)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liteship"
