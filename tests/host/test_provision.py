from __future__ import annotations

import hashlib
import re
import tarfile
from importlib import resources
from pathlib import Path

import pytest

from liteship import provision
from liteship.errors import LinkError, UsageError
from liteship.provision import RUNTIMES, Interpreter, choose_runtime, pack_runtime

BOOKWORM = Interpreter((3, 11), "aarch64", 64, (2, 36))
LITERT, TFLITE = RUNTIMES[0], RUNTIMES[2]
LOCKS = sorted(resources.files("liteship").joinpath("runtimes").iterdir(), key=lambda path: path.name)


@pytest.mark.parametrize(
    ("python", "machine", "glibc", "wanted", "chosen"),
    [
        ((3, 11), "aarch64", (2, 36), "auto", "ai-edge-litert==2.3.0"),  # Raspberry Pi OS bookworm
        ((3, 9), "aarch64", (2, 31), "auto", "ai-edge-litert==2.1.0"),  # bullseye
        ((3, 13), "aarch64", (2, 41), "auto", "ai-edge-litert==2.3.0"),  # trixie
        ((3, 11), "x86_64", (2, 36), "auto", "ai-edge-litert==2.3.0"),
        ((3, 10), "aarch64", (2, 31), "auto", "tflite-runtime==2.14.0"),  # too old a C library for LiteRT 2.3.0
        ((3, 9), "aarch64", (2, 28), "auto", "tflite-runtime==2.14.0"),
        ((3, 11), "aarch64", (2, 36), "tflite-runtime", "tflite-runtime==2.14.0"),
        ((3, 11), "aarch64", (2, 36), "tflite-runtime==2.14.0", "tflite-runtime==2.14.0"),
        ((3, 9), "aarch64", (2, 31), "ai-edge-litert", "ai-edge-litert==2.1.0"),
    ],
)
def test_runtime_is_the_newest_that_fits(
    python: tuple[int, int], machine: str, glibc: tuple[int, int], wanted: str, chosen: str
) -> None:
    assert choose_runtime(Interpreter(python, machine, 64, glibc), wanted).requirement == chosen


@pytest.mark.parametrize(
    ("interpreter", "wanted", "received"),
    [
        (Interpreter((3, 13), "aarch64", 64, (2, 41)), "tflite-runtime", "Python 3.13, 64-bit aarch64, glibc 2.41"),
        (Interpreter((3, 11), "armv7l", 32, (2, 36)), "auto", "Python 3.11, 32-bit armv7l, glibc 2.36"),
        (Interpreter((3, 11), "riscv", 64, (2, 36)), "auto", "64-bit riscv"),
        (Interpreter((3, 11), "aarch64", 64, None), "auto", "no glibc"),  # musl
        (Interpreter((3, 8), "aarch64", 64, (2, 36)), "auto", "Python 3.8"),
        (Interpreter((3, 9), "aarch64", 64, (2, 26)), "auto", "glibc 2.26"),
        (Interpreter((3, 9), "aarch64", 64, (2, 31)), "ai-edge-litert==2.3.0", "Python 3.9"),
    ],
)
def test_target_that_no_runtime_fits_is_refused(interpreter: Interpreter, wanted: str, received: str) -> None:
    with pytest.raises(LinkError) as info:
        choose_runtime(interpreter, wanted)
    assert info.value.exit_code == 5
    assert received in info.value.message
    assert "`python`" in info.value.hint


def test_refusal_tells_what_each_runtime_needs() -> None:
    with pytest.raises(LinkError, match=re.escape("tflite-runtime==2.14.0 (Python 3.9, 3.10, 3.11, glibc 2.27")):
        choose_runtime(Interpreter((3, 13), "aarch64", 64, (2, 41)), "tflite-runtime")


def test_unknown_runtime_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"auto, ai-edge-litert, tflite-runtime, .* Received: tensorflow") as info:
        choose_runtime(BOOKWORM, "tensorflow")
    assert info.value.exit_code == 2


def test_interpreter_is_what_the_probe_says() -> None:
    probe = {"python_version": "3.11.2", "machine": "armv7l", "word_bits": 32, "libc": ["glibc", "2.36"]}
    assert Interpreter.of(probe) == Interpreter((3, 11), "armv7l", 32, (2, 36))
    assert Interpreter.of({**probe, "libc": None}).glibc is None
    assert Interpreter.of({**probe, "libc": ["musl", "1.2"]}).glibc is None


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


def write_site(site: Path) -> None:
    for name in (
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
    ):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


KEPT = [
    "ai_edge_litert/_wrapper.so",
    "ai_edge_litert/interpreter.py",
    "numpy/__init__.py",
    "numpy-2.4.0.dist-info/METADATA",
]


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lock of every installation; instead of wheels, a few files are written."""
    locks: list[str] = []

    def install(lock: str, interpreter: Interpreter, site: Path, work: Path) -> None:
        locks.append(lock)
        write_site(site)

    monkeypatch.setattr(provision, "_install", install)
    return locks


def test_packed_runtime_is_trimmed_and_has_plain_members(tmp_path: Path, installs: list[str]) -> None:
    packed = pack_runtime(LITERT, BOOKWORM, tmp_path)
    assert installs == [(resources.files("liteship") / "runtimes/ai-edge-litert-2.3.0-cp311.txt").read_text()]
    with tarfile.open(packed.path) as archive:
        members = archive.getmembers()
        assert [member.name for member in members] == KEPT
        file = archive.extractfile(KEPT[0])
        assert file is not None
        assert file.read() == KEPT[0].encode()
    assert {(member.mtime, member.uid, member.gid, member.mode) for member in members} == {(0, 0, 0, 0o644)}
    assert packed.sha256 == hashlib.sha256(packed.path.read_bytes()).hexdigest()
    assert packed.reference().folder == packed.folder
    assert packed.folder.startswith("ai-edge-litert-2.3.0-cp311-aarch64-")


def test_same_files_give_the_same_bytes_in_any_cache(tmp_path: Path, installs: list[str]) -> None:
    first, second = (pack_runtime(LITERT, BOOKWORM, tmp_path / name) for name in ("one", "two"))
    assert len(installs) == 2
    assert (first.sha256, first.folder) == (second.sha256, second.folder)
    assert first.unpacked_bytes >= sum(len(name) for name in KEPT)


def test_cached_runtime_is_not_installed_again(tmp_path: Path, installs: list[str]) -> None:
    assert pack_runtime(LITERT, BOOKWORM, tmp_path) == pack_runtime(LITERT, BOOKWORM, tmp_path)
    assert len(installs) == 1


def test_runtime_machine_and_python_have_files_of_their_own(tmp_path: Path, installs: list[str]) -> None:
    trixie, computer = Interpreter((3, 13), "aarch64", 64, (2, 41)), Interpreter((3, 11), "x86_64", 64, (2, 36))
    pairs = [(LITERT, BOOKWORM), (TFLITE, BOOKWORM), (LITERT, trixie), (LITERT, computer)]
    assert len({pack_runtime(runtime, interpreter, tmp_path).folder for runtime, interpreter in pairs}) == 4


def test_failed_installation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(lock: str, interpreter: Interpreter, site: Path, work: Path) -> None:
        write_site(site)
        raise LinkError("The wheels of the target's runtime are required. Received from pip: no index")

    monkeypatch.setattr(provision, "_install", fail)
    with pytest.raises(LinkError, match="no index"):
        pack_runtime(LITERT, BOOKWORM, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pip_is_asked_for_the_targets_wheels_and_its_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], **options: object) -> object:
        commands.append(command)
        lock = Path(command[-1]).read_text()
        assert "ai-edge-litert==2.3.0" in lock
        stderr = "WARNING: retrying\nERROR: No matching distribution found for numpy\nERROR: more\n"
        return provision.subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(provision.subprocess, "run", run)
    with pytest.raises(LinkError, match="Received from pip: ERROR: No matching distribution found for numpy") as info:
        pack_runtime(LITERT, BOOKWORM, tmp_path)
    assert info.value.exit_code == 5
    words = " ".join(commands[0])
    for option in ("--require-hashes", "--no-deps", "--only-binary=:all:", "--python-version 3.11", "--abi cp311"):
        assert option in words
    for tag in ("manylinux_2_34_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"):
        assert f"--platform {tag}" in words
    assert "x86_64" not in words
    assert list(tmp_path.iterdir()) == []
