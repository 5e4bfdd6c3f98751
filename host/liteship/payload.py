"""What a release of a study consists of, before anybody has asked what the target has of it already.

Every file of a release is a blob, named by its sha256: artefacts, golden inputs and scores, manifest, validation set,
the agent, and the packed runtimes.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import BinaryIO

from liteship.errors import ConversionError, DataError, LiteshipError
from liteship.operators import missing_operators
from liteship.provision import PackedRuntime
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
_SOURCES = (".py", ".html", ".css", ".js")
_AGAIN = "Run the recipe again: it makes what is damaged or missing anew."


@dataclass(frozen=True)
class Blob:
    """Bytes that a release needs: a file of the host, or content made here.

    Args:
        sha256, size: Of the bytes.
        path: The file, None for content.
        content: The bytes where there is no file.
        is_text: JSON, which shrinks to a tenth on the way.
    """

    sha256: str
    size: int
    path: Path | None = None
    content: bytes = b""
    is_text: bool = False

    @classmethod
    def of_content(cls, content: bytes, *, is_text: bool = False) -> Blob:
        """A blob of bytes in memory."""
        return cls(hashlib.sha256(content).hexdigest(), len(content), None, content, is_text)

    def read(self, offset: int) -> Iterator[bytes]:
        """Its bytes from an offset, in pieces; the last one only if all of them have the sha256.

        Raises:
            ConversionError: a .tflite file is not what the manifest says any more.
            DataError: another file is not.
        """
        digest, position, held = hashlib.sha256(), 0, b""
        with self._open() as file:
            while piece := file.read(_PIECE_BYTES):
                digest.update(piece)
                position += len(piece)
                if position > offset:
                    yield held
                    held = piece[-min(len(piece), position - offset) :]
        if digest.hexdigest() != self.sha256:
            required = f"the file that the manifest names ({self.sha256[:12]}) is required"
            raise self._error(f"{required}. Received: another one ({digest.hexdigest()[:12]})")
        yield held

    def _open(self) -> BinaryIO:
        if self.path is None:
            return io.BytesIO(self.content)
        try:
            return open(self.path, "rb")
        except OSError as exc:
            raise self._error(f"a readable file is required. Received: {exc.strerror}") from exc

    def _error(self, reason: str) -> LiteshipError:
        kind = ConversionError if self.path is not None and self.path.suffix == ".tflite" else DataError
        return kind(f"{self.path}: {reason}.", _AGAIN)


@dataclass(frozen=True)
class Payload:
    """A release with everything that it names.

    Args:
        release: Content of its release.json.
        files: The blob of every path in it.
        packed: The runtimes in it.
        refused: By folder name of a runtime, and there by sha256, why it cannot load an artefact.
        artefacts: sha256 of those that at least one runtime loads, each once: two variants may come out as the same
            bytes. Only these are in it.
    """

    release: Release
    files: Mapping[str, Blob]
    packed: tuple[PackedRuntime, ...]
    refused: dict[str, dict[str, str]]
    artefacts: tuple[str, ...]


def make_payload(study: Path, manifest: Manifest, packed: Sequence[PackedRuntime]) -> Payload:
    """The release of a study for the runtimes that a target gets.

    Args:
        study: Folder of the study.
        manifest: Of the study.
        packed: The runtimes, each once.
    Raises:
        ConversionError: one of the runtimes can load none of the artefacts.
    """
    refused = {one.folder: refuse_artefacts(manifest, one.runtime.requirement) for one in packed}
    entries = [entry for entry in manifest.entries if any(entry.sha256 not in reasons for reasons in refused.values())]
    artefacts = tuple(dict.fromkeys(entry.sha256 for entry in entries))
    files = _files(study, manifest, entries)
    release = Release(
        schema_version=Release.SCHEMA_VERSION,
        study=manifest.study,
        # In an order of their own: a release is the same in whatever order its runtimes are named.
        runtimes=tuple(
            replace(one.reference(), refused=tuple(sha256 for sha256 in refused[one.folder] if sha256 in artefacts))
            for one in sorted(packed, key=lambda one: one.folder)
        ),
        files=tuple(ReleaseFile(path, blob.sha256) for path, blob in files.items()),
    )
    return Payload(release, files, tuple(packed), refused, artefacts)


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


def _files(study: Path, manifest: Manifest, entries: list[ManifestEntry]) -> dict[str, Blob]:
    """The blob of every path of the release."""
    files = {
        MANIFEST: Blob.of_content(dumps(manifest), is_text=True),
        AGENT: Blob.of_content(agent_archive()),
        VALIDATION: Blob(manifest.validation.sha256, manifest.validation.size_bytes, study / VALIDATION),
    }
    for entry in entries:
        path = artefact_path(entry.variant)
        files[path] = Blob(entry.sha256, entry.size_bytes, study / path)
        for sha256 in (entry.golden.sha256, entry.golden.pixels_sha256):
            golden = study / golden_path(sha256)
            size = golden.stat().st_size if golden.exists() else 0
            files[golden_path(sha256)] = Blob(sha256, size, golden)
    return files


def agent_archive() -> bytes:
    """The agent as one zip that Python runs, with bytes that depend on its source only."""
    buffer = io.BytesIO()
    sources = dict(sorted(_sources(resources.files("liteship_agent"), "liteship_agent/")))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_member("__main__.py"), sources["liteship_agent/__main__.py"])
        for name, content in sources.items():
            archive.writestr(_member(name), content)
    return buffer.getvalue()


def _sources(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Modules and files of the camera's page, in a folder and those below it, by their names in the archive."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from _sources(path, f"{prefix}{path.name}/")
        elif path.name.endswith(_SOURCES):
            yield f"{prefix}{path.name}", path.read_bytes()


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    return member
