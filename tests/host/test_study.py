from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import os
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship.data import Dataset, find_images
from liteship.errors import ConversionError
from liteship.flatbuffer import inspect
from liteship.manifests import read_manifest
from liteship.progress import Reporter
from liteship.recipe import Recipe
from liteship_agent.errors import ModelError
from liteship_agent.manifest import Manifest, ManifestEntry

Build = Callable[..., Manifest]
VARIANTS = ["none-none", "none-dynamic", "none-float16", "none-int8", "magnitude50-none"]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, small_network: Callable[..., Any]) -> list[str]:
    """The expensive things that were done since the test began, in order: train, prune, convert QUANTIZATION."""
    from liteship import architectures, convert, study

    done: list[str] = []
    monkeypatch.setattr(architectures, "build_model", small_network)

    def spy(owner: Any, name: str, describe: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def noted(*arguments: Any) -> Any:
            done.append(describe(*arguments))
            return original(*arguments)

        monkeypatch.setattr(owner, name, noted)

    spy(study, "train_baseline", lambda *arguments: "train")
    spy(study.magnitude, "prune", lambda *arguments: "prune")
    spy(convert, "convert", lambda saved, quantization, images: f"convert {quantization}")
    return done


@pytest.fixture
def models(built: tuple[Path, Manifest], tmp_path: Path) -> Path:
    """A copy of the finished study's models folder."""
    folder = tmp_path / "models"
    shutil.copytree(built[0].parent, folder, symlinks=True)
    return folder


@pytest.fixture
def build(recipe: Recipe, dataset: Dataset, say: Reporter) -> Build:
    """Makes the study of the recipe with changed settings."""
    from liteship.study import build_study

    def make(models: Path, data: Dataset = dataset, **changes: Any) -> Manifest:
        values = recipe.model_dump(exclude_unset=True)
        return build_study(Recipe.model_validate({**values, **changes}), data, models, say)

    return make


def file_times(folder: Path) -> dict[str, int]:
    kept = (*folder.glob("artefacts/*.tflite"), *folder.glob("keras/*.keras"), *folder.glob("golden/*"))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in kept}


def entry_of(manifest: Manifest, variant: str) -> ManifestEntry:
    return next(entry for entry in manifest.entries if entry.variant == variant)


# --- the manifest ---


def test_manifest_lists_every_variant_in_order_baseline_first(built: tuple[Path, Manifest], recipe: Recipe) -> None:
    folder, manifest = built
    assert [entry.variant for entry in manifest.entries] == VARIANTS
    assert (manifest.study, manifest.labels, manifest.failures) == ("small", ("ape", "bee", "cat"), ())
    assert read_manifest(folder) == manifest
    assert os.readlink(folder.parent / "latest") == "small"
    written = Recipe.model_validate(tomllib.loads((folder / "recipe.toml").read_text()))
    assert written.sha256() == recipe.sha256()


@pytest.mark.parametrize("variant", VARIANTS)
def test_entry_describes_the_file(variant: str, built: tuple[Path, Manifest]) -> None:
    folder, manifest = built
    entry = entry_of(manifest, variant)
    content = (folder / f"artefacts/{variant}.tflite").read_bytes()
    inspection = inspect(content, variant)
    assert entry.sha256 == hashlib.sha256(content).hexdigest()
    assert entry.size_bytes == len(content)
    assert entry.gzip_bytes == len(gzip.compress(content, 9, mtime=0))
    assert gzip.decompress(gzip.compress(content, 9, mtime=0)) == content
    assert entry.sparsity_by_layer == inspection.layers
    assert entry.achieved_sparsity == inspection.sparsity
    assert entry.operators == inspection.operators
    assert entry.minimum_runtime == inspection.minimum_runtime
    assert entry.multiply_adds == inspection.multiply_adds > 0
    assert not entry.sparse_verdict.eligible


@pytest.mark.parametrize("variant", VARIANTS)
def test_entry_knows_everything_that_can_be_known_here(
    variant: str, built: tuple[Path, Manifest], recipe: Recipe, dataset: Dataset
) -> None:
    folder, manifest = built
    entry = entry_of(manifest, variant)
    is_int8 = variant.endswith("int8")
    unknown = {field.name for field in fields(entry) if getattr(entry, field.name) is None}
    assert unknown == (set() if is_int8 else {"calibration"})
    assert (entry.input.height, entry.input.width, entry.input.channel_order) == (32, 32, "rgb")
    assert entry.input.dtype == entry.output.dtype == ("int8" if is_int8 else "float32")
    assert entry.output.activation == "softmax"
    assert entry.parameters == entry_of(manifest, "none-none").parameters
    assert entry.host_accuracy.total == 13
    assert entry.host_accuracy.correct >= 12
    assert entry.host_accuracy.runtime == f"ai-edge-litert=={importlib.metadata.version('ai-edge-litert')}"
    assert set(entry.golden.tolerance) == {"ai-edge-litert", "tflite-runtime"}
    golden = folder / f"golden/{entry.golden.sha256}.npz"
    assert hashlib.sha256(golden.read_bytes()).hexdigest() == entry.golden.sha256
    lineage = entry.lineage
    assert (lineage.recipe_sha256, lineage.data_sha256, lineage.seed) == (recipe.sha256(), dataset.sha256(), 0)
    assert lineage.git_revision is None or len(lineage.git_revision) == 40
    assert set(lineage.versions) >= {"liteship", "tensorflow", "tf-keras", "tensorflow-model-optimization", "numpy"}


def test_host_accuracy_is_what_the_scores_of_the_file_say(built: tuple[Path, Manifest], dataset: Dataset) -> None:
    from liteship.evaluate import HostModel
    from liteship.images import load_images

    folder, manifest = built
    entry = entry_of(manifest, "none-int8")
    model = HostModel((folder / "artefacts/none-int8.tflite").read_bytes(), "x", entry.input, entry.output)
    images = load_images(dataset, entry.input, lambda amount: None)
    answers = model.scores(images.validation).argmax(axis=1)
    assert entry.host_accuracy.correct == np.count_nonzero(answers == images.validation_labels)


def test_pruned_variant_has_the_requested_sparsity(built: tuple[Path, Manifest]) -> None:
    baseline, pruned = (entry_of(built[1], variant) for variant in ("none-none", "magnitude50-none"))
    assert (baseline.requested_sparsity, pruned.requested_sparsity) == (0.0, 0.5)
    for layer in pruned.sparsity_by_layer:
        assert layer.zeros / layer.weights == pytest.approx(0 if "depthwise" in layer.name else 0.5, abs=0.01)
    assert pruned.gzip_bytes < baseline.gzip_bytes
    assert baseline.achieved_sparsity == 0


def test_calibration_leaves_out_images_that_are_validation_images_too(
    built: tuple[Path, Manifest], models: Path, build: Build, work: list[str], dataset: Dataset
) -> None:
    assert entry_of(built[1], "none-int8").calibration is not None
    manifest = build(models, calibration={"count": 100})
    calibration = entry_of(manifest, "none-int8").calibration
    assert calibration is not None
    assert (calibration.count, calibration.disjoint_from_validation) == (29, True)  # 30 training images, one a twin
    allowed = [file for file in dataset.train if file.relative != "ape/03.png"]
    lines = [f"{file.relative} {hashlib.sha256(file.path.read_bytes()).hexdigest()}" for file in allowed]
    assert calibration.sha256 == hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_validation_archive_is_that_of_the_manifest(built: tuple[Path, Manifest]) -> None:
    folder, manifest = built
    content = (folder / "validation.tar").read_bytes()
    assert manifest.validation.sha256 == hashlib.sha256(content).hexdigest()
    assert len(manifest.validation.images) == 13


def test_finished_study_holds_no_state_of_its_making(built: tuple[Path, Manifest]) -> None:
    assert sorted(path.name for path in (built[0] / "keras").iterdir()) == [
        "magnitude50.keras",
        "magnitude50.keras.json",
        "none.keras",
        "none.keras.json",
    ]


# --- what is done again ---


def test_second_run_makes_nothing_anew(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest]
) -> None:
    before = file_times(models / "small")
    assert len(before) == 5 + 2 + len({entry.golden.sha256 for entry in built[1].entries})
    assert build(models) == built[1]
    assert work == []
    assert file_times(models / "small") == before


def test_more_quantizations_convert_only_the_new_variants(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest]
) -> None:
    compress = [
        {"pruning": "none", "quantization": ["none", "float16"]},
        {"pruning": "magnitude", "sparsity": [0.5], "epochs": 1, "quantization": ["none", "dynamic"]},
    ]
    manifest = build(models, compress=compress)
    assert work == ["convert dynamic"]
    variants = ["none-none", "none-float16", "magnitude50-none", "magnitude50-dynamic"]
    assert [entry.variant for entry in manifest.entries] == variants
    assert entry_of(manifest, "none-float16") == entry_of(built[1], "none-float16")
    artefacts = {path.name for path in (models / "small/artefacts").iterdir()}
    assert artefacts == {f"{name}.tflite{suffix}" for name in variants for suffix in ("", ".json")}
    goldens = {path.stem for path in (models / "small/golden").iterdir()}
    assert goldens == {entry.golden.sha256 for entry in manifest.entries}


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, work: list[str]) -> None:
    """Stops where training or pruning would begin, which is all that most tests want to know."""
    from liteship import study

    def stop(step: str) -> Callable[..., Any]:
        def noted(*arguments: Any) -> None:
            work.append(step)
            raise KeyboardInterrupt

        return noted

    monkeypatch.setattr(study, "train_baseline", stop("train"))
    monkeypatch.setattr(study.magnitude, "prune", stop("prune"))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"train": {"batch_size": 5, "head_epochs": 0, "epochs": 2, "learning_rate": 0.01}},
        {"model": {"architecture": "mobilenet_v2", "alpha": 0.5, "input": [32, 32]}},
    ],
    ids=["seed", "epochs", "model"],
)
def test_changed_model_or_training_trains_again(
    changes: dict[str, Any], models: Path, build: Build, no_training: None, work: list[str]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        build(models, **changes)
    assert work == ["train"]


def test_changed_image_trains_again(
    models: Path, build: Build, no_training: None, work: list[str], photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy(photos / "train/bee/01.png", tmp_path / "photos/train/bee/00.png")
    data = find_images(str(tmp_path / "photos"), split=0.2, seed=0, cache=Path("unused"))
    with pytest.raises(KeyboardInterrupt):
        build(models, data=data)
    assert work == ["train"]


def test_changed_epochs_of_pruning_leave_the_baseline_alone(
    models: Path, build: Build, no_training: None, work: list[str]
) -> None:
    compress = [{"pruning": "magnitude", "sparsity": [0.5], "epochs": 2, "quantization": ["none"]}]
    with pytest.raises(KeyboardInterrupt):
        build(models, compress=compress)
    assert work == ["prune"]


def test_settings_that_no_file_depends_on_make_nothing_anew(models: Path, build: Build, work: list[str]) -> None:
    build(models, bench={"tier": "quick"})
    assert work == []


def test_changed_calibration_converts_int8_only(models: Path, build: Build, work: list[str]) -> None:
    calibration = entry_of(build(models, calibration={"count": 5}), "none-int8").calibration
    assert calibration is not None
    assert calibration.count == 5
    assert work == ["convert int8"]


@pytest.mark.parametrize("damage", ["changed", "removed", "golden", "sidecar"])
def test_damaged_artefact_is_made_again(
    damage: str, models: Path, build: Build, work: list[str], built: tuple[Path, Manifest]
) -> None:
    entry = entry_of(built[1], "none-float16")
    path = models / "small/artefacts/none-float16.tflite"
    if damage == "changed":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "removed":
        path.unlink()
    elif damage == "sidecar":
        path.with_name(path.name + ".json").write_text('{"key": ')
    else:
        (models / f"small/golden/{entry.golden.sha256}.npz").unlink()
    manifest = build(models)
    assert work == ["convert float16"]
    assert entry_of(manifest, "none-float16").sha256 == entry.sha256
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256


def test_model_without_its_key_is_trained_again(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship import study

    def stop(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(study, "_write_key", stop)
        with pytest.raises(KeyboardInterrupt):
            build(models, seed=1)  # its weights have their name by now, the key beside them is not theirs
    (models / "small/artefacts/none-none.tflite").unlink()
    manifest = build(models)
    assert work == ["train", "train", "convert none"]
    assert manifest.entries[0].sha256 == built[1].entries[0].sha256
    assert not list((models / "small/keras").glob(".*"))


# --- failures and interruptions ---


@pytest.mark.parametrize("error", [ConversionError("int8: no.", "Hint."), ModelError("none-int8: cannot load")])
def test_variant_that_cannot_be_converted_is_a_failure_with_its_reason(
    error: Exception, models: Path, build: Build, work: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship import convert

    original = convert.convert

    def refuse(saved: Path, quantization: str, images: Any) -> bytes:
        if quantization == "int8":
            raise error
        return original(saved, quantization, images)

    monkeypatch.setattr(convert, "convert", refuse)
    (models / "small/artefacts/none-int8.tflite").unlink()
    manifest = build(models)
    assert [entry.variant for entry in manifest.entries] == [name for name in VARIANTS if name != "none-int8"]
    ((variant, stage, reason),) = [(failure.variant, failure.stage, failure.reason) for failure in manifest.failures]
    assert (variant, stage, reason) == ("none-int8", "convert", str(error))
    monkeypatch.setattr(convert, "convert", original)
    assert build(models).failures == ()


def test_baseline_that_cannot_be_converted_is_an_error(
    models: Path, build: Build, work: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship import convert

    def refuse(saved: Path, quantization: str, images: Any) -> bytes:
        raise ConversionError("none: no.")

    monkeypatch.setattr(convert, "convert", refuse)
    (models / "small/artefacts/none-none.tflite").unlink()
    with pytest.raises(ConversionError, match="none: no"):
        build(models)


def test_run_that_was_stopped_while_converting_goes_on_there(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship import convert

    original = convert.convert

    def stop(saved: Path, quantization: str, images: Any) -> bytes:
        if quantization == "dynamic":
            raise KeyboardInterrupt
        return original(saved, quantization, images)

    shutil.rmtree(models / "small/artefacts")
    monkeypatch.setattr(convert, "convert", stop)
    with pytest.raises(KeyboardInterrupt):
        build(models)
    monkeypatch.setattr(convert, "convert", original)
    work.clear()
    manifest = build(models)
    assert work == ["convert dynamic", "convert float16", "convert int8", "convert none"]
    assert [entry.sha256 for entry in manifest.entries] == [entry.sha256 for entry in built[1].entries]
    assert not list((models / "small/keras").glob(".*"))


def test_run_that_was_stopped_while_pruning_gives_the_same_files(
    tmp_path: Path,
    build: Build,
    work: list[str],
    built: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from liteship import train

    say_epoch = train._say_epoch

    def stop(say: Reporter, plan: train.Fit, state: train.FitState) -> None:
        if plan.name == "magnitude50":
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "_say_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    assert not (tmp_path / "small/manifest.json").exists()
    monkeypatch.setattr(train, "_say_epoch", say_epoch)
    manifest = build(tmp_path)
    assert [entry.sha256 for entry in manifest.entries] == [entry.sha256 for entry in built[1].entries]
    assert work.count("train") == 1
