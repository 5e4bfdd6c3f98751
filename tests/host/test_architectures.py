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


@pytest.fixture(scope="module")
def stock_and_sparse() -> tuple[Any, Any]:
    """MobileNetV2 as Keras has it, with random statistics, and its weights in the network of sparse kernels."""
    names, size = ("mobilenet_v2", "mobilenet_v2_sparse"), (65, 33)
    stock, sparse = (build_model(mobilenet(architecture=name, input=size), 3) for name in names)
    random = np.random.default_rng(0)
    for layer in batch_norm_layers(stock):
        shape = layer.gamma.shape
        ranges = ((0.5, 1.5), (-0.5, 0.5), (-0.1, 0.1), (0.01, 0.03))  # variances as small as those of new kernels
        layer.set_weights([random.uniform(*ends, shape) for ends in ranges])
    sparse.set_weights(stock.get_weights())
    return stock, sparse


def test_mobilenet_has_the_published_number_of_parameters() -> None:
    model = build_model(mobilenet(alpha=1.0, input=(96, 96)), 2)
    assert model.count_params() == 2_259_265
    assert trainable(model) == 2_225_153
    assert len(batch_norm_layers(model)) == 52


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


# --- the network of sparse kernels ---


def test_sparse_network_loads_a_file_of_the_stock_one(tmp_path: Path) -> None:
    import tf_keras as keras

    source = build_model(mobilenet(), 2)
    keras.Model(source.input, source.get_layer("out_relu").output).save_weights(str(tmp_path / "backbone.h5"))
    settings = mobilenet(architecture="mobilenet_v2_sparse", weights=str(tmp_path / "backbone.h5"))
    loaded = build_model(settings, 2)
    assert loaded.name == "mobilenet_v2_sparse"
    assert loaded.count_params() == source.count_params()
    for name in ("Conv1", "block_1_depthwise", "block_7_project", "Conv_1_bn"):
        pairs = zip(source.get_layer(name).get_weights(), loaded.get_layer(name).get_weights(), strict=True)
        assert all(np.array_equal(one, other) for one, other in pairs)


def test_sparse_network_pads_every_strided_convolution_by_one_on_each_side(stock_and_sparse: tuple[Any, Any]) -> None:
    import tf_keras as keras

    stock, sparse = stock_and_sparse
    strided = [layer for layer in sparse.layers if getattr(layer, "strides", None) == (2, 2)]
    assert len(strided) == len([layer for layer in stock.layers if getattr(layer, "strides", None) == (2, 2)]) == 5
    for layer in strided:
        padding = layer.input._keras_history.layer
        assert isinstance(padding, keras.layers.ZeroPadding2D)
        assert (padding.padding, layer.padding) == (((1, 1), (1, 1)), "valid")
    others = [layer for layer in sparse.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
    assert len(others) == len(strided)


def test_sparse_network_keeps_the_pooled_output_4d(stock_and_sparse: tuple[Any, Any]) -> None:
    stock, sparse = stock_and_sparse
    assert sparse.output_shape == stock.output_shape == (None, 3)
    assert sparse.get_layer("out_relu").output_shape == stock.get_layer("out_relu").output_shape
    assert sparse.get_layer("pool").output_shape == (None, 1, 1, 1280)
    assert {layer.momentum for layer in batch_norm_layers(sparse)} == {0.9}


def test_sparse_network_says_what_the_stock_one_says_where_that_pads_symmetrically(
    stock_and_sparse: tuple[Any, Any],
) -> None:
    """Of odd sizes (65, 33, 17, 9, 5, 3) Keras too pads both sides by one."""
    images = np.random.default_rng(1).uniform(-1, 1, (4, 65, 33, 3)).astype(np.float32)
    found, expected = (model.predict(images, verbose=0) for model in stock_and_sparse)
    assert np.ptp(expected, axis=0).max() > 1e-3  # they are not all alike
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_sparse_network_is_accepted_for_latency_and_the_stock_one_is_not(stock_and_sparse: tuple[Any, Any]) -> None:
    import tensorflow_model_optimization as tfmot

    stock, sparse = stock_and_sparse
    policy = tfmot.sparsity.keras.PruneForLatencyOnXNNPack()
    policy.ensure_model_supports_pruning(sparse)
    with pytest.raises(ValueError, match="stride 2x2"):
        policy.ensure_model_supports_pruning(stock)
