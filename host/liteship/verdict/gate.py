"""May this measurement follow that one: what is worse by more than is allowed, and what cannot be judged.

A latency is worse where its whole interval lies beyond the allowance, an accuracy where its point estimate does,
because a gate that asked for certainty would let a model lose its accuracy in small steps on few images. What cannot be
judged does not pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from liteship.errors import GateError, ReportError, UsageError
from liteship.report.comparison import Comparison, Row
from liteship.report.text import multiple, multiple_interval, percent, plain, points, points_interval
from liteship.verdict.choose import FORCED, WINNING, status_word
from liteship.verdict.compare import LEAST_SIZE_RATIO, Change, Changes, RowChange, compare
from liteship.verdict.limits import points_text
from liteship_agent.report import UNSTABLE

REGRESSED, UNJUDGED, IMPROVED, NEW, PASSED = "regressed", "not judged", "improved", "new", "passed"
NAMES = ("baseline", "candidate")
_MARKED = ("parity failed", "golden failed")


@dataclass(frozen=True)
class Allowances:
    """How much worse a candidate may be.

    Args:
        max_slowdown: Share by which the latency of a row may grow, from 0.
        max_drop: Accuracy that a row may lose, 0 to 1.
        max_growth: Share by which a file, plain or after gzip, may grow, from 0.
    """

    max_slowdown: float = 0.05
    max_drop: float = 0.01
    max_growth: float = 0.02


@dataclass(frozen=True)
class Finding:
    """What a gate found about one figure of one row.

    Args:
        row: Name of the row.
        figure: "row", "latency", "accuracy", "file" or "gzip".
        outcome: "regressed", "not judged", "improved", "new" or "passed".
        text: The figures, or why it is not judged.
    """

    row: str
    figure: str
    outcome: str
    text: str


@dataclass(frozen=True)
class Gate:
    """The judgement of a candidate.

    Args:
        changes: Between baseline and candidate.
        allowances: What was allowed.
        accuracy_only: Whether latency was left out.
        findings: Of every row and figure, in the order of the baseline's rows.
    """

    changes: Changes
    allowances: Allowances
    accuracy_only: bool
    findings: tuple[Finding, ...]

    @property
    def outcome(self) -> str:
        """The worst finding: "regressed", "not judged" or "passed"."""
        found = {finding.outcome for finding in self.findings}
        return next((outcome for outcome in (REGRESSED, UNJUDGED) if outcome in found), PASSED)

    @property
    def exit_code(self) -> int:
        """0, that of a gate that is missed, or that of reports that cannot be compared."""
        return {REGRESSED: GateError.exit_code, UNJUDGED: ReportError.exit_code, PASSED: 0}[self.outcome]

    def of(self, outcome: str) -> list[Finding]:
        """The findings with one outcome."""
        return [finding for finding in self.findings if finding.outcome == outcome]


def check_allowances(allowances: Allowances) -> None:
    """Refuse allowances that are none.

    Raises:
        UsageError: NaN, below 0, infinite, or a drop above 1.
    """
    for option, value, highest in (
        ("--max-slowdown", allowances.max_slowdown, math.inf),
        ("--max-drop", allowances.max_drop, 1.0),
        ("--max-growth", allowances.max_growth, math.inf),
    ):
        if not (0 <= value <= highest and math.isfinite(value)):
            required = "a ratio from 0 to 1" if highest == 1 else "a ratio from 0 on"
            raise UsageError(f"{option}: {required} is required. Received: {value}.")


def judge(baseline: Comparison, candidate: Comparison, allowances: Allowances, *, accuracy_only: bool = False) -> Gate:
    """Judge a candidate by a baseline.

    Args:
        baseline: What must not become worse.
        candidate: What is judged.
        allowances: Checked by `check_allowances`.
        accuracy_only: Leave latency out, for machines that cannot be compared.

    Raises:
        ReportError: the answers of a row do not fit their number of images.
    """
    changes = compare(baseline, candidate, NAMES)
    findings: list[Finding] = []
    for row in changes.rows:
        findings += _judge_row(row, allowances, accuracy_only=accuracy_only)
    for alone in changes.only_first:
        if _is_measured(alone.row):
            findings.append(Finding(alone.name, "row", REGRESSED, "gone: the candidate has no such row"))
    for alone in changes.only_second:
        findings.append(Finding(alone.name, "row", NEW, plain(f"the baseline has no such row: {alone.row.status}")))
    if not any(_is_measured(row) for row in baseline.rows):
        findings.append(Finding("every row", "row", UNJUDGED, "nothing was measured in the baseline"))
    return Gate(changes, allowances, accuracy_only, tuple(findings))


def _judge_row(row: RowChange, allowances: Allowances, *, accuracy_only: bool) -> list[Finding]:
    """The findings of a row that both have; one that was not measured in the baseline cannot become worse."""
    if not _is_measured(row.first):
        if not _is_measured(row.second):
            return []
        return [Finding(row.name, "row", NEW, plain(f"measured now; it was {row.first.status}"))]
    if not _is_measured(row.second):
        return [Finding(row.name, "row", REGRESSED, plain(f"{row.second.status}; it was measured"))]
    found = []
    before, now = status_word(row.first), status_word(row.second)
    if now in _MARKED and now != before:
        found.append(Finding(row.name, "row", REGRESSED, plain(f"{row.second.status.removeprefix(FORCED)}; it passed")))
    if not accuracy_only:
        found.append(_judge_latency(row, allowances))
    found.append(_judge_accuracy(row, allowances))
    for figure, change in (("file", row.size), ("gzip", row.gzip)):
        found.append(_judge_size(row.name, figure, change, allowances))
    return found


def _judge_latency(row: RowChange, allowances: Allowances) -> Finding:
    change, allowed = row.latency, 1 + allowances.max_slowdown
    if row.first.runtime != row.second.runtime:
        reason = plain(f"other runtime: {row.first.runtime} and {row.second.runtime}")
        return Finding(row.name, "latency", UNJUDGED, reason)
    if change.estimate is None or change.verdict is None:
        return Finding(row.name, "latency", UNJUDGED, change.reason)
    estimate = change.estimate
    text = f"{multiple(estimate.value)}x ({multiple_interval(estimate.low, estimate.high)})"
    if estimate.is_above(allowed):
        return Finding(row.name, "latency", REGRESSED, f"{text}, {allowed:.10g}x allowed")
    if estimate.is_below(1):
        return Finding(row.name, "latency", IMPROVED, text)
    may_be_worse = estimate.high is not None and estimate.high > allowed
    open_end = f"; it may be slower than the {allowed:.10g}x allowed" if may_be_worse else ""
    return Finding(row.name, "latency", PASSED, text + open_end)


def _judge_accuracy(row: RowChange, allowances: Allowances) -> Finding:
    change = row.accuracy
    if change.estimate is None:
        return Finding(row.name, "accuracy", UNJUDGED, change.reason)
    estimate = change.estimate
    where = f", {change.reason}" if change.reason else ""
    text = f"{points(estimate.value)} points ({points_interval(estimate.low, estimate.high)}{where})"
    if -estimate.value > allowances.max_drop:
        doubt = "excludes no change" if estimate.is_below(0) else "holds no change"
        allowed = f"a loss of {points_text(allowances.max_drop)} allowed"
        return Finding(row.name, "accuracy", REGRESSED, f"{text}, {allowed}; its interval {doubt}")
    return Finding(row.name, "accuracy", IMPROVED if estimate.is_above(0) else PASSED, text)


def _judge_size(name: str, figure: str, change: Change, allowances: Allowances) -> Finding:
    if change.estimate is None:
        return Finding(name, figure, UNJUDGED, f"its size is {change.reason}")
    growth = change.estimate.value - 1
    text = f"{'+' if growth > 0 else ''}{percent(growth)}"
    if change.estimate.value > 1 + allowances.max_growth:
        return Finding(name, figure, REGRESSED, f"{text}, +{100 * allowances.max_growth:.10g} % allowed")
    return Finding(name, figure, IMPROVED if growth <= -LEAST_SIZE_RATIO else PASSED, text)


def _is_measured(row: Row) -> bool:
    """Whether it has figures, whatever they are worth."""
    return status_word(row) in (*WINNING, *_MARKED, UNSTABLE)
