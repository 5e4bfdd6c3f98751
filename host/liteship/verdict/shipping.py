"""The verdict without budgets: what to ship by default, in plain sentences, below tables and on pages."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich.console import Console
from rich.text import Text

from liteship.report.comparison import Comparison, Row
from liteship.report.markdown import escape_markdown
from liteship.report.text import count
from liteship.verdict.budgets import Budgets
from liteship.verdict.choice_text import winner_sentence
from liteship.verdict.choose import Choice, choose, figures_text
from liteship.verdict.limits import points_text

TITLE = "What to ship"
_MAX_DROP_RATIO = 0.02
"""Where the study says nothing: the default of a recipe's [parity] max_drop."""


@dataclass(frozen=True)
class Verdict:
    """What to ship.

    Args:
        winner: The row, None where nothing can win.
        sentences: The winner and why, what ties with it, the runner-up and caveats; one where nothing can win.
    """

    winner: Row | None
    sentences: tuple[str, ...]


def default_verdict(comparison: Comparison) -> Verdict:
    """What to ship by default: the fastest that loses no more accuracy than the study's parity allows a conversion.

    Args:
        comparison: Of one job.

    Raises:
        ReportError: the answers of a row do not fit their number of images.
    """
    budgets = default_budgets(comparison, Budgets(prefer="latency"))
    choice = choose(comparison, budgets)
    if choice.winner is None:
        return Verdict(None, (winner_sentence(choice),))
    return Verdict(choice.winner, _sentences(choice, choice.winner, budgets.max_drop or 0.0))


def default_budgets(comparison: Comparison, budgets: Budgets) -> Budgets:
    """What is asked where nothing is: as little loss of accuracy as the study's parity allows a conversion.

    Args:
        comparison: Of one job.
        budgets: Without a limit; what decides remains.
    """
    allowed = (row.parity_max_drop_ratio for row in comparison.rows if row.parity_max_drop_ratio is not None)
    return replace(budgets, max_drop=next(allowed, _MAX_DROP_RATIO))


def print_verdict(comparison: Comparison, console: Console) -> None:
    """The sentences under their title, for a terminal."""
    first, *others = default_verdict(comparison).sentences
    console.print()
    console.print(Text(TITLE, style="bold"))
    console.print(Text(first, style="bold"))
    for sentence in others:
        console.print(Text(sentence))


def verdict_markdown(comparison: Comparison) -> str:
    """The sentences under their title, as Markdown."""
    first, *others = map(escape_markdown, default_verdict(comparison).sentences)
    return (
        "\n".join([f"**{TITLE}**", "", f"**{first}**", "", *(f"- {sentence}" for sentence in others)]).rstrip() + "\n"
    )


def _sentences(choice: Choice, winner: Row, drop: float) -> tuple[str, ...]:
    others = count(choice.met, "row")
    rule = f"loses no more than {points_text(drop)} of accuracy against {choice.header.baseline}"
    why = f"the fastest of {others} that can be trusted and {rule.replace('loses', 'lose', 1)}"
    if choice.met == 1:
        why = f"the only row that can be trusted and {rule}"
    found = [f"Ship {choice.winner_name}, {why}: {figures_text(winner, choice.budgets)}."]
    for tie in choice.ties:
        better = f" and {'; '.join(tie.better)}" if tie.better else ""
        found.append(f"{tie.name} is {tie.interval.removeprefix('tie: ')}{better}.")
    runner_up = next((loss for loss in choice.losses if loss.row is choice.runner_up), None)
    if runner_up is not None and not any(tie.row is runner_up.row for tie in choice.ties):
        found.append(f"Next is {runner_up.name}, {'; '.join(runner_up.reasons)}.")
    return (*found, *(f"Note: {caveat}." for caveat in choice.caveats))
