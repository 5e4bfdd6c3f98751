"""Progress of long work on stderr: a bar on a terminal, a line per finished task elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

Advance = Callable[[float], None]
_REFRESH_PER_SECOND = 2
"""Drawing costs CPU time, and what is measured on this computer meanwhile must not be disturbed: nothing is drawn
between two of these, however often something changes."""


class _AmountColumn(ProgressColumn):
    """Steps done of all, or bytes with their rate, as the task wants it."""

    def __init__(self) -> None:
        super().__init__()
        self._steps, self._bytes, self._rate = (
            MofNCompleteColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
        )

    def render(self, task: Task) -> Text:
        if not task.fields.get("is_bytes"):
            return self._steps.render(task)
        return Text(" ").join([self._bytes.render(task), self._rate.render(task)])


class _Bars(Progress):
    """Bars, and what stands above them."""

    upper: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.upper is not None:
            yield self.upper
        yield from super().get_renderables()


def _new_progress(console: Console) -> _Bars:
    return _Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        _AmountColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        refresh_per_second=_REFRESH_PER_SECOND,
        transient=True,
        disable=not console.is_terminal,
    )


class Reporter:
    """Where steps say what they do.

    Args:
        console: Of stderr.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress: _Bars | None = None

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
            with _bar(self._progress, description, total, is_bytes) as advance:
                yield advance
            return
        with _new_progress(self.console) as self._progress:
            try:
                with _bar(self._progress, description, total, is_bytes) as advance:
                    yield advance
            finally:
                self._progress = None

    def describe(self, text: str) -> None:
        """Change what the innermost bar says; nothing where there is none."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[-1], description=escape(text))

    @contextmanager
    def above(self, upper: RenderableType) -> Iterator[bool]:
        """Something above the bars while the block runs, which is inside a task's block.

        Args:
            upper: Drawn from another thread, as often as the bars.

        Yields:
            Whether anybody sees it: a terminal that is not shared with other targets.
        """
        progress = self._progress
        if progress is None or progress.disable:
            yield False
            return
        progress.upper = upper
        try:
            yield True
        finally:
            progress.upper = None

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """No bars while the block runs, such as a question on the terminal."""
        progress = self._progress
        if progress is None or progress.disable:
            yield
            return
        progress.stop()
        try:
            yield
        finally:
            progress.start()


class Reporters:
    """One bar for each of several targets, which work at the same time; each has a reporter of its own.

    Args:
        console: Of stderr.
        names: Of the targets, in the order of their bars.
    """

    def __init__(self, console: Console, names: tuple[str, ...]) -> None:
        self._progress = _new_progress(console)
        width = max(map(len, names), default=0)
        self._of = {name: _LineReporter(console, self._progress, name, width) for name in names}

    def __enter__(self) -> Reporters:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def __getitem__(self, name: str) -> Reporter:
        """That of a target."""
        return self._of[name]


@dataclass
class _Step:
    """What a line shows, and what it shows again when a step inside it is over."""

    description: str
    total: float | None
    is_bytes: bool
    done: float = 0


class _LineReporter(Reporter):
    """The reporter of one target among several: all of its tasks share one bar, which shows the innermost."""

    def __init__(self, console: Console, progress: _Bars, name: str, width: int) -> None:
        super().__init__(console)
        self._progress: _Bars = progress
        self._name, self._title = name, escape(name.ljust(width))
        self._steps: list[_Step] = []
        self._lock = threading.RLock()
        self._line: TaskID = progress.add_task(f"{self._title}  waiting", total=None)

    def say(self, text: str) -> None:
        own = f"{self._name}: "
        super().say(text if text.startswith(own) else f"{own}{text}")

    @contextmanager
    def task(self, description: str, total: float | None, *, is_bytes: bool = False) -> Iterator[Advance]:
        step = _Step(description, total, is_bytes)

        def advance(amount: float) -> None:
            with self._lock:
                step.done += amount
                if self._steps and self._steps[-1] is step:
                    self._progress.update(self._line, completed=step.done)

        with self._lock:
            self._steps.append(step)
            self._show()
        try:
            yield advance
        finally:
            with self._lock:
                self._steps.remove(step)
                self._show()

    @contextmanager
    def above(self, upper: RenderableType) -> Iterator[bool]:
        yield False

    def describe(self, text: str) -> None:
        with self._lock:
            if self._steps:
                self._steps[-1].description = escape(text)
                self._progress.update(self._line, description=self._text(self._steps[-1]))

    def _show(self) -> None:
        """Show the innermost step from its start on, so that its rate is its own."""
        step = self._steps[-1] if self._steps else _Step("", None, False)
        task = next(task for task in self._progress.tasks if task.id == self._line)
        task.total = None  # which reset would keep
        self._progress.reset(
            self._line, description=self._text(step), total=step.total, completed=int(step.done), is_bytes=step.is_bytes
        )

    def _text(self, step: _Step) -> str:
        return f"{self._title}  {step.description.removeprefix(f'{self._name}: ')}"


@contextmanager
def _bar(progress: Progress, description: str, total: float | None, is_bytes: bool) -> Iterator[Advance]:
    task = progress.add_task(description, total=total, is_bytes=is_bytes)
    yield lambda amount: progress.advance(task, amount)
    progress.remove_task(task)
