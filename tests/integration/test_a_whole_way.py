"""The whole way on this computer: recipe, study, release over SSH, job, report, table, and each step on its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship.targets import Target, add_target
from liteship_agent.accuracy import pixel_hash

RECIPE = """
schema_version = 1
name = "tiny"
[data]
source = "digits"
[model]
architecture = "mobilenet_v2"
alpha = 0.35
input = [32, 32]
[train]
head_epochs = 0
epochs = 1
learning_rate = 3e-3
[[compress]]
pruning = "none"
quantization = ["none", "dynamic", "int8"]
[[compress]]
pruning = "magnitude"
sparsity = [0.5]
epochs = 1
quantization = ["none"]
[parity]
max_drop = 1.0
"""
VARIANTS = ["none-none", "none-dynamic", "none-int8", "magnitude50-none"]
ROUNDS = 6
# Tests share this computer with others: measured all the same, and marked where that disturbed.
MEASURED = re.compile(r"(forced, )?(valid|repeated|unstable|throttle unknown)")
LITESHIP = str(Path(sys.executable).with_name("liteship"))
CACHE = Path(__file__).parents[2] / ".liteship" / "tests" / "cache"  # of runtimes, shared with other tests

Liteship = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("way with space and ü")
    (folder / "tiny.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def liteship(folder: Path) -> Liteship:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [LITESHIP, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
        )
        assert ended.returncode == code, ended.stderr[-2000:]
        return ended

    return run


@pytest.fixture(scope="module")
def table(liteship: Liteship, folder: Path) -> dict[str, Any]:
    """The first run, from nothing; it is interrupted while it trains and run again."""
    process = start(folder, "run", "tiny.toml", "--limit", "120")
    wait_for(lambda: any((folder / "models/tiny/keras").glob(".none-*")), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    ended = liteship("run", "tiny.toml", "--limit", "120", "--force", "--json")
    assert "4 artefacts = 4 cases, 6 rounds, 24 blocks and 6 canaries, tier rapid: about " in ended.stderr
    parsed: dict[str, Any] = json.loads(ended.stdout)
    return parsed


def environment(folder: Path) -> dict[str, str]:
    """That of the tests, with one cache of runtimes for all of them and without options."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LITESHIP_")}
    return {**kept, "XDG_CACHE_HOME": str(CACHE)}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [LITESHIP, *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background may ignore Ctrl-C; a process started by hand does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.05)


def journal_blocks(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["block"] for event in events if event["event"] == "block"]


def new_job(folder: Path, known: set[Path]) -> Path | None:
    """The folder of a job that has begun to measure since those that are known."""
    jobs = set((folder / ".liteship/loopback/jobs").iterdir()) - known
    return next((job for job in jobs if len(journal_blocks(job / "journal.jsonl")) >= 3), None)


def places(blocks: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Case and round of each block, without repetitions."""
    return sorted({(block["case_index"], block["round_index"]) for block in blocks})


def test_run_prints_a_row_for_every_variant(table: dict[str, Any]) -> None:
    assert [row["variant"] for row in table["rows"]] == VARIANTS
    assert all(MEASURED.fullmatch(row["status"]) for row in table["rows"])
    assert all(row["queries"] >= 64 and row["p90_ns"] >= row["median_ns"] > 0 for row in table["rows"])


def test_float_accuracy_on_the_target_is_that_of_the_host(table: dict[str, Any]) -> None:
    baseline = table["rows"][0]
    assert baseline["image_count"] == 120
    assert abs(baseline["target_accuracy_ratio"] - baseline["host_accuracy_ratio"]) <= 1 / 120


def test_size_accuracy_and_latency_share_one_sha256(table: dict[str, Any], folder: Path) -> None:
    manifest = json.loads((folder / "models/tiny/manifest.json").read_text())
    (report_path,) = (folder / "models/tiny/reports/loopback").glob("*.json")
    report = json.loads(report_path.read_text())
    for row, entry in zip(table["rows"], manifest["entries"]):
        content = (folder / f"models/tiny/artefacts/{row['variant']}.tflite").read_bytes()
        assert row["sha256"] == entry["sha256"]
        assert row["size_bytes"] == len(content)
    assert {block["artefact"] for block in report["blocks"]} == {row["sha256"] for row in table["rows"]}
    assert {scores["artefact"] for scores in report["accuracy"]} == {row["sha256"] for row in table["rows"]}


def test_every_row_tells_what_its_file_gained_and_lost(table: dict[str, Any]) -> None:
    rows = {row["variant"]: row for row in table["rows"]}
    for row in rows.values():
        assert row["parity_passed"] is True
        assert 0 <= row["parity_equal_ratio"] <= 1
        assert row["sparse_eligible"] is False
        assert row["sparse_reason"]
        assert row["keras_size_bytes"] > row["keras_gzip_bytes"] > 0
    assert [rows[name]["keras_model"] for name in VARIANTS] == ["none", "none", "none", "magnitude50"]
    assert rows["magnitude50-none"]["keras_gzip_bytes"] < rows["none-none"]["keras_gzip_bytes"]
    assert rows["none-none"]["parity_equal_ratio"] == 1
    assert rows["none-none"]["parity_largest_difference"] < 1e-3


def test_every_block_ran_in_order_with_its_neighbours(table: dict[str, Any], folder: Path) -> None:
    (report_path,) = (folder / "models/tiny/reports/loopback").glob("*.json")
    blocks = json.loads(report_path.read_text())["blocks"]
    rounds: list[dict[int, str]] = [{} for _ in range(ROUNDS)]
    for block in blocks:
        rounds[block["round_index"]][block["order"]] = block["artefact"]
    orders = [[found[place] for place in sorted(found)] for found in rounds]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    assert [order[::-1] for order in orders[::2]] == orders[1::2]


def test_answers_of_the_host_are_compared_with_those_of_the_target(table: dict[str, Any], folder: Path) -> None:
    (report_path,) = (folder / "models/tiny/reports/loopback").glob("*.json")
    report = json.loads(report_path.read_text())
    assert report["pixels"] == {"compared": 120, "different": 0, "largest_difference": 0}
    assert all(flip["cause"] == "kernels" for flip in report["flips"] if flip["against"] == "host")
    assert [summary["case_index"] for summary in report["summaries"]] == [0, 1, 2, 3]


def test_agent_log_names_images_latency_and_accuracy(table: dict[str, Any], folder: Path) -> None:
    (log,) = (folder / ".liteship/loopback/jobs").glob("*/log.txt")
    text = log.read_text()
    assert text.count("Found 120 images belonging to 10 classes.") == 4
    assert text.count("Performance: ") == text.count(" ms/image") == text.count("Accuracy: ") == 4


def test_second_deploy_sends_no_blob(table: dict[str, Any], liteship: Liteship) -> None:
    answer = json.loads(liteship("deploy", "--json").stdout)
    assert (answer["bytes_sent"], answer["blobs_sent"], answer["activated"]) == (0, 0, False)
    assert answer["bytes_skipped"] > 0
    assert answer["round_trips"] == 1


def test_report_has_four_forms(table: dict[str, Any], liteship: Liteship) -> None:
    assert "none-int8" in liteship("report").stdout
    assert liteship("report", "--format", "markdown").stdout.count("\n| ") >= 4
    assert liteship("report", "--format", "csv").stdout.startswith("target,job_id,variant,")
    assert len(json.loads(liteship("report", "--json").stdout)["rows"]) == 4


def test_interrupted_repetition_goes_on_where_it_stopped(
    table: dict[str, Any], liteship: Liteship, folder: Path
) -> None:
    known = set((folder / ".liteship/loopback/jobs").iterdir())
    made = {path: path.stat().st_mtime_ns for path in (folder / "models/tiny").glob("*/*.tflite")}
    again = ("repeat", "--job", table["job"]["job_id"], "--force")
    process = start(folder, *again)
    wait_for(lambda: new_job(folder, known) is not None, process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "the same command goes on from" in errors
    (job,) = set((folder / ".liteship/loopback/jobs").iterdir()) - known
    first = journal_blocks(job / "journal.jsonl")
    assert not (job / "report.json").exists()

    ended = liteship(*again, "--json")
    answer = json.loads(ended.stdout)
    assert answer["jobs"] == [table["job"]["job_id"], job.name]
    assert len(answer["cases"]) == 3
    # Nothing can be judged where other processes disturbed all of it.
    assert answer["agreeing_ratio"] is None or 0 <= answer["agreeing_ratio"] <= 1
    assert f"going on with job {job.name}" in ended.stderr
    blocks = journal_blocks(job / "journal.jsonl")
    assert blocks[: len(first)] == first
    assert places(blocks) == [(case, index) for case in range(4) for index in range(ROUNDS)]
    assert {path: path.stat().st_mtime_ns for path in made} == made


@pytest.fixture(scope="module")
def axes(table: dict[str, Any], liteship: Liteship, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two runtimes on one CPU in one job, as table and as report; its host is killed on the way.

    The target's pixels of one image are turned into their negative.
    """
    if sys.version_info[:2] > (3, 11):
        pytest.skip("not run: tflite-runtime has no wheel for this Python")
    known = set((folder / ".liteship/loopback/jobs").iterdir())
    (decoded,) = (folder / ".liteship/loopback/cache").glob("*-120/pixels.npy")
    pixels = np.load(decoded)
    pixels["pixels"][7] = 255 - pixels["pixels"][7]
    pixels["hash"][7] = pixel_hash(pixels["pixels"][7])
    np.save(decoded, pixels)
    cpu = str(min(os.sched_getaffinity(0)))
    command = ("bench", "--runtime", "ai-edge-litert,tflite-runtime", "--cpus", cpu, "--force")
    process = start(folder, *command)
    wait_for(lambda: new_job(folder, known) is not None, process)
    process.kill()
    process.communicate()
    job = new_job(folder, known)
    ended = liteship(*command, "--json")
    assert job is not None
    assert f"going on with job {job.name}" in ended.stderr
    assert "4 artefacts x 2 runtimes - 1 refused = 7 cases" in ended.stderr
    assert set((folder / ".liteship/loopback/jobs").iterdir()) - known == {job}
    report = json.loads((folder / f"models/tiny/reports/loopback/{job.name}.json").read_text())
    return json.loads(ended.stdout), report


def test_job_outlives_the_host_that_started_it(axes: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, report = axes
    assert places(report["blocks"]) == [(case, index) for case in range(7) for index in range(ROUNDS)]
    assert {tuple(block["cpus"]) for block in report["blocks"]} == {(min(os.sched_getaffinity(0)),)}


def test_model_that_one_runtime_lacks_is_a_refused_row_of_it(axes: tuple[dict[str, Any], dict[str, Any]]) -> None:
    rows = {(row["variant"], row["runtime"]): row for row in axes[0]["rows"]}
    assert set(rows) == {(name, runtime) for name in VARIANTS for runtime in ("ai-edge-litert", "tflite-runtime")}
    refused = rows.pop(("none-dynamic", "tflite-runtime"))["status"]
    assert refused.startswith("refused: tflite-runtime==2.14.0 lacks FULLY_CONNECTED version 12")
    assert all(MEASURED.fullmatch(row["status"]) for row in rows.values())
    assert axes[0]["rows"][0]["ratio_to_baseline"] == 1


def test_image_that_the_target_sees_otherwise_is_compared_over_the_link(
    axes: tuple[dict[str, Any], dict[str, Any]], folder: Path
) -> None:
    _, report = axes
    manifest = json.loads((folder / "models/tiny/manifest.json").read_text())
    path = manifest["validation"]["images"][7]["path"]
    assert (report["pixels"]["compared"], report["pixels"]["different"]) == (120, 1)
    assert report["pixels"]["largest_difference"] > 200
    for flip in report["flips"]:
        if flip["against"] == "host":
            assert flip["cause"] in (("pixels", "kernels") if flip["path"] == path else ("kernels",))


def test_release_of_several_runtimes_is_sent_once(
    axes: tuple[dict[str, Any], dict[str, Any]], table: dict[str, Any], liteship: Liteship
) -> None:
    answer = json.loads(liteship("deploy", "--runtime", "tflite-runtime,ai-edge-litert", "--json").stdout)
    assert (answer["bytes_sent"], answer["activated"]) == (0, False)
    assert sorted(answer["runtimes"].values()) == ["ai-edge-litert==2.3.0", "tflite-runtime==2.14.0"]
    (refused,) = (list(reasons) for reasons in answer["refused"].values() if reasons)
    assert refused == [table["rows"][1]["sha256"]]


@pytest.fixture
def board(sshd: Target, folder: Path) -> Callable[..., Target]:
    """Writes a target of a real sshd, with changes, into targets.toml."""

    def add(**changes: str) -> Target:
        target = sshd.model_copy(update={"folder": str(folder / "board"), **changes})
        add_target(folder / "targets.toml", target)
        return target

    return add


def python_that_says(folder: Path, **changes: Any) -> str:
    """A program that answers every probe as another interpreter would."""
    probe = {
        "event": "inventory",
        "python_version": "3.11.2",
        "machine": "aarch64",
        "word_bits": 64,
        "libc": ["glibc", "2.36"],
        "soabi": "cpython-311-aarch64-linux-gnu",
        "symbols": {"GLIBC": "2.36", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"},
        **changes,
    }
    script = folder / f"python-{len(list(folder.glob('python-*')))}"
    lines = [json.dumps(event) for event in (probe, {"event": "done"})]
    script.write_text("#!/bin/sh\n" + "".join(f"printf '\\036liteship %s\\n' '{line}'\n" for line in lines))
    script.chmod(0o755)
    return str(script)


def test_board_gets_the_release_over_openssh(
    table: dict[str, Any], liteship: Liteship, folder: Path, board: Callable[..., Target]
) -> None:
    board()
    first = json.loads(liteship("deploy", "--target", "board", "--json").stdout)
    assert first["activated"]
    assert first["blobs_sent"] > 0
    assert (folder / "board" / "current").resolve().name == first["release"]
    second = json.loads(liteship("deploy", "--target", "board", "--json").stdout)
    assert (second["bytes_sent"], second["activated"]) == (0, False)
    assert "ai-edge-litert" in liteship("doctor", "--target", "board").stdout


def test_release_goes_there_and_back(
    table: dict[str, Any], liteship: Liteship, folder: Path, board: Callable[..., Target]
) -> None:
    board(folder=str(folder / "there and back"))
    where = ("--target", "board")
    planned = json.loads(liteship("deploy", *where, "--dry-run", "--json").stdout)
    assert planned["current"] is None
    assert {"manifest.json", "liteship_agent.zip", "validation.tar"} < {item["path"] for item in planned["travel"]}
    assert not (folder / "there and back").exists()
    first = json.loads(liteship("deploy", *where, "--json").stdout)
    assert (first["release"], first["bytes_sent"]) == (
        planned["release"],
        pytest.approx(planned["bytes_to_send"], abs=9),
    )
    told = liteship("deploy", *where, "--runtime", "tflite-runtime", "--dry-run").stdout
    assert "unpack    tflite-runtime-2.14.0" in told
    assert f"switch    {first['release']} -> " in told
    second = json.loads(liteship("deploy", *where, "--runtime", "tflite-runtime", "--json").stdout)
    found = json.loads(liteship("releases", *where, "--json").stdout)["releases"]
    assert [(one["release"], one["is_current"]) for one in found] == [
        (second["release"], True),
        (first["release"], False),
    ]
    assert f"release {first['release']} is active now" in liteship("rollback", *where).stdout
    assert "all of " in liteship("verify", *where).stdout
    artefact = next((folder / "there and back" / "current" / "artefacts").iterdir())
    artefact.write_bytes(artefact.read_bytes()[:-1] + b"?")
    damaged = liteship("verify", *where, code=5).stdout
    assert f"artefacts/{artefact.name}: " in damaged
    mended = json.loads(liteship("deploy", *where, "--json").stdout)
    assert (mended["release"], mended["blobs_sent"], mended["activated"]) == (first["release"], 1, False)
    liteship("verify", *where)


def test_one_target_that_fails_does_not_stop_the_other(
    table: dict[str, Any], liteship: Liteship, folder: Path, board: Callable[..., Target]
) -> None:
    target = board()
    add_target(folder / "targets.toml", target.model_copy(update={"name": "gone", "python": "/nowhere/python3"}))
    ended = liteship("deploy", "--target", "gone,board", "--json", code=5)
    found = json.loads(ended.stdout)["targets"]
    assert found["board"]["release"]
    assert "/nowhere/python3 is required on gone" in found["gone"]["error"]
    assert "/nowhere/python3 is required on gone" in ended.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host_key_sha256": "SHA256:" + "A" * 43}, "host key"),
        ({"user": "nobody-here"}, "nobody-here@127.0.0.1"),
        ({"python": "no-such-python"}, "no-such-python"),
        (
            {"probe": {"python_version": "3.8.10", "soabi": "cpython-38-aarch64-linux-gnu"}},
            "Received: Python 3.8, 64-bit aarch64, glibc 2.36",
        ),
        ({"probe": {"machine": "armv7l", "word_bits": 32}}, "Received: Python 3.11, 32-bit armv7l"),
        ({"probe": {"symbols": {}}}, "GLIBC 2.34 is required (glibc) by ai-edge-litert==2.3.0. Received: no glibc"),
        (
            {"probe": {"symbols": {"GLIBC": "2.36", "GLIBCXX": "3.4.18", "CXXABI": "1.3.13", "GCC": "12.0.0"}}},
            "GLIBCXX 3.4.30 is required (libstdc++) by ai-edge-litert==2.3.0. Received: 3.4.18",
        ),
    ],
)
def test_target_that_cannot_serve_is_refused_in_one_line(
    table: dict[str, Any],
    liteship: Liteship,
    folder: Path,
    board: Callable[..., Target],
    changes: dict[str, Any],
    message: str,
) -> None:
    probe = changes.get("probe")
    board(**({"python": python_that_says(folder, **probe)} if probe else changes))
    ended = liteship("deploy", "--target", "board", code=5)
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert ended.stdout == ""


def test_unknown_target_names_the_command_that_adds_it(liteship: Liteship) -> None:
    ended = liteship("deploy", "--target", "pi", code=2)
    assert "liteship targets add pi --host raspberrypi.local --user pi" in ended.stderr
