"""What stands in a .tflite file: operators with versions, zeros per layer, multiply-adds, input and output, and which
runtimes load it.

Reads the file itself, without TensorFlow and without loading it into a runtime, so that it is known before it is sent
anywhere.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from liteship import sparse_kernels
from liteship.tflite_graph import KERNEL_INPUTS, Graph, Model, Node, Value, damaged, read_model
from liteship_agent.manifest import LayerSparsity, Operator, SparseVerdict

_MINIMUM_RUNTIME = "min_runtime_version"
_REDUCED_PRECISION = "reduced_precision_support"
_INTEGERS = ("int8", "uint8", "int4", "uint4", "int2", "int16", "uint16")
_NOT_PARAMETERS = ("string", "resource", "variant", "bool")
_INDICES = ("int32", "int64", "uint32", "uint64")


@dataclass(frozen=True)
class Tensor:
    """An input or output of the main graph; scale and zero point are null where it is not quantized.

    Args:
        shape: As stored, 1 where a size is dynamic.
        signature: The same with -1 where a size is dynamic; empty where the file has none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None
    signature: tuple[int, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """What a .tflite file holds.

    Args:
        operators: Of all graphs, with version and count, sorted by name.
        minimum_runtime: The converter's own note, in TensorFlow's numbering, or None.
        layers: Zeros of every constant kernel of a convolution or dense layer, each once.
        multiply_adds: Of one inference of the main graph, over convolutions and dense layers whose sizes it tells.
        stored_sparse: Whether any kernel is stored in the sparse format.
        inputs, outputs: Of the main graph.
        parameters: Elements of all constants but indices, shapes and text.
        quantization: "float32", "float16 weights", "dynamic range" (integer kernels, float activations), "integer
            weights" (expanded before use), "full integer", "mixed" (integer and float activations), or "none" where
            no layer has a kernel.
        metadata: Names.
        float16_accumulation: Whether the metadata lets a runtime accumulate in float16.
        graphs: Number of graphs; all but the first are bodies of control flow or further entry points.
        sparse_verdict: Of XNNPACK's sparse kernels.
    """

    operators: tuple[Operator, ...]
    minimum_runtime: str | None
    layers: tuple[LayerSparsity, ...]
    multiply_adds: int
    stored_sparse: bool
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    parameters: int
    quantization: str
    metadata: tuple[str, ...]
    float16_accumulation: bool
    graphs: int
    sparse_verdict: SparseVerdict

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
    model = read_model(content, name)
    try:
        return _inspect(model)
    except (ValueError, IndexError, ArithmeticError) as exc:
        raise damaged(content, name, exc) from exc


def _inspect(model: Model) -> Inspection:
    main = model.graphs[0]
    counts = Counter((node.operator, node.version) for graph in model.graphs for node in graph.nodes)
    kernels = list(_kernels(model))
    return Inspection(
        operators=tuple(Operator(name, version, count) for (name, version), count in sorted(counts.items())),
        minimum_runtime=_note(model, _MINIMUM_RUNTIME) or None,
        layers=tuple(LayerSparsity(kernel.name, kernel.elements, kernel.zeros) for kernel in kernels),
        multiply_adds=sum(_multiply_adds(main, node) for node in main.nodes),
        stored_sparse=any(kernel.is_sparse for kernel in kernels),
        inputs=_tensors(main, main.inputs),
        outputs=_tensors(main, main.outputs),
        parameters=_parameters(model),
        quantization=_quantization(model),
        metadata=tuple(model.metadata),
        float16_accumulation=_allows_float16(_note(model, _REDUCED_PRECISION)),
        graphs=len(model.graphs),
        sparse_verdict=sparse_kernels.judge(main),
    )


def _note(model: Model, name: str) -> str:
    return model.metadata.get(name, b"").rstrip(b"\0").decode("ascii", errors="backslashreplace")


def _allows_float16(note: str) -> bool:
    """From the form "fp16accfp16": types of the weights, then "acc", then the type of the sums."""
    weights, _, sums = note.partition("acc")
    return "fp16" in weights and sums == "fp16"


def _kernels(model: Model) -> Iterator[Value]:
    """Constant kernels of all graphs, each once."""
    seen: set[int] = set()
    for graph in model.graphs:
        for node in graph.nodes:
            kernel = graph.kernel(node)
            if kernel is not None and id(kernel.buffer) not in seen:
                seen.add(id(kernel.buffer))
                yield kernel


def _parameters(model: Model) -> int:
    """Integers without a scale are axes, shapes and the like; with one they are biases."""
    constants = {
        id(value.buffer): value
        for graph in model.graphs
        for value in graph.values
        if value.buffer is not None
        and value.dtype not in _NOT_PARAMETERS
        and not (value.dtype in _INDICES and value.scale is None)
    }
    return sum(value.elements for value in constants.values())


def _multiply_adds(graph: Graph, node: Node) -> int:
    """Kernel elements that meet each position, times positions: of the output, or of the input where that is larger."""
    if node.operator not in KERNEL_INPUTS or not node.outputs:
        return 0
    kernel_input, data_input = KERNEL_INPUTS[node.operator]
    kernel, data = graph.operand(node, kernel_input), graph.operand(node, data_input)
    output = graph.values[node.outputs[0]]
    if kernel is None or data is None or not (kernel.shape and data.shape and output.shape):
        return 0
    if node.operator == "BATCH_MATMUL":
        return output.elements * data.shape[-2 if node.options.get("AdjX") and len(data.shape) > 1 else -1]
    if node.operator == "FULLY_CONNECTED":
        return output.elements * kernel.shape[-1]
    if node.operator in ("TRANSPOSE_CONV", "CONV_3D_TRANSPOSE"):
        return math.prod(data.shape[:-1]) * kernel.elements
    return math.prod(output.shape[:-1]) * kernel.elements


def _quantization(model: Model) -> str:
    """What the kernels are stored in, and what they meet."""
    found = set()
    for graph in model.graphs:
        for node in graph.nodes:
            stored, read = graph.kernel(node), graph.operand(node, KERNEL_INPUTS.get(node.operator, (0, 0))[0])
            data = graph.operand(node, KERNEL_INPUTS.get(node.operator, (0, 0))[1])
            if stored is not None and read is not None and data is not None:
                is_integer = stored.dtype in _INTEGERS
                kind = ("integer weights" if read.dtype != stored.dtype else "integer") if is_integer else stored.dtype
                found.add((data.dtype in _INTEGERS, kind))
    if not found:
        return "none"
    if any(meets_integers for meets_integers, _ in found):
        return "full integer" if all(meets_integers for meets_integers, _ in found) else "mixed"
    kinds = {kind for _, kind in found}
    names = {"integer": "dynamic range", "integer weights": "integer weights", "float16": "float16 weights"}
    return next((name for kind, name in names.items() if kind in kinds), "float32")


def _tensors(graph: Graph, indices: tuple[int, ...]) -> tuple[Tensor, ...]:
    values = [graph.values[index] for index in indices if index >= 0]
    for value in values:
        if value.scale is not None and not math.isfinite(value.scale):
            raise ValueError(f"{value.name} has the scale {value.scale}")
    return tuple(Tensor(v.name, v.shape, v.dtype, v.scale, v.zero_point, v.signature) for v in values)


def sparse_verdict(inspection: Inspection) -> SparseVerdict:
    """Whether XNNPACK's sparse kernels take the file, or the first layer and rule that says no."""
    return inspection.sparse_verdict
