"""`liteship`: all verbs, and the one place where errors become exit codes.

A verb's module is imported when the verb is called: what one verb needs (SSH, charts, NumPy) must not slow the others.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from liteship import __version__
from liteship.errors import LinkError, LiteshipError
from liteship_agent.errors import AgentError

INTERRUPTED = 130
# Where each verb is, and its line in the list of verbs: the first of its docstring.
VERBS = {
    "run": (
        "run:run_command",
        "Train, compress, deploy, measure, and print the comparison table: the whole way of a recipe.",
    ),
    "deploy": (
        "deploy:deploy_command",
        "Make a study the active release of a target: only what it lacks is sent, verified there, and switched to.",
    ),
    "bench": (
        "run:bench_command",
        "Measure a study on a target and print the comparison table; what is not deployed yet is deployed first.",
    ),
    "reports": (
        "reports:reports_command",
        "List what was measured, the latest first; every id is one for report, choose, compare and gate.",
    ),
    "report": ("report:report_command", "Print the comparison table of a measurement again."),
    "choose": (
        "choose:choose_command",
        "Choose the model to ship: the best that keeps to every budget, and why each other lost.",
    ),
    "compare": (
        "compare:compare_command",
        "Compare measurements row by row: boards, days, runtimes, studies; with intervals, and with what differs.",
    ),
    "gate": (
        "compare:gate_command",
        "Judge a measurement by a baseline: exit code 4 where a row became worse, 6 where it cannot be judged.",
    ),
    "repeat": (
        "repeat:repeat_command",
        "Measure once more what was measured before, and tell whether the ratios agree inside their intervals.",
    ),
    "import": (
        "import_model:import_command",
        "Make a study of a model of your own: convert, quantize, check; then deploy and bench it like any other.",
    ),
    "inspect": ("inspect:inspect_command", "Tell what stands in a .tflite file, and which runtimes load it."),
    "releases": (
        "releases:releases_command",
        "List the releases of a target, the latest first; one of them is active.",
    ),
    "rollback": (
        "releases:rollback_command",
        "Make an earlier release active again, after its bytes and its smoke inference were checked there.",
    ),
    "verify": (
        "releases:verify_command",
        "Read every file of the releases and runtimes on a target and compare its sha256 with the one it must have.",
    ),
    "camera": (
        "camera:camera_command",
        "Run the deployed model of a target on live frames, and look at it here: a page, or the terminal.",
    ),
    "doctor": ("doctor:doctor_command", "Check this computer, and a target, for everything that liteship needs."),
    "emulated": ("emulated:app", "Build, start and stop an emulated ARM64 board."),
    "service": (
        "service:app",
        "Run the agent or the camera of a board as a service that outlives logins and boots.",
    ),
    "targets": ("targets:app", "List, add and trust boards."),
    "data": ("data:app", "Get public image sets."),
}


def load_verb(name: str) -> Any:
    """The command or group of commands of a verb."""
    module, _, attribute = VERBS[name][0].partition(":")
    verb = getattr(import_module(f"liteship.cli.{module}"), attribute)
    holder = typer.Typer()
    if isinstance(verb, typer.Typer):
        holder.add_typer(verb, name=name)
    else:
        holder.command(name)(verb)
    return typer.main.get_group(holder).commands[name]


class _Verbs(TyperGroup):
    """Knows names and help of all verbs, and loads the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_verb(name) if name and command else command, rest


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, prune and quantize an image classifier, put it on a board over SSH, measure it there, and compare.",
    epilog="Start with: liteship run benchmarks/demo.toml",
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _not_loaded_yet() -> None:
    """Stands for a verb in the list of verbs."""


for _name, (_, _summary) in VERBS.items():
    app.command(_name, help=_summary)(_not_loaded_yet)


def main() -> None:
    """Entry point: expected errors are one line on stderr and the exit code of their family; bugs show a traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app(prog_name="liteship")
    except (LiteshipError, AgentError) as exc:
        typer.echo(f"error: {' '.join(str(exc).split())}", err=True)
        sys.exit(exc.exit_code if isinstance(exc, LiteshipError) else LinkError.exit_code)
    except SystemExit as exc:
        if exc.code == INTERRUPTED:
            typer.echo("interrupted; the same command goes on from here", err=True)
        raise
