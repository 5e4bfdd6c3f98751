"""Frames from files: a video, or a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator, List, Optional

import cv2

from liteship_agent.camera.clock import Clock, Pace
from liteship_agent.camera.errors import CameraError, FrameError
from liteship_agent.camera.frame import Frame, FrameMaker, FrameOptions
from liteship_agent.errors import ImageError
from liteship_agent.preprocess import decode

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_FOLDER_RATE_HZ = 1.0
_HIGHEST_RATE_HZ = 1000.0


class VideoFileSource:
    """A video file, at its own rate or another, or as fast as its frames are taken.

    Args:
        path: Of any kind that OpenCV reads.
        options: Rate, pace, loop and what is done to the frames.
        clock: Monotonic.
    """

    def __init__(self, path: Path, options: FrameOptions, clock: Optional[Clock] = None) -> None:
        self._path, self._options, self._clock = path, options, clock or Clock()
        self._frames = FrameMaker(options, self._clock)
        self._capture: Optional[Any] = None
        self._pace = Pace(self._clock, None)
        self._since_start = 0

    @property
    def name(self) -> str:
        """The file's name."""
        return self._path.name

    @property
    def is_live(self) -> bool:
        """Whether it is read at its rate."""
        return self._options.paced

    def open(self) -> None:
        """Open the file at its start.

        Raises:
            CameraError: OpenCV cannot read it, or it tells no rate and none is given.
        """
        if not self._path.is_file():
            raise CameraError(f"{self._path}: a video file is required. Received: none of that name")
        self._clock.restore()
        self._capture, self._since_start = self._opened(), 0
        rate_hz = self._options.rate_hz or self._capture.get(cv2.CAP_PROP_FPS)
        if self._options.paced and not 0 < rate_hz <= _HIGHEST_RATE_HZ:
            raise CameraError(f"{self._path}: a frame rate is required. Received: {rate_hz:g} Hz; give one with --rate")
        self._pace = Pace(self._clock, rate_hz if self._options.paced else None)

    def _opened(self) -> Any:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise CameraError(f"{self._path}: a video is required. Received: a file that OpenCV cannot read")
        return capture

    def read(self) -> Optional[Frame]:
        """The next frame when it is due; null at the end.

        Raises:
            FrameError: an empty frame.
            CameraError: a video without a single frame.
        """
        if self._capture is None or not self._pace.wait():
            return None
        started_ns = self._clock.now_ns()
        if not self._capture.grab() and not self._begin_again():
            return None
        _, pixels = self._capture.retrieve()
        self._since_start += 1
        return self._frames.make(pixels, started_ns, "pace" if self.is_live else "read", started_ns)

    def _begin_again(self) -> bool:
        """At the end: grab the first frame again if the video loops; false if it does not."""
        if not self._since_start:
            raise CameraError(f"{self._path}: a video with frames is required. Received: one without")
        if not self._options.loop or self._capture is None:
            return False
        # Opened anew: seeking to the start fails in some containers, and says nothing.
        self._capture.release()
        self._capture, self._since_start = self._opened(), 0
        return bool(self._capture.grab())

    def close(self) -> None:
        """Close the file."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def interrupt(self) -> None:
        """End the wait for the next frame."""
        self._clock.cut()


class FolderSource:
    """The pictures of a folder, and of the folders in it, by name.

    Args:
        folder: Other files in it are left out.
        options: Rate (1 Hz if none is given), pace, loop and what is done to the frames.
        clock: Monotonic.
    """

    def __init__(self, folder: Path, options: FrameOptions, clock: Optional[Clock] = None) -> None:
        self._folder, self._options, self._clock = folder, options, clock or Clock()
        self._frames = FrameMaker(options, self._clock)
        self._pace = Pace(self._clock, None)
        self._paths: Iterator[Path] = iter(())

    @property
    def name(self) -> str:
        """The folder's name."""
        return f"{self._folder.name}/"

    @property
    def is_live(self) -> bool:
        """Whether it is read at a rate."""
        return self._options.paced

    def open(self) -> None:
        """Find the pictures.

        Raises:
            CameraError: there are none.
        """
        self._clock.restore()
        paths = self._found()
        if not paths:
            raise CameraError(
                f"{self._folder}: a folder with pictures is required. Received: none ({', '.join(PICTURES)})"
            )
        self._paths = _repeated(paths) if self._options.loop else iter(paths)
        self._pace = Pace(self._clock, (self._options.rate_hz or _FOLDER_RATE_HZ) if self._options.paced else None)

    def _found(self) -> List[Path]:
        paths = self._folder.rglob("*")
        return sorted(path for path in paths if path.suffix.lower() in PICTURES and path.is_file())

    def read(self) -> Optional[Frame]:
        """The next picture when it is due; null at the end.

        Raises:
            FrameError: a file that is no whole picture, or cannot be read; the message names it.
        """
        if not self._pace.wait():
            return None
        path = next(self._paths, None)
        if path is None:
            return None
        name = path.relative_to(self._folder).as_posix()
        started_ns = self._clock.now_ns()
        try:
            pixels = decode(path.read_bytes(), name)
        except (ImageError, OSError) as exc:
            self._frames.skip()
            raise FrameError(str(exc)) from exc
        return self._frames.make(pixels, started_ns, "pace" if self.is_live else "read", started_ns, name=name)

    def close(self) -> None:
        """Forget the list of files."""
        self._paths = iter(())

    def interrupt(self) -> None:
        """End the wait for the next picture."""
        self._clock.cut()


def _repeated(paths: List[Path]) -> Iterator[Path]:
    while True:
        yield from paths
