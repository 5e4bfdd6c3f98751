from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteship_agent.camera.figures import STAGES, WINDOW, Recorder, Times, Window


@given(st.lists(st.integers(-(2**62), 2**62)), st.integers(1, 20))
def test_window_keeps_the_last_values_in_order(values, size):
    window = Window(size)
    for value in values:
        window.add(value)

    assert window.ordered() == values[-size:]


@pytest.mark.parametrize(
    ("values", "median", "p90", "mean"),
    [([], None, None, None), ([7], 7, 7, 7), ([2, 1], 1, 2, 1.5), (list(range(1, 11)), 5, 9, 5.5)],
)
def test_percentiles_are_by_nearest_rank(values, median, p90, mean):
    assert Times.of(values) == Times(median, p90, mean, len(values))


def test_memory_is_constant():
    recorder = Recorder()
    for number in range(5 * WINDOW):
        recorder.captured(number, 1)
        recorder.classified(number, 2, dict.fromkeys(STAGES, 3))
    figures = recorder.figures()

    assert (figures.captured, figures.classified) == (5 * WINDOW, 5 * WINDOW)
    assert {times.count for times in (figures.latency, *figures.stages.values())} == {WINDOW}


def test_rates_are_those_of_the_last_frames():
    recorder = Recorder()
    assert recorder.figures().captured_hz is None
    for number in range(WINDOW + 5):
        recorder.captured(number * 20_000_000, 0)

    assert recorder.figures().captured_hz == pytest.approx(50)
    assert recorder.figures().classified_hz is None


def test_frames_that_the_source_left_out_are_captured_and_dropped():
    recorder = Recorder()
    recorder.captured(0, 0)
    recorder.skipped(3)

    assert (recorder.figures().captured, recorder.figures().dropped) == (4, 3)


def test_broken_frames_are_counted_with_the_last_reason():
    recorder = Recorder()
    recorder.broken("empty")
    recorder.broken("cut")

    assert (recorder.figures().broken, recorder.figures().last_error) == (2, "cut")


def test_capture_is_counted_once_a_frame():
    recorder = Recorder()
    recorder.captured(0, 5)
    recorder.classified(9, 4, {"capture": 5, "preprocess": 1, "invoke": 2, "smooth": 1, "publish": 1})

    assert recorder.figures().stages["capture"] == Times(5, 5, 5, 1)
    assert recorder.figures().stages["invoke"] == Times(2, 2, 2, 1)


def test_figures_are_one_flat_json_object():
    recorder = Recorder()
    recorder.captured(0, 5)
    line = json.loads(json.dumps(recorder.figures().to_json()))

    assert line["captured"] == 1
    assert line["capture_p90_ns"] == 5
    assert line["latency_median_ns"] is None
