"""Find and read the manifest of a study that was made; no TensorFlow needed."""

from __future__ import annotations

from pathlib import Path

from liteship.errors import DataError
from liteship_agent.errors import RecordError
from liteship_agent.manifest import Manifest
from liteship_agent.records import read_record


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
