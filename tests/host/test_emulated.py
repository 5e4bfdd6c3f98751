"""The emulated board without QEMU: its first root file system, its state, its files' owners, its errors."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from liteship.built_in import EMULATED
from liteship.cli import emulated as cli
from liteship.emulated import image, initrd, machine, root
from liteship.errors import LinkError, TargetError
from liteship.progress import Reporter
from liteship.targets import EMULATED_STATE, find_target, read_emulated

FINGERPRINT = "SHA256:" + "a" * 43
FIELDS = {"host": "127.0.0.1", "port": 2222, "user": "pi", "host_key_sha256": FINGERPRINT}


@pytest.fixture
def say() -> Reporter:
    return Reporter(Console(file=open(os.devnull, "w")))


@pytest.fixture
def process(tmp_path: Path):
    """A process that waits, with the words of a QEMU that forwards port 2222 on its command line."""
    words = [sys.executable, "-c", "print(flush=True); input()", "user,hostfwd=tcp:127.0.0.1:2222-:22"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        running.stdout.readline()  # by then the kernel tells its command line
        yield running
        running.kill()


def write_state(folder: Path, pid: int, **changes: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EMULATED_STATE).write_text(json.dumps({"pid": pid, "name": "emulated", "target": {**FIELDS, **changes}}))


def write_module(folder: Path, name: str, depends: str) -> None:
    (folder / f"{name}.ko").write_bytes(b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0")


# --- first root file system ---


def test_modules_come_after_what_they_depend_on(tmp_path):
    write_module(tmp_path, "virtio-rng", "virtio,rng_core")
    write_module(tmp_path, "virtio", "virtio_ring")
    write_module(tmp_path, "virtio_ring", "")
    write_module(tmp_path, "rng-core", "")
    found = initrd.in_order(["virtio_rng"], initrd.find_modules(tmp_path))
    assert [path.name for path in found] == ["virtio_ring.ko", "virtio.ko", "rng-core.ko", "virtio-rng.ko"]


def test_missing_module_is_named(tmp_path):
    write_module(tmp_path, "virtio_blk", "virtio")
    with pytest.raises(LinkError, match="module virtio is required"):
        initrd.in_order(["virtio_blk"], initrd.find_modules(tmp_path))


@pytest.mark.skipif(shutil.which("cpio") is None, reason="not run: no cpio")
def test_cpio_unpacks_the_archive(tmp_path):
    archive = initrd.pack(["bin", "dev"], {"init": b"#!/bin/sh\n", "bin/tool": b"12345", "empty": b""})
    subprocess.run(["cpio", "-i", "--quiet", "--no-absolute-filenames"], input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "bin/tool").read_bytes() == b"12345"
    assert (tmp_path / "empty").read_bytes() == b""
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "dev").is_dir()


def test_archive_has_the_drivers_in_order(tmp_path):
    for name in ("virtio_pci", "virtio_blk", "virtio_net", "virtio-rng", "sch_netem"):
        write_module(tmp_path, name, "")
    (tmp_path / "busybox").write_bytes(b"box")
    initrd.write_initrd(tmp_path / "initrd.gz", tmp_path / "busybox", b"script", tmp_path)
    content = gzip.decompress((tmp_path / "initrd.gz").read_bytes())
    assert content.startswith(b"070701")
    assert b"virtio_pci.ko\nvirtio_blk.ko\nvirtio_net.ko\nvirtio-rng.ko\nsch_netem.ko" in content


# --- disk ---


def test_all_but_the_users_home_is_roots_in_the_guest(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "home/pi/.ssh").mkdir(parents=True)
    found = {owner.path: (owner.uid, owner.gid) for owner in root.owners(tmp_path)}
    mine = (os.getuid(), os.getgid())
    wanted = {"/etc": (0, 0), "/home": (0, 0), "/home/pi": (1000, 1000), "/home/pi/.ssh": (1000, 1000)}
    for path, owner in wanted.items():
        assert found.get(path, mine) == owner


@pytest.mark.skipif(shutil.which("debugfs", path="/usr/sbin:/sbin") is None, reason="not run: no e2fsprogs")
def test_owners_are_written_into_the_file_system(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "DISK_MIB", 64)
    monkeypatch.setattr(image, "_INODES", 1024)
    tree = tmp_path / "tree"
    (tree / "with space").mkdir(parents=True)
    (tree / "with space/file").write_text("content")
    image.write_disk(tmp_path / "disk.img", tree, [root.Owner("/with space/file", 1000, 1234)])
    debugfs = [image.find_program("debugfs"), "-R", 'stat "/with space/file"', str(tmp_path / "disk.img")]
    told = subprocess.run(debugfs, capture_output=True, text=True, check=True).stdout
    assert "User:  1000   Group:  1234" in told


@pytest.mark.skipif(shutil.which("debugfs", path="/usr/sbin:/sbin") is None, reason="not run: no e2fsprogs")
def test_owner_of_a_file_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(image, "DISK_MIB", 64)
    monkeypatch.setattr(image, "_INODES", 1024)
    (tmp_path / "tree").mkdir()
    with pytest.raises(LinkError, match="debugfs"):
        image.write_disk(tmp_path / "disk.img", tmp_path / "tree", [root.Owner("/nowhere", 0, 0)])


def test_user_joins_only_groups_that_are_its_own():
    assert root.with_user("video:*:44:") == "video:*:44:pi"
    assert root.with_user("shadow:*:42:") == "shadow:*:42:"
    assert root.with_user("video:*:44:44:video:/:/bin/sh") == "video:*:44:44:video:/:/bin/sh"


# --- image ---


def test_missing_programs_are_named_with_the_line_that_installs_them(monkeypatch, tmp_path, say):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(image, "_SYSTEM_FOLDERS", str(tmp_path))
    with pytest.raises(LinkError) as caught:
        image.ensure_image(tmp_path / "image", say)
    assert "mmdebstrap, mke2fs, debugfs, qemu-system-aarch64. Received" in caught.value.message
    assert caught.value.hint.endswith(" mmdebstrap debian-archive-keyring e2fsprogs qemu-system-arm")
    assert caught.value.exit_code == 5
    assert not (tmp_path / "image").exists()


def test_interrupted_build_leaves_nothing_and_the_next_one_starts_anew(monkeypatch, tmp_path, say):
    def interrupted(tree: Path, log: Path) -> None:
        tree.mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(image, "find_program", lambda name: name)
    monkeypatch.setattr(root, "unpack", interrupted)
    (tmp_path / ".image-killed").mkdir()
    with pytest.raises(KeyboardInterrupt):
        image.ensure_image(tmp_path / "image", say)
    assert [path.name for path in tmp_path.iterdir()] == [".image.lock"]


def test_image_of_other_ingredients_is_none(tmp_path):
    told = {"ingredients_sha256": image._ingredients(), "host_key_sha256": FINGERPRINT}
    (tmp_path / "image.json").write_text(json.dumps(told))
    assert image.read_image(tmp_path) == image.Image(tmp_path, FINGERPRINT)
    (tmp_path / "image.json").write_text(json.dumps({**told, "ingredients_sha256": "other"}))
    assert image.read_image(tmp_path) is None


# --- machine ---


def test_running_machine_is_found(tmp_path, monkeypatch, process):
    monkeypatch.chdir(tmp_path)
    write_state(Path(".liteship/emulated"), process.pid)
    target = find_target(EMULATED)
    assert (target.name, target.port, target.user, target.host_key_sha256) == ("emulated", 2222, "pi", FINGERPRINT)


def test_machine_that_does_not_run_names_the_line_that_starts_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError) as caught:
        find_target(EMULATED)
    assert caught.value.hint == "Start it with: make emulated"


def test_process_id_that_another_process_has_by_now_is_no_machine(tmp_path, process):
    write_state(tmp_path, process.pid, port=2223)
    assert read_emulated(tmp_path) is None


def test_ended_process_is_no_machine(tmp_path, process):
    write_state(tmp_path, process.pid)
    assert read_emulated(tmp_path) is not None
    process.kill()
    process.wait()
    assert read_emulated(tmp_path) is None


def test_kill_spares_a_process_that_has_the_number_by_now(tmp_path, process):
    write_state(tmp_path, process.pid)
    found = machine.find_machine(tmp_path)
    assert found is not None
    write_state(tmp_path, process.pid, port=2223)
    found.kill()
    assert process.poll() is None


def test_state_that_cannot_be_read_is_one_line(tmp_path):
    (tmp_path / EMULATED_STATE).write_text("{}")
    with pytest.raises(TargetError, match="the state of an emulated board is required"):
        read_emulated(tmp_path)


def test_second_machine_in_a_folder_is_refused(tmp_path, process, say, monkeypatch):
    monkeypatch.setattr(machine, "find_program", lambda name: name)
    write_state(tmp_path, process.pid)
    with pytest.raises(LinkError, match=f"Received: process {process.pid}"):
        machine.start(image.Image(tmp_path, FINGERPRINT), tmp_path, machine.Options(), say)


def test_program_that_ends_at_once_tells_why(tmp_path, say, monkeypatch):
    made = image.Image(tmp_path / "image", FINGERPRINT)
    made.folder.mkdir()
    made.disk.write_bytes(b"disk")
    made.identity_file.write_text("key")
    monkeypatch.setattr(machine, "find_program", lambda name: "false")
    with pytest.raises(LinkError, match="Received: exit status 1, nothing"):
        machine.start(made, tmp_path / "machine", machine.Options(), say)
    assert (tmp_path / "machine/disk.img").read_bytes() == b"disk"
    assert read_emulated(tmp_path / "machine") is None


def test_monitor_of_a_machine_that_ended_is_one_line(tmp_path, process):
    write_state(tmp_path, process.pid)
    found = machine.find_machine(tmp_path)
    assert found is not None
    with pytest.raises(LinkError, match="emulated: a running machine is required"):
        found.freeze()


# --- command line ---


def test_status_and_stop_without_a_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "does not run" in CliRunner().invoke(cli.app, ["status"]).stdout
    told = json.loads(CliRunner().invoke(cli.app, ["status", "--json"]).stdout)
    assert told == {"running": False, "target": None}
    assert "does not run" in CliRunner().invoke(cli.app, ["stop"]).stdout


def test_start_of_a_running_machine_says_where_it_is(tmp_path, monkeypatch, process):
    monkeypatch.chdir(tmp_path)
    write_state(Path(".liteship/emulated"), process.pid)
    ended = CliRunner().invoke(cli.app, ["start"])
    assert ended.stdout == "emulated runs already: pi@127.0.0.1, port 2222\n"
    assert json.loads(CliRunner().invoke(cli.app, ["status", "--json"]).stdout)["target"]["port"] == 2222
