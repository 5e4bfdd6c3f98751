"""Cameras without a camera: clocks that only tests turn, scripted sources, recorded video nodes, a fake rpicam-vid."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from liteship_agent.camera.classifier import Classifier
from liteship_agent.camera.clock import Clock
from liteship_agent.camera.devices import ENUM_FMT, ENUMINPUT, QUERYCAP, REQBUFS, VideoNodes
from liteship_agent.camera.frame import Frame
from liteship_agent.runtime import Model
from tflite_samples import color_classifier, color_contracts

LABELS = ("red", "green", "blue")
RECORDED = Path(__file__).parent / "video_nodes"


class TestClock(Clock):
    """Time that passes only while somebody waits, and then at once."""

    __test__ = False

    def __init__(self, now_ns: int = 1_000_000_000) -> None:
        super().__init__()
        self.time_ns = now_ns
        self.waits: list[float] = []
        self.is_cut = False

    def now_ns(self) -> int:
        return self.time_ns

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.time_ns += round(seconds * 1e9)
        return not self.is_cut

    def cut(self) -> None:
        self.is_cut = True

    def restore(self) -> None:
        self.is_cut = False


def plain(color: int, height: int = 12, width: int = 16) -> np.ndarray:
    """A picture of one color: 0 is red, 1 green, 2 blue, as in `LABELS`."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 2 - color] = 255
    return pixels


def jpeg(pixels: np.ndarray) -> bytes:
    done, content = cv2.imencode(".jpg", pixels)
    assert done
    return content.tobytes()


def classifier(variant: str = "none-none", dtype: str = "float32", **changes: Any) -> Classifier:
    """Labels by mean color; `weights` and `labels` make it another one."""
    labels = changes.pop("labels", LABELS)
    model = Model(color_classifier(dtype=dtype, **changes), 1, variant)
    return Classifier(model, *color_contracts(dtype=dtype), tuple(labels), variant)


class ScriptedSource:
    """Gives what the script says: pixels become a frame, an error is raised, a function is called first.

    Args:
        script: Taken in order over all openings; at its end the source ends.
        live: Whether frames that are not taken are lost.
    """

    def __init__(self, script: Iterable[Any], live: bool = False, clock: Clock | None = None) -> None:
        self.name = "script"
        self.is_live = live
        self.calls: list[str] = []
        self._script, self._clock, self._count = iter(script), clock or Clock(), 0
        self.opening: list[Exception | None] = []

    def open(self) -> None:
        self.calls.append("open")
        error = self.opening.pop(0) if self.opening else None
        if error is not None:
            raise error

    def read(self) -> Frame | None:
        step = next(self._script, None)
        while callable(step):
            step = step()
        if step is None:
            return None
        number, self._count = self._count, self._count + 1
        if isinstance(step, Exception):
            raise step
        return Frame(step, self._clock.now_ns(), number)

    def close(self) -> None:
        self.calls.append("close")

    def interrupt(self) -> None:
        self.calls.append("interrupt")


class RecordedNodes:
    """What the video nodes of a machine answered, behind files of the same names.

    Args:
        folder: Gets one empty file a node.
        machine: Name of the record.
        busy: Nodes that another process streams from.
    """

    def __init__(self, folder: Path, machine: str, busy: Iterable[str] = ()) -> None:
        self.answers: Mapping[str, Any] = json.loads((RECORDED / f"{machine}.json").read_text())["nodes"]
        self.busy = tuple(busy)
        for name in self.answers:
            (folder / name).touch()
        self.nodes = VideoNodes(folder, self.ioctl, folder / "proc")

    def ioctl(self, file: int, request: int, buffer: bytearray) -> int:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{file}"))
        answer = self.answers[name]
        if request == QUERYCAP:
            caps = int(answer["capabilities"], 16), int(answer["device_caps"], 16)
            head = answer["driver"].encode(), answer["card"].encode(), b"platform", 0x60000, *caps
            struct.pack_into("=16s32s32sIII", buffer, 0, *head)
        elif request == ENUMINPUT:
            if not answer["inputs"]:
                raise OSError(errno.ENOTTY, "Inappropriate ioctl for device")
            struct.pack_into("=I32sI", buffer, 0, 0, answer["inputs"][0].encode(), 2)
        elif request == ENUM_FMT:
            index, formats = struct.unpack_from("=I", buffer)[0], answer["formats"].split()
            if index >= len(formats):
                raise OSError(errno.EINVAL, "Invalid argument")
            struct.pack_into("=4s", buffer, 44, formats[index].ljust(4).encode())
        elif request == REQBUFS and name in self.busy:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return 0


def fake_process(proc: Path, process_id: int, name: str, opened: Path) -> None:
    """A process in a /proc of our own that has a file open."""
    (proc / str(process_id) / "fd").mkdir(parents=True)
    (proc / str(process_id) / "comm").write_text(f"{name}\n")
    (proc / str(process_id) / "fd" / "3").symlink_to(opened)


def fake_rpicam(folder: Path, body: str, listed: str = "0 : imx708 [4608x2592 10-bit RGGB] (/base/soc/i2c)") -> str:
    """An executable that stands for rpicam-vid.

    Args:
        folder: Where it is made.
        body: Python, run after it was asked for a stream; `out` is its stdout.
        listed: What it says to --list-cameras.
    Returns:
        Its path; it keeps its arguments in `arguments.json` beside it, and its process id in `pid`.
    """
    path = folder / "rpicam-vid"
    head = f"""\
        #!{sys.executable} -I
        import json, os, pathlib, signal, sys, time
        here = pathlib.Path(__file__).parent
        if "--list-cameras" in sys.argv:
            print("Available cameras\\n-----------------\\n" + {listed!r})
            sys.exit(0)
        (here / "arguments.json").write_text(json.dumps(sys.argv[1:]))
        (here / "pid").write_text(str(os.getpid()))
        out = sys.stdout.buffer
        """
    path.write_text(textwrap.dedent(head) + textwrap.dedent(body))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


class FakeCapture:
    """Stands for cv2.VideoCapture of a camera.

    Args:
        frames: What `retrieve` gives, one a `grab`; at their end it is unplugged.
        opens: Whether it can be opened.
        times_ms: What the driver says when each was taken.
    """

    def __init__(self, frames: Iterable[Any], opens: bool = True, times_ms: Iterable[float] = ()) -> None:
        self._frames, self._times, self._opens = list(frames), list(times_ms), opens
        self.set_values: dict[int, float] = {}
        self._frame: Any = None
        self._time_ms = 0.0
        self.is_released = False

    def __call__(self, path: str, backend: int) -> FakeCapture:
        self.path, self.backend = path, backend
        return self

    def isOpened(self) -> bool:
        return self._opens

    def set(self, what: int, value: float) -> bool:
        self.set_values[what] = value
        return True

    def get(self, what: int) -> float:
        return self._time_ms if what == cv2.CAP_PROP_POS_MSEC else self.set_values.get(what, 0.0)

    def grab(self) -> bool:
        if not self._frames:
            return False
        self._frame = self._frames.pop(0)
        self._time_ms = self._times.pop(0) if self._times else 0.0
        return True

    def retrieve(self) -> tuple[bool, Any]:
        return self._frame is not None, self._frame

    def release(self) -> None:
        self.is_released = True


def write_video(path: Path, frames: Iterable[np.ndarray], rate_hz: float = 25.0) -> Path:
    """An AVI file of whole JPEG pictures."""
    frames = list(frames)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate_hz, frames[0].shape[1::-1])
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path
