"""Options that several verbs have, and their output as JSON. Imports little: verbs that only read start at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

MODELS = Path("models")
DEMO_RECIPE = Path("benchmarks/demo.toml")

TargetOption = Annotated[str, typer.Option("--target", help="Name in targets.toml, loopback or emulated.")]
TargetsOption = Annotated[
    str,
    typer.Option(
        "--target",
        metavar="NAME[,NAME]",
        help="Names or groups of targets.toml, loopback or emulated; several run in parallel.",
    ),
]
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
JobOption = Annotated[
    str,
    typer.Option(
        "--job",
        metavar="REPORT",
        help="A job's id or its first digits, latest, TARGET:latest, or a file; liteship reports lists them.",
    ),
]
ReportTargetOption = Annotated[
    str | None, typer.Option("--target", help="Reports of this target.  \\[default: whichever was measured last]")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Use at most so many images (of each split, where it trains).")
]


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def plain_console() -> Console:
    """Stdout for text that is shown as it is; without the table of emoji names, which takes time to load."""
    return Console(emoji=False, markup=False, highlight=False)
