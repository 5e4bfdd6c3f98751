"""The inventory of boards, targets.toml: read, checked and written.

A table `[targets.NAME]` is one board. `loopback` and `emulated` are built in and never stand in the file. An unknown
name is either a typo, or a board that is not in the inventory yet; on a terminal the caller passes a dialogue that asks
for it.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tomlkit.exceptions import TOMLKitError

from liteship.built_in import BUILT_IN, EMULATED, LOOPBACK
from liteship.errors import TargetError
from liteship_agent.records import write_atomic

TARGETS_FILE = Path("targets.toml")
EMULATED_FOLDER = Path(".liteship/emulated")
EMULATED_STATE = "running.json"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_Text = Annotated[str, Field(min_length=1)]
_Threads = Annotated[int, Field(ge=1, le=64)]
_Cpu = Annotated[int, Field(ge=0, le=1023)]


class Target(BaseModel):
    """One board and how to reach it; the descriptions of the fields are the texts of their errors.

    Args:
        name: The table's name in targets.toml.
        host: To dial, or a name of ~/.ssh/config.
        port, user, identity_file, proxy_jump: What stands here wins over ~/.ssh/config, see `liteship.link.endpoint`.
        host_key_sha256: The trusted host key's fingerprint as ssh-keygen prints it; without it, known_hosts decides.
        proxy_jump: `[user@]host[:port]` of an SSH server in between, reached by the ssh program.
        folder, python: On the target; `~` is the home folder there.
        threads, cpus: Interpreter threads to measure with, each of them, and the CPUs they may use (empty: all of the
            fastest kind).
        canary_ratio: By how much the canary may move before a round is void, 0.05 means 5 %.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: _Text = Field(description="a name of letters, digits, '.', '_' and '-'", pattern=f"^{_NAME.pattern}$")
    host: _Text = Field(description="a host name or address", pattern=r"^\S+$")
    port: int | None = Field(None, description="a port from 1 to 65535", ge=1, le=65535)
    user: _Text | None = Field(None, description="a login name on the target", pattern=r"^\S+$")
    identity_file: _Text | None = Field(None, description="the path of a private key file")
    host_key_sha256: str | None = Field(
        None, description="a fingerprint SHA256:... of 43 letters", pattern=r"^SHA256:[A-Za-z0-9+/]{43}$"
    )
    proxy_jump: _Text | None = Field(None, description="[user@]host[:port]", pattern=r"^[^\s-]\S*$")
    folder: _Text = Field("~/liteship", description="a folder on the target")
    runtime: _Text = Field("auto", description="auto or names of runtimes")
    python: _Text = Field("python3", description="a command on the target")
    threads: tuple[_Threads, ...] = Field((1,), description="a list of 1 to 64 threads", min_length=1, strict=False)
    cpus: tuple[_Cpu, ...] = Field((), description="a list of CPU numbers from 0", strict=False)
    canary_ratio: float | None = Field(None, description="a ratio from 0 to 1", gt=0, lt=1, allow_inf_nan=False)
    groups: tuple[_Text, ...] = Field((), description="a list of names", strict=False)


def split_runtimes(text: str) -> tuple[str, ...]:
    """The names of a comma list."""
    return tuple(name.strip() for name in text.split(","))


def parse_target(name: str, fields: dict[str, Any], source: str) -> Target:
    """A checked target.

    Args:
        name: The target's name.
        fields: Keys and values of its table.
        source: Where they come from, for error messages.
    Raises:
        TargetError: the first wrong key, with what is required.
    """
    try:
        return Target(**fields, name=name)
    except ValidationError as exc:
        raise _target_error(name, exc, source) from exc
    except TypeError as exc:
        raise TargetError(f"{source}: [targets.{name}]: keys without `name` are required.") from exc


def _target_error(name: str, error: ValidationError, source: str) -> TargetError:
    first = error.errors(include_url=False)[0]
    key = str(first["loc"][0])
    where = f"{source}: [targets.{name}] {key}"
    if first["type"] == "extra_forbidden":
        known = [field for field in Target.model_fields if field != "name"]
        return TargetError(f"{where}: a known key is required.", _nearest(key, known))
    received = "nothing" if first["type"] == "missing" else repr(first["input"])
    return TargetError(f"{where}: {Target.model_fields[key].description} is required. Received: {received}")


def _nearest(word: str, known: Iterable[str]) -> str:
    """The hint for a mistyped word."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(names)}."


def load_targets(path: Path = TARGETS_FILE) -> dict[str, Target]:
    """All targets of the file by name; none when there is no file.

    Raises:
        TargetError: not TOML, or a key or value that a target cannot have.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise TargetError(f"{path}: a readable TOML file is required. Received: {exc}") from exc
    unknown = [key for key in data if key != "targets"]
    if unknown:
        raise TargetError(f"{path}: tables [targets.NAME] are required. Received: {unknown[0]}")
    tables = data.get("targets", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise TargetError(f"{path}: tables [targets.NAME] are required. Received: targets = {tables!r}")
    for name in BUILT_IN:
        if name in tables:
            raise TargetError(f"{path}: [targets.{name}]: another name is required, {name} is built in.")
    return {name: parse_target(name, table, str(path)) for name, table in tables.items()}


def add_target(path: Path, target: Target) -> None:
    """Write a target's table, or change it, keeping all comments and the other tables.

    Raises:
        TargetError: the name is built in, or the file is not one that can be changed.
    """
    if target.name in BUILT_IN:
        raise TargetError(f"A name that is not built in is required. Received: {target.name}")
    load_targets(path)
    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8") if path.exists() else "")
        tables = document.setdefault("targets", tomlkit.table(is_super_table=True))
        table = tables.setdefault(target.name, tomlkit.table())
        for key, value in target.model_dump(mode="json", exclude={"name"}, exclude_defaults=True).items():
            if table.get(key) != value:
                table[key] = value
        write_atomic(path.resolve(), tomlkit.dumps(document).encode())
    except (OSError, TOMLKitError) as exc:
        raise TargetError(f"{path}: a file that can be written is required. Received: {exc}") from exc


def find_target(name: str, path: Path = TARGETS_FILE, ask: Callable[[str], Target] | None = None) -> Target:
    """The target of a name.

    Args:
        name: Built in, or a table of the file.
        path: The inventory.
        ask: Makes the target of an unknown name by asking; it is then added to the file. None without a terminal.
    Returns:
        The target. That of `loopback` has no reachable port until `liteship.loopback.serve` runs.
    Raises:
        TargetError: the name is unknown and there is nobody to ask, the file is wrong, or the emulated board does not
            run.
    """
    if name == LOOPBACK:
        return Target(name=name, host="127.0.0.1", user=name, folder=".liteship/loopback", python=sys.executable)
    if name == EMULATED:
        running = read_emulated(EMULATED_FOLDER)
        if running is None:
            raise TargetError("A running emulated board is required. Received: none.", "Start it with: make emulated")
        return running[1]
    targets = load_targets(path)
    if name in targets:
        return targets[name]
    if ask is None or not _NAME.fullmatch(name):
        raise unknown_target(name, targets)
    target = ask(name)
    add_target(path, target)
    return target


def read_emulated(folder: Path) -> tuple[int, Target] | None:
    """The emulated board that runs in a folder: its process and how to reach it; None where none runs.

    Raises:
        TargetError: what the folder says about it cannot be read.
    """
    path = folder / EMULATED_STATE
    try:
        state = json.loads(path.read_text())
        pid, name, fields = state["pid"], state["name"], state["target"]
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as exc:
        raise TargetError(f"{path}: the state of an emulated board is required. Received: {exc!r}") from exc
    is_it = f":{fields['port']}-:22".encode() in command  # QEMU's forwarded port; a process id may be another's by now
    return (pid, parse_target(name, fields, str(path))) if is_it else None


def expand_targets(text: str, path: Path = TARGETS_FILE, *, may_be_new: bool = False) -> tuple[str, ...]:
    """The names of targets in a comma list of names and groups, each once, in order.

    A group is a word that targets of the file have in `groups`; a target of the same name comes first.

    Args:
        text: Such as `pi4,desk`.
        path: The inventory.
        may_be_new: Keep a word that is neither, because `find_target` will ask about it.
    Raises:
        TargetError: a word is neither a target nor a group, the list is empty, or the file is wrong.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise TargetError(f"A comma list of targets and groups is required. Received: {text!r}.")
    if len(words) == 1 and words[0] in BUILT_IN:
        return (words[0],)
    targets = load_targets(path)
    groups: dict[str, list[str]] = {}
    for target in targets.values():
        for group in target.groups:
            groups.setdefault(group, []).append(target.name)
    found: list[str] = []
    for word in words:
        if word in BUILT_IN or word in targets:
            found.append(word)
        elif word in groups:
            found += groups[word]
        elif may_be_new:
            found.append(word)
        else:
            raise unknown_target(word, targets, groups)
    return tuple(dict.fromkeys(found))


def unknown_target(name: str, targets: Iterable[str], groups: Iterable[str] = ()) -> TargetError:
    """The error for a name that nobody knows: the known names, the nearest one, and the line that adds it."""
    known = [*BUILT_IN, *targets, *groups]
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    what = "target or group" if groups else "target"
    message = f"A known {what} is required ({', '.join(known)}). Received: {name}."
    nearest = f"Did you mean {close[0]}? Otherwise: " if close else ""
    return TargetError(message, f"{nearest}liteship targets add {name} --host raspberrypi.local --user pi")
