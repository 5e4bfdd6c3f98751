"""A running emulated board: QEMU as a process of its own that outlives whoever started it.

A machine has a folder: its own copy of the image's disk, what it printed, its monitor's socket, and `running.json`,
which tells `liteship.targets` how to reach it. It is up when its SSH server greets; by then logind serves logins.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liteship.built_in import EMULATED
from liteship.emulated.image import QEMU, Image, find_program
from liteship.emulated.root import USER
from liteship.errors import LinkError
from liteship.progress import Reporter
from liteship.remote import Connection
from liteship.targets import EMULATED_STATE, Target, read_emulated
from liteship_agent.records import write_atomic

_ADDRESS = "127.0.0.1"
_BOOT_SECONDS = 300.0
"""Half a minute on an idle computer; tests and builds beside it take their share."""
_END_SECONDS = 30.0
_MONITOR_SECONDS = 10.0
_BANNER = b"SSH-"
_CONSOLE = "console.log"
_MONITOR = "monitor.sock"
_LOG = "qemu.log"


@dataclass(frozen=True)
class Options:
    """What a machine is like.

    Args:
        memory_mib: Of the guest.
        cpus: Of the guest; emulated ones, each a thread here.
        port: Of 127.0.0.1 for its SSH server; 0 takes a free one.
        is_snapshot: Keep what is written in memory and lose it at the end, instead of on the machine's disk.
        append: Further words of the kernel's command line.
        root_flags: Further mount options of its disk, such as "noauto_da_alloc".
    """

    memory_mib: int = 1024
    cpus: int = 2
    port: int = 0
    is_snapshot: bool = False
    append: str = ""
    root_flags: str = ""


class Machine:
    """One machine that was started.

    Args:
        folder: Its own.
        pid: Of QEMU.
        target: How to reach it, as the user `pi`.
    """

    def __init__(self, folder: Path, pid: int, target: Target) -> None:
        self.folder, self.pid, self.target = folder, pid, target

    @property
    def root_target(self) -> Target:
        """The same machine, as root: for what a board's owner does to it."""
        return self.target.model_copy(update={"user": "root"})

    @property
    def is_running(self) -> bool:
        """Whether its process lives."""
        return find_machine(self.folder) is not None

    def freeze(self) -> None:
        """Stop its clock and CPUs; its links stay open and silent."""
        self.monitor("stop")

    def thaw(self) -> None:
        """Let a frozen machine go on."""
        self.monitor("cont")

    def set_link(self, is_up: bool) -> None:
        """Pull its network cable, or plug it in again."""
        self.monitor("set_link", name="nic0", up=is_up)

    def kill(self) -> None:
        """Cut its power: what its kernel has not written to the disk is lost."""
        if self.is_running:  # else its number may be another process's by now
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._wait_for_end(_END_SECONDS)
        (self.folder / EMULATED_STATE).unlink(missing_ok=True)

    def stop(self) -> None:
        """Shut it down as its owner would; one that does not answer has its power cut."""
        with contextlib.suppress(LinkError), Connection.open(self.root_target) as connection:
            # The event that ends a call; see liteship_agent.store.
            connection.call('systemctl poweroff --no-block; printf \'\\036liteship {"event": "done"}\\n\'')
        self._wait_for_end(_END_SECONDS)
        self.kill()

    def monitor(self, command: str, **arguments: Any) -> Any:
        """Give QEMU's monitor a command (the QEMU Machine Protocol) and return its answer.

        Raises:
            LinkError: the machine does not run, or QEMU refuses.
        """
        try:
            with _monitor_link(self.folder) as link, link.makefile("rwb") as stream:
                stream.readline()  # its greeting
                for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
                    stream.write(json.dumps(request).encode() + b"\n")
                    stream.flush()
                    answer = _answer(stream)
        except OSError as exc:
            raise LinkError(f"{self.target.name}: a running machine is required. Received: {exc.strerror}.") from exc
        if "error" in answer:
            raise LinkError(f"{self.target.name}: {command} is refused: {answer['error']['desc']}")
        return answer["return"]

    def _wait_for_end(self, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while self.is_running and time.monotonic() < ends_at:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)  # where this very process has started it
            time.sleep(0.1)


def find_machine(folder: Path) -> Machine | None:
    """The machine that runs in a folder, None where there is none."""
    state = read_emulated(folder)
    return None if state is None else Machine(folder, *state)


def start(image: Image, folder: Path, options: Options, say: Reporter, *, name: str = EMULATED) -> Machine:
    """Start a machine and wait until it can be logged in to.

    A disk that the folder has from before is started from again, if it is the image's.

    Args:
        image: Of which the disk is copied.
        folder: Of the machine.
        options: What it is like.
        say: Progress.
        name: Of its target.

    Raises:
        LinkError: QEMU is missing or ends at once, one runs there already, or the guest does not come up in time.
    """
    program = find_program(QEMU)
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if (running := find_machine(folder)) is not None:
        raise LinkError(f"{folder}: a folder without a running machine is required. Received: process {running.pid}.")
    _copy(image, folder)
    port = options.port or _free_port()
    with open(folder / _LOG, "wb") as log:
        process = subprocess.Popen(
            [program, *_arguments(image, options, port)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in this terminal is not for it
        )
    target = Target(
        name=name,
        host=_ADDRESS,
        port=port,
        user=USER,
        identity_file=str(folder / image.identity_file.name),
        host_key_sha256=image.host_key_sha256,
    )
    try:
        with say.task(f"{name}: boot", None):
            _wait_for_banner(process, port, folder)
    except BaseException:
        process.kill()
        process.wait()
        raise
    state = {"pid": process.pid, "target": target.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)}
    write_atomic(folder / EMULATED_STATE, json.dumps({"name": name, **state}).encode())
    return Machine(folder, process.pid, target)


def _copy(image: Image, folder: Path) -> None:
    """The image's disk and key, and a note of which; a disk that is there already stays as the last run left it.

    The image may be made anew while the machine runs: nothing of it is needed by then.
    """
    note = folder / "made-of.json"
    made_of = json.dumps({"host_key_sha256": image.host_key_sha256})
    if note.exists() and note.read_text() == made_of:
        return
    note.unlink(missing_ok=True)
    for path in (image.disk, image.identity_file):
        command = ["cp", "--preserve=mode", "--sparse=always", "--reflink=auto", str(path), str(folder / path.name)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise LinkError(f"{folder}: room for a disk is required. Received: {ended.stderr.strip()}")
    write_atomic(note, made_of.encode())


def _arguments(image: Image, options: Options, port: int) -> list[str]:
    """Of QEMU, which runs in the machine's folder.

    A Cortex-A72 (Raspberry Pi 4): with `-cpu max`, QEMU 7.2 computes wrong quantized results.
    """
    words = "console=ttyAMA0 loglevel=4 panic=-1 net.ifnames=0 mitigations=off"
    flags = f" rootflags={options.root_flags}" if options.root_flags else ""
    cache = "unsafe" if options.is_snapshot else "writeback"
    snapshot = "on" if options.is_snapshot else "off"
    disk = f"if=none,id=disk0,file={image.disk.name},format=raw,cache={cache},snapshot={snapshot},discard=unmap"
    return [
        *("-machine", "virt", "-cpu", "cortex-a72", "-smp", str(options.cpus), "-m", str(options.memory_mib)),
        *("-accel", "tcg,thread=multi", "-display", "none", "-no-reboot"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", f"{words}{flags} {options.append}"),
        *("-drive", disk, "-device", "virtio-blk-pci,drive=disk0", "-device", "virtio-rng-pci"),
        *("-netdev", f"user,id=net0,restrict=on,hostfwd=tcp:{_ADDRESS}:{port}-:22"),
        *("-device", "virtio-net-pci,netdev=net0,id=nic0,romfile="),
        *("-qmp", f"unix:{_MONITOR},server=on,wait=off", "-serial", f"file:{_CONSOLE}"),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_ADDRESS, 0))
        return int(probe.getsockname()[1])


def _wait_for_banner(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    """QEMU takes connections while the guest is not up yet: only what its SSH server says counts."""
    ends_at = time.monotonic() + _BOOT_SECONDS
    while not _greets(port):
        if process.poll() is not None:
            lines = (folder / _LOG).read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise LinkError(f"A running {QEMU} is required. Received: exit status {process.returncode}, {lines[-1]}")
        if time.monotonic() > ends_at:
            raise LinkError(
                f"The emulated board is required to be up in {_BOOT_SECONDS:g} s. Received: no SSH server yet.",
                f"What it printed: {folder / _CONSOLE}",
            )
        time.sleep(0.3)


def _greets(port: int) -> bool:
    try:
        with socket.create_connection((_ADDRESS, port), timeout=5) as link:
            return link.recv(len(_BANNER)) == _BANNER
    except OSError:
        return False


@contextlib.contextmanager
def _monitor_link(folder: Path) -> Iterator[socket.socket]:
    """A connection to the monitor; a socket's path may have 107 bytes only, so it is named by its open folder."""
    number = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(_MONITOR_SECONDS)
            link.connect(f"/proc/self/fd/{number}/{_MONITOR}")
            yield link
    finally:
        os.close(number)


def _answer(stream: Any) -> dict[str, Any]:
    """The next answer; events in between are skipped."""
    while line := stream.readline():
        message: dict[str, Any] = json.loads(line)
        if "return" in message or "error" in message:
            return message
    raise ConnectionResetError(0, "the monitor was closed")


def remove(folder: Path) -> None:
    """Delete a machine that does not run: its next start begins with the image's disk."""
    shutil.rmtree(folder, ignore_errors=True)
