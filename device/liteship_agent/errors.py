"""What can go wrong on the board, as one tree: a message says what was required, what was received and what to do."""

from __future__ import annotations


class AgentError(Exception):
    """An expected failure; the caller prints it as one line and exits with the family's code."""


class RecordError(AgentError):
    """A JSON record (manifest, job, report ...) that cannot be used.

    Args:
        source: File or stream that was read.
        field: Dotted path of the offending field, empty for the record as a whole.
        required, received: What the field must hold and what it holds.
    """

    def __init__(self, source: str, field: str, required: str, received: str) -> None:
        self.source, self.field, self.required, self.received = source, field, required, received
        where = f"{source}: {field}" if field else source
        super().__init__(f"{where}: {required} is required. Received: {received}")


class ImageError(AgentError):
    """An image file that cannot be decoded whole."""


class ModelError(AgentError):
    """A .tflite file that the runtime cannot load or run."""


class StoreError(AgentError):
    """The liteship folder of the target cannot be used as asked: no space, wrong hash, unknown release."""


class LockedError(AgentError):
    """Another job or camera holds the target."""


class PreflightError(AgentError):
    """The machine is not fit to measure on now: hot, throttled, busy, or short of memory or disk."""
