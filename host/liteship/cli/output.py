"""Where a verb writes what it would print: whole files, and the path on stdout."""

from __future__ import annotations

from pathlib import Path

import typer

from liteship.errors import UsageError
from liteship_agent.records import write_atomic


def write_output(path: Path, content: bytes) -> None:
    """Write a file, and print its path.

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
    typer.echo(path)
