"""The verbs of the store: plan, deploy, releases, rollback, verify."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Iterator

from liteship_agent.store.collection import (
    collect,
    plan_collection,
    remove_partials,
    remove_release,
    remove_temporaries,
)
from liteship_agent.store.disk import locked, require_space, sync_filesystem, sync_folder
from liteship_agent.store.events import INVENTORY, Emit, Event, StoreError, emit, heartbeat, serve
from liteship_agent.store.inventory import (
    absolute,
    current_release,
    history,
    job_release,
    lock_holder,
    previous_release,
    release_content,
    release_ids,
)
from liteship_agent.store.probe import probe
from liteship_agent.store.releases import activate, mend_releases, prepare_release, run_smoke
from liteship_agent.store.runtimes import name_runtime, prepare_runtime
from liteship_agent.store.transfer import read_header, receive
from liteship_agent.store.verification import verify

_LOCK = "deploy.lock"


def main(arguments: list[str], stream: BinaryIO) -> int:
    """Run one verb on a folder, and answer with a final event; returns the exit status."""
    return serve(lambda: _run(stream, *arguments))


def _run(stream: BinaryIO, verb: str, name: str) -> Event:
    folder = absolute(name)
    if verb == "plan":
        return plan(folder, stream)
    if verb == "deploy":
        return deploy(folder, stream, emit)
    if verb == "releases":
        return {"folder": str(folder), "releases": list(describe_releases(folder))}
    if verb == "rollback":
        return rollback(folder, _parameters(stream), emit)
    if verb == "verify":
        release_id = _parameters(stream)["release"]
        if release_id is not None:
            _require_release(folder, release_id)
        return verify(folder, emit, release_id)
    raise StoreError("protocol", f"plan, deploy, releases, rollback or verify is required. Received: {verb}")


def _parameters(stream: BinaryIO) -> Event:
    parameters: Event = json.loads(stream.readline())
    return parameters


def plan(folder: Path, stream: BinaryIO) -> Event:
    """What a deploy with this header would switch and remove; changes nothing.

    Returns:
        `release`, `current` and `collect`, see `collection.plan_collection`.
    """
    header = read_header(stream)
    if header is None:
        raise StoreError("link", "A deploy header is required. Received: end of the stream")
    release_id = _release_id(header)
    coming = plan_collection(folder, header["keep"], release_id, header["release"])
    return {"release": release_id, "current": current_release(folder), "collect": coming}


def _release_id(header: Event) -> str:
    return hashlib.sha256(header["release_bytes"].encode()).hexdigest()[:12]


def deploy(folder: Path, stream: BinaryIO, report: Emit) -> Event:
    """Tell what is there, then take in one release and make it current.

    Args:
        folder: The liteship folder; created when absent.
        stream: A host that has nothing to send ends it. Else see `transfer.read_header`, then the bytes of the blobs in
            that order, each from its offset.
        report: Takes the inventory and progress events.
    Returns:
        `release`, `activated` (false when it was current already), `smoke` and `collected`; nothing where nothing came.
    Raises:
        StoreError: the release was not taken; the one that was current still is.
    """
    report({"event": INVENTORY, **probe(folder)})
    header = read_header(stream)
    if header is None:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    with _only_one(folder, report):
        try:
            return _deploy(folder, header, stream, report)
        except StoreError as exc:
            raise StoreError(exc.kind, exc.message, f"{exc.hint} {_still_active(folder)}".strip()) from exc


def _only_one(folder: Path, report: Emit) -> Any:
    """The lock of deploys and rollbacks; a job that runs must not be disturbed either."""
    holder = lock_holder(folder)
    if holder is not None and job_release(folder, holder) is not None:
        raise StoreError(
            "locked",
            f"A target that measures nothing is required. Received: job {holder} runs",
            "Wait until it is done; the command that started it shows how far it is.",
        )
    return locked(folder / _LOCK)


def _still_active(folder: Path) -> str:
    current = current_release(folder)
    return f"Release {current} is active as before." if current else "No release is active, as before."


def _deploy(folder: Path, header: Event, stream: BinaryIO, report: Emit) -> Event:
    release_id = _release_id(header)
    remove_temporaries(folder)
    remove_partials(folder, {blob["sha256"] for blob in header["blobs"]})
    was_current = current_release(folder) == release_id
    coming_bytes = sum(blob["size"] - blob["offset"] for blob in header["blobs"])
    require_space(folder, coming_bytes + header["unpacked_bytes"])
    receive(folder, header, stream, report)
    try:
        is_new = _place(folder, release_id, header, report)
    except BaseException:
        remove_temporaries(folder)
        raise
    try:
        with heartbeat("smoke", report):
            smoke = run_smoke(folder, release_id)
    except BaseException:
        if is_new:
            remove_release(folder, release_id)
        raise
    if not was_current:
        activate(folder, release_id, header["time"], "activate")
    return {
        "release": release_id,
        "activated": not was_current,
        "smoke": smoke,
        "collected": collect(folder, header["keep"]),
    }


def _place(folder: Path, release_id: str, header: Event, report: Emit) -> bool:
    """Prepare runtimes and release beside what is there, flush it, and give it its names; tells if the release is new.

    The one flush of the file system comes before the first name: a power cut leaves no name with half its content.
    """
    release, partial, blobs = header["release"], folder / "blobs" / ".partial", folder / "blobs"

    def find(sha256: str) -> Path:
        return partial / sha256 if (partial / sha256).exists() else blobs / sha256

    new_runtimes = []
    for runtime in release["runtimes"]:
        with heartbeat("runtime", report):
            if prepare_runtime(folder, runtime["folder"], find(runtime["sha256"])):
                new_runtimes.append(runtime["folder"])
    data = header["release_bytes"].encode()
    is_new = prepare_release(folder, release_id, data, release["files"], find)
    mend_releases(folder, {path.name for path in partial.iterdir()}, find)
    with heartbeat("flush", report):
        sync_filesystem(folder)
        for runtime in release["runtimes"]:
            find(runtime["sha256"]).unlink(missing_ok=True)  # it is unpacked
        for path in partial.iterdir():
            os.replace(path, blobs / path.name)
        sync_folder(blobs)
        for name in new_runtimes:
            name_runtime(folder, name)
        if new_runtimes:
            sync_folder(folder / "runtimes")
        if is_new:
            os.rename(folder / "releases" / f".tmp-{release_id}", folder / "releases" / release_id)
            sync_folder(folder / "releases")
    return is_new


def describe_releases(folder: Path) -> Iterator[Event]:
    """Every release, the latest first: what it is, when it was activated, and whether it is current."""
    activated = {event["release"]: event.get("time") for event in history(folder)}
    order = {release: index for index, release in enumerate(event["release"] for event in history(folder))}
    current, previous = current_release(folder), previous_release(folder)
    for release in sorted(release_ids(folder), key=lambda one: order.get(one, -1), reverse=True):
        try:
            content = release_content(folder, release)
        except StoreError as exc:
            yield {"release": release, "damaged": exc.message}
            continue
        files = [folder / "releases" / release / file["path"] for file in content["files"]]
        yield {
            "release": release,
            "study": content["study"],
            "activated": activated.get(release),
            "artefacts": sum(path.suffix == ".tflite" for path in files),
            "runtimes": [runtime["folder"] for runtime in content["runtimes"]],
            "bytes": sum(path.stat().st_size for path in files if path.exists()),
            "is_current": release == current,
            "is_previous": release == previous,
        }


def rollback(folder: Path, parameters: Event, report: Emit) -> Event:
    """Make an earlier release current again, after its bytes and its smoke inference have been checked.

    Args:
        folder: The liteship folder.
        parameters: `release`, or null for the one before the current one, and the host's `time`.
        report: Takes progress events.
    Returns:
        `release` that is active now, `before` that was, and `smoke`.
    Raises:
        StoreError: there is none, or it is damaged; the current one stays active.
    """
    if not folder.is_dir():
        raise StoreError("missing", f"A release in {folder} is required. Received: nothing")
    with _only_one(folder, report):
        before = current_release(folder)
        release_id = parameters["release"] or previous_release(folder)
        if release_id is None:
            raise StoreError("missing", "An earlier release is required. Received: none")
        _require_release(folder, release_id)
        if release_id == before:
            raise StoreError("missing", f"Another release than the active one is required. Received: {release_id}")
        damaged = verify(folder, report, release_id)["damaged"]
        if damaged:
            first = damaged[0]
            raise StoreError(
                "hash",
                f"{first['path']}: {first['required']} is required. Received: {first['received']}",
                f"Deploy its study again. {_still_active(folder)}",
            )
        with heartbeat("smoke", report):
            smoke = run_smoke(folder, release_id)
        activate(folder, release_id, parameters["time"], "rollback")
    return {"release": release_id, "before": before, "smoke": smoke}


def _require_release(folder: Path, release_id: str) -> None:
    known = release_ids(folder)
    if release_id not in known:
        shown = ", ".join(known) or "none is there"
        raise StoreError("missing", f"A release of {folder} is required ({shown}). Received: {release_id}")
