"""Deploys through a link that fails, onto disks and folders that fail: what was active stays active and whole."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cuts import (
    KIB,
    SILENT,
    Content,
    agent_zip,
    cut_again_and_again,
    deploying,
    put,
    require_tidy,
    require_whole,
    sha256,
    wait_until_idle,
)
from fault_proxy import FaultProxy

from liteship.errors import LinkError
from liteship.payload import Blob
from liteship.releases import list_releases, roll_back, verify_releases
from liteship.remote import Connection, RemoteError
from liteship.retry import Patience, keep_trying
from liteship.targets import Target
from liteship_agent.manifest import Manifest
from liteship_agent.records import loads

RECORDS = Path(__file__).parent.parent / "contract" / "golden"


@pytest.fixture
def manifest() -> Manifest:
    return loads(Manifest, (RECORDS / "manifest-3.json").read_bytes(), "manifest")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    path = tmp_path / "cache"
    path.mkdir()
    return path


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> Iterator[Content]:
    made = Content(7)
    with deploying(made, monkeypatch):
        yield made


@pytest.fixture
def board(sshd: Target, tmp_path: Path) -> Target:
    """A folder of its own, whose name needs quoting, on a real OpenSSH server."""
    return sshd.model_copy(update={"folder": str(tmp_path / "li té $HOME 'ship'")})


def test_twenty_random_cuts_leave_the_old_or_the_new_release_whole(
    board: Target, manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = cut_again_and_again(20, 20261125, board, manifest, cache, monkeypatch)
    assert tally.cuts + tally.late == 20
    assert tally.cuts >= 12, tally
    assert tally.old > 0, tally


def test_cut_transfer_goes_on_where_it_was_cut(
    board: Target, manifest: Manifest, cache: Path, content: Content
) -> None:
    total = sum(blob.size for blob in content.blobs.values())
    # Slowly, so that what has passed the proxy has reached the disk too.
    slow = FaultProxy(board, cut_after=(700 * KIB,), bytes_per_second=500e3)
    with slow.running() as proxy, pytest.raises(LinkError):
        put(proxy.target, manifest, cache)
    wait_until_idle(Path(board.folder))
    done = put(board, manifest, cache)
    assert done.bytes_sent < total - 300 * KIB
    assert done.bytes_skipped > 300 * KIB
    require_whole(Path(board.folder), {done.release})


def test_deploy_goes_on_by_itself_over_a_link_that_is_cut_again_and_again(
    board: Target, manifest: Manifest, cache: Path, content: Content
) -> None:
    from liteship.deploy import deploy

    heard: list[str] = []
    with FaultProxy(board, cut_after=(400 * KIB, 300 * KIB, 200 * KIB)).running() as proxy:
        done = keep_trying(
            lambda: Connection.open(proxy.target),
            lambda connection: deploy(connection, cache, manifest, ["auto"], cache, SILENT),
            "board",
            heard.append,
            Patience(sleep=lambda seconds: None),
        )
    assert len(heard) == 3
    assert all("trying again" in line for line in heard)
    require_whole(Path(board.folder), {done.release})
    require_tidy(Path(board.folder))


def test_damaged_byte_is_found_and_sent_again(board: Target, manifest: Manifest, cache: Path, content: Content) -> None:
    with FaultProxy(board, damage_at=400 * KIB).running() as proxy, pytest.raises(LinkError):
        put(proxy.target, manifest, cache)
    wait_until_idle(Path(board.folder))
    require_whole(Path(board.folder), {None})
    require_whole(Path(board.folder), {put(board, manifest, cache).release})


def test_slow_link_with_delay_carries_a_deploy(
    board: Target, manifest: Manifest, cache: Path, content: Content
) -> None:
    with FaultProxy(board, delay_seconds=0.005, bytes_per_second=4e6).running() as proxy:
        done = put(proxy.target, manifest, cache)
    assert require_whole(Path(board.folder), {done.release})


def test_smoke_inference_that_fails_leaves_the_old_release(
    board: Target, manifest: Manifest, cache: Path, content: Content
) -> None:
    old = put(board, manifest, cache).release
    content.change()
    content.blobs["liteship_agent.zip"] = Blob.of_content(agent_zip("raise SystemExit('wrong answer')"))
    with pytest.raises(RemoteError, match="wrong answer") as caught:
        put(board, manifest, cache)
    assert f"Release {old} is active as before." in caught.value.hint
    require_whole(Path(board.folder), {old})


# --- disks and folders ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 24 MiB."""
    if os.getuid() != 0:
        pytest.fail("root is required to mount a small disk")
    path = tmp_path / "small"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_disk_without_room_is_told_before_anything_is_sent(
    sshd: Target, manifest: Manifest, cache: Path, content: Content, small_disk: Path
) -> None:
    board = sshd.model_copy(update={"folder": str(small_disk / "liteship")})
    old = put(board, manifest, cache).release
    content.change()
    content.blobs["artefacts/0.tflite"] = Blob.of_content(os.urandom(9000 * KIB))
    with pytest.raises(RemoteError, match=r"of free space in .* is required") as caught:
        put(board, manifest, cache)
    assert caught.value.kind == "space"
    require_whole(Path(board.folder), {old})
    assert list(small_disk.glob("liteship/blobs/.partial/*")) == []


def test_disk_that_fills_up_on_the_way_leaves_the_old_release_and_a_later_deploy_completes(
    sshd: Target, manifest: Manifest, cache: Path, content: Content, small_disk: Path
) -> None:
    board = sshd.model_copy(update={"folder": str(small_disk / "liteship")})
    old = put(board, manifest, cache).release
    content.change()
    content.blobs["artefacts/0.tflite"] = Blob.of_content(os.urandom(4000 * KIB))
    filler = small_disk / "filler"
    with FaultProxy(board, bytes_per_second=6e6).running() as proxy:
        answer: list[LinkError] = []

        def fill() -> None:
            """Once the space was found to be enough."""
            while not list(small_disk.glob("liteship/blobs/.partial/*")):
                time.sleep(0.01)
            with contextlib.suppress(OSError), open(filler, "wb") as file:
                while True:
                    file.write(bytes(64 * KIB))

        thread = threading.Thread(target=fill, daemon=True)
        thread.start()
        with pytest.raises(LinkError) as caught:
            put(proxy.target, manifest, cache)
        answer.append(caught.value)
        thread.join()
    assert isinstance(answer[0], RemoteError)
    assert answer[0].kind == "space"
    wait_until_idle(Path(board.folder))
    require_whole(Path(board.folder), {old})
    filler.unlink()
    require_whole(Path(board.folder), {put(board, manifest, cache).release})
    require_tidy(Path(board.folder))


def test_read_only_folder_is_named(
    sshd: Target, manifest: Manifest, cache: Path, content: Content, small_disk: Path
) -> None:
    board = sshd.model_copy(update={"folder": str(small_disk / "liteship")})
    old = put(board, manifest, cache).release
    content.change()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RemoteError, match="Read-only file system") as caught:
        put(board, manifest, cache)
    assert caught.value.kind == "permission"
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    require_whole(Path(board.folder), {old})


def test_board_whose_clock_is_in_1970_takes_a_release(
    board: Target, manifest: Manifest, cache: Path, content: Content, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    old_times = "import time, os, sys; time.time = lambda: 86400.0; time.time_ns = lambda: 86400 * 10**9"
    python.write_text(
        f'#!/bin/sh\n[ "$4" = -c ] || exec {board.python} "$@"\nshift 4\ncode=$1\nshift\n'
        f'exec {board.python} -I -S -B -c "{old_times}\n$code" "$@"\n'
    )
    python.chmod(0o755)
    done = put(board.model_copy(update={"python": str(python)}), manifest, cache)
    require_whole(Path(board.folder), {done.release})
    (line,) = (Path(board.folder) / "history.jsonl").read_text().splitlines()
    assert json.loads(line)["time"].startswith("20"), "the host's clock"


# --- what is there ---


def test_releases_rollback_and_verify_over_the_link(
    board: Target, manifest: Manifest, cache: Path, content: Content
) -> None:
    first = put(board, manifest, cache).release
    content.change()
    second = put(board, manifest, cache).release
    with Connection.open(board) as connection:
        told = list_releases(connection)["releases"]
        assert [(one["release"], one["is_current"]) for one in told] == [(second, True), (first, False)]
        assert told[0]["study"] == manifest.study
        done = roll_back(connection, None, SILENT)
        assert (done["release"], done["before"]) == (first, second)
        assert verify_releases(connection, None, SILENT)["damaged"] == []
        require_whole(Path(board.folder), {first})


def test_damage_on_the_disk_is_found_and_mended_by_the_next_deploy(
    board: Target, manifest: Manifest, cache: Path, content: Content
) -> None:
    put(board, manifest, cache)
    folder = Path(board.folder)
    blob = content.blobs["artefacts/1.tflite"]
    with open(folder / "blobs" / blob.sha256, "r+b") as file:
        file.seek(1000)
        file.write(b"bit rot")
    shutil.rmtree(next(path for path in (folder / "runtimes").iterdir()) / "__pycache__")
    with Connection.open(board) as connection:
        (damaged,) = verify_releases(connection, None, SILENT)["damaged"]
    assert damaged["path"].endswith("artefacts/1.tflite")
    done = put(board, manifest, cache)
    assert (done.blobs_sent, done.activated) == (1, False)
    require_whole(folder, {done.release})
    assert hashlib.sha256((folder / "current" / "artefacts" / "1.tflite").read_bytes()).hexdigest() == blob.sha256


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "release.json"])
def test_name_that_climbs_out_of_the_folder_is_refused(
    board: Target, manifest: Manifest, cache: Path, content: Content, path: str
) -> None:
    old = put(board, manifest, cache).release
    content.change()
    content.blobs[path] = Blob.of_content(b"evil")
    with pytest.raises(RemoteError, match="Names inside the folder") as caught:
        put(board, manifest, cache)
    assert caught.value.kind == "protocol"
    require_whole(Path(board.folder), {old})
    assert sha256(b"evil") not in {path.name for path in (Path(board.folder) / "blobs").iterdir()}
