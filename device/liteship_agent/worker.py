"""A worker process: one block, one artefact in a process of its own, so that memory never holds two models.

The request is one JSON object on stdin. The answer is JSON lines on stdout: what comes next with how long it may take
at most, then the result. The process is bound to its CPUs before numpy, OpenCV or a runtime is loaded, because
libraries start threads when they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence, Tuple

from liteship_agent.errors import AgentError
from liteship_agent.records import from_json, parse_json

_OOM_SCORE = Path("/proc/self/oom_score_adj")


@dataclass(frozen=True)
class Request:
    """What a worker does.

    Args:
        folder, release_id: Where the artefact is.
        artefact: Its sha256.
        runtime: Folder name of the runtime, which is on this process's path.
        threads: Interpreter threads.
        cpus: CPUs to be bound to; empty to stay on those that the process was started on.
        min_queries, min_seconds, max_seconds: Of the timed loop: both minima are met unless the maximum comes first.
        seed: Of the choice of images.
        limit: Most validation images, null for all.
        with_scores: Run every validation image once, after the timed part.
        end_to_end: Time end-to-end queries too.
    """

    folder: str
    release_id: str
    artefact: str
    runtime: str
    threads: int
    cpus: Tuple[int, ...]
    min_queries: int
    min_seconds: float
    max_seconds: float
    seed: int
    limit: Optional[int]
    with_scores: bool
    end_to_end: bool


def main() -> None:
    """Serve the one request on stdin.

    Raises:
        RecordError: it is no such request.
        AgentError: the block cannot be run.
    """
    request = from_json(Request, parse_json(sys.stdin.buffer.read(), "worker request"), "worker request")
    with contextlib.suppress(OSError):
        _OOM_SCORE.write_text("1000")  # when memory ends, this process goes and not the agent or the login
    bind(request.cpus)
    from liteship_agent.block import run_block

    _write({"result": run_block(request, announce)})


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
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def _shown(cpus: Any) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))
