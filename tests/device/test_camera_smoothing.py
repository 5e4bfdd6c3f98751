from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteship_agent.camera.errors import CameraError
from liteship_agent.camera.smoothing import UNSURE, Smoother, Smoothing

LABELS = ("cat", "dog", "bird")
STEADY = Smoothing(seconds=0, margin=0.2, threshold=0.4)


def answers(smoothing: Smoothing, frames: list[tuple[float, ...]], interval_ns: int = 100_000_000) -> list[str]:
    smoother = Smoother(smoothing, LABELS)
    return [
        smoother.update(np.array(scores, np.float32), number * interval_ns).label
        for number, scores in enumerate(frames)
    ]


def test_label_changes_only_when_the_new_one_leads_by_the_margin():
    frames = [(0.6, 0.4, 0), (0.45, 0.55, 0), (0.41, 0.59, 0), (0.4, 0.61, 0), (0.5, 0.5, 0), (0.45, 0.55, 0)]

    assert answers(STEADY, frames) == ["cat", "cat", "cat", "dog", "dog", "dog"]


def test_below_the_threshold_the_answer_is_unsure():
    smoother = Smoother(STEADY, LABELS)
    answer = smoother.update(np.array((0.35, 0.33, 0.32), np.float32), 0)

    assert (answer.label, answer.index) == (UNSURE, None)
    assert answer.score == pytest.approx(0.35)


def test_label_that_is_not_shown_protects_nothing():
    assert answers(STEADY, [(0.5, 0.2, 0.3), (0.39, 0.45, 0.16)]) == ["cat", "dog"]
    assert answers(STEADY, [(0.5, 0.2, 0.3), (0.3, 0.3, 0.3), (0.45, 0.5, 0.05)]) == ["cat", UNSURE, "dog"]


def test_smoothing_follows_time_and_not_the_count_of_frames():
    for frames in (1, 10, 100):
        smoother = Smoother(Smoothing(seconds=0.5), LABELS)
        smoother.update(np.array((1, 0, 0), np.float32), 0)
        for number in range(1, frames + 1):
            answer = smoother.update(np.array((0, 1, 0), np.float32), round(number * 500_000_000 / frames))

        assert answer.scores[1] == pytest.approx(1 - math.exp(-1), abs=1e-5)


def test_one_odd_frame_does_not_change_the_label():
    frames = [(0.9, 0.1, 0)] * 5 + [(0, 1, 0)] + [(0.9, 0.1, 0)] * 3

    assert answers(Smoothing(), frames, interval_ns=33_000_000) == ["cat"] * 9


def test_without_smoothing_scores_are_those_of_the_frame():
    smoother = Smoother(STEADY, LABELS)
    smoother.update(np.array((1, 0, 0), np.float32), 0)

    assert smoother.update(np.array((0, 0.25, 0.75), np.float32), 1).scores.tolist() == [0, 0.25, 0.75]


def test_time_that_stands_still_or_goes_back_changes_nothing():
    smoother = Smoother(Smoothing(), LABELS)
    smoother.update(np.array((1, 0, 0), np.float32), 1_000)

    for at_ns in (1_000, 500):
        assert smoother.update(np.array((0, 1, 0), np.float32), at_ns).scores.tolist() == [1, 0, 0]


def test_scores_of_the_caller_are_left_alone():
    scores = np.array((1, 0, 0), np.float32)
    smoother = Smoother(Smoothing(), LABELS)
    first = smoother.update(scores, 0)
    smoother.update(np.array((0, 1, 0), np.float32), 10**9)

    assert scores.tolist() == first.scores.tolist() == [1, 0, 0]


frames = st.lists(
    st.tuples(st.integers(0, 2 * 10**9), st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)),
    min_size=1,
    max_size=30,
)


@given(frames, st.floats(0, 5), st.floats(0, 1), st.floats(0, 1))
def test_smoothed_scores_stay_among_those_seen_and_the_label_is_earned(frames, seconds, margin, threshold):
    smoother, now, seen, before = Smoother(Smoothing(seconds, margin, threshold), LABELS), 0, [], UNSURE
    for step, values in frames:
        now, scores = now + step, np.array(values, np.float32)
        seen.append(scores)
        answer = smoother.update(scores, now)

        assert (answer.scores >= np.min(seen, axis=0) - 1e-6).all()
        assert (answer.scores <= np.max(seen, axis=0) + 1e-6).all()
        if answer.index is None:
            assert float(answer.scores.max()) < threshold
        else:
            assert answer.score >= threshold
            lead = float(answer.scores.max()) - answer.score
            assert lead == 0 or (answer.label == before and lead < margin)
        before = answer.label


@pytest.mark.parametrize("options", [{"seconds": -1}, {"seconds": math.nan}, {"margin": 1.1}, {"threshold": -0.1}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(CameraError, match="required"):
        Smoothing(**options)
