"""Hand-over between threads without a queue: one place for the newest value.

`Slot` has one taker and may drop or wait; `Latest` has any number of readers, none of which holds up the writer.
"""

from __future__ import annotations

import threading
from typing import Generic, Optional, TypeVar

T = TypeVar("T")


class Slot(Generic[T]):
    """One value for one taker."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._value: Optional[T] = None
        self._is_closed = False

    def put(self, value: T) -> Optional[T]:
        """Put a value in place of what nobody took, which is returned."""
        with self._changed:
            dropped, self._value = self._value, value
            self._changed.notify_all()
        return dropped

    def put_when_empty(self, value: T) -> bool:
        """Wait until the value before it is taken; false if the slot was closed meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is None or self._is_closed)
            if self._is_closed:
                return False
            self._value = value
            self._changed.notify_all()
        return True

    def take(self) -> Optional[T]:
        """Wait for a value; null once the slot is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._value is not None or self._is_closed)
            value, self._value = self._value, None
            self._changed.notify_all()
        return value

    def close(self) -> None:
        """No more values come; one that is there can still be taken."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


class Latest(Generic[T]):
    """The newest value for any number of readers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._value: Optional[T] = None
        self._version = 0
        self._is_closed = False

    def publish(self, value: T) -> None:
        """Replace the value; takes the same time whatever the readers do."""
        with self._changed:
            self._value, self._version = value, self._version + 1
            self._changed.notify_all()

    def get(self) -> Optional[T]:
        """The newest value; null before the first."""
        return self._value

    def subscribe(self) -> Subscription[T]:
        """A reader that sees what is published from now on, and the value that is there already."""
        return Subscription(self)

    def close(self) -> None:
        """No more values come."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    @property
    def is_closed(self) -> bool:
        """Whether no more values come."""
        return self._is_closed

    def after(self, version: int, seconds: Optional[float]) -> tuple[Optional[T], int]:
        """Wait for a value newer than that version, at most so long.

        Returns:
            The newest value and its version; null and the version that was asked for, if none came.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._version > version or self._is_closed, seconds)
            return (self._value, self._version) if self._version > version else (None, version)


class Subscription(Generic[T]):
    """One reader of a `Latest`, for one thread."""

    def __init__(self, latest: Latest[T]) -> None:
        self._latest, self._version = latest, 0

    def next(self, seconds: Optional[float] = None) -> Optional[T]:
        """Wait for a value that it has not seen; the newest, if there were several.

        Args:
            seconds: The longest wait; null for as long as it takes.
        Returns:
            Null if none came in time, or none will come any more (`Latest.is_closed`).
        """
        value, self._version = self._latest.after(self._version, seconds)
        return value
