"""Tiny real .tflite files made in a millisecond: a classifier by mean color, built node by node without TensorFlow.

    image (1, size, size, 3) -> [DEQUANTIZE] -> MEAN -> FULLY_CONNECTED -> SOFTMAX or LOGISTIC -> [QUANTIZE]

With `COLORS` as weights the label is the channel that is brightest.
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
    ) -> int:
        """Index of a new tensor: float32, or int32 where its content is, or int8 where it is quantized."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, list(shape), 0
        tensor.type = schema.TensorType.FLOAT32
        if content is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(content.tobytes(), np.uint8)
            tensor.buffer = len(self.buffers)
            tensor.type = schema.TensorType.INT32 if content.dtype == np.int32 else schema.TensorType.FLOAT32
            self.buffers.append(buffer)
        if quantization is not None:
            tensor.type = schema.TensorType.INT8
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
    ) -> int:
        """Index of the output tensor of a new node."""
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, operator)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
        node = schema.OperatorT()
        node.opcodeIndex, node.inputs = len(self.codes), inputs
        node.outputs = [self.tensor(operator.lower(), shape, quantization=quantization)]
        if options is not None:
            node.builtinOptions = options
            node.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self.codes.append(code)
        self.operators.append(node)
        return node.outputs[0]

    def to_bytes(self, image: int, output: int) -> bytes:
        graph = schema.SubGraphT()
        graph.tensors, graph.operators, graph.inputs, graph.outputs = self.tensors, self.operators, [image], [output]
        model = schema.ModelT()
        model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, self.codes, [graph], self.buffers
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())
