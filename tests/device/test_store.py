import contextlib
import fcntl
import gzip
import io
import json
import lzma
import os
import signal
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_samples import (
    SMOKE_BAD,
    SMOKE_DIES,
    Release,
    answer,
    command,
    files_of,
    member,
    run,
    sha256,
    tar_of,
    temporary_names,
)

from liteship.programs import STORE
from liteship_agent.store import disk, main, transfer
from liteship_agent.store.disk import locked
from liteship_agent.store.events import EVENT_MARK, MIB, StoreError, heartbeat
from liteship_agent.store.runtimes import unpack


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
    assert done["collected"] == {"releases": [], "blobs": [], "runtimes": [], "caches": [], "bytes": 0}
    assert found["partial"] == {}
    assert temporary_names(folder) == []


def test_second_deploy_changes_nothing(tmp_path):
    release = Release()
    answer("deploy", tmp_path, release.stream())
    before = files_of(tmp_path)
    release.blobs.clear()
    done = answer("deploy", tmp_path, release.stream())
    assert (done["release"], done["activated"]) == (release.id, False)
    assert (tmp_path / "smokes").read_text() == "xx", "it is checked again all the same"
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
    assert partial == {sha256(release.blobs[0]): len(release.blobs[0]), sha256(artefact): 200_000}
    done = answer("deploy", tmp_path, release.stream((len(release.blobs[0]), 200_000, 0)))
    assert done["activated"] is True
    assert (tmp_path / "current" / "artefacts" / "none-none.tflite").read_bytes() == artefact


def test_partial_that_is_gone_is_asked_for_again(tmp_path):
    release = Release()
    error = answer("deploy", tmp_path, release.stream((0, 17, 0)))
    assert error["kind"] == "link", "so that the host tries again"
    assert "17 bytes is required. Received: 0 bytes" in error["message"]


def test_bytes_that_came_after_the_host_asked_are_taken_anew(tmp_path):
    release = Release()
    partial = tmp_path / "blobs" / ".partial" / sha256(release.blobs[1])
    partial.parent.mkdir(parents=True)
    partial.write_bytes(release.blobs[1][:100] + bytes(9999))
    assert answer("deploy", tmp_path, release.stream((0, 100, 0)))["activated"] is True
    assert (tmp_path / "current" / "artefacts" / "none-none.tflite").read_bytes() == release.blobs[1]


def test_deploy_rejects_wrong_sha256(tmp_path):
    release = Release()
    right, wrong = release.blobs[1], b"MODEL" * 1000
    error = answer("deploy", tmp_path, release.stream().replace(right, wrong))
    assert error["kind"] == "hash"
    assert sha256(right) in error["message"]
    assert sha256(wrong) in error["message"]
    found = answer("probe", tmp_path)
    assert sha256(right) not in {**found["blobs"], **found["partial"]}
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
    with pytest.raises(StoreError) as caught:
        unpack(archive, tmp_path / "root")
    assert caught.value.kind == "archive"
    assert {path.name for path in tmp_path.iterdir()} == {"archive.tar.gz", "root"}


def test_unpack_keeps_inner_links_and_execute_bits(tmp_path):
    program, archive = member("bin/run", b"#!/bin/sh\n"), tmp_path / "archive.tar.gz"
    program[0].mode = 0o4777
    archive.write_bytes(tar_of(program, member("lib/link", kind=tarfile.SYMTYPE, target="../bin/run")))
    unpack(archive, tmp_path / "root")
    assert (tmp_path / "root" / "lib" / "link").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "root" / "bin" / "run").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("compress", [bytes, lambda packed: lzma.compress(gzip.decompress(packed))])
@pytest.mark.parametrize("cut", [20, 60, 800])
def test_unpack_names_a_damaged_archive(tmp_path, compress, cut):
    archive = tmp_path / "archive"
    packed = compress(tar_of(member("a", os.urandom(1000))))
    archive.write_bytes(packed)
    unpack(archive, tmp_path / "whole")
    archive.write_bytes(packed[:cut])
    with pytest.raises(StoreError, match=r"required to be a tar\.gz or tar\.xz"):
        unpack(archive, tmp_path / "root")


def test_unpack_names_an_archive_whose_bytes_have_changed(tmp_path):
    archive = tmp_path / "archive"
    packed = bytearray(lzma.compress(gzip.decompress(tar_of(member("a", os.urandom(1000))))))
    packed[500] ^= 1
    archive.write_bytes(packed)
    with pytest.raises(StoreError, match=r"required to be a tar\.gz or tar\.xz"):
        unpack(archive, tmp_path / "root")


@pytest.mark.parametrize(
    ("smoke", "reason"), [(SMOKE_BAD, "output is NaN"), (SMOKE_DIES, "exit status 1 segfault or so")]
)
def test_failed_smoke_leaves_the_old_release_current(tmp_path, smoke, reason):
    good, bad = Release(), Release(smoke)
    answer("deploy", tmp_path, good.stream())
    error = answer("deploy", tmp_path, bad.stream())
    assert error["kind"] == "smoke"
    assert reason in error["message"]
    assert f"Release {good.id} is active as before." in error["hint"]
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
    assert [name for name in temporary_names(tmp_path) if "/.tmp-" in name] == []


def test_damaged_runtime_leaves_nothing_behind(tmp_path):
    release = Release()
    broken = b"not an archive"
    text = release.text.replace(sha256(release.blobs[2]), sha256(broken))
    release.blobs[2] = broken
    assert answer("deploy", tmp_path, release.stream(release_bytes=text))["kind"] == "archive"
    assert answer("probe", tmp_path)["runtimes"] == []
    assert [name for name in temporary_names(tmp_path) if "/.tmp-" in name] == []


def test_two_deploys_at_once_are_refused(tmp_path):
    waited: list[float] = []

    def pause(seconds: float) -> None:
        waited.append(seconds)

    with (
        locked(tmp_path / "deploy.lock"),
        pytest.raises(StoreError, match="another deploy is running") as caught,
        locked(tmp_path / "deploy.lock", 0.05, pause),
    ):
        pytest.fail("two hold the lock")
    assert caught.value.kind == "locked"
    assert waited


def test_deploy_waits_for_one_that_ends(tmp_path):
    with subprocess.Popen(command("deploy", tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        with locked(tmp_path / "deploy.lock"):
            process.stdin.write(STORE.packed + Release().stream())
            process.stdin.close()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
        assert process.wait(30) == 0
    assert answer("probe", tmp_path)["current"] == Release().id


@contextlib.contextmanager
def hold(folder: Path, holder: str) -> Iterator[None]:
    """The lock of a job or camera."""
    with open(folder / "lock", "w") as file:
        file.write(f"1 {holder}\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_deploy_does_not_disturb_a_job(tmp_path):
    first, second = Release(), Release(artefact=b"other")
    answer("deploy", tmp_path, first.stream())
    (tmp_path / "jobs" / "job-7").mkdir(parents=True)
    (tmp_path / "jobs" / "job-7" / "job.json").write_text(json.dumps({"release_id": first.id}))
    with hold(tmp_path, "job-7"):
        error = answer("deploy", tmp_path, second.stream())
    assert (error["kind"], "job job-7 runs" in error["message"]) == ("locked", True)
    assert answer("probe", tmp_path)["current"] == first.id
    assert answer("deploy", tmp_path, second.stream())["activated"] is True


def test_leftovers_of_a_power_cut_are_removed(tmp_path):
    (tmp_path / "runtimes" / ".tmp-lock-1").mkdir(parents=True)
    (tmp_path / "releases" / ".tmp-0").mkdir(parents=True)
    (tmp_path / "current.tmp").symlink_to("releases/0")
    assert answer("deploy", tmp_path, Release().stream())["activated"] is True
    assert temporary_names(tmp_path) == []


def test_terminated_deploy_keeps_the_partial_and_says_so(tmp_path):
    release = Release(artefact=os.urandom(4 * MIB))
    data = STORE.packed + release.stream()[: -2 * MIB]
    with subprocess.Popen(command("deploy", tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(data)
        process.stdin.flush()
        assert json.loads(process.stdout.readline().partition(EVENT_MARK)[2])["event"] == "inventory"
        assert json.loads(process.stdout.readline().partition(EVENT_MARK)[2])["received"] >= MIB
        process.send_signal(signal.SIGTERM)
        last = process.stdout.read().splitlines()[-1]
    assert json.loads(last.partition(EVENT_MARK)[2])["kind"] == "link"
    assert process.returncode == 1
    assert answer("probe", tmp_path)["partial"][sha256(release.blobs[1])] >= MIB


def test_folder_that_is_a_file_is_an_error_with_its_name(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    error = answer("deploy", tmp_path / "file", Release().stream())
    assert str(tmp_path / "file") in error["message"]
    assert "\n" not in error["message"]


def test_unknown_verb_is_an_error(tmp_path):
    assert answer("destroy", tmp_path)["kind"] == "protocol"


def test_heartbeat_reports_its_stage():
    events: list[dict] = []
    with heartbeat("runtime", events.append):
        pass
    assert events[0] == {"event": "progress", "stage": "runtime"}


# --- what a host is told ---


def test_texts_come_with_the_header(tmp_path):
    release, text = Release(), '{"a": 1}'
    release.content["files"].append({"path": "manifest.json", "sha256": sha256(text.encode())})
    data = release.stream(texts={sha256(text.encode()): text}, release_bytes=json.dumps(release.content))
    assert answer("deploy", tmp_path, data)["activated"] is True
    assert (tmp_path / "current" / "manifest.json").read_text() == text


def test_text_of_another_sha256_is_refused(tmp_path):
    assert answer("deploy", tmp_path, Release().stream(texts={"0" * 64: "text"}))["kind"] == "hash"


def test_host_that_has_nothing_to_send_hears_what_is_there_and_creates_nothing(tmp_path):
    status, (told, done) = run("deploy", tmp_path / "in")
    assert (status, told["event"], done) == (0, "inventory", {"event": "done"})
    assert told["folder"] == str(tmp_path / "in")
    assert (told["blobs"], told["current"]) == ({}, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("header", [b"12", b"9999999999999\n", b"4\nzip?", b"4\nzi", b"-1\nx"])
def test_header_that_is_none_is_an_error_and_creates_nothing(tmp_path, header):
    assert answer("deploy", tmp_path / "in", header)["kind"] in ("protocol", "link")
    assert list(tmp_path.iterdir()) == []


def test_header_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(transfer, "_MOST_HEADER_BYTES", 1000)
    packed = zlib.compress(bytes(10_000))
    with pytest.raises(StoreError, match="a header that does not end"):
        transfer.read_header(io.BytesIO(f"{len(packed)}\n".encode() + packed))


def test_plan_tells_what_would_go_and_changes_nothing(tmp_path):
    releases = [Release(artefact=bytes([number]) * 1000) for number in range(3)]
    for release in releases[:2]:
        answer("deploy", tmp_path, release.stream())
    before = files_of(tmp_path)
    planned = answer("plan", tmp_path, releases[2].stream(keep=2))
    assert (planned["release"], planned["current"]) == (releases[2].id, releases[1].id)
    assert planned["collect"]["releases"] == [releases[0].id]
    assert planned["collect"]["blobs"] == [sha256(releases[0].blobs[1])]
    assert planned["collect"]["bytes"] == 1000
    assert files_of(tmp_path) == before
    done = answer("deploy", tmp_path, releases[2].stream(keep=2))
    assert done["collected"] == planned["collect"]


# --- flushes ---


class Disk:
    """Counts flushes, and notes which names existed when contents were flushed."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.calls = folder, []
        fsync = os.fsync
        monkeypatch.setattr(os, "fsync", lambda number: (self.note("fsync"), fsync(number)))
        monkeypatch.setattr(os, "sync", lambda: self.note("sync"))
        for module in (main, disk):
            monkeypatch.setattr(module, "sync_filesystem", lambda folder: self.note("syncfs"))

    def note(self, call: str) -> None:
        names = {path.name for path in (*self.folder.glob("blobs/*"), *self.folder.glob("releases/*"))}
        self.calls.append((call, {name for name in names if not name.startswith(".")}))


@pytest.mark.parametrize("artefacts", [1, 12])
def test_deploy_flushes_before_names_and_ten_times_at_most_beside_one_for_each_artefact(
    tmp_path, monkeypatch, artefacts
):
    release = Release()
    for number in range(artefacts - 1):
        blob = f"model {number}".encode()
        release.blobs.append(blob)
        release.content["files"].append({"path": f"artefacts/{number}.tflite", "sha256": sha256(blob)})
    data = release.stream((0,) * len(release.blobs), release_bytes=json.dumps(release.content))
    for old in range(4):
        answer("deploy", tmp_path, Release(artefact=b"old %d" % old).stream())
    before = set(os.listdir(tmp_path / "blobs")) | set(os.listdir(tmp_path / "releases"))
    seen = Disk(tmp_path, monkeypatch)
    main.deploy(tmp_path, io.BufferedReader(io.BytesIO(data)), lambda event: None)
    assert seen.calls[0][0] == "syncfs"
    assert seen.calls[0][1] <= before, "nothing has its name before its content is flushed"
    assert 5 <= len(seen.calls) <= 10 + artefacts
    assert len(seen.calls) <= 9, "however many artefacts there are"
