from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import statistics
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from board_samples import Board, no_pause
from release_samples import TIER, encode, good_artefact, hold_lock, install, make_job, photograph, photographs, sha

import liteship_agent
from liteship.payload import agent_archive
from liteship_agent import bench, journal, rounds, watch
from liteship_agent import lock as target_lock
from liteship_agent.errors import AgentError, LockedError, PreflightError
from liteship_agent.job import Job, Tier
from liteship_agent.records import read_record, write_record
from liteship_agent.release import AGENT
from liteship_agent.report import Report
from tflite_samples import color_classifier

HEARD = (lambda job: None, lambda reason: None)
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
        assert len(block.latencies_ns) == 2
        assert 1 <= len(block.end_to_end_ns) <= 2
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
    assert all(len(scores.pixel_hashes) == 12 for scores in report.accuracy)
    baseline = next(scores for scores in report.accuracy if scores.artefact == BASELINE)
    assert baseline.golden_difference <= baseline.golden_tolerance


def test_broken_artefacts_are_failed_rows_with_their_reason(finished):
    cases = finished[1].cases
    reasons = {cases[failed.case_index].artefact: failed.reason for failed in finished[2].failed}

    assert set(reasons) == {NO_MODEL, OTHER_BYTES}
    assert reasons[NO_MODEL].startswith("magnitude50-none: ai-edge-litert ")
    assert f"content with sha256 {OTHER_BYTES} is required. Received: {BASELINE}" in reasons[OTHER_BYTES]


def test_log_has_images_performance_and_accuracy_of_every_artefact(finished):
    folder, job, report = finished
    lines = [event["line"] for event in events_of(job, folder, "log")]

    runtime = "ai-edge-litert==2.3.0, threads 1, CPUs 0"
    for variant, sha256 in (("none-none", BASELINE), ("none-int8", INT8)):
        at = lines.index(f"{variant} ({sha256[:12]}), {runtime}")
        median = statistics.median(ns for b in report.blocks if b.artefact == sha256 for ns in b.latencies_ns)
        assert lines[at + 1 : at + 4] == [
            "Found 12 images belonging to 3 classes.",
            f"Performance: {median / 1e6:.3f} ms/image",
            "Accuracy: 91.67 % (11 of 12)",
        ]
    assert lines[lines.index(f"magnitude50-none ({NO_MODEL[:12]}), {runtime}") + 1].startswith(
        "Failed: magnitude50-none: "
    )


def test_images_are_decoded_once_for_all_artefacts(finished):
    folder, _, report = finished

    assert sorted(scores.decoded for scores in report.accuracy) == [False, True]
    assert len(list((folder / "cache").iterdir())) == 1


def test_follow_of_a_finished_job_emits_its_journal_without_raw_values(finished):
    folder, job, report = finished
    emitted = []

    assert read_record(Report, bench.follow(folder, job.job_id, emitted.append)) == report

    assert Counter(event["event"] for event in emitted) == Counter(
        event["event"] for event in journal.read(folder / "jobs" / job.job_id / "journal.jsonl")
    )
    text = json.dumps(emitted)
    assert not any(name in text for name in ("latencies_ns", "end_to_end_ns", "pixel_hashes", "samples"))
    assert all(event["median_ns"] > 0 for event in emitted if event["event"] == "block")


@pytest.fixture
def board(tmp_path, monkeypatch):
    board = Board(tmp_path)
    monkeypatch.setattr(rounds, "agent_command", board.command)
    return board


def test_corrupt_image_fails_its_artefacts_and_is_named(tmp_path, monkeypatch):
    files = photographs()
    files[4] = ("green/0.png", 1, encode(photograph(1))[:-30])
    release = install(tmp_path / "board", {"none-none": GOOD}, files=files, agent=agent_archive())
    use_archive(monkeypatch, release)
    job = make_job(release)
    write_record(job, bench.job_folder(release.folder, job.job_id) / "job.json")

    bench.run_job(release.folder, job.job_id)

    report = read_record(Report, bench.job_folder(release.folder, job.job_id) / "report.json")
    assert [failed.reason.split(": a whole")[0] for failed in report.failed] == ["green/0.png"]


def test_artefact_that_the_manifest_does_not_name_ends_the_job(board):
    cases = (replace(board.job.cases[0], artefact=sha("other")),)
    write_record(replace(board.job, cases=cases), board.path / "job.json")

    with pytest.raises(AgentError, match="an artefact of the manifest is required"):
        board.run()


def test_disk_that_is_full_ends_the_job_with_one_line_and_keeps_what_it_has(board, monkeypatch):
    append, lines = journal.append, []

    def append_until_full(path, event):
        if len(lines) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        lines.append(event)
        append(path, event)

    monkeypatch.setattr(journal, "append", append_until_full)
    with pytest.raises(AgentError, match=r"space .* required\. Received: No space left on device"):
        board.run()
    monkeypatch.setattr(journal, "append", append)
    done = len(board.events("block"))
    board.behave({})

    report = board.run()

    assert done >= 1
    assert len(board.started()) == 6 - done
    assert len(report.blocks) == 6


# --- start, lock and stop ---


@pytest.fixture
def launched(monkeypatch):
    """Ids of the jobs that were launched; nothing runs."""
    jobs = []
    fake = {**vars(subprocess), "Popen": lambda command, **_: jobs.append(command[-1])}
    monkeypatch.setattr(bench, "subprocess", SimpleNamespace(**fake))
    return jobs


def start(board: Board, job: Job) -> Job:
    return bench.start(board.folder, job, *HEARD, pause=no_pause)


def test_start_goes_on_with_an_unfinished_job_of_the_same_request(board, launched):
    started = start(board, replace(board.job, job_id="20261122-120000-later"))

    assert started == board.job
    assert launched == [board.job.job_id]


def test_start_makes_a_new_job_of_another_request(board, launched):
    other = replace(board.job, job_id="20261122-120000-later", seed=4)

    assert start(board, other) == other

    assert launched == [other.job_id]
    assert read_record(Job, board.folder / "jobs" / other.job_id / "job.json") == other


def test_start_finds_the_finished_job_whose_report_was_lost_with_the_link(board, launched):
    report = board.run()

    job = start(board, replace(board.job, job_id="20261122-120000-later"))

    assert job == board.job
    assert launched == []
    assert read_record(Report, bench.follow(board.folder, job.job_id, lambda event: None)) == report


def test_start_makes_a_new_job_where_the_report_of_the_same_request_was_fetched(board, launched):
    board.run()
    bench.mark_fetched(board.folder, board.job.job_id)
    again = replace(board.job, job_id="20261122-120000-later")

    assert start(board, again) == again
    assert launched == [again.job_id]


def test_start_attaches_to_the_job_that_runs(board, launched):
    with hold_lock(board.folder, board.job.job_id):
        assert start(board, replace(board.job, job_id="20261122-120000-later")) == board.job

    assert launched == []


def test_start_on_a_busy_machine_is_refused_and_launches_nothing(board, launched):
    limits = replace(board.job.limits, others_cores=-1e6, quiet_seconds=0.0)
    busy = replace(board.job, job_id="20261122-120000-busy", limits=limits)

    with pytest.raises(PreflightError, match=r"fit to measure on is required\. Received: other processes use "):
        start(board, busy)

    assert launched == []
    assert not (board.folder / "jobs" / busy.job_id).exists()


def test_forced_start_goes_on_and_keeps_what_was_overridden(board, launched):
    limits = replace(board.job.limits, others_cores=-1e6, quiet_seconds=0.0)
    forced = replace(board.job, job_id="20261122-120000-busy", limits=limits, forced=True)

    start(board, forced)

    assert launched == [forced.job_id]
    (session,) = journal.read(board.folder / "jobs" / forced.job_id / "journal.jsonl")
    assert session["problems"][0].startswith("other processes use ")


def test_job_that_goes_on_by_force_keeps_what_it_has(board, launched):
    again = replace(board.job, job_id="20261122-120000-later", forced=True)

    assert start(board, again) == replace(board.job, forced=True)
    assert read_record(Job, board.path / "job.json").forced
    assert launched == [board.job.job_id]


def test_stop_while_the_machine_is_looked_at_keeps_the_job_from_starting(board, launched):
    def stop(job):
        bench.stop(board.folder, job.job_id)

    later = replace(board.job, seed=4, job_id="20261122-120000-later")
    with pytest.raises(AgentError, match="stopped before it began"):
        # It is said which job it is before the preflight; somebody stops it in that time.
        bench.start(board.folder, later, HEARD[0], HEARD[1], pause=lambda seconds: stop(later))

    assert launched == []


def test_start_attaches_to_the_job_that_another_host_began_in_the_meantime(board, launched):
    later, locks = replace(board.job, job_id="20261122-120000-later"), []

    def begin_elsewhere(seconds):
        if not locks:
            locks.append(hold_lock(board.folder, board.job.job_id))

    (board.path / "job.json").rename(board.path / "hidden.json")

    def started(job):
        (board.path / "hidden.json").exists() and (board.path / "hidden.json").rename(board.path / "job.json")

    assert bench.start(board.folder, later, started, HEARD[1], pause=begin_elsewhere) == board.job
    assert launched == []


def test_of_two_unfinished_jobs_the_one_that_measured_more_goes_on(board):
    board.run()
    board.interrupt_after(4)
    empty = replace(board.job, job_id="20261122-120000-later")
    (board.folder / "jobs" / empty.job_id).mkdir()
    write_record(empty, board.folder / "jobs" / empty.job_id / "job.json")

    assert bench.find_unfinished(board.folder, empty.key()) == board.job


@pytest.mark.parametrize(
    ("changes", "required"),
    [
        ({"cases": ()}, "at least one case"),
        ({"tier": Tier("none", 0, 1, 0.0, 1.0)}, "at least one round"),
        ({"limit": 0}, "a limit of at least one image"),
        ({"runtimes": {}}, "the name of every runtime"),
    ],
)
def test_job_that_measures_nothing_is_refused(board, launched, changes, required):
    with pytest.raises(AgentError, match=f"{required} is required"):
        start(board, replace(board.job, **changes))

    assert launched == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_start_on_a_disk_that_takes_nothing_is_one_clear_line(board, launched, monkeypatch, number):
    def refuse(record, path):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(bench, "write_record", refuse)

    with pytest.raises(AgentError, match=f"sound disk .*Received: {os.strerror(number)}"):
        start(board, replace(board.job, seed=4, job_id="20261122-120000-later"))


def test_start_beside_another_job_is_refused_with_its_id(board, launched):
    with (
        hold_lock(board.folder, "20261122-090000-other"),
        pytest.raises(LockedError, match=r"a free target is required\. Received: one that job 20261122-090000-other"),
    ):
        start(board, board.job)

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
        Clock(monkeypatch, lambda: fcntl.flock(looking, fcntl.LOCK_UN), target_lock)

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

    def __init__(self, monkeypatch, happen=lambda: None, module=bench) -> None:
        self.now, self.happen = 1000.0, happen
        monkeypatch.setattr(module, "time", self)

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
        assert read_record(Report, bench.follow(board.folder, board.job.job_id, emitted.append)) == report

    kinds = Counter(event["event"] for event in emitted)
    assert kinds["alive"] == 3
    assert kinds["block"] == 6


class EnoughError(Exception):
    """The link is lost."""


def kill_agent(folder: Path, job_id: str) -> None:
    """kill -9 of the agent alone; its worker has to end by itself."""
    pid = int((folder / "lock").read_text().split()[0])
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(pid, signal.SIGKILL)
    while any(is_running(worker) for worker in workers):
        os.sched_yield()


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("end", [bench.stop, kill_agent])
def test_detached_job_outlives_its_follower_is_ended_and_goes_on(tmp_path, monkeypatch, end):
    release = install(tmp_path, {"none-none": GOOD, "none-int8": good_artefact("int8")}, agent=agent_archive())
    use_archive(monkeypatch, release)
    tier = Tier("test", 4, 8, 0.0, 5.0)
    job = bench.start(release.folder, make_job(release, tier=tier), *HEARD, pause=no_pause)

    def lose_link_after_a_block(event):
        if event["event"] == "block":
            raise EnoughError

    with pytest.raises(EnoughError):
        bench.follow(release.folder, job.job_id, lose_link_after_a_block)
    assert bench.lock_holder(release.folder) == job.job_id
    end(release.folder, job.job_id)
    with open(release.folder / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # returns when the job has ended
    before = events_of(job, release.folder, "block")
    assert 1 <= len(before) < 8
    assert not (release.folder / "jobs" / job.job_id / "report.json").exists()

    later = make_job(release, tier=tier, job_id="20261122-120000-later")
    again = bench.start(release.folder, later, *HEARD, pause=no_pause)
    report = read_record(Report, bench.follow(release.folder, again.job_id, lambda event: None))

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
    command = [*watch.agent_command(tmp_path, "--version")]

    ended = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stdout.strip()) == (0, liteship_agent.__version__), ended.stderr
