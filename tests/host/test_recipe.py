from __future__ import annotations

from pathlib import Path

import pytest
import tomlkit

from liteship.errors import RecipeError
from liteship.recipe import Recipe, Variant, load_recipe

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

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
        "magnitude50",
        "magnitude75",
    ]
    assert recipe.model.weights == "imagenet"


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.toml")), ids=lambda path: path.name)
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
        ("mobilenet_v2", "resnet", 'model.architecture: mobilenet_v2 or vgg16 is required. Received: "resnet".'),
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
        ('["none", "int8"]', '["int4"]', "compress[0].quantization[0]: none, dynamic, float16 or int8 is required."),
        (
            '["none", "int8"]',
            "[]",
            "compress[0].quantization: a list of one or more of none, dynamic, float16, int8 is",
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


def test_unknown_key_with_no_near_one_lists_the_known(tmp_path: Path) -> None:
    message = refusal(tmp_path, VALID.replace("[train]", "[zzz]"))
    assert message.endswith("Known keys: schema_version, name, seed, data, model, train, compress, calibration, bench.")


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


def test_wrong_override_is_refused(tmp_path: Path) -> None:
    recipe = load(tmp_path, VALID)
    with pytest.raises(RecipeError, match=r"recipe study with the options given: bench\.tier: rapid, quick or normal"):
        recipe.with_overrides(tier="slow")
    with pytest.raises(
        RecipeError, match=r"train\.epochs: at least one epoch in head_epochs or epochs is required\. Received: 0"
    ):
        recipe.with_overrides(epochs=0)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.toml")), ids=lambda path: path.name)
def test_recipe_that_is_written_back_is_read_as_the_same(tmp_path: Path, path: Path) -> None:
    recipe = load_recipe(path)
    again = load(tmp_path, tomlkit.dumps(recipe.model_dump(mode="json", exclude_none=True)))
    assert again.sha256() == recipe.sha256()
    assert again.with_overrides(epochs=2) == recipe.with_overrides(epochs=2)


def test_sha256_depends_on_values_only(tmp_path: Path) -> None:
    recipe = load(tmp_path, VALID)
    assert load(tmp_path, "# a comment\n" + VALID + "[bench]\ntier = 'rapid'\n").sha256() == recipe.sha256()
    assert recipe.with_overrides(epochs=9).sha256() != recipe.sha256()
