"""`liteship deploy`: make a study the active release of one target or several."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import typer

from liteship.built_in import LOOPBACK
from liteship.cli.common import check_targets, open_study, runtime_cache, with_connection
from liteship.cli.options import JsonOption, RuntimeOption, StudyOption, TargetsOption
from liteship.cli.several import on_targets
from liteship.deploy import KEEP_RELEASES, Deployment, Plan, deploy, plan_deploy
from liteship.progress import Reporter
from liteship.remote import Connection
from liteship.targets import split_runtimes

Result = TypeVar("Result")

_MIB = 2**20


def deploy_command(
    target: TargetsOption = LOOPBACK,
    study: StudyOption = None,
    runtime: RuntimeOption = None,
    keep: Annotated[
        int, typer.Option("--keep", min=1, help="Releases that stay there for a rollback, this one among them.")
    ] = KEEP_RELEASES,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would travel, be unpacked, switched to and removed.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a study the active release of a target: only what it lacks is sent, verified there, and switched to.

    Whatever fails on the way, the release that was active stays active and whole; the same command goes on from there.
    """
    names = check_targets(target, runtime)
    folder, manifest = open_study(study)

    def act(do: Callable[..., Result], name: str, say: Reporter) -> Result:
        def over(connection: Connection) -> Result:
            runtimes = split_runtimes(runtime or connection.target.runtime)
            return do(connection, folder, manifest, runtimes, runtime_cache(), say, keep)

        return with_connection(name, over, say)

    if dry_run:
        on_targets(names, partial(act, plan_deploy), _print_plan, Plan.to_json, as_json)
    else:
        on_targets(names, partial(act, deploy), _print_deployment, Deployment.to_json, as_json)


def _print_deployment(deployment: Deployment) -> None:
    verb = "is active now" if deployment.activated else "was active already"
    runtimes = ", ".join(deployment.runtimes.values())
    typer.echo(
        f"{deployment.target}: release {deployment.release} {verb}; sent {deployment.blobs_sent} blobs, "
        f"{deployment.bytes_sent / _MIB:.2f} MiB ({deployment.bytes_sent} bytes); {runtimes}"
    )
    if deployment.collected is not None and deployment.collected["bytes"]:
        typer.echo(f"{deployment.target}: removed {_removed(deployment.collected)}")


def _print_plan(plan: Plan) -> None:
    lines = [f"send      {item.path}  {_size(item)}" for item in plan.travel]
    lines += [f"unpack    {name}  {size / _MIB:.1f} MiB" for name, size in plan.unpack.items()]
    if plan.release == plan.current:
        lines.append(f"switch    nothing: release {plan.release} is active")
    else:
        lines.append(f"switch    {plan.current or 'nothing'} -> {plan.release}")
    if plan.collected["bytes"]:
        lines.append(f"remove    {_removed(plan.collected)}")
    lines.append(f"in all    {plan.bytes_to_send / _MIB:.2f} MiB ({plan.bytes_to_send} bytes) to send")
    for line in lines:
        typer.echo(f"{plan.target}: {line}")


def _size(item: Any) -> str:
    if item.offset:
        return f"{(item.size - item.offset) / _MIB:.2f} of {item.size / _MIB:.2f} MiB, the rest is there"
    return f"{item.size / _MIB:.2f} MiB"


def _removed(collected: dict[str, Any]) -> str:
    counts = [
        f"{len(collected[kind])} {kind if len(collected[kind]) != 1 else kind.removesuffix('s')}"
        for kind in ("releases", "blobs", "runtimes", "caches")
        if collected[kind]
    ]
    return f"{', '.join(counts)}: {collected['bytes'] / _MIB:.2f} MiB"
