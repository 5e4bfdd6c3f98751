"""Long tests that are run by hand: make test-faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ssh_server import run_sshd

from liteship.targets import Target
from liteship_agent.manifest import Manifest
from liteship_agent.records import loads

TESTS = Path(__file__).parents[1]


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Target]:
    """OpenSSH on this computer, with an empty folder."""
    with run_sshd(tmp_path / "server") as target:
        yield target.model_copy(update={"folder": str(tmp_path / "li té ship")})


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    """Any: what it says is not looked at."""
    path = TESTS / "contract" / "golden" / "manifest-3.json"
    return loads(Manifest, path.read_bytes(), path.name)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty folder for packed runtimes."""
    path = tmp_path / "cache"
    path.mkdir()
    return path
