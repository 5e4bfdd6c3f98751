"""The agent or the camera as a service on a target: install it, look at it, read its lines, remove it.

Everything happens on the target, by liteship_agent.service; here it is asked and its answers get their types.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from liteship.built_in import LOOPBACK
from liteship.errors import UsageError
from liteship.programs import Program
from liteship.remote import Connection

AGENT, CAMERA = "agent", "camera"
SERVICES = (AGENT, CAMERA)

_PROGRAM = Program(("store.events", "service.units", "service.systemd", "service.logind", "service.main"))


@dataclass(frozen=True)
class ServiceState:
    """How one service of a target is.

    Args:
        what: agent or camera.
        unit: Its name for systemd.
        installed, enabled: Whether the unit of this liteship folder is there, and starts at boot.
        active, sub, result: As systemd calls them, for example active, running, success.
        ending: How its last process ended, null while the first one runs.
        pid: Of its process, null when there is none.
        restarts: How often systemd started it again after a failure.
        since: Time of the last change, by the target's clock.
        other_folder: The unit file of another liteship folder of the same user that has this name, else null.
    """

    what: str
    unit: str
    installed: bool
    enabled: bool
    active: str
    sub: str
    result: str
    ending: str | None
    pid: int | None
    restarts: int
    since: str | None
    other_folder: str | None

    @property
    def has_failed(self) -> bool:
        """Whether it is installed and neither runs nor ended well."""
        return self.installed and (self.active == "failed" or self.sub == "auto-restart")

    def describe(self) -> str:
        """Its state in words."""
        if self.other_folder is not None:
            return f"not installed here; {self.other_folder} has its name"
        if not self.installed:
            return "not installed"
        if self.active == "inactive" and self.result == "success":
            return "waits for the next boot: nothing is left to do" if self.ending else "not started"
        return f"{self.active} ({self.sub})" + (f", {self.ending}" if self.has_failed and self.ending else "")


@dataclass(frozen=True)
class ServiceAnswer:
    """What a target tells about its services.

    Args:
        target: Its name.
        services: Those that were asked for.
        lingers: Whether services run there without a login.
        user: Login name there.
        changed: After an install, whether the unit file is another than before.
        removed: After a removal, the words of those that were there.
    """

    target: str
    services: tuple[ServiceState, ...]
    lingers: bool
    user: str
    changed: bool = False
    removed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass(frozen=True)
class ServiceLog:
    """The last lines of a service.

    Args:
        lines: The oldest first.
        persistent: Whether the target's journal outlives a boot.
    """

    lines: tuple[str, ...]
    persistent: bool


def require_board(target: str) -> None:
    """Services are for boards: this computer's own systemd is left alone.

    Raises:
        UsageError: the target is this computer.
    """
    if target == LOOPBACK:
        raise UsageError(
            f"A board is required for a service. Received: {LOOPBACK}, which is this computer.",
            "Name one with --target; liteship targets list shows them.",
        )


def install(connection: Connection, what: str) -> ServiceAnswer:
    """Install, start and verify a service; twice is as good as once.

    Raises:
        RemoteError: it does not stay up, lingering is refused, there is no systemd, or the release cannot do it.
    """
    answer = _run(connection, "install", what)
    return _answer(connection, [answer["service"]], answer, changed=answer["changed"])


def status(connection: Connection, what: str | None = None) -> ServiceAnswer:
    """How one or all services are.

    Raises:
        RemoteError: there is no systemd of that user.
    """
    answer = _run(connection, "status", *([what] if what else []))
    return _answer(connection, answer["services"], answer)


def remove(connection: Connection, what: str | None = None) -> ServiceAnswer:
    """Stop and remove one or all services, and leave lingering as it was.

    Raises:
        RemoteError: there is no systemd of that user, or something cannot be undone.
    """
    answer = _run(connection, "remove", *([what] if what else []))
    return _answer(connection, [], answer, removed=tuple(answer["removed"]))


def logs(connection: Connection, what: str, lines: int) -> ServiceLog:
    """The last lines that a service wrote.

    Raises:
        RemoteError: the journal cannot be read.
    """
    answer = _run(connection, "logs", what, str(lines))
    return ServiceLog(tuple(answer["lines"]), answer["persistent"])


def facts(connection: Connection) -> dict[str, Any]:
    """What decides whether a job outlives its login, see liteship_agent.service.logind.facts."""
    return _run(connection, "facts")


def _run(connection: Connection, verb: str, *words: str) -> dict[str, Any]:
    return connection.run(_PROGRAM, (verb, connection.target.folder, *words))


def _answer(
    connection: Connection, services: list[dict[str, Any]], answer: dict[str, Any], **more: Any
) -> ServiceAnswer:
    states = tuple(ServiceState(**state) for state in services)
    return ServiceAnswer(connection.target.name, states, answer["lingers"], answer["user"], **more)
