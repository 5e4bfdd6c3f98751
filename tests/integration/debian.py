"""Interpreters of other Debian releases, unpacked beside this system and run inside their own root.

A root holds the packages that `python3` and `libstdc++6` need and nothing else, fetched with this system's apt from the
mirror that it uses itself. `python` in it is a program of this system which enters the root in a mount namespace of its
own, where this system's /proc, /dev and the shared folder are bound: what runs there has its own interpreter, C library
and C++ library, and `sys.executable` is the one inside.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGES = ("python3", "libstdc++6")


def make_root(release: str, cache: Path) -> Path:
    """Folder of a release's root, made once.

    Args:
        release: "bullseye" or "trixie".
        cache: Folder of all roots.
    """
    root = cache / release
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f"{release}.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            with tempfile.TemporaryDirectory(dir=cache, prefix=f".{release}-") as work:
                unpack(fetch(release, Path(work)), Path(work, "root"))
                os.rename(Path(work, "root"), root)
    return root


def fetch(release: str, work: Path) -> list[Path]:
    """Download the packages of a release with an apt that knows nothing but this release."""
    for name in ("state/lists/partial", "cache/archives/partial"):
        (work / name).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb {mirror()} {release} main\n")
    options = [
        f"Dir::Etc::SourceList={work}/sources.list",
        "Dir::Etc::SourceParts=/dev/null",
        f"Dir::State={work}/state",
        "Dir::State::Status=/dev/null",
        f"Dir::Cache={work}/cache",
        "APT::Install-Recommends=0",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
    ]
    apt = ["apt-get", "-qq", "-y", *(word for option in options for word in ("-o", option))]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "install", "--download-only", *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    return sorted((work / "cache/archives").glob("*.deb"))


def mirror() -> str:
    """The repository that this system's own apt takes this system's release from."""
    codename = platform.freedesktop_os_release()["VERSION_CODENAME"]
    command = ["apt-get", "--print-uris", "update"]  # prints, and fetches nothing
    uris = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(rf"^'(\S+)/dists/{codename}/InRelease'", uris, re.MULTILINE)
    assert found, f"a source of {codename} is required among those of apt: {uris}"
    return found.group(1)


def unpack(packages: list[Path], root: Path) -> None:
    """The files of packages, without running anything of them."""
    for name in ("proc", "dev", "sys", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    for package in packages:
        subprocess.run(["dpkg-deb", "--extract", package, root], check=True)
    for name in ("bin", "lib", "lib64", "sbin"):  # a release whose packages have all below usr/
        if not (root / name).exists() and (root / "usr" / name).is_dir():
            (root / name).symlink_to(f"usr/{name}")


def write_python(root: Path, shared: Path, path: Path) -> None:
    """Write the program that runs a root's python3 with the same arguments.

    Args:
        root: From `make_root`.
        shared: Folder of this system that has the same path inside.
        path: Of the program.
    """
    unshare = shutil.which("unshare")
    assert unshare, "unshare (util-linux) is required"
    rights = "" if os.getuid() == 0 else "--map-root-user"
    binds = " && ".join(
        f"mount --rbind {shlex.quote(str(folder))} {shlex.quote(f'{root}{folder}')}"
        for folder in (Path("/proc"), Path("/dev"), Path("/sys"), shared)
    )
    Path(f"{root}{shared}").mkdir(parents=True, exist_ok=True)
    inside = f'{binds} && exec /usr/sbin/chroot {shlex.quote(str(root))} /usr/bin/python3 "$@"'
    path.write_text(f'#!/bin/sh\nexec {unshare} --mount {rights} /bin/sh -c {shlex.quote(inside)} python3 "$@"\n')
    path.chmod(0o755)
