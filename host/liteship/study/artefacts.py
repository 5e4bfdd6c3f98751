"""The .tflite files of a study: convert, inspect, compare with the model before conversion, describe.

What is known of a file is kept beside it; a file whose key is unchanged and that is whole is not made again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from liteship import convert, flatbuffer
from liteship.compress.magnitude import zero_weights
from liteship.errors import ConversionError, DataError
from liteship.evaluate import HostModel, compare, golden_files, golden_tolerance, keras_scores
from liteship.own import model as own_model
from liteship.predictions import Predictions, read_predictions, write_predictions
from liteship.recipe import Variant
from liteship.study.context import Context
from liteship.study.keyed import file_sha256, gzip_bytes, make_key, read_facts, write_facts
from liteship.study.models import Models
from liteship_agent.errors import RecordError
from liteship_agent.manifest import (
    Golden,
    HostAccuracy,
    InputContract,
    KerasModel,
    ManifestEntry,
    OutputContract,
)
from liteship_agent.records import from_json, to_json, write_atomic

# The least share of a pruned model's zeros that a quantization which preserves them must leave.
_PRESERVED = 0.95


class Artefacts:
    """The .tflite files of one study.

    Args:
        context: What all steps share.
        models: Its Keras models.
    """

    def __init__(self, context: Context, models: Models) -> None:
        self.context, self.models = context, models
        self._reference: tuple[str, np.ndarray] | None = None

    def entries(self, variant: Variant) -> Iterator[ManifestEntry]:
        """The manifest entry of a variant, and of its dense twin where it is stored sparse.

        Raises:
            ConversionError: it cannot be made.
            ModelError: the host's runtime cannot run it.
        """
        if variant.pruning != "latency":
            yield self._entry(variant, variant.name, store_sparse=False)
            return
        sparse = self._entry(variant, variant.name, store_sparse=True)
        yield sparse
        twin = self._entry(variant, f"{variant.name}-twin", store_sparse=False)
        yield replace(twin, dense_twin_of=sparse.sha256)

    def _entry(self, variant: Variant, name: str, *, store_sparse: bool) -> ManifestEntry:
        path = self.context.folder / "artefacts" / f"{name}.tflite"
        key = self._key(variant, store_sparse)
        entry = self._made_entry(path, key)
        if entry is None:
            content = self._content(variant, store_sparse)
            entry = self._describe(variant, name, content)
            write_atomic(path, content)
            write_facts(path, key, entry=to_json(entry))
            self._announce(entry)
        return self._judge(entry)

    def _key(self, variant: Variant, store_sparse: bool) -> str:
        recipe = self.context.recipe
        depends: list[Any] = [self.models.key(variant), variant.quantization, store_sparse]
        depends.append(recipe.convert.model_dump(mode="json"))
        if variant.quantization == "int8":
            depends.append(recipe.calibration.count)
        return make_key(depends)

    def _made_entry(self, path: Path, key: str) -> ManifestEntry | None:
        """The entry of an artefact as it was made, or None where one of its files is missing or damaged."""
        facts = read_facts(path, key)
        try:
            entry: ManifestEntry = from_json(ManifestEntry, (facts or {})["entry"], str(path))
        except (RecordError, KeyError):
            return None
        files = {self.golden_path(sha256): sha256 for sha256 in (entry.golden.sha256, entry.golden.pixels_sha256)}
        files[path] = entry.sha256
        if not all(file.exists() and file_sha256(file) == sha256 for file, sha256 in files.items()):
            return None
        try:
            read_predictions(self.context.folder, entry.sha256)
        except DataError:
            return None
        return entry

    # --- making ---

    @property
    def _is_tflite(self) -> bool:
        return self.context.own is not None and self.context.own.kind == "tflite"

    def _content(self, variant: Variant, store_sparse: bool) -> bytes:
        context = self.context
        if context.own is not None and self._is_tflite:
            return context.own.path.read_bytes()
        calibration = context.calibration_tensors if variant.quantization == "int8" else []
        return convert.convert(
            self._saved_model(variant),
            variant.quantization,
            calibration,
            context.recipe.convert,
            store_sparse=store_sparse,
        )

    def _saved_model(self, variant: Variant) -> Path:
        """The model as a SavedModel, exported once for all its quantizations."""
        own = self.context.own
        if own is not None and own.keras is None:
            return own_model.saved_model(own, self.context.keras_folder / ".own")
        folder = self.context.keras_folder / f".{variant.model}-saved"
        marker = folder / "liteship-key"
        key = self.models.key(variant)
        if not marker.exists() or marker.read_text() != key:
            shutil.rmtree(folder, ignore_errors=True)
            convert.export(self.models.load(variant), folder)
            marker.write_text(key)
        return folder

    def _reference_scores(self, variant: Variant, activation: str) -> np.ndarray | None:
        """What the model before conversion says of the validation images; None for an imported .tflite."""
        if self._is_tflite:
            return None
        own, images = self.context.own, self.context.images
        if self._reference is None or self._reference[0] != variant.model:
            if own is not None and own.keras is None:
                predict = own_model.predictor(own)
            else:
                model = self.models.load(variant)
                predict = partial(model.predict, verbose=0)
            self._reference = variant.model, keras_scores(predict, images, OutputContract(activation))
        return self._reference[1]

    def _describe(self, variant: Variant, name: str, content: bytes) -> ManifestEntry:
        context, images = self.context, self.context.images
        inspection = flatbuffer.inspect(content, name)
        input_contract, output = self._contracts(inspection)
        host_model = HostModel(content, name, input_contract, output)
        with context.say.task(f"evaluate {name}", None):
            scores = host_model.scores(images.validation)
        pixels_sha256, scores_sha256 = (self._keep_golden(file) for file in golden_files(images.validation, scores))
        sha256 = hashlib.sha256(content).hexdigest()
        write_predictions(context.folder, sha256, Predictions.of(scores, images.validation))
        correct = int((scores.argmax(axis=1) == images.validation_labels).sum())
        runtime = host_model.model.runtime
        reference = self._reference_scores(variant, context.activation)
        entry = ManifestEntry(
            variant=name,
            sha256=sha256,
            size_bytes=len(content),
            gzip_bytes=gzip_bytes(content),
            requested_sparsity=variant.sparsity,
            achieved_sparsity=inspection.sparsity,
            sparsity_by_layer=inspection.layers,
            keras=self._keras_model(variant),
            multiply_adds=inspection.multiply_adds,
            operators=inspection.operators,
            minimum_runtime=inspection.minimum_runtime,
            sparse_verdict=flatbuffer.sparse_verdict(inspection),
            dense_twin_of=None,
            parity=None if reference is None else compare(scores, reference, images.validation_labels, 0.0),
            input=input_contract,
            output=output,
            calibration=context.calibration if variant.quantization == "int8" else None,
            host_accuracy=HostAccuracy(correct, len(scores), f"{runtime.name}=={runtime.version}"),
            golden=Golden(scores_sha256, pixels_sha256, golden_tolerance(inspection.quantization, output)),
            lineage=context.lineage,
        )
        self._require_zeros(variant, entry)
        return entry

    def _contracts(self, inspection: flatbuffer.Inspection) -> tuple[InputContract, OutputContract]:
        """How images become the file's input and its output becomes scores, with the scales of the file."""
        (tensor_in,), (tensor_out,) = inspection.inputs, inspection.outputs
        contract = replace(
            self.context.contract, dtype=tensor_in.dtype, scale=tensor_in.scale, zero_point=tensor_in.zero_point
        )
        output = OutputContract(self.context.activation, tensor_out.dtype, tensor_out.scale, tensor_out.zero_point)
        return contract, output

    def _keras_model(self, variant: Variant) -> KerasModel | None:
        own = self.context.own
        if own is None or own.keras is not None:
            return self.models.make(variant).keras
        if own.kind != "keras3":
            return None
        content = own.path.read_bytes()
        return KerasModel(variant.model, len(content), gzip_bytes(content), own.parameters or 0)

    def _require_zeros(self, variant: Variant, entry: ManifestEntry) -> None:
        """The zeros of the pruned model are still there after a training that is to preserve them."""
        if variant.quantization != "pqat":
            return
        wanted = zero_weights(self.models.load(replace(variant, quantization="none")))
        found = sum(layer.zeros for layer in entry.sparsity_by_layer)
        if found < _PRESERVED * wanted:
            raise ConversionError(
                f"{entry.variant}: the {wanted:,} zeros of {variant.pruned} are required. Received: {found:,}."
            )

    def _judge(self, entry: ManifestEntry) -> ManifestEntry:
        """Parity by what the recipe accepts today."""
        if entry.parity is None:
            return entry
        max_drop = self.context.recipe.parity.max_drop
        drop = (entry.parity.reference_correct - entry.host_accuracy.correct) / entry.parity.total
        return replace(entry, parity=replace(entry.parity, max_drop=max_drop, passed=drop <= max_drop))

    def _keep_golden(self, content: bytes) -> str:
        """Write a golden file and give its sha256."""
        sha256 = hashlib.sha256(content).hexdigest()
        write_atomic(self.golden_path(sha256), content)
        return sha256

    def golden_path(self, sha256: str) -> Path:
        """Where the golden file of that sha256 is."""
        return self.context.folder / "golden" / f"{sha256}.npz"

    def _announce(self, entry: ManifestEntry) -> None:
        accuracy = entry.host_accuracy
        self.context.say.say(
            f"{entry.variant}: {entry.size_bytes / 2**20:.2f} MiB, accuracy on the host "
            f"{accuracy.correct / accuracy.total:.1%} of {accuracy.total} images"
        )
