"""The Pythons of other Debian releases as targets: each gets the runtime that fits, and runs a model with it.

Needs a Debian whose apt reaches its mirror, and root or user namespaces; see debian.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from debian import make_root, write_python

from liteship.loopback import serve
from liteship.targets import add_target
from tflite_samples import color_classifier

LITESHIP = str(Path(sys.executable).with_name("liteship"))
KEPT = Path(__file__).parents[2] / ".liteship" / "tests"  # what is fetched and packed once; make clean removes it
CLASSES = ("a red", "b green", "c blue")
RUNTIMES = {"bullseye": ("3.9", "ai-edge-litert==2.1.0"), "trixie": ("3.13", "ai-edge-litert==2.3.0")}
PIXELS = np.random.default_rng(0).integers(0, 90, (20, 24, 3), np.uint8) + np.array([0, 0, 150], np.uint8)
# What an image and a camera need of a trimmed site folder: every format, resizing, the model, and video by FFmpeg.
USE = """
import json, sys
release, runtime, images, video = sys.argv[1:]
sys.path[:0] = [release + "/liteship_agent.zip", runtime]
import cv2, numpy
from pathlib import Path
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import decode, preprocess
from liteship_agent.release import InstalledRelease
from liteship_agent.runtime import Model
installed = InstalledRelease(Path(release).parent.parent, Path(release).name)
(entry,) = installed.manifest().entries
model = Model(installed.artefact(entry), 1, entry.variant)
scores = {}
for path in sorted(Path(images).iterdir()):
    tensor = preprocess(decode(path.read_bytes(), path.name), entry.input)
    scores[path.suffix] = to_scores(model.run(tensor), entry.output)[0].tolist()
writer = cv2.VideoWriter(video, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
for level in (0, 80, 160):
    writer.write(numpy.full((48, 64, 3), level, numpy.uint8))
writer.release()
camera = cv2.VideoCapture(video, cv2.CAP_FFMPEG)
levels = []
while True:
    there, frame = camera.read()
    if not there:
        break
    levels.append(float(frame.mean()))
backends = [cv2.videoio_registry.getBackendName(one) for one in cv2.videoio_registry.getCameraBackends()]
origins = {module.__file__.startswith(runtime + "/") for module in (cv2, numpy)}
print(json.dumps({"scores": scores, "levels": levels, "backends": backends, "from_runtime": origins == {True}}))
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study `colors`: one .tflite file that tells red, green and blue apart."""
    folder = tmp_path_factory.mktemp("interpreters")
    for label, name in enumerate(CLASSES):
        for index in range(16):
            pixels = np.random.default_rng([label, index]).integers(0, 90, (20, 24, 3), np.uint8)
            pixels[..., 2 - label] += 150  # OpenCV's order is blue, green, red
            path = folder / "images" / ("train" if index < 12 else "validation") / name / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    (folder / "colors.tflite").write_bytes(color_classifier())
    liteship(folder, "import", "colors.tflite", "--data", "images")
    return folder


@pytest.fixture(scope="module", params=sorted(RUNTIMES))
def deployed(request: pytest.FixtureRequest, study: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """A release's name, its python, and the answer of a deploy to it."""
    release = request.param
    shared = study / f"li té {release}"
    shared.mkdir()
    python = study / f"python-{release}"
    write_python(make_root(release, KEPT / "interpreters"), shared, python)
    with serve(shared / "liteship") as target:
        add_target(study / "targets.toml", target.model_copy(update={"name": release, "python": str(python)}))
        answer = json.loads(liteship(study, "deploy", "--target", release, "--study", "colors", "--json"))
        yield release, python, answer


def liteship(folder: Path, *arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LITESHIP_")}
    environment = {**kept, "XDG_CACHE_HOME": str(KEPT / "cache")}
    ended = subprocess.run(
        [LITESHIP, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout


def test_python_gets_the_newest_runtime_that_fits_and_its_smoke_inference_passes(
    deployed: tuple[str, Path, dict[str, Any]],
) -> None:
    release, python, answer = deployed
    version, runtime = RUNTIMES[release]
    said = subprocess.check_output([python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True)
    assert said.strip() == version
    assert list(answer["runtimes"].values()) == [runtime]
    assert answer["activated"]
    checked = json.dumps(answer["smoke"])
    assert '"within_tolerance": true' in checked
    assert '"within_tolerance": false' not in checked
    assert answer["bytes_sent"] < 80e6


def test_trimmed_runtime_still_reads_images_runs_the_model_and_opens_video(
    deployed: tuple[str, Path, dict[str, Any]], study: Path
) -> None:
    _, python, answer = deployed
    folder = Path(answer["folder"])
    images = folder.parent / "images"
    images.mkdir()
    for suffix in (".jpg", ".png", ".webp"):
        (images / f"red{suffix}").write_bytes(cv2.imencode(suffix, PIXELS)[1].tobytes())
    (runtime,) = answer["runtimes"]
    paths = (
        folder / "releases" / answer["release"],
        folder / "runtimes" / runtime,
        images,
        folder.parent / "video.mp4",
    )
    command = [python, "-I", "-S", "-B", "-c", USE, *map(str, paths)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found["from_runtime"]
    assert set(found["scores"]) == {".jpg", ".png", ".webp"}
    assert all(np.argmax(scores) == 0 and scores[0] > 0.9 for scores in found["scores"].values())
    assert np.allclose(found["levels"], [0, 80, 160], atol=8)
    assert {"FFMPEG", "V4L2"} <= set(found["backends"])


def test_unpacked_runtime_is_whole_and_byte_compiled(deployed: tuple[str, Path, dict[str, Any]]) -> None:
    release, _, answer = deployed
    (runtime,) = answer["runtimes"]
    folder = Path(answer["folder"]) / "runtimes" / runtime
    ended = subprocess.run(
        ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    listed = {line.split("  ", 1)[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tag = "cpython-" + RUNTIMES[release][0].replace(".", "")
    compiled = {name for name in found if "__pycache__" in name}
    assert found - compiled == listed | {"SHA256SUMS"}
    assert any(name.endswith(f"numpy/__pycache__/__init__.{tag}.pyc") for name in compiled)
