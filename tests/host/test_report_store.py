from __future__ import annotations

import json
from dataclasses import replace

import pytest
from report_samples import make_entry, make_flip, make_job, make_manifest, make_report

from liteship.errors import DataError, ReportError, TargetError, UsageError
from liteship.manifests import keep_manifest
from liteship.report import checks
from liteship.report.document import render_json
from liteship.report.rows import build_comparison
from liteship.report.store import find_report, find_reports, load_comparison, parse_thin, read_report
from liteship_agent.errors import RecordError
from liteship_agent.records import to_json, write_record

MANIFEST = make_manifest()
CASES = ("none-none", "none-int8", "magnitude50-none", "magnitude50-int8")


@pytest.fixture(autouse=True)
def summaries_are_made_up(monkeypatch):
    monkeypatch.setattr(checks, "check_figures", lambda report: None)


def report_of(job_id, target="pi"):
    return make_report(MANIFEST, job=make_job(*CASES, job_id=job_id, target=target), target=target)


@pytest.fixture
def models(tmp_path):
    """Two studies; the later one, `pets`, is measured on two boards."""
    models = tmp_path / "models"
    for study, target, job_id in (
        ("old", "pi", "20261101-080000-aaaaaaaaaaaa"),
        ("pets", "pi", "20261122-101500-0123456789ab"),
        ("pets", "pi", "20261123-101500-0123456789ab"),
        ("pets", "zero", "20261124-101500-0123456789ab"),
    ):
        write_record(MANIFEST, models / study / "manifest.json")
        write_record(report_of(job_id, target), models / study / "reports" / target / f"{job_id}.json")
    (models / "latest").symlink_to("pets")
    return models


def test_reports_are_listed_once_and_the_latest_first(models):
    found = find_reports(models)
    assert [(file.study.name, file.target, file.job_id[:8]) for file in found] == [
        ("pets", "zero", "20261124"),
        ("pets", "pi", "20261123"),
        ("pets", "pi", "20261122"),
        ("old", "pi", "20261101"),
    ]


@pytest.mark.parametrize(
    ("reference", "study", "target", "expected"),
    [
        ("latest", None, None, "20261124"),
        ("latest", None, "pi", "20261123"),
        ("pi:latest", None, None, "20261123"),
        ("pi:latest", None, "pi", "20261123"),
        ("latest", "old", None, "20261101"),
        ("20261122", None, None, "20261122"),
        ("20261101-080000-aaaaaaaaaaaa", None, None, "20261101"),
    ],
)
def test_a_reference_finds_its_report(models, reference, study, target, expected):
    assert find_report(models, reference, study, target).job_id.startswith(expected)


def test_a_reference_and_a_target_that_contradict_are_refused(models):
    with pytest.raises(UsageError, match=r"One target is required. Received: pi:latest and --target zero\."):
        find_report(models, "pi:latest", None, "zero")


@pytest.mark.parametrize("reference", ["", "pi:", ":latest", ":"])
def test_an_empty_reference_is_refused(reference, models):
    with pytest.raises(UsageError, match="first digits, latest or TARGET:latest is required"):
        find_report(models, reference)


def test_several_targets_are_told_how_to_be_compared(models):
    with pytest.raises(
        UsageError, match=r"one target is required. Received: pi,zero\. .*compare pi:latest zero:latest"
    ):
        find_report(models, "latest", None, "pi,zero")


def test_several_reports_of_one_prefix_are_named(models):
    with pytest.raises(
        ReportError, match=r"Received: 202611, which 4 have; there are: zero:20261124-101500-0123456789ab, pi:"
    ):
        find_report(models, "202611")


def test_a_report_that_is_not_there_is_told_with_those_that_are(models):
    with pytest.raises(ReportError, match=r"on zero, .* Received: 1999; there are: zero:20261124"):
        find_report(models, "1999", None, "zero")


def test_no_measurement_yet_says_how_to_measure(models, monkeypatch):
    (models.parent / "targets.toml").write_text('[targets.nano]\nhost = "nano"\n')
    monkeypatch.chdir(models.parent)
    with pytest.raises(ReportError, match="liteship bench --target nano"):
        find_report(models, "latest", None, "nano")


def test_an_unknown_study_is_refused(models):
    with pytest.raises(DataError, match="none-such"):
        find_report(models, "latest", "none-such")


def test_a_report_is_read_after_its_study_was_made_anew(models):
    (file,) = find_reports(models, "pets", "zero")
    keep_manifest(file.study, MANIFEST)
    write_record(replace(MANIFEST, entries=(make_entry("filter50-none"),)), file.study / "manifest.json")

    manifest, report = read_report(file)

    assert manifest == MANIFEST
    assert report.target == "zero"


def test_a_report_whose_manifest_is_gone_is_refused(models):
    (file,) = find_reports(models, "pets", "zero")
    write_record(replace(MANIFEST, entries=(make_entry("filter50-none"),)), file.study / "manifest.json")
    with pytest.raises(ReportError, match=f"the manifest {MANIFEST.sha256()[:12]}, which the report was made from"):
        read_report(file)


def test_a_changed_kept_manifest_is_refused(models):
    (file,) = find_reports(models, "pets", "zero")
    keep_manifest(file.study, MANIFEST)
    kept = file.study / "manifests" / f"{MANIFEST.sha256()}.json"
    write_record(replace(MANIFEST, study="other"), kept)
    with pytest.raises(ReportError, match="a file was changed"):
        read_report(file)


def test_a_half_written_report_is_refused(models):
    (file,) = find_reports(models, "pets", "zero")
    file.path.write_bytes(file.path.read_bytes()[:-100])
    with pytest.raises(ReportError, match="a JSON object is required"):
        read_report(file)


def test_a_file_is_read_as_raw_report_or_as_document(models, tmp_path):
    (file,) = find_reports(models, "pets", "zero")
    from_report = load_comparison(models, str(file.path))
    (tmp_path / "kept.json").write_text(render_json(from_report))

    assert load_comparison(models, str(tmp_path / "kept.json")) == from_report
    assert from_report == build_comparison(*read_report(file))


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema_version": 2}', b"\xff\xfe", b'{"rows": []}'])
def test_a_file_of_something_else_is_refused(models, tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ReportError, match=r"x\.json"):
        load_comparison(models, str(tmp_path / "x.json"))


def test_a_reference_to_a_missing_file_is_refused(models, tmp_path):
    with pytest.raises(ReportError, match=r"is required\. Received: no such file\.$"):
        load_comparison(models, str(tmp_path / "none.json"))


def test_images_that_are_equal_are_told_by_their_hash(models):
    manifest = make_manifest()
    first = build_comparison(manifest, make_report(manifest)).header.images_sha256
    other = replace(manifest, study="another")
    assert build_comparison(other, make_report(other)).header.images_sha256 == first
    relabelled = replace(manifest.validation.images[0], label=1)
    images = (relabelled, *manifest.validation.images[1:])
    third = replace(manifest, validation=replace(manifest.validation, images=images))
    assert build_comparison(third, make_report(third)).header.images_sha256 != first


def test_rounds_keep_their_medians_and_lose_void_ones(models):
    report = make_report(MANIFEST)
    void = tuple(
        replace(block, validity="void") if (block.case_index, block.round_index) == (1, 2) else block
        for block in report.blocks
    )
    row = build_comparison(MANIFEST, replace(report, blocks=void)).rows[1]
    assert row.round_medians_ns == (1_800_000, 1_810_000, None, 1_830_000, 1_840_000, 1_850_000)
    assert json.loads(json.dumps(row.round_medians_ns))[2] is None


@pytest.mark.parametrize("name", ["*", "..", "p?", "[p]i", ""])
def test_name_of_a_target_is_no_pattern(name, models):
    assert find_reports(models, target=name) == []


def test_a_target_that_nobody_knows_is_refused_with_the_known_ones(models, monkeypatch):
    monkeypatch.chdir(models.parent)
    with pytest.raises(TargetError, match=r"is required \(loopback, emulated, pi, zero\). Received: mars"):
        find_report(models, "mars:latest")


def test_a_thin_report_has_all_but_raw_lists(models):
    report = replace(report_of("20261125-101500-0123456789ab"), flips=(make_flip("none-none", 1),))
    path = models / "pets/reports/pi/20261125-101500-0123456789ab.json"
    write_record(report, path)
    whole = json.loads(path.read_bytes())
    for block in whole["blocks"]:
        block.update(latencies_ns=[], end_to_end_ns=[])
    for scores in whole["accuracy"]:
        scores.update(scores=[], pixel_hashes=[])
    assert parse_thin(path, whole) == whole
    assert parse_thin(path, ["job"]) == {"job": to_json(report.job)}


@pytest.mark.parametrize("text", ['"scores": [1, 2]', '[[", "latencies_ns": [', "]]", '\\"scores\\": [[3]]'])
def test_text_that_looks_like_a_raw_list_stays(text, models):
    path = models / "pets/reports/pi/20261125-101500-0123456789ab.json"
    write_record(replace(report_of("20261125"), environment={"board_model": text}, problems=(text,)), path)
    assert parse_thin(path, ["environment", "problems"]) == {"environment": {"board_model": text}, "problems": [text]}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"job": NaN}', '{"job": "\\ud800"}', '{"job": 1e999}'])
def test_a_thin_report_that_is_no_json_is_refused(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RecordError):
        parse_thin(tmp_path / "x.json", ["job"])
