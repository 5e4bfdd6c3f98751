"""FOLDER/camera.json: where the page of a camera is that runs by itself, so that a host finds it and shows it.

The file is held by flock as long as the camera lives, also while a measurement has the target; what it says counts
only as long as it is held (`liteship_agent.store.inventory.running_camera` reads it).
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from liteship_agent.errors import LockedError
from liteship_agent.lock import hold

FILE = "camera.json"


@contextmanager
def announced(folder: Path, port: int, source: str) -> Iterator[None]:
    """Tell of a camera while the body runs.

    Args:
        folder: The liteship folder.
        port: Of its page, on 127.0.0.1, for which no token is required.
        source: Where its frames come from, for people.
    Raises:
        LockedError: another camera tells of itself there; it waits for a measurement to end.
    """
    file = hold(folder / FILE)
    if file is None:
        raise LockedError("a free target is required. Received: one that a paused camera waits for; end it first")
    with file:
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "port": port, "source": source}))
        file.flush()
        yield
        file.truncate(0)
