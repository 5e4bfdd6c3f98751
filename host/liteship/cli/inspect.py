"""`liteship inspect`: what stands in a .tflite file, whoever made it."""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from liteship.errors import ConversionError, UsageError
from liteship.flatbuffer import Inspection, Tensor, inspect
from liteship.operators import known_runtime, known_runtimes, missing_operators

_BAR_CELLS = 10
_SHORTENED = 44


def inspect_command(
    file: Annotated[Path, typer.Argument(help="A .tflite file.", show_default=False)],
    for_runtime: Annotated[
        str | None,
        typer.Option("--for-runtime", help="NAME or NAME==VERSION: exit with 3 unless this runtime loads the file."),
    ] = None,
    with_gzip: Annotated[
        bool, typer.Option("--gzip", help="Compress it too (level 9); takes seconds for a large file.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Tell what stands in a .tflite file, and which runtimes load it."""
    runtimes = known_runtimes() if for_runtime is None else (known_runtime(for_runtime),)
    content, name = _read(file), str(file).encode(errors="backslashreplace").decode()
    inspection = inspect(content, name)
    missing = {runtime: missing_operators(inspection.operators, runtime) for runtime in runtimes}
    record = {
        "file": name,
        "size_bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, 9, mtime=0)) if with_gzip else None,
        "sha256": hashlib.sha256(content).hexdigest(),
        "sparsity": inspection.sparsity,
        **asdict(inspection),
        "missing_operators": missing,
    }
    if as_json:
        typer.echo(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        _print(record, inspection, missing)
    if for_runtime is not None and missing[runtimes[0]]:
        raise ConversionError(
            f"{name}: operators that {runtimes[0]} has are required. Received: {'; '.join(missing[runtimes[0]])}."
        )


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"A .tflite file is required. Received: {path}, which is no regular file.")
        return path.read_bytes()
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        raise UsageError(f"A .tflite file that can be read is required. Received: {path}: {reason}.") from exc


def _print(record: dict[str, Any], inspection: Inspection, missing: dict[str, list[str]]) -> None:
    console = Console(highlight=False)
    facts = Table.grid(padding=(0, 2, 0, 0))
    facts.add_column(no_wrap=True, style="bold")
    facts.add_column(overflow="fold")
    for name, text in _facts(record, inspection, missing):
        facts.add_row(name, escape(text))
    console.print(facts)
    operators = Table("operator", "version", "count", title="Operators", title_justify="left")
    for operator in inspection.operators:
        operators.add_row(escape(_shortened(operator.name)), str(operator.version), str(operator.count))
    console.print(operators)
    if inspection.layers:
        console.print(_layers(inspection))


def _facts(record: dict[str, Any], inspection: Inspection, missing: dict[str, list[str]]) -> list[tuple[str, str]]:
    verdict = inspection.sparse_verdict
    rule = f"{_shortened(verdict.layer)}: {verdict.reason}" if verdict.layer else verdict.reason
    eligible = "eligible" if verdict.eligible else "not eligible"
    facts = [("file", record["file"]), ("size", _size(record["size_bytes"]))]
    if record["gzip_bytes"] is not None:
        facts.append(("gzip", _size(record["gzip_bytes"])))
    facts.append(("sha256", record["sha256"]))
    facts += [("input", _describe(tensor)) for tensor in inspection.inputs]
    facts += [("output", _describe(tensor)) for tensor in inspection.outputs]
    if inspection.graphs > 1:
        facts.append(("graphs", f"{inspection.graphs}; inputs, outputs and multiply-adds are those of the first"))
    facts += [
        ("parameters", f"{inspection.parameters:,}"),
        ("multiply-adds", f"{inspection.multiply_adds:,}"),
        ("sparsity", f"{100 * inspection.sparsity:.1f} %"),
        ("quantization", inspection.quantization),
        ("minimum runtime", f"TensorFlow {inspection.minimum_runtime}" if inspection.minimum_runtime else "not noted"),
        ("metadata", ", ".join(inspection.metadata) or "none"),
        ("float16 sums", "allowed" if inspection.float16_accumulation else "not allowed"),
    ]
    facts += [
        (runtime, f"lacks {'; '.join(lacking)}" if lacking else "has all operators")
        for runtime, lacking in missing.items()
    ]
    return [*facts, ("sparse kernels", f"{eligible} ({verdict.holds_for}): {rule}")]


def _layers(inspection: Inspection) -> Table:
    table = Table("layer", title="Zeros by layer", title_justify="left")
    for heading in ("weights", "zeros"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for layer in inspection.layers:
        ratio = layer.zeros / layer.weights
        filled = round(_BAR_CELLS * ratio)
        bar = "█" * filled + "·" * (_BAR_CELLS - filled)
        table.add_row(escape(_shortened(layer.name)), f"{layer.weights:,}", f"{100 * ratio:.1f} %", bar)
    return table


def _describe(tensor: Tensor) -> str:
    sizes = ", ".join("?" if size < 0 else str(size) for size in tensor.signature or tensor.shape)
    quantized = "" if tensor.scale is None else f", scale {tensor.scale:.6g}, zero point {tensor.zero_point}"
    return f"{_shortened(tensor.name)} ({sizes}) {tensor.dtype}{quantized}"


def _shortened(name: str) -> str:
    """The last part of a name that the converter fused from many, cut in the middle where it is still long."""
    last = name.rpartition(";")[2] or name
    if len(last) <= _SHORTENED:
        return last
    half = (_SHORTENED - 1) // 2
    return f"{last[:half]}…{last[-half:]}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.2f} MiB ({size_bytes} bytes)"
