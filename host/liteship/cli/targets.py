"""`liteship targets ...`: the boards of targets.toml, and the dialogue that adds one."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from liteship.built_in import EMULATED, LOOPBACK
from liteship.errors import TargetError
from liteship.link.endpoint import resolve
from liteship.remote import scan_host_key
from liteship.targets import (
    EMULATED_FOLDER,
    TARGETS_FILE,
    Target,
    add_target,
    find_target,
    load_targets,
    parse_target,
    read_emulated,
    unknown_target,
)

app = typer.Typer(no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="Name of the target.", show_default=False)]


@app.callback()
def targets() -> None:
    """List, add and trust boards."""


@app.command("list")
def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False) -> None:
    """Show all targets of targets.toml and the built-in ones."""
    running = read_emulated(EMULATED_FOLDER)
    emulated = Target(name=EMULATED, host="127.0.0.1", user="pi") if running is None else running[1]
    known = [find_target(LOOPBACK), emulated, *load_targets(TARGETS_FILE).values()]
    if as_json:
        typer.echo(json.dumps([target.model_dump(mode="json") for target in known], indent=2, ensure_ascii=False))
        return
    table = Table("target", "address", "folder", "runtime", "python", "host key")
    for target in known:
        if target.name == LOOPBACK:
            table.add_row(target.name, "this computer, not a board", target.folder, target.runtime, "", "built in")
        elif target.name == EMULATED and running is None:
            address = "a virtual ARM64 board; start it: make emulated"
            table.add_row(target.name, address, target.folder, target.runtime, target.python, "built in")
        else:
            trust = target.host_key_sha256 or "known_hosts"
            table.add_row(target.name, resolve(target).address, target.folder, target.runtime, target.python, trust)
    Console().print(table)


@app.command("add")
def add_command(
    name: _Name,
    host: Annotated[str, typer.Option(help="Host name, address, or name of ~/.ssh/config.", show_default=False)],
    user: Annotated[str | None, typer.Option(help="Login name.  \\[default: ~/.ssh/config, else yours]")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of its SSH server.  \\[default: ~/.ssh/config, else 22]")
    ] = None,
    identity_file: Annotated[str | None, typer.Option(help="Private key file.  \\[default: agent, ~/.ssh]")] = None,
    host_key_sha256: Annotated[str | None, typer.Option(help="SHA256:... of its host key.  \\[default: ask]")] = None,
    folder: Annotated[str | None, typer.Option(help="Folder there.  \\[default: ~/liteship]")] = None,
    python: Annotated[str | None, typer.Option(help="Python there.  \\[default: python3]")] = None,
    runtime: Annotated[str | None, typer.Option(help="TFLite runtime.  \\[default: auto]")] = None,
) -> None:
    """Add a board to targets.toml."""
    if name in load_targets(TARGETS_FILE):
        raise TargetError(
            f"A new name is required. Received: {name}, which {TARGETS_FILE} has.",
            f"Edit the file, or for a changed host key: liteship targets trust {name}",
        )
    given = {
        "host": host,
        "user": user,
        "port": port,
        "identity_file": identity_file,
        "host_key_sha256": host_key_sha256,
        "folder": folder,
        "python": python,
        "runtime": runtime,
    }
    target = _checked(name, given)
    if target.host_key_sha256 is None:
        target = _checked(name, {**given, "host_key_sha256": _ask_trust(target)})
    add_target(TARGETS_FILE, target)
    typer.echo(f"{name} ({resolve(target).address}) is now in {TARGETS_FILE}.", err=True)


@app.command("trust")
def trust_command(name: _Name) -> None:
    """Show the host key that a board presents now, and write it to targets.toml when you say yes."""
    known = load_targets(TARGETS_FILE)
    if name not in known:
        raise unknown_target(name, known)
    fingerprint = _ask_trust(known[name])
    add_target(TARGETS_FILE, known[name].model_copy(update={"host_key_sha256": fingerprint}))
    typer.echo(f"{fingerprint} of {name} is now in {TARGETS_FILE}.", err=True)


def dialogue() -> Callable[[str], Target] | None:
    """What `find_target` asks an unknown name with: `ask_target` on a terminal, nothing without one."""
    return ask_target if _is_terminal() else None


def ask_target(name: str) -> Target:
    """Ask for everything that a new target needs, and whether to trust its host key."""
    known = ", ".join([LOOPBACK, *load_targets(TARGETS_FILE)])
    typer.echo(f"{name} is not a known target ({known}). To add it:", err=True)
    address = _ask("Host", "raspberrypi.local")
    host, colon, port = address.partition(":")
    given: dict[str, Any] = {"host": host, "port": int(port)} if colon and port.isdecimal() else {"host": address}
    configured = resolve(_checked(name, given))
    if not configured.names_user:
        given["user"] = _ask("User", _default_user())
    if not configured.identity_files:
        given["identity_file"] = _ask("Key file (empty: the ssh agent)", _default_key()) or None
    return _checked(name, {**given, "host_key_sha256": _ask_trust(_checked(name, given))})


def _checked(name: str, given: dict[str, Any]) -> Target:
    return parse_target(name, {key: value for key, value in given.items() if value is not None}, "targets add")


def _ask_trust(target: Target) -> str:
    """The fingerprint that the target presents, once somebody has said yes to it.

    Raises:
        TargetError: there is nobody to ask, or the answer is no.
        LinkError: the target does not answer.
    """
    endpoint = resolve(target)
    fingerprint = scan_host_key(target)
    shown = f"{endpoint.host}:{endpoint.port} presents the host key {fingerprint}"
    if not _is_terminal():
        raise TargetError(
            f"A terminal to ask on, or a trusted host_key_sha256, is required. Received: neither; {shown}",
            "Compare it on the board (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), then pass it to "
            "`liteship targets add` as --host-key-sha256, or set it in targets.toml.",
        )
    typer.echo(f"{shown}.", err=True)
    if target.host_key_sha256 not in (None, fingerprint):
        typer.echo(f"It is NOT the trusted one, {target.host_key_sha256}.", err=True)
    if not _confirm("Trust it?"):
        raise TargetError(f"A trusted host key of {target.name} is required. Received: no")
    return fingerprint


def _ask(question: str, default: str) -> str:
    """The answer; Ctrl-C at a prompt is an interruption like any other."""
    try:
        return str(typer.prompt(question, default=default, err=True))
    except typer.Abort as exc:
        raise KeyboardInterrupt from exc


def _confirm(question: str) -> bool:
    try:
        return bool(typer.confirm(question, default=False, err=True))
    except typer.Abort as exc:
        raise KeyboardInterrupt from exc


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _default_user() -> str:
    user = getpass.getuser()
    return "pi" if user == "root" else user


def _default_key() -> str:
    """The usual key file, unless an agent holds the keys or there is no such file."""
    usual = Path("~/.ssh/id_ed25519")
    return "" if os.environ.get("SSH_AUTH_SOCK") or not usual.expanduser().exists() else str(usual)
