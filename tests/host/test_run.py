from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import make_manifest
from rich.console import Console

from liteship.cli import run
from liteship.cli.measure import Wishes
from liteship.errors import UsageError
from liteship.progress import Reporter
from liteship.remote import RemoteError


@pytest.fixture
def refusals(monkeypatch):
    """Errors that the next measurements end with, one each; the wishes of all measurements."""
    errors: list[RemoteError] = []
    seen: list[Wishes] = []

    def measure(folder, manifest, target, wishes, say):
        seen.append(wishes)
        if errors:
            raise errors.pop(0)
        return "report"

    monkeypatch.setattr(run, "measure", measure)
    return errors, seen


def measured(target: str) -> str:
    say = Reporter(Console(stderr=True, width=300))
    return run._measure_after_training(Path("models/pets"), make_manifest(), target, Wishes(), say)


def test_run_on_this_computer_is_measured_by_force_where_it_is_busy_and_says_so(refusals, capsys):
    errors, seen = refusals
    errors.append(RemoteError("loopback: other processes use 1.2 cores", "", "preflight"))

    assert measured("loopback") == "report"

    assert [wishes.forced for wishes in seen] == [False, True]
    assert "other processes use 1.2 cores. This computer is no board" in capsys.readouterr().err


@pytest.mark.parametrize(("target", "kind"), [("pi", "preflight"), ("loopback", "locked")])
def test_run_is_refused_on_a_busy_board_and_for_any_other_reason(refusals, target, kind):
    errors, seen = refusals
    errors.append(RemoteError("no", "", kind))

    with pytest.raises(RemoteError, match="no"):
        measured(target)

    assert len(seen) == 1


def test_run_on_a_quiet_computer_is_not_forced(refusals):
    _, seen = refusals

    measured("loopback")

    assert [wishes.forced for wishes in seen] == [False]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working folder with a recipe and one board; a study that would be trained fails the test."""
    recipe = 'schema_version = 1\nname = "pets"\n[data]\nsource = "pets"\n[model]\narchitecture = "vgg16"\n'
    (tmp_path / "pets.toml").write_text(recipe)
    (tmp_path / "targets.toml").write_text('[targets.pi]\nhost = "pi"\nuser = "pi"\ncpus = [2]\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "build", lambda *arguments: pytest.fail("it was trained"))
    return tmp_path


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"target": "loopback", "threads": "2", "cpus": ["0"]}, r"--cpus: a CPU for each of 2 threads \(--threads\)"),
        ({"target": "pi", "threads": "2"}, r"targets\.toml: \[targets\.pi\] cpus: a CPU for each of 2 threads"),
    ],
)
def test_threads_that_the_cpus_do_not_hold_are_refused_before_anything_is_trained(project, options, where):
    with pytest.raises(UsageError, match=where):
        run.run_command(project / "pets.toml", **options)


def test_runtime_of_the_inventory_that_nobody_knows_is_refused_before_anything_is_trained(project):
    with open(project / "targets.toml", "a") as file:
        file.write('runtime = "ai-edge-litert, tflite-runtme"\n')
    with pytest.raises(UsageError, match=r"targets\.toml: \[targets\.pi\] runtime: .* Received: tflite-runtme"):
        run.run_command(project / "pets.toml", "pi")
