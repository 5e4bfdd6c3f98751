"""`liteship report --format html` and `--format png`: a measurement to look at, as files."""

from __future__ import annotations

import os
import webbrowser
from pathlib import Path

import typer

from liteship.errors import UsageError
from liteship.report.html.scripts import ScriptBundle
from liteship.report.rows import build_comparison
from liteship.report.store import ReportFile, read_report
from liteship.verdict.shipping import verdict_sentences
from liteship_agent.records import write_atomic

HTML, PNG = "html", "png"


def write_page(file: ReportFile, output: Path | None, open_it: bool) -> None:
    """Write the page of a report and print its path.

    Args:
        file: Of the report.
        output: The file; without one it stands beside the report.
        open_it: Show it in a browser too.

    Raises:
        UsageError: the path is a folder.
        ReportError: the report cannot be read.
    """
    path = output or file.path.with_suffix(".html")
    if path.is_dir():
        raise UsageError(f"--output: the name of a file is required. Received: the folder {path}.")
    bundle = ScriptBundle(_cache())
    page = _page(file, bundle)
    write_atomic(path, page.encode())
    typer.echo(path)
    if open_it:
        webbrowser.open(path.resolve().as_uri())


def write_pictures(file: ReportFile, output: Path | None) -> None:
    """Write every chart of a report as PNG into a folder and print their paths.

    Args:
        file: Of the report.
        output: The folder; without one it stands beside the report.

    Raises:
        UsageError: the path is a file.
        ReportError: the report cannot be read.
    """
    from liteship.report.charts.chart import write_png
    from liteship.report.charts.gallery import build_sections

    folder = output or file.path.with_suffix("")
    if folder.is_file():
        raise UsageError(f"--output: a folder is required. Received: the file {folder}.")
    manifest, report = read_report(file)
    for section in build_sections(manifest, report, build_comparison(manifest, report), file.study):
        for chart in section.charts:
            if chart.spec:
                path = folder / f"{chart.name}.png"
                write_png(chart, path)
                typer.echo(path)


def _page(file: ReportFile, bundle: ScriptBundle) -> str:
    from liteship.report.html.page import Source, render_page

    manifest, report = read_report(file)
    comparison = build_comparison(manifest, report)
    source = Source(manifest, report, comparison, file.study, verdict_sentences(comparison))
    return render_page(source, bundle.text)


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "liteship"
