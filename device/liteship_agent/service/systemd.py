"""systemctl and its kin on the target: run without questions, in English, with the address of the user's systemd."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Callable, Dict

from liteship_agent.service.units import Unit
from liteship_agent.store.events import StoreError

ROOT = Path("/")
"""Folder below which the system's own files are read; tests set another one."""

USER_SYSTEMD_SECONDS = 20.0
"""How long the user's systemd may take to start where lingering was just enabled."""

POLL_SECONDS = 0.5

_COMMAND_SECONDS = 45.0
_SHOWN = (
    "ActiveState",
    "ExecMainCode",
    "ExecMainStatus",
    "ExecMainStartTimestamp",
    "FragmentPath",
    "LoadState",
    "MainPID",
    "NRestarts",
    "Result",
    "StateChangeTimestamp",
    "SubState",
    "UnitFileState",
)


def system_path(name: str) -> Path:
    """A file of the system, by its path without the leading slash."""
    return ROOT / name


def user_name() -> str:
    """Login name of this process's user."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def run(*words: str, seconds: float = _COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
    """Run a program, in English, that can ask nobody.

    Raises:
        StoreError: it is not installed, or does not end.
    """
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
            env=environment(),
        )
    except FileNotFoundError as exc:
        raise StoreError("systemd", f"The program {words[0]} is required. Received: none on PATH") from exc
    except subprocess.TimeoutExpired as exc:
        shown = " ".join(words)
        raise StoreError("systemd", f"`{shown}` within {seconds:.0f} s is required. Received: no answer") from exc


def environment() -> Dict[str, str]:
    """This process's, with the addresses of the user's systemd, which a command over SSH may lack."""
    found = {**os.environ, "LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    place = found.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    found.setdefault("DBUS_SESSION_BUS_ADDRESS", f"unix:path={place}/bus")
    return found


def systemctl(*words: str) -> str:
    """Output of `systemctl --user`.

    Raises:
        StoreError: it failed; the message has what it said last.
    """
    ended = run("systemctl", "--user", "--no-ask-password", *words)
    if ended.returncode:
        raise StoreError("systemd", f"`systemctl --user {words[0]}` that succeeds is required. Received: {said(ended)}")
    return ended.stdout


def said(ended: subprocess.CompletedProcess[str]) -> str:
    """Why a program failed, as its first line says it: those after it are advice."""
    lines = (ended.stderr.strip() or ended.stdout.strip()).splitlines()
    return lines[0].strip() if lines else f"exit status {ended.returncode}"


def show(unit: Unit) -> Dict[str, str]:
    """Properties of a unit as systemd has them now."""
    options = [f"--property={','.join(_SHOWN)}", unit.name]
    pairs = (line.partition("=") for line in systemctl("show", *options).splitlines())
    return {**dict.fromkeys(_SHOWN, ""), **{name: value for name, _, value in pairs}}


def has_systemd() -> bool:
    """Whether systemd runs this machine. Source: sd_booted(3)."""
    return system_path("run/systemd/system").is_dir()


def require_systemd() -> None:
    """Raise StoreError on a machine that systemd does not run."""
    if not has_systemd():
        raise StoreError(
            "systemd",
            "A machine under systemd is required. Received: one with another init, or a container",
            "Without it there are no services; `liteship bench` works all the same.",
        )


def require_user_systemd(pause: Callable[[float], None], patience_seconds: float = 0.0) -> None:
    """Wait until the user's systemd answers: where lingering was just enabled, it is starting.

    Args:
        pause: Sleeps for some seconds.
        patience_seconds: Longest wait.
    Raises:
        StoreError: it does not answer.
    """
    waited = 0.0
    while True:
        ended = run("systemctl", "--user", "--no-ask-password", "show", "--property=Version")
        if ended.returncode == 0:
            return
        if waited >= patience_seconds:
            raise StoreError(
                "systemd",
                f"A running systemd of user {user_name()} is required. Received: {said(ended)}",
                "Debian and Raspberry Pi OS start it at login when libpam-systemd and dbus-user-session are installed.",
            )
        pause(POLL_SECONDS)
        waited += POLL_SECONDS
