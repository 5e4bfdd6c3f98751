"""Tells of a running camera: the newest frame ten times a second at most, figures once a second, and each swap."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, Dict, Mapping, Optional

from liteship_agent.camera.pipeline import Pipeline
from liteship_agent.camera.tally import Swap, Tally, frame_record
from liteship_agent.camera.vitals import RecentRate, machine_fields, pipeline_fields
from liteship_agent.camera.web.feed import Feed
from liteship_agent.sensors import Sensors

Event = Dict[str, Any]
Tell = Callable[[Event], None]
_FRAME_SECONDS = 0.1
_FIGURES_SECONDS = 1.0


class Reporter:
    """A thread that looks at a pipeline and tells.

    Args:
        pipeline: To look at.
        tally: Its results.
        feed: Of the page.
        tell: Takes event lines.
        viewers: How many look at the page now.
        sensors: Of this machine.
        with_frames: Whether it tells of frames, and not another who tells of every one.
        swapped: Called for each swap that happened.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        tally: Tally,
        feed: Feed,
        tell: Tell,
        viewers: Callable[[], int],
        sensors: Sensors,
        with_frames: bool,
        swapped: Callable[[Swap], None],
    ) -> None:
        self._pipeline, self._tally, self._feed, self._tell = pipeline, tally, feed, tell
        self._viewers, self._sensors, self._with_frames, self._swapped = viewers, sensors, with_frames, swapped
        self._rate = RecentRate()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Tell no more."""
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        results = self._tally.subscribe()
        next_figures = time.monotonic()
        while not self._stopped.wait(_FRAME_SECONDS):
            result = results.next(0)
            if result is not None:
                self._say_frame(frame_record(result))
            while self._tally.swaps:
                self._swapped(self._tally.swaps.popleft())
            if time.monotonic() >= next_figures:
                next_figures = time.monotonic() + _FIGURES_SECONDS
                self._say_figures()

    def _say_frame(self, record: Mapping[str, Any]) -> None:
        self._feed.publish("frame", record)
        if self._with_frames:
            self._tell({"event": "frame", **record})

    def _say_figures(self) -> None:
        figures = self._pipeline.figures()
        rate_hz: Optional[float] = self._rate.update(time.monotonic_ns(), figures.classified)
        fields = {**pipeline_fields(figures, rate_hz), **machine_fields(self._sensors), "viewers": self._viewers()}
        self._feed.publish("figures", fields)
        self._tell({"event": "figures", **fields})
