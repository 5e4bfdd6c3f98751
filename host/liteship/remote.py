"""The link to a target: one SSH connection, used for any number of commands; the only importer of paramiko.

A connection goes: dial (or tunnel through another host), key exchange, check of the host key, login by keys and, when
somebody can be asked, by password. A command is one exec request that takes a stream of bytes on stdin and answers
with event lines on stdout (liteship_agent.store says how they look). Nothing waits without a deadline of our own,
because not every call of paramiko and of the resolver has one.
"""

from __future__ import annotations

import contextlib
import hmac
import itertools
import json
import logging
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from liteship.errors import HostKeyError, LinkError
from liteship.targets import Target
from liteship_agent.store import EVENT_MARK

Result = TypeVar("Result")
OnEvent = Callable[[dict[str, Any]], None]

_FASTEST_CIPHER = "aes128-gcm@openssh.com"
_KEY_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")
_WINDOW_BYTES = 4 << 20
_PIECE_BYTES = 1 << 18
_TICK_SECONDS = 0.1
_END_SECONDS = 2.0
_STDERR_BYTES = 4000
_LOST = (OSError, EOFError, SSHException)

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
    transport = _handshake(host, port, proxy_jump, timeout_seconds)
    try:
        return _fingerprint(transport)
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
        known = None if target.host_key_sha256 else _known_host_keys(target)
        transport = _handshake(target.host, target.port, target.proxy_jump, connect_seconds, known or ())
        try:
            _check_host_key(target, transport, known)
            _log_in(target, transport, ask_password)
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
        feeder = _Feeder(channel, source)
        feeder.start()
        try:
            answer = _Conversation(self.target, channel, feeder, on_event, idle_seconds).run()
        except SilenceError:
            self.close()
            raise
        finally:
            self._end(channel)
            feeder.join(_END_SECONDS)
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
            return _within(seconds, start)
        except _LOST as exc:
            self.close()
            raise _lost(self.target, exc) from exc

    def _end(self, channel: paramiko.Channel) -> None:
        """Close a channel at once; if even that is not possible, the whole connection."""
        try:
            _within(_END_SECONDS, channel.close)
        except _LOST:
            self.close()


class SilenceError(LinkError):
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


class _Feeder(threading.Thread):
    """Sends the pieces of a source to a channel's stdin, then its end."""

    def __init__(self, channel: paramiko.Channel, source: Iterable[bytes]) -> None:
        super().__init__(name="liteship-feeder", daemon=True)
        self.sent = 0
        self.last_activity = time.monotonic()
        self.error: BaseException | None = None
        self._channel, self._source = channel, source

    def run(self) -> None:
        try:
            for piece in self._source:
                if not self._send(memoryview(piece)):
                    return
        except BaseException as exc:  # the source's own; the reading side raises it
            self.error = exc
            return
        with contextlib.suppress(*_LOST):
            self._channel.shutdown_write()

    def _send(self, view: memoryview) -> bool:
        """False when the far side takes no more."""
        while view:
            try:
                count = self._channel.send(bytes(view[:_PIECE_BYTES]))
            except TimeoutError:
                continue
            except _LOST:
                return False
            view = view[count:]
            self.sent += count
            self.last_activity = time.monotonic()
        return True


class _Conversation:
    """Reads a command's answer while a feeder feeds it."""

    def __init__(
        self,
        target: Target,
        channel: paramiko.Channel,
        feeder: _Feeder,
        on_event: OnEvent | None,
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
            if self._answer is not None and quiet_seconds > _END_SECONDS:
                break  # something in the background holds its stdout
            if self._answer is None and quiet_seconds > self._idle_seconds:
                raise self._silence()
        return self._answer if self._answer is not None else self._no_answer()

    def _receive(self) -> bytes | None:
        """What has come on stdout, b"" at its end, None when nothing has; stderr is emptied on the way."""
        data: bytes | None = None
        with contextlib.suppress(TimeoutError):
            data = self._channel.recv(_PIECE_BYTES)
            self._heard = time.monotonic()
        while self._channel.recv_stderr_ready():
            self._stderr += self._channel.recv_stderr(_PIECE_BYTES)
            self._heard = time.monotonic()
            del self._stderr[:-_STDERR_BYTES]
        return data

    def _take(self, data: bytes) -> None:
        for event in self._parser.feed(data):
            if event.get("event") in ("done", "error"):
                self._answer = event
            elif self._on_event is not None:
                self._on_event(event)

    def _silence(self) -> SilenceError:
        return SilenceError(
            f"{self._target.name}: a byte within {self._idle_seconds:g} s is required. Received: nothing (time-out).",
            "Check that the board is up and its network works; the same command goes on where it stopped.",
        )

    def _no_answer(self) -> dict[str, Any]:
        """Raise why there is none."""
        name, python = self._target.name, self._target.python
        ended = self._channel.status_event.wait(_END_SECONDS) and self._channel.exit_status >= 0
        self._receive()
        status = self._channel.exit_status
        if not ended:
            raise _lost(self._target, EOFError("connection closed"))
        if status in (126, 127):
            reason = "command not found" if status == 127 else "permission denied"
            raise LinkError(
                f"{python} is required on {name}. Received: {reason}",
                f"Install it there (sudo apt install python3), or set `python` of [targets.{name}].",
            )
        last = self._stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise LinkError(f"{name}: an answer is required. Received: exit status {status} {last}".rstrip())


def _within(seconds: float, action: Callable[[], Result]) -> Result:
    """Run an action that has no time limit of its own in a thread, and wait only so long.

    Raises:
        TimeoutError: it was not ready in time; its thread ends when what it waits for is closed.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(action())
        except BaseException as exc:
            outcome.set_exception(exc)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result(seconds)


def _dial(host: str, port: int, seconds: float) -> socket.socket:
    try:
        link = _within(seconds, lambda: socket.create_connection((host, port), timeout=seconds))
    except OSError as exc:
        reason = "no answer in time" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        raise LinkError(
            f"An SSH server at {host}:{port} is required. Received: {reason}",
            "Check that the board is on, is on this network, and has SSH enabled.",
        ) from exc
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _tunnel(host: str, port: int, proxy_jump: str) -> socket.socket:
    """A link through `ssh -W`, which reads ~/.ssh/config and checks the other host's key itself."""
    ours, theirs = socket.socketpair()
    command = ["ssh", "-W", f"{host}:{port}", "-o", "BatchMode=yes", f"ssh://{proxy_jump}"]
    try:
        with theirs:
            process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
    except OSError as exc:
        ours.close()
        raise LinkError(f"The ssh program is required for proxy_jump. Received: {exc.strerror}") from exc
    threading.Thread(target=process.wait, daemon=True).start()  # it ends when our end of the pair is closed
    return ours


def _handshake(
    host: str, port: int, proxy_jump: str | None, seconds: float, preferred_keys: Iterable[str] = ()
) -> paramiko.Transport:
    """Exchange keys with the server; nothing is checked yet."""
    link = _tunnel(host, port, proxy_jump) if proxy_jump else _dial(host, port, seconds)
    transport = paramiko.Transport(link, default_window_size=_WINDOW_BYTES)
    transport.banner_timeout = transport.auth_timeout = seconds
    options = transport.get_security_options()
    options.ciphers = sorted(options.ciphers, key=lambda cipher: cipher != _FASTEST_CIPHER)
    preferred = {kind for name in preferred_keys for kind in _signatures(name)}
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in preferred)
    negotiated = threading.Event()
    try:
        transport.start_client(event=negotiated)
        if not negotiated.wait(seconds):
            raise TimeoutError("no answer in time")
        if not transport.is_active():
            raise transport.get_exception() or EOFError("connection closed")
    except BaseException as exc:
        transport.close()
        if not isinstance(exc, _LOST):
            raise
        raise LinkError(
            f"An SSH server at {host}:{port} is required. Received: {exc or 'connection closed'}",
            "Check host and port, and that the board has finished booting.",
        ) from exc
    return transport


def _signatures(key_name: str) -> tuple[str, ...]:
    """The algorithms that a server may offer for a key of known_hosts."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_name == "ssh-rsa" else (key_name,)


def _fingerprint(transport: paramiko.Transport) -> str:
    return str(transport.get_remote_server_key().fingerprint)


def _known_host_keys(target: Target) -> dict[str, bytes] | None:
    """The keys of ~/.ssh/known_hosts for a target by type, None when it has none."""
    keys = paramiko.HostKeys()
    path = Path.home() / ".ssh" / "known_hosts"
    if path.is_file():
        try:
            keys.load(str(path))
        except (OSError, ValueError) as exc:
            raise HostKeyError(f"{path} is required to be readable. Received: {exc}") from exc
    name = target.host if target.port == 22 else f"[{target.host}]:{target.port}"
    found = keys.lookup(name)
    return {kind: key.asbytes() for kind, key in found.items()} if found else None


def _check_host_key(target: Target, transport: paramiko.Transport, known: dict[str, bytes] | None) -> None:
    presented = transport.get_remote_server_key()
    received = _fingerprint(transport)
    trusted = target.host_key_sha256
    if trusted is not None and hmac.compare_digest(trusted, received):
        return
    if trusted is None and known is not None and known.get(presented.get_name()) == presented.asbytes():
        return
    where = f"{target.name} ({target.host}:{target.port})"
    if trusted is None and known is None:
        raise HostKeyError(
            f"A trusted host key of {where} is required. Received: unknown key {received}",
            f"Compare it on the board, then: liteship targets trust {target.name}",
        )
    raise HostKeyError(
        f"The trusted host key {trusted or 'of ~/.ssh/known_hosts'} of {where} is required. Received: {received}",
        f"Someone may be in between, or the board was set up anew; if so: liteship targets trust {target.name}",
    )


def _log_in(target: Target, transport: paramiko.Transport, ask_password: Callable[[str], str] | None) -> None:
    """Try key after key, then a password when there is somebody to ask for it."""
    who = f"{target.user}@{target.host}"
    tried: list[str] = []
    try:
        for name, key in _keys(target, tried):
            tried.append(name)
            with contextlib.suppress(AuthenticationException):
                transport.auth_publickey(target.user, key)
            if transport.is_authenticated():
                return
        if ask_password is not None and _takes_passwords(target.user, transport):
            tried.append("a password")
            transport.auth_password(target.user, ask_password(f"Password of {who}"))
        if transport.is_authenticated():
            return
    except AuthenticationException:
        pass
    except _LOST as exc:
        tried.append(f"then: {exc or 'connection closed'}")
    raise LinkError(
        f"A login as {who} is required. Received: refused (tried {', '.join(tried) or 'nothing: there is no key'})",
        f"Put your key there: ssh-copy-id -p {target.port} {who}",
    )


def _keys(target: Target, unusable: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """The keys to try with their names: the target's own, the agent's, the usual files; bad ones are noted."""
    if target.identity_file is not None:
        yield from _load_key(Path(target.identity_file).expanduser(), unusable)
    agent = paramiko.Agent()
    try:
        for key in agent.get_keys():
            yield f"agent key {key.fingerprint}", key
    finally:
        agent.close()
    for path in (Path.home() / ".ssh" / name for name in _KEY_FILES):
        if path.exists():
            yield from _load_key(path, unusable)


def _load_key(path: Path, unusable: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    try:
        yield str(path), paramiko.PKey.from_path(path)
    except OSError as exc:
        unusable.append(f"{path}: {exc.strerror}")
    except (ValueError, TypeError, SSHException, UnknownKeyType):
        unusable.append(f"{path}: not a key, or one with a passphrase, which needs ssh-add")


def _takes_passwords(user: str, transport: paramiko.Transport) -> bool:
    try:
        transport.auth_none(user)
    except BadAuthenticationType as exc:
        return bool({"password", "keyboard-interactive"} & set(exc.allowed_types))
    return False


def _quote_path(path: str) -> str:
    """A word for the target's shell, in which a leading ~ still means the home folder there."""
    return "~/" + shlex.quote(path[2:]) if path.startswith("~/") else shlex.quote(path)


def _lost(target: Target, reason: Exception) -> LinkError:
    return LinkError(
        f"{target.name}: an open connection is required. Received: link lost ({reason or 'connection closed'}).",
        "The same command goes on where it stopped.",
    )
