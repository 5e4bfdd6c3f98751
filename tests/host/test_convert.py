from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship.convert import convert, export
from liteship.errors import ConversionError
from liteship.flatbuffer import inspect
from liteship_agent.runtime import Model


@pytest.fixture(scope="module")
def network(small_network: Callable[..., Any]) -> Any:
    return small_network(class_count=3)


@pytest.fixture(scope="module")
def saved(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    export(network, folder)
    return folder


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 1, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(("quantization", "tolerance"), [("none", 1e-6), ("float16", 1e-3), ("dynamic", 5e-2)])
def test_float_input_gives_what_keras_gives(quantization: str, tolerance: float, network: Any, saved: Path) -> None:
    content = convert(saved, quantization, ())
    (tensor,) = inspect(content, quantization).inputs
    assert (tensor.shape, tensor.dtype) == ((1, 32, 32, 3), "float32")
    model = Model(content, 1, quantization)
    for image in images(3):
        np.testing.assert_allclose(model.run(image), network(image, training=False).numpy(), atol=tolerance)


def test_int8_takes_and_gives_integers_in_the_calibrated_range(network: Any, saved: Path) -> None:
    content = convert(saved, "int8", images(8))
    inspection = inspect(content, "int8")
    (tensor_in,), (tensor_out,) = inspection.inputs, inspection.outputs
    assert (tensor_in.dtype, tensor_out.dtype) == ("int8", "int8")
    assert tensor_in.scale == pytest.approx(2 / 255, rel=0.01)
    assert tensor_in.zero_point is not None
    assert tensor_out.zero_point == -128
    model = Model(content, 1, "int8")
    for image in images(3):
        steps = np.clip(np.round(image / tensor_in.scale) + tensor_in.zero_point, -128, 127).astype(np.int8)
        scores = (model.run(steps).astype(np.float32) + 128) / 256
        np.testing.assert_allclose(scores, network(image, training=False).numpy(), atol=0.03)


def test_int8_without_calibration_is_refused(saved: Path) -> None:
    with pytest.raises(ConversionError, match="int8: calibration images are required") as info:
        convert(saved, "int8", ())
    assert info.value.exit_code == 3


def test_what_the_converter_refuses_is_one_line(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec((1, 4), tf.float32, "image")
    module.serve = tf.function(lambda image: tf.math.igamma(image, image), input_signature=[spec])  # no such operator
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    with pytest.raises(ConversionError, match=r"none: a convertible model is required. Received: .*Igamma") as info:
        convert(tmp_path, "none", ())
    assert info.value.exit_code == 3
    assert "\n" not in str(info.value)
