from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras as keras

from liteship.architectures import build_model
from liteship.compress.channels import ChannelGraph
from liteship.compress.filters import (
    check,
    choose,
    prune,
    remove,
    removed_ratio,
    training_batches,
)
from liteship.convert import convert, export
from liteship.errors import ConversionError, RecipeError, UsageError
from liteship.filter_ranks import FilterRank, read_ranks, write_ranks
from liteship.flatbuffer import inspect
from liteship.images import Images
from liteship.recipe import ConvertSettings, ModelSettings

L = keras.layers
CRITERIA = ("l1", "activation", "taylor")


def untrained(model: Any, number: int, channels: Any) -> None:
    """A fine-tuning that changes nothing."""


def randomize(model: Any, seed: int, shift: bool = True) -> Any:
    """Random weights; without shift a channel of zeros stays one through batch normalization and depthwise layers."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        # of a size that neither fades nor saturates, so that outputs tell weights apart
        weights = [random.normal(0, 1 / np.sqrt(np.prod(shape[:-1]) + 1), shape) for shape in shapes]
        if isinstance(layer, L.BatchNormalization):
            gamma, beta, mean, variance = weights
            weights = [np.abs(gamma), (np.abs(beta) + 1) * shift, mean * shift, np.abs(variance) + 0.5]
        if isinstance(layer, L.DepthwiseConv2D) and not shift:
            weights[1:] = [bias * 0 for bias in weights[1:]]
        layer.set_weights(weights)
    return model


def inverted(tensor: Any, name: str, width: int) -> Any:
    """Expand, depthwise, project, add: a block of MobileNetV2."""
    hidden = L.Conv2D(width, 1, use_bias=False, name=f"{name}_expand")(tensor)
    hidden = L.ReLU(6.0, name=f"{name}_relu")(L.BatchNormalization(name=f"{name}_norm")(hidden))
    hidden = L.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(hidden)
    hidden = L.Conv2D(tensor.shape[-1], 1, use_bias=False, name=f"{name}_project")(hidden)
    return L.Add(name=f"{name}_add")([tensor, L.BatchNormalization(name=f"{name}_project_norm")(hidden)])


def residual() -> Any:
    image = L.Input((16, 16, 3), name="image")
    trunk = L.Conv2D(16, 3, strides=2, padding="same", name="stem", activation="relu")(image)
    trunk = inverted(inverted(trunk, "one", 32), "two", 32)
    output = L.Dense(3, "softmax", name="head")(L.GlobalAveragePooling2D(name="pool")(trunk))
    return randomize(keras.Model(image, output), 0)


def stacked() -> Any:
    layers = [
        L.Rescaling((1.0, 0.5, 2.0), input_shape=(16, 16, 3), name="range"),
        L.Conv2D(16, 3, activation="relu", name="stem"),
        L.MaxPooling2D(name="pool"),
        L.Conv2D(32, 3, activation="relu", name="second"),
        L.Flatten(name="flat"),
        L.BatchNormalization(name="norm"),
        L.Dense(24, activation="relu", name="hidden"),
        L.Dropout(0.5, name="drop"),
        L.Dense(1, activation="sigmoid", name="head"),
    ]
    return randomize(keras.Sequential(layers), 0, shift=False)


def random_graph(seed: int) -> Any:
    """Layers of every followed class in a random order."""
    random = np.random.default_rng(seed)
    image = L.Input((16, 16, 3), name="image")
    hidden = L.Conv2D(int(random.integers(3, 20)), 3, padding="same")(L.Rescaling(0.5)(image))

    def widths() -> int:
        return int(random.integers(2, 24))

    def shortcut(tensor: Any) -> Any:
        branch = L.Conv2D(widths(), 3, padding="same", activation="relu")(tensor)
        return L.Add()([tensor, L.Conv2D(tensor.shape[-1], 1)(branch), L.Conv2D(tensor.shape[-1], 1)(tensor)])

    steps: list[Callable[[Any], Any]] = [
        shortcut,
        lambda t: shortcut(shortcut(t)),
        lambda t: L.Conv2D(widths(), 3, padding="same", dilation_rate=2)(t),
        lambda t: L.SeparableConv2D(widths(), 3, padding="same")(t),
        lambda t: L.DepthwiseConv2D(3, padding="same")(t),
        lambda t: L.Dense(widths(), "relu")(t),
        lambda t: L.Add()([L.BatchNormalization()(t), L.LeakyReLU(0.3)(t)]),
        lambda t: L.Activation("tanh")(L.ZeroPadding2D(1)(t)),
        lambda t: L.SpatialDropout2D(0.3)(L.AveragePooling2D(2, padding="same")(t)),
        lambda t: L.MaxPooling2D(2, padding="same")(t),
    ]
    for step in random.permutation(len(steps))[:6]:
        hidden = steps[step](hidden)
    ends: list[Callable[[Any], Any]] = [
        L.GlobalAveragePooling2D(),
        L.GlobalMaxPooling2D(),
        lambda t: L.Flatten()(L.Conv2D(5, 1)(L.GlobalAveragePooling2D(keepdims=True)(t))),
        lambda t: L.Dense(9, "relu")(L.BatchNormalization()(L.Flatten()(t))),
    ]
    output = L.Softmax()(L.Dense(3)(ends[seed % len(ends)](hidden)))
    return randomize(keras.Model(image, output), seed, shift=False)


def without_filters(model: Any, ranks: Sequence[FilterRank]) -> Any:
    """The model at its full size whose removed filters give zeros."""
    silent = keras.models.clone_model(model)
    silent.set_weights(model.get_weights())
    for rank in ranks:
        if not rank.kept:
            layer = silent.get_layer(rank.layer)
            for weight in layer.weights:
                if "depthwise" not in weight.name:
                    value = weight.numpy()
                    value[..., rank.index] = 0
                    weight.assign(value)
    return silent


def noise(model: Any, count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1, (count, *model.input_shape[1:])).astype(np.float32)


def batches(model: Any, count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    labels = np.arange(count) % max(2, model.output_shape[-1])
    tensor = noise(model, count)
    return [(tensor[: count // 2], labels[: count // 2]), (tensor[count // 2 :], labels[count // 2 :])]


def assert_same_outputs(model: Any, other: Any) -> None:
    tensor = noise(model)
    np.testing.assert_allclose(model(tensor).numpy(), other(tensor).numpy(), atol=1e-5)


def cost(model: Any) -> float:
    graph = ChannelGraph(model)
    return graph.multiply_adds().of(graph.counts)


def kept(ranks: Sequence[FilterRank], layer: str) -> list[int]:
    return [rank.index for rank in ranks if rank.layer == layer and rank.kept]


@pytest.mark.parametrize("seed", range(12))
def test_pruned_graph_computes_what_the_original_does_with_those_filters_at_zero(seed: int) -> None:
    model = random_graph(seed)
    ranks = choose(model, batches(model), CRITERIA[seed % 3], 0.4, "multiply_adds")
    smaller = remove(model, ranks)
    assert cost(smaller) <= 0.6 * cost(model)
    assert model(noise(model)).numpy().max() < 0.99  # a saturated softmax would hide a difference
    assert_same_outputs(smaller, without_filters(model, ranks))


@pytest.mark.parametrize("criterion", CRITERIA)
def test_filters_without_effect_go_first_and_the_outputs_stay(criterion: Any, tmp_path: Path) -> None:
    model = residual()
    silent = {"stem": (1, 2, 3, 5, 8, 13, 14, 15), "one_expand": range(16), "two_expand": range(7, 23)}
    tied = {
        "stem": ("one_project", "one_project_norm", "two_project", "two_project_norm"),
        "one_expand": ("one_norm",),
        "two_expand": ("two_norm",),
    }
    for maker, indices in silent.items():
        for name in (maker, *tied[maker]):
            layer = model.get_layer(name)
            is_norm = isinstance(layer, L.BatchNormalization)
            weights = layer.get_weights()
            for weight in weights[:3] if is_norm else weights:  # a variance of zero would divide by it
                weight[..., list(indices)] = 0
            layer.set_weights(weights)
    ranks = choose(model, batches(model), criterion, 0.5, "filters")
    smaller = remove(model, ranks)
    assert removed_ratio(ranks) == 0.5
    for maker, indices in silent.items():
        gone = {rank.index for rank in ranks if rank.layer == maker and not rank.kept}
        assert gone == set(indices), maker
    assert kept(ranks, "stem") == kept(ranks, "one_project") == kept(ranks, "two_project")
    assert [layer.name for layer in smaller.layers] == [layer.name for layer in model.layers]
    assert_same_outputs(smaller, model)
    smaller.save(tmp_path / "smaller.keras")
    assert_same_outputs(keras.models.load_model(tmp_path / "smaller.keras", compile=False), model)


def test_flattened_channels_take_their_columns_of_the_next_dense_layer_along() -> None:
    model = stacked()
    ranks = choose(model, [], "l1", 0.5, "filters")
    smaller = remove(model, ranks)
    assert 0 < len(kept(ranks, "second")) < 32
    columns = [position * 32 + channel for position in range(25) for channel in kept(ranks, "second")]
    expected = model.get_layer("hidden").kernel.numpy()[columns][:, kept(ranks, "hidden")]
    np.testing.assert_array_equal(smaller.get_layer("hidden").kernel.numpy(), expected)
    assert_same_outputs(smaller, without_filters(model, ranks))
    assert {rank.layer for rank in ranks} == {"stem", "second", "hidden"}


@pytest.mark.parametrize(("architecture", "share"), [("mobilenet_v2", 0.5), ("vgg16", 0.75)])
def test_share_of_multiply_adds_is_gone_from_the_converted_file(
    architecture: Any, share: float, two_classes: Images, tmp_path: Path
) -> None:
    width = {"alpha": 0.35} if architecture == "mobilenet_v2" else {}
    settings = ModelSettings.model_validate(
        {"architecture": architecture, "input": [32, 32], "weights": "none", **width}
    )
    model = build_model(settings, 2)
    smaller, ranks = prune(model, two_classes, share, "l1", "multiply_adds", 1, untrained)
    export(smaller, tmp_path / "saved")
    left = inspect(convert(tmp_path / "saved", "none", (), ConvertSettings()), "smaller").multiply_adds
    assert left == cost(smaller)
    assert 1 - left / cost(model) == pytest.approx(share, abs=0.03)
    before, after = ChannelGraph(model), ChannelGraph(smaller).counts
    assert all(count % 8 == 0 for count, whole in zip(after, before.counts) if whole >= 16)
    assert (after >= -(-before.counts // 8)).all()
    assert len(ranks) == sum(before.counts[node.after.group] for node in before.prunable())


@pytest.mark.parametrize("build", [residual, stacked])
def test_multiply_adds_are_those_of_the_converted_file(build: Callable[[], Any], tmp_path: Path) -> None:
    model = build()
    export(model, tmp_path / "saved")
    assert inspect(convert(tmp_path / "saved", "none", (), ConvertSettings()), "whole").multiply_adds == cost(model)


def normalized(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values)


def scores(model: Any, criterion: Any, layer: str) -> np.ndarray:
    ranks = choose(model, batches(model), criterion, 0.3, "filters")
    return np.array([rank.score for rank in ranks if rank.layer == layer])


def test_l1_score_sums_the_kernels_of_tied_filters() -> None:
    model = residual()
    names = ("stem", "one_project", "two_project")
    sums = sum(np.abs(model.get_layer(name).kernel.numpy()).sum(axis=(0, 1, 2)) for name in names)
    np.testing.assert_allclose(scores(model, "l1", "stem"), normalized(sums), rtol=1e-5)


def test_activation_score_is_measured_after_normalization_and_activation() -> None:
    model = residual()
    after = keras.Model(model.input, model.get_layer("one_relu").output)
    tensor = np.concatenate([tensor for tensor, _ in batches(model)])
    expected = np.abs(after(tensor).numpy()).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(scores(model, "activation", "one_expand"), normalized(expected), rtol=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_taylor_score_is_the_change_of_loss_when_a_channel_fades(frozen: bool) -> None:
    model = stacked()
    model.trainable = not frozen
    weights = model.get_weights()
    model = keras.models.clone_model(model)
    model.set_weights(weights)
    head = model.get_layer("head")
    kernel = head.kernel.numpy()
    (tensor, labels), *rest = batches(model)
    tensor, labels = np.concatenate([tensor, rest[0][0]]), np.concatenate([labels, rest[0][1]])

    def losses(unit: int, change: float) -> np.ndarray:
        faded = kernel.copy()
        faded[unit] *= 1 + change
        head.kernel.assign(faded)
        share = np.clip(model(tensor).numpy()[:, 0].astype(np.float64), 1e-7, 1 - 1e-7)
        head.kernel.assign(kernel)
        return -np.log(np.where(labels == 1, share, 1 - share))

    expected = [np.abs(losses(unit, 0.01) - losses(unit, -0.01)).mean() for unit in range(24)]
    np.testing.assert_allclose(scores(model, "taylor", "hidden"), normalized(np.array(expected)), atol=0.01)


def test_rounds_approach_the_share_in_equal_steps_and_count_filters_by_the_original(two_classes: Images) -> None:
    model = build_small()
    seen: list[tuple[int, float]] = []

    def tune(smaller: Any, number: int, channels: Any) -> None:
        seen.append((number, 1 - cost(smaller) / cost(model)))

    smaller, ranks = prune(model, two_classes, 0.6, "taylor", "multiply_adds", 3, tune)
    assert [number for number, _ in seen] == [1, 2, 3]
    assert [share for _, share in seen] == pytest.approx([0.2, 0.4, 0.6], abs=0.03)
    for name in ("stem", "second"):
        layer = smaller.get_layer(name)
        assert layer.filters == len(kept(ranks, name))
        np.testing.assert_array_equal(layer.bias.numpy(), model.get_layer(name).bias.numpy()[kept(ranks, name)])
    places = [(rank.layer, rank.index) for rank in ranks]
    assert places == [(name, i) for name, count in (("stem", 40), ("second", 48)) for i in range(count)]


def build_small() -> Any:
    image = L.Input((32, 32, 3))
    hidden = L.Conv2D(48, 3, name="second", activation="relu")(L.Conv2D(40, 3, strides=4, name="stem")(image))
    output = L.Dense(1, "sigmoid", name="head")(L.GlobalAveragePooling2D()(hidden))
    return randomize(keras.Model(image, output), 0)


def test_model_that_fine_tuning_returns_is_the_one_that_goes_on(two_classes: Images) -> None:
    returned: list[Any] = []

    def tune(smaller: Any, number: int, channels: Any) -> Any:
        returned.append(keras.models.clone_model(smaller))
        return returned[-1]

    smaller, _ = prune(build_small(), two_classes, 0.4, "l1", "filters", 2, tune)
    assert smaller is returned[1]


def test_same_seed_chooses_the_same_images(two_classes: Images) -> None:
    many = np.random.default_rng(0).integers(0, 255, (300, 32, 32, 3), np.uint8)
    images = replace(two_classes, train=many, train_labels=np.arange(300))
    first, again, other = (np.concatenate([labels for _, labels in training_batches(images, s)]) for s in (0, 0, 1))
    assert len(set(first)) == 256
    assert (first == again).all()
    assert (first != other).any()


def test_share_that_empties_layers_is_refused_before_training(two_classes: Images) -> None:
    tuned: list[int] = []
    with pytest.raises(RecipeError, match=r"leaves every layer an eighth.* Received: 0\.99"):
        prune(
            build_small(),
            two_classes,
            0.99,
            "l1",
            "multiply_adds",
            2,
            lambda model, number, channels: tuned.append(number),
        )
    assert not tuned


def test_weights_that_are_not_numbers_are_refused() -> None:
    model = build_small()
    model.get_layer("second").bias.assign(np.full(48, np.nan))
    with pytest.raises(ConversionError, match=r"finite .*second.* NaN"):
        choose(model, batches(model), "activation", 0.5, "filters")


def test_ranks_are_written_as_csv(tmp_path: Path) -> None:
    ranks = [FilterRank("stem", 0, "l1", 0.25, True), FilterRank("stem", 1, "l1", 0.125, False)]
    write_ranks(ranks, tmp_path / "ranks.csv")
    with open(tmp_path / "ranks.csv", newline="") as file:
        lines = list(csv.reader(file))
    assert lines == [
        ["layer", "index", "criterion", "score", "kept"],
        ["stem", "0", "l1", "0.25", "true"],
        ["stem", "1", "l1", "0.125", "false"],
    ]
    assert removed_ratio(ranks) == 0.5
    assert read_ranks(tmp_path / "ranks.csv") == ranks


@pytest.mark.parametrize(
    "content", [None, "layer,index\nstem,0\n", "layer,index,criterion,score,kept\nstem,0,l1,0.5,yes\n"]
)
def test_damaged_table_of_ranks_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "ranks.csv").write_text(content)
    with pytest.raises(UsageError, match=r"ranks\.csv: a table of filter ranks is required"):
        read_ranks(tmp_path / "ranks.csv")


def test_model_that_cannot_be_pruned_so_far_is_found_out_before_training() -> None:
    check(residual(), 0.8, "multiply_adds")
    with pytest.raises(RecipeError, match="an eighth"):
        check(residual(), 0.99, "filters")
    with pytest.raises(ConversionError, match="odd"):
        check(REFUSED[r"odd \(Lambda\)"](), 0.5, "filters")


def test_fine_tuning_learns_which_channels_of_the_original_are_left(two_classes: Images) -> None:
    image = L.Input((32, 32, 3))
    hidden = L.Conv2D(40, 3, strides=4, activation="relu", name="stem")(image)
    hidden = L.MaxPooling2D(name="pool")(L.BatchNormalization(name="norm")(hidden))
    flat = L.Flatten(name="flat")(L.GlobalAveragePooling2D(keepdims=True)(hidden))
    model = randomize(keras.Model(image, L.Dense(1, "sigmoid", name="head")(flat)), 0, shift=False)
    first = keras.Model(model.input, [model.get_layer(name).output for name in ("stem", "norm", "pool", "flat")])
    rounds: list[int] = []

    def tune(smaller: Any, number: int, channels: Any) -> None:
        rounds.append(len(channels["stem"]))
        features = keras.Model(smaller.input, [smaller.get_layer(layer.name).output for layer in first.layers[1:4]])
        for layer, feature, whole in zip(first.layers[1:4], features(noise(model)), first(noise(model))):
            np.testing.assert_allclose(feature, whole.numpy()[..., channels[layer.name]], atol=1e-5)
        assert list(channels["flat"]) == list(channels["pool"])
        assert list(channels["head"]) == [0]

    prune(model, two_classes, 0.6, "activation", "filters", 2, tune)
    assert rounds == [28, 16]  # a block of eight is too much for the first step of 12 filters


class Own(L.Layer):
    """A layer of the user's; it has no configuration."""

    def __init__(self, scale: float, **settings: Any) -> None:
        super().__init__(**settings)
        self.scale = scale

    def call(self, tensor: Any) -> Any:
        return tensor * self.scale


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.head = L.Dense(1)

    def call(self, tensor: Any) -> Any:
        return self.head(tensor)


def around(build: Callable[[Any], Any], size: int | None = 8) -> Any:
    """A network of which one part is not to be followed."""
    image = L.Input((size, size, 4), name="image")
    hidden = build(L.Conv2D(4, 3, padding="same", name="stem")(image))
    return keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(hidden)))


def twice(tensor: Any) -> Any:
    layer = L.Conv2D(4, 1, name="shared")
    return layer(layer(tensor))


def nested(tensor: Any) -> Any:
    return keras.Sequential([L.Conv2D(4, 1, input_shape=(8, 8, 4))], name="inner")(tensor)


def two_inputs() -> Any:
    one, two = L.Input((8, 8, 3), name="one"), L.Input((8, 8, 3), name="two")
    return keras.Model([one, two], L.Dense(2)(L.Flatten()(L.Add()([one, two]))), name="pair")


def two_outputs() -> Any:
    image = L.Input((8, 8, 3))
    hidden = L.Flatten()(image)
    return keras.Model(image, [L.Dense(2, name="left")(hidden), L.Dense(2, name="right")(hidden)], name="pair")


def pruned_wrapper() -> Any:
    import tensorflow_model_optimization as tfmot

    return tfmot.sparsity.keras.prune_low_magnitude(around(lambda t: t))


REFUSED: dict[str, Callable[[], Any]] = {
    r"odd \(Lambda\)": lambda: around(L.Lambda(lambda t: t * 2, name="odd")),
    r"odd \(Own\)": lambda: around(Own(2.0, name="odd")),
    r"multiply \(TFOpLambda\)": lambda: around(lambda t: t * 2),
    r"odd \(Concatenate\)": lambda: around(lambda t: L.Concatenate(name="odd")([t, t])),
    r"odd \(Conv2D with groups 2\)": lambda: around(L.Conv2D(4, 1, groups=2, name="odd")),
    r"odd \(DepthwiseConv2D with depth_multiplier 2\)": lambda: around(
        L.DepthwiseConv2D(3, depth_multiplier=2, name="odd")
    ),
    r"odd \(MaxPooling2D with data_format channels_first\)": lambda: around(
        L.MaxPooling2D(1, data_format="channels_first", name="odd")
    ),
    r"odd \(BatchNormalization over axis \[1\]\)": lambda: around(L.BatchNormalization(axis=1, name="odd")),
    r"odd \(Rescaling after the first convolution\)": lambda: around(L.Rescaling(2.0, name="odd")),
    r"equal channels are required\. Received: odd": lambda: around(lambda t: L.Add(name="odd")([t, L.Conv2D(1, 1)(t)])),
    r"shared \(Conv2D called 2 times\)": lambda: around(twice),
    r"inner \(Sequential\)": lambda: around(nested),
    r"pair \(2 inputs: one, two\)": two_inputs,
    r"pair \(2 outputs: left, right\)": two_outputs,
    r"\(an input of no fixed size": lambda: around(lambda t: t, size=None),
    r"subclassed \(Subclassed, not a functional model\)": Subclassed,
    r"prune_low_magnitude_stem \(PruneLowMagnitude\)": pruned_wrapper,
}


@pytest.mark.parametrize("received", REFUSED)
def test_graph_that_cannot_be_followed_is_refused_by_name(received: str) -> None:
    with pytest.raises(ConversionError, match=f"filters: .*{received}") as caught:
        choose(REFUSED[received](), [], "l1", 0.5, "filters")
    assert caught.value.hint


def test_activation_of_the_users_own_is_refused_when_the_model_is_rebuilt() -> None:
    def swish_of_mine(tensor: Any) -> Any:
        return tensor * keras.backend.sigmoid(tensor)

    model = around(L.Activation(swish_of_mine, name="odd"))
    with pytest.raises(ConversionError, match="swish_of_mine"):
        remove(model, choose(model, [], "l1", 0.2, "filters"))


def test_model_whose_only_layer_is_its_output_has_nothing_to_prune() -> None:
    image = L.Input((8, 8, 3))
    with pytest.raises(RecipeError, match=r"Received: 0\.5"):
        choose(keras.Model(image, L.Dense(2)(L.Flatten()(image))), [], "l1", 0.5, "filters")


def test_wide_layer_is_not_emptied_to_its_floor_while_narrow_ones_are_whole() -> None:
    """A wide layer's channels share its norm among many, until it is as narrow as the others."""
    image = hidden = L.Input((16, 16, 3))
    for width in (64, 256, 72):
        hidden = L.Conv2D(width, 3, padding="same", activation="relu", name=f"of_{width}")(hidden)
    model = randomize(keras.Model(image, L.Dense(2)(L.GlobalAveragePooling2D()(hidden))), 0)
    ranks = choose(model, [], "l1", 0.6, "filters")
    left = {width: len(kept(ranks, f"of_{width}")) for width in (64, 256, 72)}
    assert left[64] < 64
    assert left[72] < 72
    assert left[256] > 256 // 8
    assert removed_ratio(ranks) == pytest.approx(0.6, abs=0.03)
