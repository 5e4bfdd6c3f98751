"""Where and as whom a target is reached: targets.toml first, then ~/.ssh/config, then the usual defaults.

What targets.toml says stands in front of the file, as the options of the ssh command line do; so the first value wins
and the file's own patterns and tokens see it. The targets that are built in have their address from liteship itself,
and a `Host *` of the file is none of theirs.
"""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from paramiko.ssh_exception import ConfigParseError, CouldNotCanonicalize

from liteship.built_in import BUILT_IN
from liteship.errors import TargetError
from liteship.targets import Target

_PORT = 22
_DEEPEST_INCLUDE = 16
_INCLUDE = re.compile(r"\s*include(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(?:host|match)\b", re.IGNORECASE)
_BROKEN = (ConfigParseError, CouldNotCanonicalize, OSError, ValueError, KeyError, ImportError)


@dataclass(frozen=True)
class Endpoint:
    """How to get to a target.

    Args:
        name: Of the target.
        host, port, user: To dial and to log in with.
        names_user: Whether targets.toml or ~/.ssh/config says who; otherwise it is who is logged in here.
        known_as: Its name in known_hosts.
        identity_files: Private keys in the order to try, before those of the agent.
        identities_only: Try no other keys than these.
        proxy_jump: `[user@]host[:port]` in between, or several with commas.
        proxy_command: A shell command whose stdin and stdout are the link.
    """

    name: str
    host: str
    port: int
    user: str
    names_user: bool
    known_as: str
    identity_files: tuple[Path, ...] = ()
    identities_only: bool = False
    proxy_jump: str | None = None
    proxy_command: str | None = None

    @property
    def address(self) -> str:
        """`user@host:port`, for people."""
        return f"{self.user}@{self.host}:{self.port}"


def resolve(target: Target, config: Path | None = None) -> Endpoint:
    """The endpoint of a target.

    Args:
        target: From the inventory.
        config: An OpenSSH client configuration; None takes ~/.ssh/config, which need not exist.
    Raises:
        TargetError: the configuration cannot be read, or has a value that is none.
    """
    path = Path.home() / ".ssh" / "config" if config is None else config
    options: dict[str, Any] = {} if target.name in BUILT_IN else _look_up(target, path)
    host = options.get("hostname", target.host)
    port = _port(target, options.get("port"), path)
    user = target.user or options.get("user")
    own = () if target.identity_file is None else (target.identity_file,)
    files = (*own, *(name for name in options.get("identityfile", ()) if name.lower() != "none"))
    detour = _detour(target, options)
    return Endpoint(
        name=target.name,
        host=host,
        port=port,
        user=user or getpass.getuser(),
        names_user=user is not None,
        known_as=options.get("hostkeyalias") or (host if port == _PORT else f"[{host}]:{port}"),
        identity_files=tuple(dict.fromkeys(Path(name).expanduser() for name in files)),
        identities_only=str(options.get("identitiesonly")).lower() in ("yes", "true"),
        proxy_jump=detour.get("proxyjump"),
        proxy_command=detour.get("proxycommand"),
    )


def _look_up(target: Target, path: Path) -> dict[str, Any]:
    first = [f"Port {target.port}"] if target.port is not None else []
    first += [f"User {target.user}"] if target.user is not None else []
    try:
        lines = [*first, *_lines(path, path.parent, "Host *", 0)]
        return dict(paramiko.SSHConfig.from_text("\n".join(lines)).lookup(target.host))
    except _BROKEN as exc:
        raise TargetError(
            f"{path}: an OpenSSH client configuration is required. Received: {exc}.",
            f"Try it: ssh -G {shlex.quote(target.host)}",
        ) from exc


def _lines(path: Path, base: Path, block: str, depth: int) -> Iterator[str]:
    """The lines of a configuration with those of the files that it includes, which paramiko would leave out.

    Args:
        path: Need not exist.
        base: Folder of relative names.
        block: The line `Host ...` or `Match ...` that holds where the file is included; it holds again after it.
        depth: How many files include this one.
    """
    if not path.exists():
        return
    if depth > _DEEPEST_INCLUDE:
        raise ValueError(f"{path} is included too deeply")
    for line in path.read_text(encoding="utf-8").splitlines():
        if _BLOCK.match(line):
            block = line
        include = _INCLUDE.fullmatch(line)
        if include is None:
            yield line
            continue
        for word in shlex.split(include[1], comments=True):
            pattern = Path(word).expanduser()
            for found in sorted(_matches(pattern if pattern.is_absolute() else base / pattern)):
                yield from _lines(found, base, block, depth + 1)
                yield block


def _matches(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor or ".")
    return [path for path in root.glob(str(pattern.relative_to(root))) if path.is_file()]


def _port(target: Target, configured: str | None, path: Path) -> int:
    if target.port is not None or configured is None:
        return target.port or _PORT
    if not (configured.isdecimal() and 1 <= int(configured) <= 65535):
        raise TargetError(f"{path}: Port from 1 to 65535 is required for {target.host}. Received: {configured}.")
    return int(configured)


def _detour(target: Target, options: dict[str, Any]) -> dict[str, str]:
    """The host or command in between; of the file the one that it names first."""
    if target.proxy_jump is not None:
        return {"proxyjump": target.proxy_jump}
    first = next((key for key in options if key in ("proxyjump", "proxycommand")), None)
    value = options.get(first) if first else None
    return {} if first is None or value is None or value.lower() == "none" else {first: value}
