"""What keeps a row from being shipped, or from being judged as good, whatever its status says.

A document may be written by another hand: status, validity, blocks, parity and golden outputs must all say yes.
"""

from __future__ import annotations

from liteship.built_in import EMULATED
from liteship.report.comparison import Header, Row
from liteship.report.statuses import FORCED, GOLDEN_FAILED, PARITY_FAILED, WINNING, status_word
from liteship.report.text import plain
from liteship_agent.report import UNSTABLE

EMULATED_REASON = "milliseconds of an emulated machine are those of the emulation: measure on a board"
_UNSEEN = ("throttling cannot be read", "throttling could not be read", "no sensor was read")
_MEASURED = (*WINNING, UNSTABLE, PARITY_FAILED, GOLDEN_FAILED)


def is_forced(row: Row) -> bool:
    """Whether the preflight was overridden."""
    return row.forced or row.status.startswith(FORCED)


def is_measured(row: Row) -> bool:
    """Whether it has figures, whatever they are worth."""
    return status_word(row) in _MEASURED


def is_unstable(row: Row) -> bool:
    """Whether its latency cannot be trusted: it says so, or no block of it counts."""
    return UNSTABLE in (row.validity, status_word(row)) or (bool(row.blocks) and row.void == row.blocks)


def flaws(row: Row) -> tuple[str, ...]:
    """What is wrong with a row, a word or two each; empty where it can be trusted."""
    word = status_word(row)
    if not is_measured(row):
        return (word,)
    found = {
        PARITY_FAILED: word == PARITY_FAILED or row.parity_passed is False,
        GOLDEN_FAILED: word == GOLDEN_FAILED or row.golden_within_tolerance is False,
        UNSTABLE: is_unstable(row),
    }
    return tuple(flaw for flaw, is_so in found.items() if is_so)


def flaw_texts(row: Row) -> tuple[str, ...]:
    """The same with their reasons, as far as they are known; each stands for itself."""
    found = []
    for flaw in flaws(row):
        if flaw == UNSTABLE:
            text = row.status if flaw == status_word(row) else flaw
            found.append(f"{text}: {_disturbance(row)}" if row.reasons else text)
        else:
            found.append(row.status if flaw == status_word(row) else flaw)
    return tuple(map(plain, found))


def _disturbance(row: Row) -> str:
    """What made it void: the first of its reasons that is not that a sensor is missing."""
    return next((reason for reason in row.reasons if not reason.startswith(_UNSEEN)), row.reasons[0])


def obstacles(row: Row, header: Header) -> tuple[str, ...]:
    """Why a row can never win, in words; empty if it can."""
    if header.target == EMULATED:
        return (EMULATED_REASON,)
    if found := flaw_texts(row):
        return found
    return () if row.sha256 else ("nothing says which file it is: no sha256",)
