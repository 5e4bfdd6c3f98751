"""The guest's first root file system: busybox, the drivers of QEMU's devices, and the script that starts from them.

Kernel modules name what they depend on in their own `.modinfo`, so that no depmod is needed; the archive is cpio's
`newc` format (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from liteship.errors import LinkError

_FOLDERS = ("bin", "dev", "modules", "proc", "root", "sys")
# The bus, disk, network and random numbers of QEMU's machine, and the queue that makes a link slow or lossy.
_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "sch_netem")
_TRAILER = "TRAILER!!!"
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


def write_initrd(path: Path, busybox: Path, init: bytes, modules: Path) -> None:
    """Pack the archive.

    Args:
        path: Where to.
        busybox: The guest's static busybox.
        init: The script that the kernel starts.
        modules: The kernel's folder of modules, uncompressed.

    Raises:
        LinkError: a driver is not there.
    """
    files = {"bin/busybox": busybox.read_bytes(), "init": init}
    ordered = in_order(_MODULES, find_modules(modules))
    files |= {f"modules/{module.name}": module.read_bytes() for module in ordered}
    files["modules/order"] = "\n".join(module.name for module in ordered).encode()
    with gzip.GzipFile(path, "wb", 1, mtime=0) as packed:
        packed.write(pack(_FOLDERS, files))


def find_modules(folder: Path) -> dict[str, Path]:
    """All modules below a folder by name; `-` in a file's name is `_` in that of the module."""
    return {module.stem.replace("-", "_"): module for module in folder.rglob("*.ko")}


def in_order(names: Iterable[str], modules: Mapping[str, Path]) -> list[Path]:
    """The modules and all that they depend on, each after its dependencies.

    Raises:
        LinkError: one of them is not there.
    """
    found: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in found:
            return
        if name not in modules:
            raise LinkError(f"The kernel module {name} is required in the emulated board's kernel. Received: none.")
        for needed in _dependencies(modules[name]):
            add(needed)
        found[name] = modules[name]

    for name in names:
        add(name)
    return list(found.values())


def _dependencies(module: Path) -> list[str]:
    match = _DEPENDS.search(module.read_bytes())
    names = match[1].decode().split(",") if match else []
    return [name.replace("-", "_") for name in names if name]


def pack(folders: Iterable[str], files: Mapping[str, bytes]) -> bytes:
    """A cpio archive of folders and executable files, all root's."""
    members = [_member(number, name, 0o040755, b"") for number, name in enumerate(folders, 1)]
    members += [_member(len(members) + number, name, 0o100755, files[name]) for number, name in enumerate(files, 1)]
    return b"".join([*members, _member(0, _TRAILER, 0, b"")])


def _member(inode: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (2), special device (2), length of the name, check sum
    fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + encoded) + _padded(content)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
