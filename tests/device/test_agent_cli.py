from __future__ import annotations

import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
from release_samples import RUNTIME, good_artefact, hold_lock, install, make_job, sha

from liteship.payload import agent_archive
from liteship_agent import __version__, cli
from liteship_agent.records import dumps
from liteship_agent.release import AGENT
from liteship_agent.store import releases as store

GOOD = good_artefact()
VERBS = ("bench", "stop", "fetched", "smoke", "smoke-runtime", "run-job", "resume", "worker", "explain")


@pytest.fixture
def release(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])  # smoke adds the runtime's folder
    return install(tmp_path, {"none-none": GOOD})


def events(output: str) -> list[dict]:
    mark = "\x1eliteship "
    return [json.loads(line[len(mark) :]) for line in output.split("\n") if line.startswith(mark)]


def fail(*arguments: str, code: int = 5) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == code


def test_help_lists_every_verb(capsys):
    fail("--help", code=0)

    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert set(VERBS) <= set(lines)


def test_version_is_that_of_the_package(capsys):
    fail("--version", code=0)

    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("arguments", [[], ["fly"], ["bench"], ["smoke", "--folder", "x"]])
def test_mistyped_command_line_is_exit_2(arguments, capsys):
    fail(*arguments, code=2)

    assert "liteship-agent" in capsys.readouterr().err


def test_event_is_one_line_of_ascii_that_the_host_reads(capsys):
    cli.emit({"event": "log", "line": "kätzchen\n2"})

    line, rest = capsys.readouterr().out.split("\n")
    assert (line.isascii(), rest) == (True, "")
    assert events(line) == [{"event": "log", "line": "kätzchen\n2"}]
    assert store._last_event(line.encode() + b"\n") == {"event": "log", "line": "kätzchen\n2"}


def test_smoke_answers_with_the_difference_of_every_artefact(release, capsys):
    cli.main(["smoke", "--folder", str(release.folder), "--release", release.release_id])

    (event,) = events(capsys.readouterr().out)
    assert event["event"] == "done"
    assert event["artefacts"][RUNTIME][sha(GOOD.content)]["within_tolerance"] is True


def test_failure_is_an_error_event_one_line_on_stderr_and_exit_5(release, capsys):
    fail("smoke", "--folder", str(release.folder), "--release", "0123456789ab")

    captured = capsys.readouterr()
    (event,) = events(captured.out)
    assert (event["event"], event["kind"]) == ("error", "agent")
    assert "a readable file is required" in event["message"]
    assert captured.err == event["message"] + "\n"


def test_held_target_is_an_error_event_of_kind_locked(release, monkeypatch, capsys):
    stdin = io.TextIOWrapper(io.BytesIO(dumps(make_job(release))))
    monkeypatch.setattr(sys, "stdin", stdin)

    with hold_lock(release.folder, "20261122-090000-other"):
        fail("bench", "--folder", str(release.folder))

    (event,) = events(capsys.readouterr().out)
    assert (event["event"], event["kind"]) == ("error", "locked")
    assert "20261122-090000-other" in event["message"]


def test_job_that_is_none_is_an_error_event(release, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}")))

    fail("bench", "--folder", str(release.folder))

    (event,) = events(capsys.readouterr().out)
    assert event["message"] == "the job on stdin: schema_version: schema_version 2 is required. Received: null"


def test_stop_of_a_job_that_does_not_run_is_done(release, capsys):
    cli.main(["stop", "--folder", str(release.folder), "--job", "20261122-090000-other"])

    assert events(capsys.readouterr().out) == [{"event": "done"}]


def test_verbs_of_the_job_itself_say_errors_on_stderr_only(release, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"{}")))

    fail("worker")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("worker request: folder: this field is required")


def test_bug_is_not_an_error_event(release, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("no JSON"))

    with pytest.raises(json.JSONDecodeError):
        cli.main(["explain"])


def run_archive(release, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess:
    command = [sys.executable, "-I", "-S", "-B", str(release.path / AGENT), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


def test_archive_measures_a_job_from_stdin_and_answers_with_its_report(tmp_path):
    release = install(tmp_path, {"none-none": GOOD}, agent=agent_archive())
    job = make_job(release, limit=6)

    ended = run_archive(release, "bench", "--folder", str(tmp_path), stdin=dumps(job))

    assert ended.returncode == 0, ended.stderr
    found = events(ended.stdout.decode())
    assert found[0] == {"event": "started", "job": json.loads(dumps(job))}
    assert found[-1]["event"] == "done"
    report = found[-1]["report"]
    assert (len(report["blocks"]), report["image_count"], report["failed"]) == (2, 6, [])


def test_archive_checks_a_release_and_refuses_one_that_does_not_load(tmp_path):
    broken = replace(GOOD, content=b"no model")
    release = install(tmp_path, {"none-none": GOOD, "none-int8": broken}, agent=agent_archive())

    ended = run_archive(release, "smoke", "--folder", str(tmp_path), "--release", release.release_id)

    assert ended.returncode == 5
    assert store._last_event(ended.stdout)["message"].startswith("none-int8: ")


def test_archive_needs_only_the_standard_library_until_a_runtime_is_named(tmp_path):
    release = install(tmp_path, {"none-none": GOOD}, agent=agent_archive())

    ended = run_archive(release, "explain", stdin=b"{}")

    assert ended.returncode == 1
    assert ended.stderr.decode().strip().splitlines()[-1] == "ModuleNotFoundError: No module named 'numpy'"
