from __future__ import annotations

import dataclasses
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_samples import make_blocks, make_entry, make_job, make_manifest, make_report, make_scores
from rich.cells import cell_len
from rich.console import Console

from liteship.errors import ReportError, UsageError
from liteship.report import checks
from liteship.report.against import Against, Figure, build_against
from liteship.report.against_text import against_json, against_markdown, render_against
from liteship.report.document import render_json
from liteship.report.reference import Reference, load_reference
from liteship.report.rows import build_comparison
from liteship.report.store import find_reports, read_report
from liteship_agent.manifest import Manifest
from liteship_agent.records import write_record

PUBLISHED = Path(__file__).parents[2] / "benchmarks/reference.toml"
RECIPES = PUBLISHED.parent
JOB = "20261122-101500-0123456789ab"
TEXT = """
schema_version = 1
name = "figures"
[conditions]
validation_images = 290
[[experiment]]
id = "E1"
what = "quantization"
study = "pets"
input = [96, 96]
[[experiment.row]]
name = "float"
variant = "none-none"
file_mib = 9.0
accuracy_ratio = 0.9
latency_ms = 10.0
parameters = 2259201
[[experiment.row]]
name = "dynamic"
variant = "none-int8"
beside = "float"
latency_ms = 25.0
[[experiment]]
id = "E2"
what = "described only"
study = "birds"
notes = ["no figures"]
[[experiment.row]]
name = "a"
variant = "b"
[[experiment]]
id = "E3"
what = "bytes"
is_about_identity = true
"""


@pytest.fixture(autouse=True)
def summaries_are_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_figures", lambda report: None)


@pytest.fixture(scope="module")
def published() -> Reference:
    return load_reference(PUBLISHED)


def make_study(folder: Path, variants: dict[str, int], study: str = "pets", **changes: Any) -> Manifest:
    """A study with files and a report on pi; variants with their median in ns."""
    entries = []
    for variant in variants:
        path = folder / "artefacts" / f"{variant}.tflite"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(variant.encode())
        entries.append(make_entry(variant))  # of which the sha256 is that of the name
    manifest = make_manifest(study=study, entries=tuple(entries), failures=())
    job = make_job(*variants)
    scores = tuple(make_scores(variant, 29) for variant in variants)
    blocks = make_blocks(job, list(variants.values()), step_ns=0)
    report = make_report(manifest, **{"job": job, "blocks": blocks, "accuracy": scores, "refused": (), **changes})
    write_record(manifest, folder / "manifest.json")
    write_record(report, folder / f"reports/{report.target}/{JOB}.json")
    return manifest


def against(reference: Reference, folder: Path) -> Against:
    (file,) = find_reports(folder.parent)
    manifest, report = read_report(file)
    return build_against(reference, build_comparison(manifest, report), manifest, folder)


@pytest.fixture
def small(tmp_path: Path) -> Reference:
    (tmp_path / "figures.toml").write_text(TEXT)
    return load_reference(tmp_path / "figures.toml")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    make_study(tmp_path / "models/pets", {"none-none": 2_000_000, "none-int8": 1_000_000})
    return tmp_path / "models/pets"


def figures(found: Against, name: str) -> dict[str, Figure]:
    (row,) = [row for experiment in found.experiments for row in experiment.rows if row.name == name]
    return {figure.name: figure for figure in row.figures}


# --- the published file ---


def test_every_published_row_is_there(published: Reference) -> None:
    assert [experiment.id for experiment in published.experiment] == [f"R{number}" for number in range(1, 8)]
    assert [experiment.id for experiment in published.experiment if experiment.has_figures] == ["R1", "R3", "R5"]
    assert all(experiment.row or experiment.is_about_identity for experiment in published.experiment)
    assert all(experiment.notes for experiment in published.experiment if not experiment.has_figures)


def test_published_figures_are_those_of_the_source(published: Reference) -> None:
    rows = {(experiment.id, row.variant): row for experiment in published.experiment for row in experiment.row}
    assert rows["R1", "magnitude75-none"].gzip_mib == 3.29
    assert rows["R1", "magnitude75-none"].accuracy_ratio == 0.638
    assert (rows["R3", "none-none"].latency_ms, rows["R3", "none-dynamic"].latency_ms) == (89.9, 215.0)
    assert (rows["R5", "magnitude90-none"].keras_gzip_mib, rows["R5", "magnitude90-dynamic"].latency_ms) == (
        10.76,
        1048.5,
    )
    assert rows["R5", "none-none"].accuracy_ratio == 0.9302


def test_every_study_is_one_of_a_recipe(published: Reference) -> None:
    from liteship.recipe import load_recipe

    for experiment in published.experiment:
        for row in experiment.row:
            name = str(experiment.study_of(row))
            recipe = load_recipe(RECIPES / f"{name.partition('-')[0]}.toml")
            assert row.variant in {variant.name for variant in recipe.variants()}, (experiment.id, row.name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema_version = 1", "schema_version = 2", "schema_version: a right value is required"),
        ("file_mib = 9.0", "file_mb = 9.0", r"experiment\[0\].row\[0\].file_mb: a known key is required"),
        ("file_mib = 9.0", "file_mib = nan", "file_mib: a right value"),
        ("file_mib = 9.0", "file_mib = 0", "greater than 0"),
        ("accuracy_ratio = 0.9", "accuracy_ratio = 90.0", "less than or equal to 1"),
        ('beside = "float"', 'beside = "none"', "has to name a row"),
        ('name = "dynamic"', 'name = "float"', "a name of its own"),
        ('study = "birds"', "", "needs a study"),
        ('what = "bytes"', "", r"what: a right value is required .* Received: nothing"),
        ("schema_version = 1", "schema_version = ", "valid TOML"),
    ],
)
def test_wrong_file_is_refused(old: str, new: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(TEXT.replace(old, new, 1))
    with pytest.raises(UsageError, match=words):
        load_reference(tmp_path / "x.toml")


# --- theirs and ours ---


def test_sizes_are_compared_as_ratios_and_accuracy_in_points(small: Reference, pets: Path) -> None:
    found = figures(against(small, pets), "float")
    assert found["file_mib"].ratio == pytest.approx(8_808_040 / 2**20 / 9.0)
    assert found["parameters"].difference == 64
    assert found["accuracy_ratio"].difference == pytest.approx(0.0)
    assert found["accuracy_ratio"].ours_low == pytest.approx(0.86, abs=0.01)


def test_milliseconds_of_two_machines_are_never_compared(small: Reference, pets: Path) -> None:
    found = figures(against(small, pets), "dynamic")
    assert found["latency_ms"] == Figure("latency_ms", 25.0, 1.0, *(pytest.approx(x) for x in (0.99, 1.01)))
    assert (found["latency_ms"].difference, found["latency_ms"].ratio) == (None, None)


def test_ratio_of_quantized_to_float_is_compared(small: Reference, pets: Path) -> None:
    figure = figures(against(small, pets), "dynamic")["latency_ratio"]
    assert (figure.theirs, figure.ours) == (2.5, pytest.approx(0.5))
    assert figure.ratio == pytest.approx(0.2)
    assert figure.ours_low is not None


def test_emulated_machine_has_no_latency_to_compare(small: Reference, tmp_path: Path) -> None:
    folder = tmp_path / "models/pets"
    job = make_job("none-none", "none-int8", target="emulated")
    blocks = make_blocks(job, [2_000_000, 1_000_000])
    make_study(folder, {"none-none": 1, "none-int8": 1}, target="emulated", job=job, blocks=blocks)
    found = figures(against(small, folder), "dynamic")
    assert (found["latency_ratio"].ours, found["latency_ms"].ours) == (None, None)


def test_row_without_published_figures_has_ours(published: Reference, tmp_path: Path) -> None:
    make_study(tmp_path / "models/qat_vs_ptq", {"none-none": 2_000_000, "none-qat": 1_000_000}, "qat_vs_ptq")
    found = against(published, tmp_path / "models/qat_vs_ptq")
    shown = figures(found, "int8 in training")
    assert set(shown) == {"file_mib", "gzip_mib", "accuracy_ratio", "latency_ratio"}
    assert all(figure.theirs is None for figure in shown.values())
    assert shown["latency_ratio"].ours == pytest.approx(0.5)
    statuses = {row.name: row.status for row in found.experiments[0].rows}
    assert statuses["int8 after training"] == "not in this study"
    assert all(figure.ours is None for figure in figures(found, "int8 after training").values())


def test_experiment_of_several_studies_says_whose_the_other_rows_are(published: Reference, tmp_path: Path) -> None:
    make_study(
        tmp_path / "models/optimizers-sgd", {"none-none": 2_000_000, "magnitude90-none": 2_000_000}, "optimizers-sgd"
    )
    (experiment,) = against(published, tmp_path / "models/optimizers-sgd").experiments
    assert {row.name: row.status for row in experiment.rows[:2]} == {"SGD": "valid", "Adam": "of study optimizers-adam"}


def test_what_differs_is_read_from_recipe_and_manifest(published: Reference, tmp_path: Path) -> None:
    folder = tmp_path / "models/mobilenet_v2_pruning"
    make_study(folder, {"none-none": 2_000_000, "magnitude50-none": 2_000_000}, folder.name)
    (folder / "recipe.toml").write_bytes((RECIPES / "mobilenet_v2_pruning.toml").read_bytes())
    (experiment,) = against(published, folder).experiments
    differs = {condition.what: (condition.theirs, condition.ours) for condition in experiment.differs}
    assert differs["images for training"] == ("2,000", None)
    assert differs["images for validation"] == ("1,000", "290")
    assert differs["epochs"] == ("10", "4 of the head, 8, 16 of magnitude pruning")
    assert differs["batch size"] == ("8", "32, 16")
    assert differs["weights"] == ("imagenet, trained at 96 pixels", "imagenet")
    assert differs["framework"] == ("TensorFlow 2.2", "TensorFlow 2.21.0")
    assert differs["machine"] == (None, "Raspberry Pi 5 Model B Rev 1.0")
    assert "input" not in differs
    assert "architecture" not in differs
    assert any("the recipe was changed" in note for note in experiment.notes)


def test_study_without_recipe_says_that_its_training_is_not_known(small: Reference, pets: Path) -> None:
    (experiment,) = against(small, pets).experiments
    assert any("no recipe" in note for note in experiment.notes)


def test_study_beside_no_experiment_is_told_which_are(published: Reference, pets: Path) -> None:
    with pytest.raises(UsageError, match=r"R1: mobilenet_v2_pruning; R2: filters; .* Received: pets"):
        against(published, pets)


def test_all_other_experiments_are_named(small: Reference, pets: Path) -> None:
    others = against(small, pets).others
    assert [(other.id, other.studies, other.notes) for other in others] == [
        ("E2", ("birds",), ("no figures",)),
        ("E3", (), ()),
    ]


# --- the bytes ---


def test_figures_of_a_row_are_of_bytes_that_are_read_again(small: Reference, pets: Path) -> None:
    assert "2 of 2 files have it" in str(against(small, pets).others[1].verdict)
    (pets / "artefacts/none-int8.tflite").unlink()
    assert "1 of 2 files have it (not there any more: none-int8)" in str(against(small, pets).others[1].verdict)


def test_file_with_other_bytes_is_refused(small: Reference, pets: Path) -> None:
    (pets / "artefacts/none-int8.tflite").write_bytes(b"others")
    with pytest.raises(ReportError, match=r"none-int8.tflite: the bytes with sha256 .* are required"):
        against(small, pets)


def test_file_of_a_study_that_was_made_anew_is_not_there_any_more(small: Reference, pets: Path) -> None:
    (file,) = find_reports(pets.parent)
    manifest, report = read_report(file)
    (pets / "artefacts/none-int8.tflite").write_bytes(b"others")
    write_record(replace(manifest, labels=("a", "b")), pets / "manifest.json")
    found = build_against(small, build_comparison(manifest, report), manifest, pets)
    assert "not there any more: none-int8" in str(found.others[1].verdict)


# --- its forms ---


@pytest.mark.parametrize("width", [60, 80, 140])
def test_table_keeps_to_the_width(width: int, published: Reference, tmp_path: Path) -> None:
    names = {"none-none": 2_000_000, "magnitude90-none": 2_000_000, "magnitude90-dynamic": 1_000_000}
    make_study(tmp_path / "models/vgg16_advanced", names, "vgg16_advanced")
    console = Console(file=io.StringIO(), width=width)
    render_against(against(published, tmp_path / "models/vgg16_advanced"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(cell_len, text.splitlines())) <= max(width, 80)
    assert "10.8" in text
    assert "…" not in text


def test_hostile_names_are_shown_as_text(small: Reference, pets: Path) -> None:
    found = against(small, pets)
    row = replace(found.experiments[0].rows[0], name="<script>|\x1b[2J", status="refused: `x`")
    found = replace(found, experiments=(replace(found.experiments[0], rows=(row,)),))
    markdown = against_markdown(found)
    assert "\\<script\\>\\|" in markdown
    assert "\x1b" not in markdown
    console = Console(file=io.StringIO(), width=80)
    render_against(found, console)
    assert "\x1b[2J" not in console.file.getvalue()  # type: ignore[attr-defined]


def test_json_has_every_field(small: Reference, pets: Path) -> None:
    found = against(small, pets)
    assert json.loads(against_json(found)) == json.loads(json.dumps(dataclasses.asdict(found)))


# --- the command ---


@pytest.fixture
def run(run: Any, pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "figures.toml").write_text(TEXT)
    (tmp_path / "models/latest").symlink_to("pets")
    return run


def test_report_is_shown_against_a_file_in_every_form(run: Any) -> None:
    code, out, err = run("report", "--against", "figures.toml")
    assert (code, err) == (0, "")
    assert "E1 quantization" in out
    assert run("report", "--against", "figures.toml", "--format", "markdown")[1].count("|") > 40
    assert json.loads(run("report", "--against", "figures.toml", "--json")[1])["study"] == "pets"


def test_missing_file_other_form_and_document_are_refused(run: Any, tmp_path: Path) -> None:
    code, out, err = run("report", "--against", "reference")
    assert (code, out) == (2, "")
    where = tmp_path / "benchmarks/reference.toml"
    assert err.startswith(f"error: {where}: a readable file of published figures is required.")
    assert run("report", "--against", "figures.toml", "--format", "csv")[0] == 2
    (file,) = find_reports(tmp_path / "models")
    (tmp_path / "kept.json").write_text(render_json(build_comparison(*read_report(file))))
    code, _, err = run("report", "--against", "figures.toml", "--job", "kept.json")
    assert code == 6
    assert "A raw report, models/<study>/reports/<target>/<job>.json, is required. Received: kept.json" in err
    assert run("report", "--against", "figures.toml", "--job", str(file.path))[0] == 0


def test_raw_report_elsewhere_than_in_its_study_is_refused(run: Any, tmp_path: Path) -> None:
    (file,) = find_reports(tmp_path / "models")
    (tmp_path / "moved.json").write_bytes(file.path.read_bytes())
    for options in ((), ("--against", "figures.toml")):
        code, _, err = run("report", "--job", "moved.json", *options)
        assert code == 6
        assert "A raw report where it was kept" in err
