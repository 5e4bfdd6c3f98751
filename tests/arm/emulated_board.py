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
RECIPE = """
schema_version = 1
name = "arm"
[data]
source = "digits"
[model]
architecture = "mobilenet_v2"
alpha = 0.35
input = [48, 48]
[train]
head_epochs = 0
epochs = 6
learning_rate = 3e-3
schedule = "cosine"
[[compress]]
pruning = "none"
quantization = ["none", "float16", "dynamic", "int8"]
[parity]
max_drop = 1.0
"""
TRAINED_IMAGES = 400
BUILD = (
    "from pathlib import Path; from liteship.cli.common import build; from liteship.recipe import load_recipe; "
    f"build(load_recipe(Path('arm.toml')), {TRAINED_IMAGES})"
)

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
