"""Make what a recipe asks for: one folder under models/, every step kept under a key of all that it depends on.

baseline -> pruned models -> one .tflite per variant -> manifest. A step whose key is unchanged is not done again, so
that the same command goes on where an interrupted one stopped, and a changed recipe redoes only what depends on it.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import json
import os
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tf_keras as keras
import tomlkit

from liteship import __version__, architectures, convert, flatbuffer
from liteship.compress import magnitude
from liteship.data import Dataset, ImageFile, overlap
from liteship.errors import ConversionError, DataError
from liteship.evaluate import HostModel, golden_tolerance
from liteship.images import Images, load_images, write_validation_archive
from liteship.progress import Reporter
from liteship.recipe import CompressSettings, Recipe, Variant
from liteship.train import Fit, make_deterministic, train_baseline
from liteship_agent.errors import ModelError, RecordError
from liteship_agent.manifest import (
    Calibration,
    Failure,
    Golden,
    HostAccuracy,
    InputContract,
    Lineage,
    Manifest,
    ManifestEntry,
    OutputContract,
)
from liteship_agent.preprocess import to_tensor
from liteship_agent.records import from_json, parse_json, to_json, write_atomic, write_record

_LIBRARIES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
    "opencv-python-headless",
)


def build_study(recipe: Recipe, dataset: Dataset, models: Path, say: Reporter) -> Manifest:
    """Make every variant of a recipe, or what is still missing of them.

    Args:
        recipe: With the command line's overrides applied.
        dataset: Sound images.
        models: Folder of studies.
        say: Progress.

    Returns:
        The manifest, which is also at `models/<study>/manifest.json`.

    Raises:
        LiteshipError: the data, the weights or the baseline's conversion.
    """
    study = _Study(recipe, dataset, models / recipe.name, say)
    manifest = study.build()
    _point_latest(models, recipe.name)
    return manifest


@dataclass(frozen=True)
class _Study:
    recipe: Recipe
    dataset: Dataset
    folder: Path
    say: Reporter

    def build(self) -> Manifest:
        for name in ("keras", "artefacts", "golden"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        values = self.recipe.model_dump(mode="json", exclude_none=True)
        write_atomic(self.folder / "recipe.toml", tomlkit.dumps(values).encode())
        validation = write_validation_archive(self.dataset, self.folder / "validation.tar")
        entries, failures = [], []
        for variant in self.recipe.variants():
            try:
                entries.append(self._entry(variant))
            except (ConversionError, ModelError) as exc:
                if not entries:
                    raise ConversionError(f"A baseline that runs is required. Received: {exc}") from exc
                self.say.say(f"{variant.name} failed: {exc}")
                failures.append(Failure(variant.name, "convert", str(exc)))
        manifest = Manifest(
            schema_version=Manifest.SCHEMA_VERSION,
            study=self.recipe.name,
            labels=self.dataset.classes,
            entries=tuple(entries),
            failures=tuple(failures),
            validation=validation,
        )
        write_record(manifest, self.folder / "manifest.json")
        self._remove_leftovers(manifest)
        return manifest

    # --- what the steps depend on ---

    @cached_property
    def data_sha256(self) -> str:
        with self.say.task("hash images", len(self.dataset.train) + len(self.dataset.validation)) as advance:
            return self.dataset.sha256(lambda done, total: advance(1))

    @cached_property
    def images(self) -> Images:
        with self.say.task("decode images", len(self.dataset.train) + len(self.dataset.validation)) as advance:
            return load_images(self.dataset, self.contract, advance)

    @cached_property
    def contract(self) -> InputContract:
        return architectures.input_contract(self.recipe.model)

    @cached_property
    def lineage(self) -> Lineage:
        return Lineage(
            recipe_sha256=self.recipe.sha256(),
            data_sha256=self.data_sha256,
            git_revision=_git_revision(),
            seed=self.recipe.seed,
            versions={"liteship": __version__, **{name: importlib.metadata.version(name) for name in _LIBRARIES}},
        )

    @cached_property
    def calibration_files(self) -> list[int]:
        """Indices of the calibration images: training images that are not, byte by byte, also validation images."""
        twins = {file.path for file, _ in overlap(self.dataset)}
        allowed = [index for index, file in enumerate(self.dataset.train) if file.path not in twins]
        count = min(self.recipe.calibration.count, len(allowed))
        return sorted(random.Random(self.recipe.seed).sample(allowed, count))  # noqa: S311

    @cached_property
    def is_pretrained(self) -> bool:
        return self.recipe.model.weights != "none"

    def _model_key(self, variant: Variant) -> str:
        """Of everything that decides the weights of the variant's Keras model."""
        weights = self.recipe.model.weights
        parts: list[Any] = [
            self.data_sha256,
            self.recipe.seed,
            self.recipe.model.model_dump(mode="json"),
            self.recipe.train.model_dump(mode="json"),
            _file_sha256(Path(weights)) if self.is_pretrained and weights != "imagenet" else None,
            dict(self.lineage.versions),
        ]
        if variant.pruning != "none":
            settings = self._compress_settings(variant)
            parts += [variant.model, settings.epochs, settings.learning_rate]
        return _key(parts)

    def _compress_settings(self, variant: Variant) -> CompressSettings:
        return next(settings for settings in self.recipe.compress if variant in settings.variants())

    # --- Keras models ---

    def _model(self, variant: Variant) -> keras.Model:
        """The variant's Keras model, from disk where it is there."""
        path = self.folder / "keras" / f"{variant.model}.keras"
        key = self._model_key(variant)
        if _read_key(path) == key:
            return keras.models.load_model(path, compile=False)
        state = self.folder / "keras" / f".{variant.model}-{key[:16]}"
        make_deterministic(self.recipe.seed)
        model, history = self._train(state) if variant.pruning == "none" else self._prune(variant, state)
        temporary = path.with_name(f".{variant.model}.tmp.keras")
        model.save(temporary)
        _sidecar(path).unlink(missing_ok=True)  # the key of older weights must never stand beside these
        os.replace(temporary, path)
        _write_key(path, key, history=history)
        shutil.rmtree(state, ignore_errors=True)
        return model

    def _train(self, state: Path) -> tuple[keras.Model, list[dict[str, float]]]:
        self.say.say(f"training {self.recipe.model.architecture} on {len(self.dataset.train)} images")
        model = architectures.build_model(self.recipe.model, len(self.dataset.classes))
        history = train_baseline(
            model, self.images, self.recipe.train, self.recipe.seed, self.is_pretrained, state, self.say
        )
        return model, history

    def _prune(self, variant: Variant, state: Path) -> tuple[keras.Model, list[dict[str, float]]]:
        baseline = self._model(self.recipe.variants()[0])
        settings, train = self._compress_settings(variant), self.recipe.train
        self.say.say(f"pruning to {variant.sparsity:.0%}")
        plan = Fit(
            name=variant.model,
            epochs=settings.epochs,
            batch_size=train.batch_size,
            optimizer=train.optimizer,
            learning_rate=settings.learning_rate or train.learning_rate,
            schedule=train.schedule,
            augment=train.augment,
            seed=self.recipe.seed + 2,
        )
        return magnitude.prune(baseline, self.images, variant.sparsity, plan, state, self.say)

    # --- artefacts ---

    def _entry(self, variant: Variant) -> ManifestEntry:
        """The manifest entry of a variant; its files are made when they are not there."""
        path = self.folder / "artefacts" / f"{variant.name}.tflite"
        calibration = self.recipe.calibration.count if variant.quantization == "int8" else None
        key = _key([self._model_key(variant), variant.quantization, calibration])
        if _read_key(path) == key:
            made = self._made_entry(path)
            if made is not None:
                return made
        model = self._model(variant)
        content = self._convert(model, variant)
        entry = self._describe(model, variant, content)
        write_atomic(path, content)
        _write_key(path, key, entry=to_json(entry))
        accuracy = entry.host_accuracy
        self.say.say(
            f"{variant.name}: {entry.size_bytes / 2**20:.2f} MiB, accuracy on the host "
            f"{accuracy.correct / accuracy.total:.1%} of {accuracy.total} images"
        )
        return entry

    def _made_entry(self, path: Path) -> ManifestEntry | None:
        """The entry of an artefact as it was made, or None where one of its files is damaged."""
        try:
            entry: ManifestEntry = from_json(ManifestEntry, _read_sidecar(path)["entry"], str(path))
        except (RecordError, KeyError):
            return None
        golden = self._golden_path(entry.golden.sha256)
        is_whole = _file_sha256(path) == entry.sha256 and golden.exists()
        return entry if is_whole and _file_sha256(golden) == entry.golden.sha256 else None

    def _convert(self, model: keras.Model, variant: Variant) -> bytes:
        saved_model = self.folder / "keras" / f".{variant.model}-saved"
        marker = saved_model / "liteship-key"
        key = self._model_key(variant)
        if not marker.exists() or marker.read_text() != key:
            shutil.rmtree(saved_model, ignore_errors=True)
            convert.export(model, saved_model)
            marker.write_text(key)
        calibration: Sequence[np.ndarray] = ()
        if variant.quantization == "int8":
            tensors = to_tensor(self.images.train[self.calibration_files], self.contract)
            calibration = np.split(tensors, len(tensors))
        return convert.convert(saved_model, variant.quantization, calibration)

    def _describe(self, model: keras.Model, variant: Variant, content: bytes) -> ManifestEntry:
        inspection = flatbuffer.inspect(content, variant.name)
        (tensor_in,), (tensor_out,) = inspection.inputs, inspection.outputs
        contract = InputContract(
            **{
                **self.contract.__dict__,
                "dtype": tensor_in.dtype,
                "scale": tensor_in.scale,
                "zero_point": tensor_in.zero_point,
            }
        )
        output = OutputContract(
            architectures.activation(len(self.dataset.classes)),
            tensor_out.dtype,
            tensor_out.scale,
            tensor_out.zero_point,
        )
        host_model = HostModel(content, variant.name, contract, output)
        with self.say.task(f"evaluate {variant.name}", None):
            scores = host_model.scores(self.images.validation)
        golden = host_model.golden(self.images.validation, scores)
        golden_sha256 = hashlib.sha256(golden).hexdigest()
        write_atomic(self._golden_path(golden_sha256), golden)
        correct = int((scores.argmax(axis=1) == self.images.validation_labels).sum())
        runtime = host_model.model.runtime
        return ManifestEntry(
            variant=variant.name,
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            gzip_bytes=len(gzip.compress(content, 9, mtime=0)),
            requested_sparsity=variant.sparsity,
            achieved_sparsity=inspection.sparsity,
            sparsity_by_layer=inspection.layers,
            parameters=int(model.count_params()),
            multiply_adds=inspection.multiply_adds,
            operators=inspection.operators,
            minimum_runtime=inspection.minimum_runtime,
            sparse_verdict=flatbuffer.sparse_verdict(inspection),
            input=contract,
            output=output,
            calibration=self._calibration() if variant.quantization == "int8" else None,
            host_accuracy=HostAccuracy(correct, len(scores), f"{runtime.name}=={runtime.version}"),
            golden=Golden(golden_sha256, golden_tolerance(variant.quantization, output)),
            lineage=self.lineage,
        )

    def _calibration(self) -> Calibration:
        hashes = self.dataset.hashes()
        files: list[ImageFile] = [self.dataset.train[index] for index in self.calibration_files]
        text = "\n".join(f"{file.relative} {hashes[file.path]}" for file in files)
        return Calibration(len(files), hashlib.sha256(text.encode()).hexdigest(), disjoint_from_validation=True)

    def _golden_path(self, sha256: str) -> Path:
        return self.folder / "golden" / f"{sha256}.npz"

    def _remove_leftovers(self, manifest: Manifest) -> None:
        """Exports, unfinished training, and what an earlier version of the recipe made."""
        for path in (self.folder / "keras").glob(".*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        variants = {entry.variant for entry in manifest.entries}
        goldens = {entry.golden.sha256 for entry in manifest.entries}
        for path in (self.folder / "artefacts").iterdir():
            if path.name.split(".tflite")[0] not in variants:
                path.unlink()
        for path in (self.folder / "golden").iterdir():
            if path.stem not in goldens:
                path.unlink()


def _key(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_sidecar(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = parse_json(_sidecar(path).read_bytes(), str(_sidecar(path)))
    return data


def _read_key(path: Path) -> str | None:
    """The key that a file was made under, or None where there is no whole file."""
    if not (path.exists() and _sidecar(path).exists()):
        return None
    try:
        return str(_read_sidecar(path)["key"])
    except (RecordError, KeyError):
        return None


def _write_key(path: Path, key: str, **more: Any) -> None:
    write_atomic(_sidecar(path), json.dumps({"key": key, **more}, indent=1).encode())


def _file_sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as exc:
        raise DataError(f"{path}: a readable file is required. Received: {exc.strerror}.") from exc


def _git_revision() -> str | None:
    ended = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return ended.stdout.strip() or None


def _point_latest(models: Path, name: str) -> None:
    """Let `models/latest` point to a study, with one rename."""
    temporary = models / f".latest.{os.getpid()}"
    temporary.symlink_to(name)
    os.replace(temporary, models / "latest")
