from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import make_manifest

from liteship.cli import run
from liteship.cli.measure import Wishes
from liteship.remote import RemoteError


@pytest.fixture
def refusals(monkeypatch):
    """Errors that the next measurements end with, one each; the wishes of all measurements."""
    errors: list[RemoteError] = []
    seen: list[Wishes] = []

    def measure(folder, manifest, target, wishes):
        seen.append(wishes)
        if errors:
            raise errors.pop(0)
        return "report"

    monkeypatch.setattr(run, "measure", measure)
    return errors, seen


def measured(target: str) -> str:
    return run._measure_after_training(Path("models/pets"), make_manifest(), target, Wishes())


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
