"""Measure which operator versions a TFLite runtime has: the table behind `host/liteship/operator_versions.json`.

A runtime refuses a file in which it lacks an operator before it looks at anything else, so that a graph of one node is
enough. Run once for each runtime, in a Python that has it, and merge the lines:

    python benchmarks/operator_versions.py ai-edge-litert > table.json
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

_MOST = 32
_MODULES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}


def one_node_model(code: int, version: int) -> bytes:
    """A .tflite file whose only node has this operator."""
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = "x", [1], schema.TensorType.FLOAT32, 0
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [0]
    graph = schema.SubGraphT()
    graph.tensors, graph.inputs, graph.outputs, graph.operators = [tensor], [0], [0], [operator]
    opcode = schema.OperatorCodeT()
    opcode.builtinCode, opcode.deprecatedBuiltinCode, opcode.version = code, min(code, 127), version
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [opcode], [graph], [schema.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def has_operator(interpreter: type, code: int, version: int) -> bool:
    """Whether the runtime resolves the operator; what it says of the graph afterwards does not matter."""
    try:
        interpreter(model_content=one_node_model(code, version))
    except (ValueError, RuntimeError) as exc:
        return "Didn't find op" not in str(exc)
    return True


def main() -> None:
    """Print the largest version of every operator of one runtime."""
    name = sys.argv[1]
    interpreter = importlib.import_module(_MODULES[name]).Interpreter
    table = {}
    for operator, code in sorted(vars(schema.BuiltinOperator).items()):
        if isinstance(code, int) and operator not in ("CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES"):
            versions = [version for version in range(1, _MOST) if has_operator(interpreter, code, version)]
            # A runtime that takes every version does not know the operator: it is newer than its schema.
            if versions and max(versions) < _MOST - 1:
                table[operator] = max(versions)
    json.dump({f"{name}=={importlib.metadata.version(name)}": table}, sys.stdout, indent=1, sort_keys=True)


if __name__ == "__main__":
    main()
