"""Site folders of runtimes: unpacked from their blob, byte-compiled once, and named when they are flushed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

from liteship_agent.store.events import MIB, StoreError
from liteship_agent.store.inventory import DAMAGED, runtime_names

_DAMAGED_ARCHIVE: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, zlib.error)
try:
    import lzma
except ImportError:  # a Python that was built without it; tarfile says so where a runtime needs it
    pass
else:
    _DAMAGED_ARCHIVE += (lzma.LZMAError,)


def prepare_runtime(folder: Path, name: str, blob: Path) -> bool:
    """Unpack and byte-compile a runtime under a temporary name.

    Args:
        folder: The liteship folder.
        name: Of the runtime under runtimes/.
        blob: The packed runtime, which need not exist where the runtime is there.
    Returns:
        Whether it is new and waits for its name.
    Raises:
        StoreError: it is not there and did not come, or is damaged.
    """
    if name in runtime_names(folder):
        return False
    if not blob.exists():
        raise StoreError("missing", f"The blob of runtimes/{name} is required. Received: nothing")
    temporary = folder / "runtimes" / f".tmp-{name}"
    unpack(blob, temporary)
    _compile(temporary, folder / "runtimes" / name)
    return True


def name_runtime(folder: Path, name: str) -> None:
    """Give a prepared runtime, which is flushed, its name; one that was found damaged makes room for it."""
    final, temporary = folder / "runtimes" / name, folder / "runtimes" / f".tmp-{name}"
    mark = final.with_name(name + DAMAGED)
    old = final.with_name(f".tmp-{name}{DAMAGED}")
    if final.exists():
        os.rename(final, old)
    os.rename(temporary, final)
    mark.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar.gz or .tar.xz into a new folder; nothing is ever written outside of it.

    Raises:
        StoreError: the archive is damaged, or a member or link leads out of the folder or is no plain file.
    """
    folder.mkdir(parents=True)
    root = os.path.realpath(folder)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                _unpack_member(tar, member, root)
    except _DAMAGED_ARCHIVE as exc:
        raise StoreError("archive", f"{archive} is required to be a tar.gz or tar.xz. Received: {exc}") from exc


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
