"""One command: a stream of bytes to its stdin, event lines from its stdout, and never a wait without an end."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import paramiko

from liteship.errors import LinkError, LostLinkError
from liteship.link.waiting import LOST, lost
from liteship.targets import Target
from liteship_agent.store.events import EVENT_MARK

OnEvent = Callable[[dict[str, Any]], None]

END_SECONDS = 2.0
_RECEIVE_BYTES = 1 << 18
_SEND_BYTES = 1 << 15
"""What one packet holds: more would be copied and not sent."""
_TICK_SECONDS = 0.1
_STDERR_BYTES = 4000


class SilenceError(LostLinkError):
    """Nothing came and nothing could be sent for too long."""


class EventParser:
    """Finds the event lines in a stream of bytes; everything else there is noise of shells and is skipped.

    Each byte is looked at once, however the stream is cut into pieces.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """The events that these bytes complete."""
        *ends, rest = data.split(b"\n")
        for end in ends:
            line = b"".join((*self._pieces, end))
            self._pieces.clear()
            _, mark, text = line.partition(EVENT_MARK)
            event = _parse_object(text) if mark else None
            if event is not None:
                yield event
        if rest:
            self._pieces.append(rest)


def _parse_object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


class Feeder(threading.Thread):
    """Sends the pieces of a source to a channel's stdin, then its end.

    A source that has nothing to send yet gives empty pieces, so that it is not asked any more after `stop`.
    """

    def __init__(self, channel: paramiko.Channel, source: Iterable[bytes]) -> None:
        super().__init__(name="liteship-feeder", daemon=True)
        self.sent = 0
        self.last_activity = time.monotonic()
        self.error: BaseException | None = None
        self._channel, self._source = channel, source
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped.set()

    def run(self) -> None:
        """Send all of it; an error of the source is kept for the reading side."""
        try:
            for piece in self._source:
                if self._stopped.is_set() or not self._send(memoryview(piece)):
                    return
        except BaseException as exc:  # the source's own; the reading side raises it
            self.error = exc
            return
        with contextlib.suppress(*LOST):
            self._channel.shutdown_write()

    def _send(self, view: memoryview) -> bool:
        """False when the far side takes no more."""
        while view:
            try:
                count = self._channel.send(bytes(view[:_SEND_BYTES]))
            except TimeoutError:
                continue
            except LOST:
                return False
            view = view[count:]
            self.sent += count
            self.last_activity = time.monotonic()
        return True


class Conversation:
    """Reads a command's answer while a feeder feeds it."""

    def __init__(
        self,
        target: Target,
        channel: paramiko.Channel,
        feeder: Feeder,
        on_event: OnEvent,
        idle_seconds: float,
    ) -> None:
        self._target, self._channel, self._feeder = target, channel, feeder
        self._on_event, self._idle_seconds = on_event, idle_seconds
        self._parser = EventParser()
        self._stderr = bytearray()
        self._heard = time.monotonic()
        self._answer: dict[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """The final event, `done` or `error`."""
        self._channel.settimeout(_TICK_SECONDS)
        while (data := self._receive()) != b"":
            if self._feeder.error is not None:
                raise self._feeder.error
            if data is not None:
                self._take(data)
                continue
            quiet_seconds = time.monotonic() - max(self._heard, self._feeder.last_activity)
            if self._answer is not None and quiet_seconds > END_SECONDS:
                break  # something in the background holds its stdout
            if self._answer is None and quiet_seconds > self._idle_seconds:
                raise self._silence()
        return self._answer if self._answer is not None else self._no_answer()

    def _receive(self) -> bytes | None:
        """What has come on stdout, b"" at its end, None when nothing has; stderr is emptied on the way."""
        data: bytes | None = None
        with contextlib.suppress(TimeoutError):
            data = self._channel.recv(_RECEIVE_BYTES)
            self._heard = time.monotonic()
        while self._channel.recv_stderr_ready():
            self._stderr += self._channel.recv_stderr(_RECEIVE_BYTES)
            self._heard = time.monotonic()
            del self._stderr[:-_STDERR_BYTES]
        return data

    def _take(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if event.get("event") in ("done", "error"):
                self._answer = event
            else:
                self._on_event(event)
                self._heard = time.monotonic()  # that may have taken its time

    def _silence(self) -> SilenceError:
        return SilenceError(
            f"{self._target.name}: a byte within {self._idle_seconds:g} s is required. Received: nothing (time-out).",
            "Check that the board is up and its network works; the same command goes on where it stopped.",
            f"no byte for {self._idle_seconds:g} s",
        )

    def _no_answer(self) -> dict[str, Any]:
        """Raise why there is none."""
        name, python = self._target.name, self._target.python
        ended = self._channel.status_event.wait(END_SECONDS) and self._channel.exit_status >= 0
        self._receive()
        status = self._channel.exit_status
        if not ended:
            raise self._cut()
        if status in (126, 127):
            reason = "command not found" if status == 127 else "permission denied"
            raise LinkError(
                f"{python} is required on {name}. Received: {reason}.",
                f"Install it there (sudo apt install python3), or set `python` of [targets.{name}].",
            )
        last = self._stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        received = f"exit status {status} {last}".strip().rstrip(".")
        raise LinkError(f"{name}: an answer is required. Received: {received}.")

    def _cut(self) -> LinkError:
        """Why there is no exit status: the link was lost, or the command was killed on a link that is still good."""
        transport = self._channel.get_transport()
        transport.join(_TICK_SECONDS)  # it ends a moment after its channels
        if transport.is_active() and self._channel.eof_received:
            return LinkError(
                f"{self._target.name}: an answer is required. Received: the command was killed there.",
                "Look there for the reason, such as too little memory: sudo dmesg | tail",
            )
        return lost(self._target.name, "connection closed")
