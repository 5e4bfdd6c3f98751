"""How images go into a model that the user brings, and what comes out of it: given, read from the file, or tried.

A model does not tell the range of its input. Where neither the recipe nor the model's first layer nor the scale of an
integer input gives it, the usual ranges are tried on training images, and the one that classifies them best is taken
and reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from liteship.data import Dataset, ImageFile
from liteship.errors import ConversionError, RecipeError
from liteship.flatbuffer import Tensor
from liteship.own.model import OwnModel, predictor
from liteship_agent.manifest import InputContract, OutputContract
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import decode, resize, to_tensor

PROBE_COUNT = 128

# What `image_dataset_from_directory` does unless told otherwise (its "bilinear" does not average when it shrinks), so
# what most models that liteship did not train have seen.
_RESIZE, _INTERPOLATION = "stretch", "linear"
# Source: preprocess_input of keras.applications, modes "tf", none, "caffe" and "torch", and Rescaling(1 / 255).
_RANGES = {
    "-1 to 1 RGB": ("rgb", (127.5,) * 3, (127.5,) * 3),
    "0 to 1 RGB": ("rgb", (0.0,) * 3, (255.0,) * 3),
    "0 to 255 RGB": ("rgb", (0.0,) * 3, (1.0,) * 3),
    "BGR minus ImageNet means": ("bgr", (103.939, 116.779, 123.68), (1.0,) * 3),
    "RGB by ImageNet mean and deviation": ("rgb", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}
_RAW = "0 to 255 RGB"
_RANGE_KEYS = ("channel_order", "mean", "std")

_RANGE_TOLERANCE = 0.05  # of the span: calibration images need not reach the ends
_SUM_TOLERANCE = 0.05  # a softmax of many int8 steps
_TIED_ACCURACY = 0.02
_ALIKE_LOSS = 1.1
_CLEAR_DEVIATIONS = 3
_OTHER_ORDER_GAIN, _OTHER_ORDER_ACCURACY, _OTHER_ORDER_IMAGES = 0.15, 0.8, 5
_SMALLEST_PROBABILITY = 1e-7
_PREPROCESS_HINT = "Give channel_order, mean and std under [model.preprocess]: a pixel p becomes (p - mean) / std."


@dataclass(frozen=True)
class Contracts:
    """How the model is fed and read, as float32; of an integer file the scales are added from the file.

    Args:
        input, output: The contracts.
        note: One line for the user: where they come from, and the accuracy on the training images looked at.
    """

    input: InputContract
    output: OutputContract
    note: str


def relabel(dataset: Dataset, labels: Sequence[str]) -> Dataset:
    """The dataset with its classes in the order of the model's outputs; without `labels` that is by name, as in Keras.

    Raises:
        RecipeError: other names than those of the folders.
    """
    if sorted(labels) != sorted(dataset.classes):
        raise RecipeError(
            f"model.labels: the names {_names(dataset.classes)} in the order of the model's outputs are required. "
            f"Received: {_names(labels)}."
        )
    order = [labels.index(name) for name in dataset.classes]

    def moved(files: Sequence[ImageFile]) -> tuple[ImageFile, ...]:
        return tuple(replace(file, label=order[file.label]) for file in files)

    return replace(dataset, classes=tuple(labels), train=moved(dataset.train), validation=moved(dataset.validation))


def find_contracts(model: OwnModel, dataset: Dataset, preprocess: Mapping[str, Any] | None) -> Contracts:
    """Settle how a model is fed and read.

    Args:
        model: Opened.
        dataset: Its classes in the order of the model's outputs; only training images are looked at.
        preprocess: The keys that the recipe has of `channel_order`, `resize`, `interpolation`, `mean` and `std`. With
            one of channel order, mean and std the range is given: the others are then "rgb", 0 and 1.

    Raises:
        RecipeError: as many classes as units are required; the range cannot be told; the outputs stand in another
            order than the classes.
        ConversionError: NaN outputs, or several independent probabilities.
    """
    _require_units(model, dataset.classes)
    source, candidates = _candidates(model, dict(preprocess or {}))
    trials = _try(model, dataset, candidates)
    best, *others = sorted(trials, key=lambda trial: _rank(trial, max(trial.accuracy for trial in trials)))
    _require_order(max(trials, key=lambda trial: trial.best_order_accuracy), best, dataset.classes)
    if others:
        _require_clear(best, others[0], dataset.classes)
    note = f"{source}: {best.name}, {best.accuracy:.1%} of {len(best.labels)} training images"
    if others:
        note += f", next best {max(other.accuracy for other in others):.1%}"
    return Contracts(best.contract, OutputContract(best.activation), note)


@dataclass(frozen=True)
class _Trial:
    """One way to feed the model, and the scores that it gives for the training images looked at."""

    name: str
    contract: InputContract
    activation: str
    scores: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        return float((self.scores.argmax(axis=1) == self.labels).mean())

    @property
    def loss(self) -> float:
        """Mean negative logarithm of the probability of the right label."""
        right = self.scores[np.arange(len(self.labels)), self.labels]
        return float(-np.log(np.maximum(right, _SMALLEST_PROBABILITY)).mean())

    @property
    def best_order(self) -> list[int]:
        """The label that each output agrees with most, each label once."""
        count = self.scores.shape[1]
        confusion = np.zeros((count, count), np.int64)
        np.add.at(confusion, (self.scores.argmax(axis=1), self.labels), 1)
        return [int(label) for label in linear_sum_assignment(confusion, maximize=True)[1]]

    @property
    def best_order_accuracy(self) -> float:
        return float((np.array(self.best_order)[self.scores.argmax(axis=1)] == self.labels).mean())


def _candidates(model: OwnModel, given: dict[str, Any]) -> tuple[str, dict[str, InputContract]]:
    """Where the range comes from, and the contracts that are possible, by name."""
    height, width = model.input_shape
    rules = (given.get("resize", _RESIZE), given.get("interpolation", _INTERPOLATION))
    if any(key in given for key in _RANGE_KEYS):
        order, mean, std = (
            given.get("channel_order", "rgb"),
            given.get("mean", (0.0,) * 3),
            given.get("std", (1.0,) * 3),
        )
        contract = InputContract(height, width, order, *rules, tuple(mean), tuple(std))
        return "input range given", {f"(p - {_numbers(mean)}) / {_numbers(std)} {order.upper()}": contract}
    known = {
        name: InputContract(height, width, order, *rules, mean, std) for name, (order, mean, std) in _RANGES.items()
    }
    if model.scales_raw_pixels:
        return "input range read from the first layer", {_RAW: known[_RAW]}
    if model.tensor is not None and model.tensor.scale is not None:
        fitting = {name: contract for name, contract in known.items() if _fits(contract, model.tensor)}
        if len(fitting) == 1:
            return "input range read from the scale of the input", fitting
    return "input range inferred", known


def _fits(contract: InputContract, tensor: Tensor) -> bool:
    """Whether black and white come to the ends of what an integer input can hold."""
    if tensor.scale is None or tensor.zero_point is None:
        return False
    steps = np.iinfo(tensor.dtype)
    held = np.array([(step - tensor.zero_point) * tensor.scale for step in (steps.min, steps.max)])
    ends = [(pixel - np.array(contract.mean)) / np.array(contract.std) for pixel in (0, 255)]
    wanted = np.array([ends[0].min(), ends[1].max()])
    return bool(np.all(np.abs(held - wanted) <= _RANGE_TOLERANCE * (wanted[1] - wanted[0])))


def _try(model: OwnModel, dataset: Dataset, candidates: Mapping[str, InputContract]) -> list[_Trial]:
    count = min(PROBE_COUNT, len(dataset.train))
    # Files stand class by class: every n-th of them has all classes in their proportions.
    files = [dataset.train[index * len(dataset.train) // count] for index in range(count)]
    labels = np.array([file.label for file in files], np.int64)
    rgb = replace(next(iter(candidates.values())), channel_order="rgb")
    pixels = np.stack([resize(decode(file.path.read_bytes(), str(file.path)), rgb) for file in files])
    predict = predictor(model)
    outputs = {}
    for name, contract in candidates.items():
        ordered = pixels if contract.channel_order == "rgb" else pixels[..., ::-1]
        outputs[name] = predict(to_tensor(ordered, contract))
    activation = _activation(model, np.concatenate(list(outputs.values())))
    return [
        _Trial(name, contract, activation, to_scores(outputs[name], OutputContract(activation)), labels)
        for name, contract in candidates.items()
    ]


def _activation(model: OwnModel, outputs: np.ndarray) -> str:
    """What the outputs are: as the model's last layer says, else as they look.

    Args:
        model: Opened.
        outputs: float32, shape (images, units), for every range that was tried.
    """
    if not np.isfinite(outputs).all():
        raise ConversionError(f"{model.path}: finite outputs are required. Received: NaN or infinity.")
    are_probabilities = bool(outputs.min() >= -_SMALLEST_PROBABILITY and outputs.max() <= 1 + _SUM_TOLERANCE)
    activation = model.activation
    if activation is None:
        activation = "logits"
        if are_probabilities:
            sums_to_one = np.abs(outputs.sum(axis=1) - 1).max() <= _SUM_TOLERANCE
            activation = "softmax" if sums_to_one and model.units > 1 else "sigmoid"
    if (activation == "sigmoid") != (model.units == 1) and activation != "logits":
        raise ConversionError(
            f"{model.path}: one sigmoid unit for two classes, or a softmax over all of them, is required. "
            f"Received: {activation} over {model.units} units."
        )
    return activation


def _rank(trial: _Trial, best_accuracy: float) -> tuple[bool, float]:
    """Smallest first: near the best accuracy a few images decide nothing, so the loss does."""
    return trial.accuracy < best_accuracy - _TIED_ACCURACY, trial.loss


def _require_units(model: OwnModel, classes: Sequence[str]) -> None:
    if model.units != len(classes) and not (model.units == 1 and len(classes) == 2):
        raise RecipeError(
            f"{model.path}: as many classes in the data as the model has outputs are required. Received: "
            f"{len(classes)} classes ({_names(classes)}), outputs: {model.units}.",
            "One output stands for two classes.",
        )


def _require_order(trial: _Trial, best: _Trial, classes: Sequence[str]) -> None:
    """Refuse labels in another order than the outputs, where the images say so beyond doubt."""
    is_sure = len(trial.labels) >= _OTHER_ORDER_IMAGES * len(classes)
    gain = trial.best_order_accuracy - best.accuracy
    if is_sure and gain >= _OTHER_ORDER_GAIN and trial.best_order_accuracy >= _OTHER_ORDER_ACCURACY:
        labels = ", ".join(f'"{classes[label]}"' for label in trial.best_order)
        raise RecipeError(
            f"model.labels: the classes in the order of the model's outputs are required. Received: {_names(classes)}, "
            f"with {best.accuracy:.1%} of {len(best.labels)} training images right, where another order has "
            f"{trial.best_order_accuracy:.1%}.",
            f"Give labels = [{labels}] under [model].",
        )


def _require_clear(best: _Trial, second: _Trial, classes: Sequence[str]) -> None:
    """Refuse a guess: the best range must beat always answering one class, and stand apart from the next."""
    count = len(best.labels)
    chance = float(np.bincount(best.labels, minlength=len(classes)).max() / count)
    needed = chance + _CLEAR_DEVIATIONS * (chance * (1 - chance) / count) ** 0.5
    if best.accuracy <= needed:
        raise RecipeError(
            "model.preprocess: the input range is required, or labels in the order of the outputs, where none of the "
            f"usual ranges gives more than {needed:.1%}. Received: {best.accuracy:.1%} of {count} training images with "
            f"{best.name}.",
            f"{_PREPROCESS_HINT} Labels stand under [model].",
        )
    if second.accuracy >= best.accuracy - _TIED_ACCURACY and second.loss <= best.loss * _ALIKE_LOSS:
        raise RecipeError(
            "model.preprocess: the input range is required where two do almost equally well. Received: "
            f"{best.name} with {best.accuracy:.1%} and loss {best.loss:.4f}, {second.name} with {second.accuracy:.1%} "
            f"and {second.loss:.4f}.",
            _PREPROCESS_HINT,
        )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in (values[:1] if len(set(values)) == 1 else values))
