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

Architecture = Literal["mobilenet_v2", "mobilenet_v2_sparse", "vgg16"]
Pruning = Literal["none", "magnitude", "filter", "latency"]
Augmentation = Literal["flip", "crop"]
Optimizer = Literal["adam", "sgd", "rmsprop", "adagrad", "adamax", "nadam", "ftrl"]
Schedule = Literal["constant", "cosine", "plateau"]
Quantization = Literal["none", "dynamic", "float16", "int8", "qat", "pqat"]

# Quantizations that train on: their Keras model is another than that of the same pruning without.
TRAINED_QUANTIZATIONS = ("qat", "pqat")

# The widths for which Keras offers ImageNet weights.
IMAGENET_ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)

_Pixels = Annotated[int, Field(ge=32, description="a size of 32 pixels or more")]
_Sparsity = Annotated[float, Field(gt=0, lt=1, description="a ratio from 0 to 1, both excluded,")]
_Epochs = Annotated[int, Field(ge=0, description="a number of epochs, 0 or more,")]
_Ratio = Annotated[float, Field(ge=0, le=1, description="a ratio from 0 to 1")]
_LayerSparsity = Annotated[float, Field(ge=0, lt=1, description="a ratio from 0 to 1, 1 excluded,")]
_Rate = Annotated[float, Field(gt=0, description="a learning rate above 0")]
_Count = Annotated[int, Field(ge=1, description="an integer of 1 or more")]
_Positive = Annotated[float, Field(gt=0, description="a number above 0")]


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
        return f"{self.pruned}-{self.quantization}"

    @property
    def pruned(self) -> str:
        """The pruned Keras model: `none`, `magnitude50`."""
        return f"{self.pruning}{self.sparsity * 100:g}" if self.pruning != "none" else "none"

    @property
    def model(self) -> str:
        """The Keras model that it is converted from: the pruned one, or that trained on for it: `magnitude50-pqat`."""
        return self.name if self.quantization in TRAINED_QUANTIZATIONS else self.pruned


BASELINE = Variant("none", 0.0, "none")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class DataSettings(_Section):
    """[data]: `digits` or a folder of images; the split is used only for one folder of classes."""

    source: str = Field(min_length=1, description='"digits" or a folder')
    split: float = Field(0.2, gt=0, lt=1, description="a validation ratio from 0 to 1, both excluded,")


class PreprocessSettings(_Section):
    """[model.preprocess]: how an image becomes the input of a model of your own; what is not given is inferred.

    A pixel p of 0 to 255 becomes (p - mean) / std per channel, in channel_order.
    """

    channel_order: Literal["rgb", "bgr"] | None = None
    resize: Literal["stretch", "crop"] | None = None
    interpolation: Literal["linear", "area"] | None = None
    mean: tuple[float, float, float] | None = Field(None, strict=False, description="three numbers")
    std: tuple[_Positive, _Positive, _Positive] | None = Field(None, strict=False, description="three numbers above 0")


class ModelSettings(_Section):
    """[model]: a network by name, or a file of your own.

    By name: its width `alpha` (MobileNet only), input [height, width] and where weights start. By `path`: a Keras
    file, a SavedModel folder or a .tflite; `input` only where the file leaves it open, `labels` only where its outputs
    are not in the order of the class folders' names.
    """

    architecture: Architecture | None = None
    alpha: float = Field(1.0, gt=0, description="a width above 0")
    input: tuple[_Pixels, _Pixels] | None = Field(None, strict=False, description="[height, width] in pixels")
    weights: str = Field("none", min_length=1, description='"none", "imagenet" or a file')
    path: str | None = Field(None, min_length=1, description="a file or folder")
    labels: tuple[str, ...] | None = Field(None, strict=False, description="a list of class names")
    preprocess: PreprocessSettings | None = None

    @model_validator(mode="after")
    def _check_origin(self) -> Self:
        if (self.architecture is None) == (self.path is None):
            raise _rule("architecture", "either architecture or path", "both" if self.path else "neither")
        for name in ("alpha", "weights") if self.path else ("labels", "preprocess"):
            if getattr(self, name) != type(self).model_fields[name].default:
                origin = "path" if self.path else "architecture"
                raise _rule(name, f"no such key beside {origin}", getattr(self, name))
        if self.architecture == "vgg16" and self.alpha != 1.0:
            raise _rule("alpha", "no alpha for vgg16", self.alpha)
        if self.weights == "imagenet" and self.alpha not in IMAGENET_ALPHAS:
            raise _rule("alpha", f"one of {_join(IMAGENET_ALPHAS)} for imagenet weights", self.alpha)
        return self

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of a network by name."""
        return self.input or (96, 96)


class PlateauSettings(_Section):
    """[train.plateau]: what schedule = "plateau" watches, and how it lowers the learning rate."""

    monitor: Literal["validation_accuracy", "accuracy", "loss"] = "validation_accuracy"
    patience: _Count = 3
    factor: float = Field(0.5, gt=0, lt=1, description="a ratio from 0 to 1, both excluded,")
    least: _Rate = 1e-5


class TrainSettings(_Section):
    """[train]: first `head_epochs` of the head alone at its own rate, then `epochs` of all layers.

    A model of your own is taken as it is, unless epochs says otherwise.
    """

    batch_size: _Count = 32
    head_epochs: _Epochs = 4
    epochs: _Epochs = 8
    optimizer: Optimizer = "adam"
    learning_rate: _Rate = 1e-4
    head_learning_rate: _Rate = 3e-3
    schedule: Schedule = "cosine"
    augment: tuple[Augmentation, ...] = Field((), strict=False, description="a list of flip and crop")
    plateau: PlateauSettings = PlateauSettings()


class CompressSettings(_Section):
    """One [[compress]]: a pruning, fine-tuned for `epochs` to each sparsity, and the quantizations of each result.

    Args:
        pruning, sparsity: Of magnitude and latency the ratio of zeros, of filter the ratio of what `of` names.
        epochs, batch_size, learning_rate: Of the retraining; those of [train] where not given.
        distill: Weight of the error against the features of the unpruned model, 0 for none.
        batch_norm: "frozen" keeps its statistics, "train" lets it learn.
        ramp: Of magnitude and latency: sparsity rises as a cubic polynomial, or is "constant" from the start.
        spare: Of magnitude and latency: "first", "last" or both layers are left whole.
        layers: Of magnitude and latency: other sparsities by layer name, `{"block_16_*" = 0.9}`; of several patterns
            the last counts.
        criterion, of, rounds: Of filter: the rank, what the ratio counts, and in how many rounds it is reached.
        qat_epochs, qat_learning_rate: Of quantization-aware training.
    """

    pruning: Pruning
    sparsity: tuple[_Sparsity, ...] = Field((), strict=False, description="a list of ratios")
    epochs: _Count = 4
    batch_size: int | None = Field(None, ge=1, description="an integer of 1 or more")
    learning_rate: float | None = Field(None, gt=0, description="a learning rate above 0")
    distill: float = Field(0.0, ge=0, description="a weight of 0 or more")
    batch_norm: Literal["frozen", "train"] = "train"
    ramp: Literal["polynomial", "constant"] = "polynomial"
    spare: tuple[Literal["first", "last"], ...] = Field((), strict=False, description="a list of first and last")
    layers: dict[str, _LayerSparsity] = Field({}, description="a table of layer name pattern and ratio")
    criterion: Literal["l1", "activation", "taylor"] = "taylor"
    of: Literal["filters", "multiply_adds"] = "multiply_adds"
    rounds: _Count = 1
    qat_epochs: _Count = 2
    qat_learning_rate: _Rate = 1e-5
    quantization: tuple[Quantization, ...] = Field(
        strict=False, min_length=1, description=f"a list of one or more of {', '.join(typing.get_args(Quantization))}"
    )

    @model_validator(mode="after")
    def _check_pruning(self) -> Self:
        if self.pruning != "none" and not self.sparsity:
            raise _rule("sparsity", f'a list of one or more ratios for pruning = "{self.pruning}"', self.sparsity)
        for name, field in type(self).model_fields.items():
            # By value, since a recipe that was written back has every key.
            if getattr(self, name) == field.default:
                continue
            if name.startswith("qat_"):
                if not self.trains_quantized:
                    raise _rule(name, "no such key without qat or pqat", getattr(self, name))
            elif name in _KEYS_OF and self.pruning not in _KEYS_OF[name]:
                raise _rule(name, f'no such key beside pruning = "{self.pruning}"', getattr(self, name))
        self._check_quantization()
        return self

    def _check_quantization(self) -> None:
        if self.pruning == "latency" and self.quantization != ("none",):
            raise _rule("quantization", '["none"] for pruning = "latency": sparse kernels are float', self.quantization)
        if "pqat" in self.quantization and self.pruning != "magnitude":
            raise _rule("quantization", 'pqat only beside pruning = "magnitude": it preserves zeros', self.quantization)

    @property
    def trains_quantized(self) -> bool:
        """Whether there is a quantization that trains on."""
        return any(name in TRAINED_QUANTIZATIONS for name in self.quantization)

    def variants(self) -> list[Variant]:
        """Every sparsity with every quantization, in the order written."""
        return [Variant(self.pruning, s, q) for s in self.sparsity or (0.0,) for q in self.quantization]


# Which keys of [[compress]] mean something beside which prunings.
_ALL_PRUNED = ("magnitude", "filter", "latency")
_KEYS_OF = {
    **dict.fromkeys(("sparsity", "epochs", "batch_size", "learning_rate", "distill", "batch_norm"), _ALL_PRUNED),
    **dict.fromkeys(("ramp", "spare", "layers"), ("magnitude", "latency")),
    **dict.fromkeys(("criterion", "of", "rounds"), ("filter",)),
}


class CalibrationSettings(_Section):
    """[calibration]: how many training images set the scales of int8."""

    count: _Count = 100


class ConvertSettings(_Section):
    """[convert]: choices that change the .tflite files of a quantization, not their names.

    Args:
        float16_accumulation: Of float16: let XNNPACK also compute in float16 where the CPU can (Raspberry Pi 5).
        integer_input: Of int8, qat and pqat: dtype of input and output.
        runtime: Make files that this runtime loads, such as "tflite-runtime==2.14.0".
    """

    float16_accumulation: bool = False
    integer_input: Literal["int8", "uint8"] = "int8"
    runtime: str | None = Field(None, min_length=1, description="NAME==VERSION of a runtime")


class ParitySettings(_Section):
    """[parity]: how much accuracy a .tflite may lose against its Keras model before it is marked."""

    max_drop: _Ratio = 0.02


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
    convert: ConvertSettings = ConvertSettings()
    parity: ParitySettings = ParitySettings()
    bench: BenchSettings = BenchSettings()

    @model_validator(mode="before")
    @classmethod
    def _take_own_model_as_it_is(cls, values: Any) -> Any:
        """Without a word on epochs a model of your own is not trained."""
        model, train = (values.get(name, {}) for name in ("model", "train")) if isinstance(values, dict) else ({}, {})
        if not (isinstance(model, dict) and "path" in model and isinstance(train, dict)):
            return values
        return {**values, "train": {"head_epochs": 0, "epochs": 0, **train}}

    @model_validator(mode="after")
    def _check_sections(self) -> Self:
        if self.model.path is None and self.train.head_epochs + self.train.epochs == 0:
            raise _rule("train.epochs", "at least one epoch in head_epochs or epochs", 0)
        is_sparse = self.model.architecture == "mobilenet_v2_sparse"
        if any(section.pruning == "latency" for section in self.compress) and not is_sparse:
            raise _rule("model.architecture", 'mobilenet_v2_sparse beside pruning = "latency"', self.model.architecture)
        return self

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.name == "latest":
            raise _rule("name", "a name other than that of the link to the last study", self.name)
        repeated = _repeated(variant.name for section in self.compress for variant in section.variants())
        if repeated:
            raise _rule("compress", "each variant once", f"{repeated} twice")
        repeated = _repeated(model for section in self.compress for model in {v.pruned for v in section.variants()})
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
        self,
        data: str | None = None,
        weights: str | None = None,
        epochs: int | None = None,
        tier: str | None = None,
        runtime: str | None = None,
        calibration: int | None = None,
    ) -> Recipe:
        """A new recipe with what the command line says; None keeps the recipe's own value.

        Args:
            data: Replaces data.source.
            weights: Replaces model.weights; means nothing to a model of your own.
            epochs: Replaces train.epochs, where it trains, and the epochs of every pruning; caps train.head_epochs and
                qat_epochs.
            tier: Replaces bench.tier.
            runtime: Replaces convert.runtime.
            calibration: Caps calibration.count; fewer are taken where there are not as many.

        Raises:
            RecipeError: the result is not a valid recipe.
        """
        values = self.model_dump(exclude_unset=True)
        overrides: list[tuple[str, str, object]] = [
            ("data", "source", data),
            ("bench", "tier", tier),
            ("convert", "runtime", runtime),
        ]
        if self.model.path is None:
            overrides += [("model", "weights", weights)]
        if self.train.epochs:
            overrides += [("train", "epochs", epochs)]
        for section, key, value in overrides:
            if value is not None:
                values.setdefault(section, {})[key] = value
        if epochs is not None:
            values.setdefault("train", {})["head_epochs"] = min(self.train.head_epochs, epochs)
            for compress, settings in zip(values.get("compress", ()), self.compress, strict=True):
                if settings.pruning != "none":
                    compress["epochs"] = epochs
                if settings.trains_quantized:
                    compress["qat_epochs"] = min(settings.qat_epochs, epochs)
        recipe = check_recipe(values, f"recipe {self.name} with the options given")
        if calibration is None:
            return recipe
        # As if it were not written: fewer images than that are no mistake of the recipe.
        capped = CalibrationSettings.model_construct(set(), count=min(calibration, recipe.calibration.count))
        return recipe.model_copy(update={"calibration": capped})


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
    return check_recipe(values, str(path))


def check_recipe(values: dict[str, Any], source: str) -> Recipe:
    """A recipe from the values of its keys.

    Args:
        values: As TOML gives them.
        source: What the message names.

    Raises:
        RecipeError: a key or value is wrong; names the first mistake.
    """
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
        if isinstance(part, str) and typing.get_origin(kind) is not dict:
            field: FieldInfo = kind.model_fields[part]
            kind, required = _some(field.annotation), field.description or "a table of keys"
            continue
        kind, required = typing.get_args(kind)[-1 if isinstance(part, str) else 0], "a table of keys"
        if typing.get_origin(kind) is Annotated:
            kind, item = typing.get_args(kind)
            required = item.description
    return kind, required


def _some(kind: Any) -> Any:
    """X of an `X | None`."""
    others = [argument for argument in typing.get_args(kind) if argument is not type(None)]
    return others[0] if type(None) in typing.get_args(kind) else kind


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
