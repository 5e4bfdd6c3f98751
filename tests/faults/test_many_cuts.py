"""Two hundred deploys that are cut: by the link, by kill -9, in every phase."""

from __future__ import annotations

from pathlib import Path

import pytest
from cuts import cut_again_and_again
from results import note

from liteship.targets import Target
from liteship_agent.manifest import Manifest

pytestmark = pytest.mark.timeout(3600)
COUNT = 200


def test_two_hundred_cuts_leave_the_old_or_the_new_release_whole_and_complete_afterwards(
    sshd: Target, manifest: Manifest, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tally = cut_again_and_again(COUNT, 1, sshd, manifest, cache, monkeypatch)
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted((tally.by_kind or {}).items()))
    note(
        f"{COUNT} cuts over OpenSSH",
        [
            f"- deploys that a cut ended: {tally.cuts} ({kinds}); over before the cut came: {tally.late}",
            f"- active and whole after the cut: the old release {tally.old}, the new one {tally.new}, neither 0",
            f"- the same deploy again completed and left nothing temporary: {COUNT} of {COUNT}",
        ],
    )
    assert tally.cuts + tally.late == COUNT
    assert tally.cuts > COUNT / 2
    assert tally.old > 0
