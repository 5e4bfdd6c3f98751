"""The image of the emulated board: kernel, initrd, disk and keys in one folder, made once.

Made under a temporary name and renamed, so that an interrupted build leaves no half image; made anew where what it is
made from has changed. It works for every user: no mount, no device, and owners are written into the file system.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import asyncssh

from liteship.emulated import initrd, root
from liteship.errors import LinkError
from liteship.progress import Reporter
from liteship_agent.records import write_atomic

DISK_MIB = 3072
_INODES = 131_072
QEMU = "qemu-system-aarch64"
_PACKAGES = {
    "mmdebstrap": "mmdebstrap debian-archive-keyring",
    "mke2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    QEMU: "qemu-system-arm",
}
_SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"
_SOURCES = ("__init__.py", "image.py", "initrd.py", "root.py")


@dataclass(frozen=True)
class Image:
    """A board that was made and never started: machines copy its disk.

    Args:
        folder: With kernel, initrd, disk and the user's private key.
        host_key_sha256: Fingerprint of its SSH server, as ssh-keygen prints it.
    """

    folder: Path
    host_key_sha256: str

    @property
    def kernel(self) -> Path:
        """For `-kernel`."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """For `-initrd`."""
        return self.folder / "initrd.gz"

    @property
    def disk(self) -> Path:
        """An ext4 file system without a partition table."""
        return self.folder / "disk.img"

    @property
    def identity_file(self) -> Path:
        """The private key that `pi` and root let in."""
        return self.folder / "id_ed25519"


def find_program(name: str) -> str:
    """The path of a program, also where a user's PATH leaves the system's folders out.

    Raises:
        LinkError: it is not installed, with all others that are not, and the line that installs them.
    """
    found = _which(name)
    if found is None:
        missing = [program for program in _PACKAGES if _which(program) is None]
        packages = " ".join(dict.fromkeys(_PACKAGES[program] for program in missing))
        raise LinkError(
            f"Programs for the emulated board are required: {', '.join(missing)}. Received: not installed.",
            f"sudo apt-get install --no-install-recommends {packages}",
        )
    return found


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_FOLDERS}")


def ensure_image(folder: Path, say: Reporter) -> Image:
    """The image in a folder, made if it is not there or was made from something else.

    Args:
        folder: Of the image; its parent is made.
        say: Progress.

    Raises:
        LinkError: a program or package is missing.
    """
    with locked(folder.parent / f".{folder.name}.lock"):
        found = read_image(folder)
        if found is None:
            _build(folder, say)
            found = read_image(folder)
    if found is None:
        raise RuntimeError(f"{folder} was made and cannot be read.")
    return found


def read_image(folder: Path) -> Image | None:
    """The image in a folder; None where there is none, or one of other ingredients."""
    try:
        told = json.loads((folder / "image.json").read_text())
    except FileNotFoundError:
        return None
    if told["ingredients_sha256"] != _ingredients():
        return None
    return Image(folder.absolute(), told["host_key_sha256"])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock: who else wants it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ingredients() -> str:
    """Hash of all that decides what an image holds, but the versions of the packages."""
    sha256 = hashlib.sha256()
    package = resources.files("liteship.emulated")
    with resources.as_file(package) as here:
        for path in [*(here / name for name in _SOURCES), *sorted((here / "guest").rglob("*"))]:
            if path.is_file():
                sha256.update(f"{path.relative_to(here)}\0".encode() + path.read_bytes() + b"\0")
    return sha256.hexdigest()


def _build(folder: Path, say: Reporter) -> None:
    for name in _PACKAGES:
        find_program(name)
    for left_over in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as work:
        made = Path(work, "image")
        made.mkdir()
        host_key_sha256 = _fill(made, Path(work, "root"), Path(work), say)
        told = {"ingredients_sha256": _ingredients(), "host_key_sha256": host_key_sha256, "suite": root.SUITE}
        write_atomic(made / "image.json", json.dumps(told).encode())
        if folder.exists():
            os.rename(folder, Path(work, "old"))
        os.rename(made, folder)


def _fill(made: Path, tree: Path, work: Path, say: Reporter) -> str:
    """Make all files of an image; returns the fingerprint of its host key."""
    host_key = asyncssh.generate_private_key("ssh-ed25519", "emulated")
    user_key = asyncssh.generate_private_key("ssh-ed25519", "emulated")
    keys = root.Keys(host_key.export_private_key().decode(), user_key.export_public_key().decode())
    with say.task("emulated board: fetch and unpack Debian's ARM64 packages", 4) as advance:
        root.unpack(tree, work / "mmdebstrap.log")
        advance(1)
        say.describe("emulated board: kernel and drivers")
        guest = resources.files("liteship.emulated").joinpath("guest")
        with resources.as_file(guest) as files:
            _take_kernel(made, tree, (files / "init").read_bytes())
            root.configure(tree, files / "root", keys)
        advance(1)
        say.describe("emulated board: byte-compile its Python")
        if not root.compile_python(tree):
            say.say("the emulated board's Python starts slowly: there is no Python {}.{} here".format(*root.PYTHON))
        advance(1)
        say.describe("emulated board: write its disk")
        write_disk(made / "disk.img", tree, root.owners(tree))
        advance(1)
    identity = made / "id_ed25519"
    identity.touch(mode=0o600)
    identity.write_bytes(user_key.export_private_key())
    return str(host_key.get_fingerprint())


def _take_kernel(made: Path, tree: Path, init: bytes) -> None:
    (modules,) = (tree / "usr/lib/modules").iterdir()
    shutil.copyfile(tree / "boot" / f"vmlinuz-{modules.name}", made / "vmlinuz")
    initrd.write_initrd(made / "initrd.gz", tree / "usr/bin/busybox", init, modules)


def write_disk(path: Path, tree: Path, owners: Iterable[root.Owner]) -> None:
    """An ext4 file system of a folder, in a sparse file.

    Args:
        path: Where to.
        tree: The folder.
        owners: Who owns what is not to be owned as it is here; needs no privilege.

    Raises:
        LinkError: the file system could not be made.
    """
    # All tables are written now: the guest must not do it in the background while something is measured.
    options = ["-E", "root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0", "-N", str(_INODES), "-m", "1"]
    mke2fs = [find_program("mke2fs"), "-q", "-t", "ext4", "-d", str(tree), *options]
    _run([*mke2fs, str(path), f"{DISK_MIB}M"])
    requests = [
        f'set_inode_field "{owner.path}" {field} {number}\n'
        for owner in owners
        for field, number in (("uid", owner.uid), ("gid", owner.gid))
    ]
    told = _run([find_program("debugfs"), "-w", "-f", "-", str(path)], "".join(requests))
    # It says its version there, and goes on after an error.
    if wrong := [line for line in told.splitlines() if not line.startswith("debugfs 1.")]:
        raise LinkError(f"The owners of the emulated board's files are required. Received from debugfs: {wrong[0]}")


def _run(command: list[str], stdin: str = "") -> str:
    """Run a program to its good end; returns what it said on stderr."""
    ended = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        last = ended.stderr.strip().rsplit("\n", 1)[-1]
        raise LinkError(f"The emulated board's disk is required. Received from {Path(command[0]).name}: {last}")
    return ended.stderr
