"""A camera from its start to its summary: lock, model, source, page, and what happens to them meanwhile.

The main thread waits and acts: it pauses and resumes, gives the target to a job and takes it back, and ends. Beside it
the pipeline labels frames, the reporter tells of them, the hot swap watches for another release, and the page's server
has a thread per viewer; none of these waits for another.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

from liteship_agent.camera.announcement import announced
from liteship_agent.camera.card import card_rows, measured_accuracy
from liteship_agent.camera.choose import Choice
from liteship_agent.camera.classifier import Classifier
from liteship_agent.camera.figures import Recorder
from liteship_agent.camera.frame import Source
from liteship_agent.camera.hot_swap import HotSwap, ModelLoader
from liteship_agent.camera.options import CameraOptions
from liteship_agent.camera.pipeline import Pipeline
from liteship_agent.camera.reporter import Reporter, Tell
from liteship_agent.camera.saving import FrameSaver, SaveError
from liteship_agent.camera.smoothing import Smoothing
from liteship_agent.camera.start import default_threads
from liteship_agent.camera.tally import FrameLog, Record, Swap, Tally
from liteship_agent.camera.vitals import machine_fields, pipeline_fields
from liteship_agent.camera.web.access import choose_token, is_loopback
from liteship_agent.camera.web.feed import Feed
from liteship_agent.camera.web.picture import LivePicture
from liteship_agent.camera.web.server import CameraServer, RefusedError, Shown
from liteship_agent.camera.wishes import Wishes
from liteship_agent.errors import AgentError
from liteship_agent.lock import CameraLock
from liteship_agent.release import InstalledRelease
from liteship_agent.sensors import Sensors

RUNNING, PAUSED, MEASURING, RECONNECTING, ENDED = "running", "paused", "measuring", "reconnecting", "ended"
_STATES = {"idle": RUNNING, "lost": RECONNECTING, "failed": ENDED}
_TICK_SECONDS = 0.25
_LOOK_SECONDS = 1.0  # between two looks whether a job is over: cheap, and soon enough
_END_SECONDS = 5.0


class Session:
    """One run of a camera.

    Args:
        options: What is asked for.
        choice: Of the release; its runtime is on this process's path.
        source: Not opened yet.
        smoothing: How steady the answer is.
        tell: Takes events; any thread calls it.
        wishes: What is asked of it while it runs.
    """

    def __init__(
        self, options: CameraOptions, choice: Choice, source: Source, smoothing: Smoothing, tell: Tell, wishes: Wishes
    ) -> None:
        self._options, self._choice, self._tell, self._wishes = options, choice, tell, wishes
        self._source, self._smoothing = source, smoothing
        self._loader = ModelLoader(options.variant, choice.runtime, options.threads or default_threads())
        self._lock, self._saver = CameraLock(options.folder), FrameSaver(options.save_folder)
        self._sensors, self._feed = Sensors(), Feed()
        self._uses = [choice.release_id]
        self._measures: Optional[str] = None
        self._is_paused = False
        self._told: Tuple[str, Optional[str]] = ("", None)
        self._looked_at = self._started_at = self._ran_since = 0.0
        self._ran_seconds = 0.0
        self._pipeline: Pipeline
        self._tally: Tally
        self._server: Optional[CameraServer] = None

    # --- from start to end ---

    def run(self) -> Mapping[str, Any]:
        """Run until the source ends, or somebody wants it to end.

        Returns:
            The summary.
        Raises:
            LockedError: another camera holds the target.
            CameraError: the source or the page cannot be had.
            AgentError: no model can be loaded, or it fails.
        """
        self._started_at = time.monotonic()
        with contextlib.ExitStack() as stack:
            if not self._wait_for_target():
                return self._summary()
            self._started_at = time.monotonic()  # waiting for a job is not part of its duration
            stack.callback(self._lock.give_up)
            log = self._open_log(stack)
            self._tally = Tally(self._options.frames, log.write if log is not None else None)
            release = InstalledRelease(self._options.folder, self._choice.release_id)
            self._pipeline = Pipeline(
                self._source, self._loader.load(release, self._choice.variants[0]), self._smoothing
            )
            self._pipeline.results = self._tally
            self._serve(stack)
            self._begin(stack)
            reason = self._until_end(log)
            self._tell_state(ENDED, reason)
        if log is not None and log.error is not None:
            self._tell({"event": "notice", "message": log.error})
        return self._summary()

    def _open_log(self, stack: contextlib.ExitStack) -> Optional[FrameLog]:
        tell = self._tell_record if self._options.log_events else None
        if self._options.log is None and tell is None:
            return None
        log = FrameLog(self._options.log, tell)
        stack.callback(log.close)
        return log

    def _tell_record(self, record: Record) -> None:
        self._tell({"event": "frame", **record})

    def _serve(self, stack: contextlib.ExitStack) -> None:
        options = self._options
        if options.view != "web":
            return
        shown = Shown(self, LivePicture(self._pipeline.frames), self._feed)
        self._server = CameraServer(shown, options.host, options.port, choose_token(options.token, options.host))
        stack.callback(self._server.close)
        stack.callback(self._feed.close)
        if not options.events and self._server.token is None and is_loopback(options.host):
            stack.enter_context(announced(options.folder, self._server.port, self._source.name))

    def _begin(self, stack: contextlib.ExitStack) -> None:
        """Start everything that runs beside the main thread, and say that the page can be opened."""
        self._pipeline.open()
        classifier = self._pipeline.classifier
        self._show_card(classifier)
        server = self._server
        self._tell(
            {
                "event": "camera",
                "host": None if server is None else self._options.host,
                "port": None if server is None else server.port,
                "token": None if server is None else server.token,
                "source": self._source.name,
                "variant": classifier.variant,
                "release": classifier.release_id,
                "labels": list(classifier.labels),
            }
        )
        self._pipeline.start()  # whoever is told of every frame knows by now of which camera
        stack.callback(self._stop_pipeline)
        self._ran_since = time.monotonic()
        reporter = Reporter(
            self._pipeline,
            self._tally,
            self._feed,
            self._tell,
            lambda: 0 if server is None else server.viewers,
            self._sensors,
            not self._options.log_events,
            self._swapped,
        )
        reporter.start()
        stack.callback(reporter.stop)
        swap = HotSwap(
            self._options.folder,
            self._choice.release_id,
            lambda release: self._loader.load(release, self._pipeline.classifier.variant),
            lambda: self._measures is None,
            self._use,
            self._pipeline.swap,
            self._notice,
        )
        swap.start()
        stack.callback(swap.stop)

    def _stop_pipeline(self) -> None:
        self._pipeline.stop()
        with contextlib.suppress(AgentError):  # what the source or the model lacks was told by the main loop
            self._pipeline.wait(_END_SECONDS)

    def _until_end(self, log: Optional[FrameLog]) -> str:
        """Act on wishes until one is to end; why.

        Raises:
            AgentError: the source or the model failed.
        """
        while True:
            self._wishes.wait(_TICK_SECONDS)
            reason = self._wishes.end_reason or self._own_end()
            if reason is not None:
                return reason
            if self._wishes.taken_yield() and self._lock.is_held:
                self._give_up_target()
            if self._measures is not None:
                self._look_whether_free()
            elif self._wishes.shall_pause != self._is_paused:
                self._pause() if self._wishes.shall_pause else self._go_on()
            if log is not None and log.error is not None:
                self._notice(log.error)
            self._tell_state(*self._state())

    def _own_end(self) -> Optional[str]:
        options = self._options
        if self._tally.full.is_set():
            return f"{options.frames} frames are labelled"
        if self._pipeline.wait(0):
            return f"{self._source.name} has no more frames"
        if options.duration_seconds is not None and time.monotonic() - self._started_at >= options.duration_seconds:
            return f"{options.duration_seconds:g} s are over"
        return None

    # --- pausing, and the target ---

    def _wait_for_target(self) -> bool:
        """Take the target, after a job that measures now; false if the camera shall end meanwhile."""
        while self._wishes.end_reason is None:
            self._measures = self._lock.take(self._uses)
            if self._measures is None:
                return True
            # Again and again: the link to whoever waits must not fall silent.
            self._told = ("", None)
            self._tell_state(MEASURING, self._measures)
            self._wishes.wait(_LOOK_SECONDS)
        return False

    def _give_up_target(self) -> None:
        """Let a job measure: nothing is captured or run until it is over."""
        self._note_pause()
        self._pipeline.pause(release=True)
        self._measures = "a measurement begins"
        self._lock.give_up()
        self._looked_at = time.monotonic()

    def _look_whether_free(self) -> None:
        if time.monotonic() - self._looked_at < _LOOK_SECONDS:
            return
        self._looked_at = time.monotonic()
        self._measures = self._lock.take(self._uses)
        if self._measures is None and not self._wishes.shall_pause:
            self._go_on()

    def _pause(self) -> None:
        self._note_pause()
        self._pipeline.pause(release=False)

    def _go_on(self) -> None:
        self._is_paused = False
        self._ran_since = time.monotonic()
        self._pipeline.resume()

    def _note_pause(self) -> None:
        if not self._is_paused:
            self._ran_seconds += time.monotonic() - self._ran_since
        self._is_paused = True
        self._tally.interrupted()

    def _state(self) -> Tuple[str, Optional[str]]:
        if self._measures is not None:
            return MEASURING, self._measures
        state = self._pipeline.state()
        return _STATES.get(state.kind, state.kind), state.reason

    def _tell_state(self, state: str, reason: Optional[str]) -> None:
        if (state, reason) != self._told:
            self._told = state, reason
            self._feed.publish("state", {"state": state, "reason": reason})
            self._tell({"event": "state", "state": state, "reason": reason})

    # --- the model ---

    def _use(self, *releases: str) -> None:
        """Releases that must stay; that of this process's own code and runtime is always one of them."""
        self._uses = list(dict.fromkeys([*releases, self._choice.release_id]))
        self._lock.rename(self._uses)

    def _swapped(self, swap: Swap) -> None:
        fields = {"release": swap.classifier.release_id, "variant": swap.classifier.variant, "gap_ns": swap.gap_ns}
        self._feed.publish("swapped", fields, lasts=False)
        self._tell({"event": "swapped", **fields})
        self._show_card(swap.classifier)

    def _show_card(self, classifier: Classifier) -> None:
        folder, entry = self._options.folder, classifier.entry
        accuracy = None if entry is None else measured_accuracy(folder, entry.sha256)
        study = InstalledRelease(folder, classifier.release_id or "").record().study
        self._feed.publish("card", card_rows(classifier, accuracy, self._source.name, study))

    def _notice(self, message: Optional[str]) -> None:
        self._feed.publish("notice", {"message": message})
        if message is not None:
            self._tell({"event": "notice", "message": message})

    # --- the page's buttons ---

    def pause(self) -> None:
        """Take no more frames until somebody resumes."""
        self._wishes.pause(True)

    def resume(self) -> None:
        """Go on."""
        self._wishes.pause(False)

    def save(self) -> str:
        """Keep the newest labelled frame; the name of its file.

        Raises:
            RefusedError: there is none yet, or the disk does not take it.
        """
        result = self._tally.get()
        if result is None:
            raise RefusedError(409, "no frame has a label yet")
        try:
            name = self._saver.save(result)
        except SaveError as exc:
            raise RefusedError(507 if exc.is_full else 500, str(exc)) from exc
        self._feed.publish("saved", {"name": name}, lasts=False)
        return name

    def health(self) -> Mapping[str, Any]:
        """State, model and counts."""
        state, reason = self._told
        classifier, figures = self._pipeline.classifier, self._pipeline.figures()
        return {
            "state": state,
            "reason": reason,
            "source": self._source.name,
            "variant": classifier.variant,
            "release": classifier.release_id,
            "saved": self._saver.saved,
            **pipeline_fields(figures, figures.classified_hz),
        }

    # --- the end ---

    def _summary(self) -> Dict[str, Any]:
        """What there was in all; the rate is that of the time without pauses."""
        has_run = self._ran_since > 0
        figures = self._pipeline.figures() if has_run else Recorder().figures()
        if has_run and not self._is_paused:
            self._note_pause()
        rate_hz = figures.classified / self._ran_seconds if self._ran_seconds > 0 else None
        labels: List[Tuple[str, int]] = self._tally.labels.most_common() if has_run else []
        return {
            **pipeline_fields(figures, rate_hz),
            **machine_fields(self._sensors),
            "seconds": round(time.monotonic() - self._started_at, 3),
            "saved": self._saver.saved,
            "swaps": figures.swaps,
            "labels": dict(labels),
        }
