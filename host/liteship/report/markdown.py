"""Text in GitHub-flavored Markdown."""

from __future__ import annotations

from collections.abc import Iterable


def escape_markdown(text: str) -> str:
    """Text that Markdown shows as it is: no cell border, emphasis, code, link or HTML in it."""
    return "".join(f"\\{letter}" if letter in "\\|*_`[]<>~" else letter for letter in text)


def markdown_row(cells: Iterable[str]) -> str:
    """One line of a table, from cells that are Markdown already."""
    return f"| {' | '.join(cells)} |"
