from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from liteship.errors import ConversionError
from liteship.flatbuffer import Inspection, inspect, missing_operators, sparse_verdict
from liteship_agent.manifest import Operator

QUANTIZATIONS = ("none", "dynamic", "float16", "int8")
# Of small_network: kernel elements, and those that meet each output position times the positions.
WEIGHTS = (3 * 3 * 3 * 16, 3 * 3 * 16, 16 * 80, 80)
MULTIPLY_ADDS = 16 * 16 * (WEIGHTS[0] + WEIGHTS[1] + WEIGHTS[2]) + WEIGHTS[3]
LEAST_QUANTIZED = 1024  # the converter leaves smaller kernels in float for "dynamic"


@pytest.fixture(scope="session")
def network(small_network: Callable[..., Any]) -> Any:
    """A network with zeros in its kernels and batch normalization that is not neutral."""
    model = small_network()
    random = np.random.default_rng(0)
    for layer in model.layers:
        weights = [random.normal(0.1, 0.3, weight.shape) for weight in layer.get_weights()]
        if layer.name == "norm":
            weights = [np.abs(weight) + 0.2 for weight in weights]
        elif weights:
            weights[0] *= random.random(weights[0].shape) > 0.4
        layer.set_weights(weights)
    return model


@pytest.fixture(scope="session")
def files(network: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """That network as .tflite, by quantization."""
    from liteship.convert import convert, export

    folder = tmp_path_factory.mktemp("saved")
    export(network, folder)
    images = np.random.default_rng(1).uniform(-1, 1, (8, 1, 32, 32, 3)).astype(np.float32)
    return {name: convert(folder, name, images) for name in QUANTIZATIONS}


@pytest.fixture(scope="session")
def inspections(files: dict[str, bytes]) -> dict[str, Inspection]:
    return {name: inspect(content, name) for name, content in files.items()}


def kernels(network: Any) -> list[np.ndarray]:
    """Kernels with the output channel last, in the order of the graph."""
    found = [network.get_layer(name).get_weights()[0] for name in ("first", "depthwise", "pointwise", "head")]
    return [kernel[..., 0] if kernel.shape[-1] == 1 and kernel.ndim == 4 else kernel for kernel in found]


def zeros_in_int8(kernel: np.ndarray) -> int:
    """Zeros of a kernel after symmetric quantization with one scale for each output channel."""
    largest = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
    return int(np.count_nonzero(np.round(kernel / (largest / 127)) == 0))


def refusal(content: bytes) -> str:
    with pytest.raises(ConversionError) as info:
        inspect(content, "model.tflite")
    assert info.value.exit_code == 3
    assert str(info.value).startswith("model.tflite: ")
    assert "\n" not in str(info.value)
    return str(info.value)


def rewritten(content: bytes, change: Callable[[Any], None]) -> bytes:
    """The file with a change in its graph."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    change(model)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("quantization", ["none", "float16"])
def test_zeros_of_float_kernels_are_those_of_the_keras_kernels(
    quantization: str, network: Any, inspections: dict[str, Inspection]
) -> None:
    layers = inspections[quantization].layers
    assert tuple(layer.weights for layer in layers) == WEIGHTS
    assert [layer.zeros for layer in layers] == [int(np.count_nonzero(kernel == 0)) for kernel in kernels(network)]
    assert all(layer.zeros > 0 for layer in layers)


def test_zeros_of_int8_kernels_are_those_of_the_rounded_kernels(
    network: Any, inspections: dict[str, Inspection]
) -> None:
    layers = inspections["int8"].layers
    assert tuple(layer.weights for layer in layers) == WEIGHTS
    assert [layer.zeros for layer in layers] == [zeros_in_int8(kernel) for kernel in kernels(network)]


def test_dynamic_rounds_large_kernels_only(network: Any, inspections: dict[str, Inspection]) -> None:
    assert [layer.zeros for layer in inspections["dynamic"].layers] == [
        zeros_in_int8(kernel) if kernel.size >= LEAST_QUANTIZED else int(np.count_nonzero(kernel == 0))
        for kernel in kernels(network)
    ]


def test_sparsity_is_the_ratio_over_all_kernels(network: Any, inspections: dict[str, Inspection]) -> None:
    values = np.concatenate([kernel.ravel() for kernel in kernels(network)])
    assert inspections["none"].sparsity == pytest.approx(np.mean(values == 0))


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_multiply_adds_are_those_of_the_layers(quantization: str, inspections: dict[str, Inspection]) -> None:
    assert inspections[quantization].multiply_adds == MULTIPLY_ADDS


def test_operators_are_counted_with_versions(inspections: dict[str, Inspection]) -> None:
    counts = {operator.name: operator.count for operator in inspections["none"].operators}
    assert counts == {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "LOGISTIC": 1, "MEAN": 1}
    versions = {operator.name: operator.version for operator in inspections["int8"].operators}
    assert versions["CONV_2D"] == 3
    assert [operator.name for operator in inspections["int8"].operators] == sorted(versions)


def test_float16_kernels_are_found_behind_dequantize(inspections: dict[str, Inspection]) -> None:
    dequantize = [operator for operator in inspections["float16"].operators if operator.name == "DEQUANTIZE"]
    assert dequantize[0].count >= len(WEIGHTS)


def test_input_and_output_tell_shape_and_quantization(inspections: dict[str, Inspection]) -> None:
    (tensor,) = inspections["none"].inputs
    assert (tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point) == ((1, 32, 32, 3), "float32", None, None)
    (tensor,) = inspections["int8"].outputs
    assert (tensor.shape, tensor.dtype, tensor.scale, tensor.zero_point) == ((1, 1), "int8", 1 / 256, -128)


def test_minimum_runtime_is_the_converters_note(inspections: dict[str, Inspection]) -> None:
    notes = [inspections[name].minimum_runtime for name in QUANTIZATIONS]
    assert all(note is not None and note.split(".")[0] in "12" for note in notes)


def test_dense_kernels_run_dense(inspections: dict[str, Inspection]) -> None:
    verdict = sparse_verdict(inspections["none"])
    assert not verdict.eligible
    assert "dense" in verdict.reason


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_truncated_file_is_refused(quantization: str, files: dict[str, bytes]) -> None:
    content = files[quantization]
    lengths = {*range(64), *range(len(content) - 64, len(content)), *(len(content) * part // 40 for part in range(40))}
    for length in sorted(lengths):
        assert f"{length} bytes" in refusal(content[:length])


def test_other_files_are_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model.tflite", b"TFL3")
    _, png = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))
    for content in (
        b"",
        b"\0" * 100,
        png.tobytes(),
        archive.getvalue(),
        b"....TFL3",
        b"\xff" * 4 + b"TFL3" + b"\xff" * 99,
    ):
        refusal(content)


@settings(max_examples=250, deadline=None)
@given(data=st.data(), quantization=st.sampled_from(["float16", "int8"]))
def test_flipped_bits_are_read_or_refused_and_nothing_else(
    data: st.DataObject, quantization: str, files: dict[str, bytes]
) -> None:
    content = bytearray(files[quantization])
    flips = data.draw(st.lists(st.tuples(st.integers(8, len(content) - 1), st.integers(0, 7)), min_size=1, max_size=8))
    for position, bit in flips:
        content[position] ^= 1 << bit
    with contextlib.suppress(ConversionError):
        inspect(bytes(content), "flipped")


@pytest.mark.timeout(30)
def test_cycle_of_operators_is_no_endless_loop(files: dict[str, bytes]) -> None:
    def turn_back(model: Any) -> None:
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        for node in model.subgraphs[0].operators:
            if codes[node.opcodeIndex] == schema.BuiltinOperator.DEQUANTIZE:
                node.inputs = node.outputs

    assert inspect(rewritten(files["float16"], turn_back), "cycle").layers == ()


def test_kernel_without_elements_is_refused(files: dict[str, bytes]) -> None:
    def empty(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = np.zeros_like(tensor.shape)

    assert "damaged" in refusal(rewritten(files["none"], empty))


def test_runtime_without_the_operators_version_is_named_with_its_own() -> None:
    needed = (Operator("FULLY_CONNECTED", 12, 1), Operator("CONV_2D", 1, 9), Operator("CUSTOM Flex", 1, 1))
    assert missing_operators(needed, "tflite-runtime==2.14.0") == [
        "FULLY_CONNECTED version 12 (the runtime has 10)",
        "CUSTOM Flex version 1 (the runtime has none)",
    ]
    assert missing_operators(needed[:2], "ai-edge-litert==2.3.0") == []


@pytest.mark.parametrize("runtime", ["ai-edge-litert==2.1.0", "ai-edge-litert==2.3.0", "tflite-runtime==2.14.0"])
@pytest.mark.parametrize("quantization", ["none", "float16", "int8"])
def test_conversions_load_in_every_runtime(quantization: str, runtime: str, inspections: dict[str, Inspection]) -> None:
    assert missing_operators(inspections[quantization].operators, runtime) == []
