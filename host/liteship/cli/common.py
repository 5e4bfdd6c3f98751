"""What the verbs share: options, consoles, and the way from a target's name to an open connection."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from liteship.cli.targets import dialogue
from liteship.errors import LiteshipError, UsageError
from liteship.manifests import read_manifest, study_folder
from liteship.progress import Reporter
from liteship.provision import named_runtimes
from liteship.recipe import Recipe, load_recipe
from liteship.remote import Connection
from liteship.targets import LOOPBACK, find_target, split_runtimes
from liteship_agent.manifest import Manifest

MODELS = Path("models")
_WORK_FOLDER = Path(".liteship")
DEMO_RECIPE = Path("benchmarks/demo.toml")

TargetOption = Annotated[str, typer.Option("--target", help="Name in targets.toml, or loopback.")]
StudyOption = Annotated[str | None, typer.Option("--study", help="Folder under models/.  \\[default: the latest]")]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        metavar="NAME[,NAME]",
        help="auto, ai-edge-litert, tflite-runtime or NAME==VERSION; several compare them on the same files.  "
        "\\[default: the target's]",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use at most so many images (of each split, where it trains).")
]


def reporter() -> Reporter:
    """Progress on stderr."""
    return Reporter(Console(stderr=True))


def runtime_cache() -> Path:
    """Folder of packed runtimes, shared by all projects of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "liteship" / "runtimes"


@contextmanager
def open_connection(name: str) -> Iterator[Connection]:
    """Log in to a target; `loopback` runs its own server meanwhile."""
    target = find_target(name, ask=dialogue())
    if name == LOOPBACK:
        from liteship import loopback

        with loopback.serve(Path(target.folder)) as served, Connection.open(served) as connection:
            yield connection
    else:
        with Connection.open(target, ask_password=_password_dialogue()) as connection:
            yield connection


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


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


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


def _password_dialogue() -> Any:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return lambda question: getpass.getpass(f"{question}: ")
