"""OpenSSH's sshd as a plain process with its own keys and settings."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from liteship.targets import Target


def make_key(path: Path) -> Path:
    """A new ed25519 key pair: `path` and `path`.pub."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def fingerprint(key: Path) -> str:
    """As ssh-keygen prints it."""
    return subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True).stdout.split()[1]


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run_sshd(folder: Path, *settings: str) -> Iterator[Target]:
    """An sshd that lets one new key in; `settings` are further lines of its configuration."""
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])
    if sshd is None:
        pytest.skip("not run: no sshd (openssh-server)")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    folder.mkdir(parents=True)
    port, host_key, client_key = free_port(), make_key(folder / "host_key"), make_key(folder / "client_key")
    lines = [
        *settings,  # sshd takes the first value of each
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {host_key}",
        f"AuthorizedKeysFile {client_key}.pub",
        "PidFile none",
        "StrictModes no",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin yes",
    ]
    config = folder / "sshd_config"
    config.write_text("\n".join(lines) + "\n")
    patient = ["-o", "PerSourcePenalties=no"]  # known since OpenSSH 9.8, where refused logins would add up
    if subprocess.run([sshd, "-t", "-f", config, *patient], capture_output=True, check=False).returncode != 0:
        patient = []
    with subprocess.Popen([sshd, "-D", "-e", "-f", config, *patient], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            heard = next((line for line in process.stderr if "Server listening" in line), None)
            assert heard, "sshd did not start"
            yield Target(
                name="board",
                host="127.0.0.1",
                port=port,
                user=getpass.getuser(),
                identity_file=str(client_key),
                host_key_sha256=fingerprint(host_key),
                python=sys.executable,
            )
        finally:
            process.terminate()
