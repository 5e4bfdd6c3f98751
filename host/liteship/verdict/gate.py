"""May this measurement follow that one: what is worse by more than is allowed, and what cannot be judged.

A latency is worse where its whole interval lies beyond the allowance, an accuracy where its point estimate does,
because a gate that asked for certainty would let a model lose its accuracy in small steps on few images. What cannot be
judged does not pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from liteship.errors import GateError, ReportError, UsageError
from liteship.report.comparison import Comparison
from liteship.report.statuses import FORCED, GOLDEN_FAILED, PARITY_FAILED
from liteship.report.text import percent, plain
from liteship.verdict.compare import LEAST_SIZE_RATIO, OTHER_IMAGES, Change, Changes, RowChange, compare
from liteship.verdict.limits import difference_text, points_text, ratio_text
from liteship.verdict.trust import flaw_texts, flaws, is_measured

REGRESSED, UNJUDGED, IMPROVED, NEW, PASSED = "regressed", "not judged", "improved", "new", "passed"
TOLD = "told"
"""What has grown and is not judged, or may have grown beyond the allowance and is not known to have."""
NAMES = ("baseline", "candidate")
_MARKED = (PARITY_FAILED, GOLDEN_FAILED)
_CLEARLY = 2.0
_LEAST_GROWTH = 0.1
"""A figure without an interval is told where it grew by more than twice what is allowed, and by more than a tenth."""
_NOT_ENVIRONMENT = ("models",)
"""Differs with every new study, which is what a gate is for."""


@dataclass(frozen=True)
class Allowances:
    """How much worse a candidate may be.

    Args:
        max_slowdown: Share by which the latency of a row may grow, from 0.
        max_drop: Accuracy that a row may lose, 0 to 1.
        max_growth: Share by which a file, plain or after gzip, may grow, from 0.
        max_memory_growth: Share by which anonymous memory may grow, from 0; None does not judge it.
    """

    max_slowdown: float = 0.05
    max_drop: float = 0.01
    max_growth: float = 0.02
    max_memory_growth: float | None = None


@dataclass(frozen=True)
class Finding:
    """What a gate found about one figure of one row.

    Args:
        row: Name of the row.
        figure: "row", "latency", "accuracy", "file", "gzip", "memory" (anonymous), "resident" (memory),
            "end to end" or "start".
        outcome: "regressed", "not judged", "told", "improved", "new" or "passed".
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

    @property
    def judged(self) -> int:
        """How many rows were measured on both sides."""
        return sum(is_measured(row.first) and is_measured(row.second) for row in self.changes.rows)

    @property
    def unmeasured(self) -> int:
        """How many rows were not measured on both sides."""
        alone = len(self.changes.only_first) + len(self.changes.only_second)
        return len(self.changes.rows) - self.judged + alone

    def warnings(self) -> list[str]:
        """What both sides do not share beside the models, in sentences; none of it keeps a row from being judged."""
        found = []
        differences = [one for one in self.changes.differences if one.name not in _NOT_ENVIRONMENT]
        if differences:
            listed = "; ".join(f"{one.name} {', then '.join(one.values)}" for one in differences)
            found.append(f"Not the same: {listed}")
        if any(row.accuracy.reason == OTHER_IMAGES for row in self.changes.rows):
            found.append("Other images: accuracies are compared as independent samples")
        if self.changes.first.forced and self.changes.second.forced:
            problems = [header.problems for header in (self.changes.first, self.changes.second)]
            sides = [plain("; ".join(found)) or "nothing to override" for found in problems]
            found.append(f"Both sides were forced: {sides[0]}, then {sides[1]}")
        return found

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
        ("--max-memory-growth", allowances.max_memory_growth, math.inf),
    ):
        if value is not None and not (0 <= value <= highest and math.isfinite(value)):
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
        if is_measured(alone.row):
            findings.append(Finding(alone.name, "row", REGRESSED, "gone: the candidate has no such row"))
    for alone in changes.only_second:
        findings.append(Finding(alone.name, "row", NEW, plain(f"the baseline has no such row: {alone.row.status}")))
    if not any(is_measured(row) for row in baseline.rows):
        findings.append(Finding("every row", "row", UNJUDGED, "nothing was measured in the baseline"))
    return Gate(changes, allowances, accuracy_only, tuple(findings))


def _judge_row(row: RowChange, allowances: Allowances, *, accuracy_only: bool) -> list[Finding]:
    """The findings of a row that both have; one that was not measured in the baseline cannot become worse."""
    if not is_measured(row.first):
        if not is_measured(row.second):
            return []
        return [Finding(row.name, "row", NEW, plain(f"measured now; it was {row.first.status}"))]
    if not is_measured(row.second):
        return [Finding(row.name, "row", REGRESSED, plain(f"{row.second.status}; it was measured"))]
    found = []
    before = flaws(row.first)
    for flaw, text in zip(flaws(row.second), flaw_texts(row.second), strict=True):
        if flaw in _MARKED and flaw not in before:
            found.append(Finding(row.name, "row", REGRESSED, f"{text.removeprefix(FORCED)}; it passed"))
    if not accuracy_only:
        found.append(_judge_latency(row, allowances))
    found.append(_judge_accuracy(row, allowances))
    for figure, change in (("file", row.size), ("gzip", row.gzip)):
        found.append(_judge_size(row.name, figure, change, allowances.max_growth))
    if allowances.max_memory_growth is not None:
        found.append(_judge_size(row.name, "memory", row.anonymous, allowances.max_memory_growth))
    return found + _told(row, allowances, accuracy_only=accuracy_only)


def _judge_latency(row: RowChange, allowances: Allowances) -> Finding:
    """By median and 90th percentile with the same allowance: either of them can be worse."""
    allowed = 1 + allowances.max_slowdown
    if row.first.runtime != row.second.runtime:
        reason = plain(f"other runtime: {row.first.runtime} and {row.second.runtime}")
        return Finding(row.name, "latency", UNJUDGED, reason)
    if row.latency.estimate is None or row.latency.verdict is None:
        return Finding(row.name, "latency", UNJUDGED, row.latency.reason)
    # A 90th percentile without an interval is none: too few invocations, or blocks.
    judged = {"median": row.latency.estimate}
    if row.p90.estimate is not None and row.p90.verdict is not None:
        judged["p90"] = row.p90.estimate
    texts = {name: f"{name} {ratio_text(found, allowed)}" for name, found in judged.items()}
    worse = [name for name, found in judged.items() if found.is_above(allowed)]
    if worse:
        others = "".join(f"; {text}" for name, text in texts.items() if name not in worse)
        beyond = " and ".join(texts[name] for name in worse)
        return Finding(row.name, "latency", REGRESSED, f"{beyond}, {allowed:.10g}x allowed{others}")
    text = ", ".join(texts.values()) + ("" if "p90" in judged else "; p90 not judged: no interval")
    if open_ones := [name for name, found in judged.items() if found.high is not None and found.high > allowed]:
        return Finding(
            row.name,
            "latency",
            TOLD,
            f"{text}; {' and '.join(open_ones)} may be slower than the {allowed:.10g}x allowed",
        )
    is_better = all(found.is_below(1) for found in judged.values())
    return Finding(row.name, "latency", IMPROVED if is_better else PASSED, text)


def _told(row: RowChange, allowances: Allowances, *, accuracy_only: bool) -> list[Finding]:
    """What has no interval, and is so much larger that it has to be looked at."""
    asked = (
        []
        if row.latency.verdict is None or accuracy_only
        else [
            ("end to end", row.end_to_end, allowances.max_slowdown),
            ("start", row.start, allowances.max_slowdown),
        ]
    )
    if allowances.max_memory_growth is None:
        asked.append(("memory", row.anonymous, allowances.max_growth))
    asked.append(("resident", row.memory, allowances.max_growth))
    found = []
    for figure, change, allowed in asked:
        growth = 0.0 if change.estimate is None else change.estimate.value - 1
        if growth > max(_LEAST_GROWTH, _CLEARLY * allowed):
            found.append(Finding(row.name, figure, TOLD, f"+{percent(growth)}, not judged: {change.reason}"))
    return found


def _judge_accuracy(row: RowChange, allowances: Allowances) -> Finding:
    change = row.accuracy
    if change.estimate is None:
        return Finding(row.name, "accuracy", UNJUDGED, change.reason)
    estimate = change.estimate
    text = difference_text(estimate) + (f", {change.reason}, as independent samples" if change.reason else "")
    if -estimate.value > allowances.max_drop:
        doubt = "excludes no change" if estimate.is_below(0) else "holds no change"
        allowed = f"a loss of {points_text(allowances.max_drop)} allowed"
        return Finding(row.name, "accuracy", REGRESSED, f"{text}, {allowed}; its interval {doubt}")
    return Finding(row.name, "accuracy", IMPROVED if estimate.is_above(0) else PASSED, text)


def _judge_size(name: str, figure: str, change: Change, allowed: float) -> Finding:
    if change.estimate is None:
        return Finding(name, figure, UNJUDGED, f"its size is {change.reason}" if figure != "memory" else change.reason)
    growth = change.estimate.value - 1
    text = f"{'+' if growth > 0 else ''}{percent(growth)}"
    if change.estimate.value > 1 + allowed:
        return Finding(name, figure, REGRESSED, f"{text}, +{100 * allowed:.10g} % allowed")
    return Finding(name, figure, IMPROVED if growth <= -LEAST_SIZE_RATIO else PASSED, text)
