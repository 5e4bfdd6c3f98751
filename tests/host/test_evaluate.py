from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from liteship.data import Dataset
from liteship.evaluate import HostModel, golden_tolerance
from liteship.images import load_images
from liteship_agent.errors import ModelError
from liteship_agent.manifest import Manifest, OutputContract


@pytest.mark.parametrize("variant", ["none-none", "none-int8"])
def test_scores_are_probabilities_and_golden_ones_are_some_of_them(
    variant: str, built: tuple[Path, Manifest], dataset: Dataset
) -> None:
    folder, manifest = built
    entry = next(entry for entry in manifest.entries if entry.variant == variant)
    content = (folder / f"artefacts/{variant}.tflite").read_bytes()
    model = HostModel(content, variant, entry.input, entry.output)
    pixels = load_images(dataset, entry.input, lambda amount: None).validation
    scores = model.scores(pixels)
    assert (scores.shape, scores.dtype) == ((13, 3), np.float32)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=0.02)
    np.testing.assert_array_equal(model.scores(pixels[5:6]), scores[5:6])
    with np.load(io.BytesIO(model.golden(pixels, scores))) as golden:
        assert golden["inputs"].shape == (4, 32, 32, 3)
        assert golden["inputs"].dtype == entry.input.dtype
        np.testing.assert_array_equal(golden["scores"], scores[[0, 3, 6, 9]])


def test_golden_is_the_same_every_time(built: tuple[Path, Manifest], dataset: Dataset) -> None:
    folder, manifest = built
    entry = manifest.entries[0]
    model = HostModel((folder / "artefacts/none-none.tflite").read_bytes(), "x", entry.input, entry.output)
    pixels = load_images(dataset, entry.input, lambda amount: None).validation[:2]
    scores = model.scores(pixels)
    assert model.golden(pixels, scores) == model.golden(pixels, scores)


def test_file_that_the_runtime_cannot_load_is_named(built: tuple[Path, Manifest]) -> None:
    entry = built[1].entries[0]
    with pytest.raises(ModelError, match=r"^broken: ai-edge-litert .* cannot load it"):
        HostModel(b"\x1c\0\0\0TFL3" + b"\0" * 99, "broken", entry.input, entry.output)


@pytest.mark.parametrize(
    ("quantization", "scale", "litert", "tflite"),
    [
        ("none", None, 1e-3, 1e-3),
        ("float16", None, 1e-3, 1e-3),
        ("dynamic", None, 5e-2, 5e-2),
        ("int8", 0.01, 0.02, 0.2),
    ],
)
def test_tolerance_is_by_format_and_runtime(
    quantization: str, scale: float | None, litert: float, tflite: float
) -> None:
    tolerance = golden_tolerance(quantization, OutputContract("softmax", "float32", scale, None))
    assert tolerance == {"ai-edge-litert": litert, "tflite-runtime": tflite}
