"""Published figures that ours stand beside, as a person writes them: benchmarks/reference.toml.

An experiment stands beside a study, each of its rows beside a variant. A figure that was not published is left out;
an experiment that was only described has rows without figures.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from liteship.errors import UsageError

_Text = Annotated[str, Field(min_length=1)]
_Count = Annotated[int, Field(ge=1)]
_Size = Annotated[float, Field(gt=0)]
_Ratio = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Conditions(_Section):
    """[conditions]: what all experiments share; None is not known."""

    framework: _Text | None = None
    training_images: _Count | None = None
    validation_images: _Count | None = None
    batch_size: _Count | None = None
    output: _Text | None = None
    device: _Text | None = None


class ReferenceRow(_Section):
    """[[experiment.row]]: what was published of one model; None is not known.

    Args:
        name: In its author's terms.
        variant: Of ours that stands beside it.
        study: Of ours, where the rows of an experiment are of several.
        beside: Name of the row that its latency is a multiple of: the same model in float.
        file_mib, gzip_mib: The .tflite file, plain and compressed.
        keras_file_mib, keras_gzip_mib: The model that it was converted from, plain and compressed.
        accuracy_ratio: Share of the validation images that are classified correctly.
        latency_ms: Of one image.
        parameters: Of the model.
    """

    name: _Text
    variant: _Text
    study: _Text | None = None
    beside: _Text | None = None
    file_mib: _Size | None = None
    gzip_mib: _Size | None = None
    keras_file_mib: _Size | None = None
    keras_gzip_mib: _Size | None = None
    accuracy_ratio: _Ratio | None = None
    latency_ms: _Size | None = None
    parameters: _Count | None = None


_FIGURES = tuple(name for name in ReferenceRow.model_fields if name not in ("name", "variant", "study", "beside"))


class Experiment(_Section):
    """[[experiment]]: one table of the source.

    Args:
        id, what: Its name here, and what was done.
        study: Of ours that stands beside all of its rows.
        architecture, input, epochs, weights: What differs between the experiments; None is not known.
        is_about_identity: Not about figures, but about whether all figures of a row are of the same bytes.
        notes: What has to be known to read its figures.
        row: In the order of the table.
    """

    id: _Text
    what: _Text
    study: _Text | None = None
    architecture: _Text | None = None
    input: tuple[_Count, _Count] | None = Field(None, strict=False)
    epochs: _Count | None = None
    weights: _Text | None = None
    is_about_identity: bool = False
    notes: tuple[_Text, ...] = Field((), strict=False)
    row: tuple[ReferenceRow, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        names = [row.name for row in self.row]
        if len(set(names)) < len(names):
            raise ValueError("each row needs a name of its own")
        for row in self.row:
            if row.beside is not None and row.beside not in names:
                raise ValueError(f"row {row.name}: beside has to name a row of the same experiment, not {row.beside}")
            if self.study is None and row.study is None:
                raise ValueError(f"row {row.name}: it or the experiment needs a study")
        return self

    def study_of(self, row: ReferenceRow) -> str | None:
        """The study of ours that stands beside a row."""
        return row.study or self.study

    @property
    def has_figures(self) -> bool:
        """Whether anything of it can be compared."""
        return any(getattr(row, name) is not None for row in self.row for name in _FIGURES)

    @property
    def studies(self) -> tuple[str, ...]:
        """Those that stand beside its rows, each once."""
        return tuple(dict.fromkeys(name for row in self.row if (name := self.study_of(row)) is not None))


class Reference(_Section):
    """A whole file.

    Args:
        name: What the figures are of, for headings.
    """

    schema_version: Literal[1]
    name: _Text
    conditions: Conditions = Conditions()
    experiment: tuple[Experiment, ...] = Field(strict=False, min_length=1)

    def of_study(self, study: str) -> list[Experiment]:
        """The experiments that a study stands beside."""
        return [experiment for experiment in self.experiment if study in experiment.studies]


def load_reference(path: Path) -> Reference:
    """Read and check a file of published figures.

    Raises:
        UsageError: it cannot be read, is not TOML, or a key or value is wrong; names the first mistake.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as exc:
        raise UsageError(
            f"{path.resolve()}: a readable file of published figures is required. Received: {exc.strerror}.",
            "The one that comes with liteship is benchmarks/reference.toml; name a file, or call it from there.",
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise UsageError(f"{path}: valid TOML is required. Received: {exc}.") from exc
    try:
        return Reference.model_validate(values)
    except ValidationError as exc:
        raise _explained(exc, path) from exc


def _explained(error: ValidationError, path: Path) -> UsageError:
    # A mistyped key is both unknown and missing: only the first of the two helps.
    first = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    received = "nothing" if first["type"] == "missing" else _shown(first["input"])
    if first["type"] == "extra_forbidden":
        return UsageError(f"{path}: {where}: a known key is required. Received: {first['loc'][-1]!r}.")
    what = first["msg"][:1].lower() + first["msg"][1:]
    return UsageError(f"{path}: {where}: a right value is required ({what}). Received: {received}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
