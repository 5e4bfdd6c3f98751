"""Fit a model epoch by epoch, keep its best epoch, and go on after an interruption as if there had been none.

Every epoch is one call of `fit` on batches that depend only on seed and epoch; after each, weights and optimizer state
go to disk, and a phase that is done is not done again. With deterministic kernels the same recipe, data and machine
give the same weights, interrupted or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import tf_keras as keras

from liteship.architectures import HEAD_LAYER, batch_norm_layers
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import TrainSettings
from liteship_agent.preprocess import to_tensor
from liteship_agent.records import write_atomic

_BEST = "best.npz"
_SMALLEST_CROP = 0.7
_PLATEAU_PATIENCE, _PLATEAU_FACTOR, _PLATEAU_LEAST = 3, 0.5, 1e-5


@dataclass(frozen=True)
class Fit:
    """One phase of training.

    Args:
        name: For the progress bar.
        epochs: How many.
        batch_size: Images per step.
        optimizer: "adam" or "sgd" (momentum 0.9).
        learning_rate: At the start.
        schedule: "constant", "cosine" (to zero at the end) or "plateau" (halved when validation accuracy stands still
            for three epochs).
        augment: "flip" (every second image, horizontally), "crop" (a random part of 70 to 100 % is enlarged).
        seed: Of order and augmentation.
        first_eligible_epoch: Epochs before this one are never the best; 0 lets the weights at the start win too.
    """

    name: str
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    schedule: str
    augment: Sequence[str]
    seed: int
    first_eligible_epoch: int = 0


@dataclass
class FitState:
    """What is known after an epoch; kept as state.json beside the weights."""

    epoch: int = 0
    best_epoch: int = -1
    best_accuracy: float = -1.0
    learning_rate: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def make_deterministic(seed: int) -> None:
    """Seed Python, numpy and TensorFlow and take kernels whose sums have a fixed order."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def train_baseline(
    model: keras.Model,
    images: Images,
    settings: TrainSettings,
    seed: int,
    pretrained: bool,
    folder: Path,
    say: Reporter,
) -> list[dict[str, float]]:
    """Train the head alone, then all layers; the model ends with the weights of its best epoch.

    Batch normalization of a pretrained backbone stays as it is: its statistics are better than those of few images,
    and validation accuracy does not collapse.

    Returns:
        One record per epoch: phase, loss, accuracy, validation accuracy.
    """
    history: list[dict[str, float]] = []
    if settings.head_epochs:
        for layer in model.layers:
            layer.trainable = layer.name == HEAD_LAYER
        rate = settings.head_learning_rate
        head = Fit("head", settings.head_epochs, settings.batch_size, "adam", rate, "constant", settings.augment, seed)
        history += fit(model, images, head, folder / "head", say)
    for layer in model.layers:
        layer.trainable = True
    freeze_batch_norm(model, pretrained)
    everything = Fit(
        "all layers",
        settings.epochs,
        settings.batch_size,
        settings.optimizer,
        settings.learning_rate,
        settings.schedule,
        settings.augment,
        seed + 1,
    )
    return history + fit(model, images, everything, folder / "all", say)


def freeze_batch_norm(model: keras.Model, frozen: bool) -> None:
    """Run batch normalization with its stored statistics (frozen) or let it learn."""
    for layer in batch_norm_layers(model):
        layer.trainable = not frozen


def fit(
    model: keras.Model,
    images: Images,
    plan: Fit,
    folder: Path,
    say: Reporter,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> list[dict[str, float]]:
    """Train one phase, or go on with it, and give the model the weights of its best epoch.

    Args:
        model: Trained in place.
        images: Both splits.
        plan: What to do.
        folder: Where state and weights are kept; the caller removes it when nothing is left to go on with.
        say: Progress.
        callbacks: More callbacks, such as pruning steps.

    Returns:
        History, one record per epoch.
    """
    if plan.epochs == 0:
        return []
    _compile(model, plan, images)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    model.optimizer.build(model.trainable_variables)
    folder.mkdir(parents=True, exist_ok=True)
    state = _restore(checkpoint, folder, plan)
    if state.epoch == 0 and plan.first_eligible_epoch == 0:
        _keep_best(model, state, validation_accuracy(model, images), folder)
    with say.task(f"train {plan.name}", plan.epochs * _step_count(images, plan)) as advance:
        advance(state.epoch * _step_count(images, plan))
        for epoch in range(state.epoch, plan.epochs):
            batches = _Batches(images, plan, epoch)
            steps = keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: advance(1))
            if plan.schedule == "plateau":
                model.optimizer.learning_rate.assign(state.learning_rate)
            fitted = model.fit(batches, shuffle=False, verbose=0, callbacks=[*callbacks, steps])
            _finish_epoch(model, images, plan, state, fitted.history, folder)
            _save(checkpoint, state, folder)
            _say_epoch(say, plan, state)
    with np.load(folder / _BEST) as best:
        model.set_weights([best[name] for name in best.files])
    return state.history


def validation_accuracy(model: keras.Model, images: Images) -> float:
    """Share of validation images whose highest score is their label's."""
    correct = 0
    for start in range(0, len(images.validation), 64):
        tensor = to_tensor(images.validation[start : start + 64], images.contract)
        output = model(tensor, training=False).numpy()
        answers = (output[:, 0] > 0.5) if output.shape[1] == 1 else output.argmax(axis=1)
        correct += int((answers == images.validation_labels[start : start + 64]).sum())
    return correct / len(images.validation)


def _compile(model: keras.Model, plan: Fit, images: Images) -> None:
    rate: Any = plan.learning_rate
    if plan.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, plan.epochs * _step_count(images, plan))
    optimizer = keras.optimizers.SGD(rate, momentum=0.9) if plan.optimizer == "sgd" else keras.optimizers.Adam(rate)
    loss = "binary_crossentropy" if images.class_count == 2 else "sparse_categorical_crossentropy"
    model.compile(optimizer, loss=loss, metrics=["accuracy"])


def _step_count(images: Images, plan: Fit) -> int:
    return -(-len(images.train) // plan.batch_size)


def _save(checkpoint: tf.train.Checkpoint, state: FitState, folder: Path) -> None:
    """Write the state after an epoch, then remove that of the epoch before."""
    checkpoint.write(str(folder / f"epoch-{state.epoch}"))
    write_atomic(folder / "state.json", json.dumps(asdict(state)).encode())
    for path in folder.glob(f"epoch-{state.epoch - 1}.*"):
        path.unlink()


def _restore(checkpoint: tf.train.Checkpoint, folder: Path, plan: Fit) -> FitState:
    path = folder / "state.json"
    if not path.exists():
        return FitState(learning_rate=plan.learning_rate)
    state = FitState(**json.loads(path.read_text()))
    checkpoint.read(str(folder / f"epoch-{state.epoch}")).expect_partial()
    return state


def _finish_epoch(
    model: keras.Model, images: Images, plan: Fit, state: FitState, fitted: dict[str, list[float]], folder: Path
) -> None:
    accuracy = validation_accuracy(model, images)
    state.epoch += 1
    state.history.append(
        {"loss": fitted["loss"][0], "accuracy": fitted["accuracy"][0], "validation_accuracy": accuracy}
    )
    if state.epoch >= plan.first_eligible_epoch:
        _keep_best(model, state, accuracy, folder)
    recent = [record["validation_accuracy"] for record in state.history]
    if plan.schedule == "plateau" and _stands_still(recent):
        state.learning_rate = max(state.learning_rate * _PLATEAU_FACTOR, _PLATEAU_LEAST)


def _stands_still(accuracies: Sequence[float]) -> bool:
    """No new best in the last epochs, counted anew after each reduction."""
    best = max(range(len(accuracies)), key=lambda index: (accuracies[index], -index))
    return len(accuracies) - 1 > best and (len(accuracies) - 1 - best) % _PLATEAU_PATIENCE == 0


def _keep_best(model: keras.Model, state: FitState, accuracy: float, folder: Path) -> None:
    if accuracy > state.best_accuracy:
        state.best_accuracy, state.best_epoch = accuracy, state.epoch
        np.savez(folder / _BEST, *model.get_weights())  # Keras' own file would not load where metrics came later


def _say_epoch(say: Reporter, plan: Fit, state: FitState) -> None:
    record = state.history[-1]
    say.say(
        f"{plan.name}: epoch {state.epoch}/{plan.epochs}, loss {record['loss']:.3f}, training accuracy "
        f"{record['accuracy']:.1%}, validation accuracy {record['validation_accuracy']:.1%}"
    )


class _Batches(keras.utils.Sequence):  # type: ignore[misc]
    """The batches of one epoch; order and augmentation depend on seed and epoch only."""

    def __init__(self, images: Images, plan: Fit, epoch: int) -> None:
        self.images, self.plan, self.epoch = images, plan, epoch
        self.order = np.random.default_rng([plan.seed, epoch]).permutation(len(images.train))

    def __len__(self) -> int:
        return _step_count(self.images, self.plan)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        size = self.plan.batch_size
        chosen = self.order[index * size : (index + 1) * size]
        pixels = self.images.train[chosen]
        if self.plan.augment:
            random = np.random.default_rng([self.plan.seed, self.epoch, index])
            pixels = _augment(pixels, self.plan.augment, random)
        return to_tensor(pixels, self.images.contract), self.images.train_labels[chosen]


def _augment(pixels: np.ndarray, ways: Sequence[str], random: np.random.Generator) -> np.ndarray:
    """Change every image at random in the ways that the recipe names."""
    augmented = np.empty_like(pixels)
    height, width = pixels.shape[1:3]
    for index, image in enumerate(pixels):
        share = random.uniform(_SMALLEST_CROP, 1) if "crop" in ways else 1
        rows, columns = max(1, round(height * share)), max(1, round(width * share))
        top, left = random.integers(height - rows + 1), random.integers(width - columns + 1)
        part = image[top : top + rows, left : left + columns]
        if "flip" in ways and random.random() < 0.5:
            part = part[:, ::-1]
        augmented[index] = cv2.resize(np.ascontiguousarray(part), (width, height), interpolation=cv2.INTER_LINEAR)
    return augmented
