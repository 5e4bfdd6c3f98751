"""Deploys that are cut at random moments, and what must hold after each: the old or the new release is active and
whole, and the same deploy completes afterwards and leaves nothing temporary.

The host's own code deploys over a real SSH server. Only the content is small and made up: an agent whose smoke
inference is one line, random bytes for artefacts, and a runtime of one module.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import os
import random
import signal
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from rich.console import Console

from liteship import deploy as deploy_module
from liteship import payload as payload_module
from liteship.deploy import Deployment, deploy
from liteship.errors import LinkError
from liteship.payload import Blob
from liteship.progress import Reporter
from liteship.provision import RUNTIMES, Interpreter, PackedRuntime, Runtime
from liteship.remote import Connection
from liteship.targets import Target
from liteship_agent.manifest import Manifest
from liteship_agent.store.inventory import current_release, runtime_names
from liteship_agent.store.verification import verify

SILENT = Reporter(Console(file=io.StringIO()))
SMOKE = """import time; time.sleep(0.1); print('\\x1eliteship {"event": "done", "ms": 2}')"""
KIB = 1 << 10


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def agent_zip(main: str = SMOKE) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), main)
    return buffer.getvalue()


class Content:
    """What the next deploy of a study has: made anew by `change`.

    Attributes:
        blobs: By path in the release.
        runtime: Content of the runtime's only module.
    """

    def __init__(self, seed: int, artefacts: int = 3, artefact_bytes: int = 300 * KIB) -> None:
        self._random, self._sizes = random.Random(seed), (artefacts, artefact_bytes)
        self.agent = agent_zip()
        self.change()

    def change(self) -> None:
        """New artefacts and, one time in three, a new runtime."""
        count, size = self._sizes
        self.blobs = {f"artefacts/{n}.tflite": Blob.of_content(self._random.randbytes(size)) for n in range(count)}
        self.blobs["liteship_agent.zip"] = Blob.of_content(self.agent)
        self.blobs["manifest.json"] = Blob.of_content(self._random.randbytes(8).hex().encode(), is_text=True)
        if not hasattr(self, "runtime") or self._random.random() < 1 / 3:
            self.runtime = f"VALUE = {self._random.random()}\n".encode()

    def pack(self, runtime: Runtime, interpreter: Interpreter | None, cache: Path) -> PackedRuntime:
        """In the place of a real site folder."""
        key = sha256(self.runtime)[:12]
        path = cache / f"{key}.tar.gz"
        listing = f"{sha256(self.runtime)}  module.py\n".encode()
        with gzip.GzipFile(path, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
            for name, data in (("module.py", self.runtime), ("SHA256SUMS", listing)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        data = path.read_bytes()
        return PackedRuntime(runtime, f"{runtime.name}-{key}", path, sha256(data), len(data))


@contextlib.contextmanager
def deploying(content: Content, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While it lasts, every deploy is of that content."""
    with monkeypatch.context() as patch:
        patch.setattr(deploy_module, "pack_runtime", content.pack)
        patch.setattr(payload_module, "_files", lambda study, manifest, entries: content.blobs)
        yield


def put(target: Target, manifest: Manifest, cache: Path) -> Deployment:
    """One deploy over one connection."""
    with Connection.open(target) as connection:
        return deploy(connection, cache, manifest, ["auto"], cache, SILENT)


@dataclass(frozen=True)
class Cut:
    """One way to fail.

    Args:
        kind: "link": both directions end after so many bytes of the client; "later": the link ends after so many
            seconds; "killed": what runs on the target is killed after so many seconds, as by a crash.
        after: Bytes, or seconds.
    """

    kind: str
    after: float


def random_cuts(count: int, seed: int, total_bytes: int, seconds: float) -> list[Cut]:
    """Cuts of every kind, over the whole of a deploy.

    Args:
        count: How many.
        seed: Of the random numbers.
        total_bytes: That one deploy sends, with everything of SSH.
        seconds: That one deploy takes.
    """
    chosen = random.Random(seed)
    kinds = ("link", "link", "later", "killed")
    return [
        Cut(kind, chosen.random() * (total_bytes if kind == "link" else seconds))
        for kind in (kinds[number % len(kinds)] for number in range(count))
    ]


def deploy_with(cut: Cut, target: Target, manifest: Manifest, cache: Path) -> bool:
    """A deploy that fails as told; False where it was over before that."""
    limit = (int(cut.after),) if cut.kind == "link" else ()
    is_over = threading.Event()

    def kill() -> None:
        while not kill_store(target.folder) and not is_over.wait(0.005):
            """Nothing of the deploy has begun there yet."""

    with FaultProxy(target, cut_after=limit).running() as proxy:
        timer = threading.Timer(cut.after, proxy.cut if cut.kind == "later" else kill)
        if cut.kind != "link":
            timer.start()
        try:
            put(proxy.target, manifest, cache)
        except LinkError as exc:
            message = str(exc)
        else:
            return False
        finally:
            is_over.set()
            timer.cancel()
    assert "\n" not in message
    return True


def kill_store(folder: str) -> int:
    """Kill -9 of every process that works on a liteship folder for a deploy; tells how many."""
    killed = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if folder in words and ("deploy" in words or "smoke" in words) and int(process.name) != os.getpid():
                os.kill(int(process.name), signal.SIGKILL)
                killed += 1
    return killed


def wait_until_idle(folder: Path, seconds: float = 60.0) -> None:
    """Until nothing deploys there any more."""
    if not (folder / "deploy.lock").exists():
        return
    deadline = time.monotonic() + seconds
    with open(folder / "deploy.lock") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                assert time.monotonic() < deadline, "a deploy that was cut does not end"
                time.sleep(0.02)
            else:
                return


def require_whole(folder: Path, allowed: set[str | None]) -> str | None:
    """The active release, which must be one of those and have every byte that it names.

    Returns:
        Its id.
    """
    active = current_release(folder)
    assert active in allowed, f"{active} is active, one of {allowed} is required"
    if active is not None:
        found = verify(folder, lambda event: None, active)
        assert found["damaged"] == [], found["damaged"]
        content = json.loads((folder / "current" / "release.json").read_bytes())
        needed = {runtime["folder"] for runtime in content["runtimes"]}
        assert needed <= set(runtime_names(folder))
    return active


def require_tidy(folder: Path) -> None:
    """Nothing temporary is there."""
    partial = folder / "blobs" / ".partial"
    left = [path for path in folder.rglob("*") if path.name.startswith(".tmp-") or path.parent == partial]
    assert left + list(folder.glob("current.tmp")) == []


@dataclass
class Tally:
    """What cuts came to.

    Attributes:
        cuts: That failed a deploy.
        late: After which the deploy had been over.
        old, new: Which release was active and whole after a cut.
        by_kind: Cuts of each kind.
    """

    cuts: int = 0
    late: int = 0
    old: int = 0
    new: int = 0
    by_kind: dict[str, int] | None = None

    def count(self, cut: Cut, was_cut: bool, is_new: bool) -> None:
        """Add one."""
        self.by_kind = self.by_kind or {}
        self.by_kind[cut.kind] = self.by_kind.get(cut.kind, 0) + was_cut
        self.cuts += was_cut
        self.late += not was_cut
        self.new += was_cut and is_new
        self.old += was_cut and not is_new


def cut_again_and_again(
    count: int, seed: int, target: Target, manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Tally:
    """Deploy, cut, look, deploy again, look: so many times.

    Args:
        count: Of cuts.
        seed: Of content and cuts.
        target: With a folder that is empty at first.
        manifest: Any.
        cache: An empty folder.
        monkeypatch: To put the content in.
    """
    folder, content, tally = Path(target.folder), Content(seed), Tally()
    with deploying(content, monkeypatch):
        put(target, manifest, cache)
        content.change()
        begun = time.monotonic()
        typical = put(target, manifest, cache)
        seconds = 0.8 * (time.monotonic() - begun)  # so that most cuts come before the end
        for cut in random_cuts(count, seed, int(typical.bytes_sent * 1.05) + 30_000, seconds):
            before = current_release(folder)
            content.change()
            was_cut = deploy_with(cut, target, manifest, cache)
            wait_until_idle(folder)
            after = require_whole(folder, {before, expected_release(manifest, content, cache)})
            tally.count(cut, was_cut, after != before)
            done = put(target, manifest, cache)
            assert require_whole(folder, {done.release}) == done.release
            require_tidy(folder)
    return tally


def expected_release(manifest: Manifest, content: Content, cache: Path) -> str:
    """Id of the release that the content makes."""
    packed = content.pack(RUNTIMES[0], None, cache)
    return payload_module.make_payload(cache, manifest, [packed]).release.release_id()
