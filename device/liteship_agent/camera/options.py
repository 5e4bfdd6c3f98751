"""The options of `liteship-agent camera`, read and checked before anything is loaded."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

VIEWS = ("web", "terminal", "none")
RELEASE_OPTION, RUNTIME_OPTION, VARIANTS_OPTION = "--release", "--runtime-folder", "--variants"
_ROTATIONS = (0, 90, 180, 270)


@dataclass(frozen=True)
class CameraOptions:
    """What a camera is asked for.

    Args:
        folder: The liteship folder.
        source: See `sources.SOURCES`; `rpicam` is another word for `pi`.
        size: Width and height in pixels that a camera is asked for.
        rate_hz: Frames per second that it is asked for, or that a file is read with; 0 reads a file as fast as its
            frames are labelled; null is the file's own rate, and 30 of a camera.
        rotate_degrees, mirror, crop, loop: As in `frame.FrameOptions`.
        variant: Of the release; null for its baseline, or the first that loads.
        runtime: Folder name of a runtime of the release, or the beginning of one; null for any.
        threads: Of the interpreter; null for all CPUs but one, four at most.
        cpus: To be bound to, as the kernel lists them; null for all.
        threshold: Least smoothed score of a label that is shown; below, the answer is unsure.
        smoothing: Share of the answer before that is left after a tenth of a second: 0 is none, and below 1.
        view: One of VIEWS.
        host, port, token: Where the page is served, and who may see it.
        log: File of a JSON line per labelled frame.
        save_folder: Where saved frames go.
        duration_seconds, frames: After which it ends, the latter labelled ones; null for never.
        events: Event lines on stdout; it ends when stdin does.
        log_events: A frame event for every labelled frame.
    """

    folder: Path
    source: str
    size: Tuple[int, int]
    rate_hz: Optional[float]
    rotate_degrees: int
    mirror: bool
    crop: Optional[Tuple[float, float, float, float]]
    loop: bool
    variant: Optional[str]
    runtime: Optional[str]
    threads: Optional[int]
    cpus: Optional[str]
    threshold: float
    smoothing: float
    view: str
    host: str
    port: int
    token: Optional[str]
    log: Optional[Path]
    save_folder: Path
    duration_seconds: Optional[float]
    frames: Optional[int]
    events: bool
    log_events: bool

    @classmethod
    def of(cls, parsed: argparse.Namespace) -> CameraOptions:
        """From parsed words."""
        known = {name: getattr(parsed, name) for name in cls.__dataclass_fields__}
        if known["save_folder"] is None:
            known["save_folder"] = parsed.folder / "frames"
        return cls(**known)


def add_camera_options(parser: argparse.ArgumentParser) -> None:
    """All but --folder."""
    add = parser.add_argument
    add("--source", default="auto", help="auto, pattern, rpicam, /dev/videoN, a video or a folder of pictures (auto)")
    add("--size", type=_size, default=(640, 480), metavar="WxH", help="pixels that a camera is asked for (640x480)")
    add("--rate", type=_rate, dest="rate_hz", metavar="HZ", help="frames per second; 0: a file as fast as it goes (30)")
    add("--rotate", type=int, choices=_ROTATIONS, default=0, dest="rotate_degrees", help="degrees clockwise (0)")
    add("--mirror", action="store_true", help="swap left and right")
    add("--crop", type=_crop, metavar="X,Y,W,H", help="the part that is looked at, as shares of the picture, 0 to 1")
    add("--loop", action="store_true", help="begin a file again at its end")
    add("--variant", metavar="NAME", help="such as none-int8 (the baseline, else the first that loads)")
    add("--runtime", metavar="NAME", help="such as ai-edge-litert (any of the release)")
    add("--threads", type=_positive, metavar="N", help="of the interpreter (all CPUs but one, 4 at most)")
    add("--cpus", metavar="SET", help="CPUs to run on, such as 4-7 (all)")
    add("--threshold", type=_ratio, default=0.6, metavar="R", help="below this score the answer is unsure (0.6)")
    add("--smoothing", type=_below_one, default=0.7, metavar="R", help="0 none, 0.9 steady but late (0.7)")
    add("--view", choices=VIEWS, default="web", help="where the answer is shown (web)")
    add("--host", default="127.0.0.1", help="address of the page; another than 127.0.0.1 needs --token (127.0.0.1)")
    add("--port", type=_port, default=0, help="of the page (any free one)")
    add("--token", metavar="TEXT", help="that the page asks for; auto makes one (none)")
    add("--log", type=Path, metavar="PATH", help="write a JSON line for every labelled frame")
    add("--save-folder", type=Path, metavar="PATH", help="where saved frames go (FOLDER/frames)")
    add("--duration", type=_seconds, dest="duration_seconds", metavar="SECONDS", help="end after so long (never)")
    add("--frames", type=_positive, metavar="N", help="end after so many labelled frames (never)")
    add("--events", action="store_true", help="event lines on stdout; ends when stdin does (the host sets it)")
    add("--log-events", action="store_true", help="a frame event for every labelled frame (the host sets it)")


def _size(text: str) -> Tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and 0 < int(width) <= 10000 and 0 < int(height) <= 10000):
        raise argparse.ArgumentTypeError(f"a size such as 640x480 is required. Received: {text}")
    return int(width), int(height)


def _number(text: str, required: str, lowest: float, highest: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"{required} is required. Received: {text}")
    return value


def _rate(text: str) -> float:
    return _number(text, "a rate from 0 to 1000 Hz", 0, 1000)


def _ratio(text: str) -> float:
    return _number(text, "a number from 0 to 1", 0, 1)


def _below_one(text: str) -> float:
    return _number(text, "a number from 0 to 0.999", 0, 0.999)


def _seconds(text: str) -> float:
    return _number(text, "a number of seconds above 0", 1e-3, 1e9)


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"a number above 0 is required. Received: {text}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port from 0 to 65535 is required. Received: {text}")
    return int(text)


def _crop(text: str) -> Tuple[float, float, float, float]:
    try:
        left, top, width, height = (float(part) for part in text.split(","))
    except ValueError:
        left = top = width = height = -1.0
    if min(left, top) < 0 or min(width, height) <= 0 or left + width > 1 or top + height > 1:
        raise argparse.ArgumentTypeError(
            f"left, top, width and height from 0 to 1, such as 0.25,0,0.5,1, are required. Received: {text}"
        )
    return left, top, width, height
