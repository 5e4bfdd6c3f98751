"""Two real SSH servers: OpenSSH's sshd as a plain process with its own keys and settings, and the loopback server."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from liteship.loopback import serve
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


@pytest.fixture(scope="session")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A target served by OpenSSH."""
    with run_sshd(tmp_path_factory.mktemp("sshd") / "server") as target:
        yield target


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A target served by liteship.loopback."""
    with serve(tmp_path_factory.mktemp("loopback")) as target:
        yield target


@pytest.fixture(params=["sshd", "loopback"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """Each of both servers, with a folder of its own whose name needs quoting."""
    served: Target = request.getfixturevalue(request.param)
    return served.model_copy(update={"folder": str(tmp_path / "li té $HOME 'ship'")})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder: no keys, no agent, no known_hosts of the person who runs the tests."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture
def sshd_with(tmp_path: Path) -> Iterator[Callable[..., Target]]:
    """Starts further sshd processes with settings of their own."""
    with contextlib.ExitStack() as stack:
        yield lambda *settings: stack.enter_context(run_sshd(tmp_path / "own-sshd", *settings))
