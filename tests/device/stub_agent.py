"""Stands for the agent archive in the tests of jobs: answers at once what a worker would, or fails as it is told.

Beside it lies `behaviors.json`: a list of behaviors by artefact sha256, one for each start of its worker, the last one
for all later ones; "" behaves well. Each worker that is started adds a line to `started.txt`.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

HERE = Path(sys.argv[0]).parent
LATENCY_NS = 1_000_000


def main() -> None:
    verb, request = sys.argv[-1], json.load(sys.stdin)
    started = HERE / "started.txt"
    before = started.read_text().splitlines() if started.exists() else []
    times = sum(line.split()[1] == request["artefact"] for line in before)
    kind = "block" if request["end_to_end"] else "canary"
    with open(started, "a") as file:
        file.write(f"{verb} {request['artefact']} {kind}\n")
    behaviors = json.loads((HERE / "behaviors.json").read_text()).get(request["artefact"], [""])
    say(phase="timed", seconds=0.0)
    say(result=answer(request, behave(behaviors[min(times, len(behaviors) - 1)])))


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


def behave(behavior: str) -> dict:
    """Fail as told, or return the fields of the result that are special."""
    if behavior == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif behavior == "hangs":
        signal.pause()
    elif behavior == "crashes":
        raise MemoryError("no more")
    elif behavior == "silent":
        raise SystemExit(3)
    elif behavior == "mute":
        raise SystemExit(0)
    elif behavior == "disturbed":
        return {"others_cores": 2000.0, "latencies_ns": [3 * LATENCY_NS] * 2}
    elif behavior == "slow":
        return {"latencies_ns": [2 * LATENCY_NS] * 2}
    return {}


def answer(request: dict, special: dict) -> dict:
    now = time.monotonic_ns()
    noise = random.Random(f"{request['artefact']} {request['seed']}").gauss(0, 0.01 * LATENCY_NS)
    result = {
        "artefact": request["artefact"],
        "threads": request["threads"],
        "cpus": request["cpus"],
        "runtime": "stub",
        "runtime_version": "1",
        "delegated_nodes": None,
        "total_nodes": None,
        "init_ns": 1,
        "first_ns": 1,
        "warmup_count": 10,
        "warmup_ns": 10,
        "latencies_ns": [round(LATENCY_NS + noise)] * request["min_queries"],
        "end_to_end_ns": [2 * LATENCY_NS] * request["min_queries"] if request["end_to_end"] else [],
        "stages_ns": {},
        "timed_from_ns": now - 10**9,
        "timed_to_ns": now,
        "loop_ns": 1,
        "invoke_cpu_ns": 1,
        "others_cores": 0.0,
        "major_faults": 0,
        "swapped_in_pages": 0,
        "rss_peak_bytes": 2,
        "rss_anon_bytes": 1,
        "scores": None,
        **special,
    }
    if request["with_scores"]:
        result["scores"] = {
            "artefact": request["artefact"],
            "runtime": request["runtime"],
            "scores": [[0.8, 0.1, 0.1]] * 12,
            "pixel_hashes": ["0" * 16] * 12,
            "golden_difference": 0.0,
            "golden_tolerance": 0.001,
            "pass_ns": 1,
            "decoded": False,
        }
    return result


main()
