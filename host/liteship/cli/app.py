"""`liteship`: all verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from liteship import __version__
from liteship.cli import data, doctor, run, targets
from liteship.errors import LinkError, LiteshipError
from liteship_agent.errors import AgentError

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, prune and quantize an image classifier, put it on a board over SSH, measure it there, and compare.",
    epilog="Start with: liteship run benchmarks/demo.toml",
)
app.command("run")(run.run_command)
app.command("deploy")(run.deploy_command)
app.command("bench")(run.bench_command)
app.command("report")(run.report_command)
app.command("doctor")(doctor.doctor_command)
app.add_typer(targets.app, name="targets")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: expected errors are one line on stderr and the exit code of their family; bugs show a traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        app()
    except (LiteshipError, AgentError) as exc:
        typer.echo(f"error: {' '.join(str(exc).split())}", err=True)
        sys.exit(exc.exit_code if isinstance(exc, LiteshipError) else LinkError.exit_code)
    except SystemExit as exc:
        if exc.code == INTERRUPTED:
            typer.echo("interrupted; the same command goes on from here", err=True)
        raise
