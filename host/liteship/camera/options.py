"""What the camera of a target is asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class CameraOptions:
    """What the agent's camera is asked for, by the names of its options; what is None or False is left to it.

    Args:
        source: auto, pattern, rpicam, a device, a file or a folder on the target.
        size: Of a frame, such as 640x480.
        rate: Frames per second.
        rotate: Degrees clockwise: 0, 90, 180 or 270.
        mirror: Left is right.
        crop: X,Y,W,H as shares of the frame, from 0 to 1.
        loop: Begin a file again at its end.
        variant, runtime, threads, cpus: Which model, and how it runs.
        threshold: Below this the answer is unsure, from 0 to 1.
        smoothing: 0 for none, below 1.
        view: web or none: whether the agent serves a page.
        token: That the page requires: a text, auto or none.
        save_folder: Where the page saves frames, on the target.
        duration: Seconds after which it ends.
        frames: Classified frames after which it ends.
        log_events: Tell every classified frame, not ten a second.
    """

    source: str | None = None
    size: str | None = None
    rate: float | None = None
    rotate: int | None = None
    mirror: bool = False
    crop: str | None = None
    loop: bool = False
    variant: str | None = None
    runtime: str | None = None
    threads: int | None = None
    cpus: str | None = None
    threshold: float | None = None
    smoothing: float | None = None
    view: str = "none"
    token: str | None = None
    save_folder: str | None = None
    duration: float | None = None
    frames: int | None = None
    log_events: bool = False

    def words(self) -> list[str]:
        """For the agent's command line."""
        words = []
        for one in fields(self):
            value, name = getattr(self, one.name), one.name.replace("_", "-")
            if value is True:
                words.append(f"--{name}")
            elif value is not None and value is not False:
                words.append(f"--{name}={value:g}" if isinstance(value, float) else f"--{name}={value}")
        return words
