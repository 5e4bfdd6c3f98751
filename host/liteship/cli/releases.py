"""`liteship releases|rollback|verify`: what is on a target, back to what was active before, and is all of it whole?"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from liteship.built_in import LOOPBACK
from liteship.cli.common import check_targets, with_connection
from liteship.cli.options import JsonOption, TargetsOption
from liteship.cli.several import on_targets
from liteship.errors import LinkError
from liteship.releases import list_releases, roll_back, verify_releases

_MIB = 2**20

_ReleaseArgument = Annotated[
    str | None, typer.Argument(help="Id of a release.  \\[default: the one before]", metavar="[RELEASE]")
]


def releases_command(target: TargetsOption = LOOPBACK, as_json: JsonOption = False) -> None:
    """List the releases of a target, the latest first; one of them is active."""
    names = check_targets(target, None)
    on_targets(
        names,
        lambda name, say: {"target": name, **with_connection(name, list_releases, say)},
        _print_releases,
        lambda found: found,
        as_json,
    )


def rollback_command(
    release: _ReleaseArgument = None, target: TargetsOption = LOOPBACK, as_json: JsonOption = False
) -> None:
    """Make an earlier release active again, after its bytes and its smoke inference were checked there.

    Nothing is sent. If the checks fail, the release that is active stays so.
    """
    names = check_targets(target, None)
    on_targets(
        names,
        lambda name, say: {
            "target": name,
            **with_connection(name, lambda connection: roll_back(connection, release, say), say),
        },
        lambda done: typer.echo(f"{done['target']}: release {done['release']} is active now; before: {done['before']}"),
        lambda done: done,
        as_json,
    )


def verify_command(
    release: Annotated[
        str | None, typer.Argument(help="Id of a release.  \\[default: all]", metavar="[RELEASE]")
    ] = None,
    target: TargetsOption = LOOPBACK,
    as_json: JsonOption = False,
) -> None:
    """Read every file of the releases and runtimes on a target and compare its sha256 with the one it must have.

    What is damaged is named, and sent again by the next deploy of its study. The exit code is 5 then.
    """
    names = check_targets(target, None)
    damaged: list[str] = []

    def act(name: str, say: Any) -> dict[str, Any]:
        found = with_connection(name, lambda connection: verify_releases(connection, release, say), say)
        if found["damaged"]:
            damaged.append(name)
        return {"target": name, **found}

    on_targets(names, act, _print_verified, lambda found: found, as_json)
    if damaged:
        raise typer.Exit(LinkError.exit_code)


def _print_releases(found: dict[str, Any]) -> None:
    if not found["releases"]:
        typer.echo(f"{found['target']}: no release yet; liteship deploy --target {found['target']}")
        return
    table = Table(title=found["target"], box=SIMPLE_HEAD)
    for name in ("release", "", "study", "activated", "files", "MiB"):
        table.add_column(name, no_wrap=name != "study", justify="right" if name in ("files", "MiB") else "left")
    table.add_column("runtimes", overflow="fold")
    for one in found["releases"]:
        if "damaged" in one:
            table.add_row(one["release"], "DAMAGED", "", "", "", "", escape(one["damaged"]))
            continue
        state = "active" if one["is_current"] else "before" if one["is_previous"] else ""
        runtimes = ", ".join("-".join(name.split("-")[:-3]) for name in one["runtimes"])
        table.add_row(
            one["release"],
            state,
            escape(one["study"]),
            (one["activated"] or "")[:16].replace("T", " "),
            str(one["artefacts"]),
            f"{one['bytes'] / _MIB:.2f}",
            runtimes,
        )
    Console().print(table)


def _print_verified(found: dict[str, Any]) -> None:
    read = f"{found['files']} files, {found['bytes'] / _MIB:.1f} MiB"
    for one in found["damaged"]:
        typer.echo(
            f"{found['target']}: {one['path']}: {one['required'][:12]} is required. Received: {one['received'][:60]}"
        )
    if found["damaged"]:
        count = len(found["damaged"])
        typer.echo(
            f"{found['target']}: {count} of {read} {'is' if count == 1 else 'are'} damaged; deploy the study again: "
            "what is damaged is sent anew"
        )
    else:
        typer.echo(f"{found['target']}: all of {read} have the sha256 that their release names")
