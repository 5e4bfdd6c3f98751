"""Releases: linked together from blobs under a temporary name, smoke-tested, switched to with one rename."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator

from liteship_agent.store.disk import sync_folder
from liteship_agent.store.events import EVENT_MARK, Event, StoreError
from liteship_agent.store.inventory import release_content, release_ids

AGENT = "liteship_agent.zip"
SMOKE_SECONDS = 300.0

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK)

FindBlob = Callable[[str], Path]
"""The file that holds the bytes of a sha256, which need not exist."""


def prepare_release(folder: Path, release_id: str, data: bytes, files: list[Event], find: FindBlob) -> bool:
    """Make a release from release.json and hard links to blobs under a temporary name.

    One that is there already is kept; a file of it that is not the blob (any more) is put right.

    Args:
        folder: The liteship folder.
        release_id: Of the release.
        data: Its release.json.
        files: `path` and `sha256` of each of its files.
        find: Where their bytes are.
    Returns:
        Whether it is new and waits for its name.
    Raises:
        StoreError: a blob is missing, or the file system has no hard links.
    """
    final, temporary = folder / "releases" / release_id, folder / "releases" / f".tmp-{release_id}"
    for item in files:
        if not find(item["sha256"]).is_file():
            raise StoreError("missing", f"blob {item['sha256']} ({item['path']}) is required. Received: nothing")
    if final.is_dir():
        _rewrite(final / "release.json", data)
        for item in files:
            _put_right(final / item["path"], find(item["sha256"]))
        return False
    temporary.mkdir(parents=True)
    (temporary / "release.json").write_bytes(data)
    for item in files:
        path = temporary / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        _link(find(item["sha256"]), path)
    return True


def mend_releases(folder: Path, arrived: set[str], find: FindBlob) -> None:
    """Let every release that has a blob which came again, because it was damaged, have the new one.

    Args:
        folder: The liteship folder.
        arrived: sha256 of the blobs that came.
        find: Where their bytes are.
    """
    for release_id in release_ids(folder):
        with contextlib.suppress(StoreError):  # one that cannot be read is of no use to anybody
            for item in release_content(folder, release_id)["files"]:
                if item["sha256"] in arrived:
                    _put_right(folder / "releases" / release_id / item["path"], find(item["sha256"]))


def _rewrite(path: Path, data: bytes) -> None:
    """Let a file hold this content, in one step where it holds another."""
    if path.is_file() and path.read_bytes() == data:
        return
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _put_right(path: Path, blob: Path) -> None:
    """Let a name in a release mean the blob, in one step where it means something else."""
    if path.is_file() and os.path.samefile(path, blob):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.unlink(missing_ok=True)
    _link(blob, temporary)
    os.replace(temporary, path)


def _link(blob: Path, path: Path) -> None:
    try:
        os.link(blob, path)
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        raise StoreError(
            "links",
            f"A file system with hard links is required at {path.parent}. Received: {exc.strerror}",
            "Set `folder` of the target to a disk with a Linux file system.",
        ) from exc


def run_smoke(folder: Path, release_id: str) -> Event:
    """Run a release's smoke inference in a process of its own and return what it found.

    Raises:
        StoreError: it failed, ended without an answer or took too long.
    """
    agent = folder / "releases" / release_id / AGENT
    command = [sys.executable, "-I", "-S", "-B", str(agent), "smoke", "--folder", str(folder), "--release", release_id]
    try:
        with _process_group(command) as process:
            output, errors = process.communicate(timeout=SMOKE_SECONDS)
    except subprocess.TimeoutExpired as exc:
        raise StoreError("smoke", f"A smoke inference within {SMOKE_SECONDS:.0f} s is required.") from exc
    answer = _last_event(output)
    if answer.get("event") == "error":
        raise StoreError("smoke", str(answer.get("message")), str(answer.get("hint", "")))
    if process.returncode != 0 or answer.pop("event", None) != "done":
        last = errors.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise StoreError(
            "smoke", f"A smoke inference that ends well is required. Received: exit status {process.returncode} {last}"
        )
    return answer


@contextlib.contextmanager
def _process_group(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with its children, all of which end with the body."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True, cwd="/"
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _last_event(output: bytes) -> Event:
    """The last event line of an output, or an empty event."""
    for line in reversed(output.split(b"\n")[:-1]):
        _, mark, text = line.partition(EVENT_MARK)
        if mark:
            event: Event = json.loads(text)
            return event
    return {}


def activate(folder: Path, release_id: str, time: str, action: str) -> None:
    """Note a release in the history, then point `current` to it with one rename: the last step, which cannot half-fail.

    A power cut between both leaves a line too many, which `inventory.previous_release` passes over.
    """
    path = folder / "history.jsonl"
    with open(path, "a+b") as file:
        size = file.seek(0, os.SEEK_END)
        line = json.dumps({"time": time, "release": release_id, "action": action}).encode() + b"\n"
        file.seek(max(0, size - 1))
        # A power cut or a full disk may have left half a line.
        file.write(line if file.read(1) in (b"", b"\n") else b"\n" + line)
        file.flush()
        os.fsync(file.fileno())
    link = folder / "current.tmp"
    link.unlink(missing_ok=True)
    os.symlink(os.path.join("releases", release_id), link)
    os.replace(link, folder / "current")
    sync_folder(folder)
