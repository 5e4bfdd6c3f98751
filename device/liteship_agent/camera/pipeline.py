"""From frames to labels, in three threads with room for one frame between them.

    source -> capture -> [newest frame] -> preprocess -> [newest tensor] -> invoke, smooth, publish

While the model runs on one frame, the next one is prepared, so that the rate is that of the slowest stage alone. A live
source never waits: a frame that is not taken is dropped for a newer one. One that can wait (a video read as fast as it
goes) does, and no frame of it is dropped. Nothing grows: not with a slow model, and not with a viewer that stalls.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Callable, List, Mapping, Optional, TypeVar

import numpy as np

from liteship_agent.camera.classifier import Classifier
from liteship_agent.camera.clock import Clock
from liteship_agent.camera.errors import FrameError
from liteship_agent.camera.figures import Figures, Recorder
from liteship_agent.camera.frame import Frame, Source
from liteship_agent.camera.slot import Latest, Slot
from liteship_agent.camera.smoothing import Answer, Smoother, Smoothing

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """One labelled frame.

    Args:
        frame: The frame.
        answer: What is shown: smoothed.
        scores: Of this frame alone, float32, shape (labels,).
        classifier: The model that gave them.
        latency_ns: From capture to label.
        stages_ns: What `capture`, `preprocess`, `invoke` and `smooth` took for this frame.
    """

    frame: Frame
    answer: Answer
    scores: np.ndarray
    classifier: Classifier
    latency_ns: int
    stages_ns: Mapping[str, int]

    @property
    def top(self) -> int:
        """Index of the highest score of this frame alone: what the benchmark calls its prediction."""
        return int(self.scores.argmax())


@dataclass(frozen=True)
class State:
    """What the pipeline is doing.

    Args:
        kind: "idle" (not started), "running", "lost" (the camera is away, and tried again), "paused", "ended" (the
            source has no more frames, or it was stopped) or "failed".
        reason: Of "lost" and "failed", one line.
    """

    kind: str
    reason: Optional[str] = None


@dataclass(frozen=True)
class _Prepared:
    """A tensor with the model that it is made for: a swap cannot come between the two."""

    frame: Frame
    tensor: np.ndarray
    classifier: Classifier
    preprocess_ns: int


class Pipeline:
    """Labels the frames of a source until it ends, or is stopped.

    Args:
        source: Not opened yet.
        classifier: The model to begin with.
        smoothing: How steady the answer is.
        clock: The one of the source's frames.
    """

    def __init__(
        self,
        source: Source,
        classifier: Classifier,
        smoothing: Optional[Smoothing] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        self._source, self._classifier = source, classifier
        self._smoothing, self._clock = smoothing or Smoothing(), clock or Clock()
        self._recorder = Recorder()
        self._frames: Slot[Frame] = Slot()
        self._tensors: Slot[_Prepared] = Slot()
        self._threads: List[threading.Thread] = []
        self._error: Optional[BaseException] = None
        self._changed = threading.Condition()
        self._is_stopped = self._is_over = self._holds_source = False
        self._pause: Optional[str] = None
        self._running = 0
        self.frames: Latest[Frame] = Latest()
        """Every frame as it was captured, also those that get no label: the live picture."""
        self.results: Latest[Result] = Latest()
        """Every frame that got a label."""

    @property
    def source(self) -> Source:
        """Where the frames come from."""
        return self._source

    @property
    def classifier(self) -> Classifier:
        """The model that the next frame is for."""
        return self._classifier

    def open(self) -> None:
        """Open the source, and take no frame of it yet.

        Raises:
            CameraError: it cannot be opened.
        """
        self._source.open()
        self._holds_source = True

    def start(self) -> None:
        """Begin; opens the source where that was not done.

        Raises:
            CameraError: the source cannot be opened.
        """
        if not self._holds_source:
            self.open()
        stages = (self._capture, self._preprocess, self._label)
        self._running = len(stages)
        for work in stages:
            thread = threading.Thread(
                target=self._guarded, args=(work,), name=f"camera {work.__name__[1:]}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def swap(self, classifier: Classifier) -> None:
        """Let another model take over from the next frame on; the stream goes on, and no frame is lost.

        Args:
            classifier: Loaded and tried (`load_classifier`); a frame that is prepared for the one before still gets
                its label from that one, whose memory is free after it.
        """
        self._classifier = classifier
        self._recorder.count("swaps")

    def pause(self, release: bool) -> None:
        """Take no more frames until `resume`.

        Args:
            release: Close the source, so that another program may have the camera, and return when that is done; a
                file begins anew afterwards. Else the source stays open, and goes on where it stopped.
        """
        with self._changed:
            self._pause = "release" if release else "hold"
            self._changed.notify_all()
            if release and self._holds_source:
                self._source.interrupt()
                self._changed.wait_for(lambda: not self._holds_source)

    def resume(self) -> None:
        """Go on after `pause`."""
        with self._changed:
            self._pause = None
            self._changed.notify_all()

    def stop(self) -> None:
        """End it and close the source; `wait` returns after the frame that is being labelled."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()
        self._frames.close()
        if self._holds_source:
            self._source.interrupt()

    def wait(self, seconds: Optional[float] = None) -> bool:
        """Wait for the end: of the source, by `stop`, or by a fault.

        Args:
            seconds: The longest wait; null for as long as it takes.
        Returns:
            Whether it has ended.
        Raises:
            AgentError: the source or the model failed.
        """
        with self._changed:
            ended = self._changed.wait_for(lambda: self._is_over, seconds)
        if ended and self._error is not None:
            raise self._error
        return ended

    def figures(self) -> Figures:
        """What it did until now."""
        return self._recorder.figures()

    def state(self) -> State:
        """What it is doing now."""
        lost = getattr(self._source, "lost", None)
        if self._error is not None:
            return State("failed", str(self._error))
        if self._is_over or self._is_stopped:
            return State("ended")
        if self._pause is not None:
            return State("paused")
        if not self._threads:
            return State("idle")
        return State("running") if lost is None else State("lost", lost.reason)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run one stage; a fault of it ends all of them. The last one that ends says that it is over."""
        try:
            work()
        except BaseException as exc:  # raised again by `wait`, in the thread that asks
            self._error = self._error or exc
            self.stop()
            self._tensors.close()
        with self._changed:
            self._running -= 1
            is_last = not self._running
        if is_last:
            self.frames.close()
            self.results.close()
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _capture(self) -> None:
        expected = 0
        try:
            while self._may_capture():
                try:
                    frame = self._source.read()
                except FrameError as exc:
                    self._recorder.broken(str(exc))
                    expected += 1
                    continue
                if frame is not None:
                    # A source that left numbers out had newer frames already.
                    self._recorder.skipped(frame.number - expected)
                    expected = frame.number + 1
                    self._hand_over(frame)
                elif self._pause is None:
                    return
        finally:
            self._release()
            self._frames.close()

    def _may_capture(self) -> bool:
        """Whether to read the next frame; waits out a pause."""
        while self._pause is not None and not self._is_stopped:
            if self._pause == "release" and self._holds_source:
                self._release()
            with self._changed:
                self._changed.wait_for(self._pause_changed)
        if not self._is_stopped and not self._holds_source:
            self._source.open()
            self._holds_source = True
        return not self._is_stopped

    def _pause_changed(self) -> bool:
        """Whether a pause is over, or one that holds the source is to release it."""
        return self._is_stopped or self._pause is None or (self._pause == "release" and self._holds_source)

    def _release(self) -> None:
        self._source.close()
        with self._changed:
            self._holds_source = False
            self._changed.notify_all()

    def _hand_over(self, frame: Frame) -> None:
        self._recorder.captured(frame.captured_ns, frame.decode_ns)
        self.frames.publish(frame)
        self._put(self._frames, frame)

    def _put(self, slot: Slot[T], value: T) -> bool:
        """In place of an older one, or after it; false if there is nobody to take it."""
        if not self._source.is_live:
            return slot.put_when_empty(value)
        if slot.put(value) is not None:
            self._recorder.count("dropped")
        return True

    def _preprocess(self) -> None:
        try:
            for frame in iter(self._frames.take, None):
                classifier = self._classifier
                started_ns = self._clock.now_ns()
                tensor = classifier.prepare(frame.pixels)
                took_ns = self._clock.now_ns() - started_ns
                if not self._put(self._tensors, _Prepared(frame, tensor, classifier, took_ns)):
                    return
        finally:
            self._tensors.close()

    def _label(self) -> None:
        classifier: Optional[Classifier] = None
        for prepared in iter(self._tensors.take, None):
            if prepared.classifier is not classifier:
                classifier = prepared.classifier
                smoother = Smoother(self._smoothing, classifier.labels)
            self._publish(self._labelled(prepared, smoother))

    def _labelled(self, prepared: _Prepared, smoother: Smoother) -> Result:
        frame, classifier = prepared.frame, prepared.classifier
        started_ns = self._clock.now_ns()
        output = classifier.invoke(prepared.tensor)
        invoked_ns = self._clock.now_ns()
        scores = classifier.scores(output)
        answer = smoother.update(scores, frame.captured_ns)
        done_ns = self._clock.now_ns()
        stages_ns = {
            "capture": frame.decode_ns,
            "preprocess": prepared.preprocess_ns,
            "invoke": invoked_ns - started_ns,
            "smooth": done_ns - invoked_ns,
        }
        return Result(frame, answer, scores, classifier, done_ns - frame.captured_ns, stages_ns)

    def _publish(self, result: Result) -> None:
        started_ns = self._clock.now_ns()
        self.results.publish(result)
        now_ns = self._clock.now_ns()
        self._recorder.classified(now_ns, result.latency_ns, {**result.stages_ns, "publish": now_ns - started_ns})
