"""Which TFLite runtime a target gets, and the site folder that holds it, assembled here so that nothing has to be
installed there.

A runtime fits when the target's Python has a lock for it and the C library is new enough for its shared objects; the
platform tag of a wheel may ask for more than the wheel needs, so that it does not decide.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from liteship.errors import LinkError, UsageError
from liteship_agent.release import ReleaseRuntime

AUTO = "auto"
_MACHINES = ("aarch64", "x86_64")
_NEWEST_GLIBC_TAG = 39
# Parts of the wheels that inference of a file does not touch: compilers, GPU back-ends, tools, tests, headers.
_NOT_NEEDED = (
    "bin",
    "ai_edge_litert/aot",
    "ai_edge_litert/tools",
    "ai_edge_litert/vendors",
    "ai_edge_litert/libLiteRt.so",
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "cv2/data",
    "numpy/f2py",
    "numpy/_core/include",
    "numpy/core/include",
)
# RECORD has hashes of scripts that name the host's interpreter: with it no two hosts would pack the same bytes.
_NOT_NEEDED_NAMES = ("tests", "__pycache__", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
_NOT_NEEDED_SUFFIXES = (".pyi", ".a", ".h")


@dataclass(frozen=True)
class Runtime:
    """A runtime that liteship knows.

    Args:
        name, version: Of the distribution.
        glibc: Least version of the C library, from the symbols that its shared objects need on aarch64.
    """

    name: str
    version: str
    glibc: tuple[int, int]

    @property
    def requirement(self) -> str:
        """For example "ai-edge-litert==2.3.0"."""
        return f"{self.name}=={self.version}"


# In order of preference.
RUNTIMES = (
    Runtime("ai-edge-litert", "2.3.0", (2, 34)),
    Runtime("ai-edge-litert", "2.1.0", (2, 30)),
    Runtime("tflite-runtime", "2.14.0", (2, 27)),
)


@dataclass(frozen=True)
class Interpreter:
    """The Python of a target, as it tells itself.

    Args:
        version: (major, minor).
        machine: Of its ELF header, "aarch64" under a 64-bit system whatever the kernel says.
        word_bits: 32 or 64.
        glibc: Version of the C library, None where it is another one.
    """

    version: tuple[int, int]
    machine: str
    word_bits: int
    glibc: tuple[int, int] | None

    @classmethod
    def of(cls, probe: Mapping[str, Any]) -> Interpreter:
        """From the answer of the store's `probe`."""
        major, minor = probe["python_version"].split(".")[:2]
        libc = probe["libc"]
        glibc = tuple(int(part) for part in libc[1].split(".")[:2]) if libc and libc[0] == "glibc" else None
        return cls((int(major), int(minor)), probe["machine"], probe["word_bits"], glibc)  # type: ignore[arg-type]

    @property
    def tag(self) -> str:
        """For example "cp311"."""
        return f"cp{self.version[0]}{self.version[1]}"

    def describe(self) -> str:
        """For messages."""
        libc = "glibc " + ".".join(map(str, self.glibc)) if self.glibc else "no glibc"
        return f"Python {self.version[0]}.{self.version[1]}, {self.word_bits}-bit {self.machine}, {libc}"


def named_runtimes(wanted: str) -> list[Runtime]:
    """The runtimes that a name may mean, in order of preference.

    Args:
        wanted: "auto", a name, or name==version; the last part of the version may be left out.

    Raises:
        UsageError: no runtime of that name is known.
    """
    named = [
        runtime
        for runtime in RUNTIMES
        if wanted in (AUTO, runtime.name, runtime.requirement) or runtime.requirement.startswith(f"{wanted}.")
    ]
    if not named:
        known = ", ".join(dict.fromkeys([AUTO, *(r.name for r in RUNTIMES), *(r.requirement for r in RUNTIMES)]))
        raise UsageError(f"A runtime of {known} is required. Received: {wanted}.")
    return named


def choose_runtime(interpreter: Interpreter, wanted: str) -> Runtime:
    """The runtime for a target.

    Args:
        interpreter: Of the target.
        wanted: "auto" (the newest LiteRT that fits, else tflite-runtime), a name, or name==version.

    Raises:
        UsageError: no runtime of that name is known.
        LinkError: none fits the target.
    """
    named = named_runtimes(wanted)
    if interpreter.word_bits != 64 or interpreter.machine not in _MACHINES:
        raise LinkError(
            f"A 64-bit Python for {' or '.join(_MACHINES)} is required on the target. "
            f"Received: {interpreter.describe()}.",
            "Use a 64-bit system, such as Raspberry Pi OS (64-bit), or name another interpreter as `python`.",
        )
    for runtime in named:
        if _lock(runtime, interpreter) and interpreter.glibc and interpreter.glibc >= runtime.glibc:
            return runtime
    offers = "; ".join(f"{runtime.requirement} ({_needs(runtime)})" for runtime in named)
    raise LinkError(
        f"A target with what a runtime needs is required: {offers}. Received: {interpreter.describe()}.",
        "Name another interpreter of the target as `python`, or another runtime.",
    )


def _lock(runtime: Runtime, interpreter: Interpreter) -> str | None:
    """Pinned requirements of the site folder, or None where the runtime has no wheel for that Python."""
    name = f"{runtime.name}-{runtime.version}-{interpreter.tag}.txt"
    path = resources.files("liteship").joinpath("runtimes", name)
    return path.read_text() if path.is_file() else None


def _needs(runtime: Runtime) -> str:
    names = [path.name for path in resources.files("liteship").joinpath("runtimes").iterdir()]
    prefix = f"{runtime.name}-{runtime.version}-cp3"
    minors = sorted(int(name[len(prefix) : -len(".txt")]) for name in names if name.startswith(prefix))
    pythons = ", ".join(f"3.{minor}" for minor in minors)
    return f"Python {pythons}, glibc {runtime.glibc[0]}.{runtime.glibc[1]} or newer"


@dataclass(frozen=True)
class PackedRuntime:
    """A site folder in one file.

    Args:
        runtime: What it holds.
        folder: Its name under runtimes/ on the target.
        path: The packed file in the host's cache.
        sha256: Of that file.
        unpacked_bytes: Of the files in it.
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

    Args:
        runtime: That `choose_runtime` chose.
        interpreter: Of the target.
        cache: Folder for packed runtimes.

    Raises:
        LinkError: the wheels cannot be fetched.
    """
    lock = _lock(runtime, interpreter) or ""
    recipe = "\n".join([lock, interpreter.machine, *_NOT_NEEDED, *_NOT_NEEDED_NAMES, *_NOT_NEEDED_SUFFIXES])
    key = hashlib.sha256(recipe.encode()).hexdigest()[:12]
    folder = f"{runtime.name}-{runtime.version}-{interpreter.tag}-{interpreter.machine}-{key}"
    path = cache / f"{folder}.tar.gz"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=f".{folder}-") as work:
            site = Path(work, "site")
            _install(lock, interpreter, site, Path(work))
            _trim(site)
            _pack(site, Path(work, "packed"))
            os.replace(Path(work, "packed"), path)
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(-4, os.SEEK_END)
        unpacked_bytes = int.from_bytes(file.read(4), "little")
    return PackedRuntime(runtime, folder, path, sha256, unpacked_bytes)


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


def _trim(site: Path) -> None:
    """Remove what a board never uses."""
    for name in _NOT_NEEDED:
        path = site / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted(site.rglob("*")):
        if not path.exists() or (path.name not in _NOT_NEEDED_NAMES and path.suffix not in _NOT_NEEDED_SUFFIXES):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _pack(site: Path, path: Path) -> None:
    """One tar.gz whose bytes depend on the files only."""
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for file in sorted(path for path in site.rglob("*") if path.is_file()):
            member = tarfile.TarInfo(str(file.relative_to(site)))
            member.size, member.mode = file.stat().st_size, 0o644
            with open(file, "rb") as content:
                archive.addfile(member, content)
