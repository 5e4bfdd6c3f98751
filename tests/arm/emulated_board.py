"""What the tests of the emulated board share: where its image is, and how they talk to it without liteship."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from liteship.emulated.machine import Machine
from liteship.progress import Reporter

PROJECT = Path(__file__).parents[2]
IMAGE = PROJECT / ".liteship/emulated-image"
LITESHIP = str(Path(sys.executable).with_name("liteship"))

Liteship = Callable[..., subprocess.CompletedProcess[str]]
AsRoot = Callable[[str], str]


def reporter() -> Reporter:
    """Progress where pytest shows it."""
    return Reporter(Console(stderr=True))


def over_ssh(board: Machine, user: str, command: str) -> str:
    """What a command prints, over OpenSSH's own client."""
    options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
    words = ["ssh", "-F", "none", "-p", str(board.target.port), "-i", str(board.target.identity_file)]
    words += [word for option in options for word in ("-o", option)]
    ended = subprocess.run([*words, f"{user}@127.0.0.1", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def environment() -> dict[str, str]:
    """That of the tests without options, and with a cache of runtimes that stays."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LITESHIP_")}
    return {**kept, "XDG_CACHE_HOME": str(PROJECT / ".liteship/cache")}
