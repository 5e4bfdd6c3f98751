"""`liteship doctor`: what is missing on the host or on a target, and how to get it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from liteship.cli.common import JsonOption, check_options, open_connection, print_json
from liteship.doctor import Check, check_host, check_target
from liteship.errors import LiteshipError
from liteship.targets import LOOPBACK


def doctor_command(
    target: Annotated[str | None, typer.Option("--target", help="Check this target too.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this computer, and a target, for everything that liteship needs."""
    if target is not None:
        check_options(target, None)
    checks = check_host()
    if target is not None:
        checks += _check_target(target)
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        _print(checks)
    if not all(check.passed for check in checks):
        failed_on_target = any(not check.passed for check in checks if check.where != "host")
        raise typer.Exit(5 if failed_on_target else 2)


def _check_target(name: str) -> list[Check]:
    try:
        with open_connection(name) as connection:
            reached = "this computer" if name == LOOPBACK else connection.endpoint.address
            return [Check(name, "connection", True, reached), *check_target(connection)]
    except LiteshipError as exc:
        return [Check(name, "connection", False, exc.message, exc.hint)]


def _print(checks: list[Check]) -> None:
    table = Table("where", "what", "", "found", "what to do")
    for check in checks:
        state = "ok" if check.passed else "MISSING"
        table.add_row(*map(escape, (check.where, check.what, state, check.found, check.remedy)))
    Console().print(table)
