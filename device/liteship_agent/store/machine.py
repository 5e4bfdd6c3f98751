"""What the target is: its interpreter, the C and C++ libraries which that interpreter really loads, and its processor.

The host decides by `symbols` which runtime fits. The numbers of a distribution, or of `ldd`, tell about another libc
than that of an interpreter which brings its own; so the libraries are loaded here, and the files that this process then
has mapped are read.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import sys
import sysconfig
from pathlib import Path
from typing import Any, Dict, Optional

from liteship_agent.store.events import StoreError

# Name to load, and the version prefixes that this library provides.
_LIBRARIES = {
    "libc.so.6": ("GLIBC",),
    "libstdc++.so.6": ("GLIBCXX", "CXXABI"),
    "libgcc_s.so.1": ("GCC",),
}


def machine() -> Dict[str, Any]:
    """Interpreter, libraries, processor and memory of the target.

    Returns:
        A JSON object: python_version ("3.11.2"), implementation, machine ("aarch64", of the interpreter's ELF header),
        word_bits, soabi, libc (["glibc", "2.36"] or null), symbols (see `provided_symbols`), memory_bytes, cpu_count,
        cpu_flags, board_model (null without a device tree), kernel.
    Raises:
        StoreError: the interpreter lacks ctypes, or /proc is not mounted.
    """
    name, word_bits = elf_machine(_read_head(Path("/proc/self/exe")) or _read_head(Path(sys.executable)))
    return {
        "python_version": ".".join(str(part) for part in sys.version_info[:3]),
        "implementation": sys.implementation.name,
        "machine": name,
        "word_bits": word_bits,
        "soabi": sysconfig.get_config_var("SOABI"),
        "libc": _libc(),
        "symbols": provided_symbols(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "cpu_count": os.cpu_count(),
        "cpu_flags": _cpu_flags(),
        "board_model": _read_text(Path("/proc/device-tree/model")).strip("\0\n ") or None,
        "kernel": os.uname().release,
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


def provided_symbols() -> Dict[str, str]:
    """Highest symbol version by prefix that the libraries of this interpreter provide.

    Returns:
        For example {"GLIBC": "2.36", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"}; a prefix whose library
        cannot be loaded is left out.
    Raises:
        StoreError: the interpreter lacks ctypes, or /proc does not tell where a loaded library comes from.
    """
    try:
        import ctypes
    except ImportError as exc:
        raise StoreError(
            "missing",
            f"Python's whole standard library is required. Received: {sys.executable} without ctypes ({exc})",
            "On Debian and Raspberry Pi OS: sudo apt install python3",
        ) from exc
    provided = {}
    for name, prefixes in _LIBRARIES.items():
        try:
            ctypes.CDLL(name)
        except OSError:
            continue  # the host says so, by the prefix that is missing
        path = mapped_file(name, _read_text(Path("/proc/self/maps")))
        if path is None:
            raise StoreError("io", f"{name} among the files of /proc/self/maps is required. Received: no such file")
        provided.update(symbol_versions(path, prefixes))
    return provided


def mapped_file(name: str, maps: str) -> Optional[Path]:
    """The file that a loaded library comes from.

    Args:
        name: As it was loaded, "libc.so.6"; the file behind it may be "libc-2.31.so" or "libstdc++.so.6.0.28".
        maps: Text of /proc/self/maps.
    """
    stem = re.escape(name.split(".so", 1)[0])
    match = re.search(rf"^\S+ \S+ \S+ \S+ \S+ +(/(?:.*/)?{stem}(?:-[0-9.]+)?\.so(?:\.[0-9.]+)?)$", maps, re.MULTILINE)
    return Path(match.group(1)) if match else None


def symbol_versions(path: Path, prefixes: tuple[str, ...]) -> Dict[str, str]:
    """Highest version by prefix among the names of symbol versions in a library, for example {"GLIBC": "2.36"}.

    The names are read as text, not through the ELF sections: a few milliseconds on a board, and a library names no
    version of its own prefix that it does not provide.
    """
    highest = {}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for prefix in prefixes:
            found = re.findall(rb"%s_(\d+(?:\.\d+)*)\0" % prefix.encode(), content)
            if found:
                highest[prefix] = max((text.decode() for text in found), key=_numbers)
    return highest


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _libc() -> Optional[list[str]]:
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
