"""Stands for the agent archive in the tests of jobs: answers at once what a worker would, or fails as it is told.

Beside it lies `behaviors.json`: by artefact sha256 "killed", "hangs" or "crashes"; each worker that is started adds a
line to `started.txt`.
"""

import json
import os
import signal
import sys
from pathlib import Path

HERE = Path(sys.argv[0]).parent


def main() -> None:
    verb, request = sys.argv[1], json.load(sys.stdin)
    with open(HERE / "started.txt", "a") as file:
        file.write(f"{verb} {request['artefact']}\n")
    if verb == "worker":
        behave(json.loads((HERE / "behaviors.json").read_text()).get(request["artefact"]))
        print(json.dumps(answer(request)))


def behave(behavior: str) -> None:
    if behavior == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif behavior == "hangs":
        signal.pause()
    elif behavior == "crashes":
        raise MemoryError("no more")
    elif behavior == "silent":
        raise SystemExit(3)


def answer(request: dict) -> dict:
    result = {
        "artefact": request["artefact"],
        "threads": request["threads"],
        "runtime": "stub",
        "runtime_version": "1",
        "delegated_nodes": None,
        "total_nodes": None,
        "init_ns": 1,
        "first_ns": 1,
        "warmup_count": 10,
        "latencies_ns": [os.getpid()] * request["min_queries"],
        "end_to_end_ns": [2] * request["min_queries"],
        "rss_peak_bytes": 2,
        "rss_anon_bytes": 1,
        "sensors": {},
    }
    if request["with_scores"]:
        result["scores"] = [[0.8, 0.1, 0.1]] * 12
    return result


main()
