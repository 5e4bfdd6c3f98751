from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship import train
from liteship.architectures import batch_norm_layers, build_model
from liteship.compress import magnitude
from liteship.compress.magnitude import layer_sparsities, prune, wrap, zero_weights
from liteship.errors import ConversionError, RecipeError
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import CompressSettings, ModelSettings, PlateauSettings
from liteship.train import Fit, FitState, make_deterministic

PRUNABLE = ("first", "pointwise", "head")
WEIGHTS = {"first": 3 * 3 * 3 * 16, "pointwise": 16 * 80, "head": 80}


def plan(epochs: int, batch_size: int = 4) -> Fit:
    return Fit("magnitude", epochs, batch_size, "adam", 0.002, "cosine", PlateauSettings(), ("crop",), seed=3)


def settings(**changes: Any) -> CompressSettings:
    return CompressSettings(**{"pruning": "magnitude", "sparsity": (0.5,), "quantization": ("none",), **changes})


def zero_ratio(model: Any, name: str) -> float:
    return float(np.mean(model.get_layer(name).kernel.numpy() == 0))


def whole_sparsity(model: Any) -> float:
    return zero_weights(model) / sum(WEIGHTS.values())


@pytest.fixture(scope="module")
def baseline(small_network: Callable[..., Any]) -> Any:
    make_deterministic(0)
    return small_network()


@pytest.fixture(scope="module")
def sparse_network() -> Any:
    """MobileNetV2 as sparse kernels want it, narrow."""
    return build_model(ModelSettings(architecture="mobilenet_v2_sparse", alpha=0.35, input=(32, 32)), 2)


# --- what pruning does ---


def test_every_prunable_kernel_reaches_the_final_sparsity(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter
) -> None:
    import tf_keras as keras

    before = [weight.copy() for weight in baseline.get_weights()]
    model, history = prune(baseline, two_classes, settings(), 0.75, plan(3), tmp_path, say)
    assert len(history) == 3
    for name in PRUNABLE:
        assert zero_ratio(model, name) == pytest.approx(0.75, abs=0.01), name
    assert np.count_nonzero(model.get_layer("depthwise").get_weights()[0] == 0) == 0
    assert whole_sparsity(model) == pytest.approx(0.75, abs=0.01)
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in baseline.layers]
    assert isinstance(model.get_layer("head"), keras.layers.Dense)
    assert model.count_params() == baseline.count_params()
    assert all(np.array_equal(one, two) for one, two in zip(baseline.get_weights(), before, strict=True))


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 24), (1, 12)])
def test_few_steps_are_enough(
    epochs: int, batch_size: int, baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter
) -> None:
    model, _ = prune(baseline, two_classes, settings(), 0.5, plan(epochs, batch_size), tmp_path, say)
    assert whole_sparsity(model) == pytest.approx(0.5, abs=0.01)


def test_layers_get_the_sparsity_of_their_own(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter
) -> None:
    wanted = settings(layers={"first": 0.25, "point*": 0.75}, spare=("last",))
    model, _ = prune(baseline, two_classes, wanted, 0.5, plan(1, 12), tmp_path, say)
    assert zero_ratio(model, "first") == pytest.approx(0.25, abs=0.01)
    assert zero_ratio(model, "pointwise") == pytest.approx(0.75, abs=0.01)
    assert zero_ratio(model, "head") == 0


@pytest.mark.parametrize(("ramp", "first_step"), [("polynomial", 0.8 - 0.48 * (1 - 1 / 4) ** 3), ("constant", 0.8)])
def test_ramp_rises_from_less_or_is_constant_from_the_first_step(
    ramp: Any, first_step: float, baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter, monkeypatch: Any
) -> None:
    import tf_keras as keras

    seen: list[float] = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            (wrapped,) = [layer for layer in self.model.layers if layer.name.endswith("pointwise")]
            mask = next(variable for variable in wrapped.variables if "mask" in variable.name)
            seen.append(1 - float(np.mean(mask.numpy())))

    original = magnitude.fit

    def watched(model: Any, images: Any, plan: Any, folder: Any, say: Any, callbacks: Any, teacher: Any) -> Any:
        return original(model, images, plan, folder, say, [*callbacks, Watch()], teacher)

    monkeypatch.setattr(magnitude, "fit", watched)
    prune(baseline, two_classes, settings(ramp=ramp), 0.8, plan(1), tmp_path, say)
    assert len(seen) == 6
    assert seen[0] == pytest.approx(first_step, abs=0.01)
    assert seen == sorted(seen)
    assert seen[4:] == pytest.approx([0.8, 0.8], abs=0.01)


@pytest.mark.parametrize("batch_norm", ["frozen", "train"])
def test_statistics_stay_where_the_recipe_freezes_them(
    batch_norm: Any, baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter
) -> None:
    model, _ = prune(baseline, two_classes, settings(batch_norm=batch_norm), 0.5, plan(1, 12), tmp_path, say)
    pairs = zip(model.get_layer("norm").get_weights(), baseline.get_layer("norm").get_weights(), strict=True)
    assert all(np.array_equal(one, two) for one, two in pairs) == (batch_norm == "frozen")


def test_features_of_the_unpruned_model_are_learned_where_the_recipe_says_so(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, teachers = magnitude.fit, []

    def watched(*arguments: Any) -> Any:
        teachers.append(arguments[-1])
        return original(*arguments)

    monkeypatch.setattr(magnitude, "fit", watched)
    model, history = prune(baseline, two_classes, settings(distill=2.0), 0.5, plan(1, 12), tmp_path, say)
    assert whole_sparsity(model) == pytest.approx(0.5, abs=0.01)
    assert model.output_shape == baseline.output_shape
    assert len(history) == 1
    (teacher,) = teachers
    assert (teacher.weight, teacher.names) == (2.0, ["pool"])


def test_best_epoch_is_one_at_the_final_sparsity(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([1.0, 0.2, 0.9, 0.3])
    monkeypatch.setattr(train, "validation_accuracy", lambda model, images: next(answers))
    model, history = prune(baseline, two_classes, settings(), 0.75, plan(4), tmp_path, say)
    assert [record["validation_accuracy"] for record in history] == [1.0, 0.2, 0.9, 0.3]
    assert whole_sparsity(model) == pytest.approx(0.75, abs=0.01)


def test_interrupted_pruning_goes_on_to_the_same_weights(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, history = prune(baseline, two_classes, settings(), 0.5, plan(3), tmp_path / "whole", say)

    def interrupt(say: Reporter, plan: Fit, state: FitState) -> None:
        if state.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_say_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prune(baseline, two_classes, settings(), 0.5, plan(3), tmp_path / "cut", say)
    resumed, same_history = prune(baseline, two_classes, settings(), 0.5, plan(3), tmp_path / "cut", say)
    assert same_history == history
    assert all(np.array_equal(one, two) for one, two in zip(resumed.get_weights(), whole.get_weights(), strict=True))


# --- which layers ---


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (0.5, 0.5, 0.5)),
        ({"spare": ("first",)}, (0.0, 0.5, 0.5)),
        ({"spare": ("first", "last")}, (0.0, 0.5, 0.0)),
        ({"layers": {"head": 0.9}}, (0.5, 0.5, 0.9)),
        ({"layers": {"*": 0.1, "*i*": 0.2, "pointwise": 0.3}}, (0.2, 0.3, 0.1)),
        ({"layers": {"pointwise": 0.3, "*i*": 0.2, "*": 0.1}}, (0.1, 0.1, 0.1)),
        ({"layers": {"h*": 0.9}, "spare": ("last",)}, (0.5, 0.5, 0.9)),
    ],
)
def test_last_matching_pattern_counts(changes: dict[str, Any], expected: tuple[float, ...], baseline: Any) -> None:
    assert layer_sparsities(baseline, settings(**changes), 0.5) == dict(zip(PRUNABLE, expected, strict=True))


@pytest.mark.parametrize("pattern", ["depthwise", "block_*", "HEAD"])
def test_pattern_that_matches_no_prunable_layer_is_refused_by_name(pattern: str, baseline: Any) -> None:
    with pytest.raises(RecipeError) as info:
        layer_sparsities(baseline, settings(layers={"head": 0.5, pattern: 0.9}), 0.5)
    assert f"Received: {pattern}." in info.value.message
    assert info.value.hint == "Layers: first, pointwise, head."


def test_latency_prunes_1x1_convolutions_only(sparse_network: Any) -> None:
    latency = settings(pruning="latency", spare=("last",), layers={"block_1_*": 0.9})
    targets = layer_sparsities(sparse_network, latency, 0.75)
    kinds = {type(sparse_network.get_layer(name)).__name__ for name in targets}
    shapes = {sparse_network.get_layer(name).kernel_size for name in targets}
    assert (kinds, shapes, len(targets)) == ({"Conv2D"}, {(1, 1)}, 34)
    assert {"Conv1", "head"} & set(targets) == set()
    assert [targets[name] for name in ("block_1_expand", "block_2_expand", "Conv_1")] == [0.9, 0.75, 0.0]
    with pytest.raises(RecipeError, match=r"Received: head\."):
        layer_sparsities(sparse_network, settings(pruning="latency", layers={"head": 0.9}), 0.75)


def test_latency_refuses_a_network_that_sparse_kernels_do_not_run(baseline: Any) -> None:
    with pytest.raises(RecipeError, match=r"XNNPACK's sparse kernels run is required\. Received: small: ") as info:
        layer_sparsities(baseline, settings(pruning="latency"), 0.75)
    assert "mobilenet_v2_sparse" in info.value.hint
    assert "\n" not in str(info.value)


# --- masks ---


@pytest.mark.parametrize(
    ("model", "parameters", "with_masks", "batch_norms"),
    [
        (ModelSettings(architecture="mobilenet_v2", input=(96, 96)), 2_259_265, 4_386_272, 52),
        (ModelSettings(architecture="vgg16", input=(112, 112)), 14_715_201, 29_426_211, 0),
    ],
    ids=["mobilenet_v2", "vgg16"],
)
def test_masks_count_as_published(model: ModelSettings, parameters: int, with_masks: int, batch_norms: int) -> None:
    import tensorflow_model_optimization as tfmot

    network = build_model(model, 2)
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0)
    wrapped = wrap(network, dict.fromkeys(layer_sparsities(network, settings(), 0.5), schedule))
    assert (network.count_params(), wrapped.count_params()) == (parameters, with_masks)
    assert len(batch_norm_layers(wrapped)) == len(batch_norm_layers(network)) == batch_norms


def test_spared_layer_has_no_mask_and_weights_are_copied(baseline: Any) -> None:
    import tensorflow_model_optimization as tfmot

    wrapped = wrap(baseline, {"first": None, "pointwise": tfmot.sparsity.keras.ConstantSparsity(0.5, 0)})
    assert type(wrapped.get_layer("first")).__name__ == "Conv2D"
    layers = {getattr(layer, "layer", layer).name: getattr(layer, "layer", layer) for layer in wrapped.layers}
    for source in baseline.layers:
        for variable, value in zip(layers[source.name].weights, source.get_weights()):
            np.testing.assert_array_equal(variable.numpy(), value)


def test_layer_that_pruning_does_not_know_is_refused_by_name() -> None:
    import tf_keras as keras

    class Scale(keras.layers.Layer):
        def build(self, shape: Any) -> None:
            self.factor = self.add_weight("factor", (shape[-1],))
            super().build(shape)

        def call(self, inputs: Any) -> Any:
            return inputs * self.factor

    image = keras.Input((32, 32, 3))
    hidden = Scale(name="my_scale")(keras.layers.Conv2D(4, 3)(image))
    model = keras.Model(image, keras.layers.Dense(1)(keras.layers.Flatten()(hidden)))
    with pytest.raises(ConversionError, match=r"Layers that pruning knows are required. Received: my_scale \(Scale\)"):
        wrap(model, {})


def test_layer_without_weights_that_pruning_does_not_know_is_left_as_it_is() -> None:
    import tf_keras as keras

    class Double(keras.layers.Layer):
        def call(self, inputs: Any) -> Any:
            return 2 * inputs

    image = keras.Input((4,))
    model = keras.Model(image, keras.layers.Dense(1)(Double(name="double")(image)))
    assert type(wrap(model, {}).get_layer("double")) is Double
