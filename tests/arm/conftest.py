"""An emulated ARM64 board for the tests: a machine of their own from the project's image, which is made if need be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from emulated_board import BUILD, IMAGE, LITESHIP, RECIPE, AsRoot, Liteship, environment, over_ssh, reporter

from liteship.emulated.image import ensure_image
from liteship.emulated.machine import Machine, Options, start


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working folder of all commands."""
    return tmp_path_factory.mktemp("arm")


@pytest.fixture(scope="session")
def board(folder: Path) -> Iterator[Machine]:
    """A board that nobody has used yet; a program that is missing is a failure, not a skip."""
    say = reporter()
    image = ensure_image(IMAGE, say)
    machine = start(image, folder / ".liteship/emulated", Options(is_snapshot=True), say)
    yield machine
    machine.kill()


@pytest.fixture(scope="session")
def as_root(board: Machine) -> AsRoot:
    """Runs a command on the board as its owner would, without a login of the user `pi`."""
    return lambda command: over_ssh(board, "root", command)


@pytest.fixture(scope="session")
def liteship(folder: Path, board: Machine) -> Liteship:
    """Runs a verb where that board is the target `emulated`."""

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [LITESHIP, *arguments], cwd=folder, env=environment(), capture_output=True, text=True, check=False
        )
        assert ended.returncode == code, ended.stderr[-2000:]
        return ended

    return run


@pytest.fixture(scope="session")
def deployed(folder: Path, liteship: Liteship) -> dict[str, Any]:
    """A small study, made here and sent to the board; the answer of `deploy`."""
    (folder / "arm.toml").write_text(RECIPE)
    ended = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    answer: dict[str, Any] = json.loads(liteship("deploy", "--target", "emulated", "--json").stdout)
    return answer
