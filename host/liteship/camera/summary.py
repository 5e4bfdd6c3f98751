"""What a camera did, over all of its connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from liteship.camera.log import Event


@dataclass(frozen=True)
class Summary:
    """What a camera did, over all of its connections.

    Args:
        target: Its name.
        source, variant, release: The last ones.
        seconds: For which it ran.
        captured, classified, dropped, broken: Frames; broken ones were no picture.
        rate_hz: Classified frames per second, null without any; of one whole connection without the pauses.
        latency_p50_ns, latency_p90_ns, stages_ns: Over the last frames of the last connection.
        labels: How many frames had each label, or were unsure.
        swaps, saved: Models that took the place of another; frames that were saved.
        lost_links: How often the link was lost.
        complete: Whether every connection ended with the camera's own summary. Otherwise the figures are those of the
            last second before, frames that nobody told about are missing among the labels, and so are saved ones.
    """

    target: str
    source: str | None
    variant: str | None
    release: str | None
    seconds: float
    captured: int
    classified: int
    dropped: int
    broken: int
    rate_hz: float | None
    latency_p50_ns: int | None
    latency_p90_ns: int | None
    stages_ns: dict[str, int]
    labels: dict[str, int]
    swaps: int
    saved: int
    lost_links: int
    complete: bool

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass
class Run:
    """One connection's part.

    Args:
        began, ended: Seconds of one clock.
        figures: The last that came.
        labels: How many of the frames that were told had each label, or were unsure.
        swaps: Models that took the place of another.
        final: The camera's own summary, where it came.
    """

    began: float
    ended: float = 0.0
    figures: Event = field(default_factory=dict)
    labels: Counter[str] = field(default_factory=Counter)
    swaps: int = 0
    final: Event | None = None

    def part(self) -> Event:
        """Its figures; without a summary as far as they were heard."""
        if self.final is not None:
            return self.final
        return {**self.figures, "seconds": self.ended - self.began, "labels": self.labels, "swaps": self.swaps}


def summarize(target: str, camera: Event, runs: Sequence[Run], lost_links: int) -> Summary:
    """The sum of all connections.

    Args:
        target: Its name.
        camera: What is known of source and model.
        runs: One or more in their order, or none.
        lost_links: How often the link was lost.
    """
    parts = [run.part() for run in runs]
    labels: Counter[str] = Counter()
    for part in parts:
        labels.update(part.get("labels", {}))
    last = parts[-1] if parts else {}
    seconds, classified = _total(parts, "seconds"), _total(parts, "classified")
    if len(runs) == 1 and runs[0].final is not None:
        rate_hz = last.get("rate_hz")
    else:
        rate_hz = classified / seconds if classified and seconds else None
    return Summary(
        target=target,
        source=camera.get("source"),
        variant=camera.get("variant"),
        release=camera.get("release"),
        seconds=seconds,
        captured=_total(parts, "captured"),
        classified=classified,
        dropped=_total(parts, "dropped"),
        broken=_total(parts, "broken"),
        rate_hz=rate_hz,
        latency_p50_ns=last.get("latency_p50_ns"),
        latency_p90_ns=last.get("latency_p90_ns"),
        stages_ns=dict(last.get("stages_ns") or {}),
        labels=dict(labels.most_common()),
        swaps=_total(parts, "swaps"),
        saved=_total(parts, "saved"),
        lost_links=lost_links,
        complete=bool(runs) and all(run.final is not None for run in runs),
    )


def _total(parts: Sequence[Event], name: str) -> Any:
    """The sum over the connections that told it."""
    return sum(part.get(name) or 0 for part in parts)
