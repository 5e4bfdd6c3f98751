"""What stands in a .tflite file: operators with versions, zeros per layer, multiply-adds, input and output.

Reads the flatbuffer itself, without TensorFlow and without loading it into a runtime, so that a file is known before
it is sent anywhere.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from liteship.errors import ConversionError
from liteship_agent.manifest import LayerSparsity, Operator, SparseVerdict

_IDENTIFIER = b"TFL3"
_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_DTYPES = {
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.FLOAT16: "float16",
    schema.TensorType.INT8: "int8",
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.INT32: "int32",
    schema.TensorType.INT64: "int64",
}
# What reading past the end or into nonsense raises in the generated reader.
_MALFORMED = (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class Tensor:
    """An input or output of the graph; scale and zero point are null where it is not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Inspection:
    """What a .tflite file holds.

    Args:
        operators: With version and count, sorted by name.
        minimum_runtime: The converter's own note, in TensorFlow's numbering, or None.
        layers: Zeros of every convolution and dense kernel.
        multiply_adds: Of one inference, over convolutions and dense layers.
        stored_sparse: Whether any kernel is stored in the sparse format.
        inputs, outputs: Of the graph.
    """

    operators: tuple[Operator, ...]
    minimum_runtime: str | None
    layers: tuple[LayerSparsity, ...]
    multiply_adds: int
    stored_sparse: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def sparsity(self) -> float:
        """Share of zeros over all kernels, 0 to 1."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.zeros for layer in self.layers) / weights if weights else 0.0


def inspect(content: bytes, name: str) -> Inspection:
    """Read a .tflite file.

    Args:
        content: The whole file.
        name: For the message.

    Raises:
        ConversionError: not a .tflite file, truncated, or damaged.
    """
    if content[4:8] != _IDENTIFIER:
        raise ConversionError(f"{name}: a .tflite file is required. Received: {len(content)} bytes that are not one")
    try:
        return _inspect(schema.Model.GetRootAsModel(content, 0))
    except _MALFORMED as exc:
        raise ConversionError(
            f"{name}: a whole .tflite file is required. Received: a damaged one of {len(content)} bytes ({exc})"
        ) from exc


def _inspect(model: Any) -> Inspection:
    graph = model.Subgraphs(0)
    nodes = [graph.Operators(index) for index in range(graph.OperatorsLength())]
    counts = Counter(_operator(model, node) for node in nodes)
    kernels = list(_kernels(model, graph, nodes))
    return Inspection(
        operators=tuple(Operator(name, version, count) for (name, version), count in sorted(counts.items())),
        minimum_runtime=_minimum_runtime(model),
        layers=tuple(_zeros(model, kernel) for kernel in kernels),
        multiply_adds=sum(_multiply_adds(model, graph, node) for node in nodes),
        stored_sparse=any(kernel.Sparsity() is not None for kernel in kernels),
        inputs=tuple(_tensor(graph.Tensors(index)) for index in graph.InputsAsNumpy()),
        outputs=tuple(_tensor(graph.Tensors(index)) for index in graph.OutputsAsNumpy()),
    )


def _operator(model: Any, node: Any) -> tuple[str, int]:
    code = model.OperatorCodes(node.OpcodeIndex())
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    if number == schema.BuiltinOperator.CUSTOM:
        return f"CUSTOM {code.CustomCode().decode(errors='replace')}", code.Version()
    return _OPERATOR_NAMES[number], code.Version()


def _minimum_runtime(model: Any) -> str | None:
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        if entry.Name() == b"min_runtime_version":
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy()).rstrip(b"\0").decode("ascii") or None
    return None


def _kernels(model: Any, graph: Any, nodes: list[Any]) -> Iterator[Any]:
    """Constant weight tensors of convolutions and dense layers, each once, through DEQUANTIZE and DENSIFY."""
    producers = {int(output): node for node in nodes for output in node.OutputsAsNumpy()}
    seen: set[int] = set()
    for node in nodes:
        if _operator(model, node)[0] not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        index = int(node.Inputs(1))
        for wrapping in ("DEQUANTIZE", "DENSIFY"):
            if index in producers and _operator(model, producers[index])[0] == wrapping:
                index = int(producers[index].Inputs(0))
        tensor = graph.Tensors(index)
        if index not in seen and model.Buffers(tensor.Buffer()).DataLength():
            seen.add(index)
            yield tensor


def _zeros(model: Any, tensor: Any) -> LayerSparsity:
    data = model.Buffers(tensor.Buffer()).DataAsNumpy()
    values = np.frombuffer(data.tobytes(), _DTYPES[tensor.Type()])
    weights = int(np.prod(tensor.ShapeAsNumpy(), dtype=np.int64))
    stored = min(int(np.count_nonzero(values)), weights)
    return LayerSparsity(tensor.Name().decode(errors="replace"), weights, weights - stored)


def _multiply_adds(model: Any, graph: Any, node: Any) -> int:
    """Kernel elements that meet each output position, times output positions."""
    name = _operator(model, node)[0]
    if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
        return 0
    kernel = [int(size) for size in graph.Tensors(node.Inputs(1)).ShapeAsNumpy()]
    output = [int(size) for size in graph.Tensors(node.Outputs(0)).ShapeAsNumpy()]
    if name == "FULLY_CONNECTED":
        return kernel[0] * kernel[1] * (int(np.prod(output)) // kernel[0])
    positions = output[1] * output[2]
    return positions * int(np.prod(kernel))


def _tensor(tensor: Any) -> Tensor:
    quantization = tensor.Quantization()
    is_quantized = quantization is not None and quantization.ScaleLength() > 0
    return Tensor(
        name=tensor.Name().decode(errors="replace"),
        shape=tuple(int(size) for size in tensor.ShapeAsNumpy()),
        dtype=_DTYPES[tensor.Type()],
        scale=float(quantization.Scale(0)) if is_quantized else None,
        zero_point=int(quantization.ZeroPoint(0)) if is_quantized else None,
    )


def sparse_verdict(inspection: Inspection) -> SparseVerdict:
    """Whether XNNPACK's sparse kernels can take the file: the first rule is that kernels are stored sparse."""
    if not inspection.stored_sparse:
        return SparseVerdict(False, "kernels are stored dense")
    return SparseVerdict(True, "kernels are stored sparse")


@cache
def _operator_versions() -> dict[str, dict[str, int]]:
    """Largest version of every operator by runtime, measured by benchmarks/operator_versions.py."""
    table: dict[str, dict[str, int]] = json.loads(
        resources.files("liteship").joinpath("operator_versions.json").read_text()
    )
    return table


def missing_operators(operators: tuple[Operator, ...], runtime: str) -> list[str]:
    """What a runtime lacks to load a file.

    Args:
        operators: Of the file.
        runtime: For example "tflite-runtime==2.14.0".

    Returns:
        One text per operator, empty when the file loads: "FULLY_CONNECTED version 12 (the runtime has 10)".
    """
    table = _operator_versions()[runtime]
    return [
        f"{operator.name} version {operator.version} (the runtime has {table.get(operator.name, 'none')})"
        for operator in operators
        if operator.version > table.get(operator.name, 0)
    ]
