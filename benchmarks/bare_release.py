"""A release of .tflite files of which nothing is known but their input and output, to time them as a job does."""

from __future__ import annotations

import hashlib
import io
import sysconfig
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from liteship.data import Dataset
from liteship.images import write_validation_archive
from liteship_agent.manifest import (
    Golden,
    HostAccuracy,
    InputContract,
    Lineage,
    Manifest,
    ManifestEntry,
    OutputContract,
    SparseVerdict,
)
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import to_tensor
from liteship_agent.records import dumps, write_record
from liteship_agent.release import (
    MANIFEST,
    VALIDATION,
    InstalledRelease,
    Release,
    ReleaseFile,
    ReleaseRuntime,
    artefact_path,
    golden_path,
)
from liteship_agent.runtime import Model

RUNTIME = "site"


def install(folder: Path, files: Sequence[tuple[str, bytes]], dataset: Dataset) -> InstalledRelease:
    """A liteship folder with one release of these files, as a deploy leaves it."""
    contents: dict[str, bytes] = {}
    entries = []
    for name, content in files:
        entry, golden = _describe(name, content)
        entries.append(entry)
        contents[artefact_path(entry.variant)] = content
        contents.update(golden)
    validation = write_validation_archive(dataset, folder / VALIDATION)
    contents[VALIDATION] = (folder / VALIDATION).read_bytes()
    manifest = Manifest(Manifest.SCHEMA_VERSION, "overhead", dataset.classes, tuple(entries), (), validation)
    contents[MANIFEST] = dumps(manifest)
    record = Release(
        schema_version=Release.SCHEMA_VERSION,
        study="overhead",
        runtimes=(ReleaseRuntime(RUNTIME, ""),),
        files=tuple(ReleaseFile(path, hashlib.sha256(content).hexdigest()) for path, content in contents.items()),
    )
    release = InstalledRelease(folder, record.release_id())
    for path, content in contents.items():
        (release.path / path).parent.mkdir(parents=True, exist_ok=True)
        (release.path / path).write_bytes(content)
    write_record(record, release.path / "release.json")
    (folder / "runtimes").mkdir()
    (folder / "runtimes" / RUNTIME).symlink_to(sysconfig.get_path("platlib"))
    return release


def _describe(name: str, content: bytes) -> tuple[ManifestEntry, dict[str, bytes]]:
    """A manifest entry for a file of which only input and output are known, and its golden files by path."""
    model = Model(content, 1, name)
    _, height, width, _ = model.input_shape
    pixels = InputContract(height, width, "rgb", "crop", "area", (127.5,) * 3, (127.5,) * 3)
    pixels = replace(pixels, **_quantization(model.input))
    units = int(model.output["shape"][-1])
    output = replace(OutputContract("sigmoid" if units == 1 else "softmax"), **_quantization(model.output))
    black = np.zeros((1, height, width, 3), np.uint8)
    golden = [_npz(pixels=black), _npz(scores=to_scores(model.run(to_tensor(black, pixels)), output))]
    black_sha256, scores_sha256 = (hashlib.sha256(file).hexdigest() for file in golden)
    entry = ManifestEntry(
        variant=name.replace(" ", "_"),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        gzip_bytes=len(content),
        requested_sparsity=0.0,
        achieved_sparsity=0.0,
        sparsity_by_layer=(),
        keras=None,
        multiply_adds=0,
        operators=(),
        minimum_runtime=None,
        sparse_verdict=SparseVerdict(False, None, "not looked at", ""),
        dense_twin_of=None,
        parity=None,
        input=pixels,
        output=output,
        calibration=None,
        host_accuracy=HostAccuracy(0, 0, ""),
        golden=Golden(scores_sha256, black_sha256, {model.runtime.name: 1.0}),
        lineage=Lineage("", "", None, 0, {}),
    )
    return entry, {golden_path(black_sha256): golden[0], golden_path(scores_sha256): golden[1]}


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _quantization(details: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = details["quantization"]
    dtype = np.dtype(details["dtype"]).name
    return {"dtype": dtype} if dtype == "float32" else {"dtype": dtype, "scale": scale, "zero_point": zero_point}
