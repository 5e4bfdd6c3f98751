from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace

import pytest
from board_samples import Board
from fake_sensors import FakeSensors
from release_samples import CALM

from liteship.report.summary import summarize
from liteship_agent import journal, preflight, rounds
from liteship_agent.errors import AgentError
from liteship_agent.job import Tier
from liteship_agent.records import write_record
from liteship_agent.report import REPEATED, UNKNOWN, VALID, VOID

LATENCY_NS = 1_000_000  # of the stub
STRICT = replace(CALM, others_cores=0.25, repeats=3)


@pytest.fixture
def make_board(tmp_path, monkeypatch):
    def make(**changes):
        board = Board(tmp_path, **changes)
        monkeypatch.setattr(rounds, "agent_command", board.command)
        return board

    return make


@pytest.fixture
def board(make_board):
    return make_board()


def figures(report) -> list[tuple]:
    """What of a report's blocks does not depend on the clock of this machine."""
    return [(b.case_index, b.round_index, b.order, b.attempt, b.artefact, b.reasons) for b in report.blocks]


# --- workers that fail ---


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        ("crashes", "MemoryError: no more"),
        ("silent", "exit code 3"),
        ("mute", "the worker ended without a result"),
        ("killed", "the process was ended by SIGKILL"),
    ],
)
def test_worker_that_fails_is_a_failed_row_and_the_others_go_on(board, behavior, reason):
    board.behave({board.artefacts[1]: [behavior]})

    report = board.run()

    assert [(failed.case_index, failed.reason) for failed in report.failed] == [(1, reason)]
    assert Counter(block.case_index for block in report.blocks) == {0: 2, 2: 2}
    assert {scores.artefact for scores in report.accuracy} == {board.artefacts[0], board.artefacts[2]}


def test_worker_that_was_killed_once_is_started_again(board):
    board.behave({board.artefacts[1]: ["killed", ""]})

    report = board.run()

    assert report.failed == ()
    assert board.started().count(board.artefacts[1]) == 3
    assert Counter(block.case_index for block in report.blocks) == {0: 2, 1: 2, 2: 2}


def test_worker_that_hangs_is_a_failed_row_and_is_not_started_again(make_board):
    board = make_board(limits=replace(CALM, stall_seconds=1.5))
    board.behave({board.artefacts[1]: ["hangs"]})

    report = board.run()

    assert [(failed.case_index, failed.reason) for failed in report.failed] == [
        (1, "no answer within 2 s in phase timed")
    ]
    assert board.started().count(board.artefacts[1]) == 1


def test_case_that_fails_in_a_later_round_keeps_its_finished_blocks_and_is_not_tried_again(board):
    board.behave({board.artefacts[1]: ["", "crashes"]})

    report = board.run()

    assert [(failed.case_index, failed.round_index) for failed in report.failed] == [(1, 1)]
    assert Counter(block.case_index for block in report.blocks) == {0: 2, 1: 1, 2: 2}
    assert board.started().count(board.artefacts[1]) == 2


def test_baseline_that_fails_leaves_the_next_case_as_the_canary(board):
    board.behave({board.artefacts[0]: ["crashes"]})

    report = board.run()

    assert [failed.case_index for failed in report.failed] == [0]
    assert [(canary.case_index, canary.round_index) for canary in report.canaries] == [(1, 0), (1, 1)]
    assert Counter(block.case_index for block in report.blocks) == {1: 2, 2: 2}


def test_canary_that_fails_once_is_tried_again(board):
    board.behave({board.artefacts[0]: ["crashes", ""]})

    report = board.run()

    assert report.failed == ()
    assert [canary.case_index for canary in report.canaries] == [0, 0]


def test_job_ends_when_everything_fails(board):
    board.behave({artefact: ["crashes"] for artefact in board.artefacts})

    report = board.run()

    assert sorted(failed.case_index for failed in report.failed) == [0, 1, 2]
    assert (report.blocks, report.canaries) == ((), ())


def test_job_ends_when_the_baseline_fails_after_its_canary_moved(make_board):
    tier = Tier("test", 4, 8, 0.0, 5.0)
    board = make_board(limits=replace(STRICT, canary_ratio=0.2), tier=tier)
    # Slow canaries in the first round; the block of the last round crashes, and every canary after it.
    board.behave({board.artefacts[0]: ["slow"] * 4 + [""] * 6 + ["", "crashes"]})

    report = board.run()

    assert [failed.case_index for failed in report.failed] == [0]
    assert Counter(block.case_index for block in report.blocks)[2] >= 4


def test_scores_that_the_journal_lost_are_made_again(board):
    board.run()
    path = board.path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    torn = next(i for i, line in enumerate(lines) if json.loads(line)["event"] == "scores")
    path.write_bytes(b"".join([*lines[:torn], lines[torn][:40] + b"\n", *lines[torn + 1 :]]))
    (board.path / "report.json").unlink()

    report = board.run()

    assert sorted(scores.artefact for scores in report.accuracy) == sorted(board.artefacts)


def test_every_round_is_opened_by_a_canary_of_the_first_case(board):
    report = board.run()

    assert [(canary.round_index, canary.attempt) for canary in report.canaries] == [(0, 0), (1, 0)]
    assert board.started("canary") == [board.artefacts[0]] * 2


# --- interruption ---


@pytest.mark.parametrize("events", range(15))
def test_job_that_is_cut_after_any_event_and_resumed_equals_an_uncut_one(board, events):
    whole = board.run()
    board.interrupt_after(events)
    kept = board.events("block")
    board.behave({})

    report = board.run()

    assert figures(report) == figures(whole)
    assert report.blocks[: len(kept)] == whole.blocks[: len(kept)]  # their times are those of the first run
    assert len(board.started()) == 6 - len(kept)
    assert sorted(scores.artefact for scores in report.accuracy) == sorted(board.artefacts)
    assert {canary.round_index for canary in report.canaries} == {0, 1}


def test_block_whose_line_was_cut_is_measured_again(board):
    whole = board.run()
    board.interrupt_after(5)  # the last event is a block
    path = board.path / "journal.jsonl"
    before = len(board.events("block"))
    os.truncate(path, path.stat().st_size - 20)
    assert len(board.events("block")) == before - 1

    assert figures(board.run()) == figures(whole)


def test_scores_that_are_journaled_are_not_asked_for_again(board):
    whole = board.run()
    board.interrupt_after(2)  # the canary and the first scores
    assert len(board.events("scores")) == 1

    report = board.run()

    assert report.accuracy[0] == whole.accuracy[0]
    assert len(board.events("scores")) == 3


def test_failure_that_is_journaled_stays(board):
    board.behave({board.artefacts[1]: ["crashes"]})
    board.run()
    board.interrupt_after(len(list(journal.read(board.path / "journal.jsonl"))) - 12)
    failed = board.events("failed")
    board.behave({})

    report = board.run()

    assert len(failed) == 1
    assert [failure.case_index for failure in report.failed] == [1]
    assert board.artefacts[1] not in board.started()


def test_round_that_goes_on_after_an_interruption_is_opened_by_a_canary(board):
    board.run()
    board.interrupt_after(3)  # canary, scores, block
    board.behave({})

    report = board.run()

    assert [(canary.round_index, canary.attempt) for canary in report.canaries] == [(0, 0), (0, 1), (1, 0)]


def test_disturbed_canary_after_an_interruption_throws_no_finished_block_away(make_board):
    board = make_board(limits=replace(STRICT, canary_ratio=0.2))
    whole = board.run()
    board.interrupt_after(5)
    board.behave({board.artefacts[0]: ["disturbed", ""]})

    report = board.run()

    assert figures(report) == figures(whole)
    assert [canary.validity == VOID for canary in report.canaries] == [False, True, False, False]


def test_round_starts_anew_when_the_machine_is_another_after_the_interruption(make_board):
    board = make_board(limits=replace(STRICT, canary_ratio=0.2))
    board.run()
    board.interrupt_after(3)
    board.behave({board.artefacts[0]: ["slow"]})

    report = board.run()

    first_round = Counter(block.case_index for block in report.blocks if block.round_index == 0)
    assert sorted(first_round.values()) == [1, 1, 2]
    assert board.started().count(board.artefacts[0]) == 2


# --- void blocks and rounds ---


def test_void_block_is_measured_again_at_once_and_all_its_attempts_are_reported(make_board):
    board = make_board(limits=STRICT)
    board.behave({board.artefacts[1]: ["disturbed", "disturbed", ""]})

    report = board.run()

    blocks = [block for block in report.blocks if block.case_index == 1]
    assert [(block.round_index, block.attempt, block.validity == VOID) for block in blocks] == [
        (0, 0, True),
        (0, 1, True),
        (0, 2, False),
        (1, 0, False),
    ]
    assert blocks[0].reasons[0].startswith("others took ")
    assert len([block for block in report.blocks if block.case_index == 0]) == 2


def test_block_that_stays_void_is_given_up_after_three_repetitions_and_the_job_goes_on(make_board):
    board = make_board(limits=STRICT)
    board.behave({board.artefacts[1]: ["disturbed"]})

    report = board.run()

    attempts = Counter((block.round_index, block.validity) for block in report.blocks if block.case_index == 1)
    assert attempts == {(0, VOID): 4, (1, VOID): 4}
    assert len(report.blocks) == 2 + 2 + 8


def test_block_of_a_round_that_is_opened_again_is_not_repeated_without_end(make_board):
    tier = Tier("test", 4, 8, 0.0, 5.0)
    board = make_board(limits=replace(STRICT, canary_ratio=0.2), tier=tier)
    board.behave({board.artefacts[0]: ["slow"] + [""] * 100, board.artefacts[1]: ["disturbed"]})

    report = board.run()

    attempts = Counter(block.round_index for block in report.blocks if block.case_index == 1)
    assert attempts == {0: 5, 1: 4, 2: 4, 3: 4}  # four, and one more because its round was opened again


def test_board_is_cooled_before_a_repetition_and_says_why(make_board, monkeypatch):
    cooled = []
    monkeypatch.setattr(preflight, "cool", lambda sensors, celsius, limits, pause: cooled.append(celsius))
    board = make_board(limits=STRICT)
    journal.append(board.path / "journal.jsonl", {"event": "session", "problems": [], "start_celsius": 48.5})
    board.behave({board.artefacts[1]: ["disturbed", ""]})

    board.run()

    assert cooled == [48.5]
    assert board.events("wait")[0]["reason"].startswith("none-1 is void: others took ")


def test_disturbance_that_does_not_pass_is_not_waited_for_at_every_repetition(make_board, monkeypatch):
    patient = []

    def wait(*arguments, **options):
        patient.append(options["patient"])
        return ("other processes use 1.2 cores",)

    monkeypatch.setattr(preflight, "wait_until_fit", wait)
    board = make_board(limits=STRICT)
    board.behave({board.artefacts[1]: ["disturbed"]})

    board.run()

    assert patient == [True] + [False] * 5


def test_nothing_is_repeated_in_a_forced_job(make_board):
    board = make_board(limits=STRICT, forced=True)
    journal.append(
        board.path / "journal.jsonl", {"event": "session", "problems": ["others use 1.2 cores"], "start_celsius": None}
    )
    board.behave({board.artefacts[1]: ["disturbed"]})

    report = board.run()

    assert report.problems == ("others use 1.2 cores",)
    assert Counter(block.validity for block in report.blocks if block.case_index == 1) == {VOID: 2}
    assert board.started().count(board.artefacts[1]) == 2


def test_round_whose_canary_moved_is_opened_again_before_its_blocks(make_board):
    tier = Tier("test", 4, 8, 0.0, 5.0)
    board = make_board(limits=replace(STRICT, canary_ratio=0.2), tier=tier)
    # Canary and block of three rounds, then a slow canary, one more of it, and one as before.
    board.behave({board.artefacts[0]: [""] * 6 + ["slow", "slow", ""]})

    report = board.run()

    last = [canary for canary in report.canaries if canary.round_index == 3]
    assert [canary.median_ns >= 2 * LATENCY_NS for canary in last] == [True, True, False]
    assert len(report.blocks) == 12
    assert VOID not in {block.validity for block in report.blocks}


def test_first_round_that_turns_out_to_stand_apart_is_void_and_measured_again(make_board):
    tier = Tier("test", 4, 8, 0.0, 5.0)
    board = make_board(limits=replace(STRICT, canary_ratio=0.2), tier=tier)
    board.behave({board.artefacts[0]: ["slow", ""]})

    report = board.run()

    first = [block for block in report.blocks if block.round_index == 0]
    assert [(block.attempt, block.validity == VOID) for block in first] == [(0, True)] * 3 + [(1, False)] * 3
    assert "canary" in first[0].reasons[-1]
    assert [event["round_index"] for event in board.events("void_round")] == [0]


def test_round_that_stays_apart_is_marked_after_three_repetitions(make_board):
    tier = Tier("test", 4, 8, 0.0, 5.0)
    board = make_board(limits=replace(STRICT, canary_ratio=0.2), tier=tier)
    # The last round: four slow canaries, then its block.
    board.behave({board.artefacts[0]: [""] * 6 + ["slow"] * 4 + [""] + ["slow"] * 100})

    report = board.run()

    assert {block.validity for block in report.blocks if block.round_index == 3} == {VOID}
    assert VOID not in {block.validity for block in report.blocks if block.round_index < 3}


def test_block_that_stays_in_a_round_that_moved_is_void_for_both_reasons(make_board):
    tier = Tier("test", 4, 8, 0.0, 5.0)
    board = make_board(limits=replace(STRICT, canary_ratio=0.2, repeats=0), tier=tier)
    board.behave({board.artefacts[0]: ["", "", "slow", ""]})

    report = board.run()

    reasons = [block.reasons for block in report.blocks if block.round_index == 1]
    assert all("canary" in found[-1] for found in reasons)


# --- sensors ---


def throttled_during(board: Board, case_index: int, starts: range):
    """A reading that is throttled from those starts of a case's worker until somebody waits."""

    def bits(_: float) -> int:
        lines = board.started_lines()
        own = [line for line in lines if line.split()[1] == board.artefacts[case_index]]
        is_hot = board.last_started(case_index) and len(lines) > board.cooled_after
        return 0x50005 if is_hot and len(own) - 1 in starts else 0x50000

    return bits


def test_throttled_blocks_are_void_and_repeated_and_the_ratio_is_the_unthrottled_one(make_board):
    tier = Tier("test", 6, 12, 0.0, 5.0)
    board = make_board(limits=STRICT, tier=tier, sensors=FakeSensors())
    undisturbed = summarize(board.run())
    board.interrupt_after(0)
    # Every second start of the worker of case 1 is throttled, and takes twice the time.
    board.behave({board.artefacts[1]: ["", "slow"] * 20})
    board.sensors.set(throttled_bits=throttled_during(board, 1, range(1, 40, 2)))

    report = board.run()

    blocks = [block for block in report.blocks if block.case_index == 1]
    assert [block.validity for block in blocks] == [VALID, *[VOID, VALID] * 5]
    assert all("throttled" in " ".join(block.reasons) for block in blocks if block.validity == VOID)
    for before, after in zip(undisturbed, summarize(report)):
        assert after.ratio_low <= before.ratio <= after.ratio_high
        assert before.ratio_low <= after.ratio <= before.ratio_high
    assert [summary.validity for summary in summarize(report)] == [VALID, REPEATED, VALID]


def test_since_boot_bits_alone_void_nothing(make_board):
    board = make_board(limits=STRICT, sensors=FakeSensors(throttled_bits=0x50000))

    assert {block.validity for block in board.run().blocks} == {VALID}


def test_validity_is_unknown_where_throttling_cannot_be_read(make_board):
    board = make_board(sensors=FakeSensors(can_see_throttling=False, throttled_bits=None, is_raspberry_pi=False))

    report = board.run()

    assert {block.validity for block in report.blocks} == {UNKNOWN}
    assert {summary.validity for summary in summarize(report)} == {UNKNOWN}


def test_sensor_that_disappears_makes_its_blocks_unknown_and_no_others(make_board):
    board = make_board(sensors=FakeSensors())
    board.sensors.set(throttled_bits=lambda _: None if len(board.started_lines()) > 4 else 0)

    report = board.run()

    assert {block.validity for block in report.blocks if block.round_index == 0} == {VALID}
    assert {block.validity for block in report.blocks if block.round_index == 1} == {UNKNOWN}


def test_every_block_has_samples_before_and_after_it(make_board):
    board = make_board(sensors=FakeSensors())

    for block in board.run().blocks:
        assert block.samples[0].at_ns < block.timed_to_ns < block.samples[-1].at_ns
        assert block.samples[0].temperature_celsius == 50.0


def test_worker_that_leaves_too_little_memory_is_ended_before_the_kernel_does(make_board):
    board = make_board(sensors=FakeSensors(), limits=replace(CALM, free_memory_bytes=48 * 2**20))
    board.sensors.set(memory_available_bytes=lambda _: 30 * 2**20 if board.last_started(1) else 2**30)
    board.behave({board.artefacts[1]: ["hangs"]})

    board.sensors.set(memory_available_bytes=lambda _: 30 * 2**20 if board.last_started(1) else 40 * 2**20)

    report = board.run()

    (failed,) = report.failed
    assert failed.case_index == 1
    assert failed.reason.endswith("MiB of memory and left 30 MiB (48 MiB must stay free)")
    assert Counter(block.case_index for block in report.blocks) == {0: 2, 2: 2}


def test_worker_is_not_ended_for_memory_that_others_took(make_board):
    limits = replace(CALM, free_memory_bytes=48 * 2**20, stall_seconds=1.5)
    board = make_board(sensors=FakeSensors(), limits=limits)
    board.sensors.set(memory_available_bytes=lambda _: 30 * 2**20 if board.last_started(1) else 8 * 2**30)
    board.behave({board.artefacts[1]: ["hangs"]})

    (failed,) = board.run().failed

    assert failed.reason == "no answer within 2 s in phase timed"


def test_job_with_a_runtime_that_the_release_lacks_is_one_clear_error(make_board):
    board = make_board()
    cases = tuple(replace(case, runtime="another") for case in board.job.cases)
    job = replace(board.job, cases=cases, runtimes={"another": "x==1"})
    write_record(job, board.path / "job.json")

    with pytest.raises(AgentError, match="runtime another is required"):
        board.run()
