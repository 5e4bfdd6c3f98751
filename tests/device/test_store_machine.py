import builtins
import ctypes
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from liteship_agent.store.events import StoreError
from liteship_agent.store.machine import elf_machine, machine, mapped_file, provided_symbols, symbol_versions

MAPS = """\
55a4c4a00000-55a4c4a01000 r--p 00000000 fe:00 1001     /usr/bin/python3.9
7f1e04c00000-7f1e04c26000 r--p 00000000 b3:02 18242    /lib/aarch64-linux-gnu/libc-2.31.so
7f1e05c00000-7f1e05c26000 r--p 00000000 b3:02 18243    /home/pi/my env/lib/libstdc++.so.6.0.28
7f1e06c00000-7f1e06c26000 r--p 00000000 b3:02 18244    /lib/aarch64-linux-gnu/libgcc_s.so.1
7f1e07c00000-7f1e07c26000 r--p 00000000 b3:02 18245    /lib/aarch64-linux-gnu/libcap.so.2.44
7ffd0a3df000-7ffd0a400000 rw-p 00000000 00:00 0        [stack]
"""


@pytest.mark.parametrize(
    ("code", "word", "order", "expected"),
    [
        (40, 1, "<", ("armv7l", 32)),
        (183, 2, "<", ("aarch64", 64)),
        (183, 1, "<", ("aarch64", 32)),
        (62, 2, "<", ("x86_64", 64)),
        (22, 2, ">", ("s390x", 64)),
        (999, 2, "<", ("elf-999", 64)),
    ],
)
def test_machine_comes_from_the_elf_header(code, word, order, expected):
    header = b"\x7fELF" + bytes([word, 1 if order == "<" else 2]) + bytes(10) + struct.pack(order + "HH", 3, code)
    assert elf_machine(header) == expected


@pytest.mark.parametrize("header", [b"", b"\x7fELF\x02", b"#!/bin/sh\necho hello world\n"])
def test_machine_of_another_format_is_unknown(header):
    assert elf_machine(header) == ("unknown", struct.calcsize("P") * 8)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("libc.so.6", "/lib/aarch64-linux-gnu/libc-2.31.so"),
        ("libstdc++.so.6", "/home/pi/my env/lib/libstdc++.so.6.0.28"),
        ("libgcc_s.so.1", "/lib/aarch64-linux-gnu/libgcc_s.so.1"),
        ("libm.so.6", None),
        ("stack", None),
    ],
)
def test_file_of_a_library_is_the_one_that_is_mapped(name, path):
    assert mapped_file(name, MAPS) == (path and Path(path))


def test_highest_version_is_by_number_and_only_whole_names_count(tmp_path):
    library = tmp_path / "libstdc++.so.6.0.28"
    names = [
        "GLIBCXX_3.4.9",
        "GLIBCXX_3.4.28",
        "GLIBCXX_3.4.30-beta",
        "GLIBCXX_TUNABLES",
        "GLIBC_2.34",
        "CXXABI_1.3.12",
    ]
    library.write_bytes(b"\x7fELF\0" + b"\0".join(name.encode() for name in names) + b"\0")
    found = symbol_versions(library, ("GLIBCXX", "CXXABI", "GCC"))
    assert found == {"GLIBCXX": "3.4.28", "CXXABI": "1.3.12"}


def test_symbols_of_this_interpreter_are_those_its_libraries_offer():
    found = provided_symbols()
    provided, release = (tuple(map(int, text.split("."))) for text in (found["GLIBC"], machine()["libc"][1]))
    assert (2, 17) < provided <= release, "not every release of glibc brings a new version"
    assert {"GLIBC", "GLIBCXX", "CXXABI", "GCC"} == set(found)
    content = mapped_file("libstdc++.so.6", Path("/proc/self/maps").read_text()).read_bytes()
    major, minor, patch = map(int, found["GLIBCXX"].split("."))
    assert b"GLIBCXX_%d.%d.%d\0" % (major, minor, patch) in content
    assert b"GLIBCXX_%d.%d.%d\0" % (major, minor, patch + 1) not in content


def test_symbols_of_a_library_that_cannot_be_loaded_are_left_out(monkeypatch):
    load = ctypes.CDLL

    def refuse(name, *arguments):
        if name == "libstdc++.so.6":
            raise OSError("cannot open shared object file")
        return load(name, *arguments)

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert set(provided_symbols()) == {"GLIBC", "GCC"}


def test_interpreter_without_ctypes_is_refused_with_the_package_that_brings_it(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments):
        if name == "ctypes":
            raise ModuleNotFoundError("No module named '_ctypes'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(StoreError, match=r"whole standard library is required\. Received: .* without ctypes") as info:
        provided_symbols()
    assert info.value.kind == "missing"
    assert "apt install python3" in info.value.hint


def test_library_that_is_loaded_but_not_mapped_is_an_error(monkeypatch):
    monkeypatch.setattr("liteship_agent.store.machine._read_text", lambda path: "")
    with pytest.raises(StoreError, match=re.escape("libc.so.6 among the files of /proc/self/maps is required")):
        provided_symbols()


def test_machine_tells_about_this_interpreter():
    found = machine()
    assert found["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["word_bits"] == struct.calcsize("P") * 8
    assert found["machine"] == os.uname().machine
    assert found["memory_bytes"] > 1 << 28
    assert found["cpu_count"] == os.cpu_count()
    assert found["cpu_flags"]
    assert found["kernel"] == os.uname().release
    assert found["implementation"] == sys.implementation.name


def test_machine_is_told_within_a_tenth_of_a_second():
    code = "import time; from liteship_agent.store.machine import machine\nt = time.process_time(); machine()\n"
    code += "print(time.process_time() - t)"
    spent = [float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(spent) < 0.1
