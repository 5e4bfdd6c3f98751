"""What can go wrong on the host, one class per exit code.

An expected error is one line: what was required, what was received, what to do next. `cli.app.main` prints it and
exits with the family's code; anything else is a bug and shows its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable


class LiteshipError(Exception):
    """Base of all expected errors.

    Args:
        message: What was required and what was received.
        hint: What to do next, or empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        # A sentence of its own, so that the hint does not run into it.
        stop = "." if hint and message[-1:] not in (*".!?:", "") else ""
        super().__init__(f"{message}{stop} {hint}".strip())

    def __reduce__(self) -> tuple[type[LiteshipError], tuple[str, str]]:
        return type(self), (self.message, self.hint)  # to come whole out of another process


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The hint for a mistyped word, empty where nothing is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"Did you mean {near[0]}?" if near else ""


class UsageError(LiteshipError):
    """Wrong option, recipe, data or unknown target."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be used."""


class DataError(UsageError):
    """Images that are missing, corrupt or not enough."""


class TargetError(UsageError):
    """A target that is not in the inventory, or an inventory that cannot be read."""


class ConversionError(LiteshipError):
    """A model that cannot be converted, or a .tflite that is not one or that no runtime of the target can load."""

    exit_code = 3


class GateError(LiteshipError):
    """Parity, a budget or a gate that is not met."""

    exit_code = 4


class LinkError(LiteshipError):
    """The target cannot be reached, refuses the login, or cannot take what is sent."""

    exit_code = 5


class LostLinkError(LinkError):
    """The link was lost, or nobody answers: the same command may get through a moment later.

    Args:
        reason: What happened, in a few words.
    """

    def __init__(self, message: str, hint: str = "", reason: str = "no answer") -> None:
        self.reason = reason
        super().__init__(message, hint)


class HostKeyError(LinkError):
    """The target's host key is unknown or not the one that was trusted."""


class ReportError(LiteshipError):
    """A report that is invalid or does not belong to the manifest."""

    exit_code = 6
