"""What the host wants to know first: what the target is, and what its liteship folder holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import BinaryIO

from liteship_agent.store.events import Event, serve
from liteship_agent.store.inventory import absolute, inventory, running_camera
from liteship_agent.store.machine import machine


def main(arguments: list[str], stream: BinaryIO) -> int:
    """Answer for the folder that is the only argument."""
    return serve(lambda: probe(absolute(*arguments)))


def probe(folder: Path) -> Event:
    """Everything the host wants to know before it sends a release; reads no blob and creates nothing."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return {
        **machine(),
        "free_bytes": shutil.disk_usage(existing).free,
        "folder": str(folder),
        **inventory(folder),
        "camera": running_camera(folder),
    }
