"""The releases that are on a target: list them, go back to one, verify them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from liteship.deploy import now, stage_shown
from liteship.progress import Reporter
from liteship.remote import Connection

_IDLE_SECONDS = 300.0


def list_releases(connection: Connection) -> dict[str, Any]:
    """`folder` and `releases`, see `liteship_agent.store.main.describe_releases`."""
    return connection.store("releases")


def roll_back(connection: Connection, release: str | None, say: Reporter) -> dict[str, Any]:
    """Make an earlier release active.

    Args:
        connection: To the target.
        release: Its id, None for the one before.
        say: Progress.
    Returns:
        `release` that is active now, `before` that was, and `smoke`.
    Raises:
        RemoteError: there is no such release, or it is damaged; the active one stays so.
    """
    name = connection.target.name
    with say.task(f"roll back {name}", None):
        request = _line({"release": release, "time": now()})
        return connection.store("rollback", [request], on_event=stage_shown(name, say), idle_seconds=_IDLE_SECONDS)


def verify_releases(connection: Connection, release: str | None, say: Reporter) -> dict[str, Any]:
    """Let the target read everything.

    Args:
        connection: To the target.
        release: Id of the only one to verify, None for all.
        say: Progress.
    Returns:
        See `liteship_agent.store.verification.verify`.
    Raises:
        RemoteError: there is no such release.
    """
    name = connection.target.name
    with say.task(f"verify {name}", None, is_bytes=True) as advance:
        read = 0

        def show(event: Mapping[str, Any]) -> None:
            nonlocal read
            advance(event["received"] - read)
            read = event["received"]
            say.describe(f"verify {name}: {event['stage']}")

        return connection.store("verify", [_line({"release": release})], on_event=show, idle_seconds=_IDLE_SECONDS)


def _line(parameters: dict[str, Any]) -> bytes:
    return json.dumps(parameters).encode() + b"\n"
