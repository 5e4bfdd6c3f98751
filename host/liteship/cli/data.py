"""`liteship data ...`: public image sets."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from liteship.fetch import DATASETS, Fetched, fetch

app = typer.Typer(no_args_is_help=True)


@app.callback()
def data() -> None:
    """Get public image sets."""


@app.command("fetch")
def fetch_command(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(DATASETS)}.")],
    folder: Annotated[Path, typer.Option(help="Where the set's folder goes.")] = Path("data"),
    url: Annotated[str | None, typer.Option(help="A mirror of the zip file.")] = None,
    sha256: Annotated[str | None, typer.Option(help="Refuse a zip file with another sum.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Download and unpack an image set; a download that was cut goes on where it stopped."""
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=None, visible=False)
        fetched = fetch(
            name,
            folder,
            url=url,
            sha256=sha256,
            on_progress=lambda done, total: progress.update(task, completed=done, total=total, visible=True),
        )
    record = {**asdict(fetched), "folder": str(fetched.folder)}
    typer.echo(json.dumps(record) if as_json else _describe(fetched))


def _describe(fetched: Fetched) -> str:
    if fetched.already_there or fetched.size_bytes is None:
        return f"{fetched.folder} is already there; nothing was downloaded."
    size = f"{fetched.size_bytes / 2**20:.1f} MiB ({fetched.size_bytes} bytes)"
    trust = "as expected" if fetched.checked else "no sum is pinned for it: pass this one as --sha256 next time"
    return f"{fetched.folder} from {size}, sha256 {fetched.sha256} ({trust})."
