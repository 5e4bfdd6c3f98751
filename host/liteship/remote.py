"""The link to a target: one SSH connection, used for any number of commands; `liteship.link` holds its parts.

A connection goes: dial (or tunnel through another host), key exchange, check of the host key, login by keys and, when
somebody can be asked, by password. A command is one exec request that takes a stream of bytes on stdin and answers
with event lines on stdout (liteship_agent.store.events says how they look). Nothing waits without a deadline of our
own, because not every call of paramiko and of the resolver has one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import shlex
import socket
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import paramiko
from paramiko.ssh_exception import ChannelException

from liteship.errors import LinkError
from liteship.link.ciphers import prefer_cipher_for
from liteship.link.conversation import END_SECONDS, Conversation, EventParser, Feeder, OnEvent, SilenceError
from liteship.link.dial import handshake
from liteship.link.endpoint import Endpoint, resolve
from liteship.link.forward import Forward
from liteship.link.host_keys import check_host_key, fingerprint, known_host_keys
from liteship.link.login import log_in
from liteship.link.ordered import in_order
from liteship.link.waiting import LOST, lost, within
from liteship.programs import PROBE, SENSORS, STORE, Program
from liteship.targets import Target
from liteship_agent.store.events import INVENTORY

__all__ = ["Connection", "EventParser", "OnEvent", "RemoteError", "SilenceError", "scan_host_key"]

_EXEC_SECONDS = 30.0
_REKEY_SECONDS = 15.0

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks come back as our errors


class RemoteError(LinkError):
    """The far side answered with an error.

    Args:
        kind: One word for programs, such as space, hash, locked or smoke.
    """

    def __init__(self, message: str, hint: str, kind: str) -> None:
        self.kind = kind
        super().__init__(message, hint)


def scan_host_key(target: Target, timeout_seconds: float = 10.0) -> str:
    """The fingerprint, `SHA256:...`, of the host key that a target presents; nothing is trusted by it.

    Raises:
        LinkError: nothing answers there in time, or what answers is not an SSH server.
        TargetError: ~/.ssh/config cannot be read.
    """
    transport = handshake(resolve(target), timeout_seconds)
    try:
        return fingerprint(transport)
    finally:
        transport.close()


class Connection:
    """An SSH connection to a target after login.

    Args:
        endpoint: Where the target was reached, and as whom.
        round_trips: Exec requests so far.
        events: Event lines heard so far, without those that ended a command.
        bytes_sent: Bytes of all commands' stdin so far, with the source text of the modules that were sent.
    """

    def __init__(self, target: Target, endpoint: Endpoint, transport: paramiko.Transport) -> None:
        self.target, self.endpoint = target, endpoint
        self.round_trips = self.events = 0
        self.bytes_sent = 0
        self._transport = transport

    @classmethod
    def open(
        cls,
        target: Target,
        *,
        connect_seconds: float = 15.0,
        ask_password: Callable[[str], str] | None = None,
    ) -> Connection:
        """Connect and log in.

        Args:
            target: Whom to reach, with `host_key_sha256` or an entry in ~/.ssh/known_hosts.
            connect_seconds: Limit for each of: dialling, key exchange, one login attempt.
            ask_password: Takes a question and returns the password; None when nobody can be asked.
        Raises:
            HostKeyError: the host key is unknown or not the trusted one.
            LostLinkError: not reachable in time.
            LinkError: the login is refused, or what answers is not an SSH server.
            TargetError: ~/.ssh/config cannot be read.
        """
        endpoint = resolve(target)
        known = None if target.host_key_sha256 else known_host_keys(endpoint)
        transport = handshake(endpoint, connect_seconds, known or ())
        try:
            check_host_key(endpoint, transport, target.host_key_sha256, known)
            log_in(endpoint, transport, ask_password)
        except BaseException:
            transport.close()
            raise
        return cls(target, endpoint, transport)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; what still runs on it is cut."""
        with contextlib.suppress(TimeoutError):
            within(END_SECONDS, self._transport.close)

    def prefer_cipher_for(self, cpu_flags: Iterable[str]) -> str:
        """Take the cipher that suits the target's CPU; call it before bulk data, with no command running.

        Args:
            cpu_flags: `Features` or `flags` of its /proc/cpuinfo; with none, nothing is known and nothing changes.
        Returns:
            The cipher in use.
        Raises:
            LostLinkError: the link was lost.
        """
        try:
            return prefer_cipher_for(self._transport, cpu_flags, _REKEY_SECONDS)
        except LOST as exc:
            self.close()
            raise lost(self.target.name, exc) from exc

    @property
    def is_open(self) -> bool:
        """False once the link is known to be lost, or was closed."""
        return bool(self._transport.is_active())

    @property
    def python(self) -> str:
        """The target's Python as a word for its shell."""
        return _quote_path(self.target.python)

    def probe(self) -> dict[str, Any]:
        """What the target is and what its liteship folder holds, see liteship_agent.store.probe."""
        return self.run(PROBE, (self.target.folder,))

    def sensors(self) -> dict[str, Any]:
        """Read the target's sensors once: `sample`, `sources` and `can_see_throttling` of liteship_agent.sensors."""
        return self.run(SENSORS)

    def store(
        self,
        verb: str,
        source: Iterable[bytes] = (),
        *,
        on_event: OnEvent | None = None,
        idle_seconds: float = 60.0,
    ) -> dict[str, Any]:
        """Run a verb of liteship_agent.store on the target's folder; see `call`."""
        arguments = (verb, self.target.folder)
        return self.run(STORE, arguments, source, on_event=on_event, idle_seconds=idle_seconds)

    def run(
        self,
        program: Program,
        arguments: Iterable[str] = (),
        source: Iterable[bytes] = (),
        *,
        on_event: OnEvent | None = None,
        idle_seconds: float = 60.0,
    ) -> dict[str, Any]:
        """Run a program, which goes ahead of `source`: the target needs nothing but a Python; see `call`."""
        words = " ".join(shlex.quote(word) for word in (program.loader, *arguments))
        command = f"{self.python} -I -S -B -c {words}"
        return self.call(
            command, itertools.chain((program.packed,), source), on_event=on_event, idle_seconds=idle_seconds
        )

    def call(
        self,
        command: str,
        source: Iterable[bytes] = (),
        *,
        on_event: OnEvent | None = None,
        idle_seconds: float = 60.0,
    ) -> dict[str, Any]:
        """Run one command, feed it, and return the content of its `done` event.

        Args:
            command: For the target's shell.
            source: Pieces for its stdin, taken one after another in a thread of their own.
            on_event: Called in this thread with every other event.
            idle_seconds: Longest time without a byte in either direction.
        Raises:
            RemoteError: the far side answered with an error event.
            LinkError: no answer: python3 is missing, the command died, the link was lost or is silent.
        """
        channel = self._execute(command, min(idle_seconds, _EXEC_SECONDS))
        feeder = Feeder(channel, source)
        feeder.start()

        def hear(event: dict[str, Any]) -> None:
            self.events += event.get("event") != INVENTORY  # that brings nothing forward yet
            if on_event is not None:
                on_event(event)

        try:
            answer = Conversation(self.target, channel, feeder, hear, idle_seconds).run()
        except SilenceError:
            self.close()
            raise
        finally:
            feeder.stop()
            self._end(channel)
            feeder.join(END_SECONDS)
            self.bytes_sent += feeder.sent
        if answer.pop("event") == "done":
            return answer
        message, hint = f"{self.target.name}: {answer.get('message', 'failed')}", str(answer.get("hint", ""))
        raise RemoteError(
            f"{message}." if hint and message[-1].isalnum() else message, hint, answer.get("kind", "unknown")
        )

    def forward(self, port: int, listener: socket.socket) -> Forward:
        """Lead connections to this computer to a port of 127.0.0.1 on the target, while the block of the result runs.

        Args:
            port: On the target.
            listener: From `liteship.link.forward.listen`. It stays open: after a lost link the next connection goes on
                with the same port of this computer.
        """
        return Forward(self.target.name, self._transport, port, listener, self.close)

    def _execute(self, command: str, seconds: float) -> paramiko.Channel:
        def start() -> paramiko.Channel:
            channel = in_order(self._transport.open_session(timeout=2 * seconds))  # so that ours is over first
            channel.exec_command(command)
            return channel

        self.round_trips += 1
        try:
            return within(seconds, start)
        except ChannelException as exc:
            raise LinkError(
                f"{self.target.name}: a server that runs commands is required. Received: {exc.text or 'refused'}.",
                "Look at ForceCommand, MaxSessions and the shell of the account there.",
            ) from exc
        except LOST as exc:
            self.close()
            raise lost(self.target.name, exc) from exc

    def _end(self, channel: paramiko.Channel) -> None:
        """Close a channel at once; if even that is not possible, the whole connection."""
        try:
            within(END_SECONDS, channel.close)
        except LOST:
            self.close()


def _quote_path(path: str) -> str:
    """A word for the target's shell, in which a leading ~ still means the home folder there."""
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)
