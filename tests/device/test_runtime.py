from __future__ import annotations

import importlib
import importlib.metadata

import numpy as np
import pytest
from release_samples import good_artefact

from liteship_agent import runtime
from liteship_agent.errors import ModelError
from liteship_agent.runtime import Model, RuntimeInfo, available_runtime
from tflite_samples import color_classifier


def green(dtype: str = "float32") -> np.ndarray:
    tensor = np.zeros((1, 8, 8, 3), dtype)
    tensor[..., 1] = 1 if dtype == "float32" else 127
    return tensor


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_model_answers_in_its_own_dtype(dtype):
    model = Model(color_classifier(dtype=dtype), 1, "sample")

    output = model.run(green(dtype))

    assert model.input_shape == (1, 8, 8, 3)
    assert output.shape == (1, 3)
    assert output.dtype == dtype
    assert output[0].argmax() == 1


def test_output_is_a_copy():
    model = Model(color_classifier(), 1, "sample")
    first = model.run(green())
    before = first.copy()

    model.run(green()[..., ::-1] * 0)

    assert (first == before).all()


def test_model_says_what_runs_it_and_how_long_loading_took():
    model = Model(color_classifier(), 1, "sample")

    assert model.runtime == RuntimeInfo("ai-edge-litert", importlib.metadata.version("ai-edge-litert"))
    assert model.init_ns > 0


@pytest.mark.parametrize("size", [0, 4, 300, -40])
def test_truncated_file_is_a_model_error_that_names_file_and_runtime(size):
    with pytest.raises(ModelError, match=r"none-int8: ai-edge-litert .* cannot load it"):
        Model(color_classifier()[:size], 1, "none-int8")


def test_text_file_is_a_model_error_of_one_line():
    with pytest.raises(ModelError) as caught:
        Model(b"this is no flatbuffer\n" * 9, 1, "none-int8")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tensor", [np.zeros((1, 8, 9, 3), np.float32), np.zeros((1, 8, 8, 3), np.uint8)])
def test_input_of_another_shape_or_dtype_is_a_model_error(tensor):
    with pytest.raises(ModelError, match=r"^sample: "):
        Model(color_classifier(), 1, "sample").run(tensor)


class FakeInterpreter:
    """A runtime that cannot say which nodes were delegated, of a model with two inputs."""

    def __init__(self, model_content: bytes, num_threads: int) -> None:
        self.threads = num_threads
        self.inputs = 1 if model_content == b"one" else 2

    def allocate_tensors(self) -> None:
        pass

    def get_input_details(self):
        return [{"index": i, "shape": np.array([1, 8, 8, 3])} for i in range(self.inputs)]

    def get_output_details(self):
        return [{"index": 9}]


@pytest.fixture
def fake(monkeypatch):
    class Module:
        Interpreter = FakeInterpreter

    monkeypatch.setattr(runtime, "available_runtime", lambda: (RuntimeInfo("fake", "1"), Module))


@pytest.mark.usefixtures("fake")
def test_threads_are_passed_on_and_kept():
    model = Model(b"one", 3, "sample")

    assert model._interpreter.threads == model.threads == 3


@pytest.mark.usefixtures("fake")
def test_model_with_two_inputs_is_refused():
    with pytest.raises(ModelError, match=r"sample: one input and one output are required\. Received: 2 and 1"):
        Model(b"two", 1, "sample")


@pytest.mark.usefixtures("fake")
def test_nodes_are_null_where_the_runtime_does_not_tell():
    assert Model(b"one", 1, "sample").node_counts() == (None, None)


def test_nodes_of_a_real_model_are_counted():
    delegated, total = Model(good_artefact().content, 1, "sample").node_counts()

    assert total == 3  # MEAN, FULLY_CONNECTED, SOFTMAX
    assert 0 <= delegated <= total


def details(*operators):
    names = ("index", "op_name", "inputs", "outputs")
    return [dict(zip(names, operator)) for operator in operators]


def test_nodes_between_a_delegates_borders_are_delegated(monkeypatch):
    model = Model(color_classifier(), 1, "sample")
    chain = details((0, "A", [0], [1]), (1, "B", [1], [2]), (2, "C", [2], [3]), (3, "DELEGATE", [1], [2]))
    monkeypatch.setattr(model._interpreter, "_get_ops_details", lambda: chain)

    assert model.node_counts() == (1, 3)


def test_nodes_of_a_branch_are_counted_once(monkeypatch):
    model = Model(color_classifier(), 1, "sample")
    diamond = details(
        *((0, "A", [0], [1]), (1, "B", [1], [2]), (2, "C", [1], [3]), (3, "D", [2, 3, -1], [4])),
        (4, "DELEGATE", [0], [4]),
    )
    monkeypatch.setattr(model._interpreter, "_get_ops_details", lambda: diamond)

    assert model.node_counts() == (4, 4)


def without(monkeypatch, *names):
    """Hide modules as if they were not installed."""
    real = importlib.import_module

    def import_module(name):
        if name in names:
            raise ImportError(f"no module {name}")
        return real(name)

    monkeypatch.setattr(runtime.importlib, "import_module", import_module)


def test_no_runtime_is_an_error_with_every_reason(monkeypatch):
    without(monkeypatch, "ai_edge_litert.interpreter")

    with pytest.raises(ModelError, match=r"ai-edge-litert: no module .*; tflite-runtime: ") as caught:
        available_runtime()

    assert str(caught.value).startswith("ai-edge-litert or tflite-runtime is required. Received: ")


def test_tflite_runtime_is_taken_where_litert_is_absent(monkeypatch):
    without(monkeypatch, "ai_edge_litert.interpreter")
    version = importlib.metadata.version
    monkeypatch.setattr(
        runtime.importlib.metadata, "version", lambda name: "2.14.0" if name == "tflite-runtime" else version(name)
    )
    monkeypatch.setitem(runtime._MODULES, "tflite-runtime", "json")

    info, module = available_runtime()

    assert info == RuntimeInfo("tflite-runtime", "2.14.0")
    assert module.__name__ == "json"
