"""What the liteship folder holds: blobs, runtimes, releases, which one is current, and the order in which they were.

Names that are none of ours are passed over. `history.jsonl` has a line per activation; a line that a power cut left
half-written is passed over too.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any, Optional

from liteship_agent.store.events import Event, StoreError

SHA256 = re.compile(r"[0-9a-f]{64}")
RELEASE_ID = re.compile(r"[0-9a-f]{12}")
FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
DAMAGED = ".damaged"
"""Ending of the empty file beside a runtime folder that `verify` found damaged."""


def absolute(name: str) -> Path:
    """The liteship folder of a name, in which a leading ~ means the home folder here."""
    return Path(os.path.abspath(os.path.expanduser(name)))


def inventory(folder: Path) -> Event:
    """Blobs and partial {sha256: bytes}, sound runtimes, releases, and the current release or None; reads no blob."""
    return {
        "blobs": _sizes(folder / "blobs"),
        "partial": _sizes(folder / "blobs" / ".partial"),
        "runtimes": runtime_names(folder),
        "releases": release_ids(folder),
        "current": current_release(folder),
    }


def runtime_names(folder: Path) -> list[str]:
    """Names of the unpacked runtimes that are not known to be damaged."""
    names = {path.name for path in _entries(folder / "runtimes")}
    return sorted(
        name
        for name in names
        if FOLDER_NAME.fullmatch(name) and not name.endswith(DAMAGED) and name + DAMAGED not in names
    )


def release_ids(folder: Path) -> list[str]:
    """Ids of all releases."""
    return sorted(path.name for path in _entries(folder / "releases") if RELEASE_ID.fullmatch(path.name))


def current_release(folder: Path) -> Optional[str]:
    """Id of the release that `current` points to."""
    link = folder / "current"
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def release_content(folder: Path, release_id: str) -> Event:
    """The parsed release.json of a release, of which only `study`, `runtimes` and `files` are looked at.

    Raises:
        StoreError: it cannot be read.
    """
    path = folder / "releases" / release_id / "release.json"
    try:
        content = json.loads(path.read_bytes())
        return {
            "study": str(content.get("study", "")),
            "runtimes": [{"folder": str(one["folder"]), "sha256": str(one["sha256"])} for one in content["runtimes"]],
            "files": [{"path": str(one["path"]), "sha256": str(one["sha256"])} for one in content["files"]],
        }
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise StoreError("missing", f"{path} is required to be whole. Received: {exc!r}") from exc


def history(folder: Path) -> list[Event]:
    """The activations, oldest first: `time` (the host's clock), `release`, `action`."""
    try:
        lines = (folder / "history.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    events = [_parsed(line) for line in lines]
    return [event for event in events if isinstance(event, dict) and RELEASE_ID.fullmatch(str(event.get("release")))]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def previous_release(folder: Path) -> Optional[str]:
    """The release that was active before the current one and is still there."""
    order = [event["release"] for event in history(folder)]
    current = current_release(folder)
    if current in order:
        order = order[: len(order) - order[::-1].index(current)]
    there = release_ids(folder)
    return next((release for release in reversed(order) if release != current and release in there), None)


def lock_holder(folder: Path) -> Optional[str]:
    """What the job or camera that holds the target now calls itself, or None."""
    try:
        with open(folder / "lock", encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                words = file.read().split()
                return words[1] if len(words) == 2 else "that just begins"
    except FileNotFoundError:
        pass
    return None


def running_camera(folder: Path) -> Optional[Event]:
    """The camera that runs there by itself and has a page: its `pid`, `port` and `source`; None without one."""
    try:
        with open(folder / "camera.json", encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # its process lives
                told = _parsed(file.read())
                return told if isinstance(told, dict) and isinstance(told.get("port"), int) else None
    except FileNotFoundError:
        pass
    return None


def job_release(folder: Path, job_id: str) -> Optional[str]:
    """Id of the release that a job measures, or None where there is no such job."""
    if os.sep in job_id:
        return None
    try:
        job = json.loads((folder / "jobs" / job_id / "job.json").read_bytes())
        return str(job["release_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def unfinished_releases(folder: Path) -> set[str]:
    """Ids of the releases of jobs that a reboot or a crash cut: they go on with that release and no other."""
    found = set()
    for path in (folder / "jobs").glob("*/journal.jsonl"):
        if not path.with_name("report.json").exists() and not path.with_name("stop").exists():
            found.add(job_release(folder, path.parent.name))
    return {release for release in found if release is not None}


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(_entries(folder)) if SHA256.fullmatch(path.name)}


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []
