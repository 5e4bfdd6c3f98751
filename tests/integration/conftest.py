"""Two real SSH servers: OpenSSH's sshd and the loopback server."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ssh_server import run_sshd

from liteship.loopback import serve
from liteship.targets import Target


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
