"""`liteship import`: a model of your own as a study, ready to deploy and measure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from liteship.cli.common import build
from liteship.cli.options import MODELS, JsonOption, LimitOption, print_json
from liteship.errors import RecipeError, UsageError
from liteship.recipe import Recipe, check_recipe, load_recipe
from liteship_agent.manifest import ManifestEntry

_QUANTIZATIONS = ("none", "dynamic", "float16", "int8")
_TFLITE = b"TFL3"


def import_command(
    model: Annotated[
        Path, typer.Argument(help="A .keras or .h5 file of either Keras, a SavedModel folder, or a .tflite file.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            envvar="LITESHIP_DATA",
            help="Images of its classes: FOLDER/<class>/*, or FOLDER/{train,validation}/<class>/*.",
        ),
    ],
    name: Annotated[str | None, typer.Option("--name", help="Of the study.  \\[default: the file's]")] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            "--quantization", help=f"Some of {','.join(_QUANTIZATIONS)}.  \\[default: all; a .tflite stays as it is]"
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--input", metavar="HxW", help="Pixels, for a model that leaves them open.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="Class folders in the order of the model's outputs.  \\[default: by name]"),
    ] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="R,G,B that are taken from a pixel of 0 to 255.")] = None,
    std: Annotated[str | None, typer.Option("--std", help="R,G,B that it is then divided by.")] = None,
    channel_order: Annotated[str | None, typer.Option("--channel-order", help="rgb or bgr.")] = None,
    resize: Annotated[str | None, typer.Option("--resize", help="stretch, or crop to keep the aspect ratio.")] = None,
    limit: LimitOption = None,
    skip_corrupt: Annotated[
        bool, typer.Option("--skip-corrupt", help="Leave out images that cannot be decoded.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a study of a model of your own: convert, quantize, check; then deploy and bench it like any other.

    How an image becomes its input is read from the model or found out on training images, unless --mean, --std or
    --channel-order say it. To prune it or train it on, name the file as `path` under `model` in a recipe.
    """
    preprocess: dict[str, Any] = {"mean": _numbers("--mean", mean), "std": _numbers("--std", std)}
    preprocess |= {"channel_order": channel_order, "resize": resize}
    settings: dict[str, Any] = {
        "path": str(model),
        "input": _size(size),
        "labels": labels.split(",") if labels else None,
        "preprocess": _given(preprocess) or None,
    }
    quantizations = _quantizations(model, quantization)
    recipe = check_recipe(
        {
            "schema_version": 1,
            "name": name or _study_name(model),
            "data": {"source": data},
            "model": _given(settings),
            "compress": [{"pruning": "none", "quantization": quantizations}],
        },
        f"import of {model}",
    )
    _require_free_name(recipe)
    manifest = build(recipe, limit, skip_corrupt)
    if as_json:
        print_json({"study": manifest.study, "artefacts": [_summary(entry) for entry in manifest.entries]})
        return
    typer.echo(f"study {manifest.study}: next: liteship bench --study {manifest.study} --target TARGET")


def _require_free_name(recipe: Recipe) -> None:
    """Never replace the study of another model."""
    path = MODELS / recipe.name / "recipe.toml"
    if path.exists() and load_recipe(path).model.path != recipe.model.path:
        raise UsageError(
            f"--name: a name that no other study has is required. Received: {recipe.name}.",
            f"Give another, or remove {path.parent}/.",
        )


def _summary(entry: ManifestEntry) -> dict[str, Any]:
    accuracy = entry.host_accuracy
    return {
        "variant": entry.variant,
        "sha256": entry.sha256,
        "size_bytes": entry.size_bytes,
        "host_accuracy": accuracy.correct / accuracy.total,
    }


def _quantizations(model: Path, given: str | None) -> list[str]:
    if given is not None:
        unknown = [name for name in given.split(",") if name not in _QUANTIZATIONS]
        if unknown:
            raise UsageError(f"--quantization: some of {', '.join(_QUANTIZATIONS)} are required. Received: {given}.")
        return given.split(",")
    try:
        with open(model, "rb") as file:
            is_tflite = file.read(8)[4:] == _TFLITE
    except OSError:  # a folder, or nothing, which opening the model explains
        is_tflite = False
    return ["none"] if is_tflite else list(_QUANTIZATIONS)


def _study_name(model: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "_", model.resolve().stem).lstrip("._-")[:64]
    if not name:
        raise UsageError(f"--name: a name for the study is required. Received: none, and {model} gives none.")
    return name


def _size(text: str | None) -> list[int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None:
        raise RecipeError(f"--input: height and width in pixels such as 96x96 are required. Received: {text}.")
    return [int(match[1]), int(match[2])]


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as exc:
        raise RecipeError(f"{option}: numbers such as 123.7,116.8,103.9 are required. Received: {text}.") from exc


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
