"""How fast the camera's pipeline is beside its slowest stage, how late a label comes, and whether memory stays flat.

    python benchmarks/camera_rate.py --output models/overhead --minutes 10 > benchmarks/results/camera_rate.md

Every figure is of a process of its own that reads a video made here, again and again. Rate: frames are taken as fast as
they are classified; the bar is 0.95 of 1 / the mean of the slowest stage over the same frames, 512 at a time. Latency:
the video comes at 30 Hz, as a camera would give it; the bar is the interval of its frames plus 1.3 times the median of
invoke. Memory: RssAnon every second while frames are taken as fast as they are classified; the bar compares the medians
of the first and of the last quarter, because a frame more or less in flight is a MiB. The models are MobileNetV2 0.35
at 96 and VGG16 at 112 with random weights, unless --model gives others. Markdown goes to stdout, progress to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from liteship_agent.camera.classifier import Classifier, tried
from liteship_agent.camera.figures import STAGES
from liteship_agent.camera.files import VideoFileSource
from liteship_agent.camera.frame import FrameOptions
from liteship_agent.camera.pipeline import Pipeline
from liteship_agent.manifest import InputContract, OutputContract
from liteship_agent.runtime import Model, available_runtime
from liteship_agent.system import environment, own_memory

NETWORKS = (("mobilenet_v2", 0.35, 96), ("vgg16", 1.0, 112))
RATE_HZ = 30.0
WARM_UP_SECONDS = 3.0
LEAST_RATIO, MOST_INVOKES = 0.95, 1.3
MOST_ANONYMOUS_BYTES, MOST_GROWTH_RATIO = 200 * 10**6, 0.02
MIB = 2**20


# --- what is measured ---


def make_video(path: Path, width: int, height: int, frames: int = 150) -> None:
    """A soft texture that wanders, as JPEG pictures: what a USB camera sends."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE_HZ, (width, height))
    for number in range(frames):
        writer.write(np.roll(texture, 4 * number, axis=1))
    writer.release()


def load(path: Path, threads: int) -> Classifier:
    """A file of which nothing is known but its input and output."""
    model = Model(path.read_bytes(), threads, path.stem)
    _, height, width, _ = model.input_shape
    pixels = InputContract(height, width, "rgb", "crop", "area", (127.5,) * 3, (127.5,) * 3)
    units = int(model.output["shape"][-1])
    output = OutputContract("sigmoid" if units == 1 else "softmax")
    labels = tuple(f"class {index}" for index in range(max(2, units)))
    pixels, output = replace(pixels, **quantization(model.input)), replace(output, **quantization(model.output))
    return tried(Classifier(model, pixels, output, labels, path.stem))


def quantization(details: dict[str, Any]) -> dict[str, Any]:
    """The fields of a contract that tell dtype, scale and zero point of a tensor."""
    dtype = np.dtype(details["dtype"]).name
    scale, zero_point = details["quantization"]
    return {"dtype": dtype} if dtype == "float32" else {"dtype": dtype, "scale": scale, "zero_point": zero_point}


@contextlib.contextmanager
def running(video: Path, model: Path, threads: int, *, paced: bool) -> Iterator[Pipeline]:
    """A pipeline that is warm."""
    cv2.setNumThreads(threads)
    options = FrameOptions(loop=True, paced=paced, rate_hz=RATE_HZ if paced else None)
    pipeline = Pipeline(VideoFileSource(video, options), load(model, threads))
    pipeline.start()
    time.sleep(WARM_UP_SECONDS)
    yield pipeline
    pipeline.stop()
    pipeline.wait(10)


def measure_rate(video: Path, model: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Once a second, the rate of the last frames and what the stages took of each."""
    samples = []
    with running(video, model, threads, paced=False) as pipeline:
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            time.sleep(1)
            figures = pipeline.figures()
            stages = {name: figures.stages[name].mean_ns for name in STAGES}
            samples.append({"rate_hz": figures.classified_hz, "stages_ns": stages})
    return {"samples": samples}


def measure_latency(video: Path, model: Path, threads: int, seconds: float) -> dict[str, Any]:
    """From capture to label at the video's rate."""
    with running(video, model, threads, paced=True) as pipeline:
        time.sleep(seconds)
        figures = pipeline.figures()
    return {
        "median_ns": figures.latency.median_ns,
        "p90_ns": figures.latency.p90_ns,
        "invoke_ns": figures.stages["invoke"].median_ns,
        "dropped_ratio": figures.dropped / max(1, figures.captured),
    }


def measure_memory(video: Path, model: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Anonymous memory, once a second."""
    samples = []
    with running(video, model, threads, paced=False) as pipeline:
        end = time.monotonic() + seconds
        while not samples or time.monotonic() < end:
            samples.append(own_memory()["rss_anon_bytes"])
            time.sleep(1)
        classified = pipeline.figures().classified
    return {"samples_bytes": samples, "classified": classified}


MEASURES = {"rate": measure_rate, "latency": measure_latency, "memory": measure_memory}


def measure_apart(what: str, *about: object) -> dict[str, Any]:
    """The same in a process of its own."""
    say(" ".join([what, *map(str, about)]))
    command = [sys.executable, __file__, "--measure", what, *map(str, about)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


# --- tables ---


def rate_section(video: Path, models: Sequence[Path], threads: int, seconds: float) -> Iterator[str]:
    """Rates beside the slowest stage."""
    yield "## Rate\n"
    yield f"| model | frames/s | {' | '.join(f'{name} ms' for name in STAGES)} | of 1 / slowest stage | least | bar |"
    yield f"| :-- | --: |{' --: |' * len(STAGES)} --: | --: | :-- |"
    for model in models:
        samples = measure_apart("rate", video, model, threads, seconds)["samples"]
        ratios = [sample["rate_hz"] * max(sample["stages_ns"].values()) / 1e9 for sample in samples]
        stages = (median(sample["stages_ns"][name] for sample in samples) / 1e6 for name in STAGES)
        rate_hz, ratio = median(sample["rate_hz"] for sample in samples), median(ratios)
        cells = " | ".join(f"{value:.3f}" for value in stages)
        met = verdict(ratio >= LEAST_RATIO)
        yield f"| {model.stem} | {rate_hz:.1f} | {cells} | {ratio:.3f} | {min(ratios):.3f} | {met} |"
    yield f"\nBar: {LEAST_RATIO}. Each figure is the median of one sample a second; least is the lowest ratio.\n"


def latency_section(video: Path, models: Sequence[Path], threads: int, seconds: float) -> Iterator[str]:
    """From capture to label."""
    yield f"## Capture to label, at {RATE_HZ:g} Hz\n"
    yield "| model | median ms | p90 ms | invoke ms | interval + 1.3 x invoke, ms | dropped | bar |"
    yield "| :-- | --: | --: | --: | --: | --: | :-- |"
    for model in models:
        done = measure_apart("latency", video, model, threads, seconds)
        most_ns = 1e9 / RATE_HZ + MOST_INVOKES * done["invoke_ns"]
        times = " | ".join(f"{done[name] / 1e6:.2f}" for name in ("median_ns", "p90_ns", "invoke_ns"))
        met = verdict(done["p90_ns"] <= most_ns)
        yield f"| {model.stem} | {times} | {most_ns / 1e6:.2f} | {done['dropped_ratio']:.0%} | {met} |"
    yield ""


def memory_section(video: Path, models: Sequence[Path], threads: int, seconds: float) -> Iterator[str]:
    """Anonymous memory over time."""
    yield f"## Anonymous memory over {seconds / 60:g} minutes\n"
    yield "| model | frames | first quarter MiB | last quarter MiB | ratio | largest MiB | bar |"
    yield "| :-- | --: | --: | --: | --: | --: | :-- |"
    for model in models:
        done = measure_apart("memory", video, model, threads, seconds)
        samples = done["samples_bytes"]
        quarter = -(-len(samples) // 4)
        first, last, largest = median(samples[:quarter]), median(samples[-quarter:]), max(samples)
        met = verdict(last <= (1 + MOST_GROWTH_RATIO) * first and largest <= MOST_ANONYMOUS_BYTES)
        cells = f"{first / MIB:.1f} | {last / MIB:.1f} | {last / first:.3f} | {largest / MIB:.1f}"
        yield f"| {model.stem} | {done['classified']} | {cells} | {met} |"
    yield f"\nBar: {MOST_ANONYMOUS_BYTES / 1e6:g} MB, and at most {MOST_GROWTH_RATIO:.0%} of growth.\n"


SECTIONS = {"rate": rate_section, "latency": latency_section, "memory": memory_section}


def verdict(met: bool) -> str:
    """In a table."""
    return "met" if met else "missed"


def header(threads: int, width: int, height: int) -> Iterator[str]:
    """What was run, where and when."""
    machine, runtime = environment(), available_runtime()[0]
    yield "# The camera's pipeline\n"
    yield f"- command: `python {shlex.join(sys.argv)}`"
    yield f"- machine: {machine['board_model'] or machine['cpu_model']}, {machine['cpu_count']} CPUs"
    yield f"- runtime: {runtime.name} {runtime.version}, {threads} threads; OpenCV {cv2.__version__}"
    yield f"- video: {width}x{height}, JPEG pictures"
    yield f"- date: {datetime.date.today().isoformat()}\n"


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def chosen_models(given: Sequence[Path], output: Path | None) -> list[Path]:
    """Those given, or the two networks of the bars, made once."""
    if given:
        return list(given)
    from overhead import Network, make_file

    folder = output or Path("models/overhead")
    folder.mkdir(parents=True, exist_ok=True)
    return [make_file(Network(*about, runs=0, has_bar=True), folder) for about in NETWORKS]


def main() -> None:
    """Print all sections, or measure once for another process."""
    if sys.argv[1:2] == ["--measure"]:
        what, video, model, threads, seconds = sys.argv[2:]
        print(json.dumps(MEASURES[what](Path(video), Path(model), int(threads), float(seconds))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", default=[], help="a .tflite file; repeatable")
    parser.add_argument("--output", type=Path, help="where the .tflite files are made and kept without --model")
    parser.add_argument("--seconds", type=float, default=20.0, help="of rate and of latency, for each model")
    parser.add_argument("--minutes", type=float, default=10.0, help="of memory, for each model")
    parser.add_argument("--size", default="640x480", help="of the video, WIDTHxHEIGHT")
    parser.add_argument("--threads", type=int, default=1, help="of the interpreter and of OpenCV")
    parser.add_argument("--only", choices=tuple(SECTIONS), action="append", default=[], help="repeatable")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    models = chosen_models(options.model, options.output)
    seconds = {"rate": options.seconds, "latency": options.seconds, "memory": 60 * options.minutes}
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder) / "made.avi"
        make_video(video, width, height)
        sections = [SECTIONS[name](video, models, options.threads, seconds[name]) for name in options.only or SECTIONS]
        for section in (header(options.threads, width, height), *sections):
            for line in section:
                print(line, flush=True)


if __name__ == "__main__":
    main()
