"""Try again where the link is at fault, and only there.

An action on a connection is repeated as a whole, over a new connection, so it must be one that goes on where it was
cut: deploy and bench are. A refused login, an unknown host key, an error that the target answers, and every other error
end it at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from liteship.errors import LinkError, LostLinkError
from liteship.link.waiting import pause
from liteship.remote import RemoteError

Result = TypeVar("Result")

_PROGRESS_BYTES = 1 << 18
"""More than the programs that every action sends first."""


class Link(Protocol):
    """What is looked at of a connection: whether it brought anything forward."""

    @property
    def bytes_sent(self) -> int:
        """To commands, so far."""

    @property
    def events(self) -> int:
        """Heard from them, so far."""


AnyLink = TypeVar("AnyLink", bound=Link)


@dataclass(frozen=True)
class Patience:
    """How often, and with which pauses.

    Args:
        first_attempts: To get a first connection: a board may be booting, or its name be wrong.
        attempts: In a row without progress, once there was a connection.
        first_pause_seconds: Before the second attempt; each further pause is twice the one before.
        most_attempts: In all, however far each of them came.
        jitter_ratio: By how much a pause may be longer, so that several hosts do not come back at once.
        sleep: Takes seconds.
        draw: A random number from 0 to 1.
    """

    first_attempts: int = 3
    attempts: int = 5
    most_attempts: int = 100
    first_pause_seconds: float = 1.0
    jitter_ratio: float = 0.25
    sleep: Callable[[float], None] = pause
    draw: Callable[[], float] = random.random  # not for secrets

    def pause_seconds(self, failures: int) -> float:
        """The pause after so many failures in a row."""
        return self.first_pause_seconds * 2.0 ** (failures - 1) * (1 + self.jitter_ratio * self.draw())


def keep_trying(
    connect: Callable[[], AbstractContextManager[AnyLink]],
    action: Callable[[AnyLink], Result],
    name: str,
    say: Callable[[str], None],
    patience: Patience | None = None,
) -> Result:
    """Do something with a target in spite of a link that fails.

    Args:
        connect: Opens a connection.
        action: Goes on where it was cut when it is called again.
        name: Of the target, for the lines that are said.
        say: Takes one line for each attempt that failed.
        patience: How often.
    Raises:
        LostLinkError: the last one, once all attempts are used up.
        LiteshipError: any other error, at once.
    """
    patience = patience or Patience()
    attempt, failures, was_connected = 0, 0, False
    while True:
        attempt += 1
        link: AnyLink | None = None
        try:
            with connect() as link:
                return action(link)
        except LinkError as exc:
            if not _is_worth_another(exc, failures):
                raise
            was_connected = was_connected or link is not None
            failures = 1 if link is not None and _came_forward(link) else failures + 1
            most = patience.attempts if was_connected else patience.first_attempts
            if failures >= most or attempt >= patience.most_attempts:
                raise _exhausted(exc, failures) from exc
            reason = exc.reason if isinstance(exc, LostLinkError) else exc.message.removeprefix(f"{name}: ")
        seconds = patience.pause_seconds(failures)
        say(f"{name}: {reason}; trying again in {seconds:.0f} s")
        patience.sleep(seconds)


def _is_worth_another(error: LinkError, failures: int) -> bool:
    """A lost link, seen from either side; and after one, the lock that the cut command still holds for a moment."""
    if isinstance(error, RemoteError):
        return error.kind == "link" or (error.kind == "locked" and failures > 0)
    return isinstance(error, LostLinkError)


def _came_forward(link: Link) -> bool:
    return link.bytes_sent > _PROGRESS_BYTES or link.events > 0


def _exhausted(error: LinkError, failures: int) -> LinkError:
    if not isinstance(error, LostLinkError) or failures == 1:
        return error
    return LostLinkError(error.message, f"Tried {failures} times. {error.hint}".strip(), error.reason)
