from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from liteship.data import Dataset, find_images
from liteship.errors import ConversionError, RecipeError
from liteship.own.contracts import _RANGES, find_contracts, relabel
from liteship.own.model import OwnModel, open_model
from liteship_agent.manifest import InputContract
from liteship_agent.preprocess import to_tensor
from tflite_samples import color_classifier

# Mean colors of the classes: under a wrong range each comes nearer to that of another class.
COLORS = {"ape": (210, 60, 60), "bee": (60, 190, 90), "cat": (90, 60, 120)}


def write_images(folder: Path, classes: dict[str, tuple[int, int, int]]) -> Dataset:
    """12 training and 2 validation images a class, noise of 10 around its color."""
    for label, (name, color) in enumerate(classes.items()):
        for index in range(14):
            path = folder / ("train" if index < 12 else "validation") / name / f"{index:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([label, index]).integers(-10, 10, (8, 8, 3))
            cv2.imwrite(str(path), (np.array(color) + noise).astype(np.uint8)[..., ::-1])
    return find_images(str(folder), split=0.2, seed=0, cache=Path("unused"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_images(tmp_path_factory.mktemp("colors"), COLORS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return write_images(tmp_path_factory.mktemp("pair"), {name: COLORS[name] for name in ("ape", "bee")})


def contract(order: str, mean: tuple[float, ...], std: tuple[float, ...]) -> InputContract:
    return InputContract(8, 8, order, "stretch", "linear", mean, std)


def own(model: Any, units: int) -> OwnModel:
    return OwnModel("tf_keras", Path("own.keras"), (8, 8), units, model)


def near_colors(
    how: InputContract, names: tuple[str, ...] = tuple(COLORS), *, activation: str = "softmax", units: int | None = None
) -> OwnModel:
    """A model that knows the class colors, of images that were scaled as the contract says, and nothing far from them.

    Distance |m - c| = relu(m - c) + relu(c - m) over the channels of the mean color m; nearness = relu(1 - distance/r).
    """
    import tf_keras

    colors = np.array([COLORS[name] for name in names], np.float32)
    shown = colors if how.channel_order == "rgb" else colors[:, ::-1]
    centers = to_tensor(shown[:, np.newaxis, np.newaxis], how).reshape(-1, 3)  # each an image of one pixel
    count, units = len(names), units or len(names)
    radius = np.abs(centers[0] - centers[1]).sum() / 2
    each = np.tile(np.eye(3), count)
    near = np.tile(-np.repeat(np.eye(count), 3, axis=0) / radius, (2, 1))
    last = 12 * (np.eye(count) if units > 1 else np.array([[-1.0], [1.0]]))
    dense = [
        tf_keras.layers.Dense(6 * count, "relu"),
        tf_keras.layers.Dense(count, "relu"),
        tf_keras.layers.Dense(units, activation, name="head"),
    ]
    model = tf_keras.Sequential([tf_keras.Input((8, 8, 3)), tf_keras.layers.GlobalAveragePooling2D(), *dense])
    dense[0].set_weights([np.hstack([each, -each]), np.hstack([-centers.ravel(), centers.ravel()])])
    dense[1].set_weights([near, np.ones(count)])
    dense[2].set_weights([last, np.zeros(units)])
    return own(model, units)


MINUS_ONE_TO_ONE = contract("rgb", (127.5,) * 3, (127.5,) * 3)


@pytest.mark.parametrize("name", list(_RANGES))
def test_range_of_the_model_is_found(name: str, photos: Dataset) -> None:
    how = contract(*_RANGES[name])
    found = find_contracts(near_colors(how), photos, None)
    assert found.input == how
    assert found.output.activation == "softmax"
    assert found.note.startswith(f"input range inferred: {name}, 100.0% of 36 training images, next best ")


def test_resize_rule_of_the_recipe_is_kept_while_the_range_is_inferred(photos: Dataset) -> None:
    found = find_contracts(near_colors(MINUS_ONE_TO_ONE), photos, {"resize": "crop", "interpolation": "area"})
    assert found.input == replace(MINUS_ONE_TO_ONE, resize="crop", interpolation="area")


def test_given_range_is_taken_without_trying_others(photos: Dataset) -> None:
    how = {"channel_order": "bgr", "mean": [10.0, 20.0, 30.0], "std": [2.0, 2.0, 2.0]}
    found = find_contracts(near_colors(contract("bgr", (10.0, 20.0, 30.0), (2.0,) * 3)), photos, how)
    assert found.input == contract("bgr", (10.0, 20.0, 30.0), (2.0, 2.0, 2.0))
    assert found.note == "input range given: (p - 10 20 30) / 2 BGR, 100.0% of 36 training images"


def test_model_that_scales_raw_pixels_gets_them(photos: Dataset) -> None:
    raw = contract("rgb", (0.0,) * 3, (1.0,) * 3)
    found = find_contracts(replace(near_colors(raw), scales_raw_pixels=True), photos, None)
    assert found.input == raw
    assert found.note == "input range read from the first layer: 0 to 255 RGB, 100.0% of 36 training images"


def test_range_of_an_integer_file_is_read_from_its_scale(photos: Dataset, tmp_path: Path) -> None:
    colors = np.array(list(COLORS.values())) / 127.5 - 1
    (tmp_path / "own.tflite").write_bytes(color_classifier((colors * 8).tolist(), dtype="int8"))
    found = find_contracts(open_model(tmp_path / "own.tflite", tmp_path), photos, None)
    assert found.input == MINUS_ONE_TO_ONE
    assert found.note.startswith("input range read from the scale of the input: -1 to 1 RGB, ")
    assert found.output.activation == "softmax"


@pytest.mark.parametrize(
    ("activation", "units", "expected"),
    [("softmax", 2, "softmax"), ("sigmoid", 1, "sigmoid"), ("linear", 2, "logits"), ("linear", 1, "logits")],
)
def test_outputs_tell_what_they_are(activation: str, units: int, expected: str, pair: Dataset) -> None:
    model = near_colors(MINUS_ONE_TO_ONE, ("ape", "bee"), activation=activation, units=units)
    found = find_contracts(model, pair, None)
    assert (found.output.activation, found.input) == (expected, MINUS_ONE_TO_ONE)


def test_last_layer_decides_over_how_outputs_look(photos: Dataset) -> None:
    model = replace(near_colors(MINUS_ONE_TO_ONE), activation="logits")
    assert find_contracts(model, photos, None).output.activation == "logits"


def test_several_sigmoid_units_are_refused(photos: Dataset) -> None:
    model = near_colors(MINUS_ONE_TO_ONE, activation="sigmoid")
    with pytest.raises(ConversionError, match="Received: sigmoid over 3 units"):
        find_contracts(model, photos, None)


def test_nan_outputs_are_refused(photos: Dataset) -> None:
    model = near_colors(MINUS_ONE_TO_ONE)
    model.keras.get_layer("head").set_weights([np.full((3, 3), np.nan), np.zeros(3)])
    with pytest.raises(ConversionError, match="finite outputs are required"):
        find_contracts(model, photos, None)


def test_other_number_of_classes_is_refused_with_both(pair: Dataset) -> None:
    with pytest.raises(RecipeError, match=r"2 classes \(ape, bee\), outputs: 3\.") as info:
        find_contracts(near_colors(MINUS_ONE_TO_ONE), pair, None)
    assert info.value.exit_code == 2


def test_model_that_guesses_in_every_range_needs_one_given(photos: Dataset) -> None:
    model = near_colors(MINUS_ONE_TO_ONE)
    model.keras.get_layer("head").set_weights([np.zeros((3, 3)), np.zeros(3)])
    with pytest.raises(RecipeError, match=r"none of the usual ranges gives .* Received: 33\.3% of 36") as info:
        find_contracts(model, photos, None)
    assert "[model.preprocess]" in info.value.hint


def test_ranges_that_do_equally_well_need_one_given(photos: Dataset) -> None:
    import tf_keras

    # Nothing but the direction of the color counts, and it is the same for 0 to 1 and 0 to 255.
    head = tf_keras.layers.Dense(3, "softmax")
    model = tf_keras.Sequential([tf_keras.Input((8, 8, 3)), tf_keras.layers.GlobalAveragePooling2D(), head])
    colors = np.array(list(COLORS.values()))
    head.set_weights([1e5 * (colors / np.linalg.norm(colors, axis=1, keepdims=True)).T, np.zeros(3)])
    with pytest.raises(RecipeError, match="two do almost equally well"):
        find_contracts(own(model, 3), photos, None)


def test_labels_in_another_order_are_found_out_and_named(photos: Dataset) -> None:
    model = near_colors(MINUS_ONE_TO_ONE, ("cat", "ape", "bee"))
    with pytest.raises(RecipeError, match=r"where another order has 100\.0%") as info:
        find_contracts(model, photos, None)
    assert 'labels = ["cat", "ape", "bee"]' in info.value.hint
    found = find_contracts(model, relabel(photos, ["cat", "ape", "bee"]), None)
    assert found.input == MINUS_ONE_TO_ONE


def test_one_sigmoid_unit_for_the_first_class_is_found_out(pair: Dataset) -> None:
    model = near_colors(MINUS_ONE_TO_ONE, ("bee", "ape"), activation="sigmoid", units=1)
    with pytest.raises(RecipeError) as info:
        find_contracts(model, pair, None)
    assert 'labels = ["bee", "ape"]' in info.value.hint


def test_relabel_moves_the_labels_of_both_splits(photos: Dataset) -> None:
    moved = relabel(photos, ["cat", "ape", "bee"])
    assert moved.classes == ("cat", "ape", "bee")
    for file in (*moved.train, *moved.validation):
        assert file.relative.startswith(moved.classes[file.label])
    assert relabel(photos, ["ape", "bee", "cat"]) == photos


def test_labels_that_are_not_the_folders_are_refused(photos: Dataset) -> None:
    with pytest.raises(RecipeError, match=r"the names ape, bee, cat .* Received: ape, bee, dog\."):
        relabel(photos, ["ape", "bee", "dog"])


def test_bgr_pixels_are_what_the_model_gets(photos: Dataset) -> None:
    seen: list[Any] = []
    model = near_colors(contract(*_RANGES["BGR minus ImageNet means"]))
    call = model.keras.call
    model.keras.call = lambda images, **more: seen.append(np.array(images)) or call(images, **more)
    find_contracts(model, photos, {"channel_order": "bgr"})
    np.testing.assert_allclose(seen[0][0].mean(axis=(0, 1)), COLORS["ape"][::-1], atol=5)
