from __future__ import annotations

import fcntl
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from release_samples import TIER, encode, good_artefact, hold_lock, install, make_job, photograph, photographs, sha

import liteship_agent
from liteship.deploy import agent_archive
from liteship_agent import bench, journal
from liteship_agent.errors import AgentError, LockedError
from liteship_agent.job import Job, Tier
from liteship_agent.records import read_record, write_record
from liteship_agent.release import AGENT
from liteship_agent.report import Report
from tflite_samples import color_classifier

GOOD = good_artefact()
FOUR = {
    "none-none": GOOD,
    "none-int8": good_artefact("int8"),
    "magnitude50-none": replace(GOOD, content=b"this is no model"),
    "magnitude75-none": replace(GOOD, content=color_classifier() + b"\0", installed=color_classifier()),
}
BASELINE, INT8, NO_MODEL, OTHER_BYTES = (sha(artefact.content) for artefact in FOUR.values())


def use_archive(monkeypatch, release):
    """Let processes that a job starts run the agent archive of its release, as they do on a board."""
    monkeypatch.setattr(liteship_agent, "__file__", str(release.path / AGENT / "liteship_agent" / "__init__.py"))


def events_of(job: Job, folder: Path, kind: str) -> list[dict]:
    return [event for event in journal.read(folder / "jobs" / job.job_id / "journal.jsonl") if event["event"] == kind]


# --- the whole job with real processes and the real runtime: two good artefacts and two broken ones ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder, job and report of a finished job."""
    folder = tmp_path_factory.mktemp("board") / "lite ship"
    release = install(folder, FOUR, agent=agent_archive())
    job = make_job(release)
    path = folder / "jobs" / job.job_id
    path.mkdir(parents=True)
    write_record(job, path / "job.json")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_archive(monkeypatch, release)
        bench.run_job(folder, job.job_id)
    return folder, job, read_record(Report, path / "report.json")


def test_report_has_one_block_per_round_and_good_artefact(finished):
    _, job, report = finished

    assert Counter(block.artefact for block in report.blocks) == {BASELINE: 2, INT8: 2}
    assert [block.round_index for block in report.blocks] == [0, 0, 1, 1]
    assert report.job == job
    assert report.manifest_sha256 == sha((finished[0] / "releases" / job.release_id / "manifest.json").read_bytes())


def test_blocks_have_the_queries_of_their_tier_and_the_memory_of_their_process(finished):
    for block in finished[2].blocks:
        assert len(block.latencies_ns) == len(block.end_to_end_ns) == 2
        assert min(block.latencies_ns) > 0
        assert block.rss_peak_bytes > block.rss_anon_bytes > 0
        assert (block.threads, block.runtime) == (1, "ai-edge-litert")


def test_second_round_is_the_first_reversed(finished):
    blocks = finished[2].blocks

    assert [block.artefact for block in blocks[2:]] == [block.artefact for block in blocks[:2]][::-1]


def test_every_image_is_scored_once_for_every_good_artefact(finished):
    _, _, report = finished

    assert sorted(scores.artefact for scores in report.accuracy) == sorted([BASELINE, INT8])
    assert all(len(scores.scores) == report.image_count == 12 for scores in report.accuracy)


def test_broken_artefacts_are_failed_rows_with_their_reason(finished):
    reasons = {failed.artefact: failed.reason for failed in finished[2].failed}

    assert set(reasons) == {NO_MODEL, OTHER_BYTES}
    assert reasons[NO_MODEL].startswith("magnitude50-none: ai-edge-litert ")
    assert f"content with sha256 {OTHER_BYTES} is required. Received: {BASELINE}" in reasons[OTHER_BYTES]


def test_log_has_images_performance_and_accuracy_of_every_artefact(finished):
    folder, job, report = finished
    lines = [event["line"] for event in events_of(job, folder, "log")]

    for variant, sha256 in (("none-none", BASELINE), ("none-int8", INT8)):
        at = lines.index(f"{variant} ({sha256[:12]})")
        median = statistics.median(ns for b in report.blocks if b.artefact == sha256 for ns in b.latencies_ns)
        assert lines[at + 1 : at + 4] == [
            "Found 12 images belonging to 3 classes.",
            f"Performance: {median / 1e6:.3f} ms/image",
            "Accuracy: 91.67 % (11 of 12)",
        ]
    assert lines[lines.index(f"magnitude50-none ({NO_MODEL[:12]})") + 1].startswith("Failed: magnitude50-none: ")


def test_images_are_decoded_once_for_all_artefacts(finished):
    folder, job, _ = finished

    assert [event["images"] for event in events_of(job, folder, "decode")] == [12]
    assert len(list((folder / "cache").iterdir())) == 1


def test_follow_of_a_finished_job_emits_its_journal_without_raw_values(finished):
    folder, job, report = finished
    emitted = []

    assert bench.follow(folder, job.job_id, emitted.append) == report

    assert Counter(event["event"] for event in emitted) == Counter(
        event["event"] for event in journal.read(folder / "jobs" / job.job_id / "journal.jsonl")
    )
    assert not any({"latencies_ns", "end_to_end_ns"} & set(event) for event in emitted)
    assert not any("scores" in event for event in emitted)
    assert all(event["median_ns"] > 0 for event in emitted if event["event"] == "block")


# --- failures and resumption, with a stub in place of the worker ---


class Board:
    """A liteship folder whose workers are stubs."""

    def __init__(self, folder: Path, **changes: object) -> None:
        variants = {f"none-{i}": replace(GOOD, content=color_classifier() + b"\0" * i) for i in range(3)}
        self.folder = folder / "board"
        self.release = install(self.folder, variants)
        self.job = make_job(self.release, **changes)
        self.path = self.folder / "jobs" / self.job.job_id
        self.path.mkdir(parents=True)
        write_record(self.job, self.path / "job.json")
        self.stub = folder / "stub" / "stub_agent.py"
        self.stub.parent.mkdir()
        shutil.copy(Path(__file__).with_name("stub_agent.py"), self.stub)
        self.behave({})

    def behave(self, behaviors: dict[str, str]) -> None:
        (self.stub.parent / "behaviors.json").write_text(json.dumps(behaviors))

    def command(self, runtime: Path, *arguments: str) -> list[str]:
        return [sys.executable, "-I", "-S", str(self.stub), *arguments]

    def run(self) -> Report:
        bench.run_job(self.folder, self.job.job_id)
        return read_record(Report, self.path / "report.json")

    def started(self) -> list[str]:
        """Artefact of every worker that was started since the last call."""
        path = self.stub.parent / "started.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line.split()[1] for line in lines if line.startswith("worker ")]

    def interrupt_after(self, blocks: int) -> None:
        """Make the journal what it was when so many blocks were done, and the report not written."""
        path, kept = self.path / "journal.jsonl", []
        for line in path.read_bytes().splitlines(keepends=True):
            if json.loads(line)["event"] == "block":
                blocks -= 1
            if blocks < 0:
                break
            kept.append(line)
        path.write_bytes(b"".join(kept))
        (self.path / "report.json").unlink()


@pytest.fixture
def board(tmp_path, monkeypatch):
    board = Board(tmp_path)
    monkeypatch.setattr(bench, "agent_command", board.command)
    return board


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [
        ("killed", "the process was ended by SIGKILL"),
        ("crashes", "MemoryError: no more"),
        ("silent", "exit code 3"),
    ],
)
def test_worker_that_fails_is_a_failed_row_and_the_others_go_on(board, behavior, reason):
    first, second, third = board.job.artefacts
    board.behave({second: behavior})

    report = board.run()

    assert [(failed.artefact, failed.reason) for failed in report.failed] == [(second, reason)]
    assert Counter(block.artefact for block in report.blocks) == {first: 2, third: 2}
    assert {scores.artefact for scores in report.accuracy} == {first, third}


def test_worker_without_an_answer_in_time_is_ended_and_the_others_go_on(tmp_path, monkeypatch):
    board = Board(tmp_path, block_timeout_seconds=3.0)
    monkeypatch.setattr(bench, "agent_command", board.command)
    first, second, third = board.job.artefacts
    board.behave({first: "hangs"})

    report = board.run()

    assert [(failed.artefact, failed.reason) for failed in report.failed] == [(first, "no result after 3 s")]
    assert Counter(block.artefact for block in report.blocks) == {second: 2, third: 2}


def test_artefact_that_failed_is_not_tried_again_in_later_rounds(board):
    _, second, _ = board.job.artefacts
    board.behave({second: "crashes"})

    board.run()

    assert board.started().count(second) == 1


@pytest.mark.parametrize("blocks", range(7))
def test_interrupted_job_runs_only_the_blocks_that_are_missing(board, blocks):
    whole = board.run()
    board.started()
    board.interrupt_after(blocks)

    report = board.run()

    order = [block.artefact for block in whole.blocks]
    assert board.started() == order[blocks:]
    assert [(block.artefact, block.round_index, block.order) for block in report.blocks] == [
        (block.artefact, block.round_index, block.order) for block in whole.blocks
    ]
    assert report.blocks[:blocks] == whole.blocks[:blocks]  # the stub's latencies differ from process to process
    assert {scores.artefact for scores in report.accuracy} == set(board.job.artefacts)
    assert len(report.accuracy) == 3


def test_block_whose_line_was_cut_runs_again(board):
    whole = board.run()
    board.started()
    board.interrupt_after(4)
    path = board.path / "journal.jsonl"
    os.truncate(path, path.stat().st_size - 20)

    report = board.run()

    assert board.started() == [block.artefact for block in whole.blocks][3:]
    assert len(report.blocks) == 6


def test_scores_that_are_journaled_are_not_asked_for_again(board):
    whole = board.run()
    board.interrupt_after(0)  # the first scores stand in the journal before their block

    report = board.run()

    assert report.accuracy == whole.accuracy
    assert len(events_of(board.job, board.folder, "scores")) == 3


def test_failure_that_is_journaled_stays(board):
    _, second, _ = board.job.artefacts
    board.behave({second: "killed"})
    board.run()
    board.started()
    board.interrupt_after(3)
    board.behave({})

    assert [failed.artefact for failed in board.run().failed] == [second]
    assert second not in board.started()


def test_job_that_cannot_be_decoded_says_which_image(tmp_path, monkeypatch):
    files = photographs()
    files[4] = ("green/0.png", 1, encode(photograph(1))[:-30])
    release = install(tmp_path / "board", {"none-none": GOOD}, files=files, agent=agent_archive())
    use_archive(monkeypatch, release)
    job = make_job(release)
    write_record(job, bench.job_folder(release.folder, job.job_id) / "job.json")

    with pytest.raises(AgentError, match=r"decoding the validation images failed: green/0\.png: a whole image"):
        bench.run_job(release.folder, job.job_id)


def test_artefact_that_the_manifest_does_not_name_ends_the_job(board):
    write_record(replace(board.job, artefacts=(sha("other"),)), board.path / "job.json")

    with pytest.raises(AgentError, match="an artefact of the manifest is required"):
        board.run()


# --- start, lock and stop ---


@pytest.fixture
def launched(monkeypatch):
    """Ids of the jobs that were launched; nothing runs."""
    jobs = []
    fake = {**vars(subprocess), "Popen": lambda command, **_: jobs.append(command[-1])}
    monkeypatch.setattr(bench, "subprocess", SimpleNamespace(**fake))
    return jobs


def test_start_goes_on_with_an_unfinished_job_of_the_same_request(board, launched):
    started = bench.start(board.folder, replace(board.job, job_id="20261122-120000-later"))

    assert started == board.job
    assert launched == [board.job.job_id]


def test_start_makes_a_new_job_of_another_request(board, launched):
    other = replace(board.job, job_id="20261122-120000-later", threads=4)

    assert bench.start(board.folder, other) == other

    assert launched == [other.job_id]
    assert read_record(Job, board.folder / "jobs" / other.job_id / "job.json") == other


def test_start_makes_a_new_job_where_the_same_request_is_finished(board, launched):
    board.run()
    again = replace(board.job, job_id="20261122-120000-later")

    assert bench.start(board.folder, again) == again
    assert launched == [again.job_id]


def test_start_attaches_to_the_job_that_runs(board, launched):
    with hold_lock(board.folder, board.job.job_id):
        assert bench.start(board.folder, replace(board.job, job_id="20261122-120000-later")) == board.job

    assert launched == []


def test_start_beside_another_job_is_refused_with_its_id(board, launched):
    with (
        hold_lock(board.folder, "20261122-090000-other"),
        pytest.raises(LockedError, match=r"a free target is required\. Received: one that job 20261122-090000-other"),
    ):
        bench.start(board.folder, board.job)

    assert launched == []


def test_second_process_of_a_job_is_refused_and_leaves_the_journal_alone(board):
    with hold_lock(board.folder, board.job.job_id), pytest.raises(LockedError, match="a free target is required"):
        bench.run_job(board.folder, board.job.job_id)

    assert not (board.path / "journal.jsonl").exists()


def test_lock_is_free_before_and_after_a_job(board):
    assert bench.lock_holder(board.folder) is None
    board.run()
    assert bench.lock_holder(board.folder) is None


def test_job_is_not_refused_because_somebody_looks_who_holds_the_lock(board, monkeypatch):
    with open(board.folder / "lock", "w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        Clock(monkeypatch, lambda: fcntl.flock(looking, fcntl.LOCK_UN))

        assert len(board.run().blocks) == 6


def test_lock_of_a_process_that_has_not_said_its_id_is_held(board):
    with hold_lock(board.folder, ""):
        assert bench.lock_holder(board.folder) == "starting"


def test_stop_leaves_another_job_alone(board, monkeypatch):
    killed = []
    monkeypatch.setattr(os, "killpg", lambda *arguments: killed.append(arguments))

    with hold_lock(board.folder, "20261122-090000-other"):
        bench.stop(board.folder, board.job.job_id)
    bench.stop(board.folder, board.job.job_id)

    assert killed == []


class Clock:
    """Takes the place of `time`: sleeping moves it, and lets something happen."""

    def __init__(self, monkeypatch, happen=lambda: None) -> None:
        self.now, self.happen = 1000.0, happen
        monkeypatch.setattr(bench, "time", self)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happen()


def test_follow_of_a_job_that_ended_without_a_report_shows_the_last_line_of_its_log(board, monkeypatch):
    clock = Clock(monkeypatch)
    (board.path / "log.txt").write_text("none-none (0123)\nno space left\n")

    with pytest.raises(AgentError, match=rf"job {board.job.job_id} ended without a report: no space left"):
        bench.follow(board.folder, board.job.job_id, lambda event: None)

    assert clock.now >= 1030  # a job has that long to take the lock


def test_follow_does_not_wait_for_a_job_that_held_the_lock_and_ended(board, monkeypatch):
    (board.path / "log.txt").write_text("no space left\n")
    lock = hold_lock(board.folder, board.job.job_id)
    clock = Clock(monkeypatch, lock.close)

    with pytest.raises(AgentError, match="no space left"):
        bench.follow(board.folder, board.job.job_id, lambda event: None)

    assert clock.now < 1001


def test_follow_shows_signs_of_life_until_the_report_is_there(board, monkeypatch):
    report = board.run()
    (board.path / "report.json").rename(board.path / "later.json")
    emitted = []

    def finish_after_a_minute():
        if clock.now >= 1060:
            (board.path / "later.json").rename(board.path / "report.json")

    clock = Clock(monkeypatch, finish_after_a_minute)
    with hold_lock(board.folder, board.job.job_id):
        assert bench.follow(board.folder, board.job.job_id, emitted.append) == report

    kinds = Counter(event["event"] for event in emitted)
    assert kinds["alive"] == 3
    assert kinds["block"] == 6


class EnoughError(Exception):
    """The link is lost."""


def test_detached_job_outlives_its_follower_is_stopped_and_goes_on(tmp_path, monkeypatch):
    release = install(tmp_path, {"none-none": GOOD, "none-int8": good_artefact("int8")}, agent=agent_archive())
    use_archive(monkeypatch, release)
    tier = Tier("test", 4, 8, 0.0, 5.0)
    job = bench.start(release.folder, make_job(release, tier=tier))

    def lose_link_after_a_block(event):
        if event["event"] == "block":
            raise EnoughError

    with pytest.raises(EnoughError):
        bench.follow(release.folder, job.job_id, lose_link_after_a_block)
    assert bench.lock_holder(release.folder) == job.job_id
    bench.stop(release.folder, job.job_id)
    with open(release.folder / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # returns when the job has ended
    before = events_of(job, release.folder, "block")
    assert 1 <= len(before) < 8
    assert not (release.folder / "jobs" / job.job_id / "report.json").exists()

    again = bench.start(release.folder, make_job(release, tier=tier, job_id="20261122-120000-later"))
    report = bench.follow(release.folder, again.job_id, lambda event: None)

    assert again == job
    assert len(report.blocks) == 8
    assert report.failed == ()
    assert events_of(job, release.folder, "block")[: len(before)] == before


def test_tier_of_the_samples_divides_into_whole_queries():
    assert TIER.min_queries % TIER.rounds == 0


def test_job_that_is_stopped_before_it_holds_the_lock_does_not_begin(board):
    folder = bench.job_folder(board.folder, board.job.job_id)
    bench.stop(board.folder, board.job.job_id)

    with pytest.raises(AgentError, match="stopped before it began"):
        bench.run_job(board.folder, board.job.job_id)

    assert not (folder / "report.json").exists()
    assert bench.lock_holder(board.folder) is None


def test_installed_agent_starts_itself_without_an_archive(tmp_path):
    command = [*bench.agent_command(tmp_path, "--version")]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout.strip()) == (0, liteship_agent.__version__), ended.stderr
