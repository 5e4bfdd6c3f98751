"""Small images, a small network and one study; TensorFlow is imported only where a test asks for it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from liteship.cli.app import main
from liteship.data import Dataset, find_images
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import Recipe
from liteship_agent.manifest import InputContract, Manifest

CONTRACT = InputContract(32, 32, "rgb", "crop", "area", (127.5, 127.5, 127.5), (127.5, 127.5, 127.5))


def make_pixels(label: int, index: int) -> np.ndarray:
    """Noise that is brighter in one channel, which tells the class; uint8, shape (32, 32, 3)."""
    pixels = np.random.default_rng([label, index]).integers(0, 90, (32, 32, 3), np.uint8)
    pixels[..., label] += 150
    return pixels


def write_class(folder: Path, label: int, indices: range) -> None:
    folder.mkdir(parents=True)
    for index in indices:
        _, png = cv2.imencode(".png", make_pixels(label, index))
        (folder / f"{index:02}.png").write_bytes(png.tobytes())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs one command line in this process: exit code, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["liteship", *arguments])
        with pytest.raises(SystemExit) as info:
            main()
        out, err = capfd.readouterr()
        return int(info.value.code or 0), out, err

    return call


@pytest.fixture(scope="session")
def say() -> Reporter:
    """A reporter that nobody hears."""
    return Reporter(Console(file=io.StringIO()))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, 10 training and 4 validation images each; one validation image is a training image too."""
    folder = tmp_path_factory.mktemp("photos")
    for label, name in enumerate(("ape", "bee", "cat")):
        write_class(folder / "train" / name, label, range(10))
        write_class(folder / "validation" / name, label, range(10, 14))
    (folder / "validation/ape/twin.png").write_bytes((folder / "train/ape/03.png").read_bytes())
    return folder


@pytest.fixture(scope="session")
def dataset(photos: Path) -> Dataset:
    return find_images(str(photos), split=0.2, seed=0, cache=Path("unused"))


@pytest.fixture(scope="session")
def two_classes() -> Images:
    """24 training and 12 validation images of two classes in memory."""
    labels = np.array([index % 2 for index in range(36)], np.int64)
    pixels = np.stack([make_pixels(int(label), index) for index, label in enumerate(labels)])
    return Images(pixels[:24], labels[:24], pixels[24:], labels[24:], CONTRACT, 2)


@pytest.fixture(scope="session")
def small_network() -> Callable[..., Any]:
    """Builds what `build_model` builds, of a few layers: convolution, depthwise, 1x1 convolution, pool, head."""
    import tf_keras as keras

    def build(settings: object = None, class_count: int = 2) -> Any:
        image = keras.Input((32, 32, 3), name="image")
        hidden = keras.layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="first")(image)
        hidden = keras.layers.BatchNormalization(momentum=0.9, name="norm")(hidden)
        hidden = keras.layers.ReLU(6.0, name="relu")(hidden)
        hidden = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(hidden)
        hidden = keras.layers.Conv2D(80, 1, activation="relu", name="pointwise")(hidden)
        hidden = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
        units, activation = (1, "sigmoid") if class_count == 2 else (class_count, "softmax")
        return keras.Model(image, keras.layers.Dense(units, activation, name="head")(hidden), name="small")

    return build


@pytest.fixture(scope="session")
def recipe(photos: Path) -> Recipe:
    """A recipe of five variants over `photos`, with one epoch of everything."""
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "small",
            "data": {"source": str(photos)},
            "model": {"architecture": "mobilenet_v2", "alpha": 0.35, "input": [32, 32]},
            "train": {"batch_size": 5, "head_epochs": 0, "epochs": 1, "learning_rate": 0.01},
            "compress": [
                {"pruning": "none", "quantization": ["none", "dynamic", "float16", "int8"]},
                {"pruning": "magnitude", "sparsity": [0.5], "epochs": 1, "quantization": ["none"]},
            ],
            "calibration": {"count": 12},
        }
    )


@pytest.fixture(scope="session")
def built(
    recipe: Recipe,
    dataset: Dataset,
    small_network: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    say: Reporter,
) -> tuple[Path, Manifest]:
    """The folder of that recipe's study, made once, and its manifest; a test that changes files copies them first.

    The small network stands in for MobileNetV2, which takes ten times as long to trace.
    """
    from liteship import architectures
    from liteship.study.build import build_study

    models = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "build_model", small_network)
        return models / recipe.name, build_study(recipe, dataset, models, say)
