"""A worker process: one block, one artefact in a process of its own, so that memory never holds two models.

The request is one JSON object on stdin. The answer is JSON lines on stdout: what comes next with how long it may take
at most, then the result. The process is bound to its CPUs before numpy, OpenCV or a runtime is loaded, because
libraries start threads when they are.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Sequence

from liteship_agent.errors import AgentError
from liteship_agent.job import BlockRequest
from liteship_agent.records import from_json, parse_json

_OOM_SCORE = Path("/proc/self/oom_score_adj")
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the one request on stdin.

    Raises:
        RecordError: it is no such request.
        AgentError: the block cannot be run.
    """
    request = from_json(BlockRequest, parse_json(sys.stdin.buffer.read(), "worker request"), "worker request")
    _end_with(request.agent_pid)
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")  # when memory ends, this process goes and not the agent or the login
    bind(request.cpus)
    from liteship_agent.block import run_block

    _write({"result": run_block(request, announce)})


def _end_with(agent_pid: int) -> None:
    """A worker whose agent was killed must not go on and disturb the next one."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != agent_pid:
        raise AgentError("the agent that started this worker has ended")


def bind(cpus: Sequence[int]) -> None:
    """Bind this process to CPUs.

    Raises:
        AgentError: the process may not use all of them.
    """
    if not cpus:
        return
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, cpus)
    actual = os.sched_getaffinity(0)
    if actual != set(cpus):
        raise AgentError(f"CPUs {_shown(cpus)} are required. Received: {_shown(actual)}; choose others with --cpus")


def announce(phase: str, seconds: float, **details: Any) -> None:
    """Say what comes next and how long it may take at most, in seconds."""
    _write({"phase": phase, "seconds": round(seconds, 1), **details})


def _write(event: Any) -> None:
    # On a line of its own, whatever a library wrote before it.
    sys.stdout.write("\n" + json.dumps(event) + "\n")
    sys.stdout.flush()


def _shown(cpus: Any) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))
