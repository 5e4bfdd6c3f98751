"""What a person at a terminal is asked: an unknown target is added by a dialogue that shows the host key."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from liteship.targets import Target

LITESHIP = str(Path(sys.executable).with_name("liteship"))


def converse(folder: Path, arguments: list[str], answers: list[tuple[str, str]]) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; each answer is typed when its question stands there."""
    terminal, inner = pty.openpty()
    process = subprocess.Popen(
        [LITESHIP, *arguments], cwd=folder, stdin=inner, stdout=inner, stderr=inner, close_fds=True
    )
    os.close(inner)
    shown = ""
    pending = list(answers)
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece.decode(errors="replace")
        if pending and pending[0][0] in shown[shown.rfind("\n") + 1 :]:
            os.write(terminal, pending.pop(0)[1].encode() + b"\n")
    os.close(terminal)
    assert not pending, shown
    return process.wait(), shown


@pytest.fixture
def answers(sshd: Target) -> list[tuple[str, str]]:
    return [("Host", f"127.0.0.1:{sshd.port}"), ("User", sshd.user), ("Key file", str(sshd.identity_file))]


def test_unknown_target_on_a_terminal_is_asked_for_and_kept(
    tmp_path: Path, sshd: Target, answers: list[tuple[str, str]]
) -> None:
    code, shown = converse(tmp_path, ["doctor", "--target", "pi"], [*answers, ("Trust it?", "y")])
    assert sshd.host_key_sha256 in shown
    added = tomllib.loads((tmp_path / "targets.toml").read_text())["targets"]["pi"]
    assert (added["host"], added["port"], added["user"]) == ("127.0.0.1", sshd.port, sshd.user)
    assert added["host_key_sha256"] == sshd.host_key_sha256
    assert code == 0, shown


def test_untrusted_host_key_adds_nothing(tmp_path: Path, sshd: Target, answers: list[tuple[str, str]]) -> None:
    code, shown = converse(tmp_path, ["doctor", "--target", "pi"], [*answers, ("Trust it?", "n")])
    assert code == 2, shown
    assert not (tmp_path / "targets.toml").exists()
