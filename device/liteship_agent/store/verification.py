"""Does everything on the disk still have the sha256 that its release names? The only verb that reads it all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Callable, Iterator, Optional

from liteship_agent.store.events import MIB, Emit, Event
from liteship_agent.store.inventory import DAMAGED, release_content, release_ids, runtime_names

LISTING = "SHA256SUMS"
"""In a runtime folder: lines of a sha256, two spaces and a path."""


def verify(folder: Path, report: Emit, release_id: Optional[str] = None) -> Event:
    """Read every file of the releases and runtimes, and let the next deploy send again what is damaged.

    A damaged file keeps its name in its release, but is no longer among the blobs and runtimes that the target has.

    Args:
        folder: The liteship folder.
        report: Takes progress events.
        release_id: Only this release and its runtimes; None means all.
    Returns:
        `releases` and `runtimes` by name, `files` and `bytes` that were read, and `damaged`: `path`, `required`,
        `received` of each.
    """
    releases = release_ids(folder) if release_id is None else [release_id]
    contents = {release: release_content(folder, release) for release in releases}
    named = {one["folder"] for content in contents.values() for one in content["runtimes"]}
    runtimes = (
        runtime_names(folder) if release_id is None else [name for name in runtime_names(folder) if name in named]
    )
    reader = _Reader(folder, report)
    damaged: list[Event] = []
    for release, content in contents.items():
        reader.stage = f"release {release}"
        path = folder / "releases" / release / "release.json"
        damaged += reader.check(path, release, lambda digest: digest[:12])
        for file in content["files"]:
            found = list(reader.check(folder / "releases" / release / file["path"], file["sha256"]))
            if found:
                (folder / "blobs" / file["sha256"]).unlink(missing_ok=True)
            damaged += found
    for name in runtimes:
        reader.stage = f"runtime {name}"
        found = [one for path, sha256 in _listed(folder / "runtimes" / name) for one in reader.check(path, sha256)]
        if found:
            (folder / "runtimes" / (name + DAMAGED)).touch()
        damaged += found
    return {
        "releases": releases,
        "runtimes": runtimes,
        "files": len(reader.known),
        "bytes": reader.bytes_read,
        "damaged": damaged,
    }


def _listed(runtime: Path) -> Iterator[tuple[Path, str]]:
    """The files of a runtime with their sha256; the listing itself has none, but every file must stand in it."""
    try:
        lines = (runtime / LISTING).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    listing = {path: sha256 for sha256, _, path in (line.partition("  ") for line in lines)}
    if not listing:
        yield runtime / LISTING, "a listing of the runtime's files"
    for path, sha256 in listing.items():
        yield runtime / path, sha256


class _Reader:
    """Reads each file once, however many names it has.

    Attributes:
        known: Digest of each file by device and inode.
        bytes_read: So far.
        stage: What is read now, for progress.
    """

    def __init__(self, folder: Path, report: Emit) -> None:
        self.known: dict[tuple[int, int], str] = {}
        self.bytes_read = 0
        self.stage = ""
        self._folder, self._report, self._reported = folder, report, 0

    def check(self, path: Path, required: str, shorten: Callable[[str], str] = str) -> Iterator[Event]:
        """One event where the file has not the required digest."""
        try:
            received = shorten(self._digest(path))
        except OSError as exc:
            received = exc.strerror or str(exc)
        if received != required:
            yield {"path": str(path.relative_to(self._folder)), "required": required, "received": received}

    def _digest(self, path: Path) -> str:
        with open(path, "rb") as file:
            status = path.stat()
            key = (status.st_dev, status.st_ino)
            if key not in self.known:
                digest = hashlib.sha256()
                for piece in iter(lambda: file.read(MIB), b""):
                    digest.update(piece)
                    self._count(len(piece))
                self.known[key] = digest.hexdigest()
        return self.known[key]

    def _count(self, size: int) -> None:
        self.bytes_read += size
        if self.bytes_read - self._reported >= MIB:
            self._reported = self.bytes_read
            self._report({"event": "progress", "stage": self.stage, "received": self.bytes_read})
