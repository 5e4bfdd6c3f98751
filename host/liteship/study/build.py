"""Make what a recipe asks for: one folder under models/.

baseline -> compressed Keras models -> one .tflite per variant -> manifest.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import tomlkit

from liteship.data import Dataset
from liteship.errors import ConversionError, GateError, LiteshipError, RecipeError
from liteship.images import write_validation_archive
from liteship.own.contracts import relabel
from liteship.progress import Reporter
from liteship.recipe import BASELINE, Recipe
from liteship.study.artefacts import Artefacts
from liteship.study.context import Context
from liteship.study.grid import Problems, make_models
from liteship.study.models import Models
from liteship_agent.errors import ModelError
from liteship_agent.manifest import Failure, Manifest, ManifestEntry
from liteship_agent.records import write_atomic, write_record


def build_study(
    recipe: Recipe,
    dataset: Dataset,
    models: Path,
    say: Reporter,
    jobs: int | None = None,
    max_drop: float | None = None,
) -> Manifest:
    """Make every variant of a recipe, or what is still missing of them.

    Args:
        recipe: With the command line's overrides applied.
        dataset: Sound images.
        models: Folder of studies.
        say: Progress.
        jobs: Trainings beside each other; None takes as many as cores and memory allow.
        max_drop: Where a pruned Keras model loses more accuracy than this, nothing sparser is made of its [[compress]].

    Returns:
        The manifest, which is also at `models/<study>/manifest.json`.

    Raises:
        LiteshipError: the data, the weights, a model of the user's own, or the baseline's conversion.
    """
    if recipe.model.labels is not None:
        dataset = relabel(dataset, recipe.model.labels)
    context = Context(recipe, dataset, models / recipe.name, say)
    try:
        _require_possible(context)
        context.contract  # a range that cannot be told is found out here  # noqa: B018
    except LiteshipError:
        _remove_unfinished(context)
        raise
    for name in ("keras", "artefacts", "golden", "predictions"):
        (context.folder / name).mkdir(parents=True, exist_ok=True)
    write_atomic(
        context.folder / "recipe.toml", tomlkit.dumps(recipe.model_dump(mode="json", exclude_none=True)).encode()
    )
    validation = write_validation_archive(dataset, context.folder / "validation.tar")
    problems = make_models(context, jobs, max_drop)
    entries, failures = _make_entries(context, problems)
    manifest = Manifest(
        schema_version=Manifest.SCHEMA_VERSION,
        study=recipe.name,
        labels=dataset.classes,
        entries=tuple(entries),
        failures=tuple(failures),
        validation=validation,
    )
    write_record(manifest, context.folder / "manifest.json")
    _remove_leftovers(context, manifest)
    _point_latest(models, recipe.name)
    return manifest


def _require_possible(context: Context) -> None:
    """Refuse what there are too few images for, or what the user's own model cannot do, before anything is made."""
    own, recipe = context.own, context.recipe
    if any(variant.quantization == "int8" for variant in recipe.variants()):
        _ = context.calibration_files
    if own is None or own.keras is not None:
        return
    possible = ("none",) if own.kind == "tflite" else ("none", "dynamic", "float16", "int8")
    refused = [v.name for v in recipe.variants() if v.pruning != "none" or v.quantization not in possible]
    if refused or recipe.train.head_epochs + recipe.train.epochs:
        raise RecipeError(
            f"{own.path}: variants {', '.join(possible)} without pruning or training are required. "
            f"Received: {', '.join(refused) or 'epochs'}: {own.cannot_compress}"
        )


def _remove_unfinished(context: Context) -> None:
    """Leave nothing behind of a model that was refused."""
    shutil.rmtree(context.keras_folder / ".own", ignore_errors=True)
    for folder in (context.keras_folder, context.folder):
        if folder.is_dir() and not (context.folder / "recipe.toml").exists():
            shutil.rmtree(folder)


def _make_entries(context: Context, problems: Problems) -> tuple[list[ManifestEntry], list[Failure]]:
    artefacts = Artefacts(context, Models(context))
    entries: list[ManifestEntry] = []
    failures: list[Failure] = []
    for variant in context.recipe.variants():
        if variant.model in problems:
            failures.append(Failure(variant.name, *problems[variant.model]))
            continue
        try:
            entries += list(artefacts.entries(variant))  # all or none of them
        except (ConversionError, ModelError) as exc:
            if variant == BASELINE:
                raise ConversionError(f"A baseline that runs is required. Received: {exc}") from exc
            context.say.say(f"{variant.name} failed: {exc}")
            failures.append(Failure(variant.name, "convert", str(exc)))
    parity = entries[0].parity
    if parity is not None and not parity.passed:
        raise GateError(
            f"{entries[0].variant}: an unquantized baseline that loses at most {parity.max_drop:g} of accuracy by "
            f"conversion is required. Received: {entries[0].host_accuracy.correct} of {parity.total} images correct, "
            f"{parity.reference_correct} before it."
        )
    return entries, failures


def _remove_leftovers(context: Context, manifest: Manifest) -> None:
    """Exports, unfinished training, and what an earlier version of the recipe made."""
    for path in context.keras_folder.glob(".*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    names = {name for variant in context.recipe.variants() for name in (variant.model, variant.pruned)}
    for path in context.keras_folder.iterdir():
        made = path.name.removesuffix(".json").rpartition(".")[0]  # a name has a dot too: magnitude12.5
        if made.removesuffix("-ranks") not in names:
            path.unlink()
    variants = {entry.variant for entry in manifest.entries}
    goldens = {sha256 for entry in manifest.entries for sha256 in (entry.golden.sha256, entry.golden.pixels_sha256)}
    artefacts = {entry.sha256 for entry in manifest.entries}
    for path in (context.folder / "artefacts").iterdir():
        if path.name.split(".tflite")[0] not in variants:
            path.unlink()
    for path in (context.folder / "golden").iterdir():
        if path.stem not in goldens:
            path.unlink()
    for path in (context.folder / "predictions").iterdir():
        if path.stem not in artefacts:
            path.unlink()


def _point_latest(models: Path, name: str) -> None:
    """Let `models/latest` point to a study, with one rename."""
    temporary = models / f".latest.{os.getpid()}"
    temporary.symlink_to(name)
    os.replace(temporary, models / "latest")
