from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from liteship.stats import paired_difference

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def load(name):
    """A harness under benchmarks/, which is not a package."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


seeds = load("seeds")


def outcome(variant, seed, wrong, size_bytes=4 * 2**20, sparsity=0.5):
    """Right about all of ten images but some."""
    correct = tuple(index not in wrong for index in range(10))
    return seeds.Outcome(variant, seed, size_bytes, size_bytes // 2, sparsity, correct)


OUTCOMES = [
    outcome("none-none", 0, {0}, sparsity=0.0),
    outcome("magnitude50-none", 0, {0, 1}),
    outcome("none-none", 1, {1, 2}, sparsity=0.0),
    outcome("magnitude50-none", 1, {1, 3}, 5 * 2**20, 0.4952),
]


def test_a_seed_is_a_study_of_its_own():
    recipe = seeds.seeded(seeds.load_recipe(BENCHMARKS / "demo.toml"), 2)

    assert (recipe.name, recipe.seed) == ("demo-seed2", 2)


def test_each_variant_is_compared_with_the_baseline_of_its_seed():
    baseline, pruned = seeds.summarize(OUTCOMES)

    assert (baseline.variant, baseline.accuracies, baseline.difference) == ("none-none", (0.9, 0.8), None)
    assert baseline.by_seed == ()
    assert (pruned.seeds, pruned.accuracies) == ((0, 1), (0.8, 0.8))
    assert pruned.difference == pytest.approx(-0.05)
    assert pruned.low < -0.05 < pruned.high
    assert pruned.by_seed[0] == paired_difference(OUTCOMES[0].correct, OUTCOMES[1].correct)
    assert pruned.by_seed[1][0] == 0


def test_sizes_are_those_of_the_largest_seed():
    pruned = seeds.summarize(OUTCOMES)[1]

    assert (pruned.size_bytes, pruned.gzip_bytes, pruned.achieved_sparsity) == (5 * 2**20, 5 * 2**19, 0.4952)


def test_a_variant_that_one_seed_lacks_is_compared_for_the_others():
    pruned = seeds.summarize(OUTCOMES[:3])[1]

    assert (pruned.seeds, pruned.difference) == ((0,), pytest.approx(-0.1))


def test_markdown_has_a_line_for_each_variant_and_how_to_make_it_again():
    lines = seeds.render_markdown(seeds.summarize(OUTCOMES), "demo, 2 seeds", {"command": "x --y"}).splitlines()

    assert "| none-none | 0.0 % | 4.00 (4,194,304) | 2.00 (2,097,152) | 85.0 % | 90.0 %, 80.0 % | – | – |" in lines
    (line,) = [line for line in lines if line.startswith("| magnitude50-none |")]
    assert "| 80.0 % | 80.0 %, 80.0 % | -5.0 (-" in line
    assert line.endswith(" | -10.0, +0.0 |")
    assert lines[-1] == "- command: x --y"
