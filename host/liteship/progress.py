"""Progress of long work on stderr: a bar on a terminal, a line per finished task elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

Advance = Callable[[float], None]
_REFRESH_PER_SECOND = 2
"""Drawing costs CPU time, and what is measured on this computer meanwhile must not be disturbed."""


class Reporter:
    """Where steps say what they do.

    Args:
        console: Of stderr.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: Progress | None = None

    def say(self, text: str) -> None:
        """One line that stays."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def task(self, description: str, total: float | None, *, is_bytes: bool = False) -> Iterator[Advance]:
        """A bar while the block runs; inside another task's block it stands below that one's.

        Args:
            description: What is done.
            total: Steps, or bytes with is_bytes; None where unknown.
            is_bytes: Show amount and rate as bytes.

        Yields:
            Function that moves the bar by an amount.
        """
        if self._progress is not None:
            with _bar(self._progress, description, total) as advance:
                yield advance
            return
        columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(bar_width=24)]
        if is_bytes:
            columns += [DownloadColumn(binary_units=True), TransferSpeedColumn()]
        else:
            columns += [MofNCompleteColumn()]
        columns += [TimeElapsedColumn(), TimeRemainingColumn(compact=True)]
        is_watched = self.console.is_terminal
        with Progress(
            *columns,
            console=self.console,
            refresh_per_second=_REFRESH_PER_SECOND,
            transient=True,
            disable=not is_watched,
        ) as self._progress:
            try:
                with _bar(self._progress, description, total) as advance:
                    yield advance
            finally:
                self._progress = None

    def describe(self, text: str) -> None:
        """Change what the innermost bar says; nothing where there is none."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[-1], description=escape(text), refresh=True)


@contextmanager
def _bar(progress: Progress, description: str, total: float | None) -> Iterator[Advance]:
    task = progress.add_task(description, total=total)
    yield lambda amount: progress.advance(task, amount)
    progress.remove_task(task)
