import fcntl
import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from liteship_agent import store

SOURCE = Path(store.__file__).read_bytes()
LOADER = f'import sys; exec(compile(sys.stdin.buffer.read({len(SOURCE)}), "store.py", "exec"))'
SMOKE_OK = """
import sys
from pathlib import Path
folder = Path(sys.argv[sys.argv.index("--folder") + 1])
with open(folder / "smokes", "a") as file:
    file.write("x")
print("noise")
print('\\x1eliteship {"event": "done", "ms": 1.5, "argv": %d}' % len(sys.argv))
"""
SMOKE_BAD = """print('\\x1eliteship {"event": "error", "message": "output is NaN"}')"""
SMOKE_DIES = "raise SystemExit('segfault or so')"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zip_of(main: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo("__main__.py"), main)
    return buffer.getvalue()


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = ""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, data


class Release:
    """What a host would send: an agent, one artefact, one runtime."""

    def __init__(self, smoke: str = SMOKE_OK, artefact: bytes = b"model" * 1000) -> None:
        runtime = tar_of(member("pkg/__init__.py", b"VALUE = 1\n"))
        self.blobs = [zip_of(smoke), artefact, runtime]
        self.content = {
            "runtimes": [{"folder": "lock-1", "sha256": sha256(runtime)}],
            "files": [
                {"path": "liteship_agent.zip", "sha256": sha256(self.blobs[0])},
                {"path": "artefacts/none-none.tflite", "sha256": sha256(artefact)},
            ],
        }
        self.text = json.dumps(self.content)
        self.id = sha256(self.text.encode())[:12]

    def stream(self, offsets: tuple[int, ...] = (0, 0, 0), **changes: object) -> bytes:
        blobs = [{"sha256": sha256(b), "size": len(b), "offset": o} for b, o in zip(self.blobs, offsets)]
        header = {"blobs": blobs, "release": self.content, "release_bytes": self.text, "time": "2026-11-22T12:00:00Z"}
        return self.header(header, changes) + b"".join(b[o:] for b, o in zip(self.blobs, offsets))

    @staticmethod
    def header(header: dict, changes: dict) -> bytes:
        return json.dumps({**header, **changes}).encode() + b"\n"


def command(verb: str, folder: Path) -> list[str]:
    return [sys.executable, "-I", "-S", "-B", "-c", LOADER, verb, str(folder)]


def run(verb: str, folder: Path, data: bytes = b"") -> tuple[int, list[dict]]:
    result = subprocess.run(command(verb, folder), input=SOURCE + data, capture_output=True, timeout=60)
    lines = [line.partition(store.EVENT_MARK)[2] for line in result.stdout.splitlines()]
    events = [json.loads(line) for line in lines if line]
    assert events, result.stderr.decode()
    return result.returncode, events


def answer(verb: str, folder: Path, data: bytes = b"") -> dict:
    status, events = run(verb, folder, data)
    assert [event["event"] for event in events[:-1]] == ["progress"] * (len(events) - 1)
    assert (status == 0) == (events[-1]["event"] == "done")
    return events[-1]


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def temporary_names(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if "tmp" in path.name]


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
    assert store.elf_machine(header) == expected


@pytest.mark.parametrize("header", [b"", b"\x7fELF\x02", b"#!/bin/sh\necho hello world\n"])
def test_machine_of_another_format_is_unknown(header):
    assert store.elf_machine(header) == ("unknown", struct.calcsize("P") * 8)


def test_probe_of_a_missing_folder_tells_the_machine_and_creates_nothing(tmp_path):
    found = answer("probe", tmp_path / "no" / "such")
    assert found["python_version"] == ".".join(map(str, sys.version_info[:3]))
    assert found["word_bits"] == struct.calcsize("P") * 8
    assert found["machine"] not in ("", "unknown")
    assert found["free_bytes"] > 0
    assert found["memory_bytes"] > 0
    assert found["folder"] == str(tmp_path / "no" / "such")
    assert (found["blobs"], found["runtimes"], found["releases"], found["current"]) == ({}, [], [], None)
    assert list(tmp_path.iterdir()) == []


def test_probe_expands_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert answer("probe", Path("~/lite ship"))["folder"] == str(tmp_path / "lite ship")


def test_deploy_makes_a_release_current(tmp_path):
    release, folder = Release(), tmp_path / "li té"
    done = answer("deploy", folder, release.stream())
    assert done["release"] == release.id
    assert done["activated"] is True
    assert done["smoke"] == {"ms": 1.5, "argv": 6}
    assert os.readlink(folder / "current") == f"releases/{release.id}"
    assert (folder / "current" / "release.json").read_text() == release.text
    artefact = folder / "current" / "artefacts" / "none-none.tflite"
    assert artefact.samefile(folder / "blobs" / sha256(release.blobs[1]))
    assert (folder / "runtimes" / "lock-1" / "pkg" / "__init__.py").read_text() == "VALUE = 1\n"
    assert list((folder / "runtimes" / "lock-1" / "pkg" / "__pycache__").glob("*.pyc"))
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    assert history == [{"time": "2026-11-22T12:00:00Z", "release": release.id, "action": "activate"}]
    found = answer("probe", folder)
    assert found["current"] == release.id
    assert found["releases"] == [release.id]
    assert found["runtimes"] == ["lock-1"]
    assert found["blobs"] == {sha256(b): len(b) for b in release.blobs[:2]}, "a runtime's blob is not kept"
    assert found["partial"] == {}
    assert temporary_names(folder) == []


def test_second_deploy_does_nothing(tmp_path):
    release = Release()
    answer("deploy", tmp_path, release.stream())
    before = files_of(tmp_path)
    release.blobs.clear()
    done = answer("deploy", tmp_path, release.stream())
    assert (done["release"], done["activated"], done["smoke"]) == (release.id, False, None)
    assert (tmp_path / "smokes").read_text() == "x"
    assert files_of(tmp_path) == before


def test_blobs_sent_again_do_not_activate_the_current_release_twice(tmp_path):
    release = Release()
    answer("deploy", tmp_path, release.stream())
    assert answer("deploy", tmp_path, release.stream())["activated"] is False
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_deploy_of_an_earlier_release_switches_back_without_its_blobs_being_sent(tmp_path):
    first, second = Release(), Release(artefact=b"other")
    answer("deploy", tmp_path, first.stream())
    answer("deploy", tmp_path, second.stream())
    first.blobs.clear()
    assert answer("deploy", tmp_path, first.stream())["activated"] is True
    assert os.readlink(tmp_path / "current") == f"releases/{first.id}"


def test_cut_stream_keeps_the_partial_and_the_next_deploy_resumes_it(tmp_path):
    release = Release(artefact=os.urandom(300_000))
    artefact = release.blobs[1]
    error = answer("deploy", tmp_path, release.stream()[: -len(release.blobs[2]) - 100_000])
    assert error["kind"] == "link"
    partial = answer("probe", tmp_path)["partial"]
    assert partial == {sha256(artefact): 200_000}
    done = answer("deploy", tmp_path, resumed(release))
    assert done["activated"] is True
    assert (tmp_path / "current" / "artefacts" / "none-none.tflite").read_bytes() == artefact


def resumed(release: Release) -> bytes:
    """The stream of a host that saw the agent's blob there and 200,000 bytes of the artefact's."""
    release.blobs.pop(0)
    return release.stream((200_000, 0))


def test_partial_of_another_length_is_refused(tmp_path):
    release = Release()
    error = answer("deploy", tmp_path, release.stream((0, 17, 0)))
    assert error["kind"] == "hash"
    assert "17 bytes is required. Received: 0 bytes" in error["message"]


def test_partial_that_is_longer_than_its_blob_is_given_up(tmp_path):
    release = Release()
    partial = tmp_path / "blobs" / ".partial" / sha256(release.blobs[1])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(9999))
    assert answer("deploy", tmp_path, release.stream((0, len(release.blobs[1]), 0)))["kind"] == "hash"
    assert answer("deploy", tmp_path, release.stream())["activated"] is True


def test_deploy_rejects_wrong_sha256(tmp_path):
    release = Release()
    right, wrong = release.blobs[1], b"MODEL" * 1000
    error = answer("deploy", tmp_path, release.stream().replace(right, wrong))
    assert error["kind"] == "hash"
    assert sha256(right) in error["message"]
    assert sha256(wrong) in error["message"]
    found = answer("probe", tmp_path)
    assert sha256(right) not in found["blobs"]
    assert found["partial"] == {}
    assert found["current"] is None


def test_damaged_partial_is_found_when_it_is_complete(tmp_path):
    release = Release()
    partial = tmp_path / "blobs" / ".partial" / sha256(release.blobs[1])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"X" * 100)
    assert answer("deploy", tmp_path, release.stream((0, 100, 0)))["kind"] == "hash"
    assert not partial.exists()


@pytest.mark.parametrize("what", ["blob", "unpacked"])
def test_deploy_without_enough_space_sends_nothing(tmp_path, what):
    release = Release()
    huge = 1 << 60
    blobs = [{"sha256": "0" * 64, "size": huge, "offset": 0}]
    changes = {"blobs": blobs} if what == "blob" else {"unpacked_bytes": huge}
    error = answer("deploy", tmp_path, release.stream(**changes))
    assert error["kind"] == "space"
    assert str(huge >> 20)[:6] in error["message"]
    assert "MiB of free space" in error["message"]
    assert error["hint"]
    assert answer("probe", tmp_path)["partial"] == {}


@pytest.mark.parametrize(
    "content",
    [
        {"files": [{"path": "../evil", "sha256": "0" * 64}], "runtimes": []},
        {"files": [{"path": "/etc/evil", "sha256": "0" * 64}], "runtimes": []},
        {"files": [{"path": "a/../../evil", "sha256": "0" * 64}], "runtimes": []},
        {"files": [{"path": "release.json", "sha256": "0" * 64}], "runtimes": []},
        {"files": [{"path": "a", "sha256": "../../evil"}], "runtimes": []},
        {"files": [], "runtimes": [{"folder": "..", "sha256": "0" * 64}]},
        {"files": [], "runtimes": [{"folder": "a/b", "sha256": "0" * 64}]},
        {"files": []},
        [],
    ],
)
def test_deploy_refuses_names_that_climb_out(tmp_path, content):
    error = answer("deploy", tmp_path / "in", Release().stream(release_bytes=json.dumps(content)))
    assert error["kind"] == "protocol"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "blob", [{"sha256": "../x", "size": 1, "offset": 0}, {"sha256": "0" * 64, "size": 1, "offset": 2}]
)
def test_deploy_refuses_blobs_that_are_none(tmp_path, blob):
    assert answer("deploy", tmp_path, Release().stream(blobs=[blob]))["kind"] == "protocol"


@pytest.mark.parametrize(
    "members",
    [
        [member("../evil", b"x")],
        [member("/tmp/evil", b"x")],
        [member("a/../../evil", b"x")],
        [member("link", kind=tarfile.SYMTYPE, target="../evil")],
        [member("link", kind=tarfile.SYMTYPE, target="/etc")],
        [member("in", kind=tarfile.SYMTYPE, target="."), member("out", kind=tarfile.SYMTYPE, target="in/../..")],
        [
            member("late", kind=tarfile.SYMTYPE, target="gap/.."),
            member("gap", kind=tarfile.SYMTYPE, target="."),
            member("late/evil", b"x"),
        ],
        [member("hard", kind=tarfile.LNKTYPE, target="../evil")],
        [member("pipe", kind=tarfile.FIFOTYPE)],
    ],
)
def test_unpack_writes_nothing_outside_of_its_folder(tmp_path, members):
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(tar_of(*members))
    with pytest.raises(store.StoreError) as caught:
        store.unpack(archive, tmp_path / "root")
    assert caught.value.kind == "archive"
    assert {path.name for path in tmp_path.iterdir()} == {"archive.tar.gz", "root"}


def test_unpack_keeps_inner_links_and_execute_bits(tmp_path):
    program, archive = member("bin/run", b"#!/bin/sh\n"), tmp_path / "archive.tar.gz"
    program[0].mode = 0o4777
    archive.write_bytes(tar_of(program, member("lib/link", kind=tarfile.SYMTYPE, target="../bin/run")))
    store.unpack(archive, tmp_path / "root")
    assert (tmp_path / "root" / "lib" / "link").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "root" / "bin" / "run").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("cut", [20, 60])
def test_unpack_names_a_damaged_archive(tmp_path, cut):
    archive = tmp_path / "archive.tar.gz"
    archive.write_bytes(tar_of(member("a", os.urandom(1000)))[:cut])
    with pytest.raises(store.StoreError, match=r"required to be a tar\.gz"):
        store.unpack(archive, tmp_path / "root")


@pytest.mark.parametrize(
    ("smoke", "reason"), [(SMOKE_BAD, "output is NaN"), (SMOKE_DIES, "exit status 1 segfault or so")]
)
def test_failed_smoke_leaves_the_old_release_current(tmp_path, smoke, reason):
    good, bad = Release(), Release(smoke)
    answer("deploy", tmp_path, good.stream())
    error = answer("deploy", tmp_path, bad.stream())
    assert error["kind"] == "smoke"
    assert reason in error["message"]
    found = answer("probe", tmp_path)
    assert (found["current"], found["releases"]) == (good.id, [good.id])
    assert sha256(bad.blobs[0]) in found["blobs"], "what was sent need not be sent again"
    assert temporary_names(tmp_path) == []


def test_missing_blob_is_named(tmp_path):
    release = Release()
    missing = sha256(release.blobs.pop(1))
    error = answer("deploy", tmp_path, release.stream())
    assert error["kind"] == "missing"
    assert missing in error["message"]
    assert answer("probe", tmp_path)["releases"] == []
    assert temporary_names(tmp_path) == []


def test_damaged_runtime_leaves_nothing_behind(tmp_path):
    release = Release()
    broken = b"not an archive"
    text = release.text.replace(sha256(release.blobs[2]), sha256(broken))
    release.blobs[2] = broken
    assert answer("deploy", tmp_path, release.stream(release_bytes=text))["kind"] == "archive"
    assert answer("probe", tmp_path)["runtimes"] == []
    assert temporary_names(tmp_path) == []


def test_two_deploys_at_once_are_refused(tmp_path):
    with open(tmp_path / "deploy.lock", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert answer("deploy", tmp_path, Release().stream())["kind"] == "locked"
    assert answer("deploy", tmp_path, Release().stream())["activated"] is True


def test_leftovers_of_a_power_cut_are_removed(tmp_path):
    (tmp_path / "runtimes" / ".tmp-lock-1").mkdir(parents=True)
    (tmp_path / "releases" / ".tmp-0").mkdir(parents=True)
    (tmp_path / "current.tmp").symlink_to("releases/0")
    assert answer("deploy", tmp_path, Release().stream())["activated"] is True
    assert temporary_names(tmp_path) == []


def test_terminated_deploy_keeps_the_partial_and_says_so(tmp_path):
    release = Release(artefact=os.urandom(4 * store.MIB))
    data = SOURCE + release.stream()[: -2 * store.MIB]
    with subprocess.Popen(command("deploy", tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(data)
        process.stdin.flush()
        assert json.loads(process.stdout.readline().partition(store.EVENT_MARK)[2])["received"] >= store.MIB
        process.send_signal(signal.SIGTERM)
        last = process.stdout.read().splitlines()[-1]
    assert json.loads(last.partition(store.EVENT_MARK)[2])["kind"] == "link"
    assert process.returncode == 1
    assert answer("probe", tmp_path)["partial"][sha256(release.blobs[1])] >= store.MIB


def test_folder_that_is_a_file_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    error = answer("deploy", tmp_path / "file", Release().stream())
    assert str(tmp_path / "file") in error["message"]
    assert "\n" not in error["message"]


def test_unknown_verb_is_an_error(tmp_path):
    assert answer("destroy", tmp_path)["kind"] == "protocol"


def test_heartbeat_reports_its_stage():
    events: list[dict] = []
    with store.heartbeat("runtime", events.append):
        pass
    assert events[0] == {"event": "progress", "stage": "runtime"}
