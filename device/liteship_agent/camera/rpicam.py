"""A Pi camera: the JPEG pictures that rpicam-vid, or libcamera-vid before it, writes to its stdout.

No Python binding: picamera2 needs the system's own numpy, which a release's hides.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import threading
from typing import IO, Callable, List, Optional

from liteship_agent.camera.clock import Clock
from liteship_agent.camera.errors import CameraBusyError, CameraError, CameraLostError, FrameError, NoCameraError
from liteship_agent.camera.frame import Frame, FrameMaker, FrameOptions
from liteship_agent.camera.mjpeg import MjpegParser
from liteship_agent.errors import ImageError
from liteship_agent.preprocess import decode

PROGRAMS = ("rpicam-vid", "libcamera-vid")
_LISTED = re.compile(r"^\s*(\d+) : (.+?) \[", re.MULTILINE)
_PROGRESS = re.compile(r"#\d+ \(")
"""A line a frame, which says nothing about why the program ended."""
_IN_USE = re.compile(r"in use by another process|failed to acquire camera|Device or resource busy", re.IGNORECASE)
_CHUNK_BYTES, _MOST_CHUNKS, _ERROR_BYTES = 65536, 16, 4096
_LIST_SECONDS, _STALL_SECONDS, _END_SECONDS = 20.0, 10.0, 2.0


def find_program(which: Callable[[str], Optional[str]] = shutil.which) -> Optional[str]:
    """Path of the camera program of this system, the newer name first."""
    return next((path for path in map(which, PROGRAMS) if path is not None), None)


def list_cameras(program: str) -> List[str]:
    """Names of the cameras that the program sees, such as "imx708", by number.

    Raises:
        CameraError: it does not answer, or cannot be run.
    """
    try:
        done = subprocess.run(
            [program, "--list-cameras"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_LIST_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise CameraError(f"{program}: a list of cameras is required. Received: {exc}") from exc
    return [name for _, name in _LISTED.findall(done.stdout.decode(errors="replace"))]


class PiCameraSource:
    """A camera on the board's CSI connector.

    Args:
        options: Size, rate and what is done to the frames.
        clock: Monotonic.
        program: Path of rpicam-vid or libcamera-vid; null to look for it.
        number: Which camera.
        is_readable: Whether a file descriptor has something to read within so many seconds.
    """

    is_live = True

    def __init__(
        self,
        options: FrameOptions,
        clock: Optional[Clock] = None,
        program: Optional[str] = None,
        number: int = 0,
        is_readable: Optional[Callable[[int, float], bool]] = None,
    ) -> None:
        self._options, self._clock, self._program, self._number = options, clock or Clock(), program, number
        self._is_readable = is_readable or _is_readable
        self._frames = FrameMaker(options, self._clock)
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._parser = MjpegParser()
        self._newest: Optional[bytes] = None
        self._reported = self._arrived_ns = 0
        self._errors: Optional[_Tail] = None
        self._is_stopped = self._is_over = False

    @property
    def name(self) -> str:
        """Which camera, and the program that reads it."""
        return f"Pi camera {self._number} ({os.path.basename(self._program or PROGRAMS[0])})"

    def open(self) -> None:
        """Start the program; what it then complains of is the error of the first read.

        Raises:
            NoCameraError: there is no such program.
        """
        self._program = self._program or find_program()
        if self._program is None:
            raise NoCameraError(f"{' or '.join(PROGRAMS)} is required. Received: neither; install rpicam-apps")
        try:
            process = subprocess.Popen(
                self._command(self._program), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as exc:
            raise NoCameraError(f"{self._program}: a program is required. Received: {exc.strerror}") from exc
        if process.stderr is None:  # pragma: no cover (it was asked for)
            raise CameraError(f"{self._program}: its messages are required. Received: no pipe")
        self._parser, self._reported, self._newest = MjpegParser(), 0, None
        self._is_stopped = self._is_over = False
        self._errors = _Tail(process.stderr)
        self._process = process

    def _command(self, program: str) -> List[str]:
        command = [program, "--codec", "mjpeg", "--output", "-", "--timeout", "0", "--nopreview", "--flush"]
        command += ["--camera", str(self._number)]
        options = self._options
        if options.width is not None and options.height is not None:
            command += ["--width", str(options.width), "--height", str(options.height)]
        if options.rate_hz is not None:
            command += ["--framerate", f"{options.rate_hz:g}"]
        return command

    def read(self) -> Optional[Frame]:
        """Wait for the next picture; of several that wait already, the newest, and the others' numbers are left out.

        Raises:
            FrameError: a picture that was cut, or cannot be decoded.
            CameraLostError: the program ended, or is silent for ten seconds.
            CameraBusyError: it ended because another program has the camera.
        """
        while not self._is_stopped and self._process is not None:
            if self._parser.broken > self._reported:
                self._reported += 1
                self._frames.skip()
                raise FrameError(f"{self.name}: a whole picture is required. Received: one that is cut or too long")
            if self._newest is not None:
                picture, self._newest = self._newest, None
                return self._decoded(picture)
            if self._is_over:
                raise self._ended(self._process)
            self._receive(self._process)
        return None

    def _receive(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for output and take all there is: an older picture in the pipe would only make a later one late."""
        stream = process.stdout.fileno() if process.stdout is not None else -1
        if not self._is_readable(stream, _STALL_SECONDS):
            raise CameraLostError(f"{self.name}: a frame is required. Received: none for {_STALL_SECONDS:g} s")
        for _ in range(_MOST_CHUNKS):
            chunk = os.read(stream, _CHUNK_BYTES)
            self._is_over = not chunk
            for picture in self._parser.feed(chunk):
                if self._newest is not None:
                    self._frames.skip()
                self._newest, self._arrived_ns = picture, self._clock.now_ns()
            if self._is_over or not self._is_readable(stream, 0.0):
                break

    def _ended(self, process: subprocess.Popen[bytes]) -> CameraError:
        """Why the program closed its output, by its last words."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        _end(process)
        said = self._errors.text() if self._errors is not None else ""
        reason = _last_line(said) or f"exit code {process.returncode}"
        kind = CameraBusyError if _IN_USE.search(said) else CameraLostError
        return kind(f"{self.name}: a program that goes on is required. Received: its end ({reason})")

    def _decoded(self, picture: bytes) -> Frame:
        started_ns = self._clock.now_ns()
        try:
            pixels = decode(picture, self.name)
        except ImageError as exc:
            self._frames.skip()
            raise FrameError(str(exc)) from exc
        return self._frames.make(pixels, self._arrived_ns, "read", started_ns, picture)

    def close(self) -> None:
        """End the program and wait for it."""
        if self._process is not None:
            _end(self._process)
            if self._process.stdout is not None:
                self._process.stdout.close()
            if self._errors is not None:
                self._errors.close()
            self._process = None

    def interrupt(self) -> None:
        """End the program, so that a read that waits sees the end of its output."""
        self._is_stopped = True
        process = self._process
        if process is not None:
            process.kill()


def _is_readable(stream: int, seconds: float) -> bool:
    return bool(select.select([stream], [], [], seconds)[0])


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class _Tail:
    """The end of what a program writes to stderr, read by a thread so that its pipe never fills.

    Args:
        pipe: It is closed when it ends.
    """

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe, self._kept = pipe, b""
        self._thread = threading.Thread(target=self._follow, name="camera messages", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        with self._pipe:
            for chunk in iter(lambda: os.read(self._pipe.fileno(), _ERROR_BYTES), b""):
                self._kept = (self._kept + chunk)[-_ERROR_BYTES:]

    def text(self) -> str:
        """All that is kept, once the program has ended."""
        self._thread.join(_END_SECONDS)
        return self._kept.decode(errors="replace")

    def close(self) -> None:
        """Wait for the end of the pipe."""
        self._thread.join(_END_SECONDS)


def _last_line(text: str) -> str:
    """The last line that is no progress."""
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line and not _PROGRESS.match(line)), "")
