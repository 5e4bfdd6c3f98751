"""What `liteship report` makes of reports that are damaged, nearly empty, or full of names that nobody expects."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from report_samples import make_blocks, make_flip, make_job, make_manifest, make_report, make_scores, sha
from rich.cells import cell_len

from liteship.report.summary import summarize
from liteship_agent.manifest import Manifest
from liteship_agent.records import write_record
from liteship_agent.report import UNKNOWN, VOID, FailedBlock, Refused, Report

JOB = "20261122-101500-0123456789ab"
FORMS = ("terminal", "markdown", "csv", "json")
VARIANTS = ("none-none", "none-int8", "magnitude50-none", "magnitude50-int8")
HOSTILE = (
    "<script>alert(1)</script>",
    "\x1b[2J\x1b]0;title\x07\r\n\t",
    "\u202edrawkcab\u2028",
    "a|b`c`*d*_e_[f](g)",
    "😀👩‍🔬🏳️‍🌈",
    "كلب لطيف",
    "שלום",
    "板" * 12,
    "[bold red]x[/]",
    "w" * 200,
)
Shown = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "models"


@pytest.fixture
def show(run: Shown, models: Path) -> Shown:
    """Runs `liteship report`: exit code, stdout, stderr."""
    return partial(run, "report")


def keep(models: Path, manifest: Manifest, report: Report) -> Path:
    """A study whose report is this one, with the summaries of its blocks."""
    path = models / "pets/reports/pi" / f"{JOB}.json"
    write_record(manifest, models / "pets/manifest.json")
    write_record(replace(report, summaries=summarize(report), manifest_sha256=manifest.sha256()), path)
    if not (models / "latest").is_symlink():
        (models / "latest").symlink_to("pets")
    return path


def whole(models: Path) -> Path:
    return keep(models, make_manifest(), make_report(make_manifest()))


def refused(result: tuple[int, str, str], code: int) -> str:
    """The one line of an expected error."""
    received, out, err = result
    assert (received, out) == (code, ""), err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


# --- damaged ---


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("version", [1, 3, 99, None, "2"])
def test_report_of_another_schema_is_refused(version: object, form: str, models: Path, show: Shown) -> None:
    path = whole(models)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": version}))
    assert "schema_version 2 is required" in refused(show("--format", form), 6)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_half_written_report_is_refused(share: float, models: Path, show: Shown) -> None:
    path = whole(models)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "a JSON object is required" in refused(show(), 6)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"fast"', "null", "-1", "0"])
@pytest.mark.parametrize("field", ["latencies_ns", "median_ns", "scores"])
def test_figure_that_is_no_number_is_refused(value: str, field: str, models: Path, show: Shown) -> None:
    path = whole(models)
    data = json.loads(path.read_bytes())
    if field == "latencies_ns":
        data["blocks"][0]["latencies_ns"][3] = "HERE"
    elif field == "median_ns":
        data["summaries"][0]["median_ns"] = "HERE"
    else:
        data["accuracy"][0]["scores"][0][0] = "HERE"
    path.write_text(json.dumps(data).replace('"HERE"', value))
    if field == "scores" and value in ("-1", "0"):
        assert show()[0] == 0
    else:
        refused(show(), 6)


@pytest.mark.parametrize("part", ["job", "refused", "scores", "flips"])
def test_artefact_that_the_manifest_lacks_is_refused(part: str, models: Path, show: Shown) -> None:
    manifest = make_manifest()
    report = make_report(manifest)
    runtime = report.job.cases[0].runtime
    changes: dict[str, Any] = {
        "job": {"job": make_job(*VARIANTS, "unknown")},
        "refused": {"refused": (Refused(sha("unknown"), runtime, "no reason"),)},
        "scores": {"accuracy": (*report.accuracy, make_scores("unknown", 3))},
        "flips": {"flips": (make_flip("unknown", 3),)},
    }
    keep(models, manifest, replace(report, **changes[part]))
    for form in FORMS:
        assert sha("unknown")[:12] in refused(show("--format", form), 6)


# --- nearly nothing ---


def check_forms(show: Shown, variants: tuple[str, ...]) -> dict[str, str]:
    """Every form has every row."""
    outputs = {}
    for form in FORMS:
        code, outputs[form], err = show("--format", form)
        assert (code, err) == (0, "")
    assert [row["variant"] for row in csv.DictReader(io.StringIO(outputs["csv"]))][: len(variants)] == list(variants)
    assert [row["variant"] for row in json.loads(outputs["json"])["rows"]][: len(variants)] == list(variants)
    for variant in variants:
        assert variant in outputs["terminal"]
        assert variant in outputs["markdown"]
    return outputs


def test_single_block_has_figures_without_intervals(models: Path, show: Shown) -> None:
    manifest = make_manifest()
    job = make_job("none-none", rounds=1)
    scores = (make_scores("none-none", 22),)
    keep(
        models, manifest, make_report(manifest, job=job, accuracy=scores, refused=(), blocks=make_blocks(job, [10**6]))
    )
    row = json.loads(check_forms(show, ("none-none",))["json"])["rows"][0]
    assert (row["blocks"], row["status"]) == (1, "valid")
    assert row["median_ns"] is not None
    assert (row["median_low_ns"], row["p90_ns"], row["latency_tie"]) == (None, None, None)


def test_one_block_of_two_cases_is_no_gain(models: Path, show: Shown) -> None:
    manifest = make_manifest()
    job = make_job("none-none", "none-int8", rounds=1)
    scores = tuple(make_scores(variant, 22) for variant in ("none-none", "none-int8"))
    blocks = make_blocks(job, [2 * 10**6, 10**6])
    keep(models, manifest, make_report(manifest, job=job, accuracy=scores, refused=(), blocks=blocks))
    row = json.loads(check_forms(show, ("none-none", "none-int8"))["json"])["rows"][1]
    assert row["ratio_to_baseline"] == pytest.approx(0.5)
    assert (row["ratio_low"], row["latency_gain"]) == (None, None)


@pytest.mark.parametrize(("validity", "status"), [(VOID, "unstable"), (UNKNOWN, "throttle unknown")])
def test_report_without_a_valid_block_says_so_in_every_row(
    validity: str, status: str, models: Path, show: Shown
) -> None:
    manifest = make_manifest()
    report = make_report(manifest)
    blocks = tuple(replace(block, validity=validity, reasons=("a throttle bit came",)) for block in report.blocks)
    keep(models, manifest, replace(report, blocks=blocks))
    outputs = check_forms(show, ("none-none", "none-int8"))
    rows = json.loads(outputs["json"])["rows"]
    assert {row["status"] for row in rows if row["blocks"]} == {status}
    assert "a throttle bit came" in outputs["terminal"]


def test_report_in_which_everything_failed_has_no_figures(models: Path, show: Shown) -> None:
    manifest = make_manifest()
    job = make_job(*VARIANTS)
    failed = tuple(FailedBlock(index, 0, "killed:\nout of memory\x1b[2J") for index in range(len(VARIANTS)))
    nothing: dict[str, Any] = {"blocks": (), "accuracy": (), "canaries": (), "refused": ()}
    keep(models, manifest, make_report(manifest, job=job, failed=failed, **nothing))
    outputs = check_forms(show, ("none-none", "none-int8"))
    assert {row["median_ns"] for row in json.loads(outputs["json"])["rows"]} == {None}
    assert "killed: out of memory" in outputs["terminal"]
    assert "\x1b" not in outputs["terminal"] + outputs["markdown"]


# --- names ---


def hostile(models: Path) -> None:
    """Ten classes with names that break tables, pages and terminals; the first twelve images flip."""
    manifest = make_manifest()
    images = tuple(
        replace(image, path=f"{HOSTILE[index % 10]}/{index}.jpg", label=index % 10)
        for index, image in enumerate(manifest.validation.images)
    )
    validation = replace(manifest.validation, images=images)
    manifest = replace(manifest, labels=HOSTILE, validation=validation)
    report = make_report(manifest)
    scores = tuple(
        replace(
            part,
            scores=tuple(
                tuple(float(label == (index + (index < 12)) % 10) for label in range(10)) for index in range(290)
            ),
        )
        for part in report.accuracy
    )
    flips = tuple(
        replace(make_flip("none-int8", 0), path=images[i].path, label=i % 10, expected=i % 10, received=(i + 1) % 10)
        for i in range(12)
    )
    keep(models, manifest, replace(report, accuracy=scores, flips=flips))


@pytest.mark.parametrize("columns", ["80", "200"])
def test_hostile_class_names_are_shown_as_text_in_a_terminal(
    columns: str, models: Path, show: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    hostile(models)
    code, out, err = show()
    assert (code, err) == (0, "")
    for letter in ("\x1b", "\x07", "\r", "\u202e", "\u2028"):
        assert letter not in out
    tables = [line for line in out.splitlines() if line.startswith("─")]
    assert tables
    assert max(map(cell_len, tables)) <= int(columns)


def test_hostile_class_names_are_escaped_in_markdown(models: Path, show: Shown) -> None:
    hostile(models)
    code, out, err = show("--format", "markdown")
    assert (code, err) == (0, "")
    assert "\\<script\\>alert(1)\\</script\\>" in out
    assert "a\\|b\\`c\\`\\*d\\*\\_e\\_\\[f\\](g)" in out
    assert "<script" not in out.replace("\\<script", "")
    for letter in ("\x1b", "\x07", "\r", "\u202e", "\u2028"):
        assert letter not in out
    assert "😀" in out
    assert "كلب لطيف" in out
    widths = {}
    for block in out.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        cells = {line.replace("\\|", "").count("|") for line in lines}
        assert len(cells) <= 1, block
        widths[block[:20]] = cells
    assert len(widths) > 4


def test_hostile_class_names_are_whole_in_json(models: Path, show: Shown) -> None:
    hostile(models)
    code, out, _ = show("--json")
    assert code == 0
    document = json.loads(out)
    assert tuple(document["answers"][0]["labels"]) == HOSTILE
    assert out.isascii() or "\u2028" not in out
    assert show("--format", "csv")[0] == 0


def test_wide_letters_keep_columns_aligned(models: Path, show: Shown) -> None:
    """A name of wide letters, of emoji or from right to left takes as many cells as it is padded to."""
    from rich.console import Console

    from liteship.report.sections import Section
    from liteship.report.table import _section_table

    lines = tuple((name, "1", "22") for name in ("板" * 4, "😀", "كلب", "plain"))
    console = Console(file=io.StringIO(), width=80)
    console.print(_section_table(Section("t", ("name", "a", "b"), lines)))
    shown = console.file.getvalue().splitlines()[2:]  # type: ignore[attr-defined]
    assert len({cell_len(line.rstrip()) for line in shown}) == 1
