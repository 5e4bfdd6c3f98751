"""From a name to exchanged keys: dial, or tunnel through another host, then the key exchange; nothing is checked."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterable

import paramiko

from liteship.errors import LinkError
from liteship.link.waiting import LOST, within

_FASTEST_CIPHER = "aes128-gcm@openssh.com"
_WINDOW_BYTES = 4 << 20


def dial(host: str, port: int, seconds: float) -> socket.socket:
    """A TCP connection within a time that holds for the look-up of the name as well."""
    try:
        link = within(seconds, lambda: socket.create_connection((host, port), timeout=seconds))
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


def handshake(
    host: str, port: int, proxy_jump: str | None, seconds: float, preferred_keys: Iterable[str] = ()
) -> paramiko.Transport:
    """Exchange keys with the server; nothing is checked yet."""
    link = _tunnel(host, port, proxy_jump) if proxy_jump else dial(host, port, seconds)
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
        if not isinstance(exc, LOST):
            raise
        raise LinkError(
            f"An SSH server at {host}:{port} is required. Received: {exc or 'connection closed'}",
            "Check host and port, and that the board has finished booting.",
        ) from exc
    return transport


def _signatures(key_name: str) -> tuple[str, ...]:
    """The algorithms that a server may offer for a key of known_hosts."""
    return ("rsa-sha2-512", "rsa-sha2-256") if key_name == "ssh-rsa" else (key_name,)
