"""Fit a model epoch by epoch, keep its best epoch, and go on after an interruption as if there had been none.

Every epoch is one call of `fit` on batches that depend only on seed and epoch; after each, weights and optimizer state
go to disk, and a phase that is done is not done again. With deterministic kernels the same recipe, data and machine
give the same weights, interrupted or not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow as tf
import tf_keras as keras

from liteship.architectures import batch_norm_layers, gives_logits
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import PlateauSettings, TrainSettings
from liteship_agent.preprocess import to_tensor
from liteship_agent.records import write_atomic

_BEST = "best.npz"
_SMALLEST_CROP = 0.7
_DEAD_FEATURE = 1e-3  # a mean square far below that of features that say anything
_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "adamax": keras.optimizers.Adamax,
    "nadam": keras.optimizers.Nadam,
    "ftrl": keras.optimizers.Ftrl,
    "sgd": partial(keras.optimizers.SGD, momentum=0.9),
}


@dataclass(frozen=True)
class Fit:
    """One phase of training.

    Args:
        name: For the progress bar.
        epochs: How many.
        batch_size: Images per step.
        optimizer: By name; "sgd" has a momentum of 0.9.
        learning_rate: At the start.
        schedule: "constant", "cosine" (to zero at the end) or "plateau" (lowered when what it watches stands still).
        plateau: What it watches, how long, and by how much it lowers.
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
    plateau: PlateauSettings
    augment: Sequence[str]
    seed: int
    first_eligible_epoch: int = 0


class Teacher:
    """The model that was pruned, to learn its features from: a few images say more this way than by their labels.

    Features are the outputs of residual additions, pooling layers, and batch normalizations that no activation
    follows: the narrow places of the network, where nothing is lost by comparing.

    Args:
        model: Unpruned and trained; not changed.
        weight: Of the mean relative squared error of the features, beside the loss of the labels.
        channels: Channels of each feature layer that the student still has; all where a layer is not named.
    """

    def __init__(self, model: keras.Model, weight: float, channels: Mapping[str, np.ndarray] | None = None) -> None:
        self.weight = weight
        self.names = feature_layers(model)
        outputs = [
            tf.gather(model.get_layer(name).output, channels[name], axis=-1)
            if channels and name in channels
            else model.get_layer(name).output
            for name in self.names
        ]
        features = keras.Model(model.input, outputs)
        self._run = tf.function(lambda images: features(images, training=False))

    def features(self, images: np.ndarray) -> list[np.ndarray]:
        """The features of a batch of input tensors."""
        result = self._run(images)
        return [feature.numpy() for feature in (result if isinstance(result, list) else [result])]

    def beside(self, student: keras.Model) -> keras.Model:
        """The student with the same features as further outputs; layers and weights are the student's own."""
        layers = {getattr(layer, "layer", layer).name: layer for layer in student.layers}
        return keras.Model(student.input, [student.output, *(layers[name].output for name in self.names)])


def feature_layers(model: keras.Model) -> list[str]:
    """Names of the layers whose outputs a teacher compares."""
    return [layer.name for layer in model.layers if _is_feature(layer)]


def _is_feature(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.BatchNormalization):
        followers = [node.outbound_layer for node in layer.outbound_nodes]
        return not any(isinstance(follower, (keras.layers.ReLU, keras.layers.Activation)) for follower in followers)
    kinds = (keras.layers.Add, keras.layers.MaxPooling2D, keras.layers.GlobalAveragePooling2D)
    return isinstance(layer, kinds)


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
        head_layer = [layer for layer in model.layers if layer.weights][-1]
        for layer in model.layers:
            layer.trainable = layer is head_layer
        rate = settings.head_learning_rate
        head = plan_training("head", settings, settings.head_epochs, rate, seed)
        head = replace(head, optimizer="adam", schedule="constant")
        history += fit(model, images, head, folder / "head", say)
    for layer in model.layers:
        layer.trainable = True
    freeze_batch_norm(model, pretrained)
    everything = plan_training("all layers", settings, settings.epochs, settings.learning_rate, seed + 1)
    return history + fit(model, images, everything, folder / "all", say)


def plan_training(name: str, settings: TrainSettings, epochs: int, learning_rate: float, seed: int) -> Fit:
    """A phase with the batch size, optimizer, schedule and augmentation of [train]."""
    return Fit(
        name=name,
        epochs=epochs,
        batch_size=settings.batch_size,
        optimizer=settings.optimizer,
        learning_rate=learning_rate,
        schedule=settings.schedule,
        plateau=settings.plateau,
        augment=settings.augment,
        seed=seed,
    )


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
    teacher: Teacher | None = None,
) -> list[dict[str, float]]:
    """Train one phase, or go on with it, and give the model the weights of its best epoch.

    Args:
        model: Trained in place.
        images: Both splits.
        plan: What to do.
        folder: Where state and weights are kept; the caller removes it when nothing is left to go on with.
        say: Progress.
        callbacks: More callbacks, such as pruning steps.
        teacher: A model whose features are learned beside the labels.

    Returns:
        History, one record per epoch.
    """
    if plan.epochs == 0:
        return []
    trained = model if teacher is None else teacher.beside(model)
    _compile(trained, plan, images, teacher)
    checkpoint = tf.train.Checkpoint(model=model, optimizer=trained.optimizer)
    trained.optimizer.build(trained.trainable_variables)
    folder.mkdir(parents=True, exist_ok=True)
    state = _restore(checkpoint, folder, plan)
    if state.epoch == 0 and plan.first_eligible_epoch == 0:
        _keep_best(model, state, validation_accuracy(model, images), folder)
    with say.task(f"train {plan.name}", plan.epochs * _step_count(images, plan)) as advance:
        advance(state.epoch * _step_count(images, plan))
        for epoch in range(state.epoch, plan.epochs):
            batches = _Batches(images, plan, epoch, teacher)
            steps = keras.callbacks.LambdaCallback(on_batch_end=lambda batch, logs: advance(1))
            if plan.schedule == "plateau":
                trained.optimizer.learning_rate.assign(state.learning_rate)
            fitted = trained.fit(batches, shuffle=False, verbose=0, callbacks=[*callbacks, steps])
            _finish_epoch(model, images, plan, state, fitted.history, folder)
            _save(checkpoint, state, folder)
            _say_epoch(say, plan, state)
    with np.load(folder / _BEST) as best:
        model.set_weights([best[name] for name in best.files])
    return state.history


def validation_accuracy(model: keras.Model, images: Images) -> float:
    """Share of validation images whose highest score is their label's."""
    correct, threshold = 0, 0.0 if gives_logits(model) else 0.5
    for start in range(0, len(images.validation), 64):
        tensor = to_tensor(images.validation[start : start + 64], images.contract)
        output = model(tensor, training=False).numpy()
        answers = (output[:, 0] > threshold) if output.shape[1] == 1 else output.argmax(axis=1)
        correct += int((answers == images.validation_labels[start : start + 64]).sum())
    return correct / len(images.validation)


def _compile(model: keras.Model, plan: Fit, images: Images, teacher: Teacher | None) -> None:
    rate: Any = plan.learning_rate
    if plan.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, plan.epochs * _step_count(images, plan))
    from_logits, is_single = gives_logits(model), model.outputs[0].shape[-1] == 1
    losses: list[Any] = [label_loss(is_single, from_logits)]
    accuracy = "accuracy"
    if is_single:
        accuracy = keras.metrics.BinaryAccuracy("accuracy", threshold=0.0 if from_logits else 0.5)
    weights, metrics = [1.0], [[accuracy]]
    if teacher is not None:
        count = len(model.outputs) - 1
        losses += [_relative_error] * count
        weights += [teacher.weight / count] * count
        metrics += [[] for _ in range(count)]
    model.compile(_OPTIMIZERS[plan.optimizer](rate), loss=losses, loss_weights=weights, metrics=metrics)


def label_loss(is_single: bool, from_logits: bool) -> keras.losses.Loss:
    """The loss of labels as class indices.

    Args:
        is_single: One unit that tells the second of two classes, instead of one unit per class.
        from_logits: The model gives logits, not probabilities.
    """
    kind = keras.losses.BinaryCrossentropy if is_single else keras.losses.SparseCategoricalCrossentropy
    return kind(from_logits=from_logits)


def _relative_error(wanted: tf.Tensor, got: tf.Tensor) -> tf.Tensor:
    """Mean squared error as a share of the mean square of what is wanted, so that layers weigh the same."""
    return tf.reduce_mean(tf.square(wanted - got)) / (tf.reduce_mean(tf.square(wanted)) + _DEAD_FEATURE)


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
    trained = next(value[0] for name, value in fitted.items() if name.endswith("accuracy"))
    state.history.append({"loss": fitted["loss"][0], "accuracy": trained, "validation_accuracy": accuracy})
    if state.epoch >= plan.first_eligible_epoch:
        _keep_best(model, state, accuracy, folder)
    if plan.schedule == "plateau" and _stands_still(state.history, plan.plateau):
        lower = max(state.learning_rate * plan.plateau.factor, plan.plateau.least)
        state.learning_rate = min(state.learning_rate, lower)


def _stands_still(history: Sequence[dict[str, float]], plateau: PlateauSettings) -> bool:
    """No new best in the last epochs, counted anew after each reduction."""
    sign = -1 if plateau.monitor == "loss" else 1
    values = [sign * record[plateau.monitor] for record in history]
    since_best = len(values) - 1 - values.index(max(values))
    return since_best > 0 and since_best % plateau.patience == 0


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

    def __init__(self, images: Images, plan: Fit, epoch: int, teacher: Teacher | None) -> None:
        self.images, self.plan, self.epoch, self.teacher = images, plan, epoch, teacher
        self.order = np.random.default_rng([plan.seed, epoch]).permutation(len(images.train))

    def __len__(self) -> int:
        return _step_count(self.images, self.plan)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        size = self.plan.batch_size
        chosen = self.order[index * size : (index + 1) * size]
        pixels = self.images.train[chosen]
        if self.plan.augment:
            random = np.random.default_rng([self.plan.seed, self.epoch, index])
            pixels = _augment(pixels, self.plan.augment, random)
        tensor, labels = to_tensor(pixels, self.images.contract), self.images.train_labels[chosen]
        return tensor, labels if self.teacher is None else [labels, *self.teacher.features(tensor)]


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
