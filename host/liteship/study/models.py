"""The Keras models of a study: the baseline, one for every pruning, one for every quantization that trains on.

    baseline -> magnitude50 -> magnitude50-qat
             -> filter50

Each stands in `keras/` under a key of all that it depends on, so that a changed recipe redoes only what follows from
the change. `Models.make` makes one from the model before it; in which order and in how many processes is `grid`'s.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras

from liteship import architectures
from liteship.compress import filters, magnitude, qat
from liteship.errors import RecipeError
from liteship.filter_ranks import read_ranks, write_ranks
from liteship.recipe import BASELINE, TRAINED_QUANTIZATIONS, CompressSettings, Variant
from liteship.report.charts.chart import draw_svg
from liteship.report.charts.filter_ranks import filter_ranks_chart
from liteship.study.context import Context
from liteship.study.keyed import gzip_bytes, make_key, read_facts, sidecar, write_facts
from liteship.train import (
    Fit,
    Teacher,
    feature_layers,
    fit,
    freeze_batch_norm,
    make_deterministic,
    plan_training,
    train_baseline,
    validation_accuracy,
)
from liteship_agent.manifest import KerasModel
from liteship_agent.records import from_json, to_json, write_atomic

History = list[dict[str, float]]


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a finished Keras model.

    Args:
        keras: Its file.
        accuracy: Share of the validation images that it classifies correctly.
        history: One record per epoch.
    """

    keras: KerasModel
    accuracy: float
    history: History


class Models:
    """The Keras models of one study.

    Args:
        context: What all steps share.
    """

    def __init__(self, context: Context) -> None:
        self.context = context

    # --- what a model depends on ---

    def key(self, variant: Variant) -> str:
        """Of everything that decides the weights of the variant's Keras model."""
        recipe = self.context.recipe
        parts: list[Any] = [*self.context.origin_key, recipe.train.model_dump(mode="json")]
        if variant.pruning != "none":
            others = {"sparsity", "quantization", "qat_epochs", "qat_learning_rate"}
            parts += [self.settings(variant).model_dump(mode="json", exclude=others), variant.sparsity]
        if variant.quantization in TRAINED_QUANTIZATIONS:
            settings = self.settings(variant)
            parts += [variant.quantization, settings.qat_epochs, settings.qat_learning_rate]
        return make_key(parts)

    def settings(self, variant: Variant) -> CompressSettings:
        """The [[compress]] that a variant's model comes from."""
        return next(
            settings
            for settings in self.context.recipe.compress
            if variant.model in {other.model for other in settings.variants()} | {o.pruned for o in settings.variants()}
        )

    def path(self, variant: Variant) -> Path:
        """Where it is; layers of quantization-aware training load from .h5 only."""
        suffix = ".h5" if variant.quantization in TRAINED_QUANTIZATIONS else ".keras"
        return self.context.keras_folder / f"{variant.model}{suffix}"

    # --- finished models ---

    def facts(self, variant: Variant) -> ModelFacts | None:
        """What is known of a variant's model, None where it is not made yet."""
        path = self.path(variant)
        facts = read_facts(path, self.key(variant))
        if facts is None:
            return None
        return ModelFacts(from_json(KerasModel, facts["keras"], str(path)), facts["accuracy"], facts["history"])

    def load(self, variant: Variant) -> keras.Model:
        """A model that was made."""
        path = self.path(variant)
        return qat.load(path) if path.suffix == ".h5" else keras.models.load_model(path, compile=False)

    def cost(self, variant: Variant) -> int:
        """Epochs that making it takes, 0 where it is made."""
        if variant == BASELINE or self.facts(variant) is not None:
            return 0
        settings = self.settings(variant)
        return settings.qat_epochs if variant.quantization in TRAINED_QUANTIZATIONS else settings.epochs

    # --- making them ---

    def make(self, variant: Variant) -> ModelFacts:
        """Make a variant's model from the one before it, unless it is there.

        Raises:
            ConversionError: the model cannot be compressed this way.
            RecipeError: settings that do not fit the model.
        """
        made = self.facts(variant)
        if made is not None:
            return made
        state = self.context.keras_folder / f".{variant.model}-{self.key(variant)[:16]}"
        keras.backend.clear_session()
        make_deterministic(self.context.recipe.seed)
        if variant.quantization in TRAINED_QUANTIZATIONS:
            model, history = self._quantize(variant, state)
        elif variant.pruning == "none":
            model, history = self._baseline(state)
        elif variant.pruning == "filter":
            model, history = self._remove_filters(variant, state)
        else:
            model, history = self._prune(variant, state)
        facts = self._keep(variant, model, history)
        shutil.rmtree(state, ignore_errors=True)
        return facts

    def _keep(self, variant: Variant, model: keras.Model, history: History) -> ModelFacts:
        path = self.path(variant)
        temporary = path.with_name(f".{variant.model}.tmp{path.suffix}")
        model.optimizer = None  # what training needs is no part of the model
        model.save(temporary)
        content = temporary.read_bytes()
        removed = None
        if variant.pruning == "filter":
            removed = filters.removed_ratio(read_ranks(self.ranks_path(variant)))
        described = KerasModel(variant.model, len(content), gzip_bytes(content), int(model.count_params()), removed)
        facts = ModelFacts(described, validation_accuracy(model, self.context.images), history)
        sidecar(path).unlink(missing_ok=True)  # the key of older weights must never stand beside these
        os.replace(temporary, path)
        values = {"keras": to_json(described), "accuracy": facts.accuracy, "history": history}
        write_facts(path, self.key(variant), **values)
        return facts

    def _baseline(self, state: Path) -> tuple[keras.Model, History]:
        context = self.context
        recipe, images = context.recipe, context.images
        model = context.own.keras if context.own is not None else None
        if model is None:
            model = architectures.build_model(recipe.model, len(context.dataset.classes))
        self.check(model)
        if recipe.train.head_epochs + recipe.train.epochs == 0:
            return model, []
        context.say.say(f"training {model.name} on {len(images.train)} images")
        history = train_baseline(model, images, recipe.train, recipe.seed, context.is_pretrained, state, context.say)
        return model, history

    def check(self, model: keras.Model) -> None:
        """Find out before long training whether the model can be compressed as the recipe says.

        Raises:
            RecipeError: a pattern that matches no layer, a network that sparse kernels do not run, or more filters
                than can go.
            ConversionError: a layer that filter pruning cannot follow, or that cannot be quantized in training.
        """
        for settings in self.context.recipe.compress:
            if settings.distill and not feature_layers(model):
                raise RecipeError(
                    "compress.distill: a network with residual additions or pooling is required. "
                    f"Received: {model.name} without."
                )
            if settings.trains_quantized:
                qat.quantize(model, False)  # takes seconds, and fails where it would fail after hours
            if settings.pruning in ("magnitude", "latency"):
                magnitude.layer_sparsities(model, settings, settings.sparsity[0])
            elif settings.pruning == "filter":
                filters.check(model, max(settings.sparsity), settings.of)

    def _prune(self, variant: Variant, state: Path) -> tuple[keras.Model, History]:
        settings = self.settings(variant)
        plan = self._plan(variant, settings)
        return magnitude.prune(
            self.load(BASELINE), self.context.images, settings, variant.sparsity, plan, state, self.context.say
        )

    def _remove_filters(self, variant: Variant, state: Path) -> tuple[keras.Model, History]:
        context, settings = self.context, self.settings(variant)
        baseline = self.load(BASELINE)
        plan = self._plan(variant, settings)
        history: History = []

        def fine_tune(model: keras.Model, number: int, channels: Mapping[str, np.ndarray]) -> None:
            for layer in model.layers:
                layer.trainable = True
            freeze_batch_norm(model, settings.batch_norm == "frozen")
            teacher = Teacher(baseline, settings.distill, channels) if settings.distill else None
            epochs = plan.epochs // settings.rounds + (number <= plan.epochs % settings.rounds)
            part = replace(plan, epochs=epochs, seed=plan.seed + number, name=f"{plan.name}, round {number}")
            history.extend(fit(model, context.images, part, state / f"round-{number}", context.say, (), teacher))

        model, ranks = filters.prune(
            baseline,
            context.images,
            variant.sparsity,
            settings.criterion,
            settings.of,
            settings.rounds,
            fine_tune,
            context.recipe.seed,
        )
        write_ranks(ranks, self.ranks_path(variant))
        picture = draw_svg(filter_ranks_chart(ranks, variant.model))
        write_atomic(self.ranks_path(variant).with_suffix(".svg"), picture.encode())
        return model, history

    def ranks_path(self, variant: Variant) -> Path:
        """The rank of every filter, as CSV; the plot has the suffix .svg."""
        return self.context.keras_folder / f"{variant.model}-ranks.csv"

    def _quantize(self, variant: Variant, state: Path) -> tuple[keras.Model, History]:
        context, settings = self.context, self.settings(variant)
        plan = replace(
            plan_training(
                variant.model,
                context.recipe.train,
                settings.qat_epochs,
                settings.qat_learning_rate,
                context.recipe.seed + 3,
            ),
            first_eligible_epoch=1,  # before it the ranges of the activations are not known
        )
        return qat.train_quantized(
            self.load(replace(variant, quantization="none")),
            context.images,
            variant.quantization == "pqat",
            context.is_pretrained,
            plan,
            state,
            context.say,
        )

    def _plan(self, variant: Variant, settings: CompressSettings) -> Fit:
        train = self.context.recipe.train
        rate = settings.learning_rate or train.learning_rate
        plan = plan_training(variant.model, train, settings.epochs, rate, self.context.recipe.seed + 2)
        return replace(plan, batch_size=settings.batch_size or train.batch_size)
