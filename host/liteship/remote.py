"""The link to a target: one SSH connection, used for any number of commands; `liteship.link` holds its parts.

A connection goes: dial (or tunnel through another host), key exchange, check of the host key, login by keys and, when
somebody can be asked, by password. A command is one exec request that takes a stream of bytes on stdin and answers
with event lines on stdout (liteship_agent.store says how they look). Nothing waits without a deadline of our own,
because not every call of paramiko and of the resolver has one.
"""

from __future__ import annotations

import itertools
import logging
import shlex
from collections.abc import Callable, Iterable
from importlib.resources import files
from types import TracebackType
from typing import Any

import paramiko

from liteship.errors import LinkError
from liteship.link.conversation import END_SECONDS, Conversation, EventParser, Feeder, OnEvent, SilenceError
from liteship.link.dial import handshake
from liteship.link.host_keys import check_host_key, fingerprint, known_host_keys
from liteship.link.login import log_in
from liteship.link.waiting import LOST, lost, within
from liteship.targets import Target

__all__ = ["Connection", "EventParser", "OnEvent", "RemoteError", "SilenceError", "scan_host_key"]

logging.getLogger("paramiko").addHandler(logging.NullHandler())  # its tracebacks come back as our errors


class RemoteError(LinkError):
    """The far side answered with an error.

    Args:
        kind: One word for programs, such as space, hash, locked or smoke.
    """

    def __init__(self, message: str, hint: str, kind: str) -> None:
        self.kind = kind
        super().__init__(message, hint)


def scan_host_key(host: str, port: int = 22, timeout_seconds: float = 10.0, *, proxy_jump: str | None = None) -> str:
    """The fingerprint, `SHA256:...`, of the host key that a server presents; nothing is trusted by it.

    Raises:
        LinkError: nothing answers there in time, or what answers is not an SSH server.
    """
    transport = handshake(host, port, proxy_jump, timeout_seconds)
    try:
        return fingerprint(transport)
    finally:
        transport.close()


class Connection:
    """An SSH connection to a target after login.

    Args:
        round_trips: Exec requests so far.
        bytes_sent: Bytes of all commands' stdin so far, with the source text of the modules that were sent.
    """

    def __init__(self, target: Target, transport: paramiko.Transport) -> None:
        self.target = target
        self.round_trips = 0
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
            LinkError: not reachable in time, or the login is refused.
        """
        known = None if target.host_key_sha256 else known_host_keys(target)
        transport = handshake(target.host, target.port, target.proxy_jump, connect_seconds, known or ())
        try:
            check_host_key(target, transport, known)
            log_in(target, transport, ask_password)
        except BaseException:
            transport.close()
            raise
        return cls(target, transport)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; what still runs on it is cut."""
        self._transport.close()

    @property
    def python(self) -> str:
        """The target's Python as a word for its shell."""
        return _quote_path(self.target.python)

    def store(
        self,
        verb: str,
        source: Iterable[bytes] = (),
        *,
        on_event: OnEvent | None = None,
        idle_seconds: float = 60.0,
    ) -> dict[str, Any]:
        """Run a verb of liteship_agent.store on the target's folder; see `call`.

        The source text goes ahead of `source`: the target needs nothing but a Python.
        """
        arguments = (verb, self.target.folder)
        return self._run_module("store.py", arguments, source, on_event=on_event, idle_seconds=idle_seconds)

    def sensors(self) -> dict[str, Any]:
        """Read the target's sensors once: `sample`, `sources` and `can_see_throttling` of liteship_agent.sensors."""
        return self._run_module("sensors.py")

    def _run_module(
        self,
        name: str,
        arguments: Iterable[str] = (),
        source: Iterable[bytes] = (),
        *,
        on_event: OnEvent | None = None,
        idle_seconds: float = 60.0,
    ) -> dict[str, Any]:
        """Run one self-contained module of liteship_agent, which is sent ahead of `source`."""
        program = files("liteship_agent").joinpath(name).read_bytes()
        loader = f'import sys; exec(compile(sys.stdin.buffer.read({len(program)}), "{name}", "exec"))'
        command = f"{self.python} -I -S -B -c {' '.join(shlex.quote(word) for word in (loader, *arguments))}"
        return self.call(command, itertools.chain((program,), source), on_event=on_event, idle_seconds=idle_seconds)

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
        channel = self._execute(command, idle_seconds)
        feeder = Feeder(channel, source)
        feeder.start()
        try:
            answer = Conversation(self.target, channel, feeder, on_event, idle_seconds).run()
        except SilenceError:
            self.close()
            raise
        finally:
            self._end(channel)
            feeder.join(END_SECONDS)
            self.bytes_sent += feeder.sent
        if answer.pop("event") == "done":
            return answer
        raise RemoteError(
            f"{self.target.name}: {answer.get('message', 'failed')}",
            str(answer.get("hint", "")),
            str(answer.get("kind", "unknown")),
        )

    def _execute(self, command: str, seconds: float) -> paramiko.Channel:
        def start() -> paramiko.Channel:
            channel = self._transport.open_session(timeout=seconds)
            channel.exec_command(command)
            return channel

        self.round_trips += 1
        try:
            return within(seconds, start)
        except LOST as exc:
            self.close()
            raise lost(self.target, exc) from exc

    def _end(self, channel: paramiko.Channel) -> None:
        """Close a channel at once; if even that is not possible, the whole connection."""
        try:
            within(END_SECONDS, channel.close)
        except LOST:
            self.close()


def _quote_path(path: str) -> str:
    """A word for the target's shell, in which a leading ~ still means the home folder there."""
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)
