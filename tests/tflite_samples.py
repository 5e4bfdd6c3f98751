"""Tiny real .tflite files made in a millisecond, built node by node without TensorFlow.

`color_classifier` labels by mean color: with `COLORS` as weights the label is the channel that is brightest.

    image (1, size, size, 3) -> [DEQUANTIZE] -> MEAN -> FULLY_CONNECTED -> SOFTMAX or LOGISTIC -> [QUANTIZE]

`unusual_model` has what image classifiers have not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from liteship_agent.manifest import InputContract, OutputContract

COLORS = ((6.0, 0.0, 0.0), (0.0, 6.0, 0.0), (0.0, 0.0, 6.0))
INPUT_QUANTIZATION = (1 / 127.5, 0)
OUTPUT_QUANTIZATION = (1 / 256, -128)


def color_classifier(
    weights: Sequence[Sequence[float]] = COLORS, *, size: int = 8, activation: str = "softmax", dtype: str = "float32"
) -> bytes:
    """A .tflite file.

    Args:
        weights: Shape (units, 3), of the mean of each channel of the input's real values.
        size: Height and width of the input.
        activation: "softmax" or "sigmoid".
        dtype: Of input and output, "float32" or "int8".
    """
    graph = _Graph()
    units = len(weights)
    quantized = dtype == "int8"
    image = graph.tensor("image", (1, size, size, 3), quantization=INPUT_QUANTIZATION if quantized else None)
    real = image
    if quantized:
        real = graph.node("DEQUANTIZE", [image], (1, size, size, 3))
    axes = graph.tensor("axes", (2,), content=np.array([1, 2], np.int32))
    mean = graph.node("MEAN", [real, axes], (1, 3), schema.ReducerOptionsT())
    matrix = graph.tensor("weights", (units, 3), content=np.array(weights, np.float32))
    logits = graph.node("FULLY_CONNECTED", [mean, matrix], (1, units), schema.FullyConnectedOptionsT())
    if activation == "softmax":
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        output = graph.node("SOFTMAX", [logits], (1, units), options)
    else:
        output = graph.node("LOGISTIC", [logits], (1, units))
    if quantized:
        output = graph.node("QUANTIZE", [output], (1, units), quantization=OUTPUT_QUANTIZATION)
    return graph.to_bytes(image, output)


ESCAPE = "\x1b[31mred\x9b2J"
FUSED = "first;" + "deep/" * 30 + "grown"
CHUNK = 4096


def unusual_model() -> bytes:
    """Two graphs that call each other, text, a dynamic batch, a custom operator, a 4-bit and a transposed kernel."""
    main, body = _Graph(), _Graph()
    main.buffers, main.codes = body.buffers, body.codes = [schema.BufferT()], []
    image = main.tensor("image", (1, 4, 4, 2), signature=(-1, 4, 4, 2))
    text = main.tensor(ESCAPE, (1,), dtype="STRING")
    kernel = main.tensor("four bits", (3, 1, 1, 2), dtype="INT4", content=np.array([0x10, 0x00, 0x2F], np.uint8))
    convolved = main.node("CONV_2D", [image, kernel, -1], (1, 4, 4, 3), convolution_options())
    sizes = main.tensor("sizes", (4,), content=np.array([1, 8, 8, 5], np.int32))
    grown = main.tensor(FUSED, (5, 2, 2, 3), content=np.ones((5, 2, 2, 3), np.float32))
    larger = main.node("TRANSPOSE_CONV", [sizes, grown, convolved], (1, 8, 8, 5), schema.TransposeConvOptionsT())
    loop = schema.WhileOptionsT()
    loop.condSubgraphIndex = loop.bodySubgraphIndex = 1
    looped = main.node("WHILE", [larger, text], (), loop)
    custom = main.node("CUSTOM", [looped], (1,), custom="Find" + ESCAPE, dtype="BOOL")
    loop = schema.WhileOptionsT()
    loop.condSubgraphIndex, loop.bodySubgraphIndex = 1, 0
    argument = body.tensor("argument", (1,), dtype="COMPLEX64")
    result = body.node("WHILE", [argument], (1,), loop)
    graphs = [main.subgraph([image, text], [custom, looped]), body.subgraph([argument], [result])]
    note = schema.BufferT()
    note.data = np.frombuffer(b"fp16accfp16\0\0", np.uint8)
    main.buffers.append(note)
    return main.pack(graphs, {"reduced_precision_support": len(main.buffers) - 1, "": 0})


def convolution_options(stride: int = 1) -> Any:
    """Without padding."""
    options = schema.Conv2DOptionsT()
    options.padding, options.strideH, options.strideW = schema.Padding.VALID, stride, stride
    return options


def move_buffers_out(content: bytes) -> bytes:
    """The same file with its constants behind the flatbuffer, as files above 2 GB have them."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    moved = [(buffer, bytes(buffer.data)) for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    for number, (buffer, data) in enumerate(moved, 2):
        buffer.data, buffer.offset, buffer.size = None, CHUNK * number, len(data)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    out = bytes(builder.Output())
    if len(out) > 2 * CHUNK or any(len(data) > CHUNK for _, data in moved):
        raise ValueError("A small model is required")
    return out.ljust(2 * CHUNK, b"\0") + b"".join(data.ljust(CHUNK, b"\0") for _, data in moved)


def color_contracts(
    *, size: int = 8, activation: str = "softmax", dtype: str = "float32"
) -> tuple[InputContract, OutputContract]:
    """How `color_classifier` with the same arguments is fed and read."""
    pixels = InputContract(size, size, "rgb", "crop", "area", (127.5,) * 3, (127.5,) * 3)
    if dtype == "float32":
        return pixels, OutputContract(activation)
    scale, zero_point = INPUT_QUANTIZATION
    quantized = replace(pixels, dtype=dtype, scale=scale, zero_point=zero_point)
    return quantized, OutputContract(activation, dtype, *OUTPUT_QUANTIZATION)


class _Graph:
    def __init__(self) -> None:
        self.buffers = [schema.BufferT()]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: list[Any] = []

    def tensor(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        content: np.ndarray | None = None,
        quantization: tuple[float, int] | None = None,
        dtype: str | None = None,
        signature: tuple[int, ...] | None = None,
    ) -> int:
        """Index of a new tensor; without dtype int8 where it is quantized, int32 where its content is, else float32."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer, tensor.shapeSignature = name, list(shape), 0, signature
        is_int32 = content is not None and content.dtype == np.int32
        default = "INT8" if quantization else "INT32" if is_int32 else "FLOAT32"
        tensor.type = getattr(schema.TensorType, dtype or default)
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            self.buffers.append(buffer)
        if quantization is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale, tensor.quantization.zeroPoint = [quantization[0]], [quantization[1]]
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def node(
        self,
        operator: str,
        inputs: list[int],
        shape: tuple[int, ...],
        options: Any = None,
        quantization: tuple[float, int] | None = None,
        custom: str | None = None,
        dtype: str | None = None,
    ) -> int:
        """Index of the output tensor of a new node."""
        code = schema.OperatorCodeT()
        code.builtinCode, code.customCode = getattr(schema.BuiltinOperator, operator), custom
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs = len(self.codes), inputs
        node.outputs = [self.tensor(operator.lower(), shape, quantization=quantization, dtype=dtype)]
        if options is not None:
            node.builtinOptions = options
            node.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.codes.append(code)
        self.operators.append(node)
        return node.outputs[0]

    def subgraph(self, inputs: list[int], outputs: list[int]) -> Any:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, inputs, outputs
        return graph

    def pack(self, graphs: list[Any], metadata: dict[str, int]) -> bytes:
        """A file of graphs that share buffers and operator codes."""
        model = schema.ModelT()
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, self.codes, graphs, self.buffers
        model.metadata = []
        for name, buffer in metadata.items():
            entry = schema.MetadataT()
            entry.name, entry.buffer = name, buffer
            model.metadata.append(entry)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def to_bytes(self, image: int, output: int) -> bytes:
        return self.pack([self.subgraph([image], [output])], {})
