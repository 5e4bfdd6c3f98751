"""The pinned needs of every runtime, and the tool that reads them from shared objects."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from liteship.provision import RUNTIMES
from liteship.provision.needs import (
    LIBRARIES,
    Missing,
    is_shared_object,
    missing_symbols,
    objects_digest,
    read_needs,
    runtime_data,
)

REPOSITORY = Path(__file__).parents[2]
LOCKS = sorted(path.name.removesuffix(".txt") for path in runtime_data().iterdir() if path.name.endswith(".txt"))


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """requirements/needs.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("needs_tool", REPOSITORY / "requirements" / "needs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
@pytest.mark.parametrize("lock", LOCKS)
def test_every_lock_has_needs_for_every_machine(lock: str, machine: str) -> None:
    needs = read_needs(lock, machine)
    assert set(needs.symbols) == set(LIBRARIES)
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in needs.symbols.values())
    assert re.fullmatch(r"[0-9a-f]{64}", needs.objects_sha256)


def test_needs_are_pinned_for_the_locks_and_for_nothing_else() -> None:
    assert sorted(json.loads(runtime_data().joinpath("needs.json").read_text())) == LOCKS


@pytest.mark.parametrize(
    ("lock", "glibc", "glibcxx"),
    [  # read on aarch64 when the project began, with another program
        ("ai-edge-litert-2.3.0-cp311", "2.34", "3.4.30"),
        ("ai-edge-litert-2.1.0-cp39", "2.30", "3.4.26"),
        ("tflite-runtime-2.14.0-cp39", "2.27", "3.4.19"),
    ],
)
def test_needs_on_boards_are_those_measured_before(lock: str, glibc: str, glibcxx: str) -> None:
    symbols = read_needs(lock, "aarch64").symbols
    assert (symbols["GLIBC"], symbols["GLIBCXX"]) == (glibc, glibcxx)


def test_missing_versions_are_compared_by_number_one_for_each_library() -> None:
    needs = {"GLIBC": "2.34", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "4.5.0"}
    assert missing_symbols(needs, needs) == []
    assert missing_symbols(needs, {"GLIBC": "2.100", "GLIBCXX": "3.4.100", "CXXABI": "1.3.13", "GCC": "12.0.0"}) == []
    assert missing_symbols(needs, {"GLIBC": "2.4", "GLIBCXX": "3.4.30", "CXXABI": "1.3.9"}) == [
        Missing("GLIBC", "2.34", "2.4"),
        Missing("CXXABI", "1.3.13", "1.3.9"),
        Missing("GCC", "4.5.0", None),
    ]
    assert missing_symbols(needs, {**needs, "GLIBCXX": "3.4.28", "CXXABI": "1.3.12"}) == [
        Missing("GLIBCXX", "3.4.30", "3.4.28")
    ]
    assert missing_symbols({"GLIBC": "2.17"}, {"GLIBC": "2.17"}) == []


def test_what_is_missing_is_told_with_library_and_versions() -> None:
    old = Missing("GLIBCXX", "3.4.30", "3.4.28").describe("a==1")
    assert old == "GLIBCXX 3.4.30 is required (libstdc++) by a==1. Received: 3.4.28"
    assert Missing("GLIBCXX", "3.4.30", None).describe("a==1").endswith("Received: no libstdc++")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cv2/cv2.abi3.so", True),
        ("numpy.libs/libgfortran-daac5196.so.5.0.0", True),
        ("folder.so.1/readme.txt", False),
        ("some.sound", False),
    ],
)
def test_shared_object_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_shared_object(name) is expected


def test_digest_of_shared_objects_is_of_their_names_and_contents_only() -> None:
    listing = {"b.so": "2", "a/a.so.1": "1", "readme.txt": "3"}
    assert objects_digest(listing) == objects_digest({"a/a.so.1": "1", "b.so": "2", "readme.txt": "4", "new.py": "5"})
    assert objects_digest(listing) != objects_digest({**listing, "b.so": "9"})
    assert objects_digest(listing) != objects_digest({"c.so": "2", "a/a.so.1": "1"})


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Links to one extension module of this Python's NumPy and to the libraries that its wheel brings for it."""
    numpy = Path(importlib.util.find_spec("numpy").origin).parent  # type: ignore[union-attr,arg-type]
    module = next((numpy / "linalg").glob("_umath_linalg*.so"))
    for path in (module, *(numpy.parent / "numpy.libs").iterdir()):
        link = tmp_path / "site" / path.relative_to(numpy.parent)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return tmp_path / "site"


def test_tool_reads_what_objects_need_of_the_system_and_not_of_each_other(site: Path, tool: ModuleType) -> None:
    asked = {need for path in site.rglob("*.so*") for need in tool.needed_versions(path)}
    bundled = {path.name for path in (site / "numpy.libs").iterdir()}
    assert any(library in bundled and version is not None for library, version in asked)
    found = tool.needed_symbols(site)
    assert {"GLIBC"} <= set(found) <= set(LIBRARIES)
    assert ("libc.so.6", f"GLIBC_{found['GLIBC']}") in asked or ("libm.so.6", f"GLIBC_{found['GLIBC']}") in asked


def test_tool_refuses_a_folder_that_lacks_a_library(site: Path, tool: ModuleType) -> None:
    next((site / "numpy.libs").glob("libscipy_openblas*")).unlink()
    with pytest.raises(SystemExit, match=r"_umath_linalg.*\.so: libscipy_openblas.* is required"):
        tool.needed_symbols(site)


def test_tool_pins_every_lock(tool: ModuleType) -> None:
    found = {runtime.lock_name(f"cp3{minor}") for runtime, (_, minor) in tool.locked_runtimes()}
    assert sorted(found) == LOCKS
    assert {runtime for runtime, _ in tool.locked_runtimes()} == set(RUNTIMES)
