"""A gate as lines for a terminal, as a Markdown comment for a pull request, and as a JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from liteship.report.markdown import escape_markdown, markdown_row
from liteship.report.names import Name
from liteship.report.text import count
from liteship.verdict.changes_text import (
    changes_json,
    differences_markdown,
    print_differences,
    print_rows,
    rows_markdown,
)
from liteship.verdict.choice_text import heading
from liteship.verdict.gate import IMPROVED, NEW, PASSED, REGRESSED, TOLD, UNJUDGED, Finding, Gate
from liteship.verdict.limits import points_text

SCHEMA_VERSION = 1
_SHOWN = (REGRESSED, UNJUDGED, TOLD, IMPROVED, NEW)
_MOST_ALIKE = 3
_SHORT = ("outcome", "figure")
_STYLES = {REGRESSED: "red", UNJUDGED: "yellow", TOLD: "yellow", IMPROVED: "green", NEW: "cyan"}
_WARNING = "⚠️"
_MARKS = {REGRESSED: "❌", UNJUDGED: _WARNING, PASSED: "✅"}


def verdict_line(gate: Gate) -> str:
    """The outcome in one line; its rows are those that were measured on both sides."""
    regressions, unjudged = gate.of(REGRESSED), gate.of(UNJUDGED)
    unmeasured = f"; {count(gate.unmeasured, 'row')} not measured on both sides" if gate.unmeasured else ""
    if gate.outcome == REGRESSED:
        rows = len({finding.row for finding in regressions})
        also = f"; {len(unjudged)} not judged" if unjudged else ""
        worse = f"{count(len(regressions), 'figure')} of {count(rows, 'row')} worse than allowed"
        return f"Regression: {worse}{also}{unmeasured}"
    if gate.outcome == UNJUDGED:
        reasons = list(dict.fromkeys(finding.text for finding in unjudged))
        more = f" and {len(reasons) - 1} more reasons" if len(reasons) > 2 else f"; {reasons[1]}" if reasons[1:] else ""
        return f"Not judged: {count(len(unjudged), 'figure')} ({reasons[0]}{more}){unmeasured}"
    judged = ["accuracy", "size"] if gate.accuracy_only else ["latency", "accuracy", "size"]
    judged += ["memory"] * (gate.allowances.max_memory_growth is not None)
    listed = f"{', '.join(judged[:-1])} and {judged[-1]}" + (", not latency" if gate.accuracy_only else "")
    return f"Passed: {count(gate.judged, 'row')} ({listed}), nothing worse than allowed{unmeasured}"


def allowances_sentence(gate: Gate) -> str:
    """What was allowed."""
    allowed = gate.allowances
    slowdown = "latency is not judged" if gate.accuracy_only else f"latency up to +{100 * allowed.max_slowdown:.10g} %"
    drop = f"accuracy down to -{points_text(allowed.max_drop)}"
    memory = allowed.max_memory_growth
    also = "" if memory is None else f", anonymous memory up to +{100 * memory:.10g} %"
    return f"allowed: {slowdown}, {drop}, file and gzip up to +{100 * allowed.max_growth:.10g} %{also}"


def print_gate(gate: Gate, console: Console) -> None:
    """Verdict, what was found, all rows, and what differs between the measurements."""
    style = _STYLES.get(gate.outcome, "green")
    console.print(Text(verdict_line(gate), style=f"bold {style}"))
    for name, header in zip(gate.changes.names, (gate.changes.first, gate.changes.second), strict=True):
        console.print(Text(f"{name:9}  {heading(header)}", style="dim"))
    console.print(Text(allowances_sentence(gate), style="dim"))
    for warning in gate.warnings():
        console.print(Text(f"⚠ {warning}", style="yellow"))
    grid = Table.grid(padding=(0, 2))
    for column in ("outcome", "row", "figure", "text"):
        grid.add_column(overflow="fold", max_width=28 if column == "row" else None, no_wrap=column in _SHORT)
    for outcome in _SHOWN:
        for finding in _told_once(gate.of(outcome)):
            cells = (Name(finding.row), finding.figure, Text(finding.text))
            grid.add_row(Text(outcome, style=_STYLES[outcome]), *cells)
    if grid.row_count:
        console.print()
        console.print(grid)
    console.print()
    if gate.changes.rows:
        print_rows(gate.changes.rows, "old", "new", console)
    print_differences(gate.changes.differences, gate.changes.names, console)


def gate_markdown(gate: Gate) -> str:
    """A comment for a pull request: the verdict, what changed, and all rows and differences folded below."""
    changes = gate.changes
    lines = [f"{_MARKS[gate.outcome]} **{escape_markdown(verdict_line(gate))}**", ""]
    for warning in gate.warnings():
        lines += [f"{_WARNING} {escape_markdown(warning)}", ""]
    found = [finding for outcome in _SHOWN for finding in _told_once(gate.of(outcome))]
    if found:
        lines += [markdown_row(("outcome", "row", "figure", "what changed")), markdown_row([":--"] * 4)]
        lines += [markdown_row(map(escape_markdown, _cells(finding))) for finding in found]
        lines.append("")
    for name, header in zip(changes.names, (changes.first, changes.second), strict=True):
        lines.append(f"- {name}: {escape_markdown(heading(header))}")
    lines.append(f"- {escape_markdown(allowances_sentence(gate))}")
    # A blank line on either side, so that what is folded is still read as Markdown.
    if changes.rows:
        lines += ["", "<details><summary>All rows</summary>", "", *rows_markdown(changes.rows, *changes.names)]
        lines += ["", "</details>"]
    lines += ["", "<details><summary>What differs between the measurements</summary>", ""]
    lines += [*differences_markdown(changes.differences, changes.names), "", "</details>"]
    return "\n".join(lines) + "\n"


def gate_json(gate: Gate) -> dict[str, Any]:
    """As an object: outcome, exit_code, allowances, findings, and what `liteship compare --json` tells."""
    return {
        "schema_version": SCHEMA_VERSION,
        "outcome": gate.outcome,
        "exit_code": gate.exit_code,
        "allowances": asdict(gate.allowances),
        "accuracy_only": gate.accuracy_only,
        "warnings": gate.warnings(),
        "findings": [asdict(finding) for finding in gate.findings],
        "changes": changes_json(gate.changes),
    }


def _told_once(findings: Sequence[Finding]) -> list[Finding]:
    """What is not judged for the same reason in many rows is one line; the rows stand in the table below."""
    rows = Counter((one.figure, one.text) for one in findings if one.outcome == UNJUDGED)
    found = []
    for one in findings:
        number = rows[one.figure, one.text]
        found.append(replace(one, row=count(number, "row")) if number > _MOST_ALIKE else one)
    return list(dict.fromkeys(found))


def _cells(finding: Finding) -> tuple[str, ...]:
    return finding.outcome, finding.row, finding.figure, finding.text
