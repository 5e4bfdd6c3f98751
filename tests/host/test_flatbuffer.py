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

from liteship.errors import ConversionError, UsageError
from liteship.flatbuffer import Inspection, inspect, sparse_verdict
from liteship.operators import known_runtime, known_runtimes, missing_operators
from liteship.provision import RUNTIMES
from liteship.recipe import ConvertSettings
from liteship_agent.manifest import Operator
from tflite_samples import ESCAPE, FUSED, color_classifier, move_buffers_out, unusual_model

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
    return {name: convert(folder, name, images, ConvertSettings()) for name in QUANTIZATIONS}


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


@pytest.mark.parametrize(
    ("quantization", "kind"),
    [("none", "float32"), ("dynamic", "dynamic range"), ("float16", "float16 weights"), ("int8", "full integer")],
)
def test_quantization_is_found_in_the_kernels(quantization: str, kind: str, inspections: dict[str, Inspection]) -> None:
    assert inspections[quantization].quantization == kind


def test_integer_layers_among_float_ones_are_mixed(files: dict[str, bytes]) -> None:
    def make_input_float(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.operators[-2].inputs[0]].type = schema.TensorType.FLOAT32

    assert inspect(rewritten(files["int8"], make_input_float), "mixed").quantization == "mixed"


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_parameters_are_kernels_and_biases(quantization: str, inspections: dict[str, Inspection]) -> None:
    biases = 16 + 16 + 80 + 1
    assert inspections[quantization].parameters == sum(WEIGHTS) + biases


@pytest.mark.parametrize(
    ("note", "allowed"),
    [
        (b"fp16accfp16", True),
        (b"fp16bf16accfp16", True),
        (b"fp16accfp32", False),
        (b"bf16accfp16", False),
        (b"", False),
        (b"\xff\x00", False),
    ],
)
def test_float16_accumulation_is_what_the_metadata_allows(note: bytes, allowed: bool, files: dict[str, bytes]) -> None:
    def add_note(model: Any) -> None:
        entry, buffer = schema.MetadataT(), schema.BufferT()
        entry.name, entry.buffer, buffer.data = "reduced_precision_support", len(model.buffers), list(note)
        model.metadata.append(entry)
        model.buffers.append(buffer)

    inspection = inspect(rewritten(files["none"], add_note), "noted")
    assert inspection.float16_accumulation is allowed
    assert inspection.metadata == ("min_runtime_version", "CONVERSION_METADATA", "reduced_precision_support")


def test_unusual_model_is_told_whole() -> None:
    inspection = inspect(unusual_model(), "unusual")
    escaped = "\\x1b[31mred\\x9b2J"
    names = {operator.name: operator.count for operator in inspection.operators}
    assert names == {"CONV_2D": 1, f"CUSTOM Find{escaped}": 1, "TRANSPOSE_CONV": 1, "WHILE": 2}
    assert [tensor.dtype for tensor in (*inspection.inputs, *inspection.outputs)] == [
        *("float32", "string", "bool", "float32")
    ]
    assert (inspection.inputs[0].shape, inspection.inputs[0].signature) == ((1, 4, 4, 2), (-1, 4, 4, 2))
    assert inspection.inputs[1].name == escaped
    assert not any(character in str(inspection) for character in ESCAPE if not character.isprintable())
    assert [(layer.name, layer.weights, layer.zeros) for layer in inspection.layers] == [
        ("four bits", 6, 3),
        (FUSED, 60, 0),
    ]
    assert inspection.multiply_adds == 16 * 6 + 16 * 60
    assert (inspection.graphs, inspection.parameters, inspection.float16_accumulation) == (2, 66, True)


def test_constants_behind_the_flatbuffer_are_read(files: dict[str, bytes]) -> None:
    moved = move_buffers_out(color_classifier())
    assert schema.Model.GetRootAsModel(moved, 0).Buffers(2).DataLength() == 0
    assert inspect(moved, "moved") == inspect(color_classifier(), "whole")
    assert inspect(moved, "moved").layers[0].zeros == 6


def test_operator_that_is_newer_than_the_schema_is_told_by_its_number(files: dict[str, bytes]) -> None:
    def renumber(model: Any) -> None:
        model.operatorCodes[0].builtinCode = 999

    inspection = inspect(rewritten(color_classifier(), renumber), "new")
    assert "BUILTIN_999" in [operator.name for operator in inspection.operators]
    missing = missing_operators(inspection.operators, "ai-edge-litert==2.3.0")
    assert missing == ["BUILTIN_999 version 1 (the runtime has none)"]


def test_dense_kernels_run_dense(inspections: dict[str, Inspection]) -> None:
    verdict = sparse_verdict(inspections["none"])
    assert (verdict.eligible, verdict.layer, verdict.reason) == (False, None, "kernels are stored dense")


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
        b"PK\x03\x04TFL3",
        b"\xff" * 4 + b"TFL3" + b"\xff" * 99,
    ):
        refusal(content)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), sample=st.sampled_from(["float16", "int8", "unusual"]))
def test_flipped_bits_are_read_or_refused_and_nothing_else(
    data: st.DataObject, sample: str, files: dict[str, bytes]
) -> None:
    content = bytearray(unusual_model() if sample == "unusual" else files[sample])
    flips = data.draw(st.lists(st.tuples(st.integers(8, len(content) - 1), st.integers(0, 7)), min_size=1, max_size=8))
    for position, bit in flips:
        content[position] ^= 1 << bit
    with contextlib.suppress(ConversionError):
        inspect(bytes(content), "flipped")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("extreme", [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF])
def test_extreme_word_anywhere_is_read_or_refused_and_nothing_else(extreme: int) -> None:
    for whole in (color_classifier(dtype="int8"), unusual_model(), move_buffers_out(color_classifier())[:8192]):
        for position in range(8, min(len(whole), 3000) - 4, 4):
            content = whole[:position] + extreme.to_bytes(4, "little") + whole[position + 4 :]
            with contextlib.suppress(ConversionError):
                inspect(content, "extreme")


@pytest.mark.timeout(20)
def test_list_of_one_operator_a_million_times_is_refused() -> None:
    def repeat(content: bytes, count: int) -> bytes:
        """Let the list of operators be `count` references to one operator, behind the end of the file."""
        graph = schema.Model.GetRootAsModel(content, 0).Subgraphs(0)
        field, first = graph._tab.Pos + graph._tab.Offset(10), graph.Operators(0)._tab.Pos
        start = len(content) + 4
        list_ = [(first - (start + 4 * index)) % 2**32 for index in range(count)]
        grown = bytearray(content + count.to_bytes(4, "little") + np.array(list_, np.uint32).tobytes())
        grown[field : field + 4] = (len(content) - field).to_bytes(4, "little")
        return bytes(grown)

    assert "more entries" in refusal(repeat(color_classifier(), 1_000_000))


def test_buffers_that_overlap_are_refused(files: dict[str, bytes]) -> None:
    content = rewritten(files["none"], lambda model: [point_at_everything(buffer) for buffer in model.buffers[1:]])
    assert "overlap" in refusal(content.ljust(40_000, b"\0"))


def point_at_everything(buffer: Any) -> None:
    buffer.data, buffer.offset, buffer.size = None, 8, 30_000


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_scale_that_is_no_number_is_refused(scale: float, files: dict[str, bytes]) -> None:
    def spoil(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.inputs[0]].quantization.scale = [scale]

    assert str(scale) in refusal(rewritten(files["int8"], spoil))


def test_shape_that_its_bytes_do_not_fill_is_refused(files: dict[str, bytes]) -> None:
    def stretch(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            tensor.shape = [2**31 - 1] * 4

    assert "bytes for shape" in refusal(rewritten(files["none"], stretch))


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
        "CUSTOM Flex (no runtime has custom operators)",
    ]
    assert missing_operators(needed[:2], "ai-edge-litert==2.3.0") == []


@pytest.mark.parametrize("runtime", ["ai-edge-litert==2.1.0", "ai-edge-litert==2.3.0", "tflite-runtime==2.14.0"])
@pytest.mark.parametrize("quantization", ["none", "float16", "int8"])
def test_conversions_load_in_every_runtime(quantization: str, runtime: str, inspections: dict[str, Inspection]) -> None:
    assert missing_operators(inspections[quantization].operators, runtime) == []


def test_runtimes_of_the_table_are_those_that_a_target_gets() -> None:
    assert sorted(known_runtimes()) == sorted(runtime.requirement for runtime in RUNTIMES)


@pytest.mark.parametrize(
    ("name", "runtime"),
    [
        ("tflite-runtime", "tflite-runtime==2.14.0"),
        ("tflite-runtime==2.14", "tflite-runtime==2.14.0"),
        ("tflite-runtime==2.14.0", "tflite-runtime==2.14.0"),
        ("ai-edge-litert", "ai-edge-litert==2.3.0"),
        ("ai-edge-litert==2.1", "ai-edge-litert==2.1.0"),
    ],
)
def test_name_of_a_runtime_may_leave_its_version_out(name: str, runtime: str) -> None:
    assert known_runtime(name) == runtime


@pytest.mark.parametrize("name", ["tflite", "tflite-runtime==2.1", "ai-edge-litert==3", "ai-edge-litert==", "", "=="])
def test_unknown_runtime_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r"tflite-runtime==2\.14\.0 is required"):
        known_runtime(name)
