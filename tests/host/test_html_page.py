from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from page_samples import BROKEN, HOSTILE, LONG, jpeg, make_source, make_study, make_timed_report
from report_samples import make_case, make_flip, make_job

from liteship.errors import LiteshipError
from liteship.report.accuracy import build_answers
from liteship.report.html import scripts
from liteship.report.html.lineage import commands
from liteship.report.html.page import Source, render_page
from liteship.report.html.photographs import MOST_IMAGES, photographs
from liteship.report.html.scripts import ScriptBundle
from liteship.report.html.table import comparison_table
from liteship.report.rows import build_comparison
from liteship.report.summary import summarize
from liteship_agent.images import selected_images
from liteship_agent.report import VOID, FailedBlock

VEGA = "window.vegaEmbed = function () {};"


class Page(HTMLParser):
    """Elements in their order, texts of the scripts by their kind, and all that could be fetched."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.scripts, self.addresses, self.texts = [], [], [], [], []
        self.policy, self._open = "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.ids += [values["id"]] if "id" in values else []
        self.addresses += [values[name] for name in ("src", "href", "srcset", "action", "data") if values.get(name)]
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = values["content"]
        if tag == "script":
            self.scripts.append([values.get("type", "script"), ""])
        self._open = tag

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1][1] += data
        else:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path / "pets")


def page_of(source):
    return Page(render_page(source, lambda: VEGA))


def test_a_page_names_nothing_that_could_be_fetched(source):
    page = page_of(source)

    assert all(address.startswith(("#", "data:")) for address in page.addresses)
    assert not re.search(r"url\(|@import", render_page(source, lambda: VEGA).partition("</style>")[0])


def test_the_policy_lets_only_the_scripts_of_the_page_run_and_forbids_connections(source):
    page = page_of(source)

    assert "default-src 'none'" in page.policy
    running = [text for kind, text in page.scripts if kind == "script"]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]
    assert len(hashes) == 2
    assert all(f"'sha256-{digest}'" in page.policy for digest in hashes)
    scripts_allowed = re.search(r"script-src ([^;]*)", page.policy)
    assert scripts_allowed is not None
    assert "unsafe" not in scripts_allowed[1]


def test_the_verdict_stands_before_the_table_and_the_charts(source):
    ids = page_of(source).ids

    order = ["verdict", "table", "trade-off", "sizes", "latencies", "timeline", "training", "layers", "filters"]
    order += ["confusion", "flips", "lineage", "commands"]
    assert [name for name in ids if name in order] == order


def test_without_a_verdict_the_page_says_how_to_get_one(source):
    assert "liteship choose" in page_of(replace(source, verdict=())).text


def test_hostile_names_are_text(tmp_path):
    source = make_source(tmp_path / "pets", HOSTILE)

    page = page_of(source)

    assert BROKEN in page.text
    assert LONG in page.text
    assert page.tags.count("script") == 4
    assert all("window.broken" not in text for kind, text in page.scripts if kind == "script")


def test_a_study_may_have_the_name_of_a_mark_in_the_template(tmp_path):
    manifest = make_study(tmp_path, study="@later@")
    report = make_timed_report(manifest)

    text = render_page(Source(manifest, report, build_comparison(manifest, report), tmp_path), lambda: VEGA)

    assert text.count(VEGA) == 1
    assert "<title>@later@ on pi" in text
    assert "default-src" in Page(text).policy


def test_json_in_a_script_element_cannot_end_it(tmp_path):
    source = make_source(tmp_path / "pets", HOSTILE)

    (specs,) = [text for kind, text in page_of(source).scripts if kind == "application/json" and "trade-off" in text]

    assert not re.search("[<>\u2028\u2029]", specs)
    cells = json.loads(specs)["confusion-1"]["datasets"]["cells"]
    assert cells[0]["truth"].startswith("<script>")


def test_every_cell_of_the_table_has_what_it_is_sorted_by(source):
    table = comparison_table(source.comparison)

    first = table.lines[0]
    assert first.cells[2].order == 8_808_040
    assert first.cells[2].text == "8.40"
    missing = next(line for line in table.lines if line.variant == "magnitude75-int8")
    assert all(cell.order is None for cell in missing.cells)
    assert missing.status == "failed"


def test_settings_that_vary_are_columns(tmp_path):
    manifest = make_study(tmp_path)
    cases = (make_case("none-none"), make_case("none-none", threads=4), make_case("none-int8", cpus=(2, 3)))
    report = make_timed_report(manifest)
    rows = build_comparison(manifest, report).rows
    rows = tuple(replace(row, threads=case.threads, cpus=case.cpus) for row, case in zip(rows, cases, strict=False))

    table = comparison_table(replace(build_comparison(manifest, report), rows=rows))

    assert [column.title for column in table.columns[:4]] == ["accuracy", "median", "threads", "CPUs"]
    assert [line.cells[2].order for line in table.lines] == [1, 4, 1]


def test_every_column_has_its_figure(source):
    table = comparison_table(source.comparison)

    row, line = source.comparison.rows[1], table.lines[1]
    orders = {column.title: cell.order for column, cell in zip(table.columns, line.cells, strict=True)}
    assert orders == {
        "accuracy": row.target_accuracy_ratio,
        "median": row.median_ns,
        "size": row.size_bytes,
        "× float": row.ratio_to_baseline,
        "p90": row.p90_ns,
        "p90 bound": row.p90_bound_ns,
        "gzip": row.gzip_bytes,
        "sparsity": row.achieved_sparsity,
        "on host": row.host_accuracy_ratio,
        "mult-adds": row.multiply_adds,
    }


def test_a_row_that_fails_twice_is_found_under_both_words(source):
    rows = source.comparison.rows
    worse = replace(rows[0], status="parity failed: it drops", validity="unstable")
    rows = (worse, replace(rows[1], status="unstable", validity="unstable"), *rows[2:])
    comparison = replace(source.comparison, rows=rows)

    table = comparison_table(comparison)

    assert [line.statuses for line in table.lines[:2]] == [("parity failed", "unstable"), ("unstable",)]
    assert table.statuses.count("unstable") == 1
    page = render_page(replace(source, comparison=comparison), lambda: VEGA)
    assert '<tr data-statuses="parity failed|unstable">' in page


def test_the_row_that_the_verdict_names_is_marked_in_table_and_chart(source):
    page = render_page(source, lambda: VEGA)

    assert page.count(">ship this</span>") == 1
    assert '<bdi>none-int8</bdi> <span class="chip ship">ship this</span>' in page
    assert page.count('"label":"none-int8: ship this"') == 1
    without = render_page(
        replace(source, verdict=("Nothing can win: every row is unstable.",), winner=None), lambda: VEGA
    )
    assert "ship this" not in without


def test_an_emulated_machine_has_no_front_and_grey_latencies(tmp_path):
    page = render_page(make_source(tmp_path / "pets", target="emulated"), lambda: VEGA)

    assert 'class="emulated"' in page
    assert "Pareto front</span>" not in page
    assert "its milliseconds say nothing about a board" in page


def test_missing_files_of_the_study_are_said(source, tmp_path):
    page = page_of(replace(source, study=tmp_path / "moved"))

    assert "There is no file of a training here" in page.text
    assert "validation.tar cannot be read" in page.text


def test_a_job_without_a_single_block_has_a_page_that_says_so(source):
    failed = tuple(FailedBlock(index, 0, "boom") for index in range(4))
    parts = {"blocks": (), "canaries": (), "accuracy": (), "failed": failed, "flips": (), "summaries": ()}
    report = replace(source.report, **parts)
    comparison = build_comparison(source.manifest, report)

    text = page_of(replace(source, report=report, comparison=comparison)).text

    for expected in ("Nothing was timed.", "No block was measured.", "No images were classified.", "boom"):
        assert expected in text


def test_a_job_without_a_valid_block_has_points_but_no_front(source):
    void = tuple(replace(block, validity=VOID, reasons=("hot",)) for block in source.report.blocks)
    report = replace(source.report, blocks=void, summaries=())
    report = replace(report, summaries=summarize(report))
    comparison = build_comparison(source.manifest, report)

    page = render_page(replace(source, report=report, comparison=comparison), lambda: VEGA)

    assert "No row can be shipped by its latency, so there is no front." in page
    assert "Pareto front</span>" not in page
    assert page.count('<span class="chip caution">unstable</span>') == 4


def test_flipped_images_are_small_pictures_with_what_was_taken_for_what(source):
    shown = photographs(source.manifest, source.comparison.answers, source.study / "validation.tar").shown

    assert [picture.path for picture in shown] == ["cat/1.jpg", "dog/0.jpg", "dog/2.jpg"]
    assert shown[0].source.startswith("data:image/jpeg;base64,")
    assert len(shown[0].flips) == 2
    flip = shown[1].flips[0]
    assert (flip.name, flip.expected, flip.received) == ("none-int8", "dog", "cat")
    assert flip.cause == "pixels, 1 of 255 at most"


def test_of_many_flipped_images_the_rest_is_counted(tmp_path):
    manifest = make_study(tmp_path)
    flips = tuple(make_flip("none-int8", at, path=manifest.validation.images[at].path) for at in range(70))
    report = make_timed_report(manifest, flips=flips)
    answers = build_answers(manifest, report, selected_images(manifest, None))

    found = photographs(manifest, answers, tmp_path / "validation.tar")

    assert len(found.shown) == MOST_IMAGES
    assert found.sentences[1] == "The 60 that differ most often are shown; 10 are not."


def test_an_archive_that_was_made_anew_is_not_shown(source):
    archive = source.study / "validation.tar"
    archive.write_bytes(archive.read_bytes() + b"more")

    found = photographs(source.manifest, source.comparison.answers, archive)

    assert not any(picture.source for picture in found.shown)
    assert found.sentences[-1] == "The images are not shown: validation.tar is no longer the one that was measured."


def test_a_damaged_image_is_counted_and_the_others_shown(source):
    archive = source.study / "validation.tar"
    archive.write_bytes(bytes(512) + b"x" * len(jpeg()))

    found = photographs(source.manifest, source.comparison.answers, archive)

    assert found.sentences[-1] == "3 images could not be read."


def test_the_command_asks_for_the_same_job(source):
    cases = (make_case("none-none", threads=1), make_case("none-none", threads=4))
    job = make_job(*cases, limit=100, forced=True, target="my pi")
    report = replace(source.report, job=job, target="my pi")

    bench, repeat, _ = commands(report, source.study)
    (source.study / "recipe.toml").write_text("")
    run, *_ = commands(report, source.study)

    assert bench.line == (
        "liteship bench --target 'my pi' --study pets --tier rapid --runtime ai-edge-litert==2.3.0 "
        "--threads 1,4 --cpus 0-3 --limit 100 --force"
    )
    assert run.line.startswith("liteship run models/pets/recipe.toml --target 'my pi' --tier rapid ")
    assert "--limit" not in run.line, "which would train on fewer images too"
    assert repeat.line.endswith("--job 20261122T101500Z-0123456789ab")


def test_lineage_names_recipe_data_and_environment(source):
    text = page_of(source).text

    for expected in (source.manifest.entries[0].lineage.recipe_sha256, "0123abc", "tensorflow 2.21.0", "aarch64"):
        assert expected in text


def test_the_bundle_of_scripts_is_made_once(tmp_path, monkeypatch):
    monkeypatch.setattr(scripts, "_PROGRAM", "print('vega')")

    assert ScriptBundle(tmp_path / "cache").text() == "vega\n"
    monkeypatch.setattr(scripts, "_PROGRAM", "raise SystemExit(3)")
    assert ScriptBundle(tmp_path / "cache").text() == "vega\n"


def test_a_bundle_that_cannot_be_made_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(scripts, "_PROGRAM", "raise SystemExit(3)")

    with pytest.raises(LiteshipError, match="Received: exit code 3"):
        ScriptBundle(tmp_path / "cache").text()

    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_to_costs_time_only(tmp_path, monkeypatch):
    monkeypatch.setattr(scripts, "_PROGRAM", "print('vega')")
    (tmp_path / "cache").write_text("a file")

    assert ScriptBundle(tmp_path / "cache" / "below").text() == "vega\n"
