from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from release_samples import RUNTIME, good_artefact, install, make_request

from liteship_agent import block, worker
from liteship_agent.errors import AgentError, RecordError
from liteship_agent.records import from_json
from liteship_agent.report import Block, Scores
from liteship_agent.watch import agent_command

GOOD = good_artefact()


@pytest.fixture
def affinity():
    """The CPUs of this process, which are its own again after the test."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


@pytest.fixture
def oom_score(tmp_path, monkeypatch):
    """Stands for the kernel's file: nobody may lower the real one again."""
    path = tmp_path / "oom_score_adj"
    monkeypatch.setattr(worker, "_OOM_SCORE", path)
    return path


REQUEST = make_request(with_scores=True)


def request_on_stdin(monkeypatch, fields):
    content = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def test_worker_process_answers_with_phases_and_a_result_that_the_report_takes(tmp_path):
    """The real thing: an isolated process with nothing but the agent and the runtime's folder on its path."""
    release = install(tmp_path, {"none-none": GOOD})
    request = replace(REQUEST, folder=str(tmp_path), release_id=release.release_id, cpus=(0,))

    ended = subprocess.run(
        agent_command(release.runtime(RUNTIME), "worker"),
        input=json.dumps(asdict(request)).encode(),
        capture_output=True,
        check=True,
    )

    *phases, last = [json.loads(line) for line in ended.stdout.splitlines() if line]
    names = [event["phase"] for event in phases]
    assert names == ["load", "warm-up", "timed", *["accuracy"] * (len(names) - 3)]
    assert all(event["seconds"] > 0 for event in phases)
    result = last["result"]
    scores = from_json(Scores, result.pop("scores"), "worker")
    assert (scores.artefact, scores.runtime, len(scores.scores)) == (request.artefact, RUNTIME, 12)
    place = {"case_index": 0, "round_index": 3, "order": 1, "attempt": 0, "samples": [], "validity": "valid"}
    block = from_json(Block, {**result, **place}, "worker")
    assert block.extra == {}
    assert block.cpus == (0,)


def test_libraries_are_loaded_after_the_process_is_bound(affinity):
    """They start threads when they are loaded, which keep the CPUs that they were started on."""
    program = "import sys; import liteship_agent.worker; print({'numpy', 'cv2', 'ai_edge_litert'} & set(sys.modules))"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert loaded.stdout.strip() == "set()"


def test_main_binds_the_process_and_lets_it_be_ended_first_before_it_runs_the_block(
    affinity, oom_score, monkeypatch, capsys
):
    cpu = min(affinity)

    def run_block(request, announce):
        assert os.sched_getaffinity(0) == {cpu}
        assert oom_score.read_text() == "1000"
        announce("timed", 1.26)
        return {"artefact": request.artefact}

    monkeypatch.setattr(block, "run_block", run_block)
    request_on_stdin(monkeypatch, asdict(replace(REQUEST, cpus=(cpu,), agent_pid=os.getppid())))

    worker.main()

    first, second = map(json.loads, filter(None, capsys.readouterr().out.splitlines()))
    assert first == {"phase": "timed", "seconds": 1.3}
    assert second == {"result": {"artefact": REQUEST.artefact}}


def test_phase_is_heard_when_it_begins_and_not_when_the_worker_ends(monkeypatch):
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(pipe))

    worker.announce("accuracy", 11.0, done=3, total=12)

    assert json.loads(pipe.getvalue()) == {"phase": "accuracy", "seconds": 11.0, "done": 3, "total": 12}


def test_kernel_that_refuses_the_score_does_not_stop_the_worker(affinity, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(worker, "_OOM_SCORE", tmp_path / "missing" / "oom_score_adj")
    monkeypatch.setattr(block, "run_block", lambda request, announce: {})
    request_on_stdin(monkeypatch, {**asdict(REQUEST), "agent_pid": os.getppid()})

    worker.main()

    assert json.loads(capsys.readouterr().out) == {"result": {}}


def test_worker_without_cpus_stays_where_it_is(affinity):
    worker.bind(())

    assert os.sched_getaffinity(0) == affinity


@pytest.mark.parametrize("offered", [4000, None])
def test_cpus_that_the_process_may_not_use_are_refused(affinity, monkeypatch, offered):
    """An unknown CPU fails, one outside the process's own set is left out without a word."""
    wanted = (0, 4000) if offered else (0, 7)
    if offered is None:
        monkeypatch.setattr(os, "sched_setaffinity", lambda process, cpus: None)
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})

    with pytest.raises(AgentError, match=rf"CPUs 0,{wanted[1]} are required\. Received: 0"):
        worker.bind(wanted)


@pytest.mark.usefixtures("oom_score")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": None}, "threads: an integer is required. Received: null"),
        ({"cpus": 1}, "cpus: a list is required"),
        ({"end_to_end": "yes"}, "end_to_end: true or false is required"),
        ({"min_seconds": "1"}, "min_seconds: a number is required"),
    ],
)
def test_request_with_a_wrong_field_is_refused(affinity, monkeypatch, change, message):
    request_on_stdin(monkeypatch, {**asdict(REQUEST), **change})

    with pytest.raises(RecordError, match=f"worker request: {message}"):
        worker.main()


@pytest.mark.parametrize("field", sorted(asdict(REQUEST)))
def test_request_without_a_field_is_refused(monkeypatch, field):
    incomplete = asdict(REQUEST)
    del incomplete[field]
    request_on_stdin(monkeypatch, incomplete)

    with pytest.raises(RecordError, match=f"worker request: {field}: this field is required"):
        worker.main()


@pytest.mark.parametrize("content", [b"", b"time it", b"[]", b'{"threads": NaN}'])
def test_something_else_than_a_request_is_refused(monkeypatch, content):
    request_on_stdin(monkeypatch, content)

    with pytest.raises(RecordError, match=r"worker request: .*object is required"):
        worker.main()
