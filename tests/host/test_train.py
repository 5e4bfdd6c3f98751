from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship import train
from liteship.images import Images
from liteship.progress import Reporter
from liteship.recipe import Optimizer, PlateauSettings, TrainSettings
from liteship.train import Fit, Teacher, fit, make_deterministic, train_baseline, validation_accuracy
from liteship_agent.preprocess import to_tensor

PLAN = Fit("test", 3, 8, "adam", 0.01, "cosine", PlateauSettings(), ("flip", "crop"), seed=1)
LAST_WINS = replace(PLAN, first_eligible_epoch=3)


@pytest.fixture
def new_model(small_network: Callable[..., Any]) -> Callable[..., Any]:
    """Builds the network with the same weights for the same seed."""

    def build(seed: int = 0) -> Any:
        make_deterministic(seed)
        return small_network()

    return build


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the user press Ctrl-C at the end of an epoch."""

    def arm(epoch: int) -> None:
        def interrupt(say: Reporter, plan: Fit, state: train.FitState) -> None:
            if state.epoch == epoch:
                raise KeyboardInterrupt

        monkeypatch.setattr(train, "_say_epoch", interrupt)

    return arm


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets validation give what a test says, first that of the weights at the start."""

    def script(*values: float) -> None:
        answers: Iterator[float] = iter(values)
        monkeypatch.setattr(train, "validation_accuracy", lambda model, images: next(answers))

    return script


def watch(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[list[np.ndarray]]:
    """The weights at the end of every epoch, filled while `fit` runs."""
    seen: list[list[np.ndarray]] = []
    monkeypatch.setattr(train, "_say_epoch", lambda say, plan, state: seen.append(model.get_weights()))
    return seen


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(left, right) for left, right in zip(one, other, strict=True))


def test_same_seed_gives_the_same_weights_and_another_does_not(
    tmp_path: Path, new_model: Callable[..., Any], two_classes: Images, say: Reporter
) -> None:
    models = []
    for seed in (1, 1, 2):
        model = new_model()
        history = fit(model, two_classes, replace(LAST_WINS, seed=seed), tmp_path / str(len(models)), say)
        models.append(model.get_weights())
        assert [set(record) for record in history] == [{"loss", "accuracy", "validation_accuracy"}] * 3
    assert equal(models[0], models[1])
    assert not equal(models[0], models[2])


def test_interrupted_training_goes_on_to_the_same_weights(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = new_model()
    history = fit(model, two_classes, LAST_WINS, tmp_path / "whole", say)
    stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(), two_classes, LAST_WINS, tmp_path / "cut", say)
    resumed = new_model(seed=5)
    seen = watch(monkeypatch, resumed)
    assert fit(resumed, two_classes, LAST_WINS, tmp_path / "cut", say) == history
    assert equal(resumed.get_weights(), model.get_weights())
    assert len(seen) == 1


def test_interruption_in_the_second_phase_does_not_repeat_the_first(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = TrainSettings(batch_size=8, head_epochs=1, epochs=2, learning_rate=0.01)
    whole = new_model()
    train_baseline(whole, two_classes, settings, 0, False, tmp_path / "whole", say)
    phases: list[str] = []

    def interrupt_second(say: Reporter, plan: Fit, state: train.FitState) -> None:
        phases.append(plan.name)
        if phases == ["head", "all layers"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_say_epoch", interrupt_second)
    with pytest.raises(KeyboardInterrupt):
        train_baseline(new_model(), two_classes, settings, 0, False, tmp_path / "cut", say)
    model = new_model()
    history = train_baseline(model, two_classes, settings, 0, False, tmp_path / "cut", say)
    assert phases == ["head", "all layers", "all layers"]
    assert len(history) == 3
    assert equal(model.get_weights(), whole.get_weights())


def test_one_checkpoint_is_kept(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    stop_after: Callable[[int], None],
) -> None:
    stop_after(2)
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(), two_classes, PLAN, tmp_path, say)
    assert {path.name.split(".")[0] for path in tmp_path.iterdir()} == {"best", "state", "epoch-2"}


def test_head_phase_leaves_the_backbone_alone(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    accuracies: Callable[..., None],
) -> None:
    model = new_model()
    accuracies(0.1, 0.9)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    settings = TrainSettings(batch_size=8, head_epochs=1, epochs=0, head_learning_rate=0.01)
    history = train_baseline(model, two_classes, settings, 0, True, tmp_path, say)
    assert len(history) == 1
    changed = [layer.name for layer in model.layers if not equal(layer.get_weights(), before[layer.name])]
    assert changed == ["head"]


@pytest.mark.parametrize("pretrained", [True, False])
def test_statistics_of_a_pretrained_backbone_stay(
    pretrained: bool,
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    accuracies: Callable[..., None],
) -> None:
    model = new_model()
    before = model.get_layer("norm").get_weights()
    first = model.get_layer("first").get_weights()
    accuracies(0.1, 0.9)
    settings = TrainSettings(batch_size=8, head_epochs=0, epochs=1, learning_rate=0.01)
    train_baseline(model, two_classes, settings, 0, pretrained, tmp_path, say)
    assert equal(model.get_layer("norm").get_weights(), before) == pretrained
    assert not equal(model.get_layer("first").get_weights(), first)


def test_best_epoch_is_restored(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    accuracies: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = new_model()
    seen = watch(monkeypatch, model)
    accuracies(0.5, 0.6, 0.9, 0.9)
    history = fit(model, two_classes, PLAN, tmp_path, say)
    assert [record["validation_accuracy"] for record in history] == [0.6, 0.9, 0.9]
    assert equal(model.get_weights(), seen[1])
    assert not equal(model.get_weights(), seen[2])


def test_weights_at_the_start_win_when_training_only_harms(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    accuracies: Callable[..., None],
) -> None:
    model = new_model()
    before = model.get_weights()
    accuracies(0.9, 0.6, 0.7, 0.8)
    fit(model, two_classes, PLAN, tmp_path, say)
    assert equal(model.get_weights(), before)


def test_epochs_before_the_first_eligible_one_are_never_the_best(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    accuracies: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = new_model()
    seen = watch(monkeypatch, model)
    accuracies(1.0, 0.4, 0.3)
    fit(model, two_classes, replace(PLAN, first_eligible_epoch=2), tmp_path, say)
    assert equal(model.get_weights(), seen[1])


@pytest.fixture
def rates(
    tmp_path: Path,
    new_model: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    accuracies: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., list[float]]:
    """Trains under "plateau" while what is watched goes as a test says; the learning rate of every epoch."""

    def run(plateau: PlateauSettings, watched: list[float], learning_rate: float = 0.01) -> list[float]:
        model = new_model()
        found: list[float] = []
        finish = train._finish_epoch

        def script(model: Any, images: Images, plan: Fit, state: train.FitState, fitted: Any, folder: Path) -> None:
            if plateau.monitor in fitted:
                fitted = {**fitted, plateau.monitor: [watched[state.epoch]]}
            finish(model, images, plan, state, fitted, folder)

        monkeypatch.setattr(train, "_finish_epoch", script)
        monkeypatch.setattr(
            train, "_say_epoch", lambda say, plan, state: found.append(float(model.optimizer.learning_rate.numpy()))
        )
        accuracies(0.1, *(watched if plateau.monitor == "validation_accuracy" else [0.1 * n for n in range(10)]))
        plan = replace(PLAN, epochs=len(watched), schedule="plateau", batch_size=24, learning_rate=learning_rate)
        fit(model, two_classes, replace(plan, plateau=plateau), tmp_path, say)
        return found

    return run


def test_plateau_halves_the_rate_after_three_epochs_without_a_new_best(rates: Callable[..., list[float]]) -> None:
    watched = [0.5, 0.6, 0.6, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7, 0.7]
    assert rates(PlateauSettings(), watched) == pytest.approx([0.01] * 5 + [0.005] * 4 + [0.0025])


def test_plateau_takes_patience_factor_and_least_of_the_recipe(rates: Callable[..., list[float]]) -> None:
    plateau = PlateauSettings(patience=1, factor=0.1, least=5e-4)
    assert rates(plateau, [0.5, 0.5, 0.5, 0.5, 0.6]) == pytest.approx([0.01, 0.01, 0.001, 5e-4, 5e-4])


@pytest.mark.parametrize(
    ("monitor", "watched"), [("loss", [0.5, 0.4, 0.6, 0.3, 0.3]), ("accuracy", [0.5, 0.6, 0.4, 0.7, 0.7])]
)
def test_plateau_watches_what_the_recipe_names(
    monitor: typing.Any, watched: list[float], rates: Callable[..., list[float]]
) -> None:
    plateau = PlateauSettings(monitor=monitor, patience=1)
    assert rates(plateau, watched) == pytest.approx([0.01, 0.01, 0.01, 0.005, 0.005])


def test_plateau_never_raises_a_rate_that_is_low_already(rates: Callable[..., list[float]]) -> None:
    plateau = PlateauSettings(patience=1, least=1e-3)
    assert rates(plateau, [0.5, 0.5, 0.5], learning_rate=1e-4) == pytest.approx([1e-4] * 3)


@pytest.mark.parametrize("optimizer", typing.get_args(Optimizer))
def test_every_optimizer_of_a_recipe_trains(
    optimizer: str, tmp_path: Path, new_model: Callable[..., Any], two_classes: Images, say: Reporter
) -> None:
    model = new_model()
    before = model.get_layer("head").kernel.numpy()
    plan = replace(PLAN, epochs=1, batch_size=24, optimizer=optimizer, first_eligible_epoch=1)
    (record,) = fit(model, two_classes, plan, tmp_path, say)
    assert type(model.optimizer).__name__.lower() == optimizer
    assert np.isfinite(record["loss"])
    assert not np.array_equal(model.get_layer("head").kernel.numpy(), before)


def test_sgd_has_momentum(tmp_path: Path, new_model: Callable[..., Any], two_classes: Images, say: Reporter) -> None:
    model = new_model()
    fit(model, two_classes, replace(PLAN, epochs=1, optimizer="sgd"), tmp_path, say)
    assert model.optimizer.momentum == 0.9


# --- learning from the unpruned model ---


@pytest.fixture
def branched() -> Callable[..., Any]:
    """A network with every kind of feature: a batch norm that nothing activates, an addition, pooling layers."""
    import tf_keras as keras

    def build(seed: int) -> Any:
        make_deterministic(seed)
        image = keras.Input((32, 32, 3))
        hidden = keras.layers.Conv2D(8, 3, strides=4, use_bias=False, name="first")(image)
        hidden = keras.layers.BatchNormalization(momentum=0.9, name="activated")(hidden)
        hidden = keras.layers.ReLU(6.0, name="relu")(hidden)
        narrow = keras.layers.Conv2D(4, 1, use_bias=False, name="narrow")(hidden)
        narrow = keras.layers.BatchNormalization(momentum=0.9, name="projected")(narrow)
        other = keras.layers.Conv2D(4, 1, activation="relu", name="other")(hidden)
        hidden = keras.layers.Add(name="add")([narrow, other])
        hidden = keras.layers.MaxPooling2D(name="half")(hidden)
        hidden = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
        return keras.Model(image, keras.layers.Dense(1, "sigmoid", name="head")(hidden))

    return build


FEATURES = ["projected", "add", "half", "pool"]


def test_features_are_those_of_the_unpruned_model(branched: Callable[..., Any], two_classes: Images) -> None:
    import tf_keras as keras

    model = branched(0)
    teacher = Teacher(model, 1.0)
    assert teacher.names == FEATURES
    tensor = to_tensor(two_classes.train[:3], two_classes.contract)
    for name, feature in zip(FEATURES, teacher.features(tensor)):
        expected = keras.Model(model.input, model.get_layer(name).output)(tensor, training=False).numpy()
        np.testing.assert_allclose(feature, expected, atol=1e-6)


def test_features_have_only_the_channels_that_the_student_has(
    branched: Callable[..., Any], two_classes: Images
) -> None:
    model = branched(0)
    tensor = to_tensor(two_classes.train[:3], two_classes.contract)
    whole = Teacher(model, 1.0).features(tensor)
    kept = np.array([3, 0])
    some = Teacher(model, 1.0, {"add": kept, "pool": kept[:1]}).features(tensor)
    np.testing.assert_allclose(some[0], whole[0], atol=1e-6)
    np.testing.assert_allclose(some[1], whole[1][..., kept], atol=1e-6)
    np.testing.assert_allclose(some[3], whole[3][..., kept[:1]], atol=1e-6)


def test_student_beside_a_teacher_is_the_student(branched: Callable[..., Any], two_classes: Images) -> None:
    student = branched(1)
    beside = Teacher(branched(0), 1.0).beside(student)
    tensor = to_tensor(two_classes.train[:3], two_classes.contract)
    output, *features = beside(tensor, training=False)
    np.testing.assert_allclose(output.numpy(), student(tensor, training=False).numpy(), atol=1e-6)
    own = Teacher(student, 1.0).features(tensor)
    assert all(np.allclose(one.numpy(), two, atol=1e-6) for one, two in zip(features, own, strict=True))
    assert [id(variable) for variable in beside.variables] == [id(variable) for variable in student.variables]


def test_distillation_brings_the_features_closer_than_labels_alone(
    tmp_path: Path, branched: Callable[..., Any], two_classes: Images, say: Reporter
) -> None:
    teacher_model = branched(0)
    tensor = to_tensor(two_classes.validation, two_classes.contract)
    wanted = Teacher(teacher_model, 1.0).features(tensor)
    plan = replace(PLAN, epochs=4, augment=(), first_eligible_epoch=4)

    def distance(weight: float) -> float:
        student = branched(7)
        teacher = Teacher(teacher_model, weight) if weight else None
        history = fit(student, two_classes, plan, tmp_path / str(weight), say, (), teacher)
        assert [set(record) for record in history] == [{"loss", "accuracy", "validation_accuracy"}] * 4
        got = Teacher(student, 1.0).features(tensor)
        return float(np.mean([np.mean((a - b) ** 2) / np.mean(a**2) for a, b in zip(wanted, got, strict=True)]))

    assert distance(10.0) < 0.5 * distance(0.0)


def test_interrupted_distillation_goes_on_to_the_same_weights(
    tmp_path: Path,
    branched: Callable[..., Any],
    two_classes: Images,
    say: Reporter,
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    teacher, plan = Teacher(branched(0), 1.0), replace(PLAN, epochs=2, first_eligible_epoch=2)
    whole = branched(1)
    history = fit(whole, two_classes, plan, tmp_path / "whole", say, (), teacher)
    stop_after(1)
    with pytest.raises(KeyboardInterrupt):
        fit(branched(1), two_classes, plan, tmp_path / "cut", say, (), teacher)
    resumed = branched(5)
    seen = watch(monkeypatch, resumed)
    assert fit(resumed, two_classes, plan, tmp_path / "cut", say, (), teacher) == history
    assert equal(resumed.get_weights(), whole.get_weights())
    assert len(seen) == 1


def test_cosine_falls_with_every_step_to_nothing(
    tmp_path: Path, new_model: Callable[..., Any], two_classes: Images, say: Reporter
) -> None:
    model = new_model()
    fit(model, two_classes, PLAN, tmp_path, say)
    rate_of_last_step = 0.01 * (1 + np.cos(np.pi * 8 / 9)) / 2
    assert float(model.optimizer.learning_rate.numpy()) == pytest.approx(rate_of_last_step)


def test_no_epochs_change_nothing(
    tmp_path: Path, new_model: Callable[..., Any], two_classes: Images, say: Reporter
) -> None:
    model = new_model()
    before = model.get_weights()
    assert fit(model, two_classes, replace(PLAN, epochs=0), tmp_path, say) == []
    assert equal(model.get_weights(), before)


@pytest.mark.parametrize(("class_count", "logits"), [(2, False), (2, True), (3, False)])
def test_validation_accuracy_is_the_share_of_right_answers(
    class_count: int, logits: bool, two_classes: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    right = two_classes.validation_labels.copy()
    answers = right.copy()
    answers[:3] = 1 - answers[:3]
    outputs = np.eye(3)[answers] if class_count == 3 else answers[:, np.newaxis] * 0.4 + (-0.1 if logits else 0.3)

    def model(tensor: np.ndarray, training: bool) -> Any:
        assert not training
        np.testing.assert_array_equal(tensor, to_tensor(two_classes.validation, two_classes.contract))
        return tf.constant(outputs)

    monkeypatch.setattr(train, "gives_logits", lambda model: logits)
    assert validation_accuracy(model, two_classes) == 9 / 12


@pytest.mark.parametrize("ways", [("flip",), ("crop",), ("flip", "crop")])
def test_augmentation_depends_on_seed_and_epoch_only(ways: tuple[str, ...], two_classes: Images) -> None:
    plan = replace(PLAN, augment=ways)
    one, same = (train._Batches(two_classes, plan, 1, None)[2] for _ in range(2))
    np.testing.assert_array_equal(one[0], same[0])
    np.testing.assert_array_equal(one[1], same[1])
    assert not np.array_equal(one[0], train._Batches(two_classes, plan, 2, None)[2][0])


def test_every_image_is_met_once_an_epoch(two_classes: Images) -> None:
    batches = train._Batches(two_classes, replace(PLAN, augment=(), batch_size=7), 4, None)
    assert [len(batches[index][1]) for index in range(len(batches))] == [7, 7, 7, 3]
    met = np.concatenate([batches[index][0] for index in range(len(batches))])
    everything = to_tensor(two_classes.train, two_classes.contract)
    assert sorted(image.tobytes() for image in met) == sorted(image.tobytes() for image in everything)
