"""`liteship doctor`: what is missing on the host or on a target, and how to get it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from liteship.built_in import LOOPBACK
from liteship.cli.common import check_targets, reporter, with_connection
from liteship.cli.options import JsonOption, print_json
from liteship.cli.several import Outcome, report_errors, run_each
from liteship.doctor import Check, check_host, check_target
from liteship.errors import LiteshipError
from liteship.progress import Reporter
from liteship.remote import Connection


def doctor_command(
    target: Annotated[
        str | None, typer.Option("--target", metavar="NAME[,NAME]", help="Check these targets too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this computer, and a target, for everything that liteship needs."""
    names = () if target is None else check_targets(target, None)
    host = check_host()
    outcomes = _check_targets(names)
    checks = [*host, *(check for outcome in outcomes for check in outcome.result or ())]
    if not as_json:
        _print(checks)
    elif len(names) < 2:
        print_json(_object(checks))
    else:
        print_json({**_object(host), "targets": {one.target: _object(one.result or []) for one in outcomes}})
    report_errors(outcomes)
    if not all(check.passed for check in checks):
        failed_on_target = any(not check.passed for check in checks if check.where != "host")
        raise typer.Exit(5 if failed_on_target else 2)


def _check_targets(names: Sequence[str]) -> list[Outcome[list[Check]]]:
    if len(names) == 1:
        return [Outcome(names[0], _check_target(names[0], reporter()), None)]
    return run_each(names, _check_target) if names else []


def _check_target(name: str, say: Reporter) -> list[Check]:
    def check(connection: Connection) -> list[Check]:
        reached = "this computer" if name == LOOPBACK else connection.endpoint.address
        return [Check(name, "connection", True, reached), *check_target(connection)]

    try:
        return with_connection(name, check, say)
    except LiteshipError as exc:
        return [Check(name, "connection", False, exc.message, exc.hint)]


def _object(checks: Sequence[Check]) -> dict[str, Any]:
    return {"checks": [asdict(check) for check in checks]}


def _print(checks: list[Check]) -> None:
    table = Table("where", "what", "", "found", "what to do")
    for check in checks:
        state = "ok" if check.passed else "MISSING"
        table.add_row(*map(escape, (check.where, check.what, state, check.found, check.remedy)))
    Console().print(table)
