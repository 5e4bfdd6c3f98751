from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import (
    IMAGE_COUNT,
    make_blocks,
    make_job,
    make_manifest,
    make_pruned_manifest,
    make_pruned_report,
    make_report,
    make_scores,
)

from liteship.errors import ReportError
from liteship.report import checks
from liteship.report.document import comparison_from_json, render_json
from liteship.report.rows import build_comparison
from liteship.report.store import load_comparison
from liteship.report.summary import summarize
from liteship_agent.report import FailedBlock


@pytest.fixture(autouse=True)
def summaries_are_made_up(monkeypatch):
    monkeypatch.setattr(checks, "check_figures", lambda report: None)


@pytest.fixture
def comparison():
    manifest = make_manifest()
    return build_comparison(manifest, make_report(manifest))


@pytest.fixture
def path(tmp_path, comparison):
    path = tmp_path / "baseline.json"
    path.write_text(render_json(comparison))
    return path


def read(path):
    return load_comparison(path.parent, str(path))


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_was_written_is_read_again(path, comparison):
    assert read(path) == comparison


def test_sparse_rows_and_twins_are_read_again(tmp_path):
    manifest = make_pruned_manifest()
    comparison = build_comparison(manifest, make_pruned_report(manifest))
    (tmp_path / "pruned.json").write_text(render_json(comparison))
    assert read(tmp_path / "pruned.json") == comparison


def test_names_of_any_script_are_read_again(tmp_path, comparison):
    strange = replace(comparison.rows[0], variant="<script>\u202e😀\u2028")
    header = replace(comparison.header, baseline=strange.variant)
    comparison = replace(comparison, rows=(strange,), header=header)
    (tmp_path / "a.json").write_text(render_json(comparison))
    assert read(tmp_path / "a.json").rows == (strange,)


def test_a_document_cut_short_is_refused(path):
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ReportError, match="a JSON object is required"):
        read(path)


def test_nan_is_refused(path):
    path.write_text(path.read_text().replace('"median_ns": 15', '"median_ns": NaN, "x": 15', 1))
    with pytest.raises(ReportError, match="NaN is not JSON"):
        read(path)


@pytest.mark.parametrize("version", [3, 5, None, "4"])
def test_another_schema_is_refused(path, version):
    change(path, schema_version=version)
    with pytest.raises(ReportError, match="schema_version 4"):
        read(path)


@pytest.mark.parametrize(("name", "value"), [("rows", {}), ("answers", None), ("job", []), ("target", 7)])
def test_a_field_of_another_kind_is_named(path, name, value):
    change(path, **{name: value})
    with pytest.raises(ReportError, match=name):
        read(path)


def test_a_row_without_status_is_named(path):
    rows = json.loads(path.read_text())["rows"]
    del rows[1]["status"]
    change(path, rows=rows)
    with pytest.raises(ReportError, match=r"rows\[1\]\.status"):
        read(path)


# --- sense ---


def edited(path, edit):
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def in_row(**fields):
    return lambda data: data["rows"][1].update(fields)


def in_answers(**fields):
    return lambda data: data["answers"][1].update(fields)


def lose_30(data):
    row = data["rows"][1]
    correct = row["target_correct"] - 30
    row.update(target_correct=correct, target_accuracy_ratio=correct / row["image_count"])
    row.update(target_accuracy_low_ratio=0.0, target_accuracy_high_ratio=1.0)


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (in_row(median_ns=-5.0), "median_ns"),
        (in_row(median_low_ns=1e12), "median_ns"),
        (in_row(p90_ns=1.0), "p90_ns"),
        (in_row(p90_bound_ns=0.0), "p90_bound_ns"),
        (in_row(ratio_to_baseline=0.0), "ratio_to_baseline"),
        (in_row(ratio_high=0.01), "ratio_to_baseline"),
        (in_row(end_to_end_median_ns=-1.0), "end_to_end_median_ns"),
        (in_row(init_ns=-1.0), "init_ns"),
        (in_row(target_accuracy_ratio=3.0), "target_accuracy_ratio"),
        (in_row(target_accuracy_low_ratio=0.99), "target_accuracy_ratio"),
        (in_row(accuracy_difference_high_ratio=-0.9), "accuracy_difference_ratio"),
        (in_row(achieved_sparsity=1.2), "achieved_sparsity"),
        (in_row(size_bytes=0), "size_bytes"),
        (in_row(gzip_bytes=-5), "gzip_bytes"),
        (in_row(rss_anon_bytes=-5), "rss_anon_bytes"),
        (in_row(threads=0), "threads"),
        (in_row(void=7), "void"),
        (in_row(validity="good"), "validity"),
        (in_row(round_medians_ns=[1e6, 0.0, None]), "round_medians_ns"),
        (in_row(target_correct=9999), "target_correct"),
        (in_row(target_accuracy_ratio=0.93, target_accuracy_low_ratio=0.1), "target_accuracy_ratio"),
        (in_row(target_correct=None), "target_correct"),
        (lose_30, "target_correct"),
        (lambda data: data.update(answers=[]), "target_correct"),
        (lambda data: data["rows"].append(data["rows"][1]), "variant"),
    ],
)
def test_a_figure_that_cannot_be_true_is_refused_with_its_row(edit, field, path):
    edited(path, edit)
    with pytest.raises(ReportError, match=rf"rows\[\d+\]\.{field} \([\w-]+\): .* is required\. Received: "):
        read(path)


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (in_answers(correct=3), "wrong"),
        (in_answers(correct=-1), "correct"),
        (lambda data: data["answers"][1]["wrong"].reverse(), "wrong"),
    ],
)
def test_answers_that_contradict_themselves_are_refused(edit, field, path):
    edited(path, edit)
    with pytest.raises(ReportError, match=rf"answers\[1\]\.{field} \("):
        read(path)


def test_a_baseline_without_a_row_is_refused(path):
    edited(path, lambda data: data["job"].update(baseline="none"))
    with pytest.raises(ReportError, match=r"job\.baseline: the variant of a row is required\. Received: none"):
        read(path)


@st.composite
def reports(draw):
    """What a report can hold: cases that failed, void and repeated blocks, images that are wrong."""
    names = ("none-none", "none-int8", "magnitude50-none", "magnitude50-int8")[: draw(st.integers(1, 4))]
    job = make_job(*names, forced=draw(st.booleans()), target=draw(st.sampled_from(["pi", "emulated"])))
    blocks = make_blocks(job, [draw(st.integers(100_000, 10**10)) for _ in names])
    blocks = tuple(
        replace(block, validity=word, reasons=() if word == "valid" else ("hot",))
        for block in blocks
        for word in [draw(st.sampled_from(["valid", "void", "unknown"]))]
    )
    scores = tuple(make_scores(name, draw(st.integers(0, IMAGE_COUNT))) for name in names)
    failed = (FailedBlock(len(names) - 1, 0, "crash"),) if draw(st.booleans()) else ()
    made = make_report(
        make_manifest(), job=job, target=job.target, blocks=blocks, accuracy=scores, failed=failed, summaries=()
    )
    return replace(made, summaries=summarize(made))


@given(reports())
@settings(deadline=None, max_examples=40)
def test_every_document_that_is_written_can_be_read(report):
    comparison = build_comparison(make_manifest(), report)
    found = comparison_from_json(json.loads(render_json(comparison)), "document")
    assert found == comparison
