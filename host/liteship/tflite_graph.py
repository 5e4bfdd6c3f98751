"""The graphs of a .tflite file as plain records, read within bounds.

The generated reader of the schema believes every length and offset that a file states. Here each list is paid for out
of a budget, indices are checked, and what is damaged ends as one ConversionError, whatever the bytes are.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from liteship.errors import ConversionError
from liteship.operators import CUSTOM_PREFIX

_IDENTIFIER = b"TFL3"
_NO_DATA = 1  # offset and size of a buffer that stands outside the flatbuffer are above this
# Some 20,000 operators with their tensors, which take two seconds to read; MobileNetV2 needs 3,000 entries.
_MOST_ENTRIES = 500_000
_TABLE_COST = 8
_CHARACTERS_PER_ENTRY = 100
_MOST_DIMENSIONS = 32
_OPERATOR_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
_DTYPES = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
_BITS = {
    **{"float32": 32, "float16": 16, "bfloat16": 16, "float64": 64, "float8_e4m3fn": 8, "float8_e5m2": 8},
    **{"int64": 64, "uint64": 64, "int32": 32, "uint32": 32, "int16": 16, "uint16": 16, "int8": 8, "uint8": 8},
    **{"bool": 8, "int4": 4, "uint4": 4, "int2": 2},
}
_STRIDES = ("StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "Padding", "FusedActivationFunction")
# Options that somebody asks for, by operator.
_OPTIONS = {
    "CONV_2D": (schema.Conv2DOptions, _STRIDES),
    "DEPTHWISE_CONV_2D": (schema.DepthwiseConv2DOptions, _STRIDES),
    "FULLY_CONNECTED": (schema.FullyConnectedOptions, ("KeepNumDims",)),
    "BATCH_MATMUL": (schema.BatchMatMulOptions, ("AdjX",)),
}
# Input that is the kernel, and input that it is applied to.
KERNEL_INPUTS = {
    "CONV_2D": (1, 0),
    "DEPTHWISE_CONV_2D": (1, 0),
    "FULLY_CONNECTED": (1, 0),
    "BATCH_MATMUL": (1, 0),
    "CONV_3D": (1, 0),
    "TRANSPOSE_CONV": (1, 2),
    "CONV_3D_TRANSPOSE": (1, 2),
}
# What reading past the end or into nonsense raises in the generated reader.
_MALFORMED = (struct.error, IndexError, ValueError, TypeError, AttributeError, KeyError, ArithmeticError, MemoryError)


@dataclass(frozen=True, eq=False)
class Buffer:
    """Bytes of a constant, shared by all values that name it; uint8, a view into the file."""

    data: np.ndarray
    _nonzeros: dict[str, int] = field(default_factory=dict)

    def nonzeros(self, dtype: str) -> int:
        """Elements that are not zero (minus zero is zero), counted once.

        Raises:
            ValueError: not a numeric dtype, or no whole number of elements.
        """
        if dtype not in self._nonzeros:
            self._nonzeros[dtype] = _count_nonzeros(self.data, dtype)
        return self._nonzeros[dtype]


@dataclass(frozen=True)
class Value:
    """A tensor.

    Args:
        name: Printable: control characters are escaped.
        shape: As stored, 1 where a size is dynamic.
        signature: The same with -1 where a size is dynamic; empty where none is.
        dtype: Lower case, such as "float32", "int4", "string".
        scale, zero_point: Of a quantized one, of the first channel, else null.
        buffer: Its bytes where it is constant.
        is_sparse: Whether only its nonzero elements are stored.
    """

    name: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None
    buffer: Buffer | None
    is_sparse: bool

    @property
    def elements(self) -> int:
        """Product of the shape."""
        return math.prod(self.shape)

    @property
    def zeros(self) -> int:
        """Zeros of a constant; what is not stored is zero.

        Raises:
            ValueError: its bytes do not fit its shape.
        """
        data = self.buffer.data if self.buffer else b""
        if self.buffer is None or self.elements <= 0:
            raise ValueError(f"{self.name} has no elements")
        if not self.is_sparse and 8 * len(data) < self.elements * _BITS.get(self.dtype, 8):
            raise ValueError(f"{self.name} has {len(data)} bytes for shape {list(self.shape)}")
        return self.elements - min(self.buffer.nonzeros(self.dtype), self.elements)

    def integers(self) -> tuple[int, ...]:
        """Content of a small int32 or int64 constant, such as axes or paddings; empty for anything else."""
        if self.buffer is None or self.dtype not in ("int32", "int64") or len(self.buffer.data) > 8 * _MOST_DIMENSIONS:
            return ()
        return tuple(np.frombuffer(self.buffer.data, self.dtype).tolist())


@dataclass(frozen=True)
class Node:
    """An operator with its version and the indices of its values, -1 for an input that is left out.

    Args:
        operator: "CONV_2D", "CUSTOM name", or "BUILTIN_300" for one that is newer than this reader.
        options: Those of `_OPTIONS`, empty where the file has none.
    """

    operator: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, int]


@dataclass(frozen=True)
class Graph:
    """One subgraph; inputs and outputs are indices of values."""

    values: tuple[Value, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @cached_property
    def producers(self) -> dict[int, Node]:
        """The node that makes a value."""
        return {output: node for node in self.nodes for output in node.outputs}

    def operand(self, node: Node, position: int) -> Value | None:
        """The value at an input, or None where the node has none."""
        index = node.inputs[position] if position < len(node.inputs) else -1
        return self.values[index] if index >= 0 else None

    def stored(self, index: int) -> Value | None:
        """The constant behind a value, also through DEQUANTIZE and DENSIFY, or None."""
        for _ in range(2):
            node = self.producers.get(index)
            if node is not None and node.operator in ("DEQUANTIZE", "DENSIFY") and node.inputs:
                index = node.inputs[0]
        value = self.values[index] if index >= 0 else None
        return value if value is not None and value.buffer is not None else None

    def kernel(self, node: Node) -> Value | None:
        """The constant kernel of a convolution or dense layer as it is stored, or None."""
        position = KERNEL_INPUTS.get(node.operator, (len(node.inputs), 0))[0]
        return self.stored(node.inputs[position]) if position < len(node.inputs) else None


@dataclass(frozen=True)
class Model:
    """All graphs, the first being the main one, and metadata by name."""

    graphs: tuple[Graph, ...]
    metadata: Mapping[str, bytes]


def read_model(content: bytes, name: str) -> Model:
    """Read a .tflite file.

    Args:
        content: The whole file.
        name: For the message.

    Raises:
        ConversionError: not a .tflite file, truncated, damaged, or with more entries than any model has.
    """
    if content[4:8] != _IDENTIFIER:
        raise ConversionError(f"{name}: a .tflite file is required. Received: {len(content)} bytes that are not one")
    try:
        return _Reader(content).model()
    except _MALFORMED as exc:
        raise damaged(content, name, exc) from exc


def damaged(content: bytes, name: str, exc: Exception) -> ConversionError:
    """For a file whose parts contradict each other."""
    reason = " ".join(str(exc).split())[:200]
    return ConversionError(
        f"{name}: a whole .tflite file is required. Received: a damaged one of {len(content)} bytes ({reason})"
    )


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content = content
        self.root = schema.Model.GetRootAsModel(content, 0)
        self.entries_left = _MOST_ENTRIES
        self.bytes_left = 2 * len(content)
        self.buffers: dict[int, Buffer | None] = {0: None}

    def model(self) -> Model:
        codes = [self.operator_code(self.root.OperatorCodes(i)) for i in self.tables(self.root.OperatorCodesLength())]
        graphs = [self.graph(self.root.Subgraphs(i), codes) for i in self.tables(self.root.SubgraphsLength())]
        if not graphs:
            raise ValueError("no graph")
        entries = [self.root.Metadata(i) for i in self.tables(self.root.MetadataLength())]
        return Model(tuple(graphs), {self.text(entry.Name()): self.metadata(entry.Buffer()) for entry in entries})

    def spend(self, entries: int) -> None:
        self.entries_left -= entries
        if self.entries_left < 0:
            raise ValueError("more entries than a model has")

    def tables(self, length: int) -> range:
        self.spend(_TABLE_COST * length)
        return range(length)

    def integers(self, vector: Any) -> tuple[int, ...]:
        """From what an `...AsNumpy` returns: an array, or 0 where the field is absent."""
        if isinstance(vector, int):
            return ()
        self.spend(len(vector))
        return tuple(vector.tolist())

    def shape(self, vector: Any) -> tuple[int, ...]:
        shape = self.integers(vector)
        if len(shape) > _MOST_DIMENSIONS:
            raise ValueError(f"a shape of {len(shape)} dimensions")
        return shape

    def text(self, raw: bytes | None) -> str:
        """Printable whatever the bytes are, so that no name can steer a terminal."""
        raw = raw or b""
        self.spend(len(raw) // _CHARACTERS_PER_ENTRY)
        text = raw.decode(errors="backslashreplace")
        return text if text.isprintable() else text.encode("unicode_escape").decode()

    def metadata(self, index: int) -> bytes:
        buffer = self.buffer(index)
        return b"" if buffer is None else buffer.data.tobytes()

    def buffer(self, index: int) -> Buffer | None:
        if index not in self.buffers:
            if index >= self.root.BuffersLength():
                raise ValueError(f"buffer {index} of {self.root.BuffersLength()}")
            self.buffers[index] = self.read_buffer(self.root.Buffers(index))
        return self.buffers[index]

    def read_buffer(self, table: Any) -> Buffer | None:
        if table.Offset() > _NO_DATA and table.Size() > _NO_DATA:
            data = np.frombuffer(self.content, np.uint8, table.Size(), table.Offset())
        else:
            data = table.DataAsNumpy()
        if isinstance(data, int) or not len(data):
            return None
        self.bytes_left -= len(data)
        if self.bytes_left < 0:
            raise ValueError("buffers that overlap")
        return Buffer(data)

    def operator_code(self, code: Any) -> tuple[str, int]:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == schema.BuiltinOperator.CUSTOM:
            return CUSTOM_PREFIX + self.text(code.CustomCode()), code.Version()
        return _OPERATOR_NAMES.get(number, f"BUILTIN_{number}"), code.Version()

    def graph(self, table: Any, codes: list[tuple[str, int]]) -> Graph:
        values = tuple(self.value(table.Tensors(i)) for i in self.tables(table.TensorsLength()))
        nodes = tuple(self.node(table.Operators(i), codes) for i in self.tables(table.OperatorsLength()))
        graph = Graph(values, nodes, self.integers(table.InputsAsNumpy()), self.integers(table.OutputsAsNumpy()))
        for node in nodes:
            _check_indices((*node.inputs, *node.outputs), len(values))
        _check_indices((*graph.inputs, *graph.outputs), len(values))
        return graph

    def value(self, tensor: Any) -> Value:
        quantization = tensor.Quantization()
        scale = zero_point = None
        if quantization is not None and quantization.ScaleLength():
            scale = float(quantization.Scale(0))
            zero_point = int(quantization.ZeroPoint(0)) if quantization.ZeroPointLength() else 0
        return Value(
            name=self.text(tensor.Name()),
            shape=self.shape(tensor.ShapeAsNumpy()),
            signature=self.shape(tensor.ShapeSignatureAsNumpy()),
            dtype=_DTYPES.get(tensor.Type(), f"type_{tensor.Type()}"),
            scale=scale,
            zero_point=zero_point,
            buffer=self.buffer(tensor.Buffer()),
            is_sparse=tensor.Sparsity() is not None,
        )

    def node(self, operator: Any, codes: list[tuple[str, int]]) -> Node:
        name, version = codes[operator.OpcodeIndex()]
        inputs, outputs = self.integers(operator.InputsAsNumpy()), self.integers(operator.OutputsAsNumpy())
        return Node(name, version, inputs, outputs, _options(operator, name))


def _options(operator: Any, name: str) -> dict[str, int]:
    union = operator.BuiltinOptions() if name in _OPTIONS else None
    if union is None:
        return {}
    table, names = _OPTIONS[name]
    if operator.BuiltinOptionsType() != getattr(schema.BuiltinOptions, table.__name__):
        raise ValueError(f"{name} with options of another operator")
    options = table()
    options.Init(union.Bytes, union.Pos)
    return {option: int(getattr(options, option)()) for option in names}


def _check_indices(indices: tuple[int, ...], values: int) -> None:
    if indices and (min(indices) < -1 or max(indices) >= values):
        raise ValueError(f"tensors {min(indices)} to {max(indices)} of {values}")


def _count_nonzeros(data: np.ndarray, dtype: str) -> int:
    bits = _BITS.get(dtype)
    if bits is None:
        raise ValueError(f"a kernel of {dtype}")
    if bits < 8:
        mask = (1 << bits) - 1
        return sum(int(np.count_nonzero(data & (mask << shift))) for shift in range(0, 8, bits))
    if dtype in ("float32", "float64"):
        return int(np.count_nonzero(np.frombuffer(data, dtype)))
    words = np.frombuffer(data, f"uint{bits}")
    # A left shift drops the sign of the short floats, for which NumPy is slow or has no type.
    return int(np.count_nonzero(words << 1 if "float" in dtype else words))
