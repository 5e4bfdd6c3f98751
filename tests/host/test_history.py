from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import (
    FAILURE_REASON,
    IMAGE_COUNT,
    REFUSED_REASON,
    make_job,
    make_manifest,
    make_report,
    make_summary,
    sha,
)
from rich.cells import cell_len
from rich.console import Console

from liteship.report.history import PastReport, past_reports, render_past
from liteship.report.rows import build_comparison
from liteship.report.store import find_reports
from liteship_agent.manifest import Parity
from liteship_agent.records import write_record
from liteship_agent.report import UNKNOWN, UNSTABLE, FailedBlock, Report

FIRST, SECOND = "20261122-101500-0123456789ab", "20261123-081500-0123456789ab"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study without reports in the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    write_record(make_manifest(), tmp_path / "models/pets/manifest.json")
    (tmp_path / "models/latest").symlink_to("pets")
    return tmp_path / "models"


def keep(models: Path, job_id: str, target: str = "pi", **changes: Any) -> Path:
    path = models / "pets/reports" / target / f"{job_id}.json"
    report = make_report(make_manifest(), **changes)
    job = replace(report.job, job_id=job_id, target=target)
    write_record(replace(report, job=job, target=target), path)
    return path


def mixed() -> Report:
    """Of four cases one is unstable, one unknown, one failed."""
    report = make_report(make_manifest())
    words = {1: UNSTABLE, 2: UNKNOWN}
    summaries = [make_summary(report.job, report.blocks, index, validity=word) for index, word in words.items()]
    failed = (FailedBlock(3, 0, FAILURE_REASON),)
    return replace(report, summaries=(report.summaries[0], *summaries, report.summaries[3]), failed=failed)


def only(models: Path) -> PastReport:
    (line,) = past_reports(find_reports(models))
    return line


def test_line_tells_what_was_measured_where_and_with_what_success(models: Path) -> None:
    report = mixed()
    path = keep(models, FIRST, summaries=report.summaries, failed=report.failed)
    assert only(models) == PastReport(
        job_id=FIRST,
        date="2026-11-22 10:15",
        study="pets",
        target="pi",
        path=str(path),
        board="Raspberry Pi 5 Model B Rev 1.0",
        tier="rapid",
        forced=False,
        runtimes=("ai-edge-litert==2.3.0",),
        rows={"valid": 1, "throttle unknown": 1, "unstable": 1, "failed": 2, "refused": 1},
        best_variant="magnitude50-none",
        best_median_ns=report.summaries[2].median_ns,
    )


def test_statuses_are_those_of_the_table_and_who_cannot_win_is_never_the_fastest(models: Path) -> None:
    manifest = make_manifest()
    parity = Parity(269, 271, IMAGE_COUNT, 0.41, 0.02, False)
    entries = tuple(
        replace(entry, parity=parity) if entry.variant == "magnitude50-none" else entry for entry in manifest.entries
    )
    manifest = replace(manifest, entries=entries)
    write_record(manifest, models / "pets/manifest.json")
    report = make_report(manifest)
    golden = tuple(
        replace(scores, golden_difference=1.0) if scores.artefact == sha("none-none") else scores
        for scores in report.accuracy[:3]
    )
    report = replace(report, job=replace(report.job, job_id=FIRST), accuracy=golden)
    write_record(report, models / f"pets/reports/pi/{FIRST}.json")
    table = [row.status.partition(":")[0] for row in build_comparison(manifest, report).rows]
    assert only(models).rows == Counter(table)
    assert only(models).rows["parity failed"] == only(models).rows["golden failed"] == 1
    assert only(models).best_variant == "none-int8"


def test_nothing_is_the_fastest_on_an_emulated_machine(models: Path) -> None:
    keep(models, FIRST, target="emulated")
    assert (only(models).best_variant, only(models).best_median_ns) == (None, None)


def test_unstable_row_is_never_the_fastest(models: Path) -> None:
    report = make_report(make_manifest())
    unstable = tuple(replace(summary, validity=UNSTABLE) for summary in report.summaries)
    keep(models, FIRST, summaries=unstable)
    assert (only(models).best_variant, only(models).best_median_ns) == (None, None)
    assert only(models).rows == {"unstable": 4, "failed": 1, "refused": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema_version": 99}', "schema_version 2 is required"),
        ('{"schema_version": 2, "job": {', "a report is required"),
        ('{"schema_version": 2, "job": NaN}', "NaN is not JSON"),
        ("[]", "an object is required"),
        ("", "a report is required"),
    ],
)
def test_damaged_report_is_a_line_that_says_so(text: str, words: str, models: Path, run: Run) -> None:
    keep(models, FIRST)
    (models / f"pets/reports/pi/{SECOND}.json").write_text(text)
    code, out, err = run("reports")
    assert (code, err) == (0, "")
    assert "damaged" in out
    assert f"pi:{SECOND} damaged: " in out
    assert words in out
    assert "4 valid" in out


def test_report_without_its_manifest_is_a_line_that_says_so(models: Path) -> None:
    keep(models, FIRST)
    write_record(make_manifest(failures=()), models / "pets/manifest.json")
    assert "the manifest" in str(only(models).problem)


def test_summary_of_no_case_is_damage(models: Path) -> None:
    report = make_report(make_manifest())
    keep(models, FIRST, summaries=(replace(report.summaries[0], case_index=9),))
    assert "a case of the job is required" in str(only(models).problem)


def test_list_is_the_latest_first_and_as_long_as_asked(models: Path, run: Run) -> None:
    keep(models, FIRST)
    keep(models, SECOND, target="loopback")
    code, out, _ = run("reports")
    assert code == 0
    assert out.index("20261123-081500") < out.index("20261122-101500")
    code, out, _ = run("reports", "--limit", "1")
    assert "20261122-101500" not in out
    assert "1 older: liteship reports --limit 2" in out
    assert FIRST[:15] in run("reports", "--target", "pi")[1]
    assert SECOND[:15] not in run("reports", "--target", "pi", "--study", "latest")[1]


def test_list_is_one_json_object(models: Path, run: Run) -> None:
    keep(models, FIRST)
    keep(models, SECOND)
    code, out, _ = run("reports", "--json", "--limit", "1")
    found = json.loads(out)
    assert (code, found["older"]) == (0, 1)
    (line,) = found["reports"]
    assert (line["job_id"], line["rows"]) == (SECOND, {"valid": 4, "failed": 1, "refused": 1})


def test_list_without_reports_tells_how_to_measure(models: Path, run: Run) -> None:
    assert run("reports") == (0, "No report yet. Measure: liteship bench\n", "")
    assert json.loads(run("reports", "--json")[1]) == {"reports": [], "older": 0}


def test_list_of_an_unknown_target_or_study_is_refused(models: Path, run: Run) -> None:
    assert run("reports", "--target", "mars")[0] == 2
    assert "There are: pets" in run("reports", "--study", "mars")[2]


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_fit_the_width_whatever_the_names_are(width: int, models: Path) -> None:
    board = "板" * 30 + "👩‍🔬\x1b[2J لوحة"
    lines = [only_line(FIRST, board=board), only_line(FIRST[:-1] + "c", problem="\x1b]0;x\x07" + REFUSED_REASON)]
    console = Console(file=io.StringIO(), width=width)
    render_past(lines, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(cell_len, text.split("\npi:")[0].splitlines())) <= max(width, 80)
    assert "\x1b" not in text
    assert "\x07" not in text


def only_line(job_id: str, **changes: Any) -> PastReport:
    fields: dict[str, Any] = {
        "rows": {"valid": 3},
        "tier": "rapid",
        "runtimes": tuple(make_job("none-none").runtimes.values()),
    }
    return PastReport(job_id, "2026-11-22 10:15", "pets", "pi", "x.json", **{**fields, **changes})


def test_ids_that_begin_alike_are_shown_as_far_as_they_differ() -> None:
    console = Console(file=io.StringIO(), width=80)
    render_past([only_line(FIRST), only_line("20261122-101500-0124456789ab")], console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "20261122-101500-0123 " in text
    assert "20261122-101500-0124 " in text
