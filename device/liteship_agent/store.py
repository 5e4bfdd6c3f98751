"""The liteship folder of a target: what is in it, and how a release gets into it.

The host sends the source text of this one file over stdin and executes it with the target's own Python before any
release exists there; it therefore imports the standard library only, and nothing of liteship_agent. The rest of stdin
is data. Answers are event lines on stdout, any number of `progress` and then one `done` or `error`:

    EVENT_MARK, a JSON object, a line feed

A deploy goes: lock, space, receive every blob into blobs/.partial, verify its sha256, rename it; unpack runtimes; link
the release together from blobs; run its smoke inference; switch `current` with one rename. Whatever fails on the way,
`current` stays what it was and only .partial files remain, from which the next deploy goes on.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import tarfile
import threading
import zlib
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Callable, Dict, Iterator

EVENT_MARK = b"\x1eliteship "
MIB = 1 << 20
MARGIN_BYTES = 16 * MIB
SMOKE_SECONDS = 300.0
HEARTBEAT_SECONDS = 10.0

Event = Dict[str, Any]
Emit = Callable[[Event], None]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_RELEASE_ID = re.compile(r"[0-9a-f]{12}")
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_STDOUT_LOCK = threading.Lock()


class StoreError(Exception):
    """The folder cannot be used as asked.

    Args:
        kind: One word for programs: space, hash, permission, locked, link, missing, archive, protocol, smoke or io.
        message: What was required and what was received, one line.
        hint: What to do next, or empty.
    """

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        self.kind, self.message, self.hint = kind, " ".join(message.split()), hint
        super().__init__(self.message)


def emit(event: Event) -> None:
    """Write one event line to stdout at once."""
    line = EVENT_MARK + json.dumps(event).encode("ascii") + b"\n"
    with _STDOUT_LOCK:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


@contextlib.contextmanager
def heartbeat(stage: str, report: Emit) -> Iterator[None]:
    """Report `stage` every few seconds while the body runs, so that the host knows a silent target from a lost one."""
    finished = threading.Event()

    def beat() -> None:
        with contextlib.suppress(OSError):  # a lost link is found by the next report of the body
            report({"event": "progress", "stage": stage})
            while not finished.wait(HEARTBEAT_SECONDS):
                report({"event": "progress", "stage": stage})

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join()


# --- probe ---------------------------------------------------------------------------------------------------------


def probe(folder: Path) -> Event:
    """Everything the host wants to know before it sends a release; reads no blob and creates nothing."""
    machine, word_bits = elf_machine(_read_head(Path("/proc/self/exe")) or _read_head(Path(sys.executable)))
    return {
        "python_version": ".".join(str(part) for part in sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "machine": machine,
        "word_bits": word_bits,
        "soabi": sysconfig.get_config_var("SOABI"),
        "libc": _libc(),
        "free_bytes": shutil.disk_usage(_nearest_existing(folder)).free,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cpu_count": os.cpu_count(),
        "cpu_flags": _cpu_flags(),
        "board_model": _read_text(Path("/proc/device-tree/model")).strip("\0\n ") or None,
        "kernel": os.uname().release,
        "folder": str(folder),
        **inventory(folder),
    }


def elf_machine(header: bytes) -> tuple[str, int]:
    """Name and word size of an ELF file, from its first 20 bytes.

    The kernel's word is no help: `uname -m` says aarch64 under a 32-bit userland too.

    Returns:
        For example ("aarch64", 64) or ("armv7l", 32); ("unknown", this interpreter's word size) for another format.
    """
    if len(header) < 20 or header[:4] != b"\x7fELF":
        return "unknown", struct.calcsize("P") * 8
    (code,) = struct.unpack_from("<H" if header[5] == 1 else ">H", header, 18)
    names = {3: "i686", 8: "mips", 21: "ppc64", 22: "s390x", 40: "armv7l", 62: "x86_64", 183: "aarch64", 243: "riscv"}
    return names.get(code, f"elf-{code}"), 64 if header[4] == 2 else 32


def inventory(folder: Path) -> Event:
    """What the folder holds: blobs and partial {sha256: bytes}, runtimes, releases, and the current release or None."""
    current = folder / "current"
    active = os.path.basename(os.readlink(current)) if current.is_symlink() else None
    return {
        "blobs": _sizes(folder / "blobs"),
        "partial": _sizes(folder / "blobs" / ".partial"),
        "runtimes": sorted(path.name for path in _entries(folder / "runtimes") if _FOLDER_NAME.fullmatch(path.name)),
        "releases": sorted(path.name for path in _entries(folder / "releases") if _RELEASE_ID.fullmatch(path.name)),
        "current": active,
    }


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(_entries(folder)) if _SHA256.fullmatch(path.name)}


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _libc() -> list[str] | None:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        return None
    return version.split(" ", 1) if version else None


def _cpu_flags() -> list[str]:
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", _read_text(Path("/proc/cpuinfo")), re.MULTILINE)
    return match.group(1).split() if match else []


def _read_head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(20)
    except OSError:
        return b""


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# --- deploy --------------------------------------------------------------------------------------------------------


def deploy(folder: Path, stream: BinaryIO, report: Emit) -> Event:
    """Take in one release and make it current.

    Args:
        folder: The liteship folder; created when absent.
        stream: One header line of JSON {"blobs": [{"sha256", "size", "offset"}], "release_bytes", "time",
            "unpacked_bytes"}, then the bytes of the blobs in that order, each from its offset.
        report: Takes progress events.
    Returns:
        {"release", "activated", "smoke"}; not activated when it was current already.
    Raises:
        StoreError: the release was not taken; the one that was current still is.
    """
    header = read_header(stream)
    data = header["release_bytes"].encode()
    release, release_id = header["release"], hashlib.sha256(data).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "deploy.lock"):
        remove_leftovers(folder)
        was_current = inventory(folder)["current"] == release_id
        if was_current and not header["blobs"] and (folder / "releases" / release_id).is_dir():
            return {"release": release_id, "activated": False, "smoke": None}
        require_space(folder, header)
        receive(folder, header["blobs"], stream, report)
        for runtime in release["runtimes"]:
            with heartbeat("runtime", report):
                unpack_runtime(folder, runtime["folder"], runtime["sha256"])
        is_new = build_release(folder, release, release_id, data)
        try:
            with heartbeat("smoke", report):
                smoke = run_smoke(folder, release_id)
        except BaseException:
            if is_new:
                shutil.rmtree(folder / "releases" / release_id)
            raise
        if not was_current:
            activate(folder, release_id, header["time"])
        return {"release": release_id, "activated": not was_current, "smoke": smoke}


def read_header(stream: BinaryIO) -> Event:
    """The header line, checked, with the parsed release.json under "release".

    Raises:
        StoreError: no header came, or a name in it could lead out of the folder.
    """
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise StoreError("link", "A deploy header is required. Received: end of the stream")
    try:
        header: Event = json.loads(line)
        release = json.loads(header["release_bytes"])
        header["release"] = {"runtimes": release["runtimes"], "files": release["files"]}
        valid = (
            isinstance(header["time"], str)
            and isinstance(header.setdefault("unpacked_bytes", 0), int)
            and all(_SHA256.fullmatch(x["sha256"]) for x in header["blobs"] + release["runtimes"] + release["files"])
            and all(0 <= blob["offset"] <= blob["size"] for blob in header["blobs"])
            and all(_FOLDER_NAME.fullmatch(runtime["folder"]) for runtime in release["runtimes"])
            and all(_is_safe(file["path"]) for file in release["files"])
        )
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreError("protocol", f"A deploy header is required. Received: {exc!r}") from exc
    if not valid:
        raise StoreError("protocol", "Names inside the folder and sizes are required. Received: a header with others")
    return header


def _is_safe(path: str) -> bool:
    """Is it a plain relative path that does not climb and is not release.json itself?"""
    pure = PurePosixPath(path)
    return str(pure) == path and not pure.is_absolute() and ".." not in pure.parts and path not in (".", "release.json")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock on a file; it ends with this process at the latest.

    Raises:
        StoreError: another process holds it.
    """
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StoreError("locked", f"{path} is required to be free. Received: another deploy is running") from exc
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary names that a power cut left behind."""
    for path in (*folder.glob("runtimes/.tmp-*"), *folder.glob("releases/.tmp-*")):
        shutil.rmtree(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(folder / "current.tmp")


def require_space(folder: Path, header: Event) -> None:
    """Raise a StoreError of kind space unless what is to come fits, with a margin."""
    coming = sum(blob["size"] - blob["offset"] for blob in header["blobs"])
    needed = coming + header["unpacked_bytes"] + MARGIN_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            "space",
            f"{needed / MIB:.1f} MiB of free space in {folder} is required. Received: {free / MIB:.1f} MiB",
            "Free some space on the target, or set `folder` to another disk.",
        )


def receive(folder: Path, blobs: list[Event], stream: BinaryIO, report: Emit) -> None:
    """Read the blobs from the stream, verify them and give them their names."""
    (folder / "blobs" / ".partial").mkdir(parents=True, exist_ok=True)
    received = reported = 0
    for blob in blobs:
        for count in _receive_blob(folder, blob, stream):
            received += count
            if received - reported >= MIB:
                reported = received
                report({"event": "progress", "stage": "receive", "received": received})


def _receive_blob(folder: Path, blob: Event, stream: BinaryIO) -> Iterator[int]:
    """Append one blob to its partial file, yielding the size of each piece, then verify and rename it."""
    partial = folder / "blobs" / ".partial" / blob["sha256"]
    digest = hashlib.sha256()
    with open(partial, "a+b") as file:
        length = file.seek(0, os.SEEK_END)
        if length > blob["size"]:
            partial.unlink()  # damaged: nothing can complete it
        if length != blob["offset"]:
            raise StoreError("hash", f"{partial} of {blob['offset']} bytes is required. Received: {length} bytes")
        file.seek(0)
        for piece in iter(lambda: file.read(MIB), b""):
            digest.update(piece)
        remaining = blob["size"] - length
        while remaining:
            piece = stream.read1(min(remaining, MIB))  # type: ignore[attr-defined]  # what is there, without waiting
            if not piece:
                raise StoreError("link", f"{remaining} more bytes are required. Received: end of the stream")
            file.write(piece)
            digest.update(piece)
            remaining -= len(piece)
            yield len(piece)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != blob["sha256"]:
        partial.unlink()
        raise StoreError("hash", f"sha256 {blob['sha256']} is required. Received: {digest.hexdigest()}")
    os.replace(partial, folder / "blobs" / blob["sha256"])
    _sync_folder(folder / "blobs")


def unpack_runtime(folder: Path, name: str, sha256: str) -> None:
    """Unpack and byte-compile runtimes/<name> from its blob unless it is there; the blob is not needed afterwards."""
    final, temporary = folder / "runtimes" / name, folder / "runtimes" / f".tmp-{name}"
    blob = folder / "blobs" / sha256
    if not final.is_dir():
        try:
            unpack(_require_blob(blob, f"runtimes/{name}"), temporary)
            _compile(temporary, final)
            os.sync()  # one flush for thousands of small files
            os.rename(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync_folder(final.parent)
    blob.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz into a new folder; nothing is ever written outside of it.

    Raises:
        StoreError: the archive is damaged, or a member or link leads out of the folder or is no plain file.
    """
    folder.mkdir(parents=True)
    root = os.path.realpath(folder)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                _unpack_member(tar, member, root)
    except (tarfile.TarError, EOFError, zlib.error) as exc:
        raise StoreError("archive", f"{archive} is required to be a tar.gz. Received: {exc}") from exc


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, root: str) -> None:
    path = os.path.join(root, member.name)
    _require_inside(os.path.realpath(path), root, member.name)
    if member.isdir():
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    source = tar.extractfile(member) if member.isreg() else None
    if source is not None:
        with source, open(path, "wb") as file:
            shutil.copyfileobj(source, file, MIB)
        os.chmod(path, 0o644 | (member.mode & 0o111))
    elif member.issym():
        target = os.path.join(os.path.dirname(path), member.linkname)
        _require_inside(os.path.realpath(target), root, f"{member.name} -> {member.linkname}")
        os.symlink(member.linkname, path)
    else:
        raise StoreError("archive", f"A file, folder or symbolic link is required. Received: {member.name}")


def _require_inside(path: str, root: str, name: str) -> None:
    if path != root and not path.startswith(root + os.sep):
        raise StoreError("archive", f"A member inside the archive's folder is required. Received: {name}")


def _compile(folder: Path, final: Path) -> None:
    """Byte-compile once; a file that does not compile is left for the import that wants it."""
    options = ["-q", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", str(final)]
    command = [sys.executable, "-I", "-S", "-m", "compileall", *options, str(folder)]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def build_release(folder: Path, release: Event, release_id: str, data: bytes) -> bool:
    """Make releases/<id> from release.json and hard links into blobs/; False when it is there already."""
    final, temporary = folder / "releases" / release_id, folder / "releases" / f".tmp-{release_id}"
    if final.is_dir():
        return False
    try:
        temporary.mkdir(parents=True)
        with open(temporary / "release.json", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        for item in release["files"]:
            path = temporary / item["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(_require_blob(folder / "blobs" / item["sha256"], item["path"]), path)
        for path in (temporary, *(path for path in temporary.rglob("*") if path.is_dir())):
            _sync_folder(path)
        os.rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync_folder(final.parent)
    return True


def _require_blob(blob: Path, what: str) -> Path:
    if not blob.is_file():
        raise StoreError("missing", f"blob {blob.name} ({what}) is required. Received: nothing")
    return blob


def run_smoke(folder: Path, release_id: str) -> Event:
    """Run the release's smoke inference in a process of its own and return what it found.

    Raises:
        StoreError: it failed, ended without an answer or took too long.
    """
    agent = folder / "releases" / release_id / "liteship_agent.zip"
    command = [sys.executable, "-I", "-S", "-B", str(agent), "smoke", "--folder", str(folder), "--release", release_id]
    try:
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SMOKE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise StoreError("smoke", f"A smoke inference within {SMOKE_SECONDS:.0f} s is required.") from exc
    answer = _last_event(result.stdout)
    if answer.get("event") == "error":
        raise StoreError("smoke", str(answer.get("message")), str(answer.get("hint", "")))
    if result.returncode != 0 or answer.pop("event", None) != "done":
        last = result.stderr.decode(errors="replace").strip().rsplit("\n", 1)[-1]
        raise StoreError(
            "smoke", f"A smoke inference that ends well is required. Received: exit status {result.returncode} {last}"
        )
    return answer


def _last_event(output: bytes) -> Event:
    """The last event line of an output, or an empty event."""
    for line in reversed(output.split(b"\n")[:-1]):
        _, mark, text = line.partition(EVENT_MARK)
        if mark:
            event: Event = json.loads(text)
            return event
    return {}


def activate(folder: Path, release_id: str, time: str) -> None:
    """Point `current` to a release with one rename and note it in the history."""
    os.symlink(os.path.join("releases", release_id), folder / "current.tmp")
    os.replace(folder / "current.tmp", folder / "current")
    _sync_folder(folder)
    with open(folder / "history.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"time": time, "release": release_id, "action": "activate"}) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- command -------------------------------------------------------------------------------------------------------


def main(arguments: list[str], stream: BinaryIO) -> int:
    """Run one verb and answer with a final event; returns the exit status."""
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    try:
        verb, name = arguments
        folder = Path(os.path.abspath(os.path.expanduser(name)))
        if verb == "probe":
            answer = probe(folder)
        elif verb == "deploy":
            answer = deploy(folder, stream, emit)
        else:
            raise StoreError("protocol", f"probe or deploy is required. Received: {verb}")
    except StoreError as exc:
        return _fail(exc)
    except OSError as exc:
        return _fail(_wrapped(exc))
    emit({"event": "done", **answer})
    return 0


def _interrupted(number: int, frame: Any) -> None:
    raise StoreError("link", f"An uninterrupted deploy is required. Received: {signal.Signals(number).name}")


def _fail(error: StoreError) -> int:
    with contextlib.suppress(OSError):  # nobody may be listening any more
        emit({"event": "error", "kind": error.kind, "message": error.message, "hint": error.hint})
    return 1


def _wrapped(error: OSError) -> StoreError:
    where = error.filename or "the liteship folder"
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError("space", f"Free space at {where} is required. Received: {reason}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError("permission", f"Access to {where} is required. Received: {reason}")
    kind = "link" if isinstance(error, BrokenPipeError) else "io"
    return StoreError(kind, f"{where} is required to be usable. Received: {reason}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], sys.stdin.buffer))
