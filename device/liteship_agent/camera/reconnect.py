"""A camera that comes back: opened again, at growing intervals, when it was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from liteship_agent.camera.clock import Clock
from liteship_agent.camera.errors import CameraError, FrameError
from liteship_agent.camera.frame import Frame, Source

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 8.0


@dataclass(frozen=True)
class Lost:
    """A camera that does not answer now.

    Args:
        reason: The error, one line.
        tries: How often it was opened since, in vain.
        wait_seconds: From the last try to the next.
    """

    reason: str
    tries: int
    wait_seconds: float


class ReconnectingSource:
    """Another source, opened again when it is lost; only the first opening may fail.

    Args:
        source: The camera.
        clock: Whose waits `interrupt` cuts; not the one of the camera.
    """

    def __init__(self, source: Source, clock: Optional[Clock] = None) -> None:
        self._source, self._clock = source, clock or Clock()
        self._lost: Optional[Lost] = None
        self._is_stopped = self._was_open = False

    @property
    def name(self) -> str:
        """The camera's."""
        return self._source.name

    @property
    def is_live(self) -> bool:
        """The camera's."""
        return self._source.is_live

    @property
    def lost(self) -> Optional[Lost]:
        """Why there are no frames now; null while there are."""
        return self._lost

    def open(self) -> None:
        """Open the camera.

        Raises:
            CameraError: it cannot be opened, and never was; later on that is one more reason to try again.
        """
        self._clock.restore()
        self._is_stopped, self._lost = False, None
        try:
            self._source.open()
        except CameraError as exc:
            if not self._was_open:
                raise
            self._note(exc)
        self._was_open = True

    def read(self) -> Optional[Frame]:
        """Wait for the next frame, however long the camera is away; null only when interrupted, or at its end.

        Raises:
            FrameError: this frame is no picture.
        """
        while not self._is_stopped:
            try:
                if self._lost is not None and not self._opened_again(self._lost):
                    return None
                frame = self._source.read()
            except FrameError:
                raise
            except CameraError as exc:
                self._note(exc)
            else:
                self._lost = None
                return frame
        return None

    def _opened_again(self, lost: Lost) -> bool:
        if not self._clock.wait(lost.wait_seconds):
            return False
        self._source.open()
        return not self._is_stopped  # opening took away the source's own mark

    def _note(self, error: CameraError) -> None:
        """Close what is left and plan the next try, twice as far away as the one before."""
        self._source.close()
        before = self._lost
        if before is None:
            self._lost = Lost(str(error), 0, FIRST_WAIT_SECONDS)
        else:
            wait_seconds = min(LONGEST_WAIT_SECONDS, 2 * before.wait_seconds)
            self._lost = Lost(str(error), before.tries + 1, wait_seconds)

    def close(self) -> None:
        """Close the camera."""
        self._source.close()

    def interrupt(self) -> None:
        """End a wait for a frame or for the next try."""
        self._is_stopped = True
        self._clock.cut()
        self._source.interrupt()
