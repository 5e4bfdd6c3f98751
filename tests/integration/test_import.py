"""Models that liteship did not make, from the file to the table: a .tflite and a Keras 3 classifier."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tflite_samples import color_classifier

LITESHIP = str(Path(sys.executable).with_name("liteship"))
CACHE = Path(__file__).parents[2] / ".liteship" / "tests" / "cache"  # of runtimes, shared with other tests
CLASSES = ("a red", "b green", "c blue")
KERAS3 = """
import keras, numpy, sys
image = keras.Input((16, 16, 3))
scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
mean = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1, name="mix")(scaled))
model = keras.Model(image, keras.layers.Dense(3, name="logits")(mean))
model.get_layer("mix").set_weights([numpy.eye(3).reshape(1, 1, 3, 3), numpy.zeros(3)])
model.get_layer("logits").set_weights([6 * numpy.eye(3), numpy.zeros(3)])
model.save(sys.argv[1])
"""

Liteship = Callable[..., str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in one color a class: 12 images for training and 4 for validation of each."""
    folder = tmp_path_factory.mktemp("import")
    for label, name in enumerate(CLASSES):
        for index in range(16):
            random = np.random.default_rng([label, index])
            pixels = random.integers(0, 90, (20, 24, 3), np.uint8)
            pixels[..., 2 - label] += 150  # OpenCV's order is blue, green, red
            path = folder / "images" / ("train" if index < 12 else "validation") / name / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return folder


@pytest.fixture(scope="module")
def liteship(folder: Path) -> Liteship:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LITESHIP_")}

    def run(*arguments: str, code: int = 0) -> str:
        ended = subprocess.run(
            [LITESHIP, *arguments],
            cwd=folder,
            env={**kept, "XDG_CACHE_HOME": str(CACHE)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == code, ended.stderr[-2000:]
        return ended.stdout if code == 0 else ended.stderr

    return run


def measured(liteship: Liteship, study: str) -> list[dict[str, Any]]:
    """The rows of a study that is deployed, benched and reported."""
    assert json.loads(liteship("deploy", "--study", study, "--json"))["activated"]
    liteship("bench", "--study", study, "--force")
    rows: list[dict[str, Any]] = json.loads(liteship("report", "--study", study, "--json"))["rows"]
    return rows


def test_tflite_file_is_deployed_as_it_is(liteship: Liteship, folder: Path) -> None:
    content = color_classifier(dtype="int8")
    (folder / "colors.tflite").write_bytes(content)
    made = json.loads(liteship("import", "colors.tflite", "--data", "images", "--json"))
    assert made["study"] == "colors"
    (row,) = measured(liteship, "colors")
    assert (row["size_bytes"], row["target_correct"], row["image_count"]) == (len(content), 12, 12)
    assert row["status"].startswith("forced, ")
    assert (row["keras_model"], row["parity_passed"]) == (None, None)


def test_keras3_classifier_is_converted_and_measured(liteship: Liteship, folder: Path) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", KERAS3, folder / "three.keras"], check=True, env=environment)
    liteship("import", "three.keras", "--data", "images", "--quantization", "none,int8")
    rows = measured(liteship, "three")
    assert [(row["variant"], row["target_correct"]) for row in rows] == [("none-none", 12), ("none-int8", 12)]
    assert all(row["parity_passed"] for row in rows)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("images/train/a red/00.png",), 3, "required"),
        (("colors.tflite", "--quantization", "int8"), 2, "colors.tflite"),
        (("colors.tflite", "--labels", "x,y,z"), 2, "model.labels"),
        (("colors.tflite", "--input", "large"), 2, "--input: height and width"),
        (("colors.tflite", "--mean", "1,b"), 2, "--mean: numbers"),
        (("colors.tflite", "--mean", "1,2"), 2, "three numbers"),
        (("colors.tflite", "--quantization", "int4"), 2, "int4"),
    ],
)
def test_what_cannot_be_imported_is_one_line(
    arguments: tuple[str, ...], code: int, expected: str, liteship: Liteship, folder: Path
) -> None:
    (folder / "colors.tflite").write_bytes(color_classifier())
    errors = liteship("import", *arguments, "--data", "images", "--name", "refused", code=code)
    line = errors.strip().splitlines()[-1]
    assert line.startswith("error: ")
    assert expected in line
    assert not (folder / "models/refused/manifest.json").exists()
