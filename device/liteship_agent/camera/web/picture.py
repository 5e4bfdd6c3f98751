"""The live picture as JPEG: made once for all viewers, only while somebody looks, never in the pipeline's threads."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Callable, Optional

import cv2
import numpy as np

from liteship_agent.camera.frame import Frame
from liteship_agent.camera.slot import Latest

RATE_HZ = 20.0
LONGEST_SIDE_PIXELS = 960
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """One encoded frame.

    Args:
        version: Counts the frames that were published; a later one is higher.
        number: Of the frame.
        content: JPEG.
        at_seconds: When it was encoded.
    """

    version: int
    number: int
    content: bytes
    at_seconds: float


class LivePicture:
    """The newest frame for any number of viewers.

    Args:
        frames: Where they come from.
        rate_hz: Pictures per second at most, however many frames there are.
        now, pause: The time in seconds, and how to let some pass.
    """

    def __init__(
        self,
        frames: Latest[Frame],
        rate_hz: float = RATE_HZ,
        now: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._frames, self._interval = frames, 1 / rate_hz
        self._now, self._pause = now, pause
        self._encoding = threading.Lock()
        self._newest: Optional[Picture] = None
        self._encoded = 0

    @property
    def encoded(self) -> int:
        """Frames that were encoded so far."""
        return self._encoded

    @property
    def is_closed(self) -> bool:
        """Whether no more frames come."""
        return self._frames.is_closed

    def next(self, version: int, seconds: float) -> Optional[Picture]:
        """The newest picture after a version, which all who ask now share.

        Args:
            version: Of the last one that was seen; 0 for none.
            seconds: The longest wait for a frame.
        Returns:
            Null if none came in time.
        """
        if self._frames.after(version, seconds)[0] is None:
            return None
        newest = self._newest
        if newest is not None:
            self._pause(max(0.0, newest.at_seconds + self._interval - self._now()))
        with self._encoding:
            newest = self._newest
            if newest is not None and newest.version > version and self._now() - newest.at_seconds < self._interval:
                return newest
            frame, version = self._frames.after(version, 0)
            if frame is None:
                return None
            self._newest = Picture(version, frame.number, encode(frame), self._now())
            self._encoded += 1
            return self._newest


def encode(frame: Frame, longest_side: int = LONGEST_SIDE_PIXELS, quality: int = QUALITY) -> bytes:
    """A frame as JPEG: the camera's own where there is one and it is small enough.

    Args:
        frame: Of any size.
        longest_side: Pixels; a larger frame is shrunk.
        quality: 0 to 100.
    """
    pixels = frame.pixels
    height, width = pixels.shape[:2]
    ratio = longest_side / max(height, width)
    if ratio >= 1:
        return frame.jpeg if frame.jpeg is not None else encode_pixels(pixels, quality)
    size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    return encode_pixels(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), quality)


def encode_pixels(pixels: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 pixels, shape (height, width, 3), blue, green, red."""
    _, content = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return bytes(content)
