from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from liteship.filter_ranks import FilterRank, write_ranks
from liteship.report.charts.chart import draw_png, draw_svg
from liteship.report.charts.filter_ranks import filter_ranks_chart, filter_ranks_section


def rank(layer, score, kept, criterion="l1"):
    return FilterRank(layer, 0, criterion, score, kept)


FEW = [rank("Conv1", 3.0, True), rank("Conv1", 1.0, False), rank("Conv1", 2.0, False), rank("Conv1", 4.0, True)]


def steps_of(chart):
    return chart.spec["datasets"]["steps"]


def many(layers=52, filters=1280):
    """Scores spread evenly; every third filter is removed."""
    return [rank(f"block_{at}", 1.0 + index, index % 3 > 0) for at in range(layers) for index in range(filters)]


def test_filters_stand_by_score_and_keep_what_became_of_them():
    chart = filter_ranks_chart(FEW)
    strips = steps_of(chart)

    assert [strip["fate"] for strip in strips] == ["removed", "removed", "kept", "kept"]
    assert [strip["left"] for strip in strips] == [0, 0.25, 0.5, 0.75]
    assert strips[-1]["height"] == pytest.approx(strips[-1]["top"])
    assert strips[0]["bottom"] - strips[0]["height"] == pytest.approx(0.8 / 4)
    assert chart.table.lines == (("Conv1", "4", "2", "2", "1", "4"),)


def test_layers_stay_in_graph_order():
    ranks = [rank("z", 1.0, True), rank("a", 1.0, False), rank("z", 2.0, True), rank("m", 0.0, True)]

    lines = filter_ranks_chart(ranks).table.lines

    assert [(line[0], line[2], line[1]) for line in lines] == [("z", "2", "2"), ("a", "0", "1"), ("m", "1", "1")]


def test_a_step_of_several_filters_is_divided_by_their_numbers():
    strips = steps_of(filter_ranks_chart(many(layers=1)))
    removed = sum(strip["right"] - strip["left"] for strip in strips if strip["fate"] == "removed")

    assert len(strips) == 2 * 64
    assert removed == pytest.approx(427 / 1280, abs=1e-3)
    assert [strip["left"] for strip in strips[1:]] == [strip["right"] for strip in strips[:-1]]


def test_title_says_what_was_ranked_and_how_much_was_removed():
    assert filter_ranks_chart(FEW).title == "Filters by l1: 2 of 4 removed (50%)"
    assert filter_ranks_chart(FEW, "filter50").title == "filter50: filters by l1, 2 of 4 removed (50%)"


def test_no_filters_are_refused():
    with pytest.raises(ValueError, match="At least one filter is required"):
        filter_ranks_chart([])


def test_png_of_52_layers_with_1280_filters_shows_both_colors():
    pixels = cv2.imdecode(np.frombuffer(draw_png(filter_ranks_chart(many())), np.uint8), cv2.IMREAD_COLOR)

    assert pixels.shape[0] > 2 * 16 * 52
    for color in ((0x0A, 0x5F, 0xB4), (0xB4, 0x53, 0x09)):
        assert np.all(pixels == color[::-1], axis=-1).sum() > 10_000


def test_svg_names_the_layers():
    text = draw_svg(filter_ranks_chart([rank('Conv "1"/<relu>', 0.0, True)]))

    assert text.startswith("<svg")
    assert "Conv &quot;1&quot;/&lt;relu&gt;" in text or 'Conv "1"/&lt;relu&gt;' in text


def test_the_axis_ends_at_all_filters_and_labels_say_how_many_were_kept():
    text = draw_svg(filter_ranks_chart([*FEW, rank("block_13_expand_with_a_very_long_name_indeed", 1.0, True)]))

    assert ">100%<" in text
    assert ">Conv1  2/4<" in text.replace("\u00a0", " ")
    assert "block_13_expa…ng_name_indeed  1/1" in text


def test_a_study_has_a_chart_for_each_pruned_model_and_says_which_file_is_damaged(tmp_path):
    write_ranks(FEW, tmp_path / "keras/filter50-ranks.csv")
    (tmp_path / "keras/filter75-ranks.csv").write_text("layer,index\nConv1,0\n")

    section = filter_ranks_section(tmp_path)

    assert [chart.name for chart in section.charts] == ["filters-filter50"]
    assert "filter75-ranks.csv: a table of filter ranks is required" in section.sentences[0]


def test_a_study_without_pruned_filters_says_so(tmp_path):
    assert filter_ranks_section(tmp_path).sentences == ("No filters were pruned in this study.",)


def test_importing_the_charts_imports_no_plotting_library():
    program = "import sys, liteship.report.charts.gallery, liteship.report.charts.chart; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert not {"altair", "vl_convert", "tensorflow", "scipy", "liteship.compress"} & set(loaded)
