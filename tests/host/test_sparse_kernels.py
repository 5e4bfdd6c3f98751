"""These verdicts are what LiteRT 2.3 did on an emulated aarch64 machine: eligible files ran 4 to 8 times as fast as
their dense twins there, the others ran dense, gave wrong values (MAX_POOL_2D) or did not load (a head kept 4-D)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from liteship.flatbuffer import Inspection, inspect, sparse_verdict

HOLDS_FOR = "ai-edge-litert 2.3 on aarch64"


def network(
    *,
    padding: str = "symmetric",
    stem_stride: int = 2,
    keep: bool = True,
    head: str = "flat",
    kernel: int = 3,
    inside: Callable[[Any], Any] | None = None,
    pool: bool = True,
) -> Any:
    """3x3 of stride 2, then depthwise and 1x1 convolutions with a residual addition, MEAN and a dense head."""
    import tf_keras as keras

    keras.backend.clear_session()  # names of layers that have none count up over a process otherwise
    layers = keras.layers

    def convolve(tensor: Any, layer: Any) -> Any:
        """A layer padded by its own or by a layer before it."""
        if padding == "symmetric":
            tensor = layers.ZeroPadding2D(layer.kernel_size[0] // 2)(tensor)
        return layers.ReLU(6.0)(layer(tensor))

    mode = "same" if padding == "same" else "valid"
    image = keras.Input((32, 32, 3))
    hidden = convolve(image, layers.Conv2D(16, 3, stem_stride, mode, name="stem"))
    for stride in (1, 2):
        hidden = convolve(hidden, layers.DepthwiseConv2D(kernel, stride, mode, name=f"depthwise{stride}"))
        hidden = layers.ReLU(6.0)(layers.Conv2D(64, 1, name=f"expand{stride}")(hidden))
        if inside is not None:
            hidden = inside(hidden)
        hidden = layers.Add()([hidden, layers.Conv2D(64, 1, name=f"side{stride}")(hidden)])
    if pool:
        hidden = layers.GlobalAveragePooling2D(keepdims=keep)(hidden)
    hidden = hidden if head == "kept" else layers.Flatten()(hidden)
    return keras.Model(image, layers.Dense(3, name="head")(hidden))


def gate(hidden: Any) -> Any:
    """Squeeze and excitation."""
    from tf_keras import layers

    pooled = layers.GlobalAveragePooling2D(keepdims=True)(hidden)
    return layers.Multiply()([hidden, layers.Conv2D(64, 1, activation="sigmoid")(pooled)])


def shrink(hidden: Any) -> Any:
    from tf_keras import layers

    return layers.MaxPooling2D(2)(hidden)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Inspection]:
    """Inspects a network whose 1x1 kernels have zeros at random, as the converter stores it."""
    import tensorflow as tf

    from liteship.convert import export

    folder = tmp_path_factory.mktemp("saved")

    def judge(model: Any, zeros: float = 0.8, types: list[Any] | None = None, store_sparse: bool = True) -> Inspection:
        random = np.random.default_rng(0)
        for layer in model.layers:
            if getattr(layer, "kernel_size", None) == (1, 1):
                kernel, *rest = layer.get_weights()
                layer.set_weights([kernel * (random.random(kernel.shape) >= zeros), *rest])
        export(model, folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY] if store_sparse else []
        if types is not None:
            converter.optimizations.append(tf.lite.Optimize.DEFAULT)
            converter.target_spec.supported_types = types
        return inspect(converter.convert(), "network")

    return judge


@pytest.mark.parametrize(
    "options",
    [{}, {"keep": False}, {"kernel": 5}, {"inside": gate}],
    ids=["plain", "flat mean", "5x5", "gated"],
)
def test_network_of_symmetric_padding_and_mostly_zeros_is_eligible(
    options: dict[str, Any], judged: Callable[..., Inspection]
) -> None:
    inspection = judged(network(**options))
    verdict = sparse_verdict(inspection)
    assert (verdict.eligible, verdict.layer, verdict.holds_for) == (True, None, HOLDS_FOR)
    assert "% of the 1x1 weights are zero; x86 and tflite-runtime 2.14 run the file dense" in verdict.reason
    assert inspection.stored_sparse
    pointwise = [layer for layer in inspection.layers if "expand" in layer.name or "side" in layer.name]
    assert len(pointwise) == 4
    assert all(layer.zeros / layer.weights == pytest.approx(0.8, abs=0.06) for layer in pointwise)


def test_sparse_float16_kernels_are_eligible(judged: Callable[..., Inspection]) -> None:
    import tensorflow as tf

    inspection = judged(network(), types=[tf.float16])
    assert (inspection.stored_sparse, inspection.quantization) == (True, "float16 weights")
    assert sparse_verdict(inspection).eligible


@pytest.mark.parametrize(
    ("options", "layer", "rule"),
    [
        ({"padding": "same"}, "stem/Conv2D", "it is 3x3, stride 2x2, padding SAME, 3 channels"),
        ({"stem_stride": 1}, "stem/Conv2D", "it is 3x3, stride 1x1, padding 1, 3 channels"),
        ({"padding": "none"}, "stem/Conv2D", "it is 3x3, stride 2x2, padding 0, 3 channels"),
        ({"kernel": 7}, "depthwise1/depthwise", "it is 7x7, stride 1x1, padding 3, 16 channels"),
        ({"inside": shrink}, "max_pooling2d/MaxPool", "MAX_POOL_2D is not among the operators of the sparse part"),
        ({"head": "kept"}, "head/Tensordot/MatMul", "reshape before this layer, else LiteRT refuses the file"),
        ({"pool": False}, "flatten", "RESHAPE is not among the operators of the sparse part"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_first_layer_that_breaks_a_rule_is_named(
    options: dict[str, Any], layer: str, rule: str, judged: Callable[..., Inspection]
) -> None:
    verdict = sparse_verdict(judged(network(**options)))
    assert not verdict.eligible
    assert layer in str(verdict.layer)
    assert rule in verdict.reason
    assert verdict.holds_for == HOLDS_FOR


def test_integer_kernels_among_sparse_ones_are_named(judged: Callable[..., Inspection]) -> None:
    inspection = judged(network(), types=[])
    verdict = sparse_verdict(inspection)
    assert inspection.quantization == "dynamic range"
    assert (verdict.eligible, verdict.reason) == (False, "only float kernels are taken; this layer has int8")
    assert "expand" in str(verdict.layer) or "side" in str(verdict.layer)


def test_zeros_up_to_two_thirds_are_too_few(judged: Callable[..., Inspection]) -> None:
    verdict = sparse_verdict(judged(network(), zeros=0.5))
    assert (verdict.eligible, verdict.layer) == (False, None)
    assert verdict.reason.endswith("% of the 1x1 weights are zero; more than two thirds must be")


def test_zeros_that_are_stored_dense_are_not_eligible(judged: Callable[..., Inspection]) -> None:
    verdict = sparse_verdict(judged(network(), store_sparse=False))
    assert (verdict.eligible, verdict.layer, verdict.reason) == (False, None, "kernels are stored dense")
