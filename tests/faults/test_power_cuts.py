"""Power cuts of a whole machine in the middle of deploys: QEMU is killed, its disk stays as it was written.

The guest writes nothing back by itself (dirty_writeback_centisecs=0) and its file system does not help a program that
forgets to flush (noauto_da_alloc), so that what the store has not flushed is lost for sure.
"""

from __future__ import annotations

import json
import random
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cuts import KIB, SILENT, Content, deploying, expected_release, put
from emulated_board import IMAGE, over_ssh, reporter
from results import note

from liteship import remote
from liteship.emulated.image import Image, ensure_image
from liteship.emulated.machine import Machine, Options, start
from liteship.errors import LinkError
from liteship.programs import STORE, Program
from liteship.releases import list_releases, verify_releases
from liteship.remote import Connection
from liteship.retry import keep_trying
from liteship_agent.manifest import Manifest

pytestmark = pytest.mark.timeout(7200)
COUNT = 20
OPTIONS = Options(root_flags="noauto_da_alloc", memory_mib=768)


class Board:
    """A machine whose power can be cut, and comes again with the same disk."""

    def __init__(self, image: Image, folder: Path) -> None:
        self._image, self._folder = image, folder
        self.machine: Machine
        self.boot()

    def boot(self) -> None:
        self.machine = start(self._image, self._folder, OPTIONS, reporter())
        assert "noauto_da_alloc" in over_ssh(self.machine, "root", "cat /proc/mounts")
        over_ssh(self.machine, "root", "echo 0 > /proc/sys/vm/dirty_writeback_centisecs")

    def cut(self) -> None:
        self.machine.kill()


@pytest.fixture(scope="module")
def image() -> Image:
    return ensure_image(IMAGE, reporter())


@pytest.fixture
def board(image: Image, tmp_path: Path) -> Iterator[Board]:
    made = Board(image, tmp_path / "machine")
    yield made
    made.cut()


def look(board: Board) -> tuple[str | None, list[dict[str, Any]]]:
    """The active release, and everything on the board that is damaged."""

    def ask(connection: Connection) -> tuple[str | None, list[dict[str, Any]]]:
        told = list_releases(connection)["releases"]
        active = next((one["release"] for one in told if one.get("is_current")), None)
        broken = [one for one in told if "damaged" in one]
        damaged = verify_releases(connection, active, SILENT)["damaged"] if active else []
        return active, broken + damaged

    return keep_trying(lambda: Connection.open(board.machine.target), ask, "board", print)


def deploy_until_cut(board: Board, manifest: Manifest, cache: Path, seconds: float) -> str:
    """Begin a deploy, cut the power after so many seconds, and tell what became of it."""
    outcome = "cut"

    def run() -> None:
        nonlocal outcome
        try:
            put(board.machine.target, manifest, cache)
            outcome = "done before"
        except LinkError as exc:
            outcome = f"cut: {exc.message[:60]}"

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(seconds)
    board.cut()
    thread.join(60)
    assert not thread.is_alive(), "a deploy to a board without power does not end"
    return outcome


def test_power_cuts_leave_the_old_or_the_new_release_whole(
    board: Board, manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, moments, lines = Content(3, artefact_bytes=2000 * KIB), random.Random(5), []
    with deploying(content, monkeypatch):
        put(board.machine.target, manifest, cache)
        content.change()
        begun = time.monotonic()
        release: str | None = put(board.machine.target, manifest, cache).release
        duration = time.monotonic() - begun  # of one that finds the board warm
        for number in range(1, COUNT + 1):
            content.change()
            new = expected_release(manifest, content, cache)
            seconds = moments.random() * duration
            outcome = deploy_until_cut(board, manifest, cache, seconds)
            board.boot()
            active, damaged = look(board)
            which = {release: "old", new: "new"}.get(active, "neither")
            lines.append(f"| {number} | {seconds:.1f} | {outcome} | {which} | {len(damaged)} |")
            note(f"{COUNT} power cuts", table(duration, lines))
            assert which in ("old", "new"), lines[-1]
            assert damaged == [], lines[-1]
            release = put(board.machine.target, manifest, cache).release
            assert release == new
            assert look(board) == (new, [])


def table(duration: float, lines: list[str]) -> list[str]:
    """For people."""
    return [
        "QEMU killed with -9 at a random moment of a deploy; its disk stays; the guest writes nothing back by itself,",
        f"its disk is mounted with noauto_da_alloc. A deploy takes {duration:.1f} s. After each boot: which release",
        "is active, and how many of its files are not what their sha256 says. The same deploy completed after each.\n",
        "| cut | after, s | the host saw | active | damaged |",
        "| --: | --: | :-- | :-- | --: |",
        *lines,
    ]


def test_release_that_a_deploy_calls_active_survives_a_power_cut_at_once(
    board: Board, manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deploying(Content(11, artefact_bytes=500 * KIB), monkeypatch):
        done = put(board.machine.target, manifest, cache)
        board.cut()
        board.boot()
        assert look(board) == (done.release, [])


class Without(Program):
    """The store with one flush taken out."""

    @property
    def packed(self) -> bytes:  # type: ignore[override]
        sources = json.loads(zlib.decompress(STORE.packed))
        changed = [(name, text.replace(self.flush, "pass")) for name, text in sources]
        assert changed != [tuple(source) for source in sources], self.flush
        return zlib.compress(json.dumps(changed).encode())

    def __init__(self, flush: str) -> None:
        super().__init__(STORE.modules)
        object.__setattr__(self, "flush", flush)


@pytest.mark.parametrize(
    ("flush", "what"),
    [("sync_filesystem(folder)", "contents"), ("sync_folder(folder)", "the switch")],
    ids=["contents", "switch"],
)
def test_power_cut_shows_that_a_flush_is_missing(
    board: Board, manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch, flush: str, what: str
) -> None:
    content = Content(13, artefact_bytes=500 * KIB)
    with deploying(content, monkeypatch):
        old = put(board.machine.target, manifest, cache).release
        content.change()
        monkeypatch.setattr(remote, "STORE", Without(flush))
        new = put(board.machine.target, manifest, cache).release
        board.cut()
        board.boot()
    active, damaged = look(board)
    name = {old: "the old release", new: "the new release"}.get(str(active), str(active))
    note(f"Without the flush of {what}", [f"- active: {name}; damaged or unreadable: {len(damaged)}"])
    assert (active, damaged) != (new, []), "the machine cannot show what these tests look for"
