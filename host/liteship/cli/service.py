"""`liteship service ...`: the agent or the camera of a board as a service that outlives logins and boots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from liteship import service
from liteship.cli.common import open_connection, reporter
from liteship.cli.options import JsonOption, TargetOption, print_json
from liteship.errors import LinkError
from liteship.remote import Connection
from liteship.service import ServiceAnswer

app = typer.Typer(no_args_is_help=True)


class What(StrEnum):
    """The services."""

    agent = service.AGENT
    camera = service.CAMERA


_What = Annotated[What, typer.Argument(help="agent: goes on with interrupted jobs.  camera: classifies live frames.")]
_MaybeWhat = Annotated[What | None, typer.Argument(help="agent or camera.  \\[default: both]")]


@app.callback()
def services() -> None:
    """Run the agent or the camera of a board as a service that outlives logins and boots."""


@app.command("install")
def install_command(target: TargetOption, what: _What = What.agent, as_json: JsonOption = False) -> None:
    """Install a service of the board's user, start it, and see that it stays up and needs no login."""
    with _connected(target) as connection, reporter().task(f"install {what.value} on {target}", None):
        answer = service.install(connection, what.value)
    if as_json:
        print_json(answer.to_json())
        return
    state = answer.services[0]
    verb = "is installed" if answer.changed else "was installed already"
    typer.echo(f"{target}: {state.unit} {verb}: {state.describe()}; user {answer.user} lingers.")


@app.command("status")
def status_command(target: TargetOption, what: _MaybeWhat = None, as_json: JsonOption = False) -> None:
    """Show how the services of a board are; exit code 5 when one has failed."""
    with _connected(target) as connection:
        answer = service.status(connection, what.value if what else None)
    if as_json:
        print_json(answer.to_json())
    else:
        _print(answer)
    if any(state.has_failed for state in answer.services):
        raise typer.Exit(LinkError.exit_code)


@app.command("logs")
def logs_command(
    target: TargetOption,
    what: _What = What.agent,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many, the last ones.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines that a service wrote to the board's journal."""
    with _connected(target) as connection:
        log = service.logs(connection, what.value, lines)
    if as_json:
        print_json({"target": target, "what": what.value, "lines": list(log.lines), "persistent": log.persistent})
        return
    for line in log.lines:
        typer.echo(line)
    if not log.lines:
        reporter().say(f"{target}: the journal has no line of the {what.value} service")
    if not log.persistent:
        reporter().say(
            f"{target}: its journal is kept in memory, lines from before its last boot are gone; to keep them: "
            "Storage=persistent in /etc/systemd/journald.conf"
        )


@app.command("remove")
def remove_command(target: TargetOption, what: _MaybeWhat = None, as_json: JsonOption = False) -> None:
    """Stop and remove the services of a board, and leave its lingering as it was before."""
    with _connected(target) as connection, reporter().task(f"remove services of {target}", None):
        answer = service.remove(connection, what.value if what else None)
    if as_json:
        print_json(answer.to_json())
        return
    done = f"removed {' and '.join(answer.removed)}" if answer.removed else "there was no service to remove"
    typer.echo(f"{target}: {done}; user {answer.user} {_lingering(answer)}.")


@contextmanager
def _connected(target: str) -> Iterator[Connection]:
    service.require_board(target)
    with open_connection(target) as connection:
        yield connection


def _lingering(answer: ServiceAnswer) -> str:
    return "lingers" if answer.lingers else "does not linger"


def _print(answer: ServiceAnswer) -> None:
    table = Table("service", "state", "at boot", "restarts", "since")
    for state in answer.services:
        at_boot = "starts" if state.enabled and answer.lingers else "does not start"
        table.add_row(*map(escape, (state.what, state.describe(), at_boot, str(state.restarts), state.since or "")))
    console = Console()
    console.print(table)
    console.print(escape(f"{answer.target}: user {answer.user} {_lingering(answer)}"))
