"""What can go wrong with a camera, each as one line: what is required, what was received, what to do."""

from __future__ import annotations

from liteship_agent.errors import AgentError


class CameraError(AgentError):
    """A source of frames that cannot be used as asked."""


class NoCameraError(CameraError):
    """Nothing here gives pictures."""


class CameraBusyError(CameraError):
    """Another program has the camera."""


class CameraPermissionError(CameraError):
    """This user may not open the camera."""


class CameraLostError(CameraError):
    """The camera was there and gives no more frames: unplugged, stalled, or its program has ended."""


class FrameError(CameraError):
    """One frame that is no picture; the next one may be."""
