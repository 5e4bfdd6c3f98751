"""systemctl, loginctl, busctl and journalctl of a board, as far as the services use them, with recorded answers.

Installed under each of these names on a PATH of its own. What the board is like stands in the JSON file that the
environment names; every call is added to its "calls".
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

STATE = Path(os.environ["FAKE_SYSTEMD"])


def fail(message: str, code: int = 1) -> None:
    sys.stderr.write(message + "\n")
    raise SystemExit(code)


def loginctl(state: dict, words: list[str]) -> None:
    if words[0] == "show-user":
        if not state["is_known"]:
            fail(f"Failed to get user: User ID 1000 is not logged in or lingering: {words[1]}")
        print(f"Linger={'yes' if state['lingers'] else 'no'}")
    elif state["polkit"] == "refuses":
        fail("Could not enable linger: Interactive authentication required.")
    elif state["polkit"] == "allows":
        state["lingers"] = words[0] == "enable-linger"


def systemctl(state: dict, words: list[str]) -> None:
    assert words.pop(0) == "--user", words
    if state["deaf"] > 0:
        state["deaf"] -= 1
        fail("Failed to connect to bus: No medium found")
    verb, *rest = words
    if verb == "show":
        print("Version=252" if rest == ["--property=Version"] else show(state, rest[-1]))
    elif verb == "enable":
        path = Path(rest[-1])
        if not path.is_file():
            fail(f"Failed to enable unit: Unit file {path} does not exist.")
        state["links"][path.name] = str(path)
    elif verb == "disable":
        state["links"].pop(rest[-1], None)
    elif verb == "stop":
        if rest[-1] not in state["links"]:
            fail(f"Failed to stop {rest[-1]}: Unit {rest[-1]} not loaded.", 5)
        state["units"].pop(rest[-1], None)
    elif verb == "reset-failed":
        state["units"].get(rest[-1], {}).pop("failed", None)
        fail(f"Failed to reset failed state of unit {rest[-1]}: Unit {rest[-1]} not loaded.")
    elif verb == "restart":
        restart(state, rest[-1])


def restart(state: dict, name: str) -> None:
    if state["behavior"] == "does not start":
        fail(f"Job for {name} failed because the control process exited with error code.\nSee the journal for details.")
    state["pid"] += 1
    state["units"][name] = {
        "stays": {"ActiveState": "active", "SubState": "running", "MainPID": state["pid"]},
        "ends": {"ActiveState": "inactive", "SubState": "dead", "ExecMainCode": 1},
        "fails": {
            "ActiveState": "activating",
            "SubState": "auto-restart",
            "Result": "exit-code",
            "ExecMainCode": 1,
            "ExecMainStatus": 5,
        },
        "starts for ever": {"ActiveState": "activating", "SubState": "start", "MainPID": state["pid"]},
    }[state["behavior"]]


def show(state: dict, name: str) -> str:
    link = state["links"].get(name)
    found = {
        "ActiveState": "inactive",
        "ExecMainCode": 0,
        "ExecMainStatus": 0,
        "FragmentPath": link or "",
        "LoadState": "loaded" if link else "not-found",
        "MainPID": 0,
        "NRestarts": 0,
        "Result": "success",
        "StateChangeTimestamp": "Sun 2026-11-22 10:15:00 UTC",
        "SubState": "dead",
        "UnitFileState": "enabled" if link else "",
        **state["units"].get(name, {}),
    }
    return "\n".join(f"{key}={value}" for key, value in found.items())


def busctl(state: dict, words: list[str]) -> None:
    name = words[-1]
    if name not in state["logind"]:
        fail("Failed to get property: The name org.freedesktop.login1 was not provided by any .service files")
    value = state["logind"][name]
    print(json.dumps({"type": "b" if isinstance(value, bool) else "as", "data": value}))


def journalctl(state: dict, words: list[str]) -> None:
    sys.stderr.write(state["journal"]["stderr"])
    sys.stdout.write(state["journal"]["stdout"])
    raise SystemExit(state["journal"]["code"])


def main() -> None:
    program, words = Path(sys.argv[0]).name, [word for word in sys.argv[1:] if word != "--no-ask-password"]
    state = json.loads(STATE.read_text())
    state["calls"].append(" ".join([program, *words]))
    state["environment"] = {key: os.environ.get(key) for key in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")}
    try:
        globals()[program](state, words)
    finally:
        STATE.write_text(json.dumps(state))


main()
