from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from liteship.errors import RecipeError
from liteship.recipe import CompressSettings, PreprocessSettings, Recipe, Variant, load_recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPES = sorted(set(BENCHMARKS.glob("*.toml")) - {BENCHMARKS / "reference.toml"})

VALID = """
schema_version = 1
name = "study"
[data]
source = "digits"
[model]
architecture = "mobilenet_v2"
[train]
epochs = 8
[[compress]]
pruning = "none"
quantization = ["none", "int8"]
[[compress]]
pruning = "magnitude"
sparsity = [0.5]
quantization = ["none", "int8"]
"""


def load(folder: Path, text: str) -> Recipe:
    path = folder / "my.toml"
    path.write_text(text)
    return load_recipe(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(RecipeError) as info:
        load(folder, text)
    assert info.value.exit_code == 2
    message = str(info.value)
    assert message.startswith(f"{folder}/my.toml: ")
    assert "\n" not in message
    return message.removeprefix(f"{folder}/my.toml: ")


def test_demo_recipe_gives_six_variants_baseline_first() -> None:
    recipe = load_recipe(BENCHMARKS / "demo.toml")
    assert [variant.name for variant in recipe.variants()] == [
        "none-none",
        "none-dynamic",
        "none-int8",
        "magnitude50-none",
        "magnitude50-dynamic",
        "magnitude50-int8",
    ]
    assert (recipe.data.source, recipe.model.input, recipe.model.alpha) == ("digits", (48, 48), 0.35)


def test_mobilenet_recipe_prunes_to_three_sparsities() -> None:
    recipe = load_recipe(BENCHMARKS / "mobilenet_v2_pruning.toml")
    assert list(dict.fromkeys(v.model for v in recipe.variants())) == [
        "none",
        "magnitude25",
        "magnitude30",
        "magnitude50",
        "magnitude75",
    ]
    assert recipe.model.weights == "imagenet"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_committed_recipe_is_valid_and_named_like_its_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_baseline_is_first_even_when_not_listed(tmp_path: Path) -> None:
    text = VALID.replace(
        'pruning = "none"\nquantization = ["none", "int8"]', 'pruning = "none"\nquantization = ["int8"]'
    )
    names = [variant.name for variant in load(tmp_path, text).variants()]
    assert names == ["none-none", "none-int8", "magnitude50-none", "magnitude50-int8"]


def test_recipe_without_compress_makes_the_baseline_only(tmp_path: Path) -> None:
    recipe = load(tmp_path, VALID.partition("[[compress]]")[0])
    assert recipe.variants() == [Variant("none", 0.0, "none")]


@pytest.mark.parametrize(("sparsity", "name"), [(0.29, "magnitude29-int8"), (0.125, "magnitude12.5-int8")])
def test_variant_name_has_the_sparsity_in_percent(sparsity: float, name: str) -> None:
    assert Variant("magnitude", sparsity, "int8").name == name


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "epochs = 8",
            "epohcs = 8",
            'train.epohcs: a known key is required. Received: "epohcs". Did you mean "epochs"?',
        ),
        ("[train]", "[trian]", 'trian: a known key is required. Received: "trian". Did you mean "train"?'),
        ("source =", "scource =", 'data.scource: a known key is required. Received: "scource". Did you mean "source"?'),
        ('source = "digits"', "", "data.source: this key is required. Received: nothing."),
        ('source = "digits"', 'source = ""', 'data.source: "digits" or a folder is required. Received: "".'),
        ("0.5", "1.5", "compress[1].sparsity[0]: a ratio from 0 to 1, both excluded, is required. Received: 1.5."),
        ("0.5", "0.0", "compress[1].sparsity[0]: a ratio from 0 to 1, both excluded, is required. Received: 0.0."),
        ("[0.5]", "0.5", "compress[1].sparsity: a list of ratios is required. Received: 0.5."),
        (
            "mobilenet_v2",
            "resnet",
            'model.architecture: mobilenet_v2, mobilenet_v2_sparse or vgg16 is required. Received: "resnet".',
        ),
        ("epochs = 8", "epochs = 8.0", "train.epochs: a number of epochs, 0 or more, is required. Received: 8.0."),
        ("epochs = 8", "epochs = true", "train.epochs: a number of epochs, 0 or more, is required. Received: true."),
        (
            "epochs = 8",
            "learning_rate = nan",
            "train.learning_rate: a learning rate above 0 is required. Received: NaN.",
        ),
        ("epochs = 8", "head_epochs = 0\nepochs = 0", "train.epochs: at least one epoch in head_epochs or epochs is"),
        (
            "[train]",
            "input = [31, 96]\n[train]",
            "model.input[0]: a size of 32 pixels or more is required. Received: 31.",
        ),
        ("[train]", "input = [96]\n[train]", "model.input: [height, width] in pixels is required. Received: [96]."),
        ('"study"', '"../up"', 'name: a folder name of letters, digits and . _ - is required. Received: "../up".'),
        ('"study"', '"latest"', "name: a name other than that of the link to the last study is required."),
        ("schema_version = 1", "schema_version = 2", "schema_version: 1 is required. Received: 2."),
        ("schema_version = 1", "schema_version = 1\nseed = -1", "seed: an integer from 0 to 4294967295 is required."),
        ("sparsity = [0.5]", "", 'compress[1].sparsity: a list of one or more ratios for pruning = "magnitude" is'),
        ("sparsity = [0.5]", "sparsity = []", "compress[1].sparsity: a list of one or more ratios for pruning ="),
        (
            "sparsity = [0.5]",
            "sparsity = [0.5, 0.5]",
            "compress: each variant once is required.",
        ),
        (
            '"none"\n',
            '"none"\nsparsity = [0.5]\n',
            'compress[0].sparsity: no such key beside pruning = "none" is requir',
        ),
        (
            '"none"\n',
            '"none"\nepochs = 3\n',
            'compress[0].epochs: no such key beside pruning = "none" is required. Rec',
        ),
        ('["none", "int8"]', '["int8", "int8"]', "compress: each variant once is required. Received: none-int8 twice."),
        (
            '["none", "int8"]',
            '["int4"]',
            "compress[0].quantization[0]: none, dynamic, float16, int8, qat or pqat is required.",
        ),
        (
            '["none", "int8"]',
            "[]",
            "compress[0].quantization: a list of one or more of none, dynamic, float16, int8, qat, pqat is",
        ),
        (
            "[train]",
            "[bench]\ntier = 'fast'\n[train]",
            'bench.tier: rapid, quick or normal is required. Received: "fast".',
        ),
        (
            "[train]",
            "[calibration]\ncount = 0\n[train]",
            "calibration.count: an integer of 1 or more is required. Received: 0.",
        ),
        (
            "[train]",
            "alpha = 0.4\nweights = 'imagenet'\n[train]",
            "model.alpha: one of 0.35, 0.5, 0.75, 1.0, 1.3, 1.4 for i",
        ),
        ('"mobilenet_v2"', '"vgg16"\nalpha = 0.5', "model.alpha: no alpha for vgg16 is required. Received: 0.5."),
    ],
)
def test_wrong_recipe_is_refused_with_field_required_and_received(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in VALID
    assert refusal(tmp_path, VALID.replace(old, new, 1)).startswith(expected)


KEYS = {
    "sparsity": "[0.5]",
    "epochs": "9",
    "batch_size": "8",
    "learning_rate": "1e-3",
    "distill": "0.5",
    "batch_norm": '"frozen"',
    "ramp": '"constant"',
    "spare": '["last"]',
    "layers": '{ "head" = 0.1 }',
    "criterion": '"l1"',
    "of": '"filters"',
    "rounds": "2",
    "qat_epochs": "5",
    "qat_learning_rate": "1e-4",
}
OF_ALL_PRUNINGS = {"sparsity", "epochs", "batch_size", "learning_rate", "distill", "batch_norm"}
OF_ZEROS, OF_FILTERS = {"ramp", "spare", "layers"}, {"criterion", "of", "rounds"}
MEANING = {
    "none": set(),
    "magnitude": OF_ALL_PRUNINGS | OF_ZEROS,
    "latency": OF_ALL_PRUNINGS | OF_ZEROS,
    "filter": OF_ALL_PRUNINGS | OF_FILTERS,
}


def with_section(*lines: str, architecture: str = "mobilenet_v2") -> str:
    """A recipe whose only [[compress]] has these lines."""
    text = VALID.partition("[[compress]]")[0].replace('"mobilenet_v2"', f'"{architecture}"')
    return "\n".join([text, "[[compress]]", *lines])


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("pruning", MEANING)
def test_key_stands_only_beside_a_pruning_that_it_means_something_to(tmp_path: Path, pruning: str, key: str) -> None:
    needed = {"pruning": f'"{pruning}"', "quantization": '["none"]'}
    if pruning != "none":
        needed["sparsity"] = "[0.5]"
    lines = [f"{name} = {value}" for name, value in {**needed, key: KEYS[key]}.items()]
    text = with_section(*lines, architecture="mobilenet_v2_sparse")
    if key in MEANING[pruning]:
        settings = load(tmp_path, text).compress[0]
        assert getattr(settings, key) != CompressSettings.model_fields[key].default
    elif key.startswith("qat_"):
        assert refusal(tmp_path, text).startswith(f"compress[0].{key}: no such key without qat or pqat is required.")
    else:
        expected = f'compress[0].{key}: no such key beside pruning = "{pruning}" is required.'
        assert refusal(tmp_path, text).startswith(expected)


@pytest.mark.parametrize(("pruning", "quantization"), [("none", "qat"), ("magnitude", "pqat"), ("filter", "qat")])
def test_keys_of_qat_stand_beside_a_quantization_that_trains(tmp_path: Path, pruning: str, quantization: str) -> None:
    sparsity = [] if pruning == "none" else ["sparsity = [0.5]"]
    lines = [f'pruning = "{pruning}"', *sparsity, "qat_epochs = 5", f'quantization = ["none", "{quantization}"]']
    assert load(tmp_path, with_section(*lines)).compress[0].qat_epochs == 5


@pytest.mark.parametrize("pruning", ["none", "filter", "latency"])
def test_pqat_is_for_magnitude_only(tmp_path: Path, pruning: str) -> None:
    sparsity = [] if pruning == "none" else ["sparsity = [0.5]"]
    text = with_section(
        f'pruning = "{pruning}"', *sparsity, 'quantization = ["pqat"]', architecture="mobilenet_v2_sparse"
    )
    assert refusal(tmp_path, text).startswith("compress[0].quantization: ")


def test_pqat_says_what_it_stands_beside(tmp_path: Path) -> None:
    text = with_section('pruning = "filter"', "sparsity = [0.5]", 'quantization = ["pqat"]')
    expected = 'compress[0].quantization: pqat only beside pruning = "magnitude": it preserves zeros is required.'
    assert refusal(tmp_path, text).startswith(expected)


@pytest.mark.parametrize("quantization", ['["none", "int8"]', '["dynamic"]', '["float16"]'])
def test_latency_pruning_is_float_only(tmp_path: Path, quantization: str) -> None:
    lines = ['pruning = "latency"', "sparsity = [0.75]", f"quantization = {quantization}"]
    message = refusal(tmp_path, with_section(*lines, architecture="mobilenet_v2_sparse"))
    assert message.startswith('compress[0].quantization: ["none"] for pruning = "latency": sparse kernels are float is')


@pytest.mark.parametrize("architecture", ["mobilenet_v2", "vgg16"])
def test_latency_pruning_needs_the_network_that_sparse_kernels_run(tmp_path: Path, architecture: str) -> None:
    lines = ['pruning = "latency"', "sparsity = [0.75]", 'quantization = ["none"]']
    message = refusal(tmp_path, with_section(*lines, architecture=architecture))
    assert message == (
        f'model.architecture: mobilenet_v2_sparse beside pruning = "latency" is required. Received: {architecture}.'
    )
    assert (
        load(tmp_path, with_section(*lines, architecture="mobilenet_v2_sparse")).variants()[1].name == "latency75-none"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "sparsity = [1.0]",
            "compress[0].sparsity[0]: a ratio from 0 to 1, both excluded, is required. Received: 1.0.",
        ),
        (
            'layers = { "head" = 1.0 }',
            "compress[0].layers.head: a ratio from 0 to 1, 1 excluded, is required. Received: 1",
        ),
        (
            'layers = { "a*" = -0.1 }',
            "compress[0].layers.a*: a ratio from 0 to 1, 1 excluded, is required. Received: -0.1",
        ),
        (
            'layers = { "head" = "all" }',
            'compress[0].layers.head: a ratio from 0 to 1, 1 excluded, is required. Received: "',
        ),
        ("layers = [0.5]", "compress[0].layers: a table of layer name pattern and ratio is required. Received: [0.5]."),
        ('spare = ["middle"]', 'compress[0].spare[0]: first or last is required. Received: "middle".'),
        ("epochs = 0", "compress[0].epochs: an integer of 1 or more is required. Received: 0."),
        ("batch_size = 0", "compress[0].batch_size: an integer of 1 or more is required. Received: 0."),
        ("learning_rate = 0.0", "compress[0].learning_rate: a learning rate above 0 is required. Received: 0.0."),
        ("distill = -1.0", "compress[0].distill: a weight of 0 or more is required. Received: -1.0."),
        ('batch_norm = "off"', 'compress[0].batch_norm: frozen or train is required. Received: "off".'),
        ('ramp = "linear"', 'compress[0].ramp: polynomial or constant is required. Received: "linear".'),
    ],
)
def test_wrong_value_of_a_compression_is_refused_by_key(tmp_path: Path, line: str, expected: str) -> None:
    lines = {"sparsity": "[0.5]", **dict([line.split(" = ", 1)])}
    text = with_section('pruning = "magnitude"', 'quantization = ["none"]', *(f"{k} = {v}" for k, v in lines.items()))
    assert refusal(tmp_path, text).startswith(expected)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("[parity]\nmax_drop = 1.5", "parity.max_drop: a ratio from 0 to 1 is required. Received: 1.5."),
        ("[parity]\nmax_drop = -0.1", "parity.max_drop: a ratio from 0 to 1 is required. Received: -0.1."),
        ("[convert]\ninteger_input = 'int16'", 'convert.integer_input: int8 or uint8 is required. Received: "int16".'),
        ("[bench]\nthreads = 0", "bench.threads: 1 to 64 threads is required. Received: 0."),
        (
            "[train.plateau]\nmonitor = 'val_accuracy'",
            'train.plateau.monitor: validation_accuracy, accuracy or loss is required. Received: "val_accuracy".',
        ),
        ("[train.plateau]\nfactor = 1.0", "train.plateau.factor: a ratio from 0 to 1, both excluded, is required."),
        ("[train.plateau]\npatience = 0", "train.plateau.patience: an integer of 1 or more is required. Received: 0."),
        ("[train.plateau]\nleast = 0.0", "train.plateau.least: a learning rate above 0 is required. Received: 0.0."),
        (
            "[model.preprocess]\nstd = [1.0, 0.0, 1.0]",
            "model.preprocess.std[1]: a number above 0 is required. Received: 0.0.",
        ),
        ("[model.preprocess]\nmean = [1.0]", "model.preprocess.mean: three numbers is required. Received: [1.0]."),
    ],
)
def test_wrong_value_of_another_section_is_refused_by_key(tmp_path: Path, section: str, expected: str) -> None:
    assert refusal(tmp_path, f"{VALID}{section}\n").startswith(expected)


# --- a model of your own ---

OWN = """
schema_version = 1
name = "own"
[data]
source = "digits"
[model]
path = "model.keras"
[[compress]]
pruning = "none"
quantization = ["none", "int8"]
"""


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ('path = "m.keras"\narchitecture = "vgg16"', "model.architecture: either architecture or path is required. "),
        ("alpha = 0.5", "model.architecture: either architecture or path is required. Received: neither."),
        ('path = "m.keras"\nalpha = 0.5', "model.alpha: no such key beside path is required. Received: 0.5."),
        ('path = "m.keras"\nweights = "w.h5"', "model.weights: no such key beside path is required. Received: w.h5."),
        (
            'architecture = "vgg16"\nlabels = ["a", "b"]',
            'model.labels: no such key beside architecture is required. Received: ["a", "b"].',
        ),
        (
            'architecture = "vgg16"\npreprocess = { resize = "crop" }',
            "model.preprocess: no such key beside architecture is required.",
        ),
    ],
)
def test_model_is_a_network_by_name_or_a_path(tmp_path: Path, model: str, expected: str) -> None:
    assert refusal(tmp_path, OWN.replace('path = "model.keras"', model)).startswith(expected)


def test_own_model_is_not_trained_unless_the_recipe_says_so(tmp_path: Path) -> None:
    def epochs(text: str) -> tuple[int, int]:
        train = load(tmp_path, text).train
        return train.head_epochs, train.epochs

    assert epochs(OWN) == (0, 0)
    assert epochs(OWN + "[train]\nbatch_size = 8\n") == (0, 0)
    assert epochs(OWN + "[train]\nepochs = 3\n") == (0, 3)
    assert epochs(VALID.replace("epochs = 8", "")) == (4, 8)


def test_own_model_is_described_by_input_labels_and_preprocess(tmp_path: Path) -> None:
    lines = (
        'path = "m"\ninput = [40, 48]\nlabels = ["b", "a"]\npreprocess = { channel_order = "bgr", mean = [0, 1, 2] }'
    )
    model = load(tmp_path, OWN.replace('path = "model.keras"', lines)).model
    assert (model.path, model.input, model.labels) == ("m", (40, 48), ("b", "a"))
    assert model.preprocess == PreprocessSettings(channel_order="bgr", mean=(0.0, 1.0, 2.0))


def test_options_for_training_do_not_train_an_own_model(tmp_path: Path) -> None:
    recipe = load(tmp_path, OWN)
    assert recipe.with_overrides(epochs=3, weights="w.h5") == recipe.with_overrides(epochs=3)
    new = recipe.with_overrides(epochs=3, weights="w.h5")
    assert (new.train.head_epochs, new.train.epochs, new.model.weights) == (0, 0, "none")
    assert load(tmp_path, OWN + "[train]\nepochs = 9\n").with_overrides(epochs=3).train.epochs == 3


# --- what a model is converted from ---


def test_quantization_that_trains_has_a_model_of_its_own() -> None:
    models = {(v.name, v.pruned, v.model) for v in (Variant("magnitude", 0.5, q) for q in ("int8", "qat", "pqat"))}
    assert models == {
        ("magnitude50-int8", "magnitude50", "magnitude50"),
        ("magnitude50-qat", "magnitude50", "magnitude50-qat"),
        ("magnitude50-pqat", "magnitude50", "magnitude50-pqat"),
    }
    assert Variant("none", 0.0, "qat").model == "none-qat"


def test_unknown_key_with_no_near_one_lists_the_known(tmp_path: Path) -> None:
    message = refusal(tmp_path, VALID.replace("[train]", "[zzz]"))
    known = "schema_version, name, seed, data, model, train, compress, calibration, convert, parity, bench"
    assert message.endswith(f"Known keys: {known}.")


def test_one_pruning_and_sparsity_in_two_sections_is_refused(tmp_path: Path) -> None:
    text = VALID + '[[compress]]\npruning = "magnitude"\nsparsity = [0.5]\nepochs = 9\nquantization = ["dynamic"]\n'
    assert refusal(tmp_path, text).endswith("for each pruning and sparsity is required. Received: magnitude50 in two.")


def test_invalid_toml_names_the_line(tmp_path: Path) -> None:
    message = refusal(tmp_path, "schema_version = 1\nname = study\n")
    assert message.startswith("valid TOML is required.")
    assert "line 2" in message


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="valid TOML is required"):
        load_recipe(tmp_path / "my.toml")


def test_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no\.toml: a readable recipe is required\. Received: No such file") as info:
        load_recipe(tmp_path / "no.toml")
    assert info.value.exit_code == 2


def test_overrides_give_a_new_recipe_and_keep_the_old(tmp_path: Path) -> None:
    recipe = load(tmp_path, VALID)
    new = recipe.with_overrides(data="my/images", weights="w.h5", epochs=2, tier="quick")
    assert (new.data.source, new.model.weights, new.bench.tier) == ("my/images", "w.h5", "quick")
    assert [new.train.epochs, new.compress[1].epochs] == [2, 2]
    assert (recipe.data.source, recipe.train.epochs) == ("digits", 8)
    assert recipe.with_overrides() == recipe
    assert recipe.with_overrides(runtime="tflite-runtime==2.14.0").convert.runtime == "tflite-runtime==2.14.0"


@pytest.mark.parametrize(("cap", "count"), [(7, 7), (30, 20)])
def test_cap_of_calibration_only_lowers_and_is_not_what_the_recipe_asks_for(
    tmp_path: Path, cap: int, count: int
) -> None:
    recipe = load(tmp_path, VALID + "[calibration]\ncount = 20\n")
    capped = recipe.with_overrides(calibration=cap)
    assert capped.calibration.count == count
    assert (recipe.calibration.model_fields_set, capped.calibration.model_fields_set) == ({"count"}, set())


def test_override_of_epochs_replaces_training_and_only_lowers_head_and_qat(tmp_path: Path) -> None:
    sections = [
        ("none", [], "qat_epochs = 2"),
        ("magnitude", ["sparsity = [0.5]"], "qat_epochs = 9"),
    ]
    text = VALID.partition("[[compress]]")[0].replace("epochs = 8", "head_epochs = 2\nepochs = 8")
    for pruning, sparsity, qat in sections:
        lines = [f'pruning = "{pruning}"', *sparsity, qat, 'quantization = ["qat"]']
        text += "\n".join(["[[compress]]", *lines, ""])
    text += '[[compress]]\npruning = "filter"\nsparsity = [0.5]\nquantization = ["none"]\n'
    recipe = load(tmp_path, text)

    def epochs(override: int) -> list[list[int]]:
        new = recipe.with_overrides(epochs=override)
        return [[new.train.head_epochs, new.train.epochs], *([s.epochs, s.qat_epochs] for s in new.compress)]

    assert epochs(1) == [[1, 1], [4, 1], [1, 1], [1, 2]]
    assert epochs(5) == [[2, 5], [4, 2], [5, 5], [5, 2]]
    assert epochs(20) == [[2, 20], [4, 2], [20, 9], [20, 2]]


def test_wrong_override_is_refused(tmp_path: Path) -> None:
    recipe = load(tmp_path, VALID)
    with pytest.raises(RecipeError, match=r"recipe study with the options given: bench\.tier: rapid, quick or normal"):
        recipe.with_overrides(tier="slow")
    with pytest.raises(RecipeError, match=r"compress\[1\]\.epochs: an integer of 1 or more is required\. Received: 0"):
        recipe.with_overrides(epochs=0)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipe_that_is_written_back_is_read_as_the_same(tmp_path: Path, path: Path) -> None:
    recipe = load_recipe(path)
    again = load(tmp_path, tomlkit.dumps(recipe.model_dump(mode="json", exclude_none=True)))
    assert again.sha256() == recipe.sha256()
    assert again.with_overrides(epochs=2) == recipe.with_overrides(epochs=2)


@pytest.mark.parametrize("text", [VALID, OWN, OWN + "[train]\nepochs = 2\n"], ids=["by name", "own", "own, trained"])
def test_every_kind_of_recipe_survives_being_written_back(tmp_path: Path, text: str) -> None:
    text += """
[[compress]]
pruning = "magnitude"
sparsity = [0.75]
epochs = 3
learning_rate = 1e-3
distill = 1.0
spare = ["first", "last"]
layers = { "block_*" = 0.9, "block_1*" = 0.0 }
qat_epochs = 4
quantization = ["pqat"]
[parity]
max_drop = 0.1
"""
    recipe = load(tmp_path, text)
    again = load(tmp_path, tomlkit.dumps(recipe.model_dump(mode="json", exclude_none=True)))
    assert again == recipe
    assert again.sha256() == recipe.sha256()
    assert list(again.compress[-1].layers) == ["block_*", "block_1*"]  # of several patterns the last counts


def test_sha256_depends_on_values_only(tmp_path: Path) -> None:
    recipe = load(tmp_path, VALID)
    assert load(tmp_path, "# a comment\n" + VALID + "[bench]\ntier = 'rapid'\n").sha256() == recipe.sha256()
    assert recipe.with_overrides(epochs=9).sha256() != recipe.sha256()
