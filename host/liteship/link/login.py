"""Log in: key after key, then a password when there is somebody to ask for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from liteship.errors import LinkError, LostLinkError
from liteship.link.dial import Transport
from liteship.link.endpoint import Endpoint
from liteship.link.waiting import LOST, within

_KEY_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")
_AGENT_SECONDS = 5.0
_TIMED_OUT = "Authentication timeout."
"""paramiko's words, in an exception like that of a refusal."""


def log_in(endpoint: Endpoint, transport: Transport, ask_password: Callable[[str], str] | None) -> None:
    """Try key after key, then a password.

    Args:
        endpoint: Whom to log in as, with which keys.
        transport: After the check of the host key.
        ask_password: Takes a question and returns the password; None when nobody can be asked.
    Raises:
        LostLinkError: the link ended or stayed silent.
        LinkError: the login is refused.
    """
    who = f"{endpoint.user}@{endpoint.host}"
    tried: list[str] = []
    try:
        for name, key in _keys(endpoint, tried):
            tried.append(name)
            if _passes(transport, lambda key=key: transport.auth_publickey(endpoint.user, key)):  # type: ignore[misc]
                return
        if ask_password is not None and _takes_passwords(endpoint.user, transport):
            tried.append("a password")
            password = ask_password(f"Password of {who}")
            if _passes(transport, lambda: transport.auth_password(endpoint.user, password)):
                return
    except LOST as exc:
        if not transport.goodbye:
            reason = str(exc) or "connection closed"
            raise LostLinkError(
                f"A login as {who} is required. Received: {reason} (tried {', '.join(tried) or 'nothing'}).",
                "Check that the board has finished booting; then run the same command again.",
                f"{reason} during login",
            ) from exc
        tried.append(f"then: {transport.goodbye}")
    raise LinkError(
        f"A login as {who} is required. Received: refused (tried {', '.join(tried) or 'nothing: there is no key'}).",
        f"Put your key there: ssh-copy-id -p {endpoint.port} {who}",
    )


def _passes(transport: Transport, attempt: Callable[[], object]) -> bool:
    """Whether one attempt lets us in.

    Raises:
        EOFError, TimeoutError: the connection has ended, or nobody answers; paramiko tells it like a refusal.
    """
    try:
        attempt()
    except AuthenticationException as exc:
        if str(exc) == _TIMED_OUT:
            raise TimeoutError("no answer in time") from exc
        if not transport.is_active():
            raise EOFError("connection closed") from exc
    return bool(transport.is_authenticated())


def _takes_passwords(user: str, transport: Transport) -> bool:
    allowed: list[str] = []

    def ask() -> None:
        try:
            transport.auth_none(user)
        except BadAuthenticationType as exc:
            allowed.extend(exc.allowed_types)

    _passes(transport, ask)
    return bool({"password", "keyboard-interactive"} & set(allowed))


def _keys(endpoint: Endpoint, unusable: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """The keys to try with their names: those of the endpoint, the agent's, the usual files; bad ones are noted."""
    for path in endpoint.identity_files:
        yield from _load_key(path, unusable)
    wanted = [_public_key(path) for path in endpoint.identity_files] if endpoint.identities_only else None
    yield from _agent_keys(wanted, unusable)
    if endpoint.identities_only and endpoint.identity_files:
        return
    for path in (Path.home() / ".ssh" / name for name in _KEY_FILES):
        if path.exists() and path not in endpoint.identity_files:
            yield from _load_key(path, unusable)


def _agent_keys(wanted: list[str] | None, unusable: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    """The agent's keys, of those that are wanted where some are."""
    try:
        agent = within(_AGENT_SECONDS, paramiko.Agent)
    except LOST as exc:
        unusable.append(f"ssh agent: {str(exc) or 'no answer in time'}")
        return
    try:
        for key in agent.get_keys():
            if wanted is None or key.get_base64() in wanted:
                yield f"agent key {key.fingerprint}", key
    finally:
        agent.close()


def _public_key(path: Path) -> str:
    """The key of `path`.pub in base 64, empty where there is none: an agent may hold its other half."""
    try:
        words = path.with_name(f"{path.name}.pub").read_text().split()
    except (OSError, ValueError):
        return ""
    return words[1] if len(words) > 1 else ""


def _load_key(path: Path, unusable: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
    try:
        yield str(path), paramiko.PKey.from_path(path)
    except OSError as exc:
        unusable.append(f"{path}: {exc.strerror}")
    except (ValueError, TypeError, SSHException, UnknownKeyType):
        unusable.append(f"{path}: not a key, or one with a passphrase, which needs ssh-add")
