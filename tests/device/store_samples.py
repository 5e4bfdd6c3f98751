"""Releases of a few bytes, and the store run on them as on a target: its program over stdin, events on stdout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

from liteship.programs import PROBE, STORE, Program
from liteship_agent.store.events import EVENT_MARK

SMOKE_OK = """
import sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--folder") + 1])
with open(folder / "smokes", "a") as file:
    file.write("x")
print("noise")
print('\\x1eliteship {"event": "done", "ms": 1.5, "argv": %d}' % len(sys.argv))
"""
SMOKE_BAD = """print('\\x1eliteship {"event": "error", "message": "output is NaN"}')"""
SMOKE_DIES = "raise SystemExit('segfault or so')"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zip_of(main: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), main)
    return buffer.getvalue()


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with gzip.GzipFile("", "wb", 6, buffer, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = ""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, data


class Release:
    """What a host would send: an agent, one artefact, one runtime."""

    def __init__(self, smoke: str = SMOKE_OK, artefact: bytes = b"model" * 1000) -> None:
        source = b"VALUE = 1\n"
        listing = f"{sha256(source)}  pkg/__init__.py\n".encode()
        runtime = tar_of(member("pkg/__init__.py", source), member("SHA256SUMS", listing))
        self.blobs = [zip_of(smoke), artefact, runtime]
        self.content = {
            "runtimes": [{"folder": "lock-1", "sha256": sha256(runtime)}],
            "files": [
                {"path": "liteship_agent.zip", "sha256": sha256(self.blobs[0])},
                {"path": "artefacts/none-none.tflite", "sha256": sha256(artefact)},
            ],
        }
        self.text = json.dumps(self.content)
        self.id = sha256(self.text.encode())[:12]

    def stream(self, offsets: tuple[int, ...] = (0, 0, 0), **changes: object) -> bytes:
        """What a host sends: all blobs, each from its offset."""
        blobs = [{"sha256": sha256(b), "size": len(b), "offset": o} for b, o in zip(self.blobs, offsets)]
        header = {"blobs": blobs, "release_bytes": self.text, "time": "2026-11-22T12:00:00Z", **changes}
        return pack_header(header) + b"".join(b[o:] for b, o in zip(self.blobs, offsets))


def pack_header(header: dict) -> bytes:
    packed = zlib.compress(json.dumps(header).encode())
    return f"{len(packed)}\n".encode() + packed


def program(verb: str) -> Program:
    return PROBE if verb == "probe" else STORE


def command(verb: str, folder: Path) -> list[str]:
    arguments = [str(folder)] if verb == "probe" else [verb, str(folder)]
    return [sys.executable, "-I", "-S", "-B", "-c", program(verb).loader, *arguments]


def run(verb: str, folder: Path, data: bytes = b"", **options: object) -> tuple[int, list[dict]]:
    """Exit status and events of a verb, run as on a target."""
    sent = program(verb).packed + data
    result = subprocess.run(command(verb, folder), input=sent, capture_output=True, timeout=60, **options)
    lines = [line.partition(EVENT_MARK)[2] for line in result.stdout.splitlines()]
    events = [json.loads(line) for line in lines if line]
    assert events, result.stderr.decode()
    return result.returncode, events


def answer(verb: str, folder: Path, data: bytes = b"") -> dict:
    status, events = run(verb, folder, data)
    begins = ["inventory"] if verb == "deploy" and len(events) > 1 else []
    assert [event["event"] for event in events[:-1]] == begins + ["progress"] * (len(events) - 1 - len(begins))
    assert (status == 0) == (events[-1]["event"] == "done")
    return events[-1]


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def temporary_names(folder: Path) -> list[str]:
    """Everything that must not be there after a deploy that went well."""
    partial = folder / "blobs" / ".partial"
    return [str(path) for path in folder.rglob("*") if "tmp" in path.name or path.parent == partial]
