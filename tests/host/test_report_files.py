"""`liteship report` into files: pages, pictures and texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import pytest
from page_samples import make_source, write_source

from liteship.report.html import scripts

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def report(tmp_path, monkeypatch) -> Path:
    """The file of a report, in a working folder of its own, with a quick stand-in for Vega."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(scripts, "_PROGRAM", "print('window.vegaEmbed = 1')")
    path = write_source(make_source(tmp_path / "models/pets"))
    (tmp_path / "models/latest").symlink_to("pets")
    return path


@pytest.fixture
def run(run: Run) -> Run:
    """Runs `liteship report` in this process: exit code, stdout, stderr."""
    return partial(run, "report")


def test_a_page_stands_beside_its_report_and_its_path_is_printed(run, report, tmp_path):
    code, out, err = run("--format", "html")

    assert (code, err) == (0, "")
    assert Path(out.strip()).resolve() == report.with_suffix(".html").resolve()
    page = report.with_suffix(".html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "What to ship" in page
    assert list((tmp_path / "cache/liteship").glob("vega-*.js"))
    assert run("--format", "html")[0] == 0  # the page beside the report is no report


def test_a_page_and_texts_go_where_they_are_wished(run, report, tmp_path):
    (tmp_path / "out").mkdir()
    for form, start in (("html", "<!DOCTYPE html>"), ("markdown", "pi"), ("csv", "target,"), ("json", "{")):
        code, out, err = run("--format", form, "--output", f"out/report.{form}")
        assert (code, out, err) == (0, f"out/report.{form}\n", "")
        assert (tmp_path / f"out/report.{form}").read_text().startswith(start)
    assert not report.with_suffix(".html").exists()


def test_a_page_is_opened_only_where_it_is_asked_for(run, report, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)

    run("--format", "html")
    assert opened == []
    run("--format", "html", "--open")
    assert opened == [report.with_suffix(".html").resolve().as_uri()]


def test_pictures_are_written_into_a_folder_one_for_each_chart(run, report, tmp_path):
    code, out, _ = run("--format", "png", "--output", "pictures")

    paths = [Path(line) for line in out.splitlines()]
    assert code == 0
    assert {"trade-off.png", "sizes.png", "latencies.png", "confusion-1.png"} <= {path.name for path in paths}
    for path in paths:
        pixels = cv2.imread(str(path))
        assert pixels.shape[1] > 400
        assert pixels[2, 2].tolist() == [255, 255, 255]


def test_a_comparison_without_its_raw_report_cannot_become_a_page(run, report, tmp_path):
    run("--format", "json", "--output", "kept.json")
    assert json.loads((tmp_path / "kept.json").read_text())["rows"]

    for form in ("html", "png"):
        code, out, err = run("--job", "kept.json", "--format", form)
        assert (code, out) == (6, "")
        assert "Charts are drawn from raw latencies, and a comparison kept as JSON has none." in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "html", "--output", "."], "--output: the name of a file is required. Received: the folder ."),
        (["--format", "csv", "--output", "models"], "--output: the name of a file is required."),
        (
            ["--format", "html", "--output", "note/page.html"],
            "--output: a folder that exists is required. Received: note.",
        ),
        (["--format", "csv", "--output", "new/a.csv"], "--output: a folder that exists is required. Received: new."),
        (["--format", "png", "--output", "new/png"], "--output: a folder that exists is required. Received: new."),
        (["--format", "htm"], "Received: htm. Did you mean html?"),
        (["--against", "reference"], "benchmarks/reference.toml: a readable file of published figures"),
        (["--format", "png", "--output", "note"], "--output: a place that can be written to is required."),
        (["--output", "page.html"], "--output: --format markdown, csv, json, html or png is required."),
        (["--open"], "--open: --format html is required. Received: terminal."),
    ],
)
def test_places_that_cannot_be_written_to_are_usage_errors(run, report, tmp_path, arguments, message):
    (tmp_path / "note").write_text("a file")

    code, out, err = run(*arguments)

    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_damaged_report_leaves_no_page(run, report):
    report.write_text(report.read_text()[:5000])

    code, _, err = run("--format", "html")

    assert code == 6
    assert err.count("\n") == 1
    assert not report.with_suffix(".html").exists()
