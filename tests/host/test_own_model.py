from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from liteship import convert
from liteship.errors import ConversionError, RecipeError
from liteship.own import keras3
from liteship.own.model import OwnModel, open_model, predictor, saved_model
from liteship.own.rebuild import largest_difference
from liteship.recipe import ConvertSettings
from liteship_agent.runtime import Model
from tflite_samples import color_classifier

# Made by Keras 3, which must not be in the process of tf_keras.
_MAKE_KERAS3 = """
    import os, sys
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3")
    import keras
    import numpy as np
    from keras import layers as L

    os.chdir(sys.argv[1])
    keras.utils.set_random_seed(1)

    def save(model, *names):
        for weight in model.weights:
            is_kernel = len(weight.shape) > 1
            weight.assign(np.random.normal(0, 0.2, weight.shape) if is_kernel else np.full(weight.shape, 0.3))
        for layer in model.layers:
            if isinstance(layer, L.Normalization):
                layer.adapt(np.random.uniform(0, 255, (9, 16, 16, 3)))
        images = np.random.default_rng(1).uniform(0, 255, (3, 16, 16, 3)).astype("float32")
        for name in names:
            model.save(name)
        np.savez(names[0] + ".npz", images=images, outputs=model(images, training=False))

    inner = L.Input((16, 16, 3))
    x = L.Conv2D(4, 3, strides=2, padding="same", use_bias=False, name="first")(inner)
    x = L.BatchNormalization(name="norm")(x)
    y = L.LeakyReLU(negative_slope=0.2, name="leaky")(x)
    y = L.SeparableConv2D(4, 3, padding="same", activation="silu", name="separable")(y)
    base = keras.Model(inner, L.Add(name="sum")([x, y]), name="base")
    image = L.Input((16, 16, 3))
    x = keras.Sequential([L.RandomFlip(), L.RandomRotation(0.2)], name="augmentation")(image)
    x = base(keras.applications.mobilenet_v2.preprocess_input(x), training=False)
    x = L.Dropout(0.2)(L.GlobalAveragePooling2D(name="pool")(x))
    save(keras.Model(image, L.Dense(3, name="head")(x)), "transfer.keras")

    save(keras.Sequential([L.Input((16, 16, 3)), L.Normalization(), L.Conv2D(128, 3, activation="relu"),
        L.MaxPooling2D(), L.Flatten(), L.Dense(3, activation="softmax")]), "sequential.h5")

    image = L.Input((None, None, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="hard_silu", name="modern")(image))
    save(keras.Model(image, L.Dense(1)(x)), "modern.keras")

    class Mine(L.Layer):
        def call(self, x):
            return x

    save(keras.Sequential([L.Input((16, 16, 3)), Mine(name="mine"), L.Flatten(), L.Dense(2)]), "mine.keras", "mine.h5")
    save(keras.Sequential([L.Input((16, 16, 3)), L.Lambda(lambda x: x, name="any"), L.Flatten(), L.Dense(2)]),
        "lambda.keras", "lambda.h5")
"""


@pytest.fixture(scope="module")
def keras3_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keras3")
    subprocess.run([sys.executable, "-c", textwrap.dedent(_MAKE_KERAS3), str(folder)], check=True, capture_output=True)
    return folder


def assert_equal_outputs(model: OwnModel, path: Path, tolerance: float = 1e-5) -> None:
    """What Keras 3 gave when the file was made, through the predictor and through the exported SavedModel."""
    with np.load(f"{path}.npz") as made:
        images, outputs = made["images"], made["outputs"]
    assert np.ptp(outputs, axis=0).max() > 1e-3  # not saturated, so that it can differ
    allowed = tolerance * max(1, np.abs(outputs).max())
    np.testing.assert_allclose(predictor(model)(images), outputs, atol=allowed, rtol=0)


# --- Keras 3 ---


def test_keras3_transfer_model_becomes_one_flat_tf_keras_graph(keras3_files: Path, tmp_path: Path) -> None:
    model = open_model(keras3_files / "transfer.keras", tmp_path)
    assert (model.kind, model.input_shape, model.units, model.cannot_compress) == ("keras3", (16, 16), 3, "")
    assert (model.activation, model.scales_raw_pixels) == ("logits", True)
    names = [layer.name for layer in model.keras.layers]
    assert names == [
        "image",
        "true_divide",
        "subtract",
        "first",
        "norm",
        "leaky",
        "separable",
        "sum",
        "pool",
        *names[9:],
    ]
    assert all(layer.trainable for layer in model.keras.layers)
    assert model.parameters == 3 * 3 * 3 * 4 + 16 + 36 + 16 + 4 + 15
    assert_equal_outputs(model, model.path)


@pytest.fixture(scope="module")
def sequential(keras3_files: Path, tmp_path_factory: pytest.TempPathFactory) -> OwnModel:
    return open_model(keras3_files / "sequential.h5", tmp_path_factory.mktemp("work"))


def test_rebuilt_model_is_exported_with_batch_size_one(sequential: OwnModel, tmp_path: Path) -> None:
    model = sequential
    assert (model.kind, model.activation, model.scales_raw_pixels) == ("keras3", "softmax", True)
    assert type(model.keras).__name__ == "Functional"
    assert_equal_outputs(model, model.path)
    content = convert.convert(saved_model(model, tmp_path), "none", (), ConvertSettings())
    with np.load(f"{model.path}.npz") as made:
        run = Model(content, 1, "sequential").run(made["images"][:1])
        np.testing.assert_allclose(run, made["outputs"][:1], atol=1e-5)


def test_keras3_model_with_an_activation_that_tf_keras_lacks_is_converted_only(
    keras3_files: Path, tmp_path: Path
) -> None:
    model = open_model(keras3_files / "modern.keras", tmp_path, size=(16, 16))
    assert (model.kind, model.input_shape, model.units, model.keras) == ("keras3", (16, 16), 1, None)
    assert "layer modern (Conv2D)" in model.cannot_compress
    assert "hard_silu" in model.cannot_compress
    assert "\n" not in model.cannot_compress
    assert_equal_outputs(model, model.path)
    assert len(convert.convert(saved_model(model, tmp_path), "none", (), ConvertSettings())) > 100


def test_model_of_open_size_without_a_size_is_refused(keras3_files: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"a size is required. Received: \(any, any, any, 3\)"):
        open_model(keras3_files / "modern.keras", tmp_path)


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_custom_layer_of_keras3_is_named(suffix: str, keras3_files: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="layer mine of class Mine") as info:
        open_model(keras3_files / f"mine.{suffix}", tmp_path)
    assert "SavedModel" in info.value.hint
    assert info.value.exit_code == 3


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_lambda_layer_is_refused_before_it_is_loaded(
    suffix: str, keras3_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras3, "read", lambda *_: pytest.fail("was loaded"))
    with pytest.raises(ConversionError, match="Lambda layer any, which is unsafe"):
        open_model(keras3_files / f"lambda.{suffix}", tmp_path)


def test_difference_shows_in_probabilities_near_zero() -> None:
    expected = np.array([[1.0, 1e-9]], np.float32)
    assert largest_difference(expected * [1, 1.001], expected) < 1e-5
    assert largest_difference(expected * [1, 2], expected) > 1e-5


def test_difference_of_logits_counts_in_units_of_the_largest() -> None:
    expected = np.array([[-1000.0, 1e-9]], np.float32)
    assert largest_difference(expected + np.array([[0.02, 0.0]]), expected) == pytest.approx(2e-5, rel=0.01)


def test_rebuilt_model_with_other_outputs_is_not_used(
    keras3_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = keras3.read(keras3_files / "sequential.h5", tmp_path, None)
    read.probe_outputs[0, 0] += 2e-5
    monkeypatch.setattr(keras3, "read", lambda *_: read)
    model = open_model(keras3_files / "sequential.h5", tmp_path)
    assert model.keras is None
    assert "its outputs differ by" in model.cannot_compress
    assert_equal_outputs(model, model.path)


def test_keras3_process_ends_with_its_parent(keras3_files: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "weights.npz"  # more than a pipe holds, and nobody reads: the process waits there
    os.mkfifo(pipe)
    command = [sys.executable, "-I", "-m", "liteship.own.keras3", str(keras3_files / "sequential.h5"), str(tmp_path)]
    start = f"import subprocess; p = subprocess.Popen({command!r}); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    with open(pipe, "rb"):  # returns when the process has the other end
        assert select.select([child], [], [], 0)[0] == []
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        ended, _, _ = select.select([child], [], [], 60)
    parent.stdout.close()
    os.close(child)
    assert ended


# --- tf_keras ---


def color_model(**head: Any) -> Any:
    """Input 8x8; its label is the brightest channel."""
    import tf_keras

    layers = tf_keras.layers
    image = tf_keras.Input((8, 8, 3))
    output = layers.Dense(3, name="head", **head)(layers.GlobalAveragePooling2D()(image))
    model = tf_keras.Model(image, output)
    model.get_layer("head").set_weights([np.eye(3) * 6, np.zeros(3)])
    return model


@pytest.mark.parametrize("name", ["own.keras", "own.h5"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_flat_tf_keras_model_is_taken_as_it_is(name: str, tmp_path: Path) -> None:
    color_model(activation="softmax").save(tmp_path / name)
    model = open_model(tmp_path / name, tmp_path)
    assert (model.kind, model.input_shape, model.units, model.parameters) == ("tf_keras", (8, 8), 3, 12)
    assert (model.activation, model.scales_raw_pixels, model.cannot_compress) == ("softmax", False, "")
    red = np.zeros((2, 8, 8, 3), np.float32)
    red[..., 0] = 1
    assert predictor(model)(red).argmax(axis=1).tolist() == [0, 0]


def test_nested_tf_keras_model_becomes_flat_with_equal_outputs(tmp_path: Path) -> None:
    import tf_keras

    layers = tf_keras.layers
    inner = tf_keras.Input((16, 16, 3))
    hidden = layers.Conv2D(4, 3, name="image")(inner)  # the name of the input of the flat graph
    hidden = layers.BatchNormalization(name="norm")(hidden)
    base = tf_keras.Model(inner, hidden, name="base")
    image = tf_keras.Input((16, 16, 3))
    hidden = tf_keras.Sequential([layers.RandomFlip()], name="augmentation")(image)
    hidden = base(tf_keras.applications.mobilenet_v2.preprocess_input(hidden), training=False)
    head = tf_keras.Sequential([layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax", name="head")])
    nested = tf_keras.Model(image, head(hidden))
    base.get_layer("norm").set_weights([np.random.default_rng(0).uniform(0.1, 1, 4) for _ in range(4)])
    nested.save(tmp_path / "nested.keras")
    model = open_model(tmp_path / "nested.keras", tmp_path)
    assert not any(isinstance(layer, tf_keras.Model) for layer in model.keras.layers)
    assert [layer.name for layer in model.keras.layers][3:5] == ["base_image_3", "norm"]
    assert model.scales_raw_pixels
    images = keras3.probe_images((16, 16))
    np.testing.assert_allclose(predictor(model)(images), nested(images, training=False), atol=1e-5)


def test_nested_model_that_cannot_be_flattened_is_named_and_converted(tmp_path: Path) -> None:
    import tensorflow as tf
    import tf_keras

    inner = tf_keras.Input((8, 8, 3))
    base = tf_keras.Model(inner, tf.reverse(inner, axis=[1]), name="base")
    image = tf_keras.Input((8, 8, 3))
    pooled = tf_keras.layers.GlobalAveragePooling2D()(base(image))
    tf_keras.Model(image, tf_keras.layers.Dense(2)(pooled)).save(tmp_path / "nested.keras")
    model = open_model(tmp_path / "nested.keras", tmp_path)
    assert model.keras is None
    assert "layer base/tf.reverse" in model.cannot_compress
    assert predictor(model)(np.zeros((2, 8, 8, 3), np.float32)).shape == (2, 2)
    assert saved_model(model, tmp_path).is_dir()


def test_custom_class_of_a_module_is_not_imported(tmp_path: Path) -> None:
    color_model().save(tmp_path / "own.keras")
    with zipfile.ZipFile(tmp_path / "own.keras") as source, zipfile.ZipFile(tmp_path / "evil.keras", "w") as changed:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["layers"][1].update(module="antigravity", class_name="Fly", registered_name="Fly")
                content = json.dumps(config).encode()
            changed.writestr(name, content)
    with pytest.raises(ConversionError, match=r"layer global_average_pooling2d\S* of class Fly"):
        open_model(tmp_path / "evil.keras", tmp_path)
    assert "antigravity" not in sys.modules


def test_truncated_keras_file_is_refused(tmp_path: Path) -> None:
    color_model().save(tmp_path / "own.keras")
    whole = (tmp_path / "own.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConversionError, match="a whole Keras file is required"):
        open_model(tmp_path / "half.keras", tmp_path)


def test_file_of_weights_only_is_refused(tmp_path: Path) -> None:
    color_model().save_weights(tmp_path / "own.weights.h5")
    with pytest.raises(ConversionError, match="weights only"):
        open_model(tmp_path / "own.weights.h5", tmp_path)


def test_model_with_two_inputs_is_refused(tmp_path: Path) -> None:
    import tf_keras

    pair = [tf_keras.Input((3,)), tf_keras.Input((3,))]
    tf_keras.Model(pair, tf_keras.layers.Add()(pair)).save(tmp_path / "two.keras")
    with pytest.raises(ConversionError, match=r"one input and one output are required\. Received: 2 and 1"):
        open_model(tmp_path / "two.keras", tmp_path)


@pytest.mark.parametrize(
    ("shape", "layers", "message"),
    [
        ((8, 8, 1), ["GlobalAveragePooling2D"], r"\(batch, height, width, 3\) is required. Received: \(any, 8, 8, 1\)"),
        ((8, 8, 3), ["ReLU"], r"\(batch, units\) is required. Received: \(any, 8, 8, 3\)"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], layers: list[str], message: str, tmp_path: Path) -> None:
    import tf_keras

    parts = [getattr(tf_keras.layers, name)() for name in layers]
    tf_keras.Sequential([tf_keras.Input(shape), *parts]).save(tmp_path / "other.keras")
    with pytest.raises(ConversionError, match=message):
        open_model(tmp_path / "other.keras", tmp_path)


def test_size_of_the_recipe_that_is_not_that_of_the_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.tflite").write_bytes(color_classifier())
    with pytest.raises(RecipeError, match=r"input = \(8, 8\) is required. Received: \(9, 8\)"):
        open_model(tmp_path / "own.tflite", tmp_path, size=(9, 8))


# --- SavedModel ---


def save_module(folder: Path, *specs: tuple[tuple[int | None, ...], str], outputs: int = 1) -> Path:
    import tensorflow as tf

    module = tf.Module()
    module.kernel = tf.Variable(np.eye(3, dtype=np.float32) * 6)

    def serve(*images: Any) -> dict[str, Any]:
        pooled = tf.reduce_mean(tf.cast(images[0], tf.float32), axis=[1, 2])
        return {f"out{index}": tf.nn.softmax(pooled @ module.kernel) for index in range(outputs)}

    module.serve = tf.function(serve, input_signature=[tf.TensorSpec(shape, dtype) for shape, dtype in specs])
    tf.saved_model.save(module, str(folder), signatures=module.serve if specs else None)
    return folder


def test_saved_model_gets_batch_size_one(tmp_path: Path) -> None:
    folder = save_module(tmp_path / "own", ((None, 8, 8, 3), "float32"))
    model = open_model(folder, tmp_path / "work")
    assert (model.kind, model.input_shape, model.units, model.parameters) == ("saved_model", (8, 8), 3, 9)
    assert "a SavedModel has no layers" in model.cannot_compress
    red = np.zeros((2, 8, 8, 3), np.float32)
    red[1, ..., 1] = 1
    expected = predictor(model)(red)
    assert expected.argmax(axis=1).tolist() == [0, 1]
    runtime = Model(convert.convert(saved_model(model, tmp_path), "none", (), ConvertSettings()), 1, "own")
    assert runtime.input_shape == (1, 8, 8, 3)
    np.testing.assert_allclose(runtime.run(red[1:]), expected[1:], atol=1e-6)


IMAGE = ((None, 8, 8, 3), "float32")


@pytest.mark.parametrize(
    ("specs", "outputs", "message"),
    [
        ([IMAGE, IMAGE], 1, "one input and one output are required. Received: 2 and 1"),
        ([IMAGE], 2, "one input and one output are required. Received: 1 and 2"),
        ([((4, 8, 8, 3), "float32")], 1, r"any batch size is required. Received: float32 of \(4, 8, 8, 3\)"),
        ([((None, 8, 8, 3), "uint8")], 1, "Received: uint8 of"),
    ],
)
def test_saved_model_of_another_signature_is_refused(specs: Any, outputs: int, message: str, tmp_path: Path) -> None:
    folder = save_module(tmp_path / "own", *specs, outputs=outputs)
    with pytest.raises(ConversionError, match=message):
        open_model(folder, tmp_path / "work")


def test_saved_model_without_a_signature_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    tf.saved_model.save(tf.Module(), str(tmp_path / "own"))
    with pytest.raises(ConversionError, match=r"serving_default signature is required\. Received: none"):
        open_model(tmp_path / "own", tmp_path)


def test_damaged_saved_model_is_refused(tmp_path: Path) -> None:
    folder = save_module(tmp_path / "own", IMAGE)
    (folder / "saved_model.pb").write_bytes(b"no")
    with pytest.raises(ConversionError, match="a whole SavedModel is required"):
        open_model(folder, tmp_path)


def test_folder_that_is_no_saved_model_says_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConversionError, match=r"saved_model.pb is required. Received: one with notes.txt"):
        open_model(tmp_path, tmp_path)


# --- .tflite ---


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_tflite_file_is_run_on_real_values(dtype: str, tmp_path: Path) -> None:
    (tmp_path / "own.tflite").write_bytes(color_classifier(dtype=dtype))
    model = open_model(tmp_path / "own.tflite", tmp_path)
    assert (model.kind, model.input_shape, model.units, model.keras, model.parameters) == (
        "tflite",
        (8, 8),
        3,
        None,
        None,
    )
    assert "deployed as it is" in model.cannot_compress
    blue = np.full((2, 8, 8, 3), -0.5, np.float32)
    blue[1, ..., 2] = 0
    logits = blue.mean(axis=(1, 2)) * 6
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictor(model)(blue), softmax, atol=1e-6 if dtype == "float32" else 0.02)
    with pytest.raises(ConversionError, match="before its conversion is required"):
        saved_model(model, tmp_path)


def test_truncated_tflite_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.tflite").write_bytes(color_classifier()[:200])
    with pytest.raises(ConversionError):
        open_model(tmp_path / "own.tflite", tmp_path)


# --- anything else ---


def test_missing_file_is_the_recipes_mistake(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="an existing file or folder is required") as info:
        open_model(tmp_path / "none.keras", tmp_path)
    assert info.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"", "an empty file"),
        (b"\x89PNG\r\n\x1a\n0123", "12 bytes that begin with"),
        (b"PK\x03\x04", "a damaged or foreign"),
    ],
)
def test_foreign_file_is_refused_with_what_it_is(content: bytes, received: str, tmp_path: Path) -> None:
    (tmp_path / "own.keras").write_bytes(content)
    with pytest.raises(ConversionError, match=received):
        open_model(tmp_path / "own.keras", tmp_path)


def test_zip_with_other_json_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.keras", "w") as archive:
        archive.writestr("metadata.json", "[]")
        archive.writestr("config.json", "[]")
    with pytest.raises(ConversionError, match="a damaged or foreign"):
        open_model(tmp_path / "own.keras", tmp_path)
