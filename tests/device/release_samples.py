"""A liteship folder as a deploy leaves it: one release of tiny real models, twelve images, this Python's packages."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import cv2
import numpy as np

from liteship_agent.job import BlockRequest, Case, Job, Limits, Tier
from liteship_agent.manifest import (
    Golden,
    HostAccuracy,
    InputContract,
    Lineage,
    Manifest,
    ManifestEntry,
    OutputContract,
    SparseVerdict,
    ValidationImage,
    ValidationSet,
)
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import resize, to_tensor
from liteship_agent.records import dumps, write_record
from liteship_agent.release import (
    AGENT,
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
from tflite_samples import color_classifier, color_contracts

LABELS = ("red", "green", "blue")
IMAGES_PER_CLASS = 4
RUNTIME = "site"
TIER = Tier("test", 2, 4, 0.0, 5.0)
CALM = Limits(
    canary_ratio=1000.0,
    others_cores=1000.0,
    start_celsius=1000.0,
    free_memory_bytes=0,
    free_disk_bytes=0,
    repeats=0,
    stall_seconds=60.0,
    canary_seconds=0.01,
)


def sha(content: bytes | str) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def photograph(label: int, index: int = 0) -> np.ndarray:
    """Blue, green, red noise, brightest in the label's channel; uint8, shape (12, 10 + index, 3)."""
    pixels = np.random.default_rng([label, index]).integers(0, 60, (12, 10 + index, 3), np.uint8)
    pixels[..., 2 - label] += 190
    return pixels


def encode(pixels: np.ndarray, extension: str = ".png") -> bytes:
    done, content = cv2.imencode(extension, pixels)
    assert done
    return content.tobytes()


def photographs() -> list[tuple[str, int, bytes]]:
    """Path, label and file of the validation images; the first "red" one is green in truth, so that one is wrong."""
    found = []
    for label, name in enumerate(LABELS):
        for index in range(IMAGES_PER_CLASS):
            shown = 1 if (label, index) == (0, 0) else label
            found.append((f"{name}/{index}.png", label, encode(photograph(shown, index))))
    return found


def pack(files: Sequence[tuple[str, int, bytes]]) -> tuple[bytes, ValidationSet]:
    """Files one after the other with gaps between, as a tar has them, and their index."""
    content, images = b"", []
    for path, label, data in files:
        content += b"\0" * 512
        images.append(ValidationImage(path, label, len(content), len(data)))
        content += data
    return content, ValidationSet(sha(content), len(content), tuple(images))


def golden_pixels(contract: InputContract) -> np.ndarray:
    """The resized pixels of one image per label."""
    return np.stack([resize(photograph(label), contract) for label in range(len(LABELS))])


def golden_scores(artefact: bytes, pixels: InputContract, contract: OutputContract) -> np.ndarray:
    """What this computer answers to golden pixels."""
    model = Model(artefact, 1, "golden")
    inputs = to_tensor(golden_pixels(pixels), pixels)
    return np.concatenate([to_scores(model.run(inputs[i : i + 1]), contract) for i in range(len(inputs))])


@dataclass(frozen=True)
class Artefact:
    """One artefact of a sample release.

    Args:
        content: Bytes of its manifest entry.
        installed: Bytes on the disk, where they are others.
        sent: False for one that the manifest names and the release does not have.
        scores: Golden ones; the host's own answers where there are none.
    """

    content: bytes
    input: InputContract
    output: OutputContract
    installed: bytes | None = None
    sent: bool = True
    scores: np.ndarray | None = None
    tolerance: float = 1e-3


def good_artefact(dtype: str = "float32") -> Artefact:
    """A classifier that is right about every photograph."""
    return Artefact(color_classifier(dtype=dtype), *color_contracts(dtype=dtype))


def install(
    folder: Path,
    artefacts: Mapping[str, Artefact],
    files: Sequence[tuple[str, int, bytes]] | None = None,
    agent: bytes = b"",
) -> InstalledRelease:
    """Make a release of artefacts by variant; the first is the baseline."""
    archive, validation = pack(photographs() if files is None else files)
    contents = {VALIDATION: archive, AGENT: agent}
    entries = []
    for variant, artefact in artefacts.items():
        pixels, scores = _npz(pixels=golden_pixels(artefact.input)), _npz(scores=_golden_scores(artefact))
        entries.append(_entry(variant, artefact, Golden(sha(scores), sha(pixels), tolerances(artefact))))
        if artefact.sent:
            contents.update({golden_path(sha(file)): file for file in (pixels, scores)})
            contents[artefact_path(variant)] = artefact.content if artefact.installed is None else artefact.installed
    manifest = Manifest(Manifest.SCHEMA_VERSION, "sample", LABELS, tuple(entries), (), validation)
    contents[MANIFEST] = dumps(manifest)
    release = Release(
        schema_version=Release.SCHEMA_VERSION,
        study="sample",
        runtimes=(ReleaseRuntime(RUNTIME, sha(RUNTIME)),),
        files=tuple(ReleaseFile(path, sha(content)) for path, content in contents.items()),
    )
    installed = InstalledRelease(folder, release.release_id())
    for path, content in contents.items():
        (installed.path / path).parent.mkdir(parents=True, exist_ok=True)
        (installed.path / path).write_bytes(content)
    write_record(release, installed.path / "release.json")
    (folder / "runtimes").mkdir()
    (folder / "runtimes" / RUNTIME).symlink_to(sysconfig.get_path("platlib"))
    return installed


def _golden_scores(artefact: Artefact) -> np.ndarray:
    if artefact.scores is not None:
        return artefact.scores
    return golden_scores(color_classifier(), color_contracts()[0], OutputContract("softmax"))


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def tolerances(artefact: Artefact) -> dict[str, float]:
    return {"ai-edge-litert": artefact.tolerance, "tflite-runtime": artefact.tolerance}


def _entry(variant: str, artefact: Artefact, golden: Golden) -> ManifestEntry:
    return ManifestEntry(
        variant=variant,
        sha256=sha(artefact.content),
        size_bytes=len(artefact.content),
        gzip_bytes=len(artefact.content),
        requested_sparsity=0.0,
        achieved_sparsity=0.0,
        sparsity_by_layer=(),
        keras=None,
        multiply_adds=9,
        operators=(),
        minimum_runtime=None,
        sparse_verdict=SparseVerdict(False, None, "no convolution", "ai-edge-litert 2.3 on aarch64"),
        dense_twin_of=None,
        parity=None,
        input=artefact.input,
        output=artefact.output,
        calibration=None,
        host_accuracy=HostAccuracy(11, 12, "ai-edge-litert 2.3.0"),
        golden=golden,
        lineage=Lineage(sha("recipe"), sha("data"), None, 0, {}),
    )


def make_job(release: InstalledRelease, **changes: object) -> Job:
    """A job on every artefact of a release's manifest, which no load of this machine refuses or voids."""
    job = Job(
        schema_version=Job.SCHEMA_VERSION,
        job_id="20261122-101500-0123456789ab",
        target="board",
        release_id=release.release_id,
        tier=TIER,
        cases=tuple(Case(entry.sha256, RUNTIME, 1, (0,)) for entry in release.manifest().entries),
        runtimes={RUNTIME: "ai-edge-litert==2.3.0"},
        limits=CALM,
    )
    return replace(job, **changes)


def make_request(release: InstalledRelease | None = None, **changes: object) -> BlockRequest:
    """What a worker is asked for: a short block of the good artefact, of a process that this one starts."""
    request = BlockRequest(
        folder="folder" if release is None else str(release.folder),
        release_id="release" if release is None else release.release_id,
        artefact=sha(good_artefact().content),
        runtime=RUNTIME,
        threads=1,
        cpus=(),
        min_queries=5,
        min_seconds=0.0,
        max_seconds=60.0,
        seed=0,
        limit=None,
        with_scores=False,
        end_to_end=True,
        agent_pid=os.getpid(),
    )
    return replace(request, **changes)


def hold_lock(folder: Path, job_id: str) -> TextIO:
    """Hold the target as a job of that id does."""
    file = open(folder / "lock", "w")  # noqa: SIM115 (held until it is closed)
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(f"{os.getpid()} {job_id}\n")
    file.flush()
    return file
