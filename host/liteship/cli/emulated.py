"""`liteship emulated ...`: an ARM64 board without a board."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from liteship.cli.common import reporter
from liteship.cli.options import JsonOption
from liteship.emulated.image import ensure_image, locked
from liteship.emulated.machine import Machine, Options, find_machine, remove
from liteship.emulated.machine import start as start_machine
from liteship.targets import EMULATED_FOLDER

IMAGE_FOLDER = EMULATED_FOLDER.with_name("emulated-image")

app = typer.Typer(no_args_is_help=True)


@app.callback()
def emulated() -> None:
    """Build, start and stop an emulated ARM64 board."""


@app.command("start")
def start_command(
    memory_mib: Annotated[int, typer.Option(min=256, help="Memory of the board.")] = Options.memory_mib,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1.  \\[default: a free one]")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was deployed to it before.")] = False,
) -> None:
    """Build the board if it is not there yet, and start it; returns when it can be logged in to."""
    with locked(EMULATED_FOLDER.with_name(".emulated.lock")):
        machine = find_machine(EMULATED_FOLDER)
        if machine is not None:
            typer.echo(f"emulated runs already: {_address(machine)}, port {machine.target.port}")
            return
        say = reporter()
        image = ensure_image(IMAGE_FOLDER, say)
        if fresh:
            remove(EMULATED_FOLDER)
        machine = start_machine(image, EMULATED_FOLDER, Options(memory_mib=memory_mib, port=port), say)
    typer.echo(f"emulated runs: {_address(machine)}, port {machine.target.port}; use it with TARGET=emulated")


@app.command("stop")
def stop_command() -> None:
    """Shut the board down; what was deployed to it stays on its disk."""
    machine = find_machine(EMULATED_FOLDER)
    if machine is None:
        typer.echo("emulated does not run")
        return
    with reporter().task("emulated: shut down", None):
        machine.stop()
    typer.echo("emulated is stopped")


@app.command("status")
def status_command(as_json: JsonOption = False) -> None:
    """Tell whether the board runs, and how to reach it."""
    machine = find_machine(EMULATED_FOLDER)
    if as_json:
        told = None if machine is None else machine.target.model_dump(mode="json")
        typer.echo(json.dumps({"running": machine is not None, "target": told}, indent=2))
    elif machine is None:
        typer.echo("emulated does not run; start it with: make emulated")
    else:
        typer.echo(f"emulated runs: ssh -p {machine.target.port} -i {machine.target.identity_file} {_address(machine)}")


def _address(machine: Machine) -> str:
    return f"{machine.target.user}@{machine.target.host}"
