"""What a study made: one entry per .tflite file, everything that is known about it before it runs.

Written by the host as `models/<study>/manifest.json` and sent with every release. An artefact's identity is the
sha256 of its bytes; size, sparsity, accuracy and latency are only ever joined through it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

from liteship_agent.records import dumps


@dataclass(frozen=True)
class InputContract:
    """How an image becomes the input tensor, the same on host, board and camera.

    A pixel p of 0 to 255 becomes (p - mean) / std per channel; for an integer input that real value becomes
    round(value / scale) + zero_point.

    Args:
        height, width: Pixels of the model's input.
        channel_order: "rgb" or "bgr", the order of the last axis.
        resize: "crop" keeps the aspect ratio and cuts the largest centred part with the input's shape;
            "stretch" does not keep it.
        interpolation: "area" (averages when shrinking, linear when growing) or "linear".
        mean, std: Per channel, in channel_order.
        dtype: "float32", "int8" or "uint8".
        scale, zero_point: Quantization of an integer input, null for float32.
    """

    height: int
    width: int
    channel_order: str
    resize: str
    interpolation: str
    mean: Tuple[float, ...]
    std: Tuple[float, ...]
    dtype: str = "float32"
    scale: Optional[float] = None
    zero_point: Optional[int] = None

    def pixels_key(self) -> str:
        """sha256 of what decides the resized uint8 pixels: contracts that differ in scaling or dtype share them."""
        text = f"{self.height}x{self.width} {self.channel_order} {self.resize} {self.interpolation}"
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class OutputContract:
    """How the output tensor becomes scores.

    Args:
        activation: What the model's last layer gives: "sigmoid" (one unit: probability of the second label), "softmax"
            (one unit per label) or "logits" (either, before its sigmoid or softmax).
        dtype: "float32", "int8" or "uint8".
        scale, zero_point: Quantization of an integer output, null for float32.
    """

    activation: str
    dtype: str = "float32"
    scale: Optional[float] = None
    zero_point: Optional[int] = None


@dataclass(frozen=True)
class Operator:
    """One operator of the file, with its version in TensorFlow's numbering and how often it stands there."""

    name: str
    version: int
    count: int


@dataclass(frozen=True)
class LayerSparsity:
    """Zeros in one weight tensor, counted in the .tflite file."""

    name: str
    weights: int
    zeros: int


@dataclass(frozen=True)
class SparseVerdict:
    """Will XNNPACK's sparse kernels run this file, and if not, the first rule that says no.

    Args:
        eligible: Whether the file meets every rule.
        layer: The first tensor or operator that breaks one, null where none does or the file as a whole breaks it.
        reason: The rule, or what the kernels take.
        holds_for: Runtime and machine of the rules, such as "ai-edge-litert 2.3 on aarch64".
    """

    eligible: bool
    layer: Optional[str]
    reason: str
    holds_for: str


@dataclass(frozen=True)
class Calibration:
    """The training images that int8 ranges were measured on."""

    count: int
    sha256: str
    disjoint_from_validation: bool


@dataclass(frozen=True)
class HostAccuracy:
    """Accuracy of these bytes on the host, through the agent's own runtime and preprocessing."""

    correct: int
    total: int
    runtime: str


@dataclass(frozen=True)
class Parity:
    """The artefact against the model it was converted from, on all validation images.

    Args:
        reference_correct: Images that the unconverted model classifies correctly.
        equal_top1: Images that both give the same label.
        total: Images.
        largest_difference: Of any score.
        max_drop: Largest accepted loss of accuracy, 0 to 1.
        passed: Whether the accuracy lost is at most max_drop. What fails is kept, marked, and never recommended.
    """

    reference_correct: int
    equal_top1: int
    total: int
    largest_difference: float
    max_drop: float
    passed: bool


@dataclass(frozen=True)
class KerasModel:
    """The model that an artefact was converted from.

    Args:
        name: For example `magnitude50`: the part before the quantization in `magnitude50-int8`.
        size_bytes, gzip_bytes: Its file, without optimizer state, plain and after gzip at level 9.
        parameters: Weights, trainable or not.
        removed_filters_ratio: Convolution filters and dense units that were removed, of those of the baseline; null
            where pruning removes none.
    """

    name: str
    size_bytes: int
    gzip_bytes: int
    parameters: int
    removed_filters_ratio: Optional[float] = None


@dataclass(frozen=True)
class Golden:
    """A few images with what the host got for them, in files `golden/<sha256>.npz`.

    Args:
        sha256: Of the file with `scores`, float32, shape (images, labels).
        pixels_sha256: Of the file with `pixels`, uint8, shape (images, height, width, 3), as the host resized them;
            all artefacts that see the same pixels share it.
        tolerance: Largest allowed difference of a score, by runtime.
    """

    sha256: str
    pixels_sha256: str
    tolerance: Mapping[str, float]


@dataclass(frozen=True)
class Lineage:
    """Where an artefact comes from: what held when the file was made; later runs keep what is unchanged."""

    recipe_sha256: str
    data_sha256: str
    git_revision: Optional[str]
    seed: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class ManifestEntry:
    """One artefact.

    Args:
        variant: `<pruning><percent>-<quantization>`, for example `magnitude50-int8`.
        sha256, size_bytes: Of the .tflite file.
        gzip_bytes: Its size after gzip at level 9 with modification time 0.
        requested_sparsity, achieved_sparsity: Ratio of zero weights asked for, and read back from the file.
        sparsity_by_layer: Per weight tensor of a convolution or dense layer.
        keras: The model it was converted from, null for a .tflite that was imported.
        multiply_adds: Of one inference.
        operators, minimum_runtime: What the file needs, in TensorFlow's numbering.
        sparse_verdict: Whether XNNPACK's sparse kernels take it.
        dense_twin_of: sha256 of the artefact whose weights this one stores densely, to time one against the other.
        parity: Against the model it was converted from, null for a .tflite that was imported.
        lineage: How to make it again.
    """

    variant: str
    sha256: str
    size_bytes: int
    gzip_bytes: int
    requested_sparsity: float
    achieved_sparsity: float
    sparsity_by_layer: Tuple[LayerSparsity, ...]
    keras: Optional[KerasModel]
    multiply_adds: int
    operators: Tuple[Operator, ...]
    minimum_runtime: Optional[str]
    sparse_verdict: SparseVerdict
    dense_twin_of: Optional[str]
    parity: Optional[Parity]
    input: InputContract
    output: OutputContract
    calibration: Optional[Calibration]
    host_accuracy: HostAccuracy
    golden: Golden
    lineage: Lineage
    extra: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A variant that could not be made: a row of the table with its reason."""

    variant: str
    stage: str
    reason: str


@dataclass(frozen=True)
class ValidationImage:
    """One file of the validation archive.

    Args:
        path: `<class>/<file name>`.
        label: Index into the labels.
        offset, size: Its bytes in the archive.
    """

    path: str
    label: int
    offset: int
    size: int


@dataclass(frozen=True)
class ValidationSet:
    """The validation images: one deterministic uncompressed tar, read by offset."""

    sha256: str
    size_bytes: int
    images: Tuple[ValidationImage, ...]


@dataclass(frozen=True)
class Manifest:
    """All artefacts of one study; the first entry is the baseline that ratios refer to.

    Args:
        labels: Class names in index order.
    """

    SCHEMA_VERSION: ClassVar[int] = 3

    schema_version: int
    study: str
    labels: Tuple[str, ...]
    entries: Tuple[ManifestEntry, ...]
    failures: Tuple[Failure, ...]
    validation: ValidationSet
    extra: Dict[str, Any] = field(default_factory=dict)

    def sha256(self) -> str:
        """Of the bytes that `write_record` writes."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        return hashlib.sha256(dumps(self)).hexdigest()

    def entry(self, sha256: str) -> Optional[ManifestEntry]:
        """The entry of an artefact, or None."""
        return next((entry for entry in self.entries if entry.sha256 == sha256), None)
