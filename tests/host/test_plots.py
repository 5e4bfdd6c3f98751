from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from liteship.errors import UsageError
from liteship.report.plots import filter_ranks_chart, save_chart


@dataclass(frozen=True)
class Rank:
    layer: str
    score: float
    kept: bool
    criterion: str = "l1"


FEW = [Rank("Conv1", 3.0, True), Rank("Conv1", 1.0, False), Rank("Conv1", 2.0, False), Rank("Conv1", 4.0, True)]


def parts_of(chart):
    """The rectangles and the texts left and right of them, as a reader of the chart gets them."""
    strips, _, names, kept = (layer["data"]["values"] for layer in specification(chart)["layer"])
    return strips, [label["text"] for label in names], [label["text"] for label in kept]


def specification(chart):
    """The chart as JSON; Vega-Lite names data sets that layers share, here each layer has its values."""
    spec = chart.to_dict()
    for layer in spec["layer"]:
        data = layer.get("data", spec.get("data"))
        layer["data"] = {"values": spec["datasets"][data["name"]]} if "name" in data else data
    return spec


def many(layers=52, filters=1280):
    """Scores spread evenly; every third filter is removed."""
    return [Rank(f"block_{at}", 1.0 + index, index % 3 > 0) for at in range(layers) for index in range(filters)]


def test_filters_stand_by_score_and_keep_what_became_of_them():
    strips, names, kept = parts_of(filter_ranks_chart(FEW))

    assert [strip["fate"] for strip in strips] == ["removed", "removed", "kept", "kept"]
    assert [strip["left"] for strip in strips] == [0, 0.25, 0.5, 0.75]
    assert strips[-1]["height"] == pytest.approx(strips[-1]["top"])
    assert strips[0]["bottom"] - strips[0]["height"] == pytest.approx(0.8 / 4)
    assert (names, kept) == (["Conv1"], ["kept", "2 of 4"])


def test_layers_stay_in_graph_order():
    ranks = [Rank("z", 1.0, True), Rank("a", 1.0, False), Rank("z", 2.0, True), Rank("m", 0.0, True)]

    _, names, kept = parts_of(filter_ranks_chart(ranks))

    assert names == ["z", "a", "m"]
    assert kept == ["kept", "2 of 2", "0 of 1", "1 of 1"]


def test_a_step_of_several_filters_is_divided_by_their_numbers():
    strips, _, _ = parts_of(filter_ranks_chart(many(layers=1)))
    removed = sum(strip["right"] - strip["left"] for strip in strips if strip["fate"] == "removed")

    assert len(strips) == 2 * 64
    assert removed == pytest.approx(427 / 1280)
    assert [strip["left"] for strip in strips[1:]] == [strip["right"] for strip in strips[:-1]]


def test_title_says_what_was_ranked_and_how_much_was_removed():
    assert specification(filter_ranks_chart(FEW))["title"] == "Filters by l1: 2 of 4 removed (50%)"


def test_no_filters_are_refused():
    with pytest.raises(ValueError, match="At least one filter is required"):
        filter_ranks_chart([])


def test_png_of_52_layers_with_1280_filters_shows_both_colors(tmp_path):
    path = tmp_path / "ranks.png"

    save_chart(filter_ranks_chart(many()), path)

    pixels = cv2.imread(str(path))
    assert pixels.shape[0] > 2 * 16 * 52
    for color in ((0x00, 0x72, 0xB2), (0xE6, 0x9F, 0x00)):
        assert np.all(pixels == color[::-1], axis=-1).sum() > 10_000


def test_svg_names_the_layers(tmp_path):
    path = tmp_path / "ranks.svg"

    save_chart(filter_ranks_chart([Rank('Conv "1"/<relu>', 0.0, True)]), path)

    text = path.read_text()
    assert text.startswith("<svg")
    assert "Conv &quot;1&quot;/&lt;relu&gt;" in text


@pytest.mark.parametrize("name", ["ranks.pdf", "ranks"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"\.png or \.svg is required\. Received: "):
        save_chart(filter_ranks_chart(FEW), tmp_path / name)

    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_imports_no_plotting_library():
    program = "import sys, liteship.report.plots; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert not {"altair", "vl_convert", "tensorflow", "liteship.compress"} & set(loaded)
