"""Train and prune one recipe with each optimizer and compare them in one table.

    .venv/bin/python benchmarks/optimizers.py --data IMAGES --weights vgg16.h5 --output optimizers.md

Each optimizer is a study of its own (models/optimizers-sgd ...), resumable like any. All start from the same weights
and seed, with the learning rate of the recipe or of --rate.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
import typing
from pathlib import Path

from liteship.data import find_images, limit_dataset, require_sound
from liteship.recipe import Optimizer, Recipe, load_recipe
from liteship.report.text import mebibytes_and_bytes, percent
from liteship_agent.manifest import Manifest
from liteship_agent.records import write_atomic
from liteship_agent.system import environment

MODELS = Path("models")


def with_optimizer(recipe: Recipe, name: str, rate: float | None) -> Recipe:
    """The recipe with another optimizer, as a study of its own."""
    train = recipe.train.model_copy(update={"optimizer": name, "learning_rate": rate or recipe.train.learning_rate})
    return recipe.model_copy(update={"name": f"{recipe.name}-{name}", "train": train})


def render(manifests: dict[str, Manifest], origin: dict[str, object]) -> str:
    """One line per optimizer and variant, and how to make it again."""
    lines = ["# Optimizers", "", "| optimizer | variant | accuracy | gzip MiB (bytes) |", "| :-- | :-- | --: | --: |"]
    for name, manifest in manifests.items():
        for entry in manifest.entries:
            accuracy = entry.host_accuracy.correct / entry.host_accuracy.total
            cells = (name, entry.variant, percent(accuracy), mebibytes_and_bytes(entry.gzip_bytes))
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "Accuracy: on the host, of all validation images.", ""]
    return "\n".join([*lines, *(f"- {key}: {value}" for key, value in origin.items())]) + "\n"


def main() -> None:
    """Make the studies and write the table after each."""
    from liteship.cli.common import quiet_tensorflow

    options = _options()
    recipe = load_recipe(options.recipe)
    recipe = recipe.with_overrides(data=options.data, weights=options.weights, epochs=options.epochs)
    dataset = find_images(
        recipe.data.source, split=recipe.data.split, seed=recipe.seed, cache=Path(".liteship") / "data"
    )
    if options.limit:
        dataset = limit_dataset(dataset, options.limit, recipe.seed)
    dataset = require_sound(dataset, False, lambda done, total: None)
    manifests: dict[str, Manifest] = {}
    with quiet_tensorflow(MODELS / f"{recipe.name}.log") as say:
        from liteship.study.build import build_study

        for name in typing.get_args(Optimizer):
            say.say(f"optimizer {name}")
            manifests[name] = build_study(with_optimizer(recipe, name, options.rate), dataset, MODELS, say)
            lineage = manifests[name].entries[0].lineage
            origin = {
                "command": shlex.join(["python", *sys.argv]),
                "learning rate": options.rate or recipe.train.learning_rate,
                "images": f"{len(dataset.train)} for training, {len(dataset.validation)} for validation",
                "data sha256": lineage.data_sha256,
                "versions": ", ".join(f"{key} {version}" for key, version in lineage.versions.items()),
                "machine": environment()["cpu_model"],
                "date": datetime.date.today().isoformat(),
            }
            write_atomic(options.output, render(manifests, origin).encode())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, nargs="?", default=Path("benchmarks/optimizers.toml"))
    parser.add_argument("--data", help="folder of images instead of the recipe's")
    parser.add_argument("--weights", help="instead of the recipe's")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's, in every phase")
    parser.add_argument("--limit", type=int, help="use at most so many images of each split")
    parser.add_argument("--rate", type=float, help="learning rate instead of the recipe's")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
