"""Where a verb writes what it would print: whole files, and the path on stdout."""

from __future__ import annotations

from pathlib import Path

import typer

from liteship.errors import UsageError
from liteship_agent.records import write_atomic


def write_output(path: Path, content: bytes) -> None:
    """Write a file, and print its path; see `write_file`."""
    write_file(path, content)
    typer.echo(path)


def write_file(path: Path, content: bytes) -> None:
    """Write a file.

    Args:
        path: As it was typed.
        content: All of it.

    Raises:
        UsageError: nothing can be written there.
    """
    if path.is_dir():
        raise UsageError(f"--output: the name of a file is required. Received: the folder {path}.")
    try:
        write_atomic(path, content)
    except OSError as exc:
        raise UsageError(
            f"--output: a place that can be written to is required. Received: {path} ({exc.strerror})."
        ) from exc


def check_output(path: Path) -> None:
    """Refuse a path in a folder that does not exist, before anything is read or made.

    Raises:
        UsageError: there is no such folder.
    """
    if not path.parent.is_dir():
        raise UsageError(f"--output: a folder that exists is required. Received: {path.parent}.")
