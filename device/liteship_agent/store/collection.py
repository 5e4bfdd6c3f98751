"""What no release needs any more: which releases stay, and removing the rest with its blobs, runtimes and caches."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Iterator, Optional

from liteship_agent.store.disk import sync_folder, tree_bytes
from liteship_agent.store.events import Event, StoreError
from liteship_agent.store.inventory import (
    RELEASE_ID,
    SHA256,
    current_release,
    history,
    job_release,
    lock_holder,
    previous_release,
    release_content,
    release_ids,
    unfinished_releases,
)

VALIDATION = "validation.tar"
_CAMERA = "camera-"  # begins the name of a camera that holds the target, as liteship_agent.lock writes it


def plan_collection(folder: Path, keep: int, coming: Optional[str] = None, content: Optional[Event] = None) -> Event:
    """What a collection would remove.

    The current release, the one before it, one that a running job or camera uses or that a job needs which was cut by
    a reboot, and the latest `keep` by the history stay; so does everything that they name.

    Args:
        folder: The liteship folder.
        keep: Releases that stay, the current one among them.
        coming: Id of a release that becomes current before.
        content: Its parsed release.json.
    Returns:
        `releases`, `blobs`, `runtimes` and `caches` by name, and `bytes` that become free.
    """
    stay = _staying(folder, keep, coming)
    contents = _readable(folder, stay)
    gone = [release for release in release_ids(folder) if release not in contents]
    needed = [*contents.values(), *([content] if content is not None else [])]
    blobs = {file["sha256"] for one in needed for file in one["files"]}
    runtimes = {runtime["folder"] for one in needed for runtime in one["runtimes"]}
    validations = {f["sha256"][:16] for one in needed for f in one["files"] if f["path"] == VALIDATION}
    caches = [path for path in _below(folder / "cache") if path.name.split("-")[0] not in validations]
    old_blobs = [path for path in _below(folder / "blobs") if SHA256.fullmatch(path.name) and path.name not in blobs]
    old_runtimes = [path for path in _below(folder / "runtimes") if path.is_dir() and path.name not in runtimes]
    trees = [*caches, *old_runtimes]
    return {
        "releases": gone,
        "blobs": [path.name for path in old_blobs],
        "runtimes": [path.name for path in old_runtimes],
        "caches": [path.name for path in caches],
        "bytes": sum(path.stat().st_size for path in old_blobs) + sum(tree_bytes(path) for path in trees),
    }


def _staying(folder: Path, keep: int, coming: Optional[str]) -> set[str]:
    current = current_release(folder)
    before = previous_release(folder) if coming in (None, current) else current
    stay = {coming, current, before, *_in_use(folder), *unfinished_releases(folder)}
    for event in reversed(history(folder)):
        if len(stay - {None}) >= keep:
            break
        stay.add(event["release"])
    return {release for release in stay if release is not None}


def _readable(folder: Path, releases: set[str]) -> dict[str, Event]:
    """Content of each release; one whose release.json cannot be read is of no use to anybody and does not stay."""
    found = {}
    for release in release_ids(folder):
        with contextlib.suppress(StoreError):
            if release in releases:
                found[release] = release_content(folder, release)
    return found


def _in_use(folder: Path) -> set[Optional[str]]:
    """The releases of the job or camera that holds the target now; a camera has several while it changes."""
    holder = lock_holder(folder)
    if holder is None:
        return set()
    if holder.startswith(_CAMERA):
        return {release for release in holder[len(_CAMERA) :].split("+") if RELEASE_ID.fullmatch(release)}
    return {job_release(folder, holder)}


def _below(folder: Path) -> Iterator[Path]:
    """Visible names in a folder, in order."""
    return (path for path in sorted(folder.iterdir() if folder.is_dir() else ()) if not path.name.startswith("."))


def collect(folder: Path, keep: int) -> Event:
    """Remove what `plan_collection` tells, and tell it.

    A release loses its name before its files go, and the blobs go last: a power cut leaves no release without one.
    """
    plan = plan_collection(folder, keep)
    for kind in ("releases", "runtimes"):
        for name in plan[kind]:
            os.rename(folder / kind / name, folder / kind / f".tmp-{name}")
        if plan[kind]:
            sync_folder(folder / kind)
    for kind, names in (("releases", plan["releases"]), ("runtimes", plan["runtimes"])):
        for name in names:
            shutil.rmtree(folder / kind / f".tmp-{name}")
    for name in plan["caches"]:
        shutil.rmtree(folder / "cache" / name)
    for name in plan["blobs"]:
        (folder / "blobs" / name).unlink()
    return plan


def remove_release(folder: Path, release_id: str) -> None:
    """Remove a release that is not current; it loses its name before its files go."""
    temporary = folder / "releases" / f".tmp-{release_id}"
    os.rename(folder / "releases" / release_id, temporary)
    sync_folder(temporary.parent)
    shutil.rmtree(temporary)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary names that a failure or a power cut left behind."""
    for path in (*folder.glob("runtimes/.tmp-*"), *folder.glob("releases/.tmp-*")):
        shutil.rmtree(path)
    for path in folder.glob("releases/*/**/.tmp-*"):
        path.unlink()
    (folder / "current.tmp").unlink(missing_ok=True)


def remove_partials(folder: Path, expected: set[str]) -> None:
    """Remove the partial blobs that nobody waits for.

    Args:
        folder: The liteship folder.
        expected: sha256 of the blobs that are going on now.
    """
    for path in folder.glob("blobs/.partial/*"):
        if path.name not in expected:
            path.unlink()
