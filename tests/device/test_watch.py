from __future__ import annotations

import json
import os
import sys

import pytest

from liteship_agent.watch import Outcome, run_worker

# Programs of a worker; READ takes the request, say() writes a line.
PRELUDE = """
import json, os, signal, sys, time
request = json.load(sys.stdin)
def say(**fields):
    print(json.dumps(fields), flush=True)
"""


def run(program: str, *, stall_seconds: float = 30.0, on_tick=lambda pid: None, **options) -> Outcome:
    command = [sys.executable, "-I", "-S", "-c", PRELUDE + program]
    return run_worker(command, {"artefact": "abc"}, stall_seconds, on_tick, **options)


def test_result_is_what_the_last_line_says():
    outcome = run("say(phase='load', seconds=3); say(result=request)")

    assert outcome == Outcome({"artefact": "abc"})


def test_lines_that_are_no_json_are_passed_over():
    assert run("print('INFO: hello'); say(result={'a': 1}); print('bye')").result == {"a": 1}


def test_result_larger_than_a_pipe_arrives_whole():
    assert run("say(result={'latencies_ns': list(range(200000))})").result == {"latencies_ns": list(range(200000))}


def test_flood_on_stderr_does_not_stop_a_worker():
    assert run("sys.stderr.write('x' * 1000000); say(result={})").result == {}


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise MemoryError('no more')", "MemoryError: no more"),
        ("raise SystemExit(3)", "exit code 3"),
        ("pass", "the worker ended without a result"),
        ("say(phase='load', seconds=3)", "the worker ended without a result"),
    ],
)
def test_worker_without_a_result_has_a_reason(program, reason):
    assert run(program) == Outcome(None, reason)


def test_result_of_a_worker_that_fails_afterwards_does_not_count():
    assert run("say(result={}); raise ValueError('late')") == Outcome(None, "ValueError: late")


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGTERM"])
def test_signal_from_elsewhere_is_named(name, tmp_path):
    outcome = run(f"os.kill(os.getpid(), signal.{name})", vmstat=tmp_path / "none")

    assert outcome == Outcome(None, f"the process was ended by {name}", was_killed=True)


def test_kernel_that_ends_a_worker_for_lack_of_memory_is_told_from_a_kill(tmp_path):
    vmstat = tmp_path / "vmstat"
    vmstat.write_text("nr_free_pages 12\noom_kill 4\n")
    program = f"open({str(vmstat)!r}, 'w').write('oom_kill 5\\n'); os.kill(os.getpid(), signal.SIGKILL)"

    assert run(program, vmstat=vmstat) == Outcome(None, "the process was ended by the kernel for lack of memory")


def test_worker_that_hangs_is_ended_and_says_in_which_phase():
    outcome = run("say(phase='timed', seconds=0.5); signal.pause()", stall_seconds=0.5)

    assert outcome == Outcome(None, "no answer within 1 s in phase timed")


def test_worker_that_closes_its_output_and_hangs_is_ended():
    outcome = run("say(result={}); os.close(1); os.close(2); signal.pause()", stall_seconds=0.3)

    assert outcome.result is None


def test_announced_time_extends_the_deadline():
    outcome = run("say(phase='timed', seconds=60); time.sleep(0.6); say(result={'a': 1})", stall_seconds=0.3)

    assert outcome.result == {"a": 1}


def test_tick_sees_the_process_and_its_text_ends_it():
    seen = []

    def refuse(pid: int) -> str:
        seen.append(os.path.exists(f"/proc/{pid}"))
        return "it took 900 MiB"

    outcome = run("signal.pause()", on_tick=refuse)

    assert outcome == Outcome(None, "it took 900 MiB")
    assert seen == [True]


def test_no_process_is_left_when_the_watcher_itself_fails():
    pids = []

    def fail(pid: int) -> str:
        pids.append(pid)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("signal.pause()", on_tick=fail)

    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_worker_that_does_not_read_its_request_is_no_crash():
    command = [sys.executable, "-I", "-S", "-c", "raise SystemExit(4)"]

    outcome = run_worker(command, {"long": "x" * 10}, 30.0, lambda pid: None)

    assert outcome == Outcome(None, "exit code 4")


def test_request_is_one_json_object():
    command = [sys.executable, "-I", "-S", "-c", "import sys; print('{\"result\": ' + sys.stdin.read() + '}')"]

    assert run_worker(command, json.loads('{"seed": 3}'), 30.0, lambda pid: None).result == {"seed": 3}
