"""The unit files of the services, with every path escaped as systemd reads it."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Tuple

from liteship_agent.store.events import StoreError

AGENT = "current/liteship_agent.zip"
CAMERA_PORT = 8800
"""On 127.0.0.1: the same after each start, for whoever forwards it by hand."""
RESTART_SECONDS = 10
START_LIMIT_COUNT, START_LIMIT_SECONDS = 5, 600


@dataclass(frozen=True)
class Unit:
    """One service.

    Args:
        what: Its word on the command line.
        verb: Of the agent, which takes --folder.
        description: For `systemctl status`.
        may_end: Whether it has started well, too, when it ended at once because there was nothing to do.
        options: Of the verb, after --folder.
    """

    what: str
    verb: str
    description: str
    may_end: bool = False
    options: Tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Its name for systemd."""
        return f"liteship-{self.what}.service"


UNITS = {
    unit.what: unit
    for unit in (
        Unit("agent", "resume", "liteship agent: goes on with jobs that were interrupted", may_end=True),
        Unit("camera", "camera", "liteship camera: classifies live frames", options=("--port", str(CAMERA_PORT))),
    )
}


def find_unit(what: str) -> Unit:
    """The service of a word.

    Raises:
        StoreError: it is no service.
    """
    if what not in UNITS:
        raise StoreError("protocol", f"{' or '.join(UNITS)} is required. Received: {what}")
    return UNITS[what]


def unit_text(unit: Unit, folder: Path, python: str) -> str:
    """The unit file of a service.

    Args:
        unit: The service.
        folder: The liteship folder, absolute.
        python: The interpreter, absolute.
    Raises:
        StoreError: systemd has no way to write one of the paths.
    """
    words = ["-I", "-S", "-B", str(folder / AGENT), unit.verb, "--folder", str(folder), *unit.options]
    command = " ".join([quote_program(python), *map(quote_word, words)])
    # A job's own worker that runs out of memory is a failed row of its report, not the end of the service.
    return f"""\
# Written by `liteship service install {unit.what}`, which overwrites changes.
[Unit]
Description={unit.description}
StartLimitIntervalSec={START_LIMIT_SECONDS}
StartLimitBurst={START_LIMIT_COUNT}

[Service]
Type=exec
ExecStart={command}
WorkingDirectory={quote_folder(folder)}
Restart=on-failure
RestartSec={RESTART_SECONDS}
OOMPolicy=continue

[Install]
WantedBy=default.target
"""


def quote_word(text: str) -> str:
    """A word of ExecStart= after the first, in which nothing has a meaning for systemd.

    Source: systemd.service(5), COMMAND LINES, and systemd.unit(5), SPECIFIERS.

    Raises:
        StoreError: it has control characters or bytes that are no UTF-8, which unit files cannot hold.
    """
    _require_text(text)
    if re.fullmatch(r"[A-Za-z0-9_/.=:+-]+", text):
        return text
    for mark, escaped in (("\\", "\\\\"), ('"', '\\"'), ("%", "%%"), ("$", "$$")):
        text = text.replace(mark, escaped)
    return f'"{text}"'


def quote_program(path: str) -> str:
    """The first word of ExecStart=: an absolute path, in which systemd takes neither quotes nor backslashes.

    Raises:
        StoreError: it is not absolute or has one of them, or a dollar sign.
    """
    _require_text(path)
    if not path.startswith("/") or re.search(r"[\"'\\$]", path):
        raise StoreError(
            "python", f"An interpreter with an absolute path without quotes, $ and \\ is required. Received: {path}"
        )
    return '"' + path.replace("%", "%%") + '"'


def quote_folder(folder: Path) -> str:
    """The value of WorkingDirectory=, which is one path to the end of the line: quotes would belong to it.

    Raises:
        StoreError: it ends with a blank or a backslash, which systemd would take for something else.
    """
    text = str(folder)
    _require_text(text)
    if text != text.strip() or text.endswith("\\"):
        raise StoreError("folder", f"A folder that ends with neither blank nor \\ is required. Received: {text!r}")
    return text.replace("%", "%%")


def _require_text(text: str) -> None:
    if not text.isprintable():
        raise StoreError("folder", f"A path of printable characters is required. Received: {text!r}")


def write_unit(path: Path, text: str) -> bool:
    """Give a unit file its content at once or not at all; False where it has it already."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    return True
