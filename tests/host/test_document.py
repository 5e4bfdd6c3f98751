from __future__ import annotations

import json
from dataclasses import replace

import pytest
from report_samples import make_manifest, make_pruned_manifest, make_pruned_report, make_report

from liteship.errors import ReportError
from liteship.report import checks
from liteship.report.document import read_document, render_json
from liteship.report.rows import build_comparison


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


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_what_was_written_is_read_again(path, comparison):
    assert read_document(path) == comparison


def test_sparse_rows_and_twins_are_read_again(tmp_path):
    manifest = make_pruned_manifest()
    comparison = build_comparison(manifest, make_pruned_report(manifest))
    (tmp_path / "pruned.json").write_text(render_json(comparison))
    assert read_document(tmp_path / "pruned.json") == comparison


def test_names_of_any_script_are_read_again(tmp_path, comparison):
    strange = replace(comparison.rows[0], variant="<script>\u202e😀\u2028")
    comparison = replace(comparison, rows=(strange,))
    (tmp_path / "a.json").write_text(render_json(comparison))
    assert read_document(tmp_path / "a.json").rows == (strange,)


def test_a_document_cut_short_is_refused(path):
    path.write_text(path.read_text()[:-40])
    with pytest.raises(ReportError, match="a JSON object is required"):
        read_document(path)


def test_nan_is_refused(path):
    path.write_text(path.read_text().replace('"median_ns": 15', '"median_ns": NaN, "x": 15', 1))
    with pytest.raises(ReportError, match="NaN is not JSON"):
        read_document(path)


@pytest.mark.parametrize("version", [3, 5, None, "4"])
def test_another_schema_is_refused(path, version):
    change(path, schema_version=version)
    with pytest.raises(ReportError, match="schema_version 4"):
        read_document(path)


@pytest.mark.parametrize(("name", "value"), [("rows", {}), ("answers", None), ("job", []), ("target", 7)])
def test_a_field_of_another_kind_is_named(path, name, value):
    change(path, **{name: value})
    with pytest.raises(ReportError, match=name):
        read_document(path)


def test_a_row_without_status_is_named(path):
    rows = json.loads(path.read_text())["rows"]
    del rows[1]["status"]
    change(path, rows=rows)
    with pytest.raises(ReportError, match=r"rows\[1\]\.status"):
        read_document(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ReportError, match="No such file"):
        read_document(tmp_path / "none.json")
