"""Which /dev/video* nodes are cameras, and why one cannot be opened.

A Raspberry Pi has twenty such nodes without any camera: those of its codecs, of its ISP and of its CSI receivers. What
tells a camera from them, by VIDIOC_QUERYCAP, VIDIOC_ENUMINPUT and VIDIOC_ENUM_FMT:

- the node itself (device_caps, not the capabilities of the whole device) captures video on one plane, and streams;
- it is not wired by a media controller: a receiver (unicam, rp1-cfe) lists every format there is and gives no picture
  until a program such as rpicam-vid has set up what stands before it;
- it has an input: the capture nodes of bcm2835-isp have the capabilities and formats of a webcam, but no input;
- one of its formats is a picture, and not the raw Bayer values of a sensor.

Source: the kernel's V4L2 documentation, and what the nodes of a Pi 4 and a Pi 5 answer (tests/device/video_nodes).
"""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Optional, Tuple

from liteship_agent.camera.errors import CameraBusyError, CameraError, CameraPermissionError, NoCameraError

QUERYCAP, ENUM_FMT, REQBUFS, ENUMINPUT = 0x80685600, 0xC0405602, 0xC0145608, 0xC050561A
"""Request numbers on every Linux with the generic encoding, which x86 and ARM have."""
_VIDEO_CAPTURE, _STREAMING, _IO_MC, _HAS_DEVICE_CAPS = 0x1, 0x04000000, 0x20000000, 0x80000000
_TYPE_VIDEO_CAPTURE, _MEMORY_MMAP = 1, 1
_MOST_FORMATS = 128
_BAYER = re.compile(
    r"BA81|BYR2|(GB|GR|RG|BG|BA)(RG|BG|GB|GR|1[0246])|RGGB|p[BGgR](AA|CC|EE)|[abBgr]?[BGgR]A8|PC1[BGgR]"
)
"""Raw Bayer of 8 to 16 bits, packed or not, and as a Pi 5 compresses it."""

Ioctl = Callable[[int, int, bytearray], Any]


@dataclass(frozen=True)
class VideoNode:
    """What a video node says of itself.

    Args:
        path: For example /dev/video0.
        driver, card: For example "uvcvideo" and "HD Pro Webcam C920".
        device_caps: V4L2_CAP_* of this node.
        formats: FourCC of what it captures, such as "MJPG".
        has_input: Whether something feeds it.
    """

    path: Path
    driver: str
    card: str
    device_caps: int
    formats: Tuple[str, ...]
    has_input: bool

    @property
    def is_camera(self) -> bool:
        """Whether opening it and reading gives pictures."""
        captures = self.device_caps & (_VIDEO_CAPTURE | _STREAMING) == _VIDEO_CAPTURE | _STREAMING
        pictures = [name for name in self.formats if not _BAYER.fullmatch(name)]
        return captures and not self.device_caps & _IO_MC and self.has_input and bool(pictures)


class VideoNodes:
    """The video nodes of this machine.

    Args:
        folder: Where they are.
        ioctl: As fcntl.ioctl with a buffer that it fills; raises OSError.
        proc: Where processes and their open files are listed.
    """

    def __init__(self, folder: Path = Path("/dev"), ioctl: Ioctl = fcntl.ioctl, proc: Path = Path("/proc")) -> None:
        self._folder, self._ioctl, self._proc = folder, ioctl, proc

    def paths(self) -> List[Path]:
        """Of all of them, by number."""
        found = [path for path in self._folder.glob("video*") if path.name[5:].isdecimal()]
        return sorted(found, key=lambda path: int(path.name[5:]))

    def describe(self, path: Path) -> VideoNode:
        """Ask one node.

        Raises:
            NoCameraError: there is none, or it is no video node.
            CameraPermissionError: this user may not open it.
            CameraBusyError: another program has it for itself.
        """
        file = self._open(path)
        try:
            return self._describe(path, file)
        except OSError as exc:
            raise NoCameraError(f"{path}: a video node is required. Received: {exc.strerror}") from exc
        finally:
            os.close(file)

    def check_free(self, path: Path) -> None:
        """See whether this process could capture: whoever streams has the node's buffers.

        Raises:
            CameraBusyError: another program streams; the message names it where this user may see it.
            CameraError: as `describe`.
        """
        file = self._open(path)
        try:
            self._ioctl(file, REQBUFS, _request_buffers(1))
            self._ioctl(file, REQBUFS, _request_buffers(0))
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise self._busy(path) from exc
            raise CameraError(f"{path}: a camera that streams is required. Received: {exc.strerror}") from exc
        finally:
            os.close(file)

    def holders(self, path: Path) -> List[str]:
        """Name and process id of the other processes that have the node open, as far as this user may see."""
        path, found = path.resolve(), []
        for process in self._proc.glob("[0-9]*"):
            if process.name != str(os.getpid()) and any(_points_to(link, path) for link in _listed(process / "fd")):
                found.append(f"{_process_name(process)} (process {process.name})")
        return sorted(found)

    def _open(self, path: Path) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_NONBLOCK)
        except PermissionError as exc:
            raise _permission(path) from exc
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise self._busy(path) from exc
            raise NoCameraError(f"{path}: a camera is required. Received: {exc.strerror}") from exc

    def _busy(self, path: Path) -> CameraBusyError:
        by = ", ".join(self.holders(path)) or "a program of another user"
        return CameraBusyError(f"{path}: a free camera is required. Received: one that {by} uses; end that first")

    def _describe(self, path: Path, file: int) -> VideoNode:
        about = bytearray(104)
        self._ioctl(file, QUERYCAP, about)
        driver, card, _, _, capabilities, device_caps = struct.unpack_from("=16s32s32sIII", about)
        return VideoNode(
            path,
            _text(driver),
            _text(card),
            device_caps if capabilities & _HAS_DEVICE_CAPS else capabilities,
            tuple(self._formats(file)),
            self._answer(file, ENUMINPUT, bytearray(80)) is not None,
        )

    def _formats(self, file: int) -> List[str]:
        found: List[str] = []
        for index in range(_MOST_FORMATS):
            asked = bytearray(64)
            struct.pack_into("=II", asked, 0, index, _TYPE_VIDEO_CAPTURE)
            answer = self._answer(file, ENUM_FMT, asked)
            if answer is None:
                break
            found.append(answer[44:48].decode("latin-1").rstrip())
        return found

    def _answer(self, file: int, request: int, asked: bytearray) -> Optional[bytearray]:
        """The filled buffer; null where the driver does not know the request, or has no more to list."""
        try:
            self._ioctl(file, request, asked)
        except OSError as exc:
            if exc.errno in (errno.EINVAL, errno.ENOTTY):
                return None
            raise
        return asked


def _request_buffers(count: int) -> bytearray:
    return bytearray(struct.pack("=IIIII", count, _TYPE_VIDEO_CAPTURE, _MEMORY_MMAP, 0, 0))


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="replace")


def _listed(folder: Path) -> List[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # another user's, or gone
        return []


def _points_to(link: Path, path: Path) -> bool:
    try:
        return os.readlink(link) == str(path)
    except OSError:
        return False


def _process_name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return "a program"


def _permission(path: Path) -> CameraPermissionError:
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    try:
        group = grp.getgrgid(path.stat().st_gid).gr_name
    except (KeyError, OSError):
        group = "video"
    # Some systems let only root in: then joining that group is no advice.
    group = "video" if group == "root" else group
    return CameraPermissionError(
        f"{path}: a user in the group {group} is required. Received: {user}, who is not;"
        f" run `sudo usermod -aG {group} {user}` and log in again"
    )
