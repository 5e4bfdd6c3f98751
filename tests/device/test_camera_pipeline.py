from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from camera_samples import LABELS, ScriptedSource, TestClock, classifier, jpeg, plain, write_video
from release_samples import photograph

from liteship_agent.camera.errors import CameraError, CameraLostError, FrameError, NoCameraError
from liteship_agent.camera.files import FolderSource, VideoFileSource
from liteship_agent.camera.frame import FrameOptions
from liteship_agent.camera.pattern import PatternSource
from liteship_agent.camera.pipeline import Pipeline, State
from liteship_agent.camera.reconnect import ReconnectingSource
from liteship_agent.camera.smoothing import Smoothing
from liteship_agent.errors import ModelError

QUICK = Smoothing(seconds=0, margin=0, threshold=0)
LONG = 20
"""Seconds that nothing here takes: a wait of so long has failed."""


class Gate:
    """Holds whoever comes until it is opened, and says that somebody came."""

    def __init__(self):
        self.came, self.opened = threading.Event(), threading.Event()

    def __call__(self, *_):
        self.came.set()
        assert self.opened.wait(LONG)

    def then(self, step):
        """A step of a script that waits here first."""

        def wait():
            self()
            return step

        return wait


class Slow:
    """A model that waits at a gate in each invocation."""

    def __init__(self, model, gate):
        self._model, self._gate = model, gate

    def run(self, tensor):
        self._gate()
        return self._model.run(tensor)


def gated(gate, **changes):
    made = classifier(**changes)
    object.__setattr__(made, "model", Slow(made.model, gate))
    return made


def run(source, *about, **options):
    """Everything that is published of a source that can wait, in order."""
    pipeline = Pipeline(source, *(about or (classifier(),)), options.pop("smoothing", QUICK), **options)
    results = []
    publish = pipeline.results.publish
    pipeline.results.publish = lambda result: (results.append(result), publish(result))
    pipeline.start()
    assert pipeline.wait(LONG)
    return pipeline, results


def test_every_frame_of_a_source_that_waits_gets_its_label_in_order():
    pipeline, results = run(ScriptedSource([plain(number % 3) for number in range(60)]))
    figures = pipeline.figures()

    assert [result.answer.label for result in results] == [LABELS[number % 3] for number in range(60)]
    assert [result.frame.number for result in results] == list(range(60))
    assert (figures.captured, figures.classified, figures.dropped, figures.broken) == (60, 60, 0, 0)


def test_live_source_never_waits_and_the_newest_frame_is_taken():
    gate, last = Gate(), Gate()
    frames = [plain(0)] + [plain(1)] * 50 + [plain(2), last.then(None)]
    source = ScriptedSource([frames[0], lambda: (gate.came.wait(LONG), plain(1))[1], *frames[2:]], live=True)
    pipeline = Pipeline(source, gated(gate), QUICK)
    results = pipeline.results.subscribe()
    pipeline.start()
    assert last.came.wait(LONG)  # all frames were read while the first one is still in the model
    assert pipeline.figures().captured == 52
    last.opened.set()
    gate.opened.set()
    pipeline.wait(LONG)
    figures = pipeline.figures()

    assert results.next(0).frame.number == 51
    assert figures.classified <= 4  # in the model, in its slot, in hand, in the slot before
    assert figures.captured == figures.classified + figures.dropped


def test_labels_agree_with_offline_predictions_of_the_same_frames(tmp_path):
    frames = [np.repeat(np.repeat(photograph(n % 3, n % 4), 4, 0), 4, 1)[:48, :40] for n in range(12)]
    options = FrameOptions(paced=False)
    path = write_video(tmp_path / "a.avi", frames)
    ours = classifier(dtype="int8")
    offline = VideoFileSource(path, options)
    offline.open()
    expected = [ours.classify(offline.read().pixels) for _ in frames]
    _, results = run(VideoFileSource(path, options), ours)

    assert len(results) == len(frames)
    assert all((result.scores == scores).all() for result, scores in zip(results, expected))
    assert [result.top for result in results] == [n % 3 for n in range(12)]


def test_pictures_of_a_folder_keep_their_names(tmp_path):
    for name, color in (("a.jpg", 2), ("b.jpg", 0)):
        (tmp_path / name).write_bytes(jpeg(plain(color)))
    _, results = run(FolderSource(tmp_path, FrameOptions(paced=False)))

    assert [(result.frame.name, result.answer.label) for result in results] == [("a.jpg", "blue"), ("b.jpg", "red")]


def test_frames_of_other_sizes_midway_get_their_labels():
    _, results = run(ScriptedSource([plain(0), plain(1, 480, 640), plain(2, 5, 300), plain(0, 1, 1)]))

    assert [result.answer.label for result in results] == ["red", "green", "blue", "red"]


def test_broken_frames_are_counted_and_skipped():
    script = [plain(0), FrameError("a frame with pixels is required. Received: an empty one"), plain(1)]
    pipeline, results = run(ScriptedSource(script))
    figures = pipeline.figures()

    assert [result.frame.number for result in results] == [0, 2]
    assert (figures.captured, figures.broken, figures.dropped) == (2, 1, 0)
    assert figures.last_error.endswith("an empty one")


def test_numbers_that_a_source_left_out_are_dropped_frames():
    source = ScriptedSource([plain(0)] * 3)
    read = source.read

    def every_third():
        frame = read()
        source._count += 2
        return frame

    source.read = every_third
    pipeline, _ = run(source)

    assert (pipeline.figures().captured, pipeline.figures().dropped) == (7, 4)


def test_latency_is_from_capture_to_label_and_stages_are_told():
    clock = TestClock()
    camera = TestClock(clock.now_ns() - 2_000_000)

    class Timed(Slow):
        def run(self, tensor):
            clock.time_ns += 5_000_000
            return self._model.run(tensor)

    made = classifier()
    object.__setattr__(made, "model", Timed(made.model, None))
    pipeline, (result,) = run(ScriptedSource([plain(0)], clock=camera), made, clock=clock)

    assert result.stages_ns["invoke"] == 5_000_000
    assert result.latency_ns == 7_000_000
    assert set(result.stages_ns) == {"capture", "preprocess", "invoke", "smooth"}
    assert pipeline.figures().latency.median_ns == 7_000_000


def test_model_is_swapped_between_two_frames_and_none_is_lost():
    first = classifier("first")
    second = classifier("second", labels=("rot", "blau"), weights=((6.0, 0, 0), (0, 0, 6.0)))
    pipeline = Pipeline(
        ScriptedSource([plain(0), plain(0), lambda: (pipeline.swap(second), plain(2))[1], *[plain(2)] * 5]),
        first,
        QUICK,
    )
    results = []
    publish = pipeline.results.publish
    pipeline.results.publish = lambda result: (results.append(result), publish(result))
    pipeline.start()
    assert pipeline.wait(LONG)
    answers = [(result.classifier.variant, result.answer.label) for result in results]

    assert len(answers) == 8
    assert answers[-5:] == [("second", "blau")] * 5
    assert answers[0] == ("first", "red")
    assert all(label in {"first": LABELS, "second": ("rot", "blau")}[variant] for variant, label in answers)
    assert pipeline.figures().swaps == 1


def test_tensor_made_for_the_model_before_is_run_by_that_one():
    gate = Gate()
    old, new = gated(gate, variant="old"), classifier("new", dtype="int8")
    pipeline = Pipeline(ScriptedSource([plain(0), plain(1), plain(2)]), old, QUICK)
    seen = []
    publish = pipeline.results.publish
    pipeline.results.publish = lambda result: (seen.append(result), publish(result))
    pipeline.start()
    assert gate.came.wait(LONG)
    pipeline.swap(new)
    gate.opened.set()
    assert pipeline.wait(LONG)

    assert [result.answer.label for result in seen] == list(LABELS)
    assert seen[0].classifier is old
    assert pipeline.classifier is new


def test_smoothing_starts_anew_with_another_model():
    second = classifier("second")

    def swap():
        results = pipeline.results.subscribe()
        while results.next(LONG).frame.number < 19:
            pass
        pipeline.swap(second)
        return plain(2)

    source = ScriptedSource([plain(0)] * 20 + [swap])
    pipeline = Pipeline(source, classifier("first"), Smoothing(seconds=3600, margin=0.5))
    pipeline.start()
    assert pipeline.wait(LONG)

    assert pipeline.results.get().classifier is second
    assert pipeline.results.get().answer.label == "blue"


def test_source_that_cannot_be_opened_is_told_to_who_starts():
    source = ScriptedSource([])
    source.opening = [NoCameraError("a camera is required. Received: none")]
    pipeline = Pipeline(source, classifier())

    with pytest.raises(NoCameraError):
        pipeline.start()
    assert pipeline.state() == State("idle")


@pytest.mark.parametrize("live", [True, False])
def test_source_that_fails_midway_ends_the_pipeline_with_its_error(live):
    source = ScriptedSource([plain(0), CameraError("a.avi: a video is required. Received: none")], live)
    pipeline = Pipeline(source, classifier())
    pipeline.start()

    with pytest.raises(CameraError, match=r"a\.avi"):
        pipeline.wait(LONG)
    assert pipeline.state() == State("failed", "a.avi: a video is required. Received: none")
    assert source.calls[-1] == "close"


@pytest.mark.parametrize("live", [True, False])
def test_model_that_fails_ends_the_pipeline_and_releases_the_camera(live):
    class Broken:
        def run(self, tensor):
            raise ModelError("none-none: a kernel failed")

    made = classifier()
    object.__setattr__(made, "model", Broken())
    source = ScriptedSource([plain(0)] * 1000, live)
    pipeline = Pipeline(source, made)
    pipeline.start()

    with pytest.raises(ModelError, match="a kernel failed"):
        pipeline.wait(LONG)
    assert source.calls[-1] == "close"


def test_fault_of_the_code_is_not_hidden():
    source = ScriptedSource([ZeroDivisionError("a bug")])
    pipeline = Pipeline(source, classifier())
    pipeline.start()

    with pytest.raises(ZeroDivisionError):
        pipeline.wait(LONG)


def test_stop_ends_a_source_that_waits():
    gate = Gate()
    source = ScriptedSource([plain(0), gate.then(None), *[plain(0)] * 1000], live=True)
    source.interrupt = gate.opened.set
    pipeline = Pipeline(source, classifier())
    pipeline.start()
    assert gate.came.wait(LONG)
    assert pipeline.state() == State("running")
    pipeline.stop()

    assert pipeline.wait(LONG)
    assert pipeline.state() == State("ended")
    assert source.calls[-1] == "close"
    assert pipeline.frames.is_closed
    assert pipeline.results.is_closed


def test_stop_ends_a_source_that_never_ends():
    source = ScriptedSource(itertools.repeat(plain(0)))
    pipeline = Pipeline(source, classifier())
    pipeline.start()
    pipeline.results.subscribe().next(LONG)
    pipeline.stop()

    assert pipeline.wait(LONG)


def test_pause_releases_the_source_and_resume_opens_it_again():
    source = ScriptedSource(itertools.repeat(plain(0)), live=True)
    pipeline = Pipeline(source, classifier())
    pipeline.start()
    frames = pipeline.frames.subscribe()
    frames.next(LONG)
    pipeline.pause(release=True)
    assert pipeline.state() == State("paused")
    assert source.calls == ["open", "interrupt", "close"]
    frames.next(0)
    assert frames.next(0) is None

    pipeline.resume()
    assert frames.next(LONG) is not None
    assert source.calls[3:] == ["open"]
    pipeline.stop()
    pipeline.wait(LONG)


def test_wait_that_a_pause_cut_is_no_end_of_the_source():
    pipeline = Pipeline(PatternSource(FrameOptions(width=64, height=48, rate_hz=0.001)), classifier())
    pipeline.start()
    frames = pipeline.frames.subscribe()
    assert frames.next(LONG).number == 0
    pipeline.pause(release=True)
    pipeline.resume()

    assert frames.next(LONG).number == 1
    pipeline.stop()
    assert pipeline.wait(LONG)


def test_pause_that_holds_leaves_the_source_open_and_goes_on_where_it_was():
    pipeline = Pipeline(ScriptedSource([]), classifier())
    source = ScriptedSource([plain(0), lambda: (pipeline.pause(release=False), plain(1))[1], plain(2)])
    pipeline = Pipeline(source, classifier(), QUICK)
    results = pipeline.results.subscribe()
    pipeline.start()
    while (result := results.next(LONG)).frame.number < 1:
        pass
    assert pipeline.state() == State("paused")
    assert pipeline.figures().captured == 2
    pipeline.resume()

    assert pipeline.wait(LONG)
    assert result.answer.label == "green"
    assert pipeline.results.get().answer.label == "blue"
    assert source.calls == ["open", "close"]


def test_held_source_can_still_be_released():
    source = ScriptedSource(itertools.repeat(plain(0)), live=True)
    pipeline = Pipeline(source, classifier())
    pipeline.start()
    pipeline.pause(release=False)
    pipeline.pause(release=True)

    assert source.calls[-1] == "close"
    pipeline.stop()
    assert pipeline.wait(LONG)


def test_stop_ends_a_pause():
    pipeline = Pipeline(ScriptedSource(itertools.repeat(plain(0))), classifier())
    pipeline.start()
    pipeline.pause(release=True)
    pipeline.stop()

    assert pipeline.wait(LONG)


def test_lost_camera_is_a_state_and_not_the_end():
    gate = Gate()
    clock = TestClock()
    clock.wait = lambda seconds: (gate(), True)[1]
    source = ScriptedSource([plain(0), CameraLostError("is it still plugged in?"), plain(1)], live=True)
    pipeline = Pipeline(ReconnectingSource(source, clock), classifier(), QUICK)
    pipeline.start()
    assert gate.came.wait(LONG)
    assert pipeline.state() == State("lost", "is it still plugged in?")
    gate.opened.set()

    assert pipeline.wait(LONG)
    assert pipeline.results.get().answer.label == "green"
    assert source.calls == ["open", "close", "open", "close"]


def test_viewers_that_stall_do_not_hold_up_the_pipeline():
    pipeline = Pipeline(ScriptedSource([plain(0)] * 100), classifier(), QUICK)
    viewers = [pipeline.results.subscribe() for _ in range(20)]
    pipeline.start()
    assert pipeline.wait(LONG)

    assert pipeline.figures().classified == 100
    assert {viewer.next(0).frame.number for viewer in viewers} == {99}


def test_frames_are_shown_while_the_model_is_still_busy():
    gate = Gate()
    source = ScriptedSource([plain(0), *[plain(1)] * 4], live=True)
    pipeline = Pipeline(source, gated(gate), QUICK)
    frames = pipeline.frames.subscribe()
    pipeline.start()
    while frames.next(LONG).number < 4:
        pass
    assert pipeline.results.get() is None
    gate.opened.set()

    assert pipeline.wait(LONG)


def test_wait_with_a_limit_says_that_it_goes_on():
    gate = Gate()
    pipeline = Pipeline(ScriptedSource([gate.then(None)]), classifier())
    pipeline.start()

    assert not pipeline.wait(0)
    gate.opened.set()
    assert pipeline.wait(LONG)
