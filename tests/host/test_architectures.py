from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship.architectures import HEAD_LAYER, activation, batch_norm_layers, build_model, input_contract
from liteship.errors import RecipeError
from liteship.recipe import ModelSettings
from liteship_agent.preprocess import to_tensor


def mobilenet(**changes: Any) -> ModelSettings:
    return ModelSettings(**{"architecture": "mobilenet_v2", "alpha": 0.35, "input": (32, 32), **changes})


def trainable(model: Any) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def wrapped(model: Any) -> Any:
    import tensorflow_model_optimization as tfmot

    return tfmot.sparsity.keras.prune_low_magnitude(model)


def test_mobilenet_has_the_published_number_of_parameters() -> None:
    model = build_model(mobilenet(alpha=1.0, input=(96, 96)), 2)
    assert model.count_params() == 2_259_265
    assert trainable(model) == 2_225_153
    pruned = wrapped(model)
    assert pruned.count_params() == 4_386_272
    assert len(batch_norm_layers(pruned)) == len(batch_norm_layers(model)) == 52


def test_vgg16_has_the_published_number_of_parameters() -> None:
    model = build_model(ModelSettings(architecture="vgg16", input=(32, 32)), 2)
    assert model.count_params() == 14_715_201
    assert wrapped(model).count_params() == 29_426_211


@pytest.mark.parametrize(("classes", "units", "function"), [(2, 1, "sigmoid"), (3, 3, "softmax")])
def test_head_is_one_sigmoid_for_two_classes_and_softmax_for_more(classes: int, units: int, function: str) -> None:
    model = build_model(mobilenet(), classes)
    head = model.get_layer(HEAD_LAYER)
    assert (head.units, head.activation.__name__, activation(classes)) == (units, function, function)
    assert model.output_shape == (None, units)
    assert model.input_shape == (None, 32, 32, 3)


def test_graph_is_flat_and_its_statistics_follow_quickly() -> None:
    import tf_keras as keras

    model = build_model(mobilenet(), 2)
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert {layer.momentum for layer in batch_norm_layers(model)} == {0.9}


def test_weights_of_a_file_are_loaded_below_the_head(tmp_path: Path) -> None:
    import tf_keras as keras

    source = build_model(mobilenet(), 3)
    backbone = keras.Model(source.input, source.get_layer("out_relu").output)
    backbone.save_weights(str(tmp_path / "backbone.h5"))
    loaded = build_model(mobilenet(weights=str(tmp_path / "backbone.h5")), 2)
    for name in ("Conv1", "block_7_depthwise", "Conv_1_bn"):
        for expected, actual in zip(
            source.get_layer(name).get_weights(), loaded.get_layer(name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("kind", ["missing", "folder", "other width", "no weights", "other architecture"])
def test_weights_that_do_not_fit_are_refused_by_path(kind: str, tmp_path: Path) -> None:
    import tf_keras as keras

    path = tmp_path / "weights.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "other width":
        other = build_model(mobilenet(alpha=0.5), 2)
        keras.Model(other.input, other.get_layer("out_relu").output).save_weights(str(path))
    elif kind == "other architecture":
        image = keras.Input((32, 32, 3))
        keras.Model(image, keras.layers.Conv2D(4, 3)(image)).save_weights(str(path))
    elif kind == "no weights":
        path.write_bytes(b"not an HDF5 file")
    with pytest.raises(RecipeError) as info:
        build_model(mobilenet(weights=str(path)), 2)
    assert info.value.exit_code == 2
    assert str(path) in info.value.message
    assert "\n" not in str(info.value)


def test_input_range_is_that_of_the_imagenet_weights() -> None:
    from tensorflow.keras.applications import mobilenet_v2, vgg16

    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(1, 4, 4, 3) * 5
    expected = mobilenet_v2.preprocess_input(pixels.astype(np.float32))
    np.testing.assert_allclose(to_tensor(pixels, input_contract(mobilenet())), expected, atol=1e-6)
    contract = input_contract(ModelSettings(architecture="vgg16"))
    assert contract.channel_order == "bgr"
    expected = vgg16.preprocess_input(pixels.astype(np.float32))
    np.testing.assert_allclose(to_tensor(pixels[..., ::-1], contract), expected, atol=1e-4)


def test_download_that_fails_is_a_recipe_error_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import tf_keras as keras

    def refuse(**_: object) -> None:
        raise Exception("URL fetch failure on somewhere: None -- unreachable")

    monkeypatch.setattr(keras.applications, "MobileNetV2", refuse)
    with pytest.raises(RecipeError, match="URL fetch failure") as info:
        build_model(mobilenet(alpha=0.35, weights="imagenet"), 2)
    assert "--weights" in info.value.hint
