"""Log in: key after key, then a password when there is somebody to ask for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
from paramiko.pkey import UnknownKeyType
from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

from liteship.errors import LinkError
from liteship.link.waiting import LOST
from liteship.targets import Target

_KEY_FILES = ("id_ed25519", "id_ecdsa", "id_rsa")


def log_in(target: Target, transport: paramiko.Transport, ask_password: Callable[[str], str] | None) -> None:
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
    except LOST as exc:
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
