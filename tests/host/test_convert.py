from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship import convert as conversion
from liteship import operators
from liteship.convert import convert, export
from liteship.errors import ConversionError
from liteship.flatbuffer import inspect
from liteship.operators import missing_operators
from liteship.recipe import ConvertSettings
from liteship.tflite_graph import read_model
from liteship_agent.runtime import Model


@pytest.fixture(scope="module")
def network(small_network: Callable[..., Any]) -> Any:
    return small_network(class_count=3)


@pytest.fixture(scope="module")
def saved(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    export(network, folder)
    return folder


PLAIN = ConvertSettings()
OLD_RUNTIME = "tflite-runtime==2.14.0"


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel whose dense layer has as many weights as dynamic range quantizes: 1,024 or more."""
    import tf_keras as keras

    image = keras.Input((32, 32, 3), name="image")
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(128, 3, strides=4, name="first")(image))
    folder = tmp_path_factory.mktemp("wide")
    export(keras.Model(image, keras.layers.Dense(16, "softmax", name="head")(hidden)), folder)
    return folder


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, 1, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize(("quantization", "tolerance"), [("none", 1e-6), ("float16", 1e-3), ("dynamic", 5e-2)])
def test_float_input_gives_what_keras_gives(quantization: str, tolerance: float, network: Any, saved: Path) -> None:
    content = convert(saved, quantization, (), PLAIN)
    (tensor,) = inspect(content, quantization).inputs
    assert (tensor.shape, tensor.dtype) == ((1, 32, 32, 3), "float32")
    model = Model(content, 1, quantization)
    for image in images(3):
        np.testing.assert_allclose(model.run(image), network(image, training=False).numpy(), atol=tolerance)


def test_int8_takes_and_gives_integers_in_the_calibrated_range(network: Any, saved: Path) -> None:
    content = convert(saved, "int8", images(8), PLAIN)
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
        convert(saved, "int8", (), PLAIN)
    assert info.value.exit_code == 3


def test_what_the_converter_refuses_is_one_line(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec((1, 4), tf.float32, "image")
    module.serve = tf.function(lambda image: tf.math.igamma(image, image), input_signature=[spec])  # no such operator
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    with pytest.raises(ConversionError, match=r"none: a convertible model is required. Received: .*Igamma") as info:
        convert(tmp_path, "none", (), PLAIN)
    assert info.value.exit_code == 3
    assert "\n" not in str(info.value)


def test_uint8_is_int8_moved_by_128(saved: Path) -> None:
    signed = convert(saved, "int8", images(8), PLAIN)
    unsigned = convert(saved, "int8", images(8), ConvertSettings(integer_input="uint8"))
    told = inspect(unsigned, "uint8")
    assert [tensor.dtype for tensor in (*told.inputs, *told.outputs)] == ["uint8", "uint8"]
    for one, other in zip((*told.inputs, *told.outputs), (*inspect(signed, "x").inputs, *inspect(signed, "x").outputs)):
        assert one.scale == other.scale
        assert (one.zero_point or 0) - (other.zero_point or 0) == 128
    steps = np.random.default_rng(1).integers(-128, 128, (1, 32, 32, 3)).astype(np.int8)
    moved = (steps.astype(np.int16) + 128).astype(np.uint8)
    expected = Model(signed, 1, "int8").run(steps).astype(np.int16) + 128
    np.testing.assert_array_equal(Model(unsigned, 1, "uint8").run(moved), expected)


@pytest.mark.parametrize(("allowed", "note"), [(True, b"fp16accfp16"), (False, b"fp16accfp32")])
def test_file_says_whether_sums_may_be_float16(allowed: bool, note: bytes, saved: Path, network: Any) -> None:
    content = convert(saved, "float16", (), ConvertSettings(float16_accumulation=allowed))
    assert read_model(content, "float16").metadata["reduced_precision_support"].rstrip(b"\0") == note
    assert inspect(content, "float16").float16_accumulation is allowed
    (image,) = images(1)
    np.testing.assert_allclose(Model(content, 1, "x").run(image), network(image, training=False).numpy(), atol=5e-3)


def test_float16_accumulation_is_of_float16_only(saved: Path) -> None:
    content = convert(saved, "dynamic", (), ConvertSettings(float16_accumulation=True))
    assert "reduced_precision_support" not in read_model(content, "dynamic").metadata


# --- for a runtime ---


def test_dynamic_file_is_made_with_the_operators_that_the_runtime_has(wide: Path) -> None:
    newest = convert(wide, "dynamic", (), PLAIN)
    for_old = convert(wide, "dynamic", (), ConvertSettings(runtime=OLD_RUNTIME))
    versions = [{op.name: op.version for op in inspect(content, "x").operators} for content in (newest, for_old)]
    assert versions[0]["FULLY_CONNECTED"] == 12
    assert versions[1]["FULLY_CONNECTED"] <= 10
    assert missing_operators(inspect(newest, "x").operators, OLD_RUNTIME)
    assert missing_operators(inspect(for_old, "x").operators, OLD_RUNTIME) == []
    assert inspect(for_old, "x").quantization == "dynamic range"
    assert len(for_old) < 1.15 * len(newest)
    (image,) = images(1)
    np.testing.assert_allclose(Model(for_old, 1, "x").run(image), Model(newest, 1, "x").run(image), atol=0.01)


@pytest.mark.parametrize("quantization", ["none", "float16", "int8"])
def test_what_the_runtime_loads_anyway_is_converted_once(
    quantization: str, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    run = conversion._run
    monkeypatch.setattr(conversion, "_run", lambda *arguments: made.append(run(*arguments)) or made[-1])
    assert convert(wide, quantization, images(4), ConvertSettings(runtime=OLD_RUNTIME)) == made[0]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("quantization", "lacking"),
    [("dynamic", r"CONV_2D version 5 \(the runtime has 2\)"), ("none", r"SOFTMAX version 1 \(the runtime has none\)")],
)
def test_what_cannot_be_made_for_a_runtime_is_refused_by_operator(
    quantization: str, lacking: str, wide: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has = {"CONV_2D": 2, "FULLY_CONNECTED": 12, "MEAN": 1, **({"SOFTMAX": 1} if quantization == "dynamic" else {})}
    monkeypatch.setattr(operators, "_operator_versions", lambda: {"old==1.0": has})
    expected = rf"^{quantization}: operators that old==1\.0 has are required\. Received: {lacking}\.$"
    with pytest.raises(ConversionError, match=expected) as info:
        convert(wide, quantization, (), ConvertSettings(runtime="old==1.0"))
    assert info.value.exit_code == 3


# --- stored sparse ---


def test_weights_that_are_mostly_zero_are_stored_sparse(small_network: Callable[..., Any], tmp_path: Path) -> None:
    model = small_network(class_count=3)
    kernel = model.get_layer("pointwise").kernel
    value = kernel.numpy()
    kernel.assign(np.where(np.abs(value) < np.quantile(np.abs(value), 0.9), 0, value))
    export(model, tmp_path)
    dense, sparse = (convert(tmp_path, "none", (), PLAIN, store_sparse=stored) for stored in (False, True))
    told = [inspect(content, "x") for content in (dense, sparse)]
    assert [inspection.stored_sparse for inspection in told] == [False, True]
    assert ["DENSIFY" in {operator.name for operator in inspection.operators} for inspection in told] == [False, True]
    zeros = [next(layer.zeros for layer in inspection.layers if layer.weights == 16 * 80) for inspection in told]
    assert zeros == [1152, 1152]
    assert len(sparse) < len(dense)
    (image,) = images(1)
    np.testing.assert_allclose(Model(sparse, 1, "x").run(image), Model(dense, 1, "x").run(image), atol=1e-6)
