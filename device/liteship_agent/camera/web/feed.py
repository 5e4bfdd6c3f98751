"""What the page is told: the newest value of each kind of news, for any number of readers that hold nothing up."""

from __future__ import annotations

import json
import threading
from typing import Any, Dict, List, Optional, Tuple

News = Tuple[str, str]
"""Kind, and its value as JSON text without line ends."""


class Feed:
    """The newest value of each kind."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: Dict[str, Tuple[int, str, bool]] = {}
        self._version = 0
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing comes any more."""
        return self._is_closed

    def publish(self, kind: str, value: Any, *, lasts: bool = True) -> None:
        """Replace the newest value of a kind.

        Args:
            kind: For example "state".
            value: For JSON.
            lasts: Whether one who comes later wants to know it too.
        """
        text = json.dumps(value, ensure_ascii=True)
        with self._changed:
            self._version += 1
            self._newest[kind] = (self._version, text, lasts)
            self._changed.notify_all()

    def close(self) -> None:
        """Nothing comes any more; what is there can still be read."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def reader(self) -> Reader:
        """One who sees what lasts, and what comes from now on."""
        return Reader(self)

    def after(self, seen: Optional[int], seconds: float) -> Tuple[List[News], int]:
        """Wait for news, at most so long.

        Args:
            seen: Version up to which all is known; null for a new reader.
            seconds: The longest wait.
        Returns:
            The newest value of each kind that changed, in the order of the changes, and the version to ask with next.
        """
        with self._changed:
            if seen is None:
                return self._since(0, {kind for kind, (_, _, lasts) in self._newest.items() if lasts}), self._version
            self._changed.wait_for(lambda: self._version > seen or self._is_closed, seconds)
            return self._since(seen, self._newest), self._version

    def _since(self, version: int, kinds: Any) -> List[News]:
        found = [(at, kind, text) for kind, (at, text, _) in self._newest.items() if at > version and kind in kinds]
        return [(kind, text) for _, kind, text in sorted(found)]


class Reader:
    """One reader of a feed, for one thread."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._seen: Optional[int] = None

    def next(self, seconds: float) -> List[News]:
        """News since the last call; none if none came in time, or none will come."""
        news, self._seen = self._feed.after(self._seen, seconds)
        return news


def as_server_sent(news: List[News]) -> bytes:
    """The text of server-sent events (HTML standard, section 9.2)."""
    return "".join(f"event: {kind}\ndata: {text}\n\n" for kind, text in news).encode("ascii")
