"""What logind decides: whether services run without a login, and what becomes of a user's processes after one."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Optional, Tuple

from liteship_agent.service.systemd import has_systemd, run, said, system_path, user_name
from liteship_agent.service.units import UNITS
from liteship_agent.store.events import Event, StoreError

_LINGER_NOTE = "lingering-was-off"
_LOGIND = ("org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager")
_LOGIND_FOLDERS = ("usr/local/lib/systemd", "usr/lib/systemd", "run/systemd", "etc/systemd")


def lingers() -> bool:
    """Whether this user's services run without a login, as logind says or, where it does not know the user, notes."""
    with contextlib.suppress(StoreError):
        ended = run("loginctl", "show-user", user_name(), "--property=Linger")
        if ended.returncode == 0:
            return ended.stdout.strip() == "Linger=yes"
    return system_path(f"var/lib/systemd/linger/{user_name()}").exists()


def enable_lingering(units: Path) -> None:
    """Let services run without a login, noting that they did not before.

    Raises:
        StoreError: it is refused, or has no effect.
    """
    if lingers():
        return
    units.mkdir(parents=True, exist_ok=True)
    (units / _LINGER_NOTE).touch()
    ended = run("loginctl", "--no-ask-password", "enable-linger", user_name())
    if ended.returncode or not lingers():
        (units / _LINGER_NOTE).unlink()
        with contextlib.suppress(OSError):  # another service's unit is in it
            units.rmdir()
        received = said(ended) if ended.returncode else "Linger=no"
        raise StoreError(
            "lingering",
            f"Lingering of user {user_name()} is required, so that services run without a login. Received: {received}",
            f"Once on the target: sudo loginctl enable-linger {user_name()}; then install again.",
        )


def restore_lingering(units: Path) -> None:
    """Disable lingering where it was off before the first install and no service is left."""
    if not (units / _LINGER_NOTE).exists() or any((units / unit.name).exists() for unit in UNITS.values()):
        return
    ended = run("loginctl", "--no-ask-password", "disable-linger", user_name())
    if ended.returncode:
        raise StoreError(
            "lingering",
            f"Lingering as it was before is required. Received: {said(ended)}",
            f"The service is removed. On the target: sudo loginctl disable-linger {user_name()}",
        )
    (units / _LINGER_NOTE).unlink()


def facts() -> Event:
    """What decides whether a job outlives its login.

    Returns:
        "kill_user_processes" and "remove_ipc", each {"value": bool or None, "source", "reason"}; "is_exempt": whether
        logind spares this user's processes; "lingers"; "user"; "has_systemd".
    """
    is_there = has_systemd()
    settings = {name: _logind_setting(name) for name in ("KillUserProcesses", "RemoveIPC")}
    return {
        "kill_user_processes": settings["KillUserProcesses"],
        "remove_ipc": settings["RemoveIPC"],
        "is_exempt": is_there and _is_exempt(),
        "lingers": is_there and lingers(),
        "user": user_name(),
        "has_systemd": is_there,
    }


def _logind_setting(name: str) -> Event:
    """A setting as logind has it in use, else as its files say."""
    if not has_systemd():
        return {"value": None, "source": None, "reason": "systemd does not run here"}
    value = _logind_property(name)
    if isinstance(value, bool):
        return {"value": value, "source": "logind", "reason": None}
    written, path = _written_setting(name)
    if written is None:
        return {"value": None, "source": None, "reason": "logind does not answer, and none of its files has it"}
    return {"value": written.lower() in ("yes", "true", "on", "1"), "source": path, "reason": None}


def _logind_property(name: str) -> Any:
    """A property of logind's manager, None where it does not tell."""
    try:
        ended = run("busctl", "--json=short", "get-property", *_LOGIND, name, seconds=5.0)
        return json.loads(ended.stdout)["data"] if ended.returncode == 0 else None
    except (StoreError, ValueError, KeyError, TypeError):
        return None


def _written_setting(name: str) -> Tuple[Optional[str], Optional[str]]:
    """The last value that logind.conf and its drop-ins give a setting, and the file."""
    mains = [system_path(f"{folder}/logind.conf") for folder in _LOGIND_FOLDERS]
    drops = {
        path.name: path  # a later folder's file replaces an earlier one's of the same name
        for folder in _LOGIND_FOLDERS
        for path in sorted(system_path(f"{folder}/logind.conf.d").glob("*.conf"))
    }
    found: Tuple[Optional[str], Optional[str]] = None, None
    for path in [*[path for path in mains if path.is_file()][-1:], *(drops[key] for key in sorted(drops))]:
        with contextlib.suppress(OSError):
            text = path.read_text(encoding="utf-8", errors="replace")
            for value in re.findall(rf"^[ \t]*{name}[ \t]*=[ \t]*(\S+)", text, re.MULTILINE):
                found = value, "/" + str(path.relative_to(system_path("")))
    return found


def _is_exempt() -> bool:
    """Whether KillExcludeUsers and KillOnlyUsers spare this user; root is spared unless somebody changed that."""
    spared, only = _logind_property("KillExcludeUsers"), _logind_property("KillOnlyUsers")
    if isinstance(spared, list) and user_name() in spared:
        return True
    return isinstance(only, list) and bool(only) and user_name() not in only
