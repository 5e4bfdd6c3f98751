"""What a study is made of, as a person writes it: a TOML file under benchmarks/.

`load_recipe` reads and checks one file, `Recipe.with_overrides` applies what the command line says, `Recipe.variants`
lists what is to be made. The models below are the reference of every key; a field's description is the text an error
message shows as required.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
import typing
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from liteship.errors import RecipeError

Pruning = Literal["none", "magnitude"]
Augmentation = Literal["flip", "crop"]
Quantization = Literal["none", "dynamic", "float16", "int8"]

# The widths for which Keras offers ImageNet weights.
IMAGENET_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)

_Pixels = Annotated[int, Field(ge=32, description="a size of 32 pixels or more")]
_Sparsity = Annotated[float, Field(gt=0, lt=1, description="a ratio from 0 to 1, both excluded,")]
_Epochs = Annotated[int, Field(ge=0, description="a number of epochs, 0 or more,")]
_Rate = Annotated[float, Field(gt=0, description="a learning rate above 0")]
_Count = Annotated[int, Field(ge=1, description="an integer of 1 or more")]


@dataclass(frozen=True)
class Variant:
    """One way to compress the trained model.

    Args:
        pruning, quantization: As in the recipe.
        sparsity: Ratio of pruned weights that end as zero, 0.0 without pruning.
    """

    pruning: Pruning
    sparsity: float
    quantization: Quantization

    @property
    def name(self) -> str:
        """`<pruning><percent>-<quantization>`, such as `none-none` or `magnitude50-int8`."""
        return f"{self.model}-{self.quantization}"

    @property
    def model(self) -> str:
        """The Keras model that it is converted from: `none`, `magnitude50`."""
        return f"{self.pruning}{self.sparsity * 100:g}" if self.pruning != "none" else "none"


BASELINE = Variant("none", 0.0, "none")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataSettings(_Section):
    """[data]: `digits` or a folder of images; the split is used only for one folder of classes."""

    source: str = Field(min_length=1, description='"digits" or a folder')
    split: float = Field(0.2, gt=0, lt=1, description="a validation ratio from 0 to 1, both excluded,")


class ModelSettings(_Section):
    """[model]: the network, its width `alpha` (MobileNet only), its input [height, width] and where weights start."""

    architecture: Literal["mobilenet_v2", "vgg16"]
    alpha: float = Field(1.0, gt=0, description="a width above 0")
    input: tuple[_Pixels, _Pixels] = Field((96, 96), strict=False, description="[height, width] in pixels")
    weights: str = Field("none", min_length=1, description='"none", "imagenet" or a file')

    @model_validator(mode="after")
    def _check_alpha(self) -> Self:
        if self.architecture == "vgg16" and self.alpha != 1.0:
            raise _rule("alpha", "no alpha for vgg16", self.alpha)
        if self.weights == "imagenet" and self.alpha not in IMAGENET_ALPHAS:
            raise _rule("alpha", f"one of {_join(IMAGENET_ALPHAS)} for imagenet weights", self.alpha)
        return self


class TrainSettings(_Section):
    """[train]: first `head_epochs` of the head alone at its own rate, then `epochs` of all layers."""

    batch_size: _Count = 32
    head_epochs: _Epochs = 4
    epochs: _Epochs = 8
    optimizer: Literal["adam", "sgd"] = "adam"
    learning_rate: _Rate = 1e-4
    head_learning_rate: _Rate = 3e-3
    schedule: Literal["constant", "cosine", "plateau"] = "cosine"
    augment: tuple[Augmentation, ...] = Field((), strict=False, description="a list of flip and crop")

    @model_validator(mode="after")
    def _check_epochs(self) -> Self:
        if self.head_epochs + self.epochs == 0:
            raise _rule("epochs", "at least one epoch in head_epochs or epochs", 0)
        return self


class CompressSettings(_Section):
    """One [[compress]]: a pruning, fine-tuned for `epochs` to each sparsity, and the quantizations of each result.

    Without a learning rate of its own the pruning uses that of [train].
    """

    pruning: Pruning
    sparsity: tuple[_Sparsity, ...] = Field((), strict=False, description="a list of ratios")
    epochs: _Count = 4
    learning_rate: float | None = Field(None, gt=0, description="a learning rate above 0")
    quantization: tuple[Quantization, ...] = Field(
        strict=False, min_length=1, description="a list of one or more of none, dynamic, float16, int8"
    )

    @model_validator(mode="after")
    def _check_pruning(self) -> Self:
        if self.pruning == "none":
            # By value, since a recipe that was written back has every key.
            for name in ("sparsity", "epochs", "learning_rate"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise _rule(name, 'no such key beside pruning = "none"', getattr(self, name))
        elif not self.sparsity:
            raise _rule("sparsity", f'a list of one or more ratios for pruning = "{self.pruning}"', self.sparsity)
        return self

    def variants(self) -> list[Variant]:
        """Every sparsity with every quantization, in the order written."""
        return [Variant(self.pruning, s, q) for s in self.sparsity or (0.0,) for q in self.quantization]


class CalibrationSettings(_Section):
    """[calibration]: how many training images set the scales of int8."""

    count: _Count = 100


class BenchSettings(_Section):
    """[bench]: how long each artefact is timed, with how many threads."""

    tier: Literal["rapid", "quick", "normal"] = "rapid"
    threads: int | None = Field(None, ge=1, le=64, description="1 to 64 threads")


class Recipe(_Section):
    """A whole recipe. `name` is the study's folder under models/; paths are relative to the working folder."""

    schema_version: Literal[1]
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="a folder name of letters, digits and . _ -"
    )
    # numpy and tf_keras take seeds of 32 bits.
    seed: int = Field(0, ge=0, lt=2**32, description="an integer from 0 to 4294967295")
    data: DataSettings
    model: ModelSettings
    train: TrainSettings = TrainSettings()
    compress: tuple[CompressSettings, ...] = Field((), strict=False, description="a list of [[compress]] tables")
    calibration: CalibrationSettings = CalibrationSettings()
    bench: BenchSettings = BenchSettings()

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.name == "latest":
            raise _rule("name", "a name other than that of the link to the last study", self.name)
        repeated = _repeated(variant.name for section in self.compress for variant in section.variants())
        if repeated:
            raise _rule("compress", "each variant once", f"{repeated} twice")
        repeated = _repeated(model for section in self.compress for model in {v.model for v in section.variants()})
        if repeated:
            raise _rule("compress", "one [[compress]] for each pruning and sparsity", f"{repeated} in two")
        return self

    def variants(self) -> list[Variant]:
        """What is to be made, in the order written; the float unpruned baseline is always there and always first."""
        listed = [variant for section in self.compress for variant in section.variants()]
        return [BASELINE, *(variant for variant in listed if variant != BASELINE)]

    def sha256(self) -> str:
        """64 hex digits over the values, defaults included, so that comments and order do not count."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_overrides(
        self, data: str | None = None, weights: str | None = None, epochs: int | None = None, tier: str | None = None
    ) -> Recipe:
        """A new recipe with what the command line says; None keeps the recipe's own value.

        Args:
            data: Replaces data.source.
            weights: Replaces model.weights.
            epochs: Replaces train.epochs and the epochs of every pruning, and caps train.head_epochs.
            tier: Replaces bench.tier.

        Raises:
            RecipeError: the result is not a valid recipe.
        """
        values = self.model_dump(exclude_unset=True)
        overrides = [("data", "source", data), ("model", "weights", weights), ("bench", "tier", tier)]
        for section, key, value in [*overrides, ("train", "epochs", epochs)]:
            if value is not None:
                values.setdefault(section, {})[key] = value
        if epochs is not None:
            values["train"]["head_epochs"] = min(self.train.head_epochs, epochs)
        for compress in values.get("compress", ()):
            if epochs is not None and compress["pruning"] != "none":
                compress["epochs"] = epochs
        return _validate(values, f"recipe {self.name} with the options given")


def load_recipe(path: Path) -> Recipe:
    """Read and check one recipe.

    Raises:
        RecipeError: the file cannot be read, is not TOML, or a key or value is wrong; names the first mistake.
    """
    try:
        values = tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as exc:
        raise RecipeError(
            f"{path}: a readable recipe is required. Received: {exc.strerror}.", "Recipes are under benchmarks/."
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise RecipeError(f"{path}: valid TOML is required. Received: {exc}.") from exc
    return _validate(values, str(path))


def _validate(values: dict[str, Any], source: str) -> Recipe:
    try:
        return Recipe.model_validate(values)
    except ValidationError as exc:
        # A mistyped key is both unknown and missing: only the first of the two helps.
        errors = sorted(exc.errors(), key=lambda error: error["type"] != "extra_forbidden")
        raise _explain(errors[0], source) from exc


def _explain(error: ErrorDetails, source: str) -> RecipeError:
    where, received, hint = error["loc"], _show(error["input"]), ""
    if error["type"] == "rule":
        required, received = error["ctx"]["required"], error["ctx"]["received"]
        where = (*where, error["ctx"]["field"])
    elif error["type"] == "extra_forbidden":
        required, received = "a known key", _show(where[-1])
        hint = _nearest(str(where[-1]), list(_walk(where[:-1])[0].model_fields))
    elif error["type"] == "missing" and isinstance(where[-1], str):
        required, received = "this key", "nothing"
    elif error["type"] == "literal_error":
        required = str(error["ctx"]["expected"]).replace("'", "")
    else:
        where = where[:-1] if error["type"] == "missing" else where
        required = _walk(where)[1]
    return RecipeError(f"{source}: {_dotted(where)}: {required} is required. Received: {received}.", hint)


def _walk(location: tuple[int | str, ...]) -> tuple[Any, str]:
    """The type at a location of the recipe and the description of what it must hold."""
    kind: Any = Recipe
    required = "a table of keys"
    for part in location:
        if isinstance(part, str):
            field: FieldInfo = kind.model_fields[part]
            kind, required = field.annotation, field.description or "a table of keys"
            continue
        kind, required = typing.get_args(kind)[0], "a table of keys"
        if typing.get_origin(kind) is Annotated:
            kind, item = typing.get_args(kind)
            required = item.description
    return kind, required


def _nearest(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {_show(near[0])}?" if near else f"Known keys: {_join(known)}."


def _rule(field: str, required: str, received: object) -> PydanticCustomError:
    text = received if isinstance(received, str) else _show(received)
    return PydanticCustomError("rule", "{required}", {"field": field, "required": required, "received": text})


def _dotted(location: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


def _show(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)


def _repeated(values: Iterable[str]) -> str:
    """The first value that comes more than once, or nothing."""
    return next((value for value, count in Counter(values).items() if count > 1), "")
