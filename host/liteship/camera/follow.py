"""The camera of a target, followed from here: start it, hear its events, lead its page to this computer, end it.

One exec channel, whose open stdin keeps the camera alive. It ends by itself where stdin ends, which an interruption, a
lost link and the death of this process all bring about, and where nothing comes through it, as over a frozen link.
After a lost link the same run goes on over another connection, with what is left of its time and frames, and the page
has the same address.
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from liteship.camera.log import Event, FrameLog
from liteship.camera.options import CameraOptions
from liteship.camera.summary import Run, Summary, summarize
from liteship.errors import LinkError, LostLinkError
from liteship.link.forward import ForwardingError, page_address
from liteship.link.waiting import lost
from liteship.programs import release_command
from liteship.remote import Connection
from liteship_agent.camera.wishes import HOST_SILENT

START_SECONDS = 180.0
"""Without a word until the camera is open: an emulated board takes minutes to start a runtime for the first time."""
SILENT_SECONDS = 20.0
"""Without a word later on; the camera tells its figures every second."""
END_SECONDS = 5.0
"""How long a camera that was stopped may take for its summary."""
LINK_LOST, STARTING, STOPPING = "link lost", "starting", "stopping"

_WAIT_SECONDS = 0.05
_ALIVE_SECONDS = 2.0
"""Between two bytes to the camera, which ends itself after 10 s without one."""
_NO_SUCH_VERB = "invalid choice: 'camera'"


@dataclass
class CameraState:
    """What is known at one moment.

    Args:
        target: Its name.
        state, reason: Of the camera, or of the link to it.
        address: Of the page on this computer, null without one.
        camera, frame, figures: The last event of each kind, null before the first one.
    """

    target: str
    state: str = STARTING
    reason: str = ""
    address: str | None = None
    camera: Event | None = None
    frame: Event | None = None
    figures: Event | None = None


Watch = Callable[[CameraState, Event], None]
"""Hears every event, with what is known after it."""


class Camera:
    """One camera, over as many connections as it takes.

    Args:
        target: Its name.
        options: What the agent is asked for.
        watch: Hears every event.
        listener: Of the page, from `liteship.link.forward.listen`; None for no page.
        log: Of every frame.
        clock: Seconds.
    """

    def __init__(
        self,
        target: str,
        options: CameraOptions,
        watch: Watch,
        listener: socket.socket | None = None,
        log: FrameLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = CameraState(target)
        self._options, self._watch, self._listener, self._log, self._clock = options, watch, listener, log, clock
        self._stop = threading.Event()
        self._heard_at = 0.0
        self._last_call: threading.Timer | None = None
        self._runs: list[Run] = []
        self._lost_links = 0

    @property
    def has_begun(self) -> bool:
        """Whether a camera was ever open."""
        return bool(self._runs)

    def follow(self, connection: Connection, folder: str, release: str) -> None:
        """Start it, or go on with it over a new connection, and hear it until it has ended; Ctrl-C ends it.

        Args:
            connection: To the target.
            folder: The liteship folder there.
            release: Id of the active release, whose agent is started.
        Raises:
            RemoteError: the camera ended with an error.
            LostLinkError: the link was lost; it can be gone on with.
            LinkError: the release has no camera, the port cannot be forwarded, or it did not end when it was stopped.
            UsageError: the log cannot be written any more.
        """
        left = self._left()
        if left is None:
            return
        command = release_command(
            connection.python, folder, release, "camera", "--folder", folder, "--events", *left.words()
        )
        run_count, self._heard_at = len(self._runs), self._clock()
        with ExitStack() as forwards, interrupts_to(self._stop):
            try:
                answer = connection.call(
                    command,
                    self._stdin(connection, run_count),
                    on_event=lambda event: self._hear(event, connection, forwards),
                    idle_seconds=START_SECONDS,
                )
            except LinkError as exc:
                explained = self._explained(exc, release)
                if explained is exc:
                    raise
                raise explained from exc
            finally:
                if self._last_call is not None:
                    self._last_call.cancel()
                if len(self._runs) > run_count:
                    self._runs[-1].ended = self._clock()
        if len(self._runs) == run_count:  # it ended before its camera was open
            self._runs.append(Run(self._clock()))
        self._runs[-1].final = answer["summary"]
        if self.state.reason == HOST_SILENT and not self._stop.is_set():
            raise self._explained(lost(self.state.target, "frozen for a while"), release)

    def summary(self) -> Summary:
        """Of everything so far."""
        return summarize(self.state.target, self.state.camera or {}, self._runs, self._lost_links)

    def _left(self) -> CameraOptions | None:
        """The options with the time and the frames that are left; None when nothing is."""
        done = self.summary()
        options = self._options
        if options.duration is not None:
            options = replace(options, duration=options.duration - done.seconds)
        if options.frames is not None:
            options = replace(options, frames=options.frames - done.classified)
        limits = (options.duration, options.frames)
        return None if any(limit is not None and limit <= 0 for limit in limits) else options

    def _stdin(self, connection: Connection, run_count: int) -> Iterator[bytes]:
        """Signs of life, and the end when the camera shall end; then its summary must come before the link is closed.

        Raises:
            LostLinkError: the camera has been silent for too long; one that is not open yet may be for longer.
        """
        next_sign = self._clock()
        while not self._stop.wait(_WAIT_SECONDS):
            most_seconds = SILENT_SECONDS if len(self._runs) > run_count else START_SECONDS
            if self._clock() - self._heard_at > most_seconds:
                raise lost(self.state.target, f"no word of the camera for {most_seconds:g} s")
            is_due = self._clock() >= next_sign
            if is_due:
                next_sign = self._clock() + _ALIVE_SECONDS
            yield b"\n" if is_due else b""
        self._last_call = threading.Timer(END_SECONDS, connection.close)
        self._last_call.daemon = True
        self._last_call.start()

    def _hear(self, event: Event, connection: Connection, forwards: ExitStack) -> None:
        self._heard_at = self._clock()
        kind = event["event"]
        if kind == "camera":
            self._runs.append(Run(self._clock()))
            self.state.camera, self.state.state, self.state.reason = event, "running", ""
            if self._listener is not None and event.get("port"):
                self._lead_here(connection, event["port"], self._listener, forwards)
                self.state.address = page_address(self._listener, event.get("token"))
        elif kind == "state":
            self.state.state, self.state.reason = event["state"], event.get("reason") or ""
        elif self._runs:
            self._hear_running(kind, event, self._runs[-1])
        self._heard_at = self._clock()  # to lead its page here may have taken its time
        if self._stop.is_set():
            self.state.state, self.state.reason = STOPPING, ""
        self._watch(self.state, event)

    def _hear_running(self, kind: str, event: Event, run: Run) -> None:
        if kind == "frame":
            self.state.frame = event
            run.labels[event["label"] or "unsure"] += 1
            if self._log is not None:
                self._log.write(event, self.state.camera or {})
        elif kind == "figures":
            self.state.figures = run.figures = event
        elif kind == "swapped":
            run.swaps += 1
            model = {name: event[name] for name in ("release", "variant")}
            self.state.camera = {**(self.state.camera or {}), **model}

    def _lead_here(self, connection: Connection, port: int, listener: socket.socket, forwards: ExitStack) -> None:
        """Forward the page; where that is refused, tell what can be done without it."""
        try:
            forwards.enter_context(connection.forward(port, listener))
        except ForwardingError as exc:
            raise LinkError(exc.message, f"{exc.hint} Or do without the page: --view terminal.".strip()) from exc

    def _explained(self, error: LinkError, release: str) -> LinkError:
        """The error of a run, as what is to be done about it."""
        name = self.state.target
        if isinstance(error, LostLinkError):
            self._lost_links += 1
            self.state.state, self.state.reason = LINK_LOST, error.reason
            if self._stop.is_set():  # nobody wants it again
                return LinkError(
                    f"{name}: the end of the camera within {END_SECONDS:g} s is required. Received: {error.reason}.",
                    "It ends there by itself, when the target finds that the link is gone.",
                )
            if self.has_begun:
                self._watch(self.state, {"event": "state", "state": LINK_LOST, "reason": error.reason})
        if _NO_SUCH_VERB in error.message:
            return LinkError(
                f"{name}: a release with a camera is required. Received: release {release} of an older liteship.",
                f"Deploy again: liteship deploy --target {name}",
            )
        return error


@contextmanager
def interrupts_to(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C only set an event; the second one interrupts as ever."""
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
