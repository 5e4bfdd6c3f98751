from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship import train
from liteship.compress.magnitude import kernel_sparsity, prune
from liteship.images import Images
from liteship.progress import Reporter
from liteship.train import Fit, FitState, make_deterministic

PRUNABLE = ("first", "pointwise", "head")


def plan(epochs: int, batch_size: int = 4) -> Fit:
    return Fit("magnitude", epochs, batch_size, "adam", 0.002, "cosine", ("crop",), seed=3)


@pytest.fixture(scope="module")
def baseline(small_network: Callable[..., Any]) -> Any:
    make_deterministic(0)
    return small_network()


def test_every_prunable_kernel_reaches_the_final_sparsity(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter
) -> None:
    import tf_keras as keras

    before = [weight.copy() for weight in baseline.get_weights()]
    model, history = prune(baseline, two_classes, 0.75, plan(3), tmp_path, say)
    assert len(history) == 3
    for name in PRUNABLE:
        kernel = model.get_layer(name).kernel.numpy()
        assert np.mean(kernel == 0) == pytest.approx(0.75, abs=0.01), name
    assert np.count_nonzero(model.get_layer("depthwise").get_weights()[0] == 0) == 0
    assert kernel_sparsity(model) == pytest.approx(0.75, abs=0.01)
    assert [type(layer) for layer in model.layers] == [type(layer) for layer in baseline.layers]
    assert isinstance(model.get_layer("head"), keras.layers.Dense)
    assert model.count_params() == baseline.count_params()
    assert all(np.array_equal(one, two) for one, two in zip(baseline.get_weights(), before, strict=True))


@pytest.mark.parametrize(("epochs", "batch_size"), [(1, 24), (1, 12)])
def test_few_steps_are_enough(
    epochs: int, batch_size: int, baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter
) -> None:
    model, _ = prune(baseline, two_classes, 0.5, plan(epochs, batch_size), tmp_path, say)
    assert kernel_sparsity(model) == pytest.approx(0.5, abs=0.01)


def test_best_epoch_is_one_at_the_final_sparsity(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([1.0, 0.2, 0.9, 0.3])
    monkeypatch.setattr(train, "validation_accuracy", lambda model, images: next(answers))
    model, history = prune(baseline, two_classes, 0.75, plan(4), tmp_path, say)
    assert [record["validation_accuracy"] for record in history] == [1.0, 0.2, 0.9, 0.3]
    assert kernel_sparsity(model) == pytest.approx(0.75, abs=0.01)


def test_interrupted_pruning_goes_on_to_the_same_weights(
    baseline: Any, two_classes: Images, tmp_path: Path, say: Reporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, history = prune(baseline, two_classes, 0.5, plan(3), tmp_path / "whole", say)

    def interrupt(say: Reporter, plan: Fit, state: FitState) -> None:
        if state.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_say_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prune(baseline, two_classes, 0.5, plan(3), tmp_path / "cut", say)
    resumed, same_history = prune(baseline, two_classes, 0.5, plan(3), tmp_path / "cut", say)
    assert same_history == history
    assert all(np.array_equal(one, two) for one, two in zip(resumed.get_weights(), whole.get_weights(), strict=True))
