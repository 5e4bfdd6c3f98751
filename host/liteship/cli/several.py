"""One verb on several targets at once: a thread and a line of progress each; one that fails stops no other.

Ctrl-C reaches only the main thread, which hands it on: every thread then ends as a single target does, and stops its
job there. With one target nothing of this happens.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import typer
from rich.console import Console

from liteship.cli.common import reporter
from liteship.cli.options import print_json
from liteship.errors import LinkError, LiteshipError
from liteship.progress import Reporter, Reporters
from liteship_agent.errors import AgentError

Result = TypeVar("Result")
Action = Callable[[str, Reporter], Result]

_TICK_SECONDS = 0.1
_STOP_SECONDS = 10.0
"""How long targets have to stop their jobs after Ctrl-C, before the process ends without them."""


@dataclass(frozen=True)
class Outcome(Generic[Result]):
    """What a verb came to on one target.

    Args:
        target: Its name.
        result: What the action returned, None after an error.
        error: What it ended with instead, None where it did not.
    """

    target: str
    result: Result | None
    error: BaseException | None

    @property
    def exit_code(self) -> int:
        """0, that of the error's family, or 1 for a bug."""
        if self.error is None:
            return 0
        if isinstance(self.error, AgentError):
            return LinkError.exit_code
        return self.error.exit_code if isinstance(self.error, LiteshipError) else 1

    @property
    def message(self) -> str:
        """The error in one line."""
        return " ".join(str(self.error).split())


def on_targets(
    names: Sequence[str],
    action: Action[Result],
    show: Callable[[Result], None],
    to_json: Callable[[Result], dict[str, Any]],
    as_json: bool,
) -> None:
    """Run a verb's action on its targets and print what comes out.

    Args:
        names: Of the targets, see `liteship.targets.expand_targets`.
        action: Takes a target's name and where to say what it does.
        show: Prints one result for people.
        to_json: One result as an object for --json.
        as_json: Print JSON: the object itself for one target, `{"targets": {name: object}}` for several, with
            `{"error": ...}` in place of an object where a target failed.
    Raises:
        LiteshipError: the error of a single target.
        typer.Exit: the highest exit code of several targets, where it is not 0.
    """
    if len(names) == 1:
        result = action(names[0], reporter())
        if as_json:
            print_json(to_json(result))
        else:
            show(result)
        return
    outcomes = run_each(names, action)
    if as_json:
        print_json({"targets": {outcome.target: _object(outcome, to_json) for outcome in outcomes}})
    else:
        for outcome in outcomes:
            if outcome.error is None:
                show(outcome.result)  # type: ignore[arg-type]
    report_errors(outcomes)


def run_each(names: Sequence[str], action: Action[Result]) -> list[Outcome[Result]]:
    """Run an action for every target in a thread each.

    Returns:
        The outcomes in the order of the names.
    Raises:
        KeyboardInterrupt: Ctrl-C; by then the threads were told, and had `_STOP_SECONDS` to end.
    """
    with _terminal_as_it_was(), Reporters(Console(stderr=True), tuple(names)) as says:
        workers = [_Worker(name, action, says[name]) for name in names]
        try:
            for worker in workers:
                worker.start()
            _wait(workers, None)
        except KeyboardInterrupt:
            running = [worker for worker in workers if worker.interrupt()]
            _wait(running, _STOP_SECONDS)
            raise
    return [worker.outcome for worker in workers]


def report_errors(outcomes: Sequence[Outcome[Any]]) -> None:
    """Print the error of every target that failed, in one line; a bug with its traceback.

    Raises:
        typer.Exit: with the highest exit code, where it is not 0.
    """
    for outcome in outcomes:
        if outcome.error is None:
            continue
        if isinstance(outcome.error, (LiteshipError, AgentError)):
            line = outcome.message
            own = f"{outcome.target}: "
            typer.echo(f"error: {line if line.startswith(own) else own + line}", err=True)
        else:
            typer.echo(f"{outcome.target}:", err=True)
            traceback.print_exception(outcome.error, file=sys.stderr)
    code = max((outcome.exit_code for outcome in outcomes), default=0)
    if code:
        raise typer.Exit(code)


def _object(outcome: Outcome[Result], to_json: Callable[[Result], dict[str, Any]]) -> Mapping[str, Any]:
    if outcome.error is not None:
        return {"error": outcome.message or type(outcome.error).__name__, "exit_code": outcome.exit_code}
    return to_json(outcome.result)  # type: ignore[arg-type]


class _Worker(threading.Thread, Generic[Result]):
    """The thread of one target."""

    def __init__(self, name: str, action: Action[Result], say: Reporter) -> None:
        super().__init__(name=f"liteship-{name}", daemon=True)
        self._target_name, self._action, self._say = name, action, say
        self.outcome: Outcome[Result] = Outcome(name, None, None)
        self.has_ended = threading.Event()
        """Ctrl-C during a join may leave a living thread marked as ended (CPython gh-90882), so nobody joins."""

    def run(self) -> None:
        name = self._target_name
        try:
            self.outcome = Outcome(name, self._action(name, self._say), None)
        except BaseException as exc:
            self.outcome = Outcome(name, None, exc)
            if isinstance(exc, LiteshipError):
                self._say.say(f"{name}: failed; the others go on")
        finally:
            self.has_ended.set()

    def interrupt(self) -> bool:
        """Raise KeyboardInterrupt in this thread, as Ctrl-C does in the main one; False where it does not run."""
        if self.ident is None or self.has_ended.is_set():
            return False
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(KeyboardInterrupt))
        return True


def _wait(workers: Sequence[_Worker[Any]], seconds: float | None) -> None:
    """Until all have ended; in short steps, so that Ctrl-C is heard."""
    deadline = None if seconds is None else time.monotonic() + seconds
    for worker in workers:
        while not worker.has_ended.wait(_TICK_SECONDS) and (deadline is None or time.monotonic() < deadline):
            pass


@contextlib.contextmanager
def _terminal_as_it_was() -> Iterator[None]:
    """Keep the terminal's settings: a thread that ends at a password prompt would leave it without echo."""
    if not sys.stdin.isatty():
        yield
        return
    settings = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, settings)
