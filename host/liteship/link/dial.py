"""From an endpoint to exchanged keys: dial, or tunnel through a program, then the key exchange; nothing is checked."""

from __future__ import annotations

import contextlib
import shlex
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from liteship.errors import LinkError, LostLinkError
from liteship.link.ciphers import WITH_AES, put_first
from liteship.link.endpoint import Endpoint
from liteship.link.waiting import LOST, wait_for, within

_WINDOW_BYTES = 4 << 20
_COMPLAINT_SECONDS = 2.0
_NO_GREETING = "Error reading SSH protocol banner"
_NO_SERVER = ("Indecipherable protocol version", "Invalid SSH banner")
_REFUSALS = ("Permission denied", "Host key verification failed", "Could not resolve", "Bad ", "usage:", "not found")
"""What the ssh program says where trying again is no help."""


class Transport(paramiko.Transport):
    """One that keeps what the server says when it ends the connection."""

    goodbye = ""

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.goodbye = " ".join(message.get_text().split())


def handshake(endpoint: Endpoint, seconds: float, preferred_keys: Iterable[str] = ()) -> Transport:
    """Exchange keys with the server of an endpoint.

    Args:
        endpoint: Whom to reach.
        seconds: Limit for each of dialling and key exchange, and later for each login attempt.
        preferred_keys: Types of host keys that are known.
    Raises:
        LostLinkError: nobody answers in time, or no longer.
        LinkError: the name is unknown, the host in between refuses, or what answers is not an SSH server.
    """
    link, complaint = _open_link(endpoint, seconds)
    transport = Transport(link, default_window_size=_WINDOW_BYTES)
    transport.banner_timeout, transport.auth_timeout = 2 * seconds, seconds  # our own for the banner is over first
    put_first(transport, WITH_AES)
    preferred = {kind for name in preferred_keys for kind in _signatures(name)}
    options = transport.get_security_options()
    options.key_types = sorted(options.key_types, key=lambda kind: kind not in preferred)
    try:
        _exchange_keys(transport, seconds)
    except BaseException as exc:
        transport.close()
        if not isinstance(exc, LOST):
            raise
        raise _no_server(endpoint, exc, transport.goodbye or complaint()) from exc
    return transport


def _exchange_keys(transport: Transport, seconds: float) -> None:
    negotiated = threading.Event()
    transport.start_client(event=negotiated)
    if not wait_for(negotiated, seconds):
        raise TimeoutError("no answer in time")
    if not transport.is_active():
        error = transport.get_exception()
        raise error if isinstance(error, LOST) else EOFError(str(error or "connection closed"))


def _no_server(endpoint: Endpoint, error: BaseException, complaint: str) -> LinkError:
    """The error of a key exchange that failed."""
    told = "closed without a greeting" if _NO_GREETING in str(error) else str(error)
    reason = complaint or told or "connection closed"
    message = f"An SSH server at {endpoint.host}:{endpoint.port} is required. Received: {reason}."
    hint = "Check host and port, and that the board has finished booting."
    is_other = isinstance(error, IncompatiblePeer) or any(words in str(error) for words in _NO_SERVER)
    if is_other or any(words in complaint for words in _REFUSALS):
        return LinkError(message, hint)
    return LostLinkError(message, hint, reason)


def _open_link(endpoint: Endpoint, seconds: float) -> tuple[socket.socket, Callable[[], str]]:
    """A connected socket, and what tells the complaint of the program behind it."""
    where = f"{endpoint.host}:{endpoint.port}"
    if endpoint.proxy_command is not None:
        return _tunnel(["sh", "-c", f"exec {endpoint.proxy_command}"])
    if endpoint.proxy_jump is not None:
        *before, last = (hop if hop.startswith("ssh://") else f"ssh://{hop}" for hop in endpoint.proxy_jump.split(","))
        jumps = ["-J", ",".join(before)] if before else []
        where = f"[{endpoint.host}]:{endpoint.port}" if ":" in endpoint.host else where
        return _tunnel(["ssh", "-W", where, "-o", "BatchMode=yes", *jumps, last])
    return dial(endpoint.host, endpoint.port, seconds), lambda: ""


def dial(host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection within a time that holds for the look-up of the name as well."""
    try:
        link = within(seconds, lambda: socket.create_connection((host, port), timeout=seconds))
    except OSError as exc:
        reason = "no answer in time" if isinstance(exc, TimeoutError) else exc.strerror or str(exc)
        message = f"An SSH server at {host}:{port} is required. Received: {reason}."
        hint = "Check that the board is on, is on this network, and has SSH enabled."
        if isinstance(exc, socket.gaierror):
            raise LinkError(message, hint) from exc
        raise LostLinkError(message, hint, reason) from exc
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _tunnel(command: list[str]) -> tuple[socket.socket, Callable[[], str]]:
    """A link through a program, which ends when our end of the link is closed.

    `ssh -W` reads ~/.ssh/config and checks the key of the host in between itself. Ctrl-C, which a terminal sends to all
    of its programs, does not reach it: what runs on the target is still to be ended over this link.
    """
    ours, theirs = socket.socketpair()
    try:
        with theirs, _interrupts_blocked():
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
    except OSError as exc:
        ours.close()
        raise LinkError(
            f"The program {command[0]} is required to reach the target. Received: {exc.strerror}.",
            f"It was to run: {shlex.join(command)}",
        ) from exc
    last_line: deque[str] = deque(maxlen=1)

    def listen() -> None:
        with process:
            last_line.extend(line.strip() for line in process.stderr or () if line.strip())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()

    def complaint() -> str:
        listener.join(_COMPLAINT_SECONDS)
        return "".join(last_line)

    return ours, complaint


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Programs that are started meanwhile never get SIGINT: a blocked signal stays so in them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signatures(key_name: str) -> tuple[str, ...]:
    """The algorithms that a server may offer for a key of known_hosts."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_name == "ssh-rsa" else (key_name,)
