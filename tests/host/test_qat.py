from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship import convert
from liteship.compress import qat
from liteship.compress.magnitude import zero_weights
from liteship.errors import ConversionError
from liteship.flatbuffer import Inspection, inspect
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import ConvertSettings, PlateauSettings
from liteship.train import Fit, fit, make_deterministic
from liteship_agent.preprocess import to_tensor
from liteship_agent.runtime import Model

PLAN = Fit("qat", 1, 4, "adam", 1e-3, "constant", PlateauSettings(), (), seed=3, first_eligible_epoch=1)


@pytest.fixture(scope="module")
def pruned(
    small_network: Callable[..., Any], two_classes: Images, tmp_path_factory: pytest.TempPathFactory, say: Reporter
) -> Any:
    """Trained a little; then the smaller half of each prunable kernel is set to zero."""
    make_deterministic(0)
    model = small_network()
    fit(model, two_classes, PLAN, tmp_path_factory.mktemp("fit"), say)
    for name in ("first", "pointwise", "head"):
        kernel = model.get_layer(name).kernel
        value = kernel.numpy()
        kernel.assign(np.where(np.abs(value) < np.median(np.abs(value)), 0, value))
    return model


@pytest.fixture(scope="module", params=["qat", "pqat"])
def quantized(
    request: pytest.FixtureRequest,
    pruned: Any,
    two_classes: Images,
    tmp_path_factory: pytest.TempPathFactory,
    say: Reporter,
) -> tuple[str, Any, Path]:
    """The name, the model after an epoch, and what it is exported to."""
    folder = tmp_path_factory.mktemp(request.param)
    make_deterministic(0)
    before = [weight.copy() for weight in pruned.get_weights()]
    model, history = qat.train_quantized(
        pruned, two_classes, request.param == "pqat", True, PLAN, folder / "state", say
    )
    assert len(history) == 1
    assert all(np.array_equal(one, two) for one, two in zip(pruned.get_weights(), before, strict=True))
    model.optimizer = None
    model.save(folder / "model.h5")
    convert.export(qat.load(folder / "model.h5"), folder / "saved")
    return request.param, model, folder / "saved"


@pytest.fixture(scope="module")
def file(quantized: tuple[str, Any, Path]) -> tuple[bytes, Inspection]:
    """The .tflite, and what stands in it."""
    name, _, saved = quantized
    content = convert.convert(saved, name, (), ConvertSettings())
    return content, inspect(content, name)


def test_quantized_model_learns_on(quantized: tuple[str, Any, Path], pruned: Any) -> None:
    _, model, _ = quantized
    layers = {layer.name.removeprefix("quant_"): layer for layer in model.layers}
    assert set(layers) >= {"first", "norm", "relu", "depthwise", "pointwise", "pool", "head"}
    kernel = next(variable for variable in layers["pointwise"].variables if "kernel" in variable.name)
    assert not np.array_equal(kernel.numpy(), pruned.get_layer("pointwise").kernel.numpy())


def test_frozen_statistics_stay(quantized: tuple[str, Any, Path], pruned: Any) -> None:
    _, model, _ = quantized
    norm = next(layer for layer in model.layers if layer.name.endswith("norm")).layer
    for name in ("moving_mean", "moving_variance"):
        np.testing.assert_array_equal(getattr(norm, name).numpy(), getattr(pruned.get_layer("norm"), name).numpy())


def test_file_is_of_integers_throughout_without_calibration(file: tuple[bytes, Inspection]) -> None:
    _, inspection = file
    assert inspection.quantization == "full integer"
    assert [tensor.dtype for tensor in (*inspection.inputs, *inspection.outputs)] == ["int8", "int8"]


def test_file_takes_and_gives_uint8_where_asked(quantized: tuple[str, Any, Path]) -> None:
    name, _, saved = quantized
    inspection = inspect(convert.convert(saved, name, (), ConvertSettings(integer_input="uint8")), name)
    assert inspection.quantization == "full integer"
    assert [tensor.dtype for tensor in (*inspection.inputs, *inspection.outputs)] == ["uint8", "uint8"]


def test_file_gives_what_the_trained_model_gives(
    quantized: tuple[str, Any, Path], file: tuple[bytes, Inspection], two_classes: Images
) -> None:
    name, model, _ = quantized
    content, inspection = file
    (tensor_in,), (tensor_out,) = inspection.inputs, inspection.outputs
    runtime = Model(content, 1, name)
    images = to_tensor(two_classes.validation, two_classes.contract)
    steps = np.clip(np.round(images / tensor_in.scale) + tensor_in.zero_point, -128, 127).astype(np.int8)
    rows = np.concatenate([runtime.run(image[np.newaxis]) for image in steps]).astype(np.float32)
    scores = (rows - tensor_out.zero_point) * tensor_out.scale
    np.testing.assert_allclose(scores, model(images, training=False).numpy(), atol=3 * tensor_out.scale)


def test_zeros_of_a_pruned_model_survive_pqat_in_the_file_and_not_qat(
    quantized: tuple[str, Any, Path], file: tuple[bytes, Inspection], pruned: Any
) -> None:
    name, _, _ = quantized
    _, inspection = file
    share = {layer.name: layer.zeros / layer.weights for layer in inspection.layers}
    by_layer = {key: next(value for name, value in share.items() if key in name) for key in ("pointwise", "head")}
    zeros = sum(layer.zeros for layer in inspection.layers)
    if name == "pqat":
        assert min(by_layer.values()) >= 0.5
        assert zeros >= zero_weights(pruned)
    else:
        assert max(by_layer.values()) < 0.3
        assert zeros < 0.5 * zero_weights(pruned)


@pytest.mark.parametrize("freeze", [True, False])
def test_statistics_are_frozen_only_where_asked(
    freeze: bool, pruned: Any, two_classes: Images, tmp_path: Path, say: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def note(model: Any, *_: Any) -> list[dict[str, float]]:
        seen.extend(layer.layer.trainable for layer in model.layers if layer.name.endswith("norm"))
        return []

    monkeypatch.setattr(qat, "fit", note)
    qat.train_quantized(pruned, two_classes, False, freeze, PLAN, tmp_path, say)
    assert seen == [not freeze]


# --- what is refused ---


@pytest.mark.parametrize("preserve", [False, True])
def test_model_inside_the_model_is_refused_by_name(preserve: bool, small_network: Callable[..., Any]) -> None:
    import tf_keras as keras

    image = keras.Input((32, 32, 3))
    outer = keras.Model(image, small_network()(image))
    with pytest.raises(ConversionError, match=r"one flat graph is required\. Received: .*, small\.") as info:
        qat.quantize(outer, preserve)
    assert info.value.exit_code == 3


def test_layer_that_cannot_be_quantized_is_refused_by_name() -> None:
    import tf_keras as keras

    image = keras.Input((8, 8, 3))
    hidden = keras.layers.LayerNormalization(name="my_norm")(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(hidden)))
    with pytest.raises(ConversionError, match="layers that can be quantized are required") as info:
        qat.quantize(model, False)
    assert "my_norm" in info.value.message
    assert "\n" not in str(info.value)
