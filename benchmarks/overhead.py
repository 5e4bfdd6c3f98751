"""What measuring costs: blocks of the agent beside `litert-benchmark`, the accuracy pass beside its lower bound.

    python benchmarks/overhead.py --data IMAGES --output models/overhead > benchmarks/results/overhead.md

Both sides time the same file with one thread on one CPU, in turns: pair 1 starts with the agent, pair 2 with
`litert-benchmark`, and so on. The agent's side is a worker process exactly as a job starts it. The files are made
here, with random weights, unless --model gives others. Markdown goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import math
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import cv2
from bare_release import RUNTIME, install

from liteship.data import find_images
from liteship.stats import median
from liteship_agent.accuracy import run_accuracy_pass
from liteship_agent.images import Images
from liteship_agent.job import Case, Job, Limits, Tier
from liteship_agent.manifest import ManifestEntry
from liteship_agent.preprocess import to_tensor
from liteship_agent.records import write_record
from liteship_agent.release import InstalledRelease
from liteship_agent.runtime import Model, available_runtime
from liteship_agent.sensors import Sensors
from liteship_agent.system import environment
from liteship_agent.timing import time_invocations
from liteship_agent.watch import agent_command, python_with_agent, run_worker

PEER = "litert-benchmark"
IMAGES = 1000
OWN_PASSES = 7
OTHERS_CORES = 0.25
SECTIONS = ("pairs", "passes", "own", "parent")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Network:
    """A model that is made here; `runs` of both sides, and whether the ratio of medians has a bar."""

    architecture: str
    alpha: float
    size: int
    runs: int
    has_bar: bool

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.architecture} {self.alpha} at {self.size}"


NETWORKS = (
    Network("mobilenet_v2", 1.0, 96, 500, True),
    Network("vgg16", 1.0, 112, 50, True),
    Network("mobilenet_v2", 0.35, 96, 500, False),
)


@dataclass(frozen=True)
class Subject:
    """One file to time.

    Args:
        name: Of the model.
        path: The .tflite file.
        entry: Its place in the release.
        runs: Timed invocations of each side.
        has_bar: Whether the ratio is required to be within 0.97 and 1.03.
    """

    name: str
    path: Path
    entry: ManifestEntry
    runs: int
    has_bar: bool

    @property
    def images(self) -> int:
        """How many an accuracy pass scores: fewer with a slow model."""
        return min(IMAGES, 2 * self.runs)


# --- files ---


def make_file(network: Network, folder: Path) -> Path:
    """The .tflite file of a network with random weights, made once."""
    path = folder / f"{network.architecture}-{network.alpha}-{network.size}.tflite"
    if not path.exists():
        from liteship.architectures import build_model
        from liteship.convert import convert, export
        from liteship.recipe import ConvertSettings, ModelSettings

        say(f"making {path.name}")
        settings = ModelSettings(
            architecture=network.architecture, alpha=network.alpha, input=(network.size, network.size)
        )
        with tempfile.TemporaryDirectory() as saved:
            export(build_model(settings, 2), Path(saved))
            path.write_bytes(convert(Path(saved), "none", (), ConvertSettings()))
    return path


# --- both sides ---


def run_agent(release: InstalledRelease, artefact: str, cpus: Sequence[int], **changes: Any) -> dict[str, Any]:
    """The result of one worker process."""
    request = {
        "folder": str(release.folder),
        "release_id": release.release_id,
        "artefact": artefact,
        "runtime": RUNTIME,
        "threads": 1,
        "cpus": list(cpus),
        "min_queries": 1,
        "min_seconds": 0.0,
        "max_seconds": 600.0,
        "seed": 0,
        "limit": None,
        "with_scores": False,
        "end_to_end": False,
        "agent_pid": os.getpid(),
        **changes,
    }
    outcome = run_worker(agent_command(release.runtime(RUNTIME), "worker"), request, 600.0, lambda process: None)
    if outcome.result is None:
        raise RuntimeError(outcome.reason)
    return outcome.result


def run_peer(path: Path, runs: int, cpu: int) -> float:
    """Median milliseconds as `litert-benchmark` reports them, rounded by it to 0.01 ms."""
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        command = [str(Path(sys.executable).with_name(PEER)), "--model", str(path), "--num_threads", "1"]
        subprocess.run(
            [*command, "--num_runs", str(runs), "--result_json", result.name],
            preexec_fn=lambda: os.sched_setaffinity(0, {cpu}),
            capture_output=True,
            check=True,
        )
        return float(json.load(result)["latency"]["median_ms"])


def run_pair(release: InstalledRelease, subject: Subject, cpu: int, agent_first: bool) -> tuple[dict[str, Any], float]:
    """The agent's block, and the median of the other side in milliseconds."""

    def run_own() -> dict[str, Any]:
        return run_agent(release, subject.entry.sha256, [cpu], min_queries=subject.runs)

    block = run_own() if agent_first else None
    theirs = run_peer(subject.path, subject.runs, cpu)
    return block or run_own(), theirs


def undisturbed(run: Callable[[], Result]) -> tuple[Result, float]:
    """What a run of child processes gives, and how many cores' worth of CPU time everything else took meanwhile.

    A run in which that exceeded `OTHERS_CORES` is repeated, three times at most; the calmest counts.
    """
    runs: list[tuple[Result, float]] = []
    sensors = Sensors()
    while len(runs) < 4 and (not runs or runs[-1][1] > OTHERS_CORES):
        before = (sensors.busy_ns() or 0, children_cpu_ns(), time.monotonic_ns())
        result = run()
        after = (sensors.busy_ns() or 0, children_cpu_ns(), time.monotonic_ns())
        busy, own, wall = (last - first for first, last in zip(before, after, strict=True))
        runs.append((result, max(0.0, (busy - own) / wall)))
    return min(runs, key=lambda measured: measured[1])


def children_cpu_ns() -> int:
    """CPU time of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return int(1e9 * sum(usage.ru_utime + usage.ru_stime for usage in used))


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, and the narrowest pair of order statistics that holds it with at least 95 % confidence.

    The number of values below the true median is binomial with probability 1/2.
    """
    ordered, count = sorted(values), len(values)
    below = [sum(math.comb(count, k) for k in range(rank + 1)) / 2**count for rank in range(count)]
    rank = max((rank for rank in range(count // 2) if below[rank] <= 0.025), default=0)
    return median(values), ordered[rank], ordered[count - 1 - rank]


# --- sections ---


def ratios_section(release: InstalledRelease, subjects: Sequence[Subject], count: int, cpu: int) -> Iterator[str]:
    """Every pair, and the medians of the paired ratios."""
    rows, summary = [], []
    for subject in subjects:
        ratios, outside = [], []
        for number in range(1, count + 1):
            pair = functools.partial(run_pair, release, subject, cpu, number % 2 == 1)
            (block, theirs), others = undisturbed(pair)
            ours = median(block["latencies_ns"]) / 1e6
            say(f"{subject.name}: pair {number} of {count}: {ours:.3f} {theirs:.2f} ms")
            ratios.append(ours / theirs)
            outside.append(1 - sum(block["latencies_ns"]) / block["loop_ns"])
            rows.append(f"| {subject.name} | {number} | {ours:.3f} | {theirs:.2f} | {ratios[-1]:.3f} | {others:.2f} |")
        center, low, high = median_interval(ratios)
        verdict = ("yes" if 0.97 <= center <= 1.03 else "no") if subject.has_bar else "no bar"
        summary.append(
            f"| {subject.name} | {subject.runs} | {center:.3f} | {low:.3f}–{high:.3f} | {verdict} "
            f"| {100 * median(outside):.1f} % |"
        )
    yield f"## Blocks beside {PEER}\n"
    yield f"| model | runs | median ratio of {count} pairs | interval (95 % or more) | 0.97 to 1.03 | outside invoke |"
    yield "| :-- | --: | --: | --: | :-- | --: |"
    yield from summary
    yield "\nRatio: the agent's median over the other's. Outside invoke: share of the timed loop, 5 % at most."
    yield f"A pair during which others used more than {OTHERS_CORES} cores is repeated, three times at most.\n"
    yield f"| model | pair | agent ms | {PEER} ms | ratio | others, cores |\n| :-- | --: | --: | --: | --: | --: |"
    yield from rows


def passes_section(
    release: InstalledRelease, subjects: Sequence[Subject], cpu_sets: list[list[int]], count: int
) -> Iterator[str]:
    """Accuracy passes beside the time that decoding and invoking must take."""
    yield f"\n## Accuracy pass over {IMAGES} images\n"
    yield "| model | images | CPUs | threads | pass | bound s | pass s | ratio | others, cores | 1.15 or less |"
    yield "| :-- | --: | --: | --: | :-- | --: | --: | --: | --: | :-- |"
    for subject in subjects:
        for cpus in cpu_sets:
            for threads in range(1, len(cpus) + 1):
                for kind in ("decoding", "decoded"):
                    one = functools.partial(run_pass, release, subject, cpus, threads, kind == "decoding")
                    found = [undisturbed(one) for _ in range(count)]
                    ratio, bound, seconds = (median(values) for values in zip(*(one for one, _ in found), strict=True))
                    others = max(others for _, others in found)
                    yield (
                        f"| {subject.name} | {subject.images} | {len(cpus)} | {threads} | {kind} | {bound:.2f} "
                        f"| {seconds:.2f} | {ratio:.2f} | {others:.2f} | {'yes' if ratio <= 1.15 else 'no'} |"
                    )
    yield (
        f"\nMedians of {count}. Bound: max(invoke, (decode + invoke x threads) / CPUs) while decoding, then invoke."
        " Invoke: mean latency of the same process; decode: all images one after the other, just before."
        " Slow models get fewer images."
    )


def run_pass(
    release: InstalledRelease, subject: Subject, cpus: list[int], threads: int, decode: bool
) -> tuple[float, float, float]:
    """Ratio to the bound, the bound and the duration of a pass, in seconds."""
    say(f"{subject.name}: accuracy pass on CPUs {cpus}, {threads} threads, {'decoding' if decode else 'decoded'}")
    decode_seconds = serial_decode_seconds(release, subject) if decode else 0.0
    changes = {"threads": threads, "min_seconds": 1.0, "min_queries": 50, "limit": subject.images, "with_scores": True}
    result = run_agent(release, subject.entry.sha256, cpus, **changes)
    if result["scores"]["decoded"] != decode:
        raise RuntimeError("Decoded pixels must be absent before the first pass and kept by it.")
    invoke = subject.images * sum(result["latencies_ns"]) / len(result["latencies_ns"]) / 1e9
    bound = max(invoke, (decode_seconds + invoke * threads) / len(cpus)) if decode else invoke
    seconds = result["scores"]["pass_ns"] / 1e9
    return seconds / bound, bound, seconds


def serial_decode_seconds(
    release: InstalledRelease, subject: Subject, clock: Callable[[], float] = time.perf_counter
) -> float:
    """How long one thread decodes and resizes all images; forgets the decoded pixels that an earlier pass kept."""
    of_release = functools.partial(Images.of_release, release, release.manifest(), subject.entry.input, subject.images)
    with of_release() as images:
        images.path.unlink(missing_ok=True)
    cv2.setNumThreads(1)
    with of_release() as images:
        started = clock()
        for index in range(len(images)):
            images.pixels(index)
        return clock() - started


def own_section(release: InstalledRelease, subjects: Sequence[Subject], cpu: int) -> Iterator[str]:
    """CPU time of accuracy passes beside decoding and invoking, which others on the machine hardly change."""
    yield "\n## Own CPU time of an accuracy pass\n"
    yield "| model | pass | decode ms | invoke ms | own ms | own share | 5 % or less |"
    yield "| :-- | :-- | --: | --: | --: | --: | :-- |"
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    for subject in subjects:
        for kind in ("decoding", "decoded"):
            say(f"{subject.name}: own CPU time, {kind}")
            found = [own_cpu_ms(release, subject, kind == "decoding") for _ in range(OWN_PASSES)]
            decode, invoke, own = (median(values) for values in zip(*found, strict=True))
            share = own / (decode + invoke + own)
            yield (
                f"| {subject.name} | {kind} | {decode:.3f} | {invoke:.3f} | {own:.3f} | {100 * share:.1f} % "
                f"| {'yes' if share <= 0.05 else 'no'} |"
            )
    os.sched_setaffinity(0, allowed)
    yield (
        f"\nCPU time per image, medians of {OWN_PASSES}, one thread on one CPU. Own: a pass whose interpreter does"
        " nothing when it is invoked, less decoding and resizing all images one after the other just before."
    )


def own_cpu_ms(release: InstalledRelease, subject: Subject, decode: bool) -> tuple[float, float, float]:
    """CPU time per image of decoding (0 where that was done), invoking, and the rest of a pass, in milliseconds."""
    entry, clock = subject.entry, time.process_time
    decode_seconds = serial_decode_seconds(release, subject, clock) if decode else 0.0
    model = Model(release.artefact(entry), 1, entry.variant)
    with Images.of_release(release, release.manifest(), entry.input, subject.images) as images:
        tensors = [to_tensor(images.pixels(index)[None], entry.input) for index in range(32)]
        loop = time_invocations(model, tensors, 50, 0.2, 60.0)
        model.invoke = lambda: None  # type: ignore[method-assign]
        before = clock()
        run_accuracy_pass(model, release, entry, RUNTIME, images, lambda *phase, **details: None)
        own = clock() - before - decode_seconds
    return (
        1e3 * decode_seconds / subject.images,
        loop.invoke_cpu_ns / len(loop.latencies_ns) / 1e6,
        1e3 * own / subject.images,
    )


def parent_section(release: InstalledRelease, subjects: Sequence[Subject]) -> Iterator[str]:
    """Memory of the process that runs a job and starts the workers."""
    runtime, cpus = available_runtime()[0], (min(os.sched_getaffinity(0)),)
    job = Job(
        schema_version=Job.SCHEMA_VERSION,
        job_id="overhead",
        target="this computer",
        release_id=release.release_id,
        tier=Tier("short", 2, 16, 1.0, 10.0),
        cases=tuple(Case(subject.entry.sha256, RUNTIME, 1, cpus) for subject in subjects),
        runtimes={RUNTIME: f"{runtime.name}=={runtime.version}"},
        limits=Limits(canary_ratio=100.0, others_cores=100.0, start_celsius=200.0, repeats=0),
    )
    folder = release.folder / "jobs" / job.job_id
    folder.mkdir(parents=True)
    write_record(job, folder / "job.json")
    say("a small job")
    words = [*python_with_agent(), "run-job", "--folder", str(release.folder), "--job", job.job_id]
    peak = 0
    with subprocess.Popen(words, stdout=sys.stderr) as process:
        while process.poll() is None:
            peak = max(peak, peak_rss_bytes(process.pid))
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"The job ended with exit code {process.returncode}.")
    blocks = len(json.loads((folder / "report.json").read_bytes())["blocks"])
    yield "\n## The agent's parent\n"
    yield (
        f"Peak resident set during a job of {len(subjects)} cases ({blocks} blocks): {peak / 1e6:.1f} MB; "
        f"60 MB or less: {'yes' if 0 < peak <= 60e6 else 'no'}."
    )


def peak_rss_bytes(process: int) -> int:
    """VmHWM of a process; 0 where it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)


def header() -> Iterator[str]:
    """What was run, where and when."""
    machine = environment()
    runtime = available_runtime()[0]
    yield "# What measuring costs\n"
    yield f"- command: `python {shlex.join(sys.argv)}`"
    yield f"- machine: {machine['board_model'] or machine['cpu_model']}, {machine['cpu_count']} CPUs"
    yield f"- runtime: {runtime.name} {runtime.version}, one thread unless a table says otherwise"
    yield f"- date: {datetime.date.today().isoformat()}\n"


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    """Print all sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs, as for a recipe")
    parser.add_argument("--output", type=Path, required=True, help="where the .tflite files are made and kept")
    parser.add_argument("--model", type=Path, action="append", default=[], help="time this file instead; repeatable")
    parser.add_argument("--runs", type=int, default=500, help="timed invocations of a --model")
    parser.add_argument("--pairs", type=int, default=10, help="how often both sides run")
    parser.add_argument("--cpu", type=int, default=max(os.sched_getaffinity(0)), help="the CPU of the pairs")
    parser.add_argument("--passes", type=int, default=3, help="accuracy passes of each kind")
    parser.add_argument("--only", choices=SECTIONS, action="append", default=[], help="these sections; repeatable")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    networks = [
        (network.name, make_file(network, options.output), network.runs, network.has_bar) for network in NETWORKS
    ]
    chosen = [(path.stem, path, options.runs, False) for path in options.model] or networks
    dataset = find_images(options.data, split=0.2, seed=0, cache=options.output)
    repeated = tuple(dataset.validation[index % len(dataset.validation)] for index in range(IMAGES))
    with tempfile.TemporaryDirectory() as folder:
        files = [(name, path.read_bytes()) for name, path, _, _ in chosen]
        release = install(Path(folder), files, replace(dataset, validation=repeated))
        entries = release.manifest().entries
        subjects = [
            Subject(name, path, entry, runs, has_bar)
            for (name, path, runs, has_bar), entry in zip(chosen, entries, strict=True)
        ]
        cpus = sorted(os.sched_getaffinity(0))
        sections = {
            "pairs": ratios_section(release, subjects, options.pairs, options.cpu),
            "passes": passes_section(release, subjects, [cpus[:1], cpus] if len(cpus) > 1 else [cpus], options.passes),
            "own": own_section(release, subjects, options.cpu),
            "parent": parent_section(release, subjects),
        }
        for section in (header(), *(sections[name] for name in options.only or SECTIONS)):
            for line in section:
                print(line, flush=True)


if __name__ == "__main__":
    main()
