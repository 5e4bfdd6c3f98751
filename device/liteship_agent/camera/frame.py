"""One frame, what every source of frames can do, and how odd pixels become a plain picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional, Protocol, Tuple

import cv2
import numpy as np

from liteship_agent.camera.clock import Clock
from liteship_agent.camera.errors import CameraError, FrameError

_ROTATIONS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True)
class Frame:
    """One picture.

    Args:
        pixels: uint8, shape (height, width, 3), channels blue, green, red, contiguous.
        captured_ns: When it was taken, on CLOCK_MONOTONIC.
        number: Counts from 0 and does not start again when a camera is opened again.
        timed_by: Who told the time: "driver" (the camera's), "read" (the moment it arrived) or "pace" (the moment it
            was due, of a file).
        decode_ns: What making the pixels took, without waiting for them.
        jpeg: The camera's own JPEG of these very pixels, where it gave one.
        name: Of the file it comes from, where it comes from one of several.
    """

    pixels: np.ndarray
    captured_ns: int
    number: int
    timed_by: str = "read"
    decode_ns: int = 0
    jpeg: Optional[bytes] = None
    name: Optional[str] = None


class Source(Protocol):
    """Where frames come from. One thread opens, reads and closes; any thread may interrupt."""

    @property
    def name(self) -> str:
        """For people: what it is and, once it is open, its size and rate."""

    @property
    def is_live(self) -> bool:
        """Whether frames come in their own time: what is not taken is lost. Else the next one waits."""

    def open(self) -> None:
        """Get ready to read.

        Raises:
            CameraError: it cannot be opened; the class says why.
        """

    def read(self) -> Optional[Frame]:
        """Wait for the next frame; null when there is none any more, or the wait was interrupted.

        Raises:
            FrameError: this frame is no picture.
            CameraLostError: no frame will come until it is opened again.
        """

    def close(self) -> None:
        """Release what `open` took; it may be opened again."""

    def interrupt(self) -> None:
        """Let a read that waits return soon, and those after it at once."""


@dataclass(frozen=True)
class FrameOptions:
    """How frames are taken, and what is done to them.

    Args:
        width, height: Pixels asked of a camera or the pattern, both or neither; a camera gives what comes next to it,
            a file keeps its own.
        rate_hz: Frames per second; null for the source's own.
        rotate_degrees: Clockwise: 0, 90, 180 or 270.
        mirror: Swap left and right, after the rotation.
        crop: Left, top, width and height of the part that is kept, as ratios of the rotated and mirrored picture.
        loop: Start a video or a folder again at its end.
        paced: Read a video, a folder or the pattern at its rate, as a camera would give it. Else each frame is taken
            when the one before it is through, and none is dropped.
    Raises:
        CameraError: a value out of its range.
    """

    width: Optional[int] = None
    height: Optional[int] = None
    rate_hz: Optional[float] = None
    rotate_degrees: int = 0
    mirror: bool = False
    crop: Optional[Tuple[float, float, float, float]] = None
    loop: bool = False
    paced: bool = True

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise CameraError(f"width and height are required together. Received: {self.width} and {self.height}")
        for name, value in (("width", self.width), ("height", self.height), ("rate", self.rate_hz)):
            if value is not None and not 0 < value < float("inf"):
                raise CameraError(f"a {name} above 0 is required. Received: {value}")
        if self.rotate_degrees not in (0, *_ROTATIONS):
            raise CameraError(f"a rotation of 0, 90, 180 or 270 degrees is required. Received: {self.rotate_degrees}")
        if self.crop is not None:
            left, top, width, height = self.crop
            if min(left, top) < 0 or min(width, height) <= 0 or left + width > 1 or top + height > 1:
                raise CameraError(
                    f"a crop of left, top, width, height within 0 to 1 is required. Received: {self.crop}"
                )

    @property
    def keeps_pixels(self) -> bool:
        """Whether frames stay as they were taken."""
        return not self.rotate_degrees and not self.mirror and self.crop is None

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """Rotate, mirror and crop, each where asked for.

        Args:
            pixels: uint8, shape (height, width, 3), of any size.
        Returns:
            uint8, shape (height, width, 3), contiguous.
        """
        if self.rotate_degrees:
            pixels = cv2.rotate(pixels, _ROTATIONS[self.rotate_degrees])
        if self.mirror:
            pixels = cv2.flip(pixels, 1)
        if self.crop is not None:
            rows, columns = pixels.shape[:2]
            left, top = int(self.crop[0] * columns), int(self.crop[1] * rows)
            width, height = max(1, round(self.crop[2] * columns)), max(1, round(self.crop[3] * rows))
            pixels = pixels[top : top + height, left : left + width]
        return np.ascontiguousarray(pixels)


def to_bgr(pixels: Any) -> np.ndarray:
    """Make a plain picture of what a camera or decoder gave.

    Args:
        pixels: uint8 or uint16 (over its whole range), shape (height, width) or (height, width, 1, 3 or 4): gray, or
            blue, green, red and alpha, which is left out.
    Returns:
        uint8, shape (height, width, 3), blue, green, red.
    Raises:
        FrameError: anything else, or no pixels at all.
    """
    if not isinstance(pixels, np.ndarray) or pixels.size == 0:
        raise FrameError("a frame with pixels is required. Received: an empty one")
    picture: np.ndarray = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
    channels = 1 if picture.ndim == 2 else picture.shape[2] if picture.ndim == 3 else 0
    if picture.dtype != np.uint8 or channels not in (1, 3, 4):
        raise FrameError(
            f"a frame of 1, 3 or 4 channels of 8 or 16 bits is required. Received: {pixels.dtype} of {pixels.shape}"
        )
    if channels != 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR if channels == 1 else cv2.COLOR_BGRA2BGR)
    return picture


class FrameMaker:
    """Numbers the frames of one source, and makes each the picture that its options ask for.

    Args:
        options: What is done to the pixels.
        clock: Tells how long that took.
    """

    def __init__(self, options: FrameOptions, clock: Clock) -> None:
        self._options, self._clock, self._count = options, clock, 0

    def skip(self) -> None:
        """Use up the number of a frame that is not made."""
        self._count += 1

    def make(
        self,
        pixels: Any,
        captured_ns: int,
        timed_by: str,
        started_ns: int,
        jpeg: Optional[bytes] = None,
        name: Optional[str] = None,
    ) -> Frame:
        """The next frame.

        Args:
            pixels: As `to_bgr` takes them.
            captured_ns: As in `Frame`.
            timed_by: As in `Frame`.
            started_ns: When the work on its pixels began.
            jpeg: Of the pixels as they were taken.
            name: Of its file.
        Raises:
            FrameError: the pixels are no picture; its number is used up.
        """
        number, self._count = self._count, self._count + 1
        picture = self._options.apply(to_bgr(pixels))
        kept = jpeg if self._options.keeps_pixels else None
        return Frame(picture, captured_ns, number, timed_by, self._clock.now_ns() - started_ns, kept, name)
