"""What the verbs that work share: consoles, and the way from a target's name to an open connection."""

from __future__ import annotations

import getpass
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from liteship.built_in import LOOPBACK
from liteship.cli.options import DEMO_RECIPE, MODELS
from liteship.cli.targets import dialogue
from liteship.errors import LiteshipError, UsageError
from liteship.manifests import read_manifest, study_folder
from liteship.progress import Reporter
from liteship.provision import named_runtimes
from liteship.recipe import Recipe, load_recipe
from liteship.remote import Connection
from liteship.retry import Patience, keep_trying
from liteship.targets import Target, expand_targets, find_target, split_runtimes
from liteship_agent.manifest import Manifest

Result = TypeVar("Result")

_WORK_FOLDER = Path(".liteship")


def reporter() -> Reporter:
    """Progress on stderr."""
    return Reporter(Console(stderr=True))


def runtime_cache() -> Path:
    """Folder of packed runtimes, shared by all projects of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "liteship" / "runtimes"


@contextmanager
def open_connection(name: str) -> Iterator[Connection]:
    """Log in to a target, once; `loopback` runs its own server meanwhile."""
    with _served(name) as target, Connection.open(target, ask_password=PasswordDialogue.on_terminal()) as connection:
        yield connection


def with_connection(
    name: str, action: Callable[[Connection], Result], say: Reporter, patience: Patience | None = None
) -> Result:
    """Do something over a connection to a target, and again over a new one where the link is at fault.

    Args:
        name: Of the target.
        action: Takes the connection. It is called again after the link was lost, so it must be one that goes on where
            it was cut, such as deploy and bench.
        say: Hears one line for each attempt that failed.
        patience: How often and with which pauses; see `liteship.retry`.
    Returns:
        What the action returned.
    Raises:
        LostLinkError: the link was lost or nobody answered, in the last attempt too.
        LiteshipError: any other expected error, at once.
    """
    ask_password = PasswordDialogue.on_terminal(say)
    with _served(name) as target:
        return keep_trying(lambda: Connection.open(target, ask_password=ask_password), action, name, say.say, patience)


@contextmanager
def _served(name: str) -> Iterator[Target]:
    """A target that can be reached: `loopback` runs its own server meanwhile."""
    target = find_target(name, ask=dialogue())
    if name != LOOPBACK:
        yield target
        return
    from liteship import loopback

    with loopback.serve(Path(target.folder)) as served:
        yield served


class PasswordDialogue:
    """Asks for a password when a server wants one; keeps it in memory for connections that follow a lost one.

    Args:
        say: Whose bars make room for the question.
    """

    _one_at_a_time = threading.Lock()

    def __init__(self, say: Reporter | None = None) -> None:
        self._say = say
        self._known: dict[str, str] = {}

    @classmethod
    def on_terminal(cls, say: Reporter | None = None) -> PasswordDialogue | None:
        """A dialogue, or None where nobody can be asked."""
        return cls(say) if sys.stdin.isatty() and sys.stderr.isatty() else None

    def __call__(self, question: str) -> str:
        """The answer to a question."""
        if question not in self._known:
            with self._one_at_a_time, self._say.hidden() if self._say else nullcontext():
                self._known[question] = getpass.getpass(f"{question}: ")
        return self._known[question]


def check_targets(text: str, runtime: str | None) -> tuple[str, ...]:
    """The targets of `--target`; fail now, before long work, or ask now, before there are several threads.

    Args:
        text: Names and groups with commas.
        runtime: As of `check_options`, which is applied to each.
    Raises:
        TargetError, UsageError: as `expand_targets` and `check_options`.
    """
    names = expand_targets(text, may_be_new=dialogue() is not None)
    for name in names:
        check_options(name, runtime)
    return names


def check_options(target: str, runtime: str | None) -> None:
    """Fail now, before long work, if there is no such target or runtime; without one the target's own is looked at.

    Raises:
        TargetError: unknown target, and nobody to ask.
        UsageError: unknown runtime.
    """
    own = find_target(target, ask=dialogue()).runtime
    for name in split_runtimes(runtime or own):
        try:
            named_runtimes(name)
        except UsageError as exc:
            where = "--runtime" if runtime else f"targets.toml: [targets.{target}] runtime"
            raise UsageError(f"{where}: {exc.message}", exc.hint) from exc


def build(
    recipe: Recipe,
    limit: int | None = None,
    skip_corrupt: bool = False,
    jobs: int | None = None,
    max_drop: float | None = None,
) -> Manifest:
    """Make what the recipe asks for; TensorFlow is imported only here.

    Args:
        recipe: With the command line's overrides applied.
        limit: Images of each split, at most.
        skip_corrupt: Leave out images that cannot be decoded.
        jobs: Trainings beside each other; None takes as many as cores and memory allow.
        max_drop: Where accuracy falls by more than this, nothing sparser is made.
    """
    from liteship.data import find_images, limit_dataset, require_sound

    dataset = find_images(recipe.data.source, split=recipe.data.split, seed=recipe.seed, cache=_WORK_FOLDER / "data")
    if limit is not None:
        dataset = limit_dataset(dataset, limit, recipe.seed)
        recipe = recipe.with_overrides(calibration=limit)
    with reporter().task("check images", len(dataset.train) + len(dataset.validation)) as advance:
        dataset = require_sound(dataset, skip_corrupt, lambda done, total: advance(1))
    with quiet_tensorflow(MODELS / recipe.name / "tensorflow.log") as say:
        for file, defect in dataset.skipped:
            say.say(f"skipped {file.path}: {defect}")
        from liteship.study.build import build_study

        return build_study(recipe, dataset, MODELS, say, jobs, max_drop)


@contextmanager
def quiet_tensorflow(log: Path) -> Iterator[Reporter]:
    """Send what C++ code writes to file descriptor 2 into a log; our own lines still reach the terminal.

    Yields:
        A reporter on the real stderr.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.dup(2)
    python_stderr = sys.stderr
    with open(log, "ab") as file, os.fdopen(os.dup(terminal), "w", buffering=1) as stream:
        os.dup2(file.fileno(), 2)
        sys.stderr = stream
        try:
            yield Reporter(Console(file=stream))
        finally:
            sys.stderr = python_stderr
            os.dup2(terminal, 2)
            os.close(terminal)


def open_study(name: str | None) -> tuple[Path, Manifest]:
    """A study and its manifest; without any study the demo is made first."""
    try:
        folder = study_folder(MODELS, name)
    except LiteshipError:
        if name is not None or not DEMO_RECIPE.exists():
            raise
        reporter().say(f"no study under {MODELS}/ yet: running {DEMO_RECIPE} first")
        build(load_recipe(DEMO_RECIPE))
        folder = study_folder(MODELS, None)
    return folder, read_manifest(folder)
