from __future__ import annotations

import os
import pickle
import queue
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from liteship.data import Dataset
from liteship.errors import ConversionError, LiteshipError, RecipeError
from liteship.progress import Advance, Reporter
from liteship.recipe import BASELINE, Recipe, Variant
from liteship_agent.manifest import Manifest, ManifestEntry

Chain = tuple[Variant, ...]


@pytest.fixture
def recipe_of(recipe: Recipe) -> Callable[..., Recipe]:
    """The recipe of the tests with other [[compress]] tables."""

    def make(*compress: dict[str, Any], **changes: Any) -> Recipe:
        return Recipe.model_validate({**recipe.model_dump(exclude_unset=True), "compress": compress, **changes})

    return make


def magnitude(*sparsity: float, **more: Any) -> dict[str, Any]:
    return {"pruning": "magnitude", "sparsity": list(sparsity), "quantization": ["none"], **more}


def names(chain: Chain) -> list[str]:
    return [variant.model for variant in chain]


class Heard(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def task(self, description: str, total: float | None, *, is_bytes: bool = False) -> Iterator[Advance]:
        self.lines.append(f"open {description} {total}")
        yield lambda amount: self.lines.append(f"{description} +{amount:g}")
        self.lines.append(f"close {description}")


class FakeModels:
    """`Models` that need no training: accuracies by model, or what making one raises."""

    def __init__(self, results: dict[str, float | Exception]) -> None:
        self.results, self.made = results, []
        self.context = SimpleNamespace(say=Heard())

    def cost(self, variant: Variant) -> int:
        return 0 if variant == BASELINE or variant.model in self.made else 3

    def make(self, variant: Variant) -> Any:
        result = self.results[variant.model]
        if isinstance(result, Exception):
            raise result
        if variant != BASELINE:
            self.made.append(variant.model)
        return SimpleNamespace(accuracy=result)


def follow(chain: Chain, results: dict[str, float | Exception], max_drop: float | None = None) -> tuple[Any, ...]:
    """Problems, what was made, progress, and what was said."""
    from liteship.study.grid import make_chain

    models, progress = FakeModels({"none": 0.98, **results}), []
    problems = make_chain(models, chain, max_drop, progress.append)
    return problems, models.made, progress, models.context.say.lines


# --- chains ---


def test_every_pruned_model_is_a_chain_with_what_trains_on_it(recipe_of: Callable[..., Recipe]) -> None:
    from liteship.study.grid import _chains

    recipe = recipe_of(
        {"pruning": "none", "quantization": ["int8", "qat"]},
        magnitude(0.75, 0.5, quantization=["int8", "pqat", "qat"]),
        {"pruning": "filter", "sparsity": [0.5], "quantization": ["dynamic"]},
    )
    assert [names(chain) for chain in _chains(recipe, by_section=False)] == [
        ["none", "none-qat"],
        ["magnitude50", "magnitude50-pqat", "magnitude50-qat"],
        ["magnitude75", "magnitude75-pqat", "magnitude75-qat"],
        ["filter50"],
    ]
    assert [names(chain) for chain in _chains(recipe, by_section=True)] == [
        ["none", "none-qat"],
        ["magnitude50", "magnitude50-pqat", "magnitude50-qat", "magnitude75", "magnitude75-pqat", "magnitude75-qat"],
        ["filter50"],
    ]


def test_baseline_alone_is_no_chain(recipe_of: Callable[..., Recipe]) -> None:
    from liteship.study.grid import _chains

    assert _chains(recipe_of({"pruning": "none", "quantization": ["int8"]}), by_section=False) == []


CHAIN = tuple(Variant("magnitude", s, q) for s in (0.5, 0.75, 0.9) for q in ("none", "pqat"))
GOOD = {variant.model: 0.97 for variant in CHAIN}


def test_chain_is_made_in_order_and_its_epochs_are_counted() -> None:
    problems, made, progress, lines = follow(CHAIN, dict(GOOD))
    assert (problems, made, progress, lines) == ({}, names(CHAIN), [3] * 6, [])


def test_model_that_cannot_be_made_fails_with_what_needs_it_and_the_others_go_on() -> None:
    problems, made, progress, lines = follow(CHAIN, {**GOOD, "magnitude75": ConversionError("conv1: no.", "Hint.")})
    assert problems == dict.fromkeys(("magnitude75", "magnitude75-pqat"), ("compress", "conv1: no. Hint."))
    assert made == ["magnitude50", "magnitude50-pqat", "magnitude90", "magnitude90-pqat"]
    assert progress == [3] * 4
    assert lines == ["magnitude75 failed: conv1: no. Hint."]


def test_quantized_training_that_fails_leaves_the_pruned_model() -> None:
    problems, made, _, _ = follow(CHAIN[:2], {**GOOD, "magnitude50-pqat": ConversionError("qat: no.")})
    assert (problems, made) == ({"magnitude50-pqat": ("compress", "qat: no.")}, ["magnitude50"])


def test_wrong_recipe_ends_everything() -> None:
    with pytest.raises(RecipeError, match="layers"):
        follow(CHAIN, {**GOOD, "magnitude50": RecipeError("layers")})


def test_too_large_a_drop_ends_the_branch() -> None:
    problems, made, _, lines = follow(CHAIN, {**GOOD, "magnitude75": 0.9}, max_drop=0.05)
    assert made == ["magnitude50", "magnitude50-pqat", "magnitude75", "magnitude75-pqat"]
    text = "magnitude75 loses 8.0 points of accuracy, 5 are allowed"
    assert problems == dict.fromkeys(("magnitude90", "magnitude90-pqat"), ("max-drop", text))
    assert lines == [f"{text}: nothing sparser is made"]


@pytest.mark.parametrize(("accuracy", "problems"), [(0.96, 0), (0.95, 4), (0.99, 0)])
def test_branch_goes_on_at_exactly_the_largest_drop(accuracy: float, problems: int) -> None:
    assert 0.98 - 0.96 > 0.02  # as floats
    assert len(follow(CHAIN, {**GOOD, "magnitude50": accuracy}, max_drop=0.02)[0]) == problems


def test_drop_of_a_quantized_model_ends_nothing() -> None:
    assert follow(CHAIN, {**GOOD, "magnitude50-pqat": 0.1}, max_drop=0.02)[0] == {}


def test_without_a_largest_drop_no_accuracy_ends_a_chain() -> None:
    assert follow(CHAIN, dict.fromkeys(GOOD, 0.1))[0] == {}


# --- what a model depends on ---


@pytest.fixture
def keys(dataset: Dataset, say: Reporter, tmp_path: Path) -> Callable[[Recipe], dict[str, str]]:
    """The key of every Keras model of a recipe, and under the names of the variants those of the artefacts."""
    from liteship.study.artefacts import Artefacts
    from liteship.study.context import Context
    from liteship.study.models import Models

    def read(recipe: Recipe) -> dict[str, str]:
        context = Context(recipe, dataset, tmp_path, say)
        models = Models(context)
        artefacts = Artefacts(context, models)
        variants = recipe.variants()
        return {variant.model: models.key(variant) for variant in variants} | {
            f"{variant.name}.tflite": artefacts._key(variant, False) for variant in variants
        }

    return read


NONE = {"pruning": "none", "quantization": ["none", "int8", "qat"]}
MAGNITUDE = {"pruning": "magnitude", "sparsity": [0.5], "quantization": ["none", "int8", "pqat"], "distill": 0.5}
FILTER = {"pruning": "filter", "sparsity": [0.5], "quantization": ["none"]}
OF_MAGNITUDE = {"magnitude50", "magnitude50-none.tflite", "magnitude50-int8.tflite"}
OF_PQAT = {"magnitude50-pqat", "magnitude50-pqat.tflite"}
OF_FILTER = {"filter50", "filter50-none.tflite"}
OF_QAT = {"none-qat", "none-qat.tflite"}
OF_NONE = {"none", "none-none.tflite", "none-int8.tflite"}
EVERYTHING = OF_NONE | OF_QAT | OF_MAGNITUDE | OF_PQAT | OF_FILTER
FILES = {name for name in EVERYTHING if name.endswith(".tflite")}


@pytest.mark.parametrize(
    ("compress", "changes", "redone"),
    [
        ([NONE, {**MAGNITUDE, "qat_epochs": 5}, FILTER], {}, OF_PQAT),
        ([NONE, {**MAGNITUDE, "qat_learning_rate": 1e-4}, FILTER], {}, OF_PQAT),
        ([{**NONE, "qat_epochs": 5}, MAGNITUDE, FILTER], {}, OF_QAT),
        ([NONE, {**MAGNITUDE, "distill": 1.0}, FILTER], {}, OF_MAGNITUDE | OF_PQAT),
        ([NONE, {**MAGNITUDE, "epochs": 9}, FILTER], {}, OF_MAGNITUDE | OF_PQAT),
        ([NONE, {**MAGNITUDE, "layers": {"head": 0.0}}, FILTER], {}, OF_MAGNITUDE | OF_PQAT),
        ([NONE, MAGNITUDE, {**FILTER, "criterion": "l1"}], {}, OF_FILTER),
        ([NONE, {**MAGNITUDE, "sparsity": [0.75, 0.5], "quantization": ["int8", "pqat", "none"]}, FILTER], {}, set()),
        ([NONE, MAGNITUDE, FILTER], {"calibration": {"count": 7}}, {"none-int8.tflite", "magnitude50-int8.tflite"}),
        ([NONE, MAGNITUDE, FILTER], {"convert": {"integer_input": "uint8"}}, FILES),
        ([NONE, MAGNITUDE, FILTER], {"parity": {"max_drop": 0.1}}, set()),
        ([NONE, MAGNITUDE, FILTER], {"bench": {"tier": "normal"}}, set()),
        ([NONE, MAGNITUDE, FILTER], {"seed": 1}, EVERYTHING),
        ([NONE, MAGNITUDE, FILTER], {"train": {"epochs": 2}}, EVERYTHING),
    ],
    ids=lambda value: "" if not isinstance(value, dict) else "-".join(value),
)
def test_changed_key_redoes_only_what_depends_on_it(
    compress: list[dict[str, Any]],
    changes: dict[str, Any],
    redone: set[str],
    keys: Callable[[Recipe], dict[str, str]],
    recipe_of: Callable[..., Recipe],
) -> None:
    before, after = keys(recipe_of(NONE, MAGNITUDE, FILTER)), keys(recipe_of(*compress, **changes))
    assert set(before) == EVERYTHING
    assert {name for name in before if after[name] != before[name]} == redone


def test_no_two_models_and_no_two_files_share_a_key(
    keys: Callable[[Recipe], dict[str, str]], recipe_of: Callable[..., Recipe]
) -> None:
    found = keys(
        recipe_of(NONE, {**MAGNITUDE, "sparsity": [0.5, 0.75], "quantization": ["none", "qat", "pqat"]}, FILTER)
    )
    assert len(set(found.values())) == len(found)


# --- beside each other ---


@pytest.mark.parametrize(
    ("cores", "available_gib", "used_gib", "count"),
    [(8, 20.0, 1.0, 6), (2, 20.0, 1.0, 2), (8, 20.0, 6.0, 3), (8, 1.0, 1.0, 1), (1, 64.0, 1.0, 1)],
)
def test_as_many_processes_as_cores_and_memory_allow(
    cores: int, available_gib: float, used_gib: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship.study import grid

    pages = {"SC_AVPHYS_PAGES": int(available_gib * 2**30) // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(grid.os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(grid.os, "sched_getaffinity", lambda process: set(range(cores)))
    usage = SimpleNamespace(ru_maxrss=int(used_gib * 2**20))
    monkeypatch.setattr(grid.resource, "getrusage", lambda who: usage)
    assert grid._affordable_processes() == count


def test_what_processes_report_is_shown_here() -> None:
    from liteship.study import grid

    events: Any = queue.Queue()
    say, made = Heard(), []
    with grid._listen(events, say, made.append):
        relays = [grid._Relay(events) for _ in range(2)]
        with relays[0].task("train a", 2) as advance, relays[1].task("train b", 3) as other:
            other(1)
            relays[0].say("a: epoch 1/2")
            advance(1)
        events.put(("made", 4))
    assert made == [4]
    assert say.lines == [
        *("open train a 2", "open train b 3", "train b +1", "a: epoch 1/2", "train a +1"),
        *("close train b", "close train a"),
    ]


def die(*_: Any) -> None:
    """What happens to a process when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_process_that_dies_is_one_clear_error(
    dataset: Dataset, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from liteship.study import grid

    monkeypatch.setattr(grid, "_begin", die)
    context = SimpleNamespace(recipe=recipe, dataset=dataset, folder=tmp_path, own_contracts=None, say=Heard())
    chains = [(Variant("magnitude", 0.5, "none"),), (Variant("magnitude", 0.75, "none"),)]
    with pytest.raises(ConversionError, match="Received: one that was killed") as info:
        grid._in_processes(context, chains, None, 2, lambda amount: None)
    assert "--jobs 1" in info.value.hint
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("error", [RecipeError("a", "b"), ConversionError("a"), LiteshipError("a", "b")])
def test_error_comes_whole_out_of_a_process(error: LiteshipError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.hint, str(again)) == (type(error), error.message, error.hint, str(error))


# --- a whole grid, of a model of the user's own ---


@pytest.fixture(scope="module")
def own_recipe(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A classifier by mean color as a file (OpenCV writes blue first), pruned to two sparsities."""
    import tf_keras as keras

    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    hidden = keras.layers.Conv2D(12, 1, activation="relu", name="colors")(image)
    hidden = keras.layers.GlobalAveragePooling2D(name="pool")(hidden)
    model = keras.Model(image, keras.layers.Dense(3, "softmax", name="head")(hidden))
    random = np.random.default_rng(0)
    strength = random.uniform(0.5, 1.5, 4)
    model.get_layer("colors").set_weights(
        [np.concatenate([s * np.eye(3) for s in strength], 1)[None, None], np.zeros(12)]
    )
    model.get_layer("head").set_weights([np.concatenate([4 * np.eye(3)[::-1]] * 4), np.zeros(3)])
    path = tmp_path_factory.mktemp("own") / "model.keras"
    model.save(path)
    return Recipe.model_validate(
        {
            **recipe.model_dump(exclude_unset=True),
            "name": "own",
            "model": {"path": str(path), "preprocess": {"mean": [127.5] * 3, "std": [127.5] * 3}},
            "train": {"batch_size": 10, "learning_rate": 0.001},
            "compress": [magnitude(0.5, 0.75, epochs=1, distill=0.5)],
        }
    )


@pytest.fixture(scope="module")
def in_one_process(
    own_recipe: Recipe, dataset: Dataset, say: Reporter, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Manifest]:
    from liteship.study.build import build_study

    models = tmp_path_factory.mktemp("one")
    return models, build_study(own_recipe, dataset, models, say, jobs=1)


def without_time(entry: ManifestEntry) -> ManifestEntry:
    """A Keras file holds the time at which it was saved: its gzip size differs by bytes."""
    assert entry.keras is not None
    return replace(entry, keras=replace(entry.keras, gzip_bytes=0))


def test_processes_beside_each_other_make_the_same_files(
    own_recipe: Recipe, dataset: Dataset, in_one_process: tuple[Path, Manifest], tmp_path: Path, monkeypatch: Any
) -> None:
    from liteship.study import grid, models
    from liteship.study.build import build_study

    def refuse(*_: Any) -> None:
        raise AssertionError("pruned in this process")

    monkeypatch.setattr(models.magnitude, "prune", refuse)
    counts: list[int] = []
    begun = grid._in_processes

    def note(context: Any, chains: Any, max_drop: Any, count: int, advance: Any) -> Any:
        counts.append(count)
        return begun(context, chains, max_drop, count, advance)

    monkeypatch.setattr(grid, "_in_processes", note)
    say = Heard()
    manifest = build_study(own_recipe, dataset, tmp_path, say, jobs=2)
    _, expected = in_one_process
    assert counts == [2]
    assert manifest.failures == ()
    assert [without_time(entry) for entry in manifest.entries] == [without_time(entry) for entry in expected.entries]
    assert sorted(line.partition(",")[0] for line in say.lines if ": epoch" in line) == [
        "magnitude50: epoch 1/1",
        "magnitude75: epoch 1/1",
    ]
    assert [line for line in say.lines if line.startswith("compress, in epochs +")] == ["compress, in epochs +1"] * 2


def test_finished_models_start_no_process(
    own_recipe: Recipe,
    dataset: Dataset,
    in_one_process: tuple[Path, Manifest],
    say: Reporter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from liteship.study import grid
    from liteship.study.build import build_study

    def refuse(*_: Any) -> None:
        raise AssertionError("a process was begun")

    monkeypatch.setattr(grid, "_in_processes", refuse)
    shutil.copytree(in_one_process[0], tmp_path / "copy", symlinks=True)
    assert build_study(own_recipe, dataset, tmp_path / "copy", say, jobs=4) == in_one_process[1]


def test_own_model_is_taken_as_it_is(in_one_process: tuple[Path, Manifest], own_recipe: Recipe) -> None:
    import tf_keras as keras

    models, manifest = in_one_process
    given = keras.models.load_model(own_recipe.model.path, compile=False)
    kept = keras.models.load_model(models / "own/keras/none.keras", compile=False)
    assert all(np.array_equal(one, two) for one, two in zip(given.get_weights(), kept.get_weights(), strict=True))
    assert manifest.entries[0].host_accuracy.correct == manifest.entries[0].host_accuracy.total
