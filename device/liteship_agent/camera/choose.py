"""Which model of a release a camera runs, and in which of its runtimes; decided before any runtime is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from liteship_agent.errors import StoreError
from liteship_agent.release import InstalledRelease, ReleaseRuntime, artefact_path
from liteship_agent.store.inventory import current_release


@dataclass(frozen=True)
class Choice:
    """What to load.

    Args:
        release_id: Of the release.
        runtime: Folder name of the runtime.
        variants: The first of them that loads is taken.
    """

    release_id: str
    runtime: str
    variants: Tuple[str, ...]


def current(folder: Path) -> InstalledRelease:
    """The release that `current` points to now: a deploy later on does not change the answer.

    Raises:
        StoreError: nothing is deployed.
    """
    release_id = current_release(folder)
    if release_id is None:
        raise StoreError(f"{folder}: an active release is required. Received: none; run `liteship deploy` first")
    return InstalledRelease(folder, release_id)


def choose(
    release: InstalledRelease, variant: Optional[str], runtime: Optional[str], preferred: Optional[str] = None
) -> Choice:
    """Choose from a release.

    Args:
        release: It is installed.
        variant: The only one that will do; null for the baseline, or the first that loads.
        runtime: Folder name of a runtime, or its beginning; null for any.
        preferred: The variant to try first where none is asked for.
    Raises:
        StoreError: the release has no such variant or runtime, or none that fits the other.
        RecordError: the release is damaged.
    """
    record, manifest = release.record(), release.manifest()
    sent = {file.path for file in record.files}
    entries = {entry.variant: entry.sha256 for entry in manifest.entries if artefact_path(entry.variant) in sent}
    if variant is not None and variant not in entries:
        raise StoreError(
            f"a variant of release {release.release_id} ({', '.join(entries)}) is required. Received: {variant}"
        )
    order = [variant] if variant is not None else sorted(entries, key=lambda name: name != preferred)
    runtimes = [one for one in record.runtimes if runtime is None or _is_meant(one, runtime)]
    if not runtimes:
        names = ", ".join(one.folder for one in record.runtimes)
        raise StoreError(f"a runtime of release {release.release_id} ({names}) is required. Received: {runtime}")
    for name in order:
        for one in runtimes:
            if entries[name] not in one.refused:
                others = [other for other in order if other != name and entries[other] not in one.refused]
                return Choice(release.release_id, one.folder, (name, *others))
    raise StoreError(
        f"a variant that {runtimes[0].folder} can load is required. Received: {', '.join(order) or 'none'}; "
        "deploy with a newer runtime, or choose another variant"
    )


def _is_meant(runtime: ReleaseRuntime, word: str) -> bool:
    return runtime.folder == word or runtime.folder.startswith(f"{word}-")
