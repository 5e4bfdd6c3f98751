"""`liteship choose|compare|gate` as command lines: exit codes, one line of error, and nothing half-written."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from report_samples import make_blocks, make_job, make_manifest, make_report, make_scores
from verdict_samples import make_comparison, make_row

from liteship.report.document import render_json
from liteship.report.summary import summarize
from liteship_agent.records import write_record

Run = Callable[..., tuple[int, str, str]]
UNMEASURED = {"threads": None, "cpus": None, "median_ns": None, "round_medians_ns": (), "validity": None}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def one(row=None, wrong=range(20), **header):
    return make_comparison((make_row() if row is None else row, wrong), **header)


@pytest.fixture
def write(folder: Path) -> Callable[..., str]:
    """Keeps a comparison as a document and gives its name."""

    def write(name: str, comparison) -> str:
        (folder / f"{name}.json").write_text(render_json(comparison))
        return f"{name}.json"

    return write


@pytest.fixture
def study(folder: Path) -> Path:
    """A study with two raw reports, the later one twice as slow."""
    manifest = make_manifest()
    write_record(manifest, folder / "models/pets/manifest.json")
    (folder / "models/latest").symlink_to("pets")
    for day, factor in ((22, 1), (23, 2)):
        job = make_job("none-none", "none-int8", job_id=f"202611{day}-101500-0123456789ab")
        blocks = make_blocks(job, [1_500_000 * factor, 1_800_000 * factor])
        accuracy = (make_scores("none-none", 22), make_scores("none-int8", 23))
        report = make_report(manifest, job=job, blocks=blocks, accuracy=accuracy, summaries=())
        report = replace(report, summaries=summarize(report))
        write_record(report, folder / f"models/pets/reports/pi/{job.job_id}.json")
    return folder / "models/pets"


def only_error(result: tuple[int, str, str], code: int) -> str:
    received, out, err = result
    assert (received, out) == (code, ""), (out, err)
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    return err


# --- choose ---


def test_choose_names_the_winner_of_the_latest_report(run, study):
    code, out, _ = run("choose", "--max-drop", "0.01")
    assert code == 0
    assert "Ship none-none: 3.02 ms" in out
    assert "slower than the winner: 1.20x" in out
    assert "FULLY_CONNECTED version 12" in out


def test_choose_ends_with_4_where_nothing_meets_the_budgets_and_says_what_is_nearest(run, study):
    code, out, _ = run("choose", "--max-latency-ms", "0.1", "--percentile", "50")
    assert code == 4
    assert "Nothing meets every budget. The nearest is none-none: median 3.02 ms exceeds" in " ".join(out.split())


def test_choose_as_json_is_one_object_also_where_nothing_wins(run, study):
    code, out, _ = run("choose", "--job", "20261122", "--json")
    found = json.loads(out)
    assert (code, found["winner"]["variant"], found["job"]) == (0, "none-none", "20261122-101500-0123456789ab")
    assert found["lost"][0]["variant"] == "none-int8"
    code, out, _ = run("choose", "--max-size-mib", "0.001", "--json")
    assert (code, json.loads(out)["winner"]) == (4, None)


def test_choose_works_on_a_document_alone(run, write):
    code, out, _ = run("choose", "--job", write("kept", one()))
    assert code == 0
    assert "Ship none-none" in out


def test_choose_without_a_budget_or_with_an_empty_file_asks_for_the_default(run, write, folder):
    comparison = make_comparison((make_row(), range(20)), (make_row("none-int8", 1.0), range(60)))
    name = write("kept", comparison)
    (folder / "budgets.toml").write_text("schema_version = 1\n")
    for options in ((), ("--budgets", "budgets.toml"), ("--prefer", "latency")):
        code, out, _ = run("choose", "--job", name, *options)
        assert code == 0
        assert "Ship none-none" in out
        assert "no budget, so that the default holds" in out
    assert json.loads(run("choose", "--job", name, "--json")[1])["budgets_by_default"] is True
    assert "Ship none-int8" in run("choose", "--job", name, "--max-drop", "1")[1]


def test_choose_takes_budgets_from_a_file(run, write, folder):
    (folder / "budgets.toml").write_text("schema_version = 1\nmax_latency_ms = 1\npercentile = 50\n")
    assert run("choose", "--job", write("kept", one()), "--budgets", "budgets.toml")[0] == 4
    error = only_error(run("choose", "--budgets", "budgets.toml", "--max-latency-ms", "2"), 2)
    assert "--max-latency-ms and max_latency_ms in budgets.toml" in error


@pytest.mark.parametrize(
    "options",
    [
        ("--max-latency-ms", "nan"),
        ("--max-latency-ms", "0"),
        ("--max-latency-ms", "-1"),
        ("--max-latency-ms", "5", "--percentile", "99"),
        ("--percentile", "90"),
        ("--max-drop", "1.5"),
        ("--min-accuracy", "-0.1"),
        ("--max-size-mib", "inf"),
        ("--prefer", "beauty"),
        ("--certain",),
        ("--budgets", "none.toml"),
    ],
)
def test_choose_refuses_budgets_before_it_reads_a_report(run, options):
    only_error(run("choose", *options), 2)


def test_tables_for_people_end_with_what_to_ship(run, study):
    assert "What to ship\nShip none-none, the fastest of 2 rows" in run("report")[1]
    assert "**What to ship**\n\n**Ship none-none, the fastest of 2 rows" in run("report", "--format", "markdown")[1]
    assert "What to ship" not in run("report", "--format", "csv")[1] + run("report", "--json")[1]


# --- compare ---


def test_compare_of_two_days_flags_what_is_slower(run, study):
    code, out, _ = run("compare", "20261122", "latest")
    assert code == 0
    assert "2 regressions" in out
    assert "none-none is slower: 1.98x" in out
    code, out, _ = run("compare", "20261122", "latest", "--json")
    assert json.loads(out)["rows"][0]["latency"]["verdict"] == "worse"
    code, out, _ = run("compare", "20261122", "latest", "--format", "markdown")
    assert "| none-none | 1.52 → 3.0" in out


def test_compare_of_three_puts_them_side_by_side(run, write):
    code, out, _ = run("compare", write("a", one()), write("b", one()), write("c", one(target="emulated")))
    assert code == 0
    assert "C emulated" in out
    assert len(json.loads(run("compare", "a.json", "b.json", "c.json", "--json")[1])["reports"]) == 3
    assert "| variant | A:" in run("compare", "a.json", "b.json", "c.json", "--format", "markdown")[1]


def test_compare_needs_two_reports_and_a_known_form(run, write):
    assert "At least two reports" in only_error(run("compare", write("a", one())), 2)
    assert "--format: one of terminal, markdown" in only_error(run("compare", "a.json", "a.json", "--format", "csv"), 2)


# --- gate ---


def test_gate_passes_fails_and_refuses_by_its_exit_code(run, write):
    baseline = write("baseline", one())
    assert run("gate", baseline, write("same", one()))[0] == 0
    assert run("gate", baseline, write("slow", one(make_row(ms=3.0))))[0] == 4
    assert run("gate", baseline, "slow.json", "--max-slowdown", "0.6")[0] == 0
    assert run("gate", baseline, write("pi4", one(board="Raspberry Pi 4")))[0] == 6
    assert run("gate", baseline, "pi4.json", "--accuracy-only")[0] == 0
    assert run("gate", baseline, write("gone", one(make_row("other"), baseline="other")))[0] == 4


def test_gate_judges_the_latest_report_by_a_document_that_was_kept(run, study, folder):
    code, out, _ = run("report", "--job", "20261122", "--format", "json")
    (folder / "baseline.json").write_text(out)
    code, out, _ = run("gate", "baseline.json", "--json")
    assert (code, json.loads(out)["outcome"]) == (4, "regressed")
    assert run("gate", "baseline.json", "20261122")[0] == 0


def test_gate_writes_a_comment_and_prints_the_verdict(run, write, folder):
    (folder / "out").mkdir()
    code, out, _ = run(
        "gate", write("a", one()), write("b", one(make_row(ms=3.0))), "--format", "markdown", "--output", "out/gate.md"
    )
    assert (code, out) == (4, "Regression: 1 figure of 1 row worse than allowed\n")
    assert (folder / "out/gate.md").read_text().startswith("❌ **Regression")
    assert [path.name for path in (folder / "out").iterdir()] == ["gate.md"]
    code, out, _ = run("gate", "a.json", "b.json", "--output", "gate.txt", "--json")
    assert (code, json.loads(out)["exit_code"]) == (4, 4)
    assert "\x1b" not in (folder / "gate.txt").read_text()


def test_gate_that_cannot_read_leaves_what_was_written_before(run, write, folder):
    (folder / "gate.md").write_text("before")
    only_error(run("gate", write("a", one()), "none.json", "--output", "gate.md"), 6)
    assert (folder / "gate.md").read_text() == "before"


def test_gate_refuses_an_output_that_cannot_be_written(run, write, folder):
    (folder / "file").write_text("")
    error = only_error(run("gate", write("a", one()), "a.json", "--output", "file/gate.md"), 2)
    assert "--output: a folder that exists is required. Received: file." in error
    only_error(run("gate", "a.json", "a.json", "--output", "new/gate.md"), 2)
    assert not (folder / "new").exists()
    assert "Did you mean markdown?" in only_error(run("gate", "a.json", "a.json", "--format", "markdwn"), 2)


def test_a_reference_that_is_missing_empty_or_contradicted_is_one_line(run, study):
    error = only_error(run("choose", "--job", "none.json"), 6)
    assert error == "error: none.json: a readable file is required. Received: no such file.\n"
    assert "pi:latest and --target loopback" in only_error(
        run("choose", "--job", "pi:latest", "--target", "loopback"), 2
    )
    assert "Received: nothing." in only_error(run("gate", ""), 2)
    for verb in ("choose", "report", "reports"):
        assert "liteship compare pi:latest zero:latest" in only_error(run(verb, "--target", "pi,zero"), 2)


@pytest.mark.parametrize("option", ["--max-slowdown", "--max-drop", "--max-growth", "--max-memory-growth"])
def test_gate_refuses_allowances_before_it_reads_a_report(run, option):
    assert f"{option}: a ratio from 0" in only_error(run("gate", "none.json", option, "nan"), 2)


# --- bad input ---


def broken(text: str, kind: str) -> str:
    data = json.loads(text)
    if kind == "half-written":
        return text[: len(text) // 2]
    if kind == "NaN":
        return text.replace('"median_ns": 2000000.0', '"median_ns": NaN')
    if kind == "schema":
        data["schema_version"] = 3
    elif kind == "no rows":
        del data["rows"]
    elif kind == "no scores":
        data["answers"][0]["wrong"] = [5, 4]
    elif kind == "list":
        data = [data]
    return json.dumps(data)


@pytest.mark.parametrize("kind", ["half-written", "NaN", "schema", "no rows", "list"])
@pytest.mark.parametrize("verb", [("choose", "--job"), ("compare", "a.json"), ("gate", "a.json")])
def test_a_document_that_is_broken_is_one_line_and_exit_code_6(run, write, folder, verb, kind):
    write("a", one())
    (folder / "bad.json").write_text(broken((folder / "a.json").read_text(), kind))
    assert "bad.json" in only_error(run(*verb, "bad.json"), 6)


@pytest.mark.parametrize("verb", [("compare", "a.json"), ("gate", "a.json")])
def test_answers_that_contradict_themselves_are_exit_code_6(run, write, folder, verb):
    write("a", one())
    (folder / "bad.json").write_text(broken((folder / "a.json").read_text(), "no scores"))
    assert (
        "answers[0].wrong (none-none): as many indices as are not correct (20) is required. Received: 2."
        in only_error(run(*verb, "bad.json"), 6)
    )


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"sha256": None}, (4, 6)),
        ({"round_medians_ns": (2e6,)}, (0, 6)),
        ({"status": "unstable", "validity": "unstable", "round_medians_ns": (None,) * 6}, (4, 6)),
        ({"status": "failed: every block failed", **UNMEASURED}, (4, 4)),
    ],
)
def test_rows_without_a_file_an_interval_or_a_valid_block_behave(run, write, changes, codes):
    bad = one(make_row(**changes))
    if "sha256" in changes:
        unanswered = replace(bad.rows[0], target_correct=None, image_count=None, target_accuracy_ratio=None)
        bad = replace(bad, rows=(unanswered,), answers=())
    write("good", one())
    assert run("choose", "--job", write("bad", bad))[0] == codes[0]
    assert run("compare", "good.json", "bad.json")[0] == 0
    assert run("gate", "good.json", "bad.json")[0] == codes[1]


def test_a_missing_study_is_told(run):
    only_error(run("choose"), 2)
    only_error(run("gate", "latest"), 2)


# --- start ---


@pytest.mark.parametrize("module", ["choose", "compare"])
def test_verbs_that_only_read_load_nothing_heavy(module):
    heavy = "{'tensorflow', 'scipy', 'paramiko', 'altair', 'numpy', 'pydantic', 'liteship.cli.common', 'vl_convert'}"
    code = f"import sys, liteship.cli.{module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
