"""A moving pattern, for a board without a camera."""

from __future__ import annotations

from typing import Optional

import numpy as np

from liteship_agent.camera.clock import Clock, Pace
from liteship_agent.camera.frame import Frame, FrameMaker, FrameOptions

_WIDTH, _HEIGHT, _RATE_HZ = 640, 480, 30.0
_STEP_PIXELS = 4
_BARS = np.array(
    [(255, 255, 255), (0, 255, 255), (255, 255, 0), (0, 255, 0), (255, 0, 255), (0, 0, 255), (255, 0, 0), (0, 0, 0)],
    np.uint8,
)
"""The colours of a test card, blue, green, red."""


class PatternSource:
    """Colour bars that wander to the left, four pixels a frame: frame n is always the same.

    Args:
        options: Size (640x480), rate (30 Hz), pace and what is done to the frames.
        clock: Monotonic.
    """

    def __init__(self, options: FrameOptions, clock: Optional[Clock] = None) -> None:
        self._options, self._clock = options, clock or Clock()
        self._width, self._height = options.width or _WIDTH, options.height or _HEIGHT
        self._rate_hz = options.rate_hz or _RATE_HZ
        self._frames = FrameMaker(options, self._clock)
        self._pace = Pace(self._clock, None)
        self._shown = 0
        bars = _BARS[np.arange(self._width) * len(_BARS) // self._width]
        # From dark above to full below, so that up and down differ; twice, so that each frame is one piece of it.
        shades = np.linspace(0.25, 1.0, self._height)[:, np.newaxis, np.newaxis]
        picture = (bars[np.newaxis] * shades).astype(np.uint8)
        self._picture = np.concatenate([picture, picture], axis=1)

    @property
    def name(self) -> str:
        """That it is a pattern, with its size and rate."""
        return f"moving pattern, {self._width}x{self._height} at {self._rate_hz:g} Hz"

    @property
    def is_live(self) -> bool:
        """Whether it comes at its rate."""
        return self._options.paced

    def open(self) -> None:
        """Start the clock."""
        self._clock.restore()
        self._pace = Pace(self._clock, self._rate_hz if self._options.paced else None)

    def read(self) -> Optional[Frame]:
        """The next frame when it is due; null when it was interrupted."""
        if not self._pace.wait():
            return None
        started_ns = self._clock.now_ns()
        left = self._shown * _STEP_PIXELS % self._width
        self._shown += 1
        pixels = self._picture[:, left : left + self._width].copy()
        return self._frames.make(pixels, started_ns, "pace" if self.is_live else "read", started_ns)

    def close(self) -> None:
        """Nothing is held."""

    def interrupt(self) -> None:
        """End the wait for the next frame."""
        self._clock.cut()
