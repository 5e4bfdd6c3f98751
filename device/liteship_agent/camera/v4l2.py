"""A USB camera, or any other that its driver makes a video node of, through OpenCV."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Optional, Tuple

import cv2

from liteship_agent.camera.clock import NS_PER_SECOND, Clock
from liteship_agent.camera.devices import VideoNodes
from liteship_agent.camera.errors import CameraError, CameraLostError
from liteship_agent.camera.frame import Frame, FrameMaker, FrameOptions

_LARGEST_RAW_PIXELS = 640 * 480
"""USB 2 carries 30 raw frames a second up to this size (18 MB/s); above, the camera's own JPEG is asked for."""
_OLDEST_DRIVER_NS = 5 * NS_PER_SECOND


class VideoNodeSource:
    """A camera that is a video node.

    Args:
        path: For example /dev/video0.
        options: Size, rate and what is done to the frames.
        clock: Monotonic.
        nodes: To find out what the node is, and why it cannot be opened.
        capture: As cv2.VideoCapture.
    """

    is_live = True

    def __init__(
        self,
        path: Path,
        options: FrameOptions,
        clock: Optional[Clock] = None,
        nodes: Optional[VideoNodes] = None,
        capture: Callable[[str, int], Any] = cv2.VideoCapture,
    ) -> None:
        self._path, self._options, self._clock = path, options, clock or Clock()
        self._nodes, self._new_capture = nodes or VideoNodes(), capture
        self._frames = FrameMaker(options, self._clock)
        self._capture: Optional[Any] = None
        self._card = ""
        self._is_stopped = False

    @property
    def name(self) -> str:
        """Card and node, with size and rate once it is open."""
        name = f"{self._card} ({self._path})" if self._card else str(self._path)
        if self._capture is None:
            return name
        width, height, rate_hz = (
            self._capture.get(what) for what in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS)
        )
        return f"{name}, {width:.0f}x{height:.0f}" + (f" at {rate_hz:g} Hz" if rate_hz > 0 else "")

    def open(self) -> None:
        """Open the node and ask for size and rate.

        Raises:
            CameraError: no such node, no camera, in use, not permitted, or refused by OpenCV.
        """
        node = self._nodes.describe(self._path)
        if not node.is_camera:
            raise CameraError(
                f"{self._path}: a camera is required. Received: {node.driver} ({node.card}), which is none"
            )
        self._nodes.check_free(self._path)
        self._card = node.card
        capture = self._new_capture(str(self._path), cv2.CAP_V4L2)
        if not capture.isOpened():
            capture.release()
            self._nodes.check_free(self._path)
            raise CameraError(f"{self._path}: a camera that OpenCV opens is required. Received: {node.card}, refused")
        for what, value in self._wanted(node.formats):
            # A camera that knows no such value keeps its nearest; `name` tells what it is.
            capture.set(what, value)
        self._capture, self._is_stopped = capture, False

    def _wanted(self, formats: Tuple[str, ...]) -> Tuple[Tuple[int, float], ...]:
        options = self._options
        wanted: Tuple[Tuple[int, float], ...] = ((cv2.CAP_PROP_BUFFERSIZE, 1),)
        if options.width is not None and options.height is not None:
            if "MJPG" in formats and options.width * options.height > _LARGEST_RAW_PIXELS:
                wanted += ((cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),)
            wanted += ((cv2.CAP_PROP_FRAME_WIDTH, options.width), (cv2.CAP_PROP_FRAME_HEIGHT, options.height))
        if options.rate_hz is not None:
            wanted += ((cv2.CAP_PROP_FPS, options.rate_hz),)
        return wanted

    def read(self) -> Optional[Frame]:
        """Wait for the next frame.

        Raises:
            FrameError: an empty frame.
            CameraLostError: unplugged, or silent for the ten seconds that OpenCV waits.
        """
        if self._is_stopped or self._capture is None:
            return None
        if not self._capture.grab():
            raise CameraLostError(f"{self.name}: a frame is required. Received: none; is it still plugged in?")
        captured_ns, timed_by = self._time()
        started_ns = self._clock.now_ns()
        _, pixels = self._capture.retrieve()
        return self._frames.make(pixels, captured_ns, timed_by, started_ns)

    def _time(self) -> Tuple[int, str]:
        """The driver's time of the frame that was grabbed, if it is on our clock, else now.

        OpenCV gives the timestamp of the V4L2 buffer as POS_MSEC. Most drivers take it from CLOCK_MONOTONIC; a few
        from the time of day or not at all, and on 32-bit boards OpenCV's milliseconds overflow after 25 days. Those
        do not lie in the seconds before now.
        """
        now_ns = self._clock.now_ns()
        driver_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6) if self._capture is not None else 0
        return (driver_ns, "driver") if now_ns - _OLDEST_DRIVER_NS < driver_ns <= now_ns else (now_ns, "read")

    def close(self) -> None:
        """Give the node back."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def interrupt(self) -> None:
        """Let the next read return at once; one that waits ends with its frame."""
        self._is_stopped = True
