"""The only importer of a TFLite runtime: ai-edge-litert (LiteRT) or its predecessor tflite-runtime."""

from __future__ import annotations

import importlib
import importlib.metadata
import time
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Set, Tuple

import numpy as np

from liteship_agent.errors import ModelError

_MODULES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}


@dataclass(frozen=True)
class RuntimeInfo:
    """Which distribution runs the models."""

    name: str
    version: str


def available_runtime() -> Tuple[RuntimeInfo, Any]:
    """The one runtime of this process's path, with its interpreter module.

    Raises:
        ModelError: none is importable; the message has the import errors.
    """
    reasons = []
    for name, module in _MODULES.items():
        try:
            return RuntimeInfo(name, importlib.metadata.version(name)), importlib.import_module(module)
        except (ImportError, importlib.metadata.PackageNotFoundError) as exc:
            reasons.append(f"{name}: {exc}")
    raise ModelError(f"ai-edge-litert or tflite-runtime is required. Received: {'; '.join(reasons)}")


class Model:
    """One loaded .tflite file with one input and one output.

    Args:
        content: The bytes of the file; what is loaded is what was hashed.
        threads: Interpreter threads (>= 1); both runtimes would take one without being told.
        name: For messages.
    Raises:
        ModelError: the runtime cannot load the file.
    """

    def __init__(self, content: bytes, threads: int, name: str) -> None:
        self.runtime, module = available_runtime()
        self.name, self.threads = name, threads
        started = time.perf_counter_ns()
        try:
            self._interpreter = module.Interpreter(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as exc:
            reason = " ".join(str(exc).split())
            raise ModelError(f"{name}: {self.runtime.name} {self.runtime.version} cannot load it ({reason})") from exc
        self.init_ns = time.perf_counter_ns() - started
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                f"{name}: one input and one output are required. Received: {len(inputs)} and {len(outputs)}"
            )
        self.input, self.output = inputs[0], outputs[0]

    @property
    def input_shape(self) -> Tuple[int, ...]:
        """Shape of the input tensor, batch first."""
        return tuple(int(size) for size in self.input["shape"])

    def set_input(self, tensor: np.ndarray) -> None:
        """Copy one input tensor of the model's shape and dtype.

        Raises:
            ModelError: another shape or dtype.
        """
        try:
            self._interpreter.set_tensor(self.input["index"], tensor)
        except ValueError as exc:
            raise ModelError(f"{self.name}: {exc}") from exc

    def invoke(self) -> None:
        """Run the graph once on what `set_input` set.

        Raises:
            ModelError: a kernel failed.
        """
        try:
            self._interpreter.invoke()
        except RuntimeError as exc:
            raise ModelError(f"{self.name}: {' '.join(str(exc).split())}") from exc

    def get_output(self) -> np.ndarray:
        """A copy of the output tensor, shape (1, units), in the model's dtype."""
        return self._interpreter.get_tensor(self.output["index"])  # type: ignore[no-any-return]

    def run(self, tensor: np.ndarray) -> np.ndarray:
        """Set, invoke and get."""
        self.set_input(tensor)
        self.invoke()
        return self.get_output()

    def node_counts(self) -> Tuple[Optional[int], Optional[int]]:
        """Nodes of the graph that the XNNPACK delegate took, and all nodes; nulls where the runtime does not tell."""
        details = getattr(self._interpreter, "_get_ops_details", None)
        if details is None:
            return None, None
        operators = details()
        delegates = [operator for operator in operators if operator["op_name"] == "DELEGATE"]
        nodes = [operator for operator in operators if operator["op_name"] != "DELEGATE"]
        return len(_delegated(nodes, delegates)), len(nodes)


def _delegated(nodes: List[Dict[str, Any]], delegates: List[Dict[str, Any]]) -> Set[int]:
    """Indices of the nodes between each delegate's outputs and inputs: those that it computes."""
    producers = {int(tensor): node for node in nodes for tensor in node["outputs"]}
    taken: Set[int] = set()
    for delegate in delegates:
        borders = {int(tensor) for tensor in delegate["inputs"]}
        pending = [int(tensor) for tensor in delegate["outputs"]]
        while pending:
            tensor = pending.pop()
            node = producers.get(tensor)
            if tensor in borders or node is None or int(node["index"]) in taken:
                continue
            taken.add(int(node["index"]))
            pending.extend(int(source) for source in node["inputs"])
    return taken
