"""What a deploy costs, beside scp of OpenSSH on the same link in the same run.

A real sshd on this computer is the target. Both sides send the same new bytes in turn. "Received" is the time from
nothing to the last byte, hashed, on the other side: connect, log in, ask what is there, send. "Active" is that of the
whole deploy, which also flushes to the disk, links the release together, runs its (empty) smoke inference, switches and
collects; scp does none of these.

    python benchmarks/deploy_speed.py > benchmarks/results/deploy_speed.md
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

sys.path.append(str(Path(__file__).parents[1] / "tests" / "integration"))  # its sshd and its proxy

import cuts
from fault_proxy import FaultProxy
from ssh_server import run_sshd

from liteship import deploy as deploy_module
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

_SFTP = "Subsystem sftp /usr/lib/openssh/sftp-server"  # for scp, as Debian sets it
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


@dataclass(frozen=True)
class Deploy:
    """One deploy.

    Args:
        received_seconds: Until the last whole MiB was received; the report of it comes after it was hashed.
        active_seconds: Until the release was active.
        done: What it did.
    """

    received_seconds: float
    active_seconds: float
    done: Deployment


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

    def liteship(self, *blobs: Blob, target: Target | None = None) -> Deploy:
        """A deploy of these blobs; the runtime is there after the first."""
        self.content.blobs = {f"artefacts/{number}.tflite": blob for number, blob in enumerate(blobs)}
        self.content.blobs["liteship_agent.zip"] = Blob.of_content(cuts.agent_zip(_NO_SMOKE))
        received = begun = time.perf_counter()

        def note(name: str, say: Reporter) -> Callable[[Any], None]:
            def heard(event: Any) -> None:
                nonlocal received
                if event["stage"] == "receive":
                    received = time.perf_counter()

            return heard

        own = Patch()
        with cuts.deploying(self.content, Patch()), own.context():
            own.setattr(deploy_module, "stage_shown", note)
            done = cuts.put(target or self.target, self.manifest, self.work / "cache")
        return Deploy(received - begun, time.perf_counter() - begun, done)


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


def compare(sender: Sender, rounds: int, make: Callable[[], tuple[Path, Blob]], bar: float, what: str) -> Iterator[str]:
    """Both sides in turn, each round with new bytes."""
    ours: list[Deploy] = []
    theirs: list[float] = []
    for number in range(rounds):
        source, blob = make()
        pair = [lambda: theirs.append(sender.scp(source)), lambda: ours.append(sender.liteship(blob))]  # noqa: B023
        for act in pair if number % 2 == 0 else reversed(pair):
            act()
        last = ours[-1]
        say(
            f"{what}: round {number + 1} of {rounds}: scp {theirs[-1]:.2f} s, "
            f"liteship received {last.received_seconds:.2f} s, active {last.active_seconds:.2f} s"
        )
    size = blob.size / MB
    for state in ("received", "active"):
        seconds = [getattr(one, f"{state}_seconds") for one in ours]
        ratios = [their / our for our, their in zip(seconds, theirs, strict=True)]
        verdict = ("yes" if median(ratios) >= bar else "no") if state == "received" else "no bar"
        yield (
            f"| {what}, {state} | {size / median(theirs):.0f} | {size / median(seconds):.0f} | {median(ratios):.2f} "
            f"| {min(ratios):.2f}–{max(ratios):.2f} | {bar} | {verdict} |"
        )


def speeds(sender: Sender, rounds: int) -> Iterator[str]:
    """One large file, and many small ones."""
    yield "## Rate beside scp\n"
    yield f"{rounds} rounds, in turn; MB/s are medians; the ratio is that of the pairs.\n"
    yield "| what | scp MB/s | liteship MB/s | ratio | range | bar | met |\n| :-- | --: | --: | --: | :-- | --: | :-- |"
    sender.liteship(Blob.of_content(b"first"))  # brings the runtime

    def large() -> tuple[Path, Blob]:
        path = sender.work / "large" / "model.tflite"
        return path, random_file(path, FILE_BYTES)

    def images() -> tuple[Path, Blob]:
        folder = sender.work / "images"
        folder.mkdir(exist_ok=True)
        blob = random_file(sender.work / "validation.tar", IMAGE_BYTES * IMAGE_COUNT)
        with open(sender.work / "validation.tar", "rb") as tar:
            for number in range(IMAGE_COUNT):
                (folder / f"{number:04}.jpg").write_bytes(tar.read(IMAGE_BYTES))
        return folder, blob

    yield from compare(sender, rounds, large, 0.95, "one file of 60 MB")
    yield from compare(sender, rounds, images, 2.5, f"{IMAGE_COUNT} images of 25 kB (scp -r; one blob)")


def conditions(sender: Sender) -> Iterator[str]:
    """A slow link and a slow disk: reported, without a bar."""
    yield "\n## Other conditions, 60 MB, until active\n\n| condition | s | MB/s |\n| :-- | --: | --: |"
    yield _condition(sender, "as above")
    with FaultProxy(sender.target, delay_seconds=0.005).running() as proxy:
        yield _condition(sender, "proxy with 5 ms for each piece of 64 KiB", proxy.target)
    remote.STORE = OnSlowDisk(STORE.modules)
    try:
        yield _condition(sender, "disk of 20 MB/s and 30 ms a flush (a model of it, see this script)")
    finally:
        remote.STORE = STORE


def _condition(sender: Sender, what: str, target: Target | None = None) -> str:
    seconds = []
    for _ in range(3):
        blob = random_file(sender.work / "large" / "model.tflite", FILE_BYTES)
        seconds.append(sender.liteship(blob, target=target).active_seconds)
    return f"| {what} | {median(seconds):.2f} | {FILE_BYTES / MB / median(seconds):.0f} |"


def redeploys(sender: Sender) -> Iterator[str]:
    """Bytes and seconds of what little there is to do."""
    blobs = [random_file(sender.work / "twelve" / f"{number}.tflite", 2 * MB) for number in range(12)]
    sender.liteship(*blobs)
    blobs[7] = random_file(sender.work / "twelve" / "7.tflite", 2 * MB)
    changed = sender.liteship(*blobs).done
    same = sender.liteship(*blobs).done
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
    seconds, peaks = [], []
    for _ in range(10):
        begun = time.perf_counter()
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            peak = 0
            while process.poll() is None:
                peak = max(peak, peak_bytes(process.pid))
                time.sleep(0.01)
        seconds.append(time.perf_counter() - begun)
        peaks.append(peak / MB)
    yield (
        f"- `liteship deploy` of an unchanged study as a whole command on loopback: median {median(seconds):.2f} s "
        f"({min(seconds):.2f} to {max(seconds):.2f}) of 10; bar 1.5; peak memory {max(peaks):.0f} MB; bar 200"
    )


def peak_bytes(process: int) -> int:
    """VmHWM of a process; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return 0


def memory(work: Path) -> Iterator[str]:
    """Peak memory of a process that deploys a large model."""
    code = (
        "import sys; sys.argv = ['x', '--large', sys.argv[1]]; import runpy;"
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
    print(f"{peak_bytes(os.getpid()) / MB:.0f}")


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
