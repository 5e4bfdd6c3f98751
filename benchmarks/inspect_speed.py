"""Time what `liteship inspect` does with a file beside the schema's own unpacking of it into objects, in turns.

    python benchmarks/inspect_speed.py models/demo/artefacts/none-none.tflite ...

Own work is reading, counting, the verdicts and sha256. The peer is `ModelT.InitFromObj` of ai_edge_litert's schema,
which only makes objects of what is stored: no counting. Medians of all rounds, in milliseconds.
"""

from __future__ import annotations

import hashlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ai_edge_litert import schema_py_generated as schema

from liteship.flatbuffer import inspect
from liteship.operators import known_runtimes, missing_operators

_ROUNDS = 15

T = TypeVar("T")


def own_work(content: bytes) -> None:
    """Everything that the verb shows, without printing it."""
    inspection = inspect(content, "file")
    for runtime in known_runtimes():
        missing_operators(inspection.operators, runtime)
    hashlib.sha256(content).hexdigest()


def unpack(content: bytes) -> None:
    """The peer."""
    schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))


def command(path: Path) -> None:
    """The whole command in a process of its own."""
    code = "import sys; from liteship.cli.app import main; main()"
    subprocess.run([sys.executable, "-c", code, "inspect", str(path)], stdout=subprocess.DEVNULL, check=True)


def elapsed_ms(work: Callable[[T], None], argument: T) -> float:
    """Wall clock time of one call."""
    start = time.perf_counter_ns()
    work(argument)
    return (time.perf_counter_ns() - start) / 1e6


def main() -> None:
    """Print one line for each file."""
    print(f"{'MiB':>6}  {'own work':>8}  {'unpack':>8}  {'ratio':>6}  {'command':>8}  file")
    for path in map(Path, sys.argv[1:]):
        content = path.read_bytes()
        own, peer, whole = [], [], []
        for _ in range(_ROUNDS):
            own.append(elapsed_ms(own_work, content))
            peer.append(elapsed_ms(unpack, content))
            whole.append(elapsed_ms(command, path))
        medians = [statistics.median(values) for values in (own, peer, whole)]
        ratio = medians[0] / medians[1]
        mib = len(content) / 2**20
        print(f"{mib:6.2f}  {medians[0]:8.1f}  {medians[1]:8.1f}  {ratio:6.2f}  {medians[2]:8.0f}  {path}")


if __name__ == "__main__":
    main()
