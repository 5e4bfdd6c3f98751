"""A release: what one deploy put on the target, as its release.json says it.

The id is the first 12 hex digits of the sha256 of release.json, which names every file by its sha256: equal id, equal
bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Dict, Tuple

from liteship_agent.errors import RecordError
from liteship_agent.manifest import Manifest, ManifestEntry
from liteship_agent.records import dumps, read_record

MANIFEST, AGENT, VALIDATION = "manifest.json", "liteship_agent.zip", "validation.tar"


def artefact_path(variant: str) -> str:
    """Path of an artefact inside a release."""
    return f"artefacts/{variant}.tflite"


def golden_path(sha256: str) -> str:
    """Path of a golden file inside a release."""
    return f"golden/{sha256}.npz"


@dataclass(frozen=True)
class ReleaseFile:
    """One file of a release; its bytes are the blob of that sha256."""

    path: str
    sha256: str


@dataclass(frozen=True)
class ReleaseRuntime:
    """One runtime of a release.

    Args:
        folder: Its site folder under runtimes/.
        sha256: Of the packed blob that the folder is unpacked from.
        refused: sha256 of the release's artefacts that it cannot load; another runtime of the release can.
    """

    folder: str
    sha256: str
    refused: Tuple[str, ...] = ()


@dataclass(frozen=True)
class Release:
    """Content of release.json."""

    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int
    study: str
    runtimes: Tuple[ReleaseRuntime, ...]
    files: Tuple[ReleaseFile, ...]
    extra: Dict[str, Any] = field(default_factory=dict)

    def release_id(self) -> str:
        """First 12 hex digits of the sha256 of release.json."""
        return hashlib.sha256(dumps(self)).hexdigest()[:12]


@dataclass(frozen=True)
class InstalledRelease:
    """A release in its folder on the target.

    Args:
        folder: The liteship folder.
        release_id: Folder name under releases/.
    """

    folder: Path
    release_id: str

    @property
    def path(self) -> Path:
        """Folder of the release."""
        return self.folder / "releases" / self.release_id

    def record(self) -> Release:
        """Its release.json."""
        return read_record(Release, self.path / "release.json")

    def manifest(self) -> Manifest:
        """Its manifest."""
        return read_record(Manifest, self.path / MANIFEST)

    def manifest_entry(self, sha256: str) -> Tuple[Manifest, ManifestEntry]:
        """Its manifest and one entry of it.

        Raises:
            RecordError: the manifest has no artefact of that sha256.
        """
        manifest = self.manifest()
        entry = manifest.entry(sha256)
        if entry is None:
            raise RecordError(str(self.path / MANIFEST), "entries", "an artefact of the manifest", sha256)
        return manifest, entry

    def runtime_record(self, name: str) -> ReleaseRuntime:
        """What release.json says of one of its runtimes.

        Raises:
            RecordError: the release has no runtime of that name.
        """
        runtimes = {runtime.folder: runtime for runtime in self.record().runtimes}
        if name not in runtimes:
            raise RecordError(str(self.path / "release.json"), "runtimes", f"runtime {name}", ", ".join(runtimes))
        return runtimes[name]

    def runtime(self, name: str) -> Path:
        """Site folder of one of its runtimes.

        Raises:
            RecordError: the release has no runtime of that name.
        """
        return self.folder / "runtimes" / self.runtime_record(name).folder

    def artefact(self, entry: ManifestEntry) -> bytes:
        """The bytes of one artefact.

        Raises:
            RecordError: the bytes on the disk are not those of the manifest.
        """
        path = self.path / artefact_path(entry.variant)
        try:
            content = path.read_bytes()
        except OSError as exc:
            raise RecordError(str(path), "", "a readable artefact", exc.strerror or str(exc)) from exc
        actual = hashlib.sha256(content).hexdigest()
        if actual != entry.sha256:
            raise RecordError(str(path), "", f"content with sha256 {entry.sha256}", actual)
        return content
