"""What a deploy costs, beside scp of OpenSSH on the same link in the same run.

A real sshd on this computer is the target. Both sides send the same bytes in turn; a time is that of the whole:
connect, log in, send, and for liteship also hash, flush to the disk, link the release together and run its (empty)
smoke inference. scp does none of these.

    python benchmarks/deploy_speed.py > benchmarks/results/deploy_speed.md
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

sys.path.append(str(Path(__file__).parents[1] / "tests" / "integration"))  # its sshd and its proxy

import cuts
from fault_proxy import FaultProxy
from ssh_server import run_sshd

from liteship import remote
from liteship.deploy import Deployment
from liteship.payload import Blob
from liteship.programs import STORE, Program
from liteship.progress import Reporter
from liteship.targets import Target
from liteship_agent.manifest import Manifest
from liteship_agent.records import loads

MB = 10**6
FILE_BYTES, IMAGE_COUNT, IMAGE_BYTES = 60 * MB, 3000, 25_000
SILENT = Reporter(Console(file=open(os.devnull, "w")))  # noqa: SIM115
RECORDS = Path(__file__).parents[1] / "tests" / "contract" / "golden"

_SFTP = "Subsystem sftp internal-sftp"  # for scp
_SLOW_DISK = """
import time as _time
_written = [0, None]  # bytes, and when the disk began to take them
_RATE, _FLUSH_SECONDS = 20e6, 0.03

def _count(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())

def begin_writing(descriptor):
    _written[1] = _written[1] or _time.monotonic()

def sync_filesystem(folder):
    begun = _written[1] or _time.monotonic()
    _time.sleep(max(0.0, _count(folder / "blobs" / ".partial") / _RATE - (_time.monotonic() - begun)) + _FLUSH_SECONDS)

def sync_folder(folder):
    _time.sleep(_FLUSH_SECONDS)
"""
"""A model of a card: the page cache takes everything, the disk 20 MB/s from the moment that writing begins, and each
flush waits for the rest and 30 ms."""


class OnSlowDisk(Program):
    """The store on that card."""

    @property
    def packed(self) -> bytes:  # type: ignore[override]
        """With the functions of its disk replaced."""
        sources = json.loads(zlib.decompress(STORE.packed))
        changed = [(name, text + (_SLOW_DISK if name.endswith(".disk") else "")) for name, text in sources]
        return zlib.compress(json.dumps(changed).encode())


class Sender:
    """Sends blobs both ways.

    Args:
        target: A real sshd on this computer.
        work: An empty folder.
    """

    def __init__(self, target: Target, work: Path) -> None:
        self.target, self.work = target, work
        self.manifest = loads(Manifest, (RECORDS / "manifest-3.json").read_bytes(), "manifest")
        self.content = cuts.Content(0, artefacts=0)
        (work / "cache").mkdir()

    def scp(self, source: Path) -> float:
        """Seconds of scp for a file or a folder."""
        sink = self.work / "sink"
        shutil.rmtree(sink, ignore_errors=True)
        sink.mkdir()
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        words = ["scp", "-F", "none", "-q", "-r", "-P", str(self.target.port), "-i", str(self.target.identity_file)]
        words += [word for option in options for word in ("-o", option)]
        return timed(lambda: subprocess.run([*words, str(source), f"{self.target.user}@127.0.0.1:{sink}"], check=True))

    def liteship(self, *blobs: Blob, target: Target | None = None) -> tuple[float, Deployment]:
        """Seconds of a deploy of these blobs onto an empty folder, and what it did."""
        shutil.rmtree(self.target.folder, ignore_errors=True)
        return self.again(*blobs, target=target)

    def again(self, *blobs: Blob, target: Target | None = None) -> tuple[float, Deployment]:
        """The same onto what is there."""
        done: list[Deployment] = []
        self.content.blobs = {f"artefacts/{number}.tflite": blob for number, blob in enumerate(blobs)}
        self.content.blobs["liteship_agent.zip"] = Blob.of_content(cuts.agent_zip(_NO_SMOKE))
        with cuts.deploying(self.content, Patch()):
            seconds = timed(lambda: done.append(cuts.put(target or self.target, self.manifest, self.work / "cache")))
        return seconds, done[0]


_NO_SMOKE = 'print(\'\\x1eliteship {"event": "done"}\')'


class Patch:
    """The part of pytest's monkeypatch that `cuts.deploying` wants."""

    @contextlib.contextmanager
    def context(self) -> Iterator[Patch]:
        """Puts attributes back."""
        self._old: list[tuple[Any, str, Any]] = []
        yield self
        for thing, name, value in reversed(self._old):
            setattr(thing, name, value)

    def setattr(self, thing: Any, name: str, value: Any) -> None:
        """Set one."""
        self._old.append((thing, name, getattr(thing, name)))
        setattr(thing, name, value)


def timed(action: Callable[[], Any]) -> float:
    """Seconds."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def random_file(path: Path, size: int) -> Blob:
    """A file that does not compress."""
    data = os.urandom(size)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return Blob(cuts.sha256(data), size, path)


def compare(sender: Sender, rounds: int, source: Path, blob: Blob, bar: float, what: str) -> Iterator[str]:
    """Both sides in turn."""
    ours, theirs = [], []
    for number in range(rounds):
        pair = [lambda: theirs.append(sender.scp(source)), lambda: ours.append(sender.liteship(blob)[0])]
        for act in pair if number % 2 == 0 else reversed(pair):
            act()
        say(f"{what}: round {number + 1} of {rounds}: scp {theirs[-1]:.2f} s, liteship {ours[-1]:.2f} s")
    ratios = [their / our for our, their in zip(ours, theirs, strict=True)]
    size = blob.size / MB
    yield (
        f"| {what} | {size / median(theirs):.0f} | {size / median(ours):.0f} | {median(ratios):.2f} "
        f"| {min(ratios):.2f}–{max(ratios):.2f} | {bar} | {'yes' if median(ratios) >= bar else 'no'} |"
    )


def speeds(sender: Sender, rounds: int) -> Iterator[str]:
    """One large file, and many small ones."""
    yield "## Rate beside scp\n"
    yield f"{rounds} rounds, in turn; MB/s are medians; the ratio is that of the pairs.\n"
    yield "| what | scp MB/s | liteship MB/s | ratio | range | bar | met |\n| :-- | --: | --: | --: | :-- | --: | :-- |"
    path = sender.work / "large" / "model.tflite"
    yield from compare(sender, rounds, path, random_file(path, FILE_BYTES), 0.95, "one file of 60 MB")
    images = sender.work / "images"
    images.mkdir()
    data = os.urandom(IMAGE_BYTES * IMAGE_COUNT)
    for number in range(IMAGE_COUNT):
        (images / f"{number:04}.jpg").write_bytes(data[number * IMAGE_BYTES :][:IMAGE_BYTES])
    tar = sender.work / "validation.tar"
    tar.write_bytes(data)
    blob = Blob(cuts.sha256(data), len(data), tar)
    yield from compare(sender, rounds, images, blob, 2.5, f"{IMAGE_COUNT} images of 25 kB (scp -r; one blob)")


def conditions(sender: Sender) -> Iterator[str]:
    """A slow link and a slow disk: reported, without a bar."""
    yield "\n## Other conditions, 60 MB\n\n| condition | s | MB/s |\n| :-- | --: | --: |"
    path = sender.work / "large" / "model.tflite"
    blob = random_file(path, FILE_BYTES)
    seconds = [sender.liteship(blob)[0] for _ in range(3)]
    yield f"| as above | {median(seconds):.2f} | {FILE_BYTES / MB / median(seconds):.0f} |"
    with FaultProxy(sender.target, delay_seconds=0.005).running() as proxy:
        seconds = [sender.liteship(blob, target=proxy.target)[0] for _ in range(3)]
    rate = FILE_BYTES / MB / median(seconds)
    yield f"| proxy with 5 ms for each piece of 64 KiB | {median(seconds):.2f} | {rate:.0f} |"
    remote.STORE = OnSlowDisk(STORE.modules)
    try:
        seconds = [sender.liteship(blob)[0] for _ in range(3)]
    finally:
        remote.STORE = STORE
    slow = "disk of 20 MB/s and 30 ms a flush (a model of it, see this script)"
    yield f"| {slow} | {median(seconds):.2f} | {FILE_BYTES / MB / median(seconds):.0f} |"


def redeploys(sender: Sender) -> Iterator[str]:
    """Bytes and seconds of what little there is to do."""
    blobs = [random_file(sender.work / "twelve" / f"{number}.tflite", 2 * MB) for number in range(12)]
    sender.liteship(*blobs)
    blobs[7] = random_file(sender.work / "twelve" / "7.tflite", 2 * MB)
    _, changed = sender.again(*blobs)
    _, same = sender.again(*blobs)
    yield "\n## Deploys of what is nearly there\n"
    yield (
        f"- one changed model of twelve: {changed.bytes_sent - 2 * MB} bytes beside the model (made-up content; the "
        f"programs that ask and receive are {len(remote.PROBE.packed) + len(STORE.packed)} bytes more); bar 50,000"
    )
    yield f"- nothing changed: {same.bytes_sent} bytes, {same.round_trips} round trip, no blob read"


def commands(study: str | None) -> Iterator[str]:
    """Whole commands on the loopback target, with a study that is deployed there."""
    if study is None:
        return
    words = [str(Path(sys.executable).with_name("liteship")), "deploy", "--study", study]
    subprocess.run(words, check=True, capture_output=True)
    seconds = [timed(lambda: subprocess.run(words, check=True, capture_output=True)) for _ in range(10)]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / MB
    yield (
        f"- `liteship deploy` of an unchanged study as a whole command on loopback: median {median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}) of 10; bar 1.5; peak memory {peak:.0f} MB; bar 200"
    )


def memory(work: Path) -> Iterator[str]:
    """Peak memory of a process that deploys a large model."""
    code = (
        "import resource, sys; sys.argv = ['x', '--large', sys.argv[1]]; import runpy;"
        f"runpy.run_path({str(Path(__file__))!r}, run_name='__main__');"
    )
    for megabytes in (60, 600):
        ended = subprocess.run(
            [sys.executable, "-c", code, str(megabytes)], check=True, capture_output=True, text=True, cwd=work
        )
        yield f"- peak memory of a process that deploys {megabytes} MB: {ended.stdout.strip()} MB; bar 200"


def deploy_large(megabytes: int) -> None:
    """Print the peak memory of this process after a deploy; see `memory`."""
    with tempfile.TemporaryDirectory() as folder, run_sshd(Path(folder) / "server", _SFTP) as target:
        sender = Sender(target.model_copy(update={"folder": f"{folder}/liteship"}), Path(folder))
        path = Path(folder) / "model.tflite"
        subprocess.run(
            ["dd", "if=/dev/urandom", f"of={path}", "bs=1M", f"count={megabytes}", "status=none"], check=True
        )
        sha256 = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]
        sender.liteship(Blob(sha256, path.stat().st_size, path))
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB:.0f}")


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Print all sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often both sides send")
    parser.add_argument("--study", help="folder under models/, for whole commands on loopback")
    parser.add_argument("--large", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.pop("SSH_AUTH_SOCK", None)
    if options.large is not None:
        deploy_large(options.large)
        return
    print("# What a deploy costs\n")
    print(f"- command: `python {shlex.join(sys.argv)}`\n- date: {datetime.date.today().isoformat()}")
    print(f"- machine: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} when it began\n")
    with tempfile.TemporaryDirectory() as folder, run_sshd(Path(folder) / "server", _SFTP) as target:
        work = Path(folder)
        sender = Sender(target.model_copy(update={"folder": f"{folder}/liteship"}), work)
        for section in (
            speeds(sender, options.rounds),
            conditions(sender),
            redeploys(sender),
            commands(options.study),
            memory(work),
        ):
            for line in section:
                print(line, flush=True)


if __name__ == "__main__":
    main()
