"""Put a study on a target as one release: hear what is there, send what is missing, let the target verify and switch.

One exec request: the target tells what it has; the host makes the release that suits it, and sends everything that is
missing in one stream, or nothing where the release is active already.
"""

from __future__ import annotations

import contextlib
import json
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from liteship.errors import LinkError
from liteship.payload import Blob, Payload, make_payload
from liteship.programs import release_command
from liteship.progress import Reporter
from liteship.provision import Interpreter, choose_runtime, pack_runtime
from liteship.remote import Connection
from liteship_agent.manifest import Manifest
from liteship_agent.records import dumps
from liteship_agent.store.events import INVENTORY

KEEP_RELEASES = 3
_BULK_BYTES = 8 << 20
_IDLE_SECONDS = 300.0  # a slow card takes so long to flush; the target says that it lives every ten seconds
_WAIT_SECONDS = 0.02
_STAGES = {"runtime": "unpacking the runtime", "flush": "flushing to the disk", "smoke": "smoke inference"}


@dataclass(frozen=True)
class Deployment:
    """What a deploy did.

    Args:
        target: Name of the target.
        release: Id of the release that is active now.
        activated: False where it was active already.
        bytes_sent: Of the stream: blobs and, packed, what names them.
        bytes_skipped: Of blobs that the target had already, wholly or in part.
        blobs_sent: How many.
        round_trips: Exec requests.
        runtimes: By folder name under runtimes/ on the target, for example "ai-edge-litert==2.3.0", as they were named.
        refused: By folder name, and there by sha256, why the runtime cannot load an artefact.
        artefacts: sha256 of those that at least one runtime loads, each once: two variants may come out as the same
            bytes. Only these were sent.
        folder: The liteship folder on the target, absolute.
        machine: Of the target's Python, for example "aarch64".
        smoke: What the smoke inference found, null where nothing was sent.
        collected: What was removed, see `liteship_agent.store.collection.plan_collection`; null where nothing was sent.
    """

    target: str
    release: str
    activated: bool
    bytes_sent: int
    bytes_skipped: int
    blobs_sent: int
    round_trips: int
    runtimes: dict[str, str]
    refused: dict[str, dict[str, str]]
    artefacts: tuple[str, ...]
    folder: str
    machine: str
    smoke: dict[str, Any] | None
    collected: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass(frozen=True)
class Coming:
    """What one deploy would do, now that the target has told what it has.

    Args:
        payload: The release.
        probe: The target's answer.
        missing: Blobs that travel, each from the length that an earlier, cut transfer reached.
        unpack: Runtimes by folder name that are unpacked, with their unpacked bytes.
    """

    payload: Payload
    probe: Mapping[str, Any]
    missing: tuple[Blob, ...]
    unpack: dict[str, int]

    @property
    def release_id(self) -> str:
        """Of the release."""
        return self.payload.release.release_id()

    @property
    def is_active(self) -> bool:
        """Whether nothing is left to do."""
        return self.probe["current"] == self.release_id and not self.missing

    def offset(self, blob: Blob) -> int:
        """Bytes of a missing blob that the target has."""
        return 0 if blob.is_text else min(int(self.probe["partial"].get(blob.sha256, 0)), blob.size)

    @property
    def blob_bytes(self) -> int:
        """Of all blobs that the release needs from here, sent or not."""
        blobs = {blob.sha256: blob.size for blob in (*self.payload.files.values(), *self.missing)}
        return sum(blobs.values())

    @property
    def bulk(self) -> list[Blob]:
        """The missing blobs that travel as they are, in the order of the stream; texts travel in the header."""
        return [blob for blob in self.missing if not blob.is_text]

    @property
    def bulk_bytes(self) -> int:
        """What is left of them to be sent."""
        return sum(blob.size - self.offset(blob) for blob in self.bulk)

    def header(self, keep: int) -> bytes:
        """The packed header, see `liteship_agent.store.transfer.read_header`."""
        fields = {
            "blobs": [{"sha256": blob.sha256, "size": blob.size, "offset": self.offset(blob)} for blob in self.bulk],
            "texts": {blob.sha256: blob.content.decode() for blob in self.missing if blob.is_text},
            "release_bytes": dumps(self.payload.release).decode(),
            "time": now(),
            "unpacked_bytes": sum(self.unpack.values()),
            "keep": keep,
        }
        packed = zlib.compress(json.dumps(fields).encode(), 9)
        return f"{len(packed)}\n".encode() + packed


def now() -> str:
    """The host's clock for the history of a target, which may have none."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def prepare(
    probe: Mapping[str, Any], study: Path, manifest: Manifest, runtimes: Sequence[str], cache: Path, say: Reporter
) -> Coming:
    """Make the release that suits a target.

    Args:
        probe: What the target has told, see `liteship_agent.store.probe`.
        study: Folder of the study.
        manifest: Of the study.
        runtimes: One or more of "auto", a name, name==version.
        cache: For packed runtimes.
        say: Progress.

    Raises:
        LinkError: no runtime fits.
        ConversionError: one of the runtimes can load none of the artefacts.
    """
    interpreter = Interpreter.of(probe)
    packed = []
    for runtime in dict.fromkeys(choose_runtime(interpreter, name) for name in runtimes):  # two may mean the same
        with say.task(f"assemble {runtime.requirement} for {interpreter.tag} {interpreter.machine}", None):
            packed.append(pack_runtime(runtime, interpreter, cache))
    payload = make_payload(study, manifest, packed)
    _announce(manifest, payload.refused.values(), say)
    new = [one for one in packed if one.folder not in probe["runtimes"]]
    blobs = {blob.sha256: blob for blob in payload.files.values()}
    blobs |= {one.sha256: Blob(one.sha256, one.path.stat().st_size, one.path) for one in new}
    missing = tuple(blob for blob in blobs.values() if blob.sha256 not in probe["blobs"])
    return Coming(payload, probe, missing, {one.folder: one.unpacked_bytes for one in new})


def deploy(
    connection: Connection,
    study: Path,
    manifest: Manifest,
    runtimes: Sequence[str],
    cache: Path,
    say: Reporter,
    keep: int = KEEP_RELEASES,
) -> Deployment:
    """Make a study the active release of a target; see `prepare`.

    Args:
        connection: To the target.
        study: Folder of the study.
        manifest: Of the study.
        runtimes: One or more names; each runtime is sent, unless it is there.
        cache: For packed runtimes.
        say: Progress.
        keep: Releases that stay on the target, this one among them, from 1.

    Raises:
        LinkError: no runtime fits, the link was lost, or the target refused the release.
        ConversionError: one of the runtimes can load none of the artefacts, or an artefact is damaged.
    """
    with contextlib.ExitStack() as bars:
        sending = _Sending(
            connection, lambda probe: prepare(probe, study, manifest, runtimes, cache, say), keep, say, bars
        )
        answer = connection.store("deploy", sending.stream(), on_event=sending.hear, idle_seconds=_IDLE_SECONDS)
    coming = sending.coming
    if coming is None:
        raise LinkError(f"{connection.target.name}: an inventory is required. Received: none")
    return Deployment(
        target=connection.target.name,
        release=coming.release_id,
        activated=answer.get("activated", False),
        bytes_sent=sending.bytes_sent,
        bytes_skipped=coming.blob_bytes - sum(blob.size - coming.offset(blob) for blob in coming.missing),
        blobs_sent=len(coming.missing),
        round_trips=connection.round_trips,
        runtimes={one.folder: one.runtime.requirement for one in coming.payload.packed},
        refused=coming.payload.refused,
        artefacts=coming.payload.artefacts,
        folder=coming.probe["folder"],
        machine=coming.probe["machine"],
        smoke=answer.get("smoke"),
        collected=answer.get("collected"),
    )


class _Sending:
    """Answers a target's inventory with what it lacks: `hear` in the thread that waits, `stream` in the one that feeds.

    Args:
        connection: To the target.
        make: The release that suits an inventory.
        keep: Releases that stay there.
        say: Progress.
        bars: Where the bar lives until the deploy is over.

    Attributes:
        coming: The release, None before the inventory came.
        bytes_sent: Of the stream.
    """

    def __init__(
        self,
        connection: Connection,
        make: Callable[[Mapping[str, Any]], Coming],
        keep: int,
        say: Reporter,
        bars: contextlib.ExitStack,
    ) -> None:
        self.coming: Coming | None = None
        self.bytes_sent = 0
        self._connection, self._make, self._keep, self._say, self._bars = connection, make, keep, say, bars
        self._advance: Callable[[float], None] = lambda amount: None
        self._is_made = threading.Event()

    def hear(self, event: Mapping[str, Any]) -> None:
        """Take the inventory; later, show what the target does."""
        name = self._connection.target.name
        if event["event"] != INVENTORY:
            stage_shown(name, self._say)(event)
            return
        self.coming = coming = self._make(event)
        if not coming.is_active:
            if coming.bulk_bytes > _BULK_BYTES:
                self._connection.prefer_cipher_for(coming.probe["cpu_flags"])
            self._advance = self._bars.enter_context(
                self._say.task(f"send to {name}", coming.bulk_bytes, is_bytes=True)
            )
        self._is_made.set()

    def stream(self) -> Iterator[bytes]:
        """Header, then every missing blob from where an earlier, cut transfer ended; nothing for an active release."""
        while not self._is_made.wait(_WAIT_SECONDS):
            yield b""
        coming = self.coming
        if coming is None or coming.is_active:
            return
        header = coming.header(self._keep)
        yield header
        self.bytes_sent += len(header)
        for blob in coming.bulk:
            for piece in blob.read(coming.offset(blob)):
                yield piece
                self.bytes_sent += len(piece)
                self._advance(len(piece))


@dataclass(frozen=True)
class Travel:
    """A blob that would be sent.

    Args:
        path: In the release, or the runtime's folder.
        sha256, size: Of the blob.
        offset: Bytes of it that the target has from a cut transfer.
    """

    path: str
    sha256: str
    size: int
    offset: int


@dataclass(frozen=True)
class Plan:
    """What a deploy would do.

    Args:
        target: Name of the target.
        travel: What would be sent.
        bytes_to_send: Of all of it; texts travel packed.
        unpack: Runtimes by folder name, with their unpacked bytes.
        release, current: Id of the release, and of the one that is active, null for none.
        collected: What would be removed, see `liteship_agent.store.collection.plan_collection`.
        free_bytes: On the target's disk now.
    """

    target: str
    travel: tuple[Travel, ...]
    bytes_to_send: int
    unpack: dict[str, int]
    release: str
    current: str | None
    collected: dict[str, Any]
    free_bytes: int

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def plan_deploy(
    connection: Connection,
    study: Path,
    manifest: Manifest,
    runtimes: Sequence[str],
    cache: Path,
    say: Reporter,
    keep: int = KEEP_RELEASES,
) -> Plan:
    """What `deploy` would do; nothing is changed.

    Args:
        connection: To the target.
        study: Folder of the study.
        manifest: Of the study.
        runtimes: One or more names.
        cache: For packed runtimes.
        say: Progress.
        keep: Releases that would stay.
    """
    coming = prepare(connection.probe(), study, manifest, runtimes, cache, say)
    names = {blob.sha256: path for path, blob in coming.payload.files.items()}
    names |= {one.sha256: f"runtimes/{one.folder}" for one in coming.payload.packed}
    header = coming.header(keep)
    return Plan(
        target=connection.target.name,
        travel=tuple(
            Travel(names[blob.sha256], blob.sha256, blob.size, coming.offset(blob)) for blob in coming.missing
        ),
        bytes_to_send=0 if coming.is_active else len(header) + coming.bulk_bytes,
        unpack=coming.unpack,
        release=coming.release_id,
        current=coming.probe["current"],
        collected=connection.store("plan", [header])["collect"],
        free_bytes=coming.probe["free_bytes"],
    )


def agent_command(connection: Connection, deployment: Deployment, *arguments: str, runtime: str | None = None) -> str:
    """Shell command for the agent of a deployment; see `liteship.programs.release_command`."""
    return release_command(connection.python, deployment.folder, deployment.release, *arguments, runtime=runtime)


def _announce(manifest: Manifest, refused: Iterable[Mapping[str, str]], say: Reporter) -> None:
    """Say which variant is not measured in which runtime, and why."""
    for reasons in refused:
        for entry in manifest.entries:
            if entry.sha256 in reasons:
                say.say(f"{entry.variant}: {reasons[entry.sha256]}")


def stage_shown(name: str, say: Reporter) -> Callable[[Mapping[str, Any]], None]:
    """Shows on the bar what the target does after it has received everything."""

    def show(event: Mapping[str, Any]) -> None:
        stage = event.get("stage")
        if stage in _STAGES:
            say.describe(f"{name}: {_STAGES[stage]}")

    return show
