"""The verbs of the services: install, status, logs, remove and facts."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from pathlib import Path
from typing import BinaryIO, Callable, Dict, List, Sequence

from liteship_agent.service.logind import enable_lingering, facts, lingers, restore_lingering
from liteship_agent.service.systemd import (
    POLL_SECONDS,
    USER_SYSTEMD_SECONDS,
    require_systemd,
    require_user_systemd,
    run,
    said,
    show,
    system_path,
    systemctl,
    user_name,
)
from liteship_agent.service.units import AGENT, START_LIMIT_COUNT, UNITS, Unit, find_unit, unit_text, write_unit
from liteship_agent.store.events import Event, StoreError, emit, heartbeat, serve

SETTLE_SECONDS = 5.0
"""A unit that runs for so long after its start has started: the agent is imported by then, on a slow board too."""

_START_SECONDS = 30.0

Pause = Callable[[float], None]


def install(folder: Path, what: str, pause: Pause = time.sleep) -> Event:
    """Install a service, start it, and see that it stays up; twice is as good as once.

    Args:
        folder: The liteship folder.
        what: Key of UNITS.
        pause: Sleeps for some seconds.
    Returns:
        The service as `status` has it, with "changed": whether its unit file is another than before.
    Raises:
        StoreError: the release's agent cannot do it, lingering is refused, there is no systemd, or it did not stay up.
    """
    unit = find_unit(what)
    require_systemd()
    text = unit_text(unit, folder, sys.executable)
    _require_verb(folder, unit)
    enable_lingering(folder / "units")
    require_user_systemd(pause, USER_SYSTEMD_SECONDS)
    _require_own(folder, unit, show(unit))
    changed = write_unit(folder / "units" / unit.name, text)
    systemctl("daemon-reload")
    systemctl("enable", "--force", str(folder / "units" / unit.name))  # over a link to a folder that is gone
    _start(unit, changed)
    _await_start(unit, pause)
    if not lingers():
        raise StoreError("lingering", f"Lingering of user {user_name()} is required. Received: Linger=no after all")
    return {"service": _describe(folder, unit), "changed": changed, "lingers": True, "user": user_name()}


def _require_verb(folder: Path, unit: Unit) -> None:
    """Ask the active release's agent whether it has a unit's verb."""
    archive = folder / AGENT
    if not archive.is_file():
        raise StoreError("release", f"An active release in {folder} is required. Received: none", "liteship deploy")
    ended = run(sys.executable, "-I", "-S", "-B", str(archive), unit.verb, "--help")
    if ended.returncode == 2:
        release = os.path.basename(os.path.realpath(folder / "current"))
        raise StoreError(
            "release",
            f"An agent with the verb {unit.verb} is required for the {unit.what} service. "
            f"Received: that of release {release}, which has none",
            "Deploy with a liteship that has it, then install again.",
        )
    if ended.returncode:
        raise StoreError("release", f"An agent that starts is required. Received: {said(ended)}")


def _require_own(folder: Path, unit: Unit, state: Dict[str, str]) -> None:
    """One user has one unit of a name: that of another liteship folder is not taken over."""
    path = state["FragmentPath"]
    if path and not _is_own(folder, unit, state):
        raise StoreError(
            "locked",
            f"{unit.name} of {folder} is required. Received: one of {os.path.realpath(path)}",
            "Remove it with the target's `folder` set to the other folder.",
        )


def _is_own(folder: Path, unit: Unit, state: Dict[str, str]) -> bool:
    path = state["FragmentPath"]
    return bool(path) and os.path.realpath(path) == os.path.realpath(folder / "units" / unit.name)


def _start(unit: Unit, changed: bool) -> None:
    """Start a unit, anew where its file changed; earlier failures do not count against it."""
    state = show(unit)
    if state["ActiveState"] == "active" and not changed:
        return
    run("systemctl", "--user", "--no-ask-password", "reset-failed", unit.name)  # fails where there is nothing to reset
    systemctl("restart", unit.name)


def _await_start(unit: Unit, pause: Pause) -> None:
    """Return when the unit stays up, or ended well where it may.

    Raises:
        StoreError: it ended otherwise.
    """
    waited, steady, pid = 0.0, 0.0, ""
    while waited <= _START_SECONDS:
        state = show(unit)
        if state["ActiveState"] == "inactive" and state["Result"] == "success" and unit.may_end:
            return
        if state["ActiveState"] in ("failed", "inactive") or state["SubState"] == "auto-restart":
            break
        steady = steady + POLL_SECONDS if state["ActiveState"] == "active" and state["MainPID"] == pid else 0.0
        pid = state["MainPID"]
        if steady >= SETTLE_SECONDS:
            return
        pause(POLL_SECONDS)
        waited += POLL_SECONDS
    raise StoreError(
        "service",
        f"{unit.name} that stays up is required. Received: {_ending(state)}",
        f"liteship service logs {unit.what} tells why; systemd tries it {START_LIMIT_COUNT} times.",
    )


def _ending(state: Dict[str, str]) -> str:
    """How a unit's process ended, for people."""
    code = {"1": "exit status", "2": "signal", "3": "signal"}.get(state["ExecMainCode"])
    return f"{state['Result']}, {code} {state['ExecMainStatus']}" if code else f"{state['ActiveState']}, no process"


def status(folder: Path, what: str = "") -> Event:
    """How the services are, or one of them.

    Raises:
        StoreError: there is no systemd of this user.
    """
    units = [find_unit(what)] if what else list(UNITS.values())
    require_systemd()
    require_user_systemd(time.sleep)
    services = [_describe(folder, unit) for unit in units]
    return {"services": services, "lingers": lingers(), "user": user_name()}


def _describe(folder: Path, unit: Unit) -> Event:
    state = show(unit)
    own = _is_own(folder, unit, state) and state["LoadState"] == "loaded"
    return {
        "what": unit.what,
        "unit": unit.name,
        "installed": own,
        "enabled": own and state["UnitFileState"] == "enabled",
        "active": state["ActiveState"] if own else "inactive",
        "sub": state["SubState"] if own else "dead",
        "result": state["Result"] if own else "success",
        "ending": _ending(state) if own and state["ExecMainCode"] not in ("", "0") else None,
        "pid": int(state["MainPID"] or 0) or None if own else None,
        "restarts": int(state["NRestarts"] or 0) if own else 0,
        "since": state["StateChangeTimestamp"] or None if own else None,
        "other_folder": None if own or not state["FragmentPath"] else os.path.realpath(state["FragmentPath"]),
    }


def remove(folder: Path, what: str = "") -> Event:
    """Stop and remove one service or all, and leave lingering as it was before the first install.

    Returns:
        "removed": The words of those that were there; "lingers": whether services run without a login now.
    Raises:
        StoreError: one could not be stopped, or lingering could not be restored.
    """
    require_systemd()
    require_user_systemd(time.sleep)
    removed = [unit.what for unit in ([find_unit(what)] if what else UNITS.values()) if _remove_unit(folder, unit)]
    restore_lingering(folder / "units")
    with contextlib.suppress(OSError):  # it is not there, or the other service's unit is in it
        (folder / "units").rmdir()
    return {"removed": removed, "lingers": lingers(), "user": user_name()}


def _remove_unit(folder: Path, unit: Unit) -> bool:
    """False where there was none of this folder."""
    path, state = folder / "units" / unit.name, show(unit)
    own = _is_own(folder, unit, state)
    if own:
        systemctl("stop", unit.name)  # first: a unit that has ended is not known any more once its link is gone
        systemctl("disable", unit.name)
    existed = path.exists()
    path.unlink(missing_ok=True)
    if own:
        run("systemctl", "--user", "--no-ask-password", "reset-failed", unit.name)  # fails where nothing failed
        systemctl("daemon-reload")
        left = show(unit)
        if left["FragmentPath"] or left["ActiveState"] not in ("inactive", "failed"):
            raise StoreError("systemd", f"{unit.name} to be gone is required. Received: {left['ActiveState']}")
    return own or existed


def logs(folder: Path, what: str, count: int) -> Event:
    """The last lines that a service wrote.

    `--user-unit` without `--user` finds them in the user's own journal and in the system's, where they are as long as
    the journal is kept in memory only.

    Returns:
        "lines": The oldest first; "persistent": whether the journal outlives a boot.
    Raises:
        StoreError: this user may not read the journal.
    """
    unit = find_unit(what)
    require_systemd()
    ended = run("journalctl", f"--user-unit={unit.name}", f"--lines={count}", "--no-pager", "--output=short-iso")
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("-- ")]
    refused = [
        line.strip()
        for line in ended.stderr.splitlines()
        if re.search("insufficient permissions|No journal files|not seeing messages", line)
    ]
    if ended.returncode or (refused and not lines):
        groups = f"sudo usermod -aG systemd-journal {user_name()}; log in again"
        received = refused[0] if refused else said(ended)
        raise StoreError(
            "permission", f"A journal that user {user_name()} can read is required. Received: {received}", groups
        )
    return {"lines": lines, "persistent": any(system_path("var/log/journal").glob("*/*.journal"))}


def main(arguments: Sequence[str], stream: BinaryIO) -> int:
    """Run one verb and answer with a final event; returns the exit status.

    Args:
        arguments: The verb, the liteship folder, and what the verb takes: a service, and for logs the count of lines.
        stream: Nothing is read from it.
    """
    return serve(lambda: _answer(list(arguments)))


def _answer(arguments: List[str]) -> Event:
    verb, name, *rest = arguments
    folder = Path(os.path.abspath(os.path.expanduser(name)))
    if verb == "logs":
        what, count = rest
        return logs(folder, what, int(count))
    verbs: Dict[str, Callable[..., Event]] = {
        "install": install,
        "status": status,
        "remove": remove,
        "facts": lambda folder: facts(),
    }
    if verb not in verbs:
        raise StoreError("protocol", f"{', '.join([*verbs, 'logs'])} is required. Received: {verb}")
    with heartbeat(verb, emit):
        return verbs[verb](folder, *rest)
