"""The site folder of a runtime, assembled and packed on the host: wheels of the target's machine, without what a board
never uses, as one file in a cache.

The file's first member is SHA256SUMS, with a line per other member; the target checks its unpacked runtime by it, and
the host a cached file of which nothing is known any more. What is known stands in a sidecar beside the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import hashlib
import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from liteship.errors import LinkError
from liteship.provision.choose import Interpreter, Runtime
from liteship.provision.needs import objects_digest, read_needs, runtime_data
from liteship_agent.release import ReleaseRuntime

LISTING = "SHA256SUMS"
_NEWEST_GLIBC_TAG = 39
# A board's CPU is slower than its link: gzip. The libraries of a PC are larger, and it unpacks xz in seconds.
_SUFFIXES = {"aarch64": ".tar.gz", "x86_64": ".tar.xz"}
_BLOCK_BYTES = 4096
_PIECE_BYTES = 1 << 20
# Parts of the wheels that neither inference nor images nor cameras touch: compilers, GPU back-ends, tools, headers.
_NOT_NEEDED = (
    "bin",
    "ai_edge_litert/aot",
    "ai_edge_litert/tools",
    "ai_edge_litert/vendors",
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "cv2/data",
    "numpy/_core/include",
    "numpy/_pyinstaller",
    "numpy/array_api",
    "numpy/core/include",
    "numpy/distutils",
    "numpy/doc",
    "numpy/f2py",
)
# In 2.1.0 the interpreter is linked against this library; 2.3.0 brings it for programs in C++ only.
_NOT_NEEDED_IN = {"ai-edge-litert==2.3.0": ("ai_edge_litert/libLiteRt.so",)}
# RECORD has hashes of scripts that name the host's interpreter: with it no two hosts would pack the same bytes.
_NOT_NEEDED_NAMES = ("tests", "__pycache__", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_NOT_NEEDED_SUFFIXES = (".pyi", ".a", ".h")


@dataclass(frozen=True)
class PackedRuntime:
    """A site folder in one file.

    Args:
        runtime: What it holds.
        folder: Its name under runtimes/ on the target.
        path: The packed file in the host's cache.
        sha256: Of that file.
        unpacked_bytes: That it takes on the target's disk, byte-compiled.
    """

    runtime: Runtime
    folder: str
    path: Path
    sha256: str
    unpacked_bytes: int

    def reference(self) -> ReleaseRuntime:
        """As a release names it."""
        return ReleaseRuntime(self.folder, self.sha256)


def pack_runtime(runtime: Runtime, interpreter: Interpreter, cache: Path) -> PackedRuntime:
    """Assemble, trim and pack the site folder of a runtime, or take it from the cache.

    Processes that want the same file at once wait for the first one to make it.

    Args:
        runtime: That `choose_runtime` chose.
        interpreter: Of the target.
        cache: Folder for packed runtimes.

    Raises:
        LinkError: the wheels cannot be fetched, or have other shared objects than those whose needs are known.
    """
    folder = f"{runtime.lock_name(interpreter.tag)}-{interpreter.machine}-{_recipe_key(runtime, interpreter)}"
    path = cache / f"{folder}{_SUFFIXES[interpreter.machine]}"
    known = _read_sidecar(path)
    if known is None:
        cache.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(cache):
            known = _read_sidecar(path)
            if known is None:
                unpacked_bytes = _read_members(path)
                if unpacked_bytes is None:
                    unpacked_bytes = _assemble_packed(runtime, interpreter, path)
                known = _write_sidecar(path, unpacked_bytes)
    return PackedRuntime(runtime, folder, path, known.sha256, known.unpacked_bytes)


def assemble_site(runtime: Runtime, interpreter: Interpreter, site: Path, work: Path) -> dict[str, str]:
    """Fetch the wheels of a runtime into a new folder, and remove what a board never uses.

    Args:
        runtime: That has a lock for the interpreter.
        interpreter: Of the target.
        site: The folder; it does not exist yet.
        work: Folder for temporary files.
    Returns:
        sha256 by relative path of every file, in order of the paths.
    Raises:
        LinkError: the wheels cannot be fetched.
    """
    _install(_lock(runtime, interpreter), interpreter, site, work)
    _trim(site, (*_NOT_NEEDED, *_NOT_NEEDED_IN.get(runtime.requirement, ())))
    listing = {}
    for name in sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()):
        with open(site / name, "rb") as content:
            listing[name] = _digest(content)
    return listing


def _recipe_key(runtime: Runtime, interpreter: Interpreter) -> str:
    """Of everything that decides about the bytes of the packed file."""
    rules = (*_NOT_NEEDED, *_NOT_NEEDED_IN.get(runtime.requirement, ()), *_NOT_NEEDED_NAMES, *_NOT_NEEDED_SUFFIXES)
    recipe = "\n".join([_lock(runtime, interpreter), interpreter.machine, LISTING, *rules])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _lock(runtime: Runtime, interpreter: Interpreter) -> str:
    """Pinned requirements of the site folder."""
    return runtime_data().joinpath(f"{runtime.lock_name(interpreter.tag)}.txt").read_text()


# --- assembling ---


def _assemble_packed(runtime: Runtime, interpreter: Interpreter, path: Path) -> int:
    """Make the packed file, which has its name only when it is whole and flushed; tells its unpacked size in bytes."""
    prefix = f".{path.name}-"
    for leftover in path.parent.glob(f"{prefix}*"):  # of a process that was killed: here nobody else is at work
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix) as work:
        site, packed = Path(work, "site"), Path(work, "packed")
        listing = assemble_site(runtime, interpreter, site, Path(work))
        _require_known_objects(runtime, interpreter, listing)
        _pack(site, listing, packed, _SUFFIXES[interpreter.machine])
        os.replace(packed, path)
        return sum(_unpacked_bytes(name, (site / name).stat().st_size) for name in listing)


def _require_known_objects(runtime: Runtime, interpreter: Interpreter, listing: Mapping[str, str]) -> None:
    """The pinned needs hold for the very shared objects that they were read from."""
    name = runtime.lock_name(interpreter.tag)
    required, received = read_needs(name, interpreter.machine).objects_sha256, objects_digest(listing)
    if received != required:
        raise LinkError(
            f"{name} for {interpreter.machine}: the shared objects whose needs are known ({required[:12]}) "
            f"are required. Received: others ({received[:12]}).",
            "In a checkout of liteship, make lock reads anew what they need.",
        )


@contextlib.contextmanager
def _one_at_a_time(cache: Path) -> Iterator[None]:
    """Wait for other processes and threads that assemble in this cache; the lock ends with its process."""
    descriptor = os.open(cache, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _install(lock: str, interpreter: Interpreter, site: Path, work: Path) -> None:
    """Let pip put the wheels of another machine into a folder."""
    requirements = work / "requirements.txt"
    requirements.write_text(lock)
    platforms = [f"manylinux_2_{minor}_{interpreter.machine}" for minor in range(_NEWEST_GLIBC_TAG, 16, -1)]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--no-compile", "--require-hashes", "--only-binary=:all:", "--target", str(site)]
    command += ["--python-version", "{}.{}".format(*interpreter.version), "--implementation", "cp"]
    for abi in (interpreter.tag, "abi3", "none"):
        command += ["--abi", abi]
    for platform in [*platforms, f"manylinux2014_{interpreter.machine}"]:
        command += ["--platform", platform]
    ended = subprocess.run([*command, "-r", str(requirements)], capture_output=True, text=True, check=False)
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")] or ended.stderr.splitlines()
        raise LinkError(
            f"The wheels of the target's runtime are required. Received from pip: {lines[0] if lines else 'nothing'}",
            "They are fetched once and cached; a package index must be reachable that once.",
        )


def _trim(site: Path, not_needed: tuple[str, ...]) -> None:
    """Remove what a board never uses."""
    unnamed = (
        path for path in site.rglob("*") if path.name in _NOT_NEEDED_NAMES or path.suffix in _NOT_NEEDED_SUFFIXES
    )
    for path in [*(site / name for name in not_needed), *unnamed]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _pack(site: Path, listing: Mapping[str, str], path: Path, suffix: str) -> None:
    """One compressed tar whose bytes depend on the files only, flushed to the disk."""
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in listing.items()).encode()
    with open(path, "wb") as raw:
        with (
            _compressed(raw, suffix) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.addfile(_member(LISTING, len(lines)), io.BytesIO(lines))
            for name in listing:
                with open(site / name, "rb") as content:
                    archive.addfile(_member(name, (site / name).stat().st_size), content)
        raw.flush()
        os.fsync(raw.fileno())


def _compressed(raw: BinaryIO, suffix: str) -> gzip.GzipFile | lzma.LZMAFile:
    if suffix == ".tar.xz":
        return lzma.LZMAFile(raw, "wb", preset=0)
    return gzip.GzipFile("", "wb", 6, raw, mtime=0)


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    return member


# --- what is known about a packed file ---


@dataclass(frozen=True)
class _Known:
    """About a packed file that has this size in bytes and this time of its last change."""

    sha256: str
    unpacked_bytes: int
    size_bytes: int
    modified_ns: int


def _read_sidecar(path: Path) -> _Known | None:
    """What the sidecar says about the packed file, None unless it is about this very one."""
    try:
        status, known = path.stat(), _Known(**json.loads(_sidecar(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return known if (known.size_bytes, known.modified_ns) == (status.st_size, status.st_mtime_ns) else None


def _write_sidecar(path: Path, unpacked_bytes: int) -> _Known:
    """Hash a packed file and note what is known about it."""
    with open(path, "rb") as file:
        sha256 = _digest(file)
        status = os.fstat(file.fileno())
    known = _Known(sha256, unpacked_bytes, status.st_size, status.st_mtime_ns)
    temporary = _sidecar(path).with_suffix(".tmp")
    temporary.write_text(json.dumps(vars(known)))
    os.replace(temporary, _sidecar(path))
    return known


def _read_members(path: Path) -> int | None:
    """Unpacked size in bytes of a packed file; None where it is not there, or has other members than it lists."""
    unpacked_bytes = 0
    listing: dict[str, str] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member)
                if content is None:
                    return None
                if member.name == LISTING:
                    listing = _parse_listing(content.read())
                    continue
                if listing.pop(member.name, None) != _digest(content):
                    return None
                unpacked_bytes += _unpacked_bytes(member.name, member.size)
            while archive.fileobj is not None and archive.fileobj.read(_PIECE_BYTES):
                continue  # the checksum of the compressed stream comes last
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError):
        return None
    return unpacked_bytes if unpacked_bytes and not listing else None


def _parse_listing(content: bytes) -> dict[str, str]:
    return {name: sha256 for sha256, _, name in (line.partition("  ") for line in content.decode().splitlines())}


def _unpacked_bytes(name: str, size: int) -> int:
    """That a file takes on the target's disk; Python source is there once more, byte-compiled."""
    blocks = -(-size // _BLOCK_BYTES)
    return blocks * _BLOCK_BYTES * (2 if name.endswith(".py") else 1)


def _digest(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while piece := content.read(_PIECE_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
