"""The whole way to an emulated ARM64 board: boot, login, deploy, a measurement that outlives the login, the report."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from emulated_board import IMAGE, LITESHIP, AsRoot, Liteship, environment, over_ssh, reporter

from liteship.emulated.image import ensure_image
from liteship.emulated.machine import Machine, Options, find_machine, start
from liteship.remote import Connection

pytestmark = [pytest.mark.arm, pytest.mark.timeout(1800)]

VARIANTS = ["none-none", "none-float16", "none-dynamic", "none-int8"]
ROUNDS = 6
MEASURED_IMAGES = 64
ALONE_SECONDS = 60.0
BENCH = ("bench", "--target", "emulated", "--tier", "rapid", "--limit", str(MEASURED_IMAGES))


@dataclass(frozen=True)
class Measured:
    """A job whose host was killed, and which was fetched later.

    Args:
        table: As `bench --json` prints it.
        log: Of the second command.
        sessions: logind's states of the sessions of `pi` while nobody was logged in.
        blocks: How many had been measured when the host was killed, and a minute later.
    """

    table: dict[str, Any]
    log: str
    sessions: tuple[str, ...]
    blocks: tuple[int, int]


@pytest.fixture(scope="module")
def measured(deployed: dict[str, Any], liteship: Liteship, as_root: AsRoot, folder: Path) -> Measured:
    """Killed after the first blocks, left alone for a minute, then asked for again."""
    count = 'cat /home/pi/liteship/jobs/*/journal.jsonl 2>/dev/null | grep -c \'"event": *"block"\' || true'

    def blocks() -> int:
        return int(as_root(count))

    with subprocess.Popen(
        [LITESHIP, *BENCH], cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            wait_for(lambda: blocks() >= 2 or process.poll() is not None, 600)
            assert process.poll() is None, process.stdout and process.stdout.read()
        finally:
            process.kill()
    wait_for(lambda: not {"active", "online"} & set(session_states(as_root)), 60)
    before = blocks()
    time.sleep(ALONE_SECONDS)
    sessions, after = session_states(as_root), blocks()
    ended = liteship(*BENCH, "--json")
    return Measured(json.loads(ended.stdout), ended.stderr, sessions, (before, after))


def session_states(as_root: AsRoot) -> tuple[str, ...]:
    """active, online or closing, of each session of `pi` that logind knows."""
    listed = as_root("loginctl list-sessions --no-legend | awk '$3 == \"pi\" {print $1}'").split()
    states = [as_root(f"loginctl show-session {name} -p State --value 2>/dev/null || echo gone") for name in listed]
    return tuple(state.strip() for state in states)


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, f"it did not happen within {seconds:g} s"
        time.sleep(2)


def test_login_gets_a_session_of_logind(board: Machine, as_root: AsRoot) -> None:
    told = over_ssh(board, "pi", "id -un; loginctl show-session $XDG_SESSION_ID -p Name -p Service -p State").split()
    assert told[0] == "pi"
    assert set(told[1:]) == {"Name=pi", "Service=sshd", "State=active"}
    assert as_root("systemctl is-system-running").strip() == "running"


def test_user_may_let_its_services_linger(board: Machine) -> None:
    command = "loginctl enable-linger && loginctl show-user pi -p Linger && loginctl disable-linger"
    assert over_ssh(board, "pi", command).strip() == "Linger=yes"


def test_it_is_an_arm64_machine_with_a_kernel_of_its_own(board: Machine) -> None:
    with Connection.open(board.target) as connection:
        probe = connection.probe()
    assert (probe["machine"], probe["word_bits"]) == ("aarch64", 64)
    assert probe["board_model"] == "linux,dummy-virt"
    assert over_ssh(board, "pi", "uname -r").strip() != os.uname().release


def test_frozen_machine_is_silent_and_goes_on(board: Machine) -> None:
    board.freeze()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(["ssh-keyscan", "-T", "30", "-p", str(board.target.port), "127.0.0.1"], timeout=3)
    finally:
        board.thaw()
    assert over_ssh(board, "pi", "echo awake") == "awake\n"


def test_first_deploy_sends_a_release_for_arm(deployed: dict[str, Any]) -> None:
    assert deployed["activated"]
    assert deployed["blobs_sent"] > 0
    assert list(deployed["runtimes"].values()) == ["ai-edge-litert==2.3.0"]
    assert "aarch64" in next(iter(deployed["runtimes"]))


def test_second_deploy_sends_nothing(deployed: dict[str, Any], liteship: Liteship) -> None:
    second = json.loads(liteship("deploy", "--target", "emulated", "--json").stdout)
    assert (second["bytes_sent"], second["blobs_sent"], second["activated"]) == (0, 0, False)
    assert second["release"] == deployed["release"]


def test_job_goes_on_after_the_last_login_has_ended(measured: Measured) -> None:
    assert not {"active", "online"} & set(measured.sessions)
    before, after = measured.blocks
    assert before < after
    assert "going on with job" in measured.log or after == len(VARIANTS) * ROUNDS


def test_every_variant_has_a_row_with_its_latency(measured: Measured) -> None:
    rows = measured.table["rows"]
    assert [row["variant"] for row in rows] == VARIANTS
    assert all(row["blocks"] == ROUNDS and row["queries"] > 0 and row["median_ns"] > 0 for row in rows)


def test_the_boards_answers_are_the_hosts(measured: Measured) -> None:
    for row in measured.table["rows"]:
        assert row["image_count"] == MEASURED_IMAGES
        assert row["golden_within_tolerance"]
        # int8 kernels round to one step of 1/256; only an image between two classes can fall to the other side.
        assert row["flips_host"] <= (2 if row["variant"] == "none-int8" else 0), row["variant"]


def test_report_says_that_it_is_emulated_and_compares_no_latency(measured: Measured, liteship: Liteship) -> None:
    assert measured.table["caption"].startswith("an emulated machine")
    assert measured.table["job"]["board"].startswith("linux,dummy-virt")
    assert all(row["ratio_to_baseline"] is None and row["latency_gain"] is None for row in measured.table["rows"])
    assert "say nothing about a board" in " ".join(liteship("report", "--target", "emulated").stdout.split())


def test_machine_whose_power_was_cut_starts_from_its_disk_again(board: Machine, tmp_path: Path) -> None:
    say = reporter()
    image = ensure_image(IMAGE, say)
    options = Options(memory_mib=512, root_flags="noauto_da_alloc", append="liteship.test=1")
    first = start(image, tmp_path / "own", options, say, name="own")
    over_ssh(first, "pi", "echo kept > kept; sync")
    first.kill()
    assert find_machine(first.folder) is None
    second = start(image, tmp_path / "own", options, say, name="own")
    try:
        assert over_ssh(second, "pi", "cat kept") == "kept\n"
        assert "noauto_da_alloc" in over_ssh(second, "pi", "grep ' / ' /proc/mounts")
        assert "liteship.test=1" in over_ssh(second, "pi", "cat /proc/cmdline")
    finally:
        second.stop()
    assert find_machine(second.folder) is None
