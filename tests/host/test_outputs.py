"""Training, ranking and accuracy read a model's outputs as what they are: probabilities or logits, one unit or more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship.architectures import gives_logits
from liteship.compress import filters, magnitude, qat
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import TrainSettings
from liteship.train import fit, label_loss, plan_training, validation_accuracy
from liteship_agent.manifest import OutputContract
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import to_tensor

LAST = [(1, "sigmoid"), (1, None), (2, "softmax"), (2, None)]


def network(units: int, activation: str | None) -> Any:
    """Tells red from green from the start; 0.3 is added to the logits so that a wrong threshold is seen."""
    import tf_keras as keras

    image = keras.Input((32, 32, 3))
    hidden = keras.layers.Conv2D(4, 1, name="mix")(image)
    hidden = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
    model = keras.Model(image, keras.layers.Dense(units, activation, name="last")(hidden))
    kernel = np.zeros((1, 1, 3, 4))
    kernel[0, 0, 0, 0] = kernel[0, 0, 1, 1] = 1
    kernel[0, 0, 2, 2:] = 0.1
    model.get_layer("mix").set_weights([kernel, np.zeros(4)])
    last = np.zeros((4, 2))
    last[0, 0] = last[1, 1] = 0.4
    one = last[:, 1:] - last[:, :1]
    model.get_layer("last").set_weights([one if units == 1 else last, np.full(units, 0.3 if units == 1 else 0.0)])
    return model


@pytest.mark.parametrize(("units", "activation"), LAST)
def test_logits_are_told_from_probabilities_also_in_wrappers(units: int, activation: str | None) -> None:
    import tensorflow_model_optimization as tfmot

    model = network(units, activation)
    wanted = activation is None
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0)
    assert gives_logits(model) == wanted
    assert gives_logits(magnitude.wrap(model, {"mix": schedule, "last": schedule})) == wanted
    assert gives_logits(qat.quantize(model, False)) == wanted


def test_a_last_activation_of_its_own_layer_counts() -> None:
    import tf_keras as keras

    model = network(2, None)
    assert not gives_logits(keras.Model(model.input, keras.layers.Softmax()(model.output)))
    assert not gives_logits(keras.Model(model.input, keras.layers.Activation("softmax")(model.output)))
    assert gives_logits(keras.Model(model.input, keras.layers.Dropout(0.1)(model.output)))


@pytest.mark.parametrize(("units", "activation"), LAST)
def test_accuracy_is_that_of_the_scores(units: int, activation: str | None, two_classes: Images) -> None:
    model = network(units, activation)
    output = model(to_tensor(two_classes.validation, two_classes.contract)).numpy()
    scores = to_scores(output, OutputContract(activation or "logits"))
    wanted = float((scores.argmax(axis=1) == two_classes.validation_labels).mean())
    assert wanted > 0.4
    assert validation_accuracy(model, two_classes) == wanted


@pytest.mark.parametrize(("units", "activation"), LAST)
def test_training_learns_from_any_output(
    units: int, activation: str | None, two_classes: Images, tmp_path: Path, say: Reporter
) -> None:
    model = network(units, activation)
    model.get_layer("last").set_weights([weights * 0 for weights in model.get_layer("last").get_weights()])
    settings = TrainSettings(batch_size=8, schedule="constant")
    history = fit(model, two_classes, plan_training("any", settings, 8, 0.1, 1), tmp_path, say)
    assert history[0]["loss"] < 0.75  # chance is log 2
    assert history[-1]["loss"] < 0.4
    assert validation_accuracy(model, two_classes) == 1.0


def test_loss_of_logits_is_that_of_their_probabilities() -> None:
    logits = np.array([[-1.0], [2.0], [0.5]], np.float32)
    labels = np.array([0, 1, 0])
    probabilities = 1 / (1 + np.exp(-logits))
    expected = float(-np.log(np.where(labels == 1, probabilities[:, 0], 1 - probabilities[:, 0])).mean())
    assert float(label_loss(True, True)(labels[:, np.newaxis], logits)) == pytest.approx(expected, rel=1e-5)
    assert float(label_loss(True, False)(labels[:, np.newaxis], probabilities)) == pytest.approx(expected, rel=1e-5)
    pairs = np.concatenate([0 * logits, logits], axis=1)
    assert float(label_loss(False, True)(labels, pairs)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("units", [1, 2])
def test_filters_of_logits_rank_as_those_of_probabilities(units: int, two_classes: Images) -> None:
    batches = filters.training_batches(two_classes, 0)
    scores = []
    for activation in ("sigmoid" if units == 1 else "softmax", None):
        ranks = filters.choose(network(units, activation), batches, "taylor", 0.5, "filters")
        scores.append([rank.score for rank in ranks])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3)
