"""Real photographs with ImageNet weights, from the recipe to the table; needs LITESHIP_DATA and LITESHIP_WEIGHTS."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomlkit

from liteship.evaluate import HostModel
from liteship_agent.manifest import Manifest
from liteship_agent.preprocess import resize
from liteship_agent.records import read_record

pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(
        not (os.environ.get("LITESHIP_DATA") and os.environ.get("LITESHIP_WEIGHTS")), reason="not run: no images"
    ),
]

RECIPE = Path(__file__).parents[2] / "benchmarks" / "mobilenet_v2_pruning.toml"
VIDEO_FRAMES = 60
LITESHIP = str(Path(sys.executable).with_name("liteship"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the study is made, and deployed on this computer."""
    return tmp_path_factory.mktemp("photographs")


@pytest.fixture(scope="module")
def table(folder: Path) -> str:
    """What `run` prints."""
    recipe = tomlkit.parse(RECIPE.read_text())
    recipe["compress"][1]["sparsity"] = [0.5]
    recipe["compress"][1]["quantization"] = ["none"]
    recipe["compress"][1]["epochs"] = 6
    (folder / "recipe.toml").write_text(tomlkit.dumps(recipe))
    options = [
        *("--data", str(Path(os.environ["LITESHIP_DATA"]).absolute())),
        *("--weights", str(Path(os.environ["LITESHIP_WEIGHTS"]).absolute())),
    ]
    command = [LITESHIP, "run", "recipe.toml", *options, "--json"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def test_photographs_end_to_end(table: str) -> None:
    rows = {row["variant"]: row for row in json.loads(table)["rows"]}
    print(json.dumps({name: (row["target_accuracy_ratio"], row["median_ns"]) for name, row in rows.items()}))
    baseline = rows["none-none"]
    assert baseline["image_count"] >= 100
    assert baseline["target_accuracy_ratio"] >= 0.92
    image = 1 / baseline["image_count"]
    assert abs(baseline["target_accuracy_ratio"] - baseline["host_accuracy_ratio"]) <= image
    assert {row["validity"] for row in rows.values()} <= {"valid", "repeated", "unknown", "unstable"}
    assert all(row["golden_within_tolerance"] for row in rows.values())
    assert all(row["parity_passed"] for row in rows.values())
    assert all(row["parity_equal_ratio"] == 1 for name, row in rows.items() if name.endswith("-none"))
    assert rows["magnitude50-none"]["target_accuracy_ratio"] >= baseline["target_accuracy_ratio"] - 0.06
    assert rows["magnitude50-none"]["keras_gzip_bytes"] <= 5.3 * 2**20
    assert all(row["rss_anon_bytes"] <= 250e6 for row in rows.values())
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 <= 4e9


# --- the camera ---


def write_video(study: Path, path: Path) -> None:
    """A video of photographs that the model was not trained with, all of one size."""
    with tarfile.open(study / "validation.tar") as archive:
        names = sorted(archive.getnames())
        chosen = names[:: max(1, len(names) // VIDEO_FRAMES)][:VIDEO_FRAMES]
        files = [archive.extractfile(name) for name in chosen]
        pictures = [cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR) for file in files if file]
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30, (320, 240))
    for picture in pictures:
        video.write(cv2.resize(picture, (320, 240), interpolation=cv2.INTER_AREA))
    video.release()


def frames_of(path: Path) -> list[np.ndarray]:
    video, frames = cv2.VideoCapture(str(path)), []
    while (answer := video.read())[0]:
        frames.append(answer[1])
    return frames


def test_camera_labels_each_frame_of_a_video_as_the_host_does(table: str, folder: Path) -> None:
    [study] = (
        path for path in (folder / "models").iterdir() if (path / "manifest.json").exists() and not path.is_symlink()
    )
    write_video(study, folder / "video.avi")
    frames = frames_of(folder / "video.avi")
    assert len(frames) == VIDEO_FRAMES
    manifest = read_record(Manifest, study / "manifest.json")
    source = ("--source", str(folder / "video.avi"), "--rate", "0", "--smoothing", "0", "--threshold", "0")
    for entry in manifest.entries:
        content = (study / "artefacts" / f"{entry.variant}.tflite").read_bytes()
        model = HostModel(content, entry.variant, entry.input, entry.output)
        scores = model.scores(np.stack([resize(frame, entry.input) for frame in frames]))
        offline = [manifest.labels[index] for index in scores.argmax(axis=1)]
        assert len(set(offline)) == len(manifest.labels), "a video of everything"
        log = folder / f"{entry.variant}.jsonl"
        shown = ("--view", "none", "--json", "--log", log.name)
        command = [LITESHIP, "camera", *source, *shown, "--variant", entry.variant]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-3000:]
        summary = json.loads(ended.stdout)
        assert (summary["captured"], summary["classified"], summary["dropped"]) == (VIDEO_FRAMES, VIDEO_FRAMES, 0)
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        assert [line["number"] for line in lines] == list(range(VIDEO_FRAMES)), entry.variant
        # The label that is shown stays where two are close, so that it does not flicker; the prediction is the frame's.
        assert [line["prediction"] for line in lines] == offline, entry.variant
        assert sum(line["label"] != label for line, label in zip(lines, offline, strict=True)) <= 3, entry.variant
        assert [line["prediction_score"] for line in lines] == pytest.approx(scores.max(axis=1).tolist(), abs=2e-3)
