"""Published figures and ours, row by row, with what differs between the two.

The milliseconds of two machines are never subtracted: what is compared is how many times the latency of the same model
in float a model takes on its own machine. Every figure of ours belongs to bytes that are read again here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from liteship.built_in import EMULATED
from liteship.errors import ReportError, UsageError
from liteship.manifests import read_manifest
from liteship.recipe import Recipe, load_recipe
from liteship.report.comparison import Comparison, Row
from liteship.report.reference import Conditions, Experiment, Reference, ReferenceRow
from liteship.report.text import count
from liteship.stats import paired_ratio
from liteship_agent.manifest import Manifest

_MIB = 2**20
LATENCY_MS, LATENCY_RATIO, ACCURACY, PARAMETERS = "latency_ms", "latency_ratio", "accuracy_ratio", "parameters"
_SIZES = {
    "file_mib": "size_bytes",
    "gzip_mib": "gzip_bytes",
    "keras_file_mib": "keras_size_bytes",
    "keras_gzip_mib": "keras_gzip_bytes",
}
FIGURES = (*_SIZES, PARAMETERS, ACCURACY, LATENCY_MS, LATENCY_RATIO)
_OF_ANY_ROW = ("file_mib", "gzip_mib", ACCURACY)
"""What is shown of ours where nothing was published."""

_Bounded = tuple[float | None, float | None, float | None]


@dataclass(frozen=True)
class Figure:
    """One published figure beside ours; None does not exist.

    Args:
        name: One of `FIGURES`: `_mib` sizes, `accuracy_ratio` on the machine that measured, `latency_ratio` a multiple
            of the latency of the same model in float.
        theirs, ours: In the unit of the name.
        ours_low, ours_high: 95 % interval.
        difference: Ours less theirs; of accuracy and parameters.
        ratio: Ours as a multiple of theirs; of sizes and of `latency_ratio`.
    """

    name: str
    theirs: float | None
    ours: float | None
    ours_low: float | None = None
    ours_high: float | None = None
    difference: float | None = None
    ratio: float | None = None


@dataclass(frozen=True)
class RowBeside:
    """One published row beside ours.

    Args:
        name: In its author's terms.
        variant: Of ours.
        status: Of our row, or why there is none.
        figures: Those that were published; without any the usual ones of ours.
    """

    name: str
    variant: str
    status: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Condition:
    """What stands on both sides and is not the same; None is not known."""

    what: str
    theirs: str | None
    ours: str | None


@dataclass(frozen=True)
class ExperimentBeside:
    """One published table beside ours."""

    id: str
    what: str
    rows: tuple[RowBeside, ...]
    differs: tuple[Condition, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class OtherExperiment:
    """One that other studies stand beside, or that is about the bytes of any study.

    Args:
        notes: Why it has no figures; nothing where it has.
        verdict: Of one about bytes, in words.
    """

    id: str
    what: str
    studies: tuple[str, ...]
    notes: tuple[str, ...]
    verdict: str | None = None


@dataclass(frozen=True)
class Against:
    """All that is shown.

    Args:
        reference: What the published figures are of.
        study, target, job_id, date: What ours are of.
        experiments: Those that the study stands beside.
        others: The rest, so that none is forgotten.
    """

    reference: str
    study: str
    target: str
    job_id: str
    date: str | None
    experiments: tuple[ExperimentBeside, ...]
    others: tuple[OtherExperiment, ...]


def build_against(reference: Reference, comparison: Comparison, manifest: Manifest, folder: Path) -> Against:
    """Published figures beside those of a measurement.

    Args:
        reference: The published ones.
        comparison: Of the measurement.
        manifest: That it was made from.
        folder: Of the study, with its recipe and artefacts.

    Raises:
        UsageError: no experiment stands beside this study.
        ReportError: a file has other bytes than those that its row's figures are of.
    """
    header = comparison.header
    experiments = reference.of_study(header.study)
    if not experiments:
        known = "; ".join(
            f"{experiment.id}: {', '.join(experiment.studies)}"
            for experiment in reference.experiment
            if experiment.studies
        )
        raise UsageError(
            f"A study that stands beside published figures is required ({known}). Received: {header.study}.",
            f"Make one: liteship run benchmarks/{_first_study(reference)}.toml",
        )
    recipe = load_recipe(folder / "recipe.toml") if (folder / "recipe.toml").is_file() else None
    identity = check_bytes(comparison, folder)
    return Against(
        reference=reference.name,
        study=header.study,
        target=header.target,
        job_id=header.job_id,
        date=header.date,
        experiments=tuple(
            ExperimentBeside(
                id=experiment.id,
                what=experiment.what,
                rows=tuple(_row_beside(experiment, row, comparison) for row in experiment.row),
                differs=tuple(_differing(experiment, reference.conditions, comparison, manifest, recipe)),
                notes=experiment.notes + _recipe_notes(recipe, manifest),
            )
            for experiment in experiments
        ),
        others=tuple(
            OtherExperiment(
                experiment.id,
                experiment.what,
                experiment.studies,
                () if experiment.has_figures else experiment.notes,
                identity if experiment.is_about_identity else None,
            )
            for experiment in reference.experiment
            if experiment not in experiments
        ),
    )


def _first_study(reference: Reference) -> str:
    return next((study for experiment in reference.experiment for study in experiment.studies), "demo")


def check_bytes(comparison: Comparison, folder: Path) -> str:
    """Read every artefact of a measurement again: does it have the sha256 that all figures of its row belong to?

    Args:
        comparison: Of the measurement.
        folder: Of the study.

    Returns:
        What was found, in words.

    Raises:
        ReportError: a file has other bytes, although the study was not made anew since.
    """
    is_current = read_manifest(folder).sha256() == comparison.header.manifest_sha256
    expected = {row.variant: row.sha256 for row in comparison.rows if row.sha256 is not None}
    same: list[str] = []
    gone: list[str] = []
    for variant, sha256 in expected.items():
        path = folder / "artefacts" / f"{variant}.tflite"
        found = _file_sha256(path) if path.is_file() else None
        if found is not None and found != sha256 and is_current:
            raise ReportError(
                f"{path}: the bytes with sha256 {sha256[:12]}, which all figures of {variant} belong to, are required. "
                f"Received: {found[:12]}.",
                "The file was changed: run the recipe again, and measure again.",
            )
        (same if found == sha256 else gone).append(variant)
    text = f"every figure of a row is joined through one sha256; read again, {len(same)} of "
    text += f"{count(len(expected), 'file')} have it"
    return f"holds: {text}" + f" (not there any more: {', '.join(gone)})" * bool(gone)


def _file_sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest: str = hashlib.file_digest(file, "sha256").hexdigest()
        return digest


# --- rows ---


def _row_beside(experiment: Experiment, row: ReferenceRow, comparison: Comparison) -> RowBeside:
    study = experiment.study_of(row)
    if study != comparison.header.study:
        ours, status = None, f"of study {study}"
    else:
        ours = _measured(comparison.rows, row.variant)
        status = "not in this study" if ours is None else ours.status
    figures = tuple(_figures(experiment, row, ours, comparison))
    return RowBeside(row.name, row.variant, status, figures)


def _measured(rows: Sequence[Row], variant: str) -> Row | None:
    """The first row of a variant that was measured, else its first: the settings in the order of the job."""
    own = [row for row in rows if row.variant == variant]
    return next((row for row in own if row.validity is not None), own[0] if own else None)


def _figures(experiment: Experiment, row: ReferenceRow, ours: Row | None, comparison: Comparison) -> Iterator[Figure]:
    """Those of a row that were published, and our ratio of latencies where it is one of a quantized model."""
    theirs = {name: getattr(row, name) for name in FIGURES if name != LATENCY_RATIO}
    beside = next((other for other in experiment.row if other.name == row.beside), None)
    if beside is not None:
        theirs[LATENCY_RATIO] = row.latency_ms / beside.latency_ms if row.latency_ms and beside.latency_ms else None
    nothing = all(figure is None for figure in theirs.values())
    for name in FIGURES:
        is_shown = theirs.get(name) is not None or (nothing and name in _OF_ANY_ROW)
        if is_shown or (name == LATENCY_RATIO and beside is not None):
            yield _figure(name, theirs.get(name), _own(name, ours, beside, comparison))


def _figure(name: str, theirs: float | None, own: _Bounded) -> Figure:
    ours, low, high = own
    figure = Figure(name, theirs, ours, low, high)
    if theirs is None or ours is None or name == LATENCY_MS:
        return figure
    if name in (ACCURACY, PARAMETERS):
        return Figure(name, theirs, ours, low, high, difference=ours - theirs)
    return Figure(name, theirs, ours, low, high, ratio=ours / theirs)


def _own(name: str, row: Row | None, beside: ReferenceRow | None, comparison: Comparison) -> _Bounded:
    """Our figure with its interval."""
    if row is None:
        return None, None, None
    if name in _SIZES:
        size_bytes = getattr(row, _SIZES[name])
        return None if size_bytes is None else size_bytes / _MIB, None, None
    if name == PARAMETERS:
        return row.parameters, None, None
    if name == ACCURACY:
        if row.target_accuracy_ratio is None:
            return row.host_accuracy_ratio, None, None
        return row.target_accuracy_ratio, row.target_accuracy_low_ratio, row.target_accuracy_high_ratio
    if comparison.header.target == EMULATED:
        return None, None, None
    if name == LATENCY_MS:
        return tuple(None if ns is None else ns / 1e6 for ns in (row.median_ns, row.median_low_ns, row.median_high_ns))  # type: ignore[return-value]
    return _ratio(row, _measured(comparison.rows, beside.variant) if beside is not None else None)


def _ratio(row: Row, beside: Row | None) -> _Bounded:
    """Latency as a multiple of another row's in the same rounds."""
    if beside is None:
        return None, None, None
    pairs = [
        (one, other)
        for one, other in zip(row.round_medians_ns, beside.round_medians_ns, strict=False)
        if one is not None and other is not None
    ]
    return paired_ratio(*zip(*pairs, strict=True)) if pairs else (None, None, None)


# --- what differs ---


def _differing(
    experiment: Experiment, conditions: Conditions, comparison: Comparison, manifest: Manifest, recipe: Recipe | None
) -> Iterator[Condition]:
    """Every condition that is not the same on both sides, or not known on one."""
    lineage, size = manifest.entries[0].lineage, manifest.entries[0].input
    header = comparison.header
    ours = {
        "images for training": None,
        "images for validation": f"{header.image_count:,}",
        "input": f"{size.height}x{size.width}",
        "output": f"{manifest.entries[0].output.activation}, {count(len(manifest.labels), 'label')}",
        "framework": f"TensorFlow {lineage.versions['tensorflow']}" if "tensorflow" in lineage.versions else None,
        "machine": header.board,
        **_training(recipe, experiment),
    }
    theirs = {
        "images for training": _number(conditions.training_images),
        "images for validation": _number(conditions.validation_images),
        "input": f"{experiment.input[0]}x{experiment.input[1]}" if experiment.input else None,
        "output": conditions.output,
        "framework": conditions.framework,
        "machine": conditions.device,
        "architecture": experiment.architecture,
        "epochs": _number(experiment.epochs),
        "batch size": _number(conditions.batch_size),
        "weights": experiment.weights,
    }
    for what, own in ours.items():
        if own != theirs[what]:
            yield Condition(what, theirs[what], own)


def _training(recipe: Recipe | None, experiment: Experiment) -> dict[str, str | None]:
    """How ours was trained, as its recipe says, with the prunings that the experiment has rows of."""
    if recipe is None:
        return dict.fromkeys(("architecture", "epochs", "batch size", "weights"))
    asked = {row.variant for row in experiment.row}
    prunings = [
        section
        for section in recipe.compress
        if section.pruning != "none" and asked & {variant.name for variant in section.variants()}
    ]
    train = recipe.train
    epochs = {f"{train.epochs}": None} | {
        f"{section.epochs} of {section.pruning} pruning": None for section in prunings
    }
    batches = dict.fromkeys([train.batch_size, *(section.batch_size or train.batch_size for section in prunings)])
    head = f"{train.head_epochs} of the head, " if train.head_epochs else ""
    return {
        "architecture": recipe.model.architecture,
        "epochs": head + ", ".join(epochs),
        "batch size": ", ".join(map(str, batches)),
        "weights": Path(recipe.model.weights).name,
    }


def _recipe_notes(recipe: Recipe | None, manifest: Manifest) -> tuple[str, ...]:
    if recipe is None:
        return ("Ours: the study has no recipe, so that its training is not known.",)
    if recipe.sha256() != manifest.entries[0].lineage.recipe_sha256:
        return (
            "Ours: the recipe was changed since the baseline was made; what is told of training is the present one.",
        )
    return ()


def _number(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"
