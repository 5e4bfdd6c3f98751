from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from page_samples import make_source, make_study, make_timed_report
from report_samples import make_entry, make_manifest, make_report

from liteship.report.accuracy import Answers
from liteship.report.charts.chart import NARROW, complete, draw_svg, is_spread, shortened
from liteship.report.charts.colors import DARK, LIGHT, SERIES, resolve
from liteship.report.charts.confusion import MOST_LABELS, confusion_section
from liteship.report.charts.gallery import build_sections
from liteship.report.charts.latencies import SHOWN_VALUES, latencies_section, thinned
from liteship.report.charts.layers import layers_section
from liteship.report.charts.sizes import sizes_section
from liteship.report.charts.standing import DOMINATED, FRONT, standings
from liteship.report.charts.timeline import timeline_section
from liteship.report.charts.trade_off import trade_off_section
from liteship.report.charts.training import training_section
from liteship.report.comparison import Row
from liteship.report.rows import build_comparison
from liteship.report.statuses import status_word
from liteship.stats import percentile
from liteship_agent.manifest import LayerSparsity


def row(variant, median_ns, accuracy, status="valid", **changes):
    fields = {"median_ns": median_ns, "target_accuracy_ratio": accuracy, "sha256": variant}
    return Row(variant, status=status, **{**fields, **changes})


def contrast(one, other):
    """WCAG 2.2: relative luminances, the lighter over the darker, each with 0.05."""

    def luminance(color):
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colors", [LIGHT, DARK])
def test_text_and_marks_stand_out_from_the_surface_in_both_themes(colors):
    assert all(contrast(colors[name], colors["surface"]) >= 4.5 for name in ("ink", "muted"))
    marks = [color[1:] for color in SERIES] + ["axis", "heat_high"]
    assert all(contrast(colors[name], colors["surface"]) >= 3 for name in marks)
    assert contrast(colors["ink"], colors["heat_low"]) >= 4.5
    assert contrast(colors["surface"], colors["heat_high"]) >= 4.5


def test_colors_are_put_in_everywhere_but_into_data():
    spec = {"mark": {"color": "@ink"}, "range": ["@blue", "plain"], "datasets": {"a": [{"name": "@ink"}]}}

    assert resolve(spec, LIGHT) == {
        "mark": {"color": LIGHT["ink"]},
        "range": [LIGHT["blue"], "plain"],
        "datasets": {"a": [{"name": "@ink"}]},
    }


def test_the_front_is_what_nothing_beats_in_both_figures():
    rows = [
        row("a", 2.0, 0.9),
        row("b", 1.0, 0.8),
        row("c", 2.5, 0.85),
        row("d", 1.0, 0.8),
        row("e", 0.5, 0.99, "unstable"),
    ]

    assert standings(rows, "pi") == (FRONT, FRONT, DOMINATED, FRONT, "unstable")


def test_no_row_is_on_a_front_on_an_emulated_machine():
    rows = [row("a", 2.0, 0.9), row("b", 1.0, 0.8, "unstable"), row("c", None, None, "refused: no kernel")]

    assert standings(rows, "emulated") == ("emulated", "emulated", "refused")


def test_forced_rows_keep_their_word():
    assert status_word(row("a", 1.0, 0.9, "forced, parity failed: drops by 4 points")) == "parity failed"


def test_rejected_rows_are_points_of_their_own_and_missing_ones_are_named(tmp_path):
    rows = (
        row("best", 1e6, 0.9),
        row("worse", 2e6, 0.8, "parity failed: it drops"),
        row("gone", None, None, "refused: FULLY_CONNECTED 12"),
    )
    comparison = replace(make_source(tmp_path).comparison, rows=rows)

    section = trade_off_section(comparison)

    (chart,) = section.charts
    assert [line[-1] for line in chart.table.lines] == [FRONT, "parity failed"]
    assert section.sentences == ("Without a point: gone, refused: FULLY_CONNECTED 12.",)


def test_every_point_has_its_name_or_a_number_with_a_key_at_both_widths(tmp_path):
    crowd = [row(f"variant-{at}", 2e6 + at, 0.9 - 0.0001 * at) for at in range(12)]
    rows = (*crowd, row("far", 1e6, 0.99))
    chart = trade_off_section(replace(make_source(tmp_path).comparison, rows=rows)).charts[0]

    for spec in (chart.spec, chart.spec["usermeta"][NARROW]):
        values = spec["datasets"]["rows"]
        assert len(values) == 13
        assert [value["label"] for value in values if value["variant"] == "far"] == ["far"]
        numbered = [value for value in values if value["label"] != value["variant"]]
        assert len(numbered) >= 8
        assert [value["key"] for value in numbered] == [
            f"{number}  {value['variant']}" for number, value in enumerate(numbered, start=1)
        ]


def test_the_row_that_is_shipped_is_ringed_and_named(tmp_path):
    rows = (row("none-none", 2e6, 0.9), row("none-int8", 1e6, 0.89))
    comparison = replace(make_source(tmp_path).comparison, rows=rows)

    section = trade_off_section(comparison, rows[1])

    values = section.charts[0].spec["datasets"]["rows"]
    assert [(value["label"], value["shipped"]) for value in values] == [
        ("none-int8: ship this", True),
        ("none-none", False),
    ]
    assert "Ringed: the row that the verdict ships." in section.sentences
    assert draw_svg(section.charts[0]).count("none-int8: ship this") == 2, "the letters and their halo"


def test_names_lose_their_middle_and_stay_apart():
    names = ["magnitude50-per-channel-dynamic", "magnitude50-per-channel-float16"]

    short = [shortened(name, 20) for name in names]

    assert short == ["magnitude…el-dynamic", "magnitude…el-float16"]
    assert shortened("none-int8", 20) == "none-int8"


def test_charts_of_rows_have_labels_above_their_marks_on_a_phone(tmp_path):
    source = make_source(tmp_path)
    sections = build_sections(source.manifest, source.report, source.comparison, source.study)

    charts = {chart.name: chart.spec for section in sections for chart in section.charts}

    for name in ("sizes", "latencies", "blocks", "filters-filter50"):
        narrow = charts[name]["usermeta"][NARROW]
        assert narrow["height"] > charts[name]["height"]
        assert narrow["config"]["axisY"]["labelAlign"] == "left"


def test_void_blocks_are_drawn_last_and_three_pixels_wide(tmp_path):
    source = make_source(tmp_path)
    (chart,) = [c for c in timeline_section(source.report, source.comparison).charts if c.name == "blocks"]

    assert chart.spec["datasets"]["blocks"][-1]["fate"] == "void"
    assert chart.spec["encoding"]["strokeWidth"]["condition"]["value"] == 3


def test_raw_values_are_thinned_by_rank_with_both_ends():
    values = list(range(5000))

    shown = thinned(values)

    assert len(shown) == SHOWN_VALUES
    assert (shown[0], shown[-1]) == (0, 4999)
    assert thinned([1, 2, 3]) == [1, 2, 3]


def test_a_box_is_made_from_all_values_though_few_are_drawn():
    manifest = make_manifest()
    report = make_report(manifest)
    comparison = build_comparison(manifest, report)

    chart = latencies_section(comparison, report).charts[0]

    values = [ns for block in report.blocks if block.case_index == 0 for ns in block.latencies_ns]
    box = chart.spec["datasets"]["boxes"][0]
    assert box["count"] == len(values) == 78
    assert box["q3"] == pytest.approx(percentile(values, 0.75) / 1e6)
    assert box["p90"] == pytest.approx(percentile(values, 0.9) / 1e6)


def test_void_blocks_and_their_repetitions_are_marked_over_time(tmp_path):
    source = make_source(tmp_path)

    section = timeline_section(source.report, source.comparison)

    charts = {chart.name: chart for chart in section.charts}
    assert list(charts) == ["temperature", "clock", "blocks", "canaries"]
    assert [band["fate"] for band in charts["temperature"].spec["datasets"]["marked"]] == ["void", "valid, repeated"]
    assert [line[5] for line in charts["blocks"].table.lines].count("void") == 1
    assert section.sentences == ("25 blocks: 1 void, 1 measured again.",)


def test_a_machine_without_sensors_says_why(tmp_path):
    manifest = make_study(tmp_path)
    report = make_timed_report(manifest)
    blind = tuple(
        replace(
            block,
            samples=tuple(
                replace(sample, temperature_celsius=None, arm_clock_hz=None, cpufreq_hz=None)
                for sample in block.samples
            ),
        )
        for block in report.blocks
    )
    sensors = {**report.sensors, "temperature_celsius": {"source": None, "reason": "This machine has none"}}
    report = replace(report, blocks=blind, sensors=sensors)

    section = timeline_section(report, build_comparison(manifest, report))

    assert [chart.name for chart in section.charts] == ["blocks", "canaries"]
    assert section.sentences[0] == "Temperature: not known on this machine. This machine has none"


def test_training_is_shown_epoch_by_epoch_and_damaged_files_are_named(tmp_path):
    make_study(tmp_path)
    (tmp_path / "keras/filter50.keras.json").write_text('{"history": [{"loss": NaN, "accuracy": 0.5}]}')
    (tmp_path / "keras/latency80.keras.json").write_text('{"history"')
    (tmp_path / "keras/other.json").write_text('{"history": []}')

    section = training_section(tmp_path)

    accuracy, loss = section.charts
    assert accuracy.table.lines[0] == ("none", "1", "50.0 %", "40.0 %")
    assert ("filter50", "1", "–") in loss.table.lines
    assert any("latency80.keras.json: its history cannot be read" in sentence for sentence in section.sentences)
    assert "other: not trained." in section.sentences


def test_a_study_without_trainings_says_so(tmp_path):
    (sentence,) = training_section(tmp_path).sentences

    assert "no file of a training" in sentence


def test_layers_with_zeros_are_shown_and_dense_files_named():
    layers = (LayerSparsity("first", 100, 0), LayerSparsity("second", 100, 50), LayerSparsity("empty", 0, 0))
    manifest = make_manifest(
        entries=(make_entry("none-none"), make_entry("magnitude50-none", sparsity_by_layer=layers))
    )
    comparison = replace(
        build_comparison(make_manifest(), make_report(make_manifest())),
        rows=tuple(row(e.variant, 1, 1, sha256=e.sha256) for e in manifest.entries),
    )

    section = layers_section(manifest, comparison)

    assert section.charts[0].table.lines == (
        ("magnitude50-none", "first", "100", "0.0 %"),
        ("magnitude50-none", "second", "100", "50.0 %"),
    )
    assert section.sentences == ("Without zeros in any layer (less than 1 %): none-none.",)


def test_sizes_stand_in_the_order_of_sparsity(tmp_path):
    lines = sizes_section(make_source(tmp_path).comparison).charts[0].table.lines

    assert [line[1] for line in lines] == ["0.0 %", "0.0 %", "49.5 %", "49.5 %", "49.5 %"]
    assert lines[0][2] == "8.40 (8,808,040)"


def answers(labels, **changes):
    """Of so many labels; two of ten images are wrong."""
    matrix = [[0] * labels for _ in range(labels)]
    matrix[0][0], matrix[0][1], matrix[1][1] = 3, 2, 5
    fields = {"variant": "none-int8", "sha256": "0", "runtime": "litert", "runtime_version": "2", "correct": 8}
    fields |= {"image_count": 10, "low_ratio": 0.5, "high_ratio": 0.9, "wrong": (0, 1), "golden_difference": 0.0}
    fields |= {"labels": tuple(f"label {at}" for at in range(labels)), "golden_tolerance": 0.1, "flips": ()}
    return Answers(confusion=tuple(map(tuple, matrix)), **{**fields, **changes})


def test_a_small_matrix_is_its_own_table():
    chart = confusion_section([answers(3)]).charts[0]

    assert chart.table.lines[0] == ("label 0", "3", "2", "0")
    assert len(chart.spec["datasets"]["cells"]) == 3


def test_of_too_many_labels_only_the_pairs_confused_most_are_listed():
    section = confusion_section([answers(MOST_LABELS + 1)])

    (chart,) = section.charts
    assert chart.spec == {}
    assert chart.table.lines == (("label 0", "label 1", "2", "40.0 %"),)
    assert section.sentences == ("41 labels are too many for a matrix: the pairs confused most.",)


def test_long_labels_that_begin_alike_stay_apart():
    labels = ("n" * 200, "n" * 201, "dog")

    cells = confusion_section([replace(answers(3), labels=labels)]).charts[0].spec["datasets"]["cells"]

    assert len({cell["truth"] for cell in cells}) == 2


def test_latencies_that_differ_much_are_on_a_logarithmic_scale():
    assert is_spread([1.0, 9.0])
    assert not is_spread([1.0, 7.0])
    assert not is_spread([])


def test_every_chart_has_a_table_and_a_name_of_its_own_and_can_be_drawn(tmp_path):
    source = make_source(tmp_path)

    charts = [
        chart
        for section in build_sections(source.manifest, source.report, source.comparison, tmp_path)
        for chart in section.charts
    ]

    assert len({chart.name for chart in charts}) == len(charts) >= 12
    for chart in charts:
        assert chart.table.lines
        assert all(len(line) == len(chart.table.columns) for line in chart.table.lines)
        assert re.search(r"\w", chart.summary)
        assert "@" not in json.dumps(
            complete(chart.spec)["layer"] if "layer" in chart.spec else complete(chart.spec)["encoding"]
        )
