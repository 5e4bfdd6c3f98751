from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import tomllib
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest

from liteship.data import Dataset, find_images
from liteship.errors import ConversionError, DataError, GateError, RecipeError
from liteship.flatbuffer import inspect
from liteship.manifests import read_manifest
from liteship.predictions import read_predictions
from liteship.progress import Reporter
from liteship.recipe import Recipe, Variant
from liteship_agent.errors import ModelError
from liteship_agent.manifest import Manifest, ManifestEntry

Build = Callable[..., Manifest]
VARIANTS = ["none-none", "none-dynamic", "none-float16", "none-int8", "magnitude50-none"]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, small_network: Callable[..., Any]) -> list[str]:
    """The expensive things that were done since the test began, in order: train, prune, quantize, convert NAME."""
    from liteship import architectures, convert
    from liteship.study import models

    done: list[str] = []
    monkeypatch.setattr(architectures, "build_model", small_network)

    def spy(owner: Any, name: str, describe: Callable[..., str]) -> None:
        original = getattr(owner, name)

        def noted(*arguments: Any, **options: Any) -> Any:
            done.append(describe(*arguments))
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, noted)

    spy(models, "train_baseline", lambda *arguments: "train")
    spy(models.magnitude, "prune", lambda *arguments: "prune")
    spy(models.qat, "train_quantized", lambda *arguments: "quantize")
    spy(convert, "convert", lambda saved, quantization, *others: f"convert {quantization}")
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
    from liteship.study.build import build_study

    def make(models: Path, data: Dataset = dataset, max_drop: float | None = None, **changes: Any) -> Manifest:
        values = recipe.model_dump(exclude_unset=True)
        return build_study(Recipe.model_validate({**values, **changes}), data, models, say, 1, max_drop)

    return make


def file_times(folder: Path) -> dict[str, int]:
    patterns = ("artefacts/*.tflite", "keras/*.keras", "golden/*", "predictions/*")
    kept = (path for pattern in patterns for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in kept}


def golden_names(manifest: Manifest) -> set[str]:
    return {name for entry in manifest.entries for name in (entry.golden.sha256, entry.golden.pixels_sha256)}


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
    assert unknown == ({"dense_twin_of"} if is_int8 else {"calibration", "dense_twin_of"})
    assert (entry.input.height, entry.input.width, entry.input.channel_order) == (32, 32, "rgb")
    assert entry.input.dtype == entry.output.dtype == ("int8" if is_int8 else "float32")
    assert entry.output.activation == "softmax"
    assert entry.host_accuracy.total == 13
    assert entry.host_accuracy.correct >= 12
    assert entry.host_accuracy.runtime == f"ai-edge-litert=={importlib.metadata.version('ai-edge-litert')}"
    assert set(entry.golden.tolerance) == {"ai-edge-litert", "tflite-runtime"}
    assert {entry.golden.pixels_sha256 for entry in built[1].entries} == {entry.golden.pixels_sha256}
    for sha256 in (entry.golden.sha256, entry.golden.pixels_sha256):
        assert hashlib.sha256((folder / f"golden/{sha256}.npz").read_bytes()).hexdigest() == sha256
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


@pytest.mark.parametrize("variant", ["none-none", "none-int8"])
def test_host_answers_to_every_validation_image_are_kept(
    variant: str, built: tuple[Path, Manifest], dataset: Dataset
) -> None:
    from liteship.images import load_images

    folder, manifest = built
    entry = entry_of(manifest, variant)
    kept = read_predictions(folder, entry.sha256)
    images = load_images(dataset, entry.input, lambda amount: None)
    assert (kept.scores.shape, kept.scores.dtype) == ((13, 3), np.float32)
    right = kept.scores.argmax(axis=1) == images.validation_labels
    assert np.count_nonzero(right) == entry.host_accuracy.correct
    digests = [hashlib.sha256(pixels.tobytes()).hexdigest()[:16] for pixels in images.validation]
    assert list(kept.pixel_hashes) == digests
    assert [image.path for image in manifest.validation.images] == [file.relative for file in dataset.validation]


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut", b"no archive at all"])
def test_artefact_whose_predictions_are_lost_is_made_again(
    content: bytes | None, models: Path, build: Build, work: list[str], built: tuple[Path, Manifest]
) -> None:
    sha256 = entry_of(built[1], "none-float16").sha256
    path = models / f"small/predictions/{sha256}.npz"
    whole = path.read_bytes()
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"predictions of the host are required.*Run the recipe again"):
        read_predictions(models / "small", sha256)
    assert build(models) == built[1]
    assert work == ["convert float16"]
    assert path.read_bytes() == whole


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
    manifest = build(models, calibration={"count": 29})
    calibration = entry_of(manifest, "none-int8").calibration
    assert calibration is not None
    assert (calibration.count, calibration.disjoint_from_validation) == (29, True)  # 30 training images, one a twin
    allowed = [file for file in dataset.train if file.relative != "ape/03.png"]
    lines = [f"{file.relative} {hashlib.sha256(file.path.read_bytes()).hexdigest()}" for file in allowed]
    assert calibration.sha256 == hashlib.sha256(json.dumps(lines).encode()).hexdigest()


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


@pytest.mark.parametrize("variant", VARIANTS)
def test_parity_is_against_the_model_before_conversion(
    variant: str, built: tuple[Path, Manifest], dataset: Dataset
) -> None:
    import tf_keras as keras

    from liteship.evaluate import HostModel
    from liteship.images import load_images
    from liteship_agent.preprocess import to_tensor

    folder, manifest = built
    entry = entry_of(manifest, variant)
    assert entry.keras is not None
    model = keras.models.load_model(folder / f"keras/{entry.keras.name}.keras", compile=False)
    float_input = entry_of(manifest, "none-none").input
    images = load_images(dataset, float_input, lambda amount: None)
    wanted = model(to_tensor(images.validation, float_input), training=False).numpy()
    content = (folder / f"artefacts/{variant}.tflite").read_bytes()
    found = HostModel(content, variant, entry.input, entry.output).scores(images.validation)
    parity = entry.parity
    assert parity is not None
    assert parity.reference_correct == np.count_nonzero(wanted.argmax(axis=1) == images.validation_labels)
    assert parity.equal_top1 == np.count_nonzero(wanted.argmax(axis=1) == found.argmax(axis=1))
    assert parity.largest_difference == pytest.approx(float(np.abs(wanted - found).max()), abs=1e-6)
    assert (parity.total, parity.max_drop) == (13, 0.02)
    if variant.endswith("-none"):
        assert parity.largest_difference < 1e-5
        assert parity.passed


@pytest.mark.parametrize(("variant", "name"), [("none-int8", "none"), ("magnitude50-none", "magnitude50")])
def test_entry_knows_the_keras_file_before_conversion(variant: str, name: str, built: tuple[Path, Manifest]) -> None:
    import tf_keras as keras

    folder, manifest = built
    described = entry_of(manifest, variant).keras
    content = (folder / f"keras/{name}.keras").read_bytes()
    assert described is not None
    assert (described.name, described.removed_filters_ratio) == (name, None)
    assert described.size_bytes == len(content)
    assert described.gzip_bytes == len(gzip.compress(content, 9, mtime=0))
    model = keras.models.load_model(folder / f"keras/{name}.keras", compile=False)
    assert described.parameters == model.count_params()
    with zipfile.ZipFile(folder / f"keras/{name}.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    numbers: list[int] = []
    weights.visititems(lambda path, item: numbers.append(item.size) if isinstance(item, h5py.Dataset) else None)
    assert sum(numbers) < described.parameters + 10  # a metric counts images, an optimizer would hold thousands


# --- what is done again ---


def test_second_run_makes_nothing_anew(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest]
) -> None:
    before = file_times(models / "small")
    assert len(before) == 5 + 2 + 5 + len(golden_names(built[1]))
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
    assert goldens == golden_names(manifest)
    predictions = {path.stem for path in (models / "small/predictions").iterdir()}
    assert predictions == {entry.sha256 for entry in manifest.entries}


class StoppedError(Exception):
    """Nothing more is of interest."""


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch, work: list[str]) -> None:
    """Stops where training or pruning would begin, which is all that most tests want to know."""
    from liteship.study import models

    def stop(step: str) -> Callable[..., Any]:
        def noted(*arguments: Any) -> None:
            work.append(step)
            raise StoppedError

        return noted

    monkeypatch.setattr(models, "train_baseline", stop("train"))
    monkeypatch.setattr(models.magnitude, "prune", stop("prune"))


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
    with pytest.raises(StoppedError):
        build(models, **changes)
    assert work == ["train"]


def test_changed_image_trains_again(
    models: Path, build: Build, no_training: None, work: list[str], photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy(photos / "train/bee/01.png", tmp_path / "photos/train/bee/00.png")
    data = find_images(str(tmp_path / "photos"), split=0.2, seed=0, cache=Path("unused"))
    with pytest.raises(StoppedError):
        build(models, data=data)
    assert work == ["train"]


def test_changed_epochs_of_pruning_leave_the_baseline_alone(
    models: Path, build: Build, no_training: None, work: list[str]
) -> None:
    compress = [{"pruning": "magnitude", "sparsity": [0.5], "epochs": 2, "quantization": ["none"]}]
    with pytest.raises(StoppedError):
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


@pytest.fixture
def loses(models: Path, built: tuple[Path, Manifest]) -> Callable[[int, int], None]:
    """Writes beside the int8 file that so many images were right before conversion, and so many after."""

    def write(before: int, after: int) -> None:
        path = models / "small/artefacts/none-int8.tflite.json"
        facts = json.loads(path.read_text())
        facts["entry"]["parity"]["reference_correct"] = before
        facts["entry"]["host_accuracy"]["correct"] = after
        path.write_text(json.dumps(facts))

    return write


@pytest.mark.parametrize(
    ("before", "after", "max_drop", "passed"),
    [(13, 10, 0.3, True), (13, 10, 0.1, False), (12, 9, 3 / 13, True), (12, 13, 0.0, True), (12, 11, 0.0, False)],
)
def test_changed_limit_of_parity_converts_nothing_but_judges_anew(
    before: int,
    after: int,
    max_drop: float,
    passed: bool,
    models: Path,
    build: Build,
    work: list[str],
    loses: Callable[[int, int], None],
) -> None:
    loses(before, after)
    manifest = build(models, parity={"max_drop": max_drop})
    assert work == []
    parity = entry_of(manifest, "none-int8").parity
    assert parity is not None
    assert (parity.max_drop, parity.passed) == (max_drop, passed)
    assert read_manifest(models / "small") == manifest


@pytest.mark.parametrize("damage", ["changed", "removed", "scores", "pixels", "sidecar"])
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
    elif damage == "pixels":  # which all artefacts share
        (models / f"small/golden/{entry.golden.pixels_sha256}.npz").unlink()
    else:
        (models / f"small/golden/{entry.golden.sha256}.npz").unlink()
    manifest = build(models)
    assert work == ["convert none"] if damage == "pixels" else work == ["convert float16"]
    assert entry_of(manifest, "none-float16").sha256 == entry.sha256
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256


def test_model_without_its_key_is_trained_again(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship.study import models as making

    def stop(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(making, "write_facts", stop)
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

    def refuse(saved: Path, quantization: str, *others: Any, **options: Any) -> bytes:
        if quantization == "int8":
            raise error
        return original(saved, quantization, *others, **options)

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

    def refuse(saved: Path, quantization: str, *others: Any, **options: Any) -> bytes:
        raise ConversionError("none: no.")

    monkeypatch.setattr(convert, "convert", refuse)
    (models / "small/artefacts/none-none.tflite").unlink()
    with pytest.raises(ConversionError, match="none: no"):
        build(models)


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch, work: list[str]) -> Callable[..., None]:
    """Lets pruning to each sparsity give the baseline with the accuracy that a test says, or raise an error."""
    from liteship.study import models as making

    def script(**results: float | Exception) -> None:
        accuracies: list[float] = []

        def prune(model: Any, images: Any, settings: Any, sparsity: float, *others: Any) -> Any:
            result = results[f"to{sparsity * 100:g}"]
            work.append(f"prune {sparsity:g}")
            if isinstance(result, Exception):
                raise result
            accuracies.append(result)
            return model, [{"loss": 0.0, "accuracy": result, "validation_accuracy": result}]

        monkeypatch.setattr(making.magnitude, "prune", prune)
        monkeypatch.setattr(making, "validation_accuracy", lambda model, images: accuracies[-1])

    return script


def failures_of(manifest: Manifest) -> dict[str, tuple[str, str]]:
    return {failure.variant: (failure.stage, failure.reason) for failure in manifest.failures}


def three_sparsities(*quantization: str) -> list[dict[str, Any]]:
    return [{"pruning": "magnitude", "sparsity": [0.75, 0.9, 0.6], "epochs": 1, "quantization": quantization}]


def test_model_that_cannot_be_pruned_fails_in_all_its_variants_and_the_others_go_on(
    models: Path, build: Build, work: list[str], pruned: Callable[..., None]
) -> None:
    pruned(to60=1.0, to75=ConversionError("conv: no.", "Hint."))
    compress = [{**three_sparsities("none", "dynamic")[0], "sparsity": [0.75, 0.6]}]
    manifest = build(models, compress=compress)
    assert [entry.variant for entry in manifest.entries] == ["none-none", "magnitude60-none", "magnitude60-dynamic"]
    reason = ("compress", "conv: no. Hint.")
    assert failures_of(manifest) == {"magnitude75-none": reason, "magnitude75-dynamic": reason}
    assert work == ["prune 0.6", "prune 0.75", "convert none", "convert dynamic"]


def test_branch_ends_where_too_much_is_lost(
    models: Path, build: Build, work: list[str], pruned: Callable[..., None], built: tuple[Path, Manifest]
) -> None:
    pruned(to60=1.0, to75=0.2, to90=1.0)
    manifest = build(models, compress=three_sparsities("none"), max_drop=0.1)
    assert work == ["prune 0.6", "prune 0.75", "convert none", "convert none"]  # in the order of sparsity
    assert [entry.variant for entry in manifest.entries] == ["none-none", "magnitude75-none", "magnitude60-none"]
    ((variant, (stage, reason)),) = failures_of(manifest).items()
    assert (variant, stage) == ("magnitude90-none", "max-drop")
    assert reason.startswith("magnitude75 loses ")
    manifest = build(models, compress=three_sparsities("none"))
    assert manifest.failures == ()
    assert work[4:] == ["prune 0.9", "convert none"]


def test_model_whose_name_has_a_dot_is_kept_and_those_of_an_earlier_recipe_are_not(
    models: Path, build: Build, work: list[str], pruned: Callable[..., None]
) -> None:
    compress = [{"pruning": "magnitude", "sparsity": [0.125], "epochs": 1, "quantization": ["none"]}]
    pruned(**{"to12.5": 1.0})
    first = build(models, compress=compress)
    kept = {path.name for path in (models / "small/keras").iterdir()}
    assert kept == {f"{name}.keras{suffix}" for name in ("none", "magnitude12.5") for suffix in ("", ".json")}
    work.clear()
    assert build(models, compress=compress) == first
    assert work == []


@pytest.mark.parametrize(("count", "refused"), [(None, False), (29, False), (30, True), (100, True)])
def test_more_calibration_images_than_there_are_are_refused_only_where_the_recipe_asks_for_them(
    count: int | None, refused: bool, tmp_path: Path, build: Build, no_training: None, work: list[str]
) -> None:
    changes = {"calibration": {} if count is None else {"count": count}}
    if not refused:
        with pytest.raises(StoppedError):
            build(tmp_path, **changes)
        assert work == ["train"]
        return
    expected = r"calibration\.count: at most the 29 training images .* are required\. Received: " + str(count)
    with pytest.raises(RecipeError, match=expected):
        build(tmp_path, **changes)
    assert work == []
    compress = [{"pruning": "none", "quantization": ["dynamic"]}]
    with pytest.raises(StoppedError):  # without int8 nobody looks at it
        build(tmp_path, compress=compress, **changes)


def test_baseline_that_loses_accuracy_by_conversion_misses_the_gate(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship.study import artefacts

    correct = entry_of(built[1], "none-none").host_accuracy.correct
    scores = artefacts.HostModel.scores
    monkeypatch.setattr(artefacts.HostModel, "scores", lambda model, pixels: np.roll(scores(model, pixels), 1, axis=1))
    shutil.rmtree(models / "small/artefacts")
    (models / "small/artefacts").mkdir()
    expected = rf"none-none: .* Received: \d+ of 13 images correct, {correct} before it\."
    with pytest.raises(GateError, match=expected) as info:
        build(models, compress=[{"pruning": "none", "quantization": ["none"]}])
    assert info.value.exit_code == 4


def test_run_that_was_stopped_while_converting_goes_on_there(
    models: Path, build: Build, work: list[str], built: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship import convert

    original = convert.convert

    def stop(saved: Path, quantization: str, *others: Any, **options: Any) -> bytes:
        if quantization == "dynamic":
            raise KeyboardInterrupt
        return original(saved, quantization, *others, **options)

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


# --- trained quantization ---


@pytest.fixture(scope="module")
def trained_on(
    recipe: Recipe,
    dataset: Dataset,
    small_network: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
    say: Reporter,
) -> tuple[Path, Manifest]:
    """A study of a pretrained network, pruned, with a quantization that trains on."""
    from liteship import architectures
    from liteship.study.build import build_study

    models = tmp_path_factory.mktemp("trained")
    (models / "weights.h5").write_bytes(b"weights")  # only their name and bytes count for the small network
    values = recipe.model_dump(exclude_unset=True)
    values["model"]["weights"] = str(models / "weights.h5")
    values["compress"] = [
        {
            "pruning": "magnitude",
            "sparsity": [0.75],
            "epochs": 1,
            "qat_epochs": 1,
            "qat_learning_rate": 0.01,
            "quantization": ["pqat"],
        }
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "build_model", small_network)
        return models / "small", build_study(Recipe.model_validate(values), dataset, models, say, 1)


def test_trained_quantization_is_an_entry_like_any_other(trained_on: tuple[Path, Manifest]) -> None:
    folder, manifest = trained_on
    assert manifest.failures == ()
    assert [entry.variant for entry in manifest.entries] == ["none-none", "magnitude75-pqat"]
    entry = manifest.entries[1]
    assert entry.keras is not None
    assert entry.parity is not None
    assert entry.keras.name == "magnitude75-pqat"
    assert entry.keras.size_bytes == (folder / "keras/magnitude75-pqat.h5").stat().st_size
    assert (entry.input.dtype, entry.output.dtype, entry.calibration) == ("int8", "int8", None)
    assert entry.parity.largest_difference < 0.1
    assert (folder / "keras/magnitude75.keras").exists()


def test_zeros_of_the_pruned_model_are_in_the_file(trained_on: tuple[Path, Manifest]) -> None:
    for layer in trained_on[1].entries[1].sparsity_by_layer:
        if "depthwise" not in layer.name:
            assert layer.zeros / layer.weights >= 0.74, layer.name


@pytest.mark.parametrize(("share", "refused"), [(0.96, False), (0.94, True)])
def test_zeros_that_are_gone_are_an_error(
    share: float, refused: bool, trained_on: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship.study import artefacts

    entry = entry_of(trained_on[1], "magnitude75-pqat")
    zeros = sum(layer.zeros for layer in entry.sparsity_by_layer)
    monkeypatch.setattr(artefacts, "zero_weights", lambda model: round(zeros / share))
    checked: Any = artefacts.Artefacts(None, SimpleNamespace(load=lambda variant: variant))
    if not refused:
        checked._require_zeros(Variant("magnitude", 0.75, "pqat"), entry)
        return
    with pytest.raises(ConversionError, match=r"^magnitude75-pqat: the .* zeros of magnitude75 are required"):
        checked._require_zeros(Variant("magnitude", 0.75, "pqat"), entry)
    checked._require_zeros(Variant("magnitude", 0.75, "qat"), entry)


# --- stored sparse ---


def sparse_network(settings: object, class_count: int) -> Any:
    """Builds what `build_model` builds for sparse kernels, of a few layers."""
    import tf_keras as keras

    image = keras.Input((32, 32, 3), name="image")
    hidden = keras.layers.ZeroPadding2D(1, name="pad")(image)
    hidden = keras.layers.Conv2D(16, 3, strides=2, use_bias=False, name="first")(hidden)
    hidden = keras.layers.BatchNormalization(momentum=0.9, name="norm")(hidden)
    hidden = keras.layers.ReLU(6.0, name="relu")(hidden)
    hidden = keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(hidden)
    hidden = keras.layers.Conv2D(80, 1, name="pointwise")(hidden)
    hidden = keras.layers.Flatten()(keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(hidden))
    return keras.Model(image, keras.layers.Dense(class_count, "softmax", name="head")(hidden), name="sparse")


@pytest.fixture(scope="module")
def for_sparse_kernels(
    recipe: Recipe, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory, say: Reporter
) -> tuple[Path, Recipe, Manifest]:
    from liteship import architectures
    from liteship.study.build import build_study

    models = tmp_path_factory.mktemp("sparse")
    values = recipe.model_dump(exclude_unset=True)
    values["model"]["architecture"] = "mobilenet_v2_sparse"
    values["compress"] = [{"pruning": "latency", "sparsity": [0.75], "epochs": 1, "quantization": ["none"]}]
    changed = Recipe.model_validate(values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architectures, "build_model", sparse_network)
        return models, changed, build_study(changed, dataset, models, say, 1)


def test_sparse_file_has_a_dense_twin_of_the_same_weights(for_sparse_kernels: tuple[Path, Recipe, Manifest]) -> None:
    models, _, manifest = for_sparse_kernels
    baseline, sparse, twin = manifest.entries
    assert [baseline.variant, sparse.variant, twin.variant] == ["none-none", "latency75-none", "latency75-none-twin"]
    assert (baseline.dense_twin_of, sparse.dense_twin_of, twin.dense_twin_of) == (None, None, sparse.sha256)
    assert [entry.sparse_verdict.eligible for entry in manifest.entries] == [False, True, False]
    assert sparse.size_bytes < twin.size_bytes
    assert sparse.keras == twin.keras
    zeros_of = [{(layer.weights, layer.zeros) for layer in entry.sparsity_by_layer} for entry in (sparse, twin)]
    assert zeros_of[0] == zeros_of[1]
    zeros = {layer.weights: layer.zeros for layer in sparse.sparsity_by_layer}
    assert (zeros[16 * 80], zeros[3 * 3 * 3 * 16], zeros[80 * 3]) == (960, 0, 0)  # 1x1 convolutions only
    assert sparse.host_accuracy == twin.host_accuracy
    assert {path.name for path in (models / "small/artefacts").glob("*.tflite")} == {
        f"{entry.variant}.tflite" for entry in manifest.entries
    }


def test_sparse_file_whose_twin_cannot_be_made_is_a_failure(
    for_sparse_kernels: tuple[Path, Recipe, Manifest],
    dataset: Dataset,
    tmp_path: Path,
    say: Reporter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from liteship import convert
    from liteship.study.build import build_study

    models, changed, _ = for_sparse_kernels
    shutil.copytree(models, tmp_path / "copy", symlinks=True)
    (tmp_path / "copy/small/artefacts/latency75-none-twin.tflite").unlink()

    def refuse(*arguments: Any, **options: Any) -> bytes:
        raise ConversionError("none: no.")

    monkeypatch.setattr(convert, "convert", refuse)
    manifest = build_study(changed, dataset, tmp_path / "copy", say, 1)
    assert [entry.variant for entry in manifest.entries] == ["none-none"]
    assert failures_of(manifest) == {"latency75-none": ("convert", "none: no.")}
