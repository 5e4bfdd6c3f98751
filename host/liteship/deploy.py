"""Put a study on a target as one release: ask what is there, send what is missing, let the target verify and switch.

Two exec requests: the probe, and one stream with everything that is missing.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from liteship.errors import ConversionError, DataError
from liteship.flatbuffer import missing_operators
from liteship.progress import Reporter
from liteship.provision import Interpreter, choose_runtime, pack_runtime
from liteship.remote import Connection
from liteship_agent.manifest import Manifest, ManifestEntry
from liteship_agent.records import dumps
from liteship_agent.release import (
    AGENT,
    MANIFEST,
    VALIDATION,
    Release,
    ReleaseFile,
    artefact_path,
    golden_path,
)

_PIECE_BYTES = 1 << 20
_AGAIN = "Run the recipe again: it makes what is damaged or missing anew."


@dataclass(frozen=True)
class Blob:
    """Bytes that a release needs: a file of the host, or content made here."""

    sha256: str
    size: int
    path: Path | None = None
    content: bytes = b""

    @classmethod
    def of_content(cls, content: bytes) -> Blob:
        """A blob of bytes in memory."""
        return cls(hashlib.sha256(content).hexdigest(), len(content), None, content)

    def check(self) -> None:
        """Make sure that the file still is what the manifest says.

        Raises:
            ConversionError: a .tflite file that is not.
            DataError: another file that is not.
        """
        if self.path is None:
            return
        error = ConversionError if self.path.suffix == ".tflite" else DataError
        try:
            with open(self.path, "rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as exc:
            raise error(f"{self.path}: a readable file is required. Received: {exc.strerror}.", _AGAIN) from exc
        if actual != self.sha256:
            required = f"the file that the manifest names ({self.sha256[:12]}) is required"
            raise error(f"{self.path}: {required}. Received: another one ({actual[:12]}).", _AGAIN)

    def read(self, offset: int) -> Iterator[bytes]:
        """Its bytes from an offset, in pieces."""
        with open(self.path, "rb") if self.path else io.BytesIO(self.content) as file:
            file.seek(offset)
            while piece := file.read(_PIECE_BYTES):
                yield piece


@dataclass(frozen=True)
class Deployment:
    """What a deploy did.

    Args:
        target: Name of the target.
        release: Id of the release that is active now.
        activated: False where it was active already.
        bytes_sent, bytes_skipped: Of blobs; what the target had already is skipped.
        blobs_sent: How many.
        round_trips: Exec requests.
        runtimes: By folder name under runtimes/ on the target, for example "ai-edge-litert==2.3.0", as they were named.
        refused: By folder name, and there by sha256, why the runtime cannot load an artefact.
        artefacts: sha256 of those that at least one runtime loads, each once: two variants may come out as the same
            bytes. Only these were sent.
        folder: The liteship folder on the target, absolute.
        machine: Of the target's Python, for example "aarch64".
        smoke: What the smoke inference found, null where nothing was activated.
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

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


def deploy(
    connection: Connection, study: Path, manifest: Manifest, runtimes: Sequence[str], cache: Path, say: Reporter
) -> Deployment:
    """Make a study the active release of a target.

    Args:
        connection: To the target.
        study: Folder of the study.
        manifest: Of the study.
        runtimes: One or more of "auto", a name, name==version; each is sent, unless it is there.
        cache: For packed runtimes.
        say: Progress.

    Raises:
        LinkError: no runtime fits, the link was lost, or the target refused the release.
        ConversionError: one of the runtimes can load none of the artefacts.
    """
    probe = connection.store("probe")
    interpreter = Interpreter.of(probe)
    chosen = dict.fromkeys(choose_runtime(interpreter, name) for name in runtimes)  # two names may mean the same
    refused = {runtime: refuse_artefacts(manifest, runtime.requirement) for runtime in chosen}
    entries = [entry for entry in manifest.entries if any(entry.sha256 not in reasons for reasons in refused.values())]
    packed = []
    for runtime in chosen:
        with say.task(f"assemble {runtime.requirement} for {interpreter.tag} {interpreter.machine}", None):
            packed.append(pack_runtime(runtime, interpreter, cache))
    _announce(manifest, refused.values(), say)
    artefacts = dict.fromkeys(entry.sha256 for entry in entries)
    files = _release_files(study, manifest, entries)
    release = Release(
        schema_version=Release.SCHEMA_VERSION,
        study=manifest.study,
        # In an order of their own: a release is the same in whatever order its runtimes are named.
        runtimes=tuple(
            replace(one.reference(), refused=tuple(sha256 for sha256 in refused[one.runtime] if sha256 in artefacts))
            for one in sorted(packed, key=lambda one: one.folder)
        ),
        files=tuple(ReleaseFile(path, blob.sha256) for path, blob in files.items()),
    )
    blobs = {blob.sha256: blob for blob in files.values()}
    new_runtimes = [one for one in packed if one.folder not in probe["runtimes"]]
    blobs |= {one.sha256: Blob(one.sha256, one.path.stat().st_size, one.path) for one in new_runtimes}
    missing = [blob for blob in blobs.values() if blob.sha256 not in probe["blobs"]]
    for blob in missing:
        blob.check()
    sent, answer = _send(connection, release, missing, sum(one.unpacked_bytes for one in new_runtimes), probe, say)
    return Deployment(
        target=connection.target.name,
        release=answer["release"],
        activated=answer["activated"],
        bytes_sent=sent,
        bytes_skipped=sum(blob.size for blob in blobs.values()) - sent,
        blobs_sent=len(missing),
        round_trips=connection.round_trips,
        runtimes={one.folder: one.runtime.requirement for one in packed},
        refused={one.folder: refused[one.runtime] for one in packed},
        artefacts=tuple(artefacts),
        folder=probe["folder"],
        machine=interpreter.machine,
        smoke=answer["smoke"],
    )


def agent_command(connection: Connection, deployment: Deployment, *arguments: str, runtime: str | None = None) -> str:
    """Shell command for the active release's agent.

    Args:
        connection: To the target.
        deployment: What is active there.
        arguments: The verb and its options.
        runtime: Folder name of the runtime that the verb imports, None for verbs that import none.
    """
    folder = deployment.folder
    words = ["-I", "-S", "-B", f"{folder}/releases/{deployment.release}/{AGENT}"]
    words += [] if runtime is None else ["--runtime", f"{folder}/runtimes/{runtime}"]
    return " ".join([connection.python, *(shlex.quote(word) for word in (*words, *arguments))])


def _announce(manifest: Manifest, refused: Iterable[Mapping[str, str]], say: Reporter) -> None:
    """Say which variant is not measured in which runtime, and why."""
    for reasons in refused:
        for entry in manifest.entries:
            if entry.sha256 in reasons:
                say.say(f"{entry.variant}: {reasons[entry.sha256]}")


def refuse_artefacts(manifest: Manifest, runtime: str) -> dict[str, str]:
    """Reason by sha256 of every artefact that a runtime cannot load.

    Raises:
        ConversionError: it can load none.
    """
    refused = {}
    for entry in manifest.entries:
        missing = missing_operators(entry.operators, runtime)
        if missing:
            refused[entry.sha256] = (
                f"{runtime} lacks {', '.join(missing)}; take a newer runtime (RUNTIME=auto) or another quantization"
            )
    if all(entry.sha256 in refused for entry in manifest.entries):
        raise ConversionError(
            f"An artefact that {runtime} can load is required. Received: {next(iter(refused.values()))}.",
        )
    return refused


def _release_files(study: Path, manifest: Manifest, entries: list[ManifestEntry]) -> dict[str, Blob]:
    """The blob of every path of the release."""
    files = {
        MANIFEST: Blob.of_content(dumps(manifest)),
        AGENT: Blob.of_content(agent_archive()),
        VALIDATION: Blob(manifest.validation.sha256, manifest.validation.size_bytes, study / "validation.tar"),
    }
    for entry in entries:
        path = artefact_path(entry.variant)
        files[path] = Blob(entry.sha256, entry.size_bytes, study / path)
        golden = study / golden_path(entry.golden.sha256)
        size = golden.stat().st_size if golden.exists() else 0
        files[golden_path(entry.golden.sha256)] = Blob(entry.golden.sha256, size, golden)
    return files


def agent_archive() -> bytes:
    """The agent as one zip that Python runs, with bytes that depend on its source only."""
    buffer = io.BytesIO()
    package = resources.files("liteship_agent")
    modules = {path.name: path.read_bytes() for path in package.iterdir() if path.name.endswith(".py")}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_member("__main__.py"), modules["__main__.py"])
        for name in sorted(modules):
            archive.writestr(_member(f"liteship_agent/{name}"), modules[name])
    return buffer.getvalue()


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    return member


def _send(
    connection: Connection,
    release: Release,
    missing: list[Blob],
    unpacked_bytes: int,
    probe: dict[str, Any],
    say: Reporter,
) -> tuple[int, dict[str, Any]]:
    """One stream: header, then every missing blob from where an earlier, cut transfer ended."""
    offsets = {blob.sha256: min(probe["partial"].get(blob.sha256, 0), blob.size) for blob in missing}
    total = sum(blob.size - offsets[blob.sha256] for blob in missing)
    header = {
        "blobs": [{"sha256": blob.sha256, "size": blob.size, "offset": offsets[blob.sha256]} for blob in missing],
        "release_bytes": dumps(release).decode(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "unpacked_bytes": unpacked_bytes,
    }
    with say.task(f"send to {connection.target.name}", total, is_bytes=True) as advance:

        def stream() -> Iterator[bytes]:
            yield json.dumps(header).encode() + b"\n"
            for blob in missing:
                for piece in blob.read(offsets[blob.sha256]):
                    yield piece
                    advance(len(piece))

        answer = connection.store("deploy", stream(), idle_seconds=300)
    return total, answer
