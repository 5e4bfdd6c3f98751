"""Whom to believe: the pinned fingerprint, else ~/.ssh/known_hosts; nothing is ever added by itself."""

from __future__ import annotations

import hmac
from pathlib import Path

import paramiko

from liteship.errors import HostKeyError
from liteship.link.endpoint import Endpoint


def fingerprint(transport: paramiko.Transport) -> str:
    """The presented host key's, as ssh-keygen prints it."""
    return str(transport.get_remote_server_key().fingerprint)


def known_host_keys(endpoint: Endpoint) -> dict[str, bytes] | None:
    """The keys of ~/.ssh/known_hosts for an endpoint by type, None when it has none."""
    keys = paramiko.HostKeys()
    path = Path.home() / ".ssh" / "known_hosts"
    if path.is_file():
        try:
            keys.load(str(path))
        except (OSError, ValueError) as exc:
            raise HostKeyError(f"{path} is required to be readable. Received: {exc}.") from exc
    found = keys.lookup(endpoint.known_as)
    return {kind: key.asbytes() for kind, key in found.items()} if found else None


def check_host_key(
    endpoint: Endpoint, transport: paramiko.Transport, pinned: str | None, known: dict[str, bytes] | None
) -> None:
    """Compare the presented key with the trusted one.

    Args:
        endpoint: Who answered.
        transport: After the key exchange.
        pinned: The fingerprint of targets.toml; with one, known_hosts is not asked.
        known: The keys of known_hosts.
    Raises:
        HostKeyError: it is unknown or another.
    """
    presented = transport.get_remote_server_key()
    received = fingerprint(transport)
    if pinned is not None and hmac.compare_digest(pinned, received):
        return
    if pinned is None and known is not None and known.get(presented.get_name()) == presented.asbytes():
        return
    where = f"{endpoint.name} ({endpoint.host}:{endpoint.port})"
    if pinned is None and known is None:
        raise HostKeyError(
            f"A trusted host key of {where} is required. Received: unknown key {received}.",
            f"Compare it on the board, then: liteship targets trust {endpoint.name}",
        )
    raise HostKeyError(
        f"The trusted host key {pinned or 'of ~/.ssh/known_hosts'} of {where} is required. Received: {received}.",
        f"Someone may be in between, or the board was set up anew; if so: liteship targets trust {endpoint.name}",
    )
