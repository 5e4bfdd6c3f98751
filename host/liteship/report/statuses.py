"""The words that a row's status begins with, and those of them that can win."""

from __future__ import annotations

from liteship.report.comparison import Row
from liteship_agent.report import REPEATED, VALID

FORCED = "forced, "
THROTTLE_UNKNOWN = "throttle unknown"
PARITY_FAILED, GOLDEN_FAILED = "parity failed", "golden failed"
REFUSED, FAILED, NOT_RUN = "refused", "failed", "not run"
WINNING = (VALID, REPEATED, THROTTLE_UNKNOWN)
"""Every other row never can."""


def status_word(row: Row) -> str:
    """The word of a status, without what was forced and without its reason."""
    return row.status.removeprefix(FORCED).partition(":")[0]
