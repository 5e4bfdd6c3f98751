"""Which source a word on the command line means, and which camera `auto` finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable, List, Optional

from liteship_agent.camera.devices import VideoNode, VideoNodes
from liteship_agent.camera.errors import CameraError, CameraPermissionError, NoCameraError
from liteship_agent.camera.files import FolderSource, VideoFileSource
from liteship_agent.camera.frame import FrameOptions, Source
from liteship_agent.camera.pattern import PatternSource
from liteship_agent.camera.reconnect import ReconnectingSource
from liteship_agent.camera.rpicam import PROGRAMS, PiCameraSource, find_program, list_cameras
from liteship_agent.camera.v4l2 import VideoNodeSource

SOURCES = "auto, pi, pi:NUMBER, /dev/videoN, a video file, a folder of pictures, or pattern"


def make_source(
    word: str,
    options: FrameOptions,
    nodes: Optional[VideoNodes] = None,
    program: Callable[[], Optional[str]] = find_program,
) -> Source:
    """The source that a word means, not opened yet; a camera comes back by itself when it is lost.

    Args:
        word: As in `SOURCES`.
        options: How frames are taken, and what is done to them.
        nodes: Where to look for video nodes; this machine's if null.
        program: Finds the Pi's camera program.
    Raises:
        NoCameraError: `auto` found none; the message says where it looked.
        CameraPermissionError: `auto` found none that this user may open.
        CameraError: the word means nothing.
    """
    nodes = nodes or VideoNodes()
    if word == "auto":
        return ReconnectingSource(_found(options, nodes, program))
    if word == "pattern":
        return PatternSource(options)
    pi = re.fullmatch(r"pi(?::(\d+))?", word)
    if pi:
        return ReconnectingSource(PiCameraSource(options, program=program(), number=int(pi.group(1) or 0)))
    path = Path(word)
    if path.is_dir():
        return FolderSource(path, options)
    if path.is_char_device() or word.startswith("/dev/"):
        return ReconnectingSource(VideoNodeSource(path, options, nodes=nodes))
    if path.is_file():
        return VideoFileSource(path, options)
    raise CameraError(f"{SOURCES} is required. Received: {word}")


def _found(options: FrameOptions, nodes: VideoNodes, program: Callable[[], Optional[str]]) -> Source:
    """The first video node that is a camera, else the first Pi camera."""
    seen: List[VideoNode] = []
    denied: Optional[CameraPermissionError] = None
    for path in nodes.paths():
        try:
            node = nodes.describe(path)
        except CameraPermissionError as exc:
            denied = denied or exc
        except NoCameraError:
            continue  # unplugged since it was listed
        else:
            if node.is_camera:
                return VideoNodeSource(path, options, nodes=nodes)
            seen.append(node)
    found = program()
    if found is not None and list_cameras(found):
        return PiCameraSource(options, program=found)
    if denied is not None:
        raise denied
    raise NoCameraError(
        f"a camera is required. Received: {_looked_at(seen)}, {_program_says(found)}; connect one, or"
        " choose a video, a folder or pattern with --source"
    )


def _looked_at(seen: List[VideoNode]) -> str:
    if not seen:
        return "no video node"
    drivers = ", ".join(sorted({node.driver for node in seen}))
    return f"{len(seen)} video nodes that are none ({drivers})"


def _program_says(program: Optional[str]) -> str:
    return f"no {' or '.join(PROGRAMS)}" if program is None else f"none that {Path(program).name} lists"
