"""One sample of the target's sensors, before any release exists there."""

from __future__ import annotations

from typing import BinaryIO

from liteship_agent.sensors import Sensors
from liteship_agent.store.events import Event, serve


def main(arguments: list[str], stream: BinaryIO) -> int:
    """Answer with `sample`, `sources` and `can_see_throttling` of liteship_agent.sensors."""
    return serve(_sense)


def _sense() -> Event:
    sensors = Sensors()
    return {
        "sample": sensors.sample(),
        "sources": sensors.sources(),
        "can_see_throttling": sensors.can_see_throttling,
    }
