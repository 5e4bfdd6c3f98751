"""A verdict as lines for a terminal and as a JSON object."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from liteship.built_in import CAPTIONS
from liteship.report.comparison import Header, Row
from liteship.report.names import Name
from liteship.report.text import count, plain
from liteship.verdict.budgets import Budgets
from liteship.verdict.choose import Choice, Loss, figures_text
from liteship.verdict.limits import budget_text

SCHEMA_VERSION = 1
_ROW_FIELDS = (
    *("variant", "sha256", "status", "runtime", "runtime_version", "threads", "cpus", "median_ns", "median_low_ns"),
    *("median_high_ns", "p90_ns", "p90_bound_ns", "target_accuracy_ratio", "target_accuracy_low_ratio"),
    *("target_accuracy_high_ratio", "accuracy_difference_ratio", "accuracy_difference_low_ratio"),
    *("accuracy_difference_high_ratio", "size_bytes", "gzip_bytes", "rss_peak_bytes"),
)


def print_choice(choice: Choice, console: Console, *, by_default: bool = False) -> None:
    """Winner, runner-up, ties and caveats; then why each other row lost. Nothing is cut in 80 columns.

    Args:
        choice: The verdict.
        console: Where to.
        by_default: Whether nothing was asked, and the budgets are those of "What to ship".
    """
    console.print(Text(heading(choice.header), style="dim"))
    default = "no budget, so that the default holds; " * by_default
    console.print(Text(f"{default}{budgets_sentence(choice.budgets)}", style="dim"))
    console.print()
    console.print(Text(winner_sentence(choice), style="bold green" if choice.winner else "bold red"))
    facts, others = _grid(), _grid()
    better = {id(tie.row): tie.better for tie in choice.ties}
    for loss in sorted(choice.losses, key=lambda loss: loss.row is not choice.runner_up):
        is_runner_up, is_tie = loss.row is choice.runner_up, id(loss.row) in better
        what = "; ".join([*loss.reasons, *better.get(id(loss.row), ())])
        if is_runner_up:
            figures = figures_text(loss.row, choice.budgets)
            facts.add_row("runner-up", Text(f"{loss.name}: {figures}; {what}"))
        elif is_tie:
            facts.add_row("tie", Text(f"{loss.name}: {what.removeprefix('tie: ')}"))
        else:
            others.add_row(Name(loss.name), Text(what, style="" if loss.can_win else "dim"))
    for caveat in choice.caveats:
        facts.add_row("note", Text(caveat, style="yellow"))
    if facts.row_count:
        console.print(facts)
    if others.row_count:
        console.print()
        console.print(Text("Why not the others" if choice.winner else "Why none", style="bold"))
        console.print(others)


def winner_sentence(choice: Choice) -> str:
    """What to ship; without a winner why not, and what comes nearest."""
    if choice.winner is not None:
        return f"Ship {choice.winner_name}: {figures_text(choice.winner, choice.budgets)}"
    if choice.obstacle is not None:
        return f"Nothing can win: {choice.obstacle}."
    nearest = choice.nearest
    told = f" The nearest is {nearest.name}: {_joined(nearest)}." if nearest else ""
    return f"Nothing meets {'every budget' if choice.budgets.limits() else 'what is asked'}.{told}"


def budgets_sentence(budgets: Budgets) -> str:
    """What was asked."""
    asked = [budget_text(name, limit, budgets) for name, limit in budgets.limits().items()]
    certain = ", also at the bounds of the intervals" * bool(budgets.certain)
    return f"asked: {', '.join(asked) or 'no budget'}{certain}; {budgets.preferred} decides"


def heading(header: Header) -> str:
    """What was measured where and when."""
    caption = CAPTIONS.get(header.target)
    parts = [
        f"{header.study} on {header.target}{f' ({caption})' if caption else ''}",
        header.board or "unknown board",
        count(header.image_count, "image"),
        header.date or f"job {header.job_id}",
    ]
    return plain(" · ".join(parts))


def choice_json(choice: Choice, *, by_default: bool = False) -> dict[str, Any]:
    """The verdict as an object: budgets, and whether they are the default; winner, runner_up, ties, lost with reasons,
    caveats, nearest, obstacle.
    """
    header = choice.header
    return {
        "schema_version": SCHEMA_VERSION,
        "target": header.target,
        "caption": CAPTIONS.get(header.target),
        "study": header.study,
        "job": header.job_id,
        "date": header.date,
        "budgets": asdict(choice.budgets),
        "budgets_by_default": by_default,
        "preferred": choice.budgets.preferred,
        "winner": _row(choice.winner_name, choice.winner),
        "runner_up": _row(choice.runner_up_name, choice.runner_up),
        "ties": [
            {"name": tie.name, "variant": tie.row.variant, "interval": tie.interval, "better": list(tie.better)}
            for tie in choice.ties
        ],
        "lost": [_loss(loss) for loss in choice.losses],
        "caveats": list(choice.caveats),
        "nearest": None if choice.nearest is None else _loss(choice.nearest),
        "obstacle": choice.obstacle,
    }


def _row(name: str, row: Row | None) -> dict[str, Any] | None:
    return None if row is None else {"name": name, **{field: getattr(row, field) for field in _ROW_FIELDS}}


def _loss(loss: Loss) -> dict[str, Any]:
    figures = {"can_win": loss.can_win, "meets": loss.meets, "reasons": list(loss.reasons)}
    return {**(_row(loss.name, loss.row) or {}), **figures}


def _joined(loss: Loss) -> str:
    return "; ".join(loss.reasons)


def _grid() -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(overflow="fold", max_width=32)
    table.add_column(overflow="fold", ratio=1)
    return table
