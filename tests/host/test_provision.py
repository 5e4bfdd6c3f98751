from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from liteship.errors import LinkError, UsageError
from liteship.provision import RUNTIMES, Interpreter, choose_runtime, pack, pack_runtime
from liteship.provision.needs import Needs, objects_digest

LITERT, TFLITE = RUNTIMES[0], RUNTIMES[2]
LOCKS = sorted(
    (path for path in resources.files("liteship").joinpath("runtimes").iterdir() if path.name.endswith(".txt")),
    key=lambda path: path.name,
)
# What the libraries of these systems provide on aarch64.
BULLSEYE = {"GLIBC": "2.30", "GLIBCXX": "3.4.28", "CXXABI": "1.3.12", "GCC": "7.0.0"}
JAMMY = {"GLIBC": "2.35", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"}
BOOKWORM = {"GLIBC": "2.36", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"}
TRIXIE = {"GLIBC": "2.41", "GLIBCXX": "3.4.33", "CXXABI": "1.3.15", "GCC": "14.0.0"}


def interpreter(
    minor: int = 11,
    symbols: dict[str, str] = BOOKWORM,
    machine: str = "aarch64",
    word_bits: int = 64,
    soabi: str | None = "",
) -> Interpreter:
    """A Python 3.`minor` with the ordinary ABI unless another one is given."""
    ordinary = f"cpython-3{minor}-{machine}-linux-gnu"
    libc = f"glibc {symbols['GLIBC']}" if "GLIBC" in symbols else "no glibc"
    return Interpreter((3, minor), machine, word_bits, ordinary if soabi == "" else soabi, libc, symbols)


PI = interpreter()


@pytest.mark.parametrize(
    ("python", "wanted", "chosen"),
    [
        (interpreter(11, BOOKWORM), "auto", "ai-edge-litert==2.3.0"),
        (interpreter(9, BULLSEYE), "auto", "ai-edge-litert==2.1.0"),
        (interpreter(13, TRIXIE), "auto", "ai-edge-litert==2.3.0"),
        (interpreter(10, JAMMY), "auto", "ai-edge-litert==2.3.0"),
        (interpreter(11, BOOKWORM, "x86_64"), "auto", "ai-edge-litert==2.3.0"),
        (interpreter(11, BULLSEYE, "x86_64"), "auto", "ai-edge-litert==2.3.0"),  # there it needs older versions
        (interpreter(10, BULLSEYE), "auto", "tflite-runtime==2.14.0"),
        (interpreter(11, {**BOOKWORM, "GLIBCXX": "3.4.29"}), "auto", "tflite-runtime==2.14.0"),
        (interpreter(11, {**BOOKWORM, "CXXABI": "1.3.12"}), "auto", "tflite-runtime==2.14.0"),
        (interpreter(9, {**BULLSEYE, "GLIBC": "2.28"}), "auto", "tflite-runtime==2.14.0"),
        (interpreter(11, BOOKWORM), "tflite-runtime", "tflite-runtime==2.14.0"),
        (interpreter(11, BOOKWORM), "tflite-runtime==2.14.0", "tflite-runtime==2.14.0"),
        (interpreter(9, BULLSEYE), "ai-edge-litert", "ai-edge-litert==2.1.0"),
    ],
)
def test_runtime_is_the_newest_that_fits(python: Interpreter, wanted: str, chosen: str) -> None:
    assert choose_runtime(python, wanted).requirement == chosen


@pytest.mark.parametrize(
    ("python", "wanted", "message"),
    [
        (interpreter(13, TRIXIE), "tflite-runtime", "Received: Python 3.13, 64-bit aarch64, glibc 2.41."),
        (interpreter(8), "auto", "Received: Python 3.8, 64-bit aarch64, glibc 2.36."),
        (interpreter(9, BULLSEYE), "ai-edge-litert==2.3.0", "Received: Python 3.9, 64-bit aarch64, glibc 2.30."),
        (interpreter(11, BOOKWORM, "armv7l", 32), "auto", "Received: Python 3.11, 32-bit armv7l, glibc 2.36."),
        (interpreter(11, BOOKWORM, "aarch64", 32), "auto", "Received: Python 3.11, 32-bit aarch64, glibc 2.36."),
        (interpreter(11, BOOKWORM, "riscv"), "auto", "Received: Python 3.11, 64-bit riscv, glibc 2.36."),
        (
            interpreter(13, TRIXIE, soabi="cpython-313t-aarch64-linux-gnu"),
            "auto",
            "the ABI cpython-313 is required on the target. Received: cpython-313t-aarch64-linux-gnu.",
        ),
        (interpreter(9, soabi="pypy39-pp73"), "auto", "Received: pypy39-pp73."),
        (interpreter(9, soabi=None), "auto", "Received: None."),
        (
            interpreter(10, {**BULLSEYE, "GLIBC": "2.35"}),
            "ai-edge-litert",
            "GLIBCXX 3.4.30 is required (libstdc++) by ai-edge-litert==2.3.0. Received: 3.4.28.",
        ),
        (
            interpreter(9, {**BULLSEYE, "GLIBC": "2.26"}),
            "auto",
            "GLIBC 2.30 is required (glibc) by ai-edge-litert==2.1.0. Received: 2.26; "
            "GLIBC 2.27 is required (glibc) by tflite-runtime==2.14.0. Received: 2.26.",
        ),
        (
            interpreter(13, {}),  # musl
            "auto",
            "GLIBC 2.34 is required (glibc) by ai-edge-litert==2.3.0. Received: no glibc; ",
        ),
    ],
)
def test_target_that_no_runtime_fits_is_refused(python: Interpreter, wanted: str, message: str) -> None:
    with pytest.raises(LinkError) as info:
        choose_runtime(python, wanted)
    assert info.value.exit_code == 5
    assert message in info.value.message
    assert "`python`" in info.value.hint


@pytest.mark.parametrize(
    ("absent", "packages"),
    [
        (("GLIBCXX", "CXXABI"), "libstdc++6"),
        (("GCC",), "libgcc-s1"),
        (("GLIBCXX", "CXXABI", "GCC"), "libgcc-s1 libstdc++6"),
    ],
)
def test_library_that_is_not_there_is_told_with_the_package_that_brings_it(
    absent: tuple[str, ...], packages: str
) -> None:
    symbols = {prefix: version for prefix, version in BOOKWORM.items() if prefix not in absent}
    with pytest.raises(LinkError) as info:
        choose_runtime(interpreter(11, symbols), "auto")
    assert info.value.hint == f"On the target: sudo apt install {packages}."


def test_old_library_beside_a_missing_one_is_not_cured_by_a_package() -> None:
    with pytest.raises(LinkError) as info:
        choose_runtime(interpreter(9, {"GLIBC": "2.26"}), "auto")
    assert "apt" not in info.value.hint
    assert "newer system" in info.value.hint


def test_refusal_tells_what_each_runtime_needs() -> None:
    with pytest.raises(LinkError, match=re.escape("target: Python 3.9, 3.10, 3.11 for tflite-runtime==2.14.0.")):
        choose_runtime(interpreter(13, TRIXIE), "tflite-runtime")


def test_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"auto, ai-edge-litert, tflite-runtime, .* Received: tensorflow") as info:
        choose_runtime(PI, "tensorflow")
    assert info.value.exit_code == 2


def test_interpreter_is_what_the_probe_says() -> None:
    soabi = "cpython-311-aarch64-linux-gnu"
    probe = {
        "python_version": "3.11.2",
        "machine": "aarch64",
        "word_bits": 64,
        "soabi": soabi,
        "libc": ["glibc", "2.31"],
        "symbols": BULLSEYE,
    }
    assert Interpreter.of(probe) == Interpreter((3, 11), "aarch64", 64, soabi, "glibc 2.31", BULLSEYE)
    assert Interpreter.of({**probe, "libc": None}).libc == "no glibc"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_lock_pins_everything_with_hashes_and_names_no_index(lock: Path) -> None:
    text = lock.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    logical = "\n".join(lines).replace("\\\n", " ").splitlines()
    assert len(logical) >= 3
    for line in logical:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*( +--hash=sha256:[0-9a-f]{64})+ *", line), line
    assert "://" not in text
    assert "index" not in text
    runtime = next(runtime for runtime in RUNTIMES if lock.name.startswith(f"{runtime.name}-{runtime.version}-cp"))
    assert {line.split("==")[0] for line in logical} >= {runtime.name, "numpy", "opencv-python-headless"}
    assert runtime.requirement in text


SITE = (
    "ai_edge_litert/interpreter.py",
    "ai_edge_litert/_wrapper.so",
    "ai_edge_litert/aot/compiler.py",
    "ai_edge_litert/libLiteRt.so",
    "bin/tool",
    "numpy/__init__.py",
    "numpy/__init__.pyi",
    "numpy/linalg/tests/test_linalg.py",
    "numpy/core/include/header.h",
    "numpy/core/lib/libmath.a",
    "numpy-2.4.0.dist-info/METADATA",
    "numpy-2.4.0.dist-info/RECORD",
)
KEPT = [
    "ai_edge_litert/_wrapper.so",
    "ai_edge_litert/interpreter.py",
    "numpy-2.4.0.dist-info/METADATA",
    "numpy/__init__.py",
]


def sha256(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def objects(*names: str) -> str:
    """Digest of shared objects that hold their own names."""
    return objects_digest({name: sha256(name) for name in names})


def write_site(site: Path) -> None:
    for name in SITE:
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lock of every installation; instead of wheels, a few files are written, whose needs are known."""
    locks: list[str] = []

    def install(lock: str, interpreter: Interpreter, site: Path, work: Path) -> None:
        locks.append(lock)
        write_site(site)

    def known(lock: str, machine: str) -> Needs:
        library = () if lock.startswith("ai-edge-litert-2.3.0") else ("ai_edge_litert/libLiteRt.so",)
        return Needs({}, objects("ai_edge_litert/_wrapper.so", *library))

    monkeypatch.setattr(pack, "_install", install)
    monkeypatch.setattr(pack, "read_needs", known)
    return locks


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_packed_runtime_is_trimmed_and_has_plain_members(tmp_path: Path, installs: list[str]) -> None:
    packed = pack_runtime(LITERT, PI, tmp_path)
    assert installs == [(resources.files("liteship") / "runtimes/ai-edge-litert-2.3.0-cp311.txt").read_text()]
    with tarfile.open(packed.path, "r:gz") as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == ["SHA256SUMS", *KEPT]
        file = archive.extractfile(KEPT[0])
        assert file is not None
        assert file.read() == KEPT[0].encode()
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
    assert packed.sha256 == hashlib.sha256(packed.path.read_bytes()).hexdigest()
    assert packed.reference().folder == packed.folder
    assert packed.folder.startswith("ai-edge-litert-2.3.0-cp311-aarch64-")


def test_packed_runtime_lists_its_files_as_sha256sum_does(tmp_path: Path, installs: list[str]) -> None:
    with tarfile.open(pack_runtime(LITERT, PI, tmp_path / "cache").path) as archive:
        archive.extractall(tmp_path / "site", filter="data")
    lines = (tmp_path / "site" / "SHA256SUMS").read_text().splitlines()
    assert lines == [f"{sha256(name)}  {name}" for name in KEPT]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "site", check=True)


def test_library_that_the_interpreter_is_linked_against_is_kept(tmp_path: Path, installs: list[str]) -> None:
    with tarfile.open(pack_runtime(RUNTIMES[1], interpreter(9, BULLSEYE), tmp_path).path) as archive:
        assert "ai_edge_litert/libLiteRt.so" in archive.getnames()


def test_runtime_of_a_pc_is_packed_smaller(tmp_path: Path, installs: list[str]) -> None:
    packed = pack_runtime(LITERT, interpreter(machine="x86_64"), tmp_path)
    with tarfile.open(packed.path, "r:xz") as archive:
        assert archive.getnames() == ["SHA256SUMS", *KEPT]


def test_unpacked_size_is_that_on_a_disk_byte_compiled(tmp_path: Path, installs: list[str]) -> None:
    assert pack_runtime(LITERT, PI, tmp_path).unpacked_bytes == 4096 * (2 + 2 * 2)


def test_same_files_give_the_same_bytes_in_any_cache(tmp_path: Path, installs: list[str]) -> None:
    first, second = (pack_runtime(LITERT, PI, tmp_path / name) for name in ("one", "two"))
    assert len(installs) == 2
    assert (first.sha256, first.folder) == (second.sha256, second.folder)


def test_runtime_with_other_shared_objects_than_those_of_the_needs_is_not_packed(
    tmp_path: Path, installs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "read_needs", lambda lock, machine: Needs({}, objects("another.so")))
    with pytest.raises(LinkError, match="the shared objects whose needs are known") as info:
        pack_runtime(LITERT, PI, tmp_path)
    assert "make lock" in info.value.hint
    assert list(tmp_path.iterdir()) == []


# --- the cache ---


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Name of every packed file that is read whole to hash it."""
    read: list[str] = []
    digest = pack._digest

    def note(content: pack.IO[bytes]) -> str:
        if type(content) is io.BufferedReader and str(content.name).endswith((".gz", ".xz")):
            read.append(Path(content.name).name)
        return digest(content)

    monkeypatch.setattr(pack, "_digest", note)
    return read


def test_cached_runtime_is_neither_installed_nor_hashed_again(
    tmp_path: Path, installs: list[str], hashed: list[str]
) -> None:
    first = pack_runtime(LITERT, PI, tmp_path)
    assert (len(installs), hashed) == (1, [first.path.name])
    assert pack_runtime(LITERT, PI, tmp_path) == first
    assert (len(installs), hashed) == (1, [first.path.name])
    assert names_in(tmp_path) == {first.path.name, f"{first.path.name}.json"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda sidecar, path: sidecar.unlink(),
        lambda sidecar, path: sidecar.write_text(sidecar.read_text()[:-5]),
        lambda sidecar, path: sidecar.write_text("[]"),
        lambda sidecar, path: sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "more": 1})),
        lambda sidecar, path: os.utime(path, ns=(0, 0)),
    ],
    ids=["missing", "cut", "another kind", "another schema", "another time"],
)
def test_packed_file_without_its_sidecar_is_hashed_anew(
    tmp_path: Path, installs: list[str], hashed: list[str], damage: Callable[[Path, Path], object]
) -> None:
    first = pack_runtime(LITERT, PI, tmp_path)
    damage(first.path.with_name(f"{first.path.name}.json"), first.path)
    assert pack_runtime(LITERT, PI, tmp_path) == first
    assert (len(installs), len(hashed)) == (1, 2)
    assert pack_runtime(LITERT, PI, tmp_path) == first
    assert len(hashed) == 2, "the sidecar is whole again"


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_packed_file_that_was_cut_is_made_anew(tmp_path: Path, installs: list[str], machine: str, cut: int) -> None:
    python = interpreter(machine=machine)
    first = pack_runtime(LITERT, python, tmp_path)
    first.path.write_bytes(first.path.read_bytes()[:cut])
    assert pack_runtime(LITERT, python, tmp_path) == first
    assert len(installs) == 2
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == first.sha256


def test_packed_file_with_a_member_that_is_not_the_listed_one_is_made_anew(tmp_path: Path, installs: list[str]) -> None:
    first = pack_runtime(LITERT, PI, tmp_path)
    whole = first.path.read_bytes()
    with tarfile.open(first.path) as archive:
        archive.extractall(tmp_path / "site", filter="data")
    (tmp_path / "site" / KEPT[0]).write_text("another")
    with tarfile.open(first.path, "w:gz") as archive:
        for name in ("SHA256SUMS", *KEPT):
            archive.add(tmp_path / "site" / name, name)
    assert pack_runtime(LITERT, PI, tmp_path) == first
    assert first.path.read_bytes() == whole


def test_runtime_machine_and_python_have_files_of_their_own(tmp_path: Path, installs: list[str]) -> None:
    others = [interpreter(13, TRIXIE), interpreter(machine="x86_64")]
    pairs = [(LITERT, PI), (TFLITE, PI), *((LITERT, other) for other in others)]
    assert len({pack_runtime(runtime, python, tmp_path).folder for runtime, python in pairs}) == 4


def test_failed_installation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(lock: str, interpreter: Interpreter, site: Path, work: Path) -> None:
        write_site(site)
        raise LinkError("The wheels of the target's runtime are required. Received from pip: no index")

    monkeypatch.setattr(pack, "_install", fail)
    with pytest.raises(LinkError, match="no index"):
        pack_runtime(LITERT, PI, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_assembly_that_is_interrupted_leaves_nothing(
    tmp_path: Path, installs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pack.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack_runtime(LITERT, PI, tmp_path)
    assert list(tmp_path.iterdir()) == []


ASSEMBLE = """
import sys
from pathlib import Path
from liteship.provision import RUNTIMES, Interpreter, pack, pack_runtime
cache = Path(sys.argv[1])

def install(lock, interpreter, site, work):
    print("assembling", flush=True)
    (site / "numpy").mkdir(parents=True)
    (site / "numpy" / "__init__.py").write_text("")
    sys.stdin.readline()

pack._install = install
pack._require_known_objects = lambda *arguments: None
python = Interpreter((3, 11), "aarch64", 64, None, "", {})
print(pack_runtime(RUNTIMES[0], python, cache).sha256, flush=True)
"""


def assemble(cache: Path) -> subprocess.Popen[str]:
    """A process that assembles a runtime, and waits for a line once it is at work."""
    command = [sys.executable, "-c", ASSEMBLE, str(cache)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_two_processes_make_a_runtime_once_and_get_the_same(tmp_path: Path) -> None:
    with assemble(tmp_path) as first, assemble(tmp_path) as second:
        lines: dict[str, str] = {}
        threads = [
            threading.Thread(target=lambda name=name, process=process: lines.update({name: read_line(process)}))
            for name, process in (("first", first), ("second", second))
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while not lines and time.monotonic() < deadline:
            time.sleep(0.01)
        assert list(lines.values()) == ["assembling"], "only one is at work"
        busy, waiting = (first, second) if "first" in lines else (second, first)
        made, _ = busy.communicate("go on\n", timeout=60)
        for thread in threads:
            thread.join(60)
        assert waiting.wait(60) == busy.returncode == 0
        assert lines["second" if busy is first else "first"] == made.strip()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", ".json"]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with assemble(tmp_path) as killed:
        assert read_line(killed) == "assembling"
        killed.kill()
    assert [path.name.startswith(".ai-edge-litert") for path in tmp_path.iterdir()] == [True]
    with assemble(tmp_path) as process:
        made, _ = process.communicate("go on\n", timeout=60)
    assert process.returncode == 0, made
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gz", ".json"]


def test_pip_is_asked_for_the_targets_wheels_and_its_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> object:
        commands.append(command)
        lock = Path(command[-1]).read_text()
        assert "ai-edge-litert==2.3.0" in lock
        stderr = "WARNING: retrying\nERROR: No matching distribution found for numpy\nERROR: more\n"
        return pack.subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(pack.subprocess, "run", run)
    with pytest.raises(LinkError, match="Received from pip: ERROR: No matching distribution found for numpy") as info:
        pack_runtime(LITERT, PI, tmp_path)
    assert info.value.exit_code == 5
    words = " ".join(commands[0])
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version 3.11", "--abi cp311"):
        assert option in words
    for tag in ("manylinux_2_34_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"):
        assert f"--platform {tag}" in words
    assert "x86_64" not in words
    assert list(tmp_path.iterdir()) == []
