"""`liteship deploy`: make a study the active release of a target."""

from __future__ import annotations

import typer

from liteship.cli.common import (
    JsonOption,
    RuntimeOption,
    StudyOption,
    TargetOption,
    check_options,
    open_connection,
    open_study,
    print_json,
    reporter,
    runtime_cache,
)
from liteship.deploy import deploy
from liteship.targets import LOOPBACK, split_runtimes


def deploy_command(
    target: TargetOption = LOOPBACK,
    study: StudyOption = None,
    runtime: RuntimeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a study the active release of a target: only what it lacks is sent, verified there, and switched to."""
    check_options(target, runtime)
    folder, manifest = open_study(study)
    with open_connection(target) as connection:
        names = split_runtimes(runtime or connection.target.runtime)
        deployment = deploy(connection, folder, manifest, names, runtime_cache(), reporter())
    if as_json:
        print_json(deployment.to_json())
        return
    verb = "is active now" if deployment.activated else "was active already"
    runtimes = ", ".join(deployment.runtimes.values())
    typer.echo(
        f"{deployment.target}: release {deployment.release} {verb}; sent {deployment.blobs_sent} blobs, "
        f"{deployment.bytes_sent / 2**20:.2f} MiB ({deployment.bytes_sent} bytes); {runtimes}"
    )
