"""The runtime of a board, assembled from a package index and packed as it would be sent."""

from __future__ import annotations

import tarfile
from pathlib import Path

from liteship.provision import Interpreter, choose_runtime, pack_runtime
from liteship.provision.needs import is_shared_object
from liteship_agent.store.machine import elf_machine

BULLSEYE = Interpreter(
    version=(3, 9),
    machine="aarch64",
    word_bits=64,
    soabi="cpython-39-aarch64-linux-gnu",
    libc="glibc 2.31",
    symbols={"GLIBC": "2.30", "GLIBCXX": "3.4.28", "CXXABI": "1.3.12", "GCC": "7.0.0"},
)


def test_first_deploy_to_a_board_has_80_megabytes_of_runtime_or_less_and_only_for_it(tmp_path: Path) -> None:
    runtime = choose_runtime(BULLSEYE, "auto")
    assert runtime.requirement == "ai-edge-litert==2.1.0"
    packed = pack_runtime(runtime, BULLSEYE, tmp_path)
    assert packed.path.stat().st_size <= 80e6
    machines = set()
    with tarfile.open(packed.path) as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None
            if is_shared_object(member.name):
                machines.add(elf_machine(content.read(20)))
    assert machines == {("aarch64", 64)}
