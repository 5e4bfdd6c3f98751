"""Find, read and keep manifests of studies; no TensorFlow needed.

A study that is made anew has another manifest. That of every measurement is kept beside the reports, named by its
sha256, so that they can be read for ever.
"""

from __future__ import annotations

from pathlib import Path

from liteship.errors import DataError
from liteship_agent.errors import RecordError
from liteship_agent.manifest import Manifest
from liteship_agent.records import read_record, write_record


def study_folder(models: Path, name: str | None) -> Path:
    """Folder of a study that has a manifest; the latest without a name.

    Raises:
        DataError: there is none of that name.
    """
    folder = models / (name or "latest")
    if (folder / "manifest.json").is_file():
        return folder.resolve()
    known = sorted(path.parent.name for path in models.glob("*/manifest.json") if not path.parent.is_symlink())
    raise DataError(
        f"A study under {models}/ is required. Received: {name or 'none'}.",
        f"There are: {', '.join(known)}." if known else "Make one: liteship run benchmarks/demo.toml",
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a study.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return read_record(Manifest, folder / "manifest.json")
    except RecordError as exc:
        raise DataError(str(exc), "Run the recipe again.") from exc


def keep_manifest(folder: Path, manifest: Manifest) -> None:
    """Keep a manifest for the reports that are made from it.

    Args:
        folder: Of the study.
        manifest: That is measured.
    """
    path = _kept(folder, manifest.sha256())
    if not path.exists():
        write_record(manifest, path)


def read_manifest_of(folder: Path, sha256: str) -> Manifest:
    """The manifest that a report was made from.

    Args:
        folder: Of the study.
        sha256: As the report says.

    Raises:
        DataError: it is neither the study's own nor kept, or cannot be read.
    """
    kept = _kept(folder, sha256)
    try:
        manifest = read_record(Manifest, kept if kept.exists() else folder / "manifest.json")
    except RecordError as exc:
        raise DataError(str(exc), "Measure again.") from exc
    if manifest.sha256() != sha256:
        raise DataError(
            f"{folder.name}: the manifest {sha256[:12]}, which the report was made from, is required. "
            f"Received: {manifest.sha256()[:12]}.",
            "The study was made anew since, or a file was changed: measure again.",
        )
    return manifest


def _kept(folder: Path, sha256: str) -> Path:
    return folder / "manifests" / f"{sha256}.json"
