"""Make the studies of one recipe with several seeds and compare every variant with the baseline of the same seed.

    python benchmarks/seeds.py benchmarks/mobilenet_v2_pruning.toml --data IMAGES --weights WEIGHTS.h5 \
        --output benchmarks/results/mobilenet_v2_seeds.md

Each seed is a study of its own (models/NAME-seed0 ...), resumable like any; the images are split alike for all of
them. Every validation image is classified by every .tflite file on the host, so that two variants are compared image
by image. Written are a Markdown table and, beside it, everything as JSON.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from liteship.data import Dataset, find_images, require_sound
from liteship.progress import Reporter
from liteship.recipe import Recipe, load_recipe
from liteship.report.text import mebibytes_and_bytes, percent
from liteship.stats import paired_difference, paired_mean_difference
from liteship_agent.manifest import Manifest, ManifestEntry
from liteship_agent.preprocess import decode, resize
from liteship_agent.records import write_atomic
from liteship_agent.system import environment

MODELS = Path("models")


@dataclass(frozen=True)
class Outcome:
    """One artefact of one seed; `correct` is whether each validation image was classified correctly."""

    variant: str
    seed: int
    size_bytes: int
    gzip_bytes: int
    achieved_sparsity: float
    correct: tuple[bool, ...]

    @property
    def accuracy(self) -> float:
        """Share of the validation images, 0 to 1."""
        return sum(self.correct) / len(self.correct)


@dataclass(frozen=True)
class Summary:
    """One variant over its seeds; sizes are those of the largest.

    Args:
        accuracies: By seed, 0 to 1.
        difference, low, high: Mean over seeds of the accuracy less the baseline's of the same seed, with the 95 %
            interval over images; None for the baseline.
        by_seed: The difference of each seed with its own 95 % interval; nothing for the baseline.
    """

    variant: str
    seeds: tuple[int, ...]
    accuracies: tuple[float, ...]
    difference: float | None
    low: float | None
    high: float | None
    by_seed: tuple[tuple[float, float, float], ...]
    size_bytes: int
    gzip_bytes: int
    achieved_sparsity: float


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with another seed, as a study of its own."""
    return recipe.model_copy(update={"seed": seed, "name": f"{recipe.name}-seed{seed}"})


def summarize(outcomes: Sequence[Outcome]) -> list[Summary]:
    """One summary for each variant, in the order of their first outcome; the first is the baseline of every seed."""
    by_variant: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_variant.setdefault(outcome.variant, []).append(outcome)
    baseline, *others = by_variant.values()
    reference = {outcome.seed: outcome.correct for outcome in baseline}
    return [_summary(baseline, [])] + [
        _summary(own, [(reference[outcome.seed], outcome.correct) for outcome in own]) for own in others
    ]


def _summary(outcomes: Sequence[Outcome], pairs: Sequence[tuple[tuple[bool, ...], tuple[bool, ...]]]) -> Summary:
    difference = low = high = None
    if pairs:
        differences = [[int(b) - int(a) for a, b in zip(*pair, strict=True)] for pair in pairs]
        difference, low, high, _ = paired_mean_difference(differences)
    return Summary(
        variant=outcomes[0].variant,
        seeds=tuple(outcome.seed for outcome in outcomes),
        accuracies=tuple(outcome.accuracy for outcome in outcomes),
        difference=difference,
        low=low,
        high=high,
        by_seed=tuple(paired_difference(*pair) for pair in pairs),
        size_bytes=max(outcome.size_bytes for outcome in outcomes),
        gzip_bytes=max(outcome.gzip_bytes for outcome in outcomes),
        achieved_sparsity=min(outcome.achieved_sparsity for outcome in outcomes),
    )


def render_markdown(summaries: Sequence[Summary], title: str, origin: dict[str, Any]) -> str:
    """The table, what its columns mean, and how to make it again."""
    lines = [
        f"# {title}",
        "",
        "| variant | sparsity | size MiB (bytes) | gzip MiB (bytes) | accuracy | by seed "
        f"| points against {summaries[0].variant} (95 % interval) | by seed |",
        "| :-- | --: | --: | --: | --: | :-- | --: | :-- |",
        *map(_line, summaries),
        "",
        "Accuracy: on the host, of all validation images, mean over seeds. Points: accuracy less that of the baseline "
        "of the same seed, image by image; the interval is over images, the values by seed show the spread over seeds. "
        "Sizes are those of the largest seed, sparsity is that of the smallest.",
        "",
        *(f"- {name}: {value}" for name, value in origin.items()),
    ]
    return "\n".join(lines) + "\n"


def _line(summary: Summary) -> str:
    accuracy = sum(summary.accuracies) / len(summary.accuracies)
    points = "–"
    if summary.difference is not None and summary.low is not None and summary.high is not None:
        points = f"{100 * summary.difference:+.1f} ({100 * summary.low:+.1f} to {100 * summary.high:+.1f})"
    cells = (
        *(summary.variant, percent(summary.achieved_sparsity)),
        *(mebibytes_and_bytes(summary.size_bytes), mebibytes_and_bytes(summary.gzip_bytes)),
        *(percent(accuracy), ", ".join(map(percent, summary.accuracies)), points),
        ", ".join(f"{100 * difference:+.1f}" for difference, _, _ in summary.by_seed) or "–",
    )
    return f"| {' | '.join(cells)} |"


def run_seed(recipe: Recipe, dataset: Dataset, say: Reporter) -> tuple[Manifest, list[Outcome]]:
    """Make the study of one seed and classify every validation image with each of its artefacts."""
    from liteship.study.build import build_study

    manifest = build_study(recipe, dataset, MODELS, say)
    pixels: dict[str, np.ndarray] = {}
    outcomes = []
    for entry in manifest.entries:
        key = entry.input.pixels_key()
        if key not in pixels:
            pixels[key] = np.stack(
                [resize(decode(file.path.read_bytes(), str(file.path)), entry.input) for file in dataset.validation]
            )
        correct = _classify(MODELS / recipe.name / "artefacts" / f"{entry.variant}.tflite", entry, dataset, pixels[key])
        sizes = (entry.size_bytes, entry.gzip_bytes, entry.achieved_sparsity)
        outcomes.append(Outcome(entry.variant, recipe.seed, *sizes, correct))
    return manifest, outcomes


def _classify(path: Path, entry: ManifestEntry, dataset: Dataset, pixels: np.ndarray) -> tuple[bool, ...]:
    from liteship.evaluate import HostModel

    scores = HostModel(path.read_bytes(), entry.variant, entry.input, entry.output).scores(pixels)
    labels = np.array([file.label for file in dataset.validation])
    return tuple((scores.argmax(axis=1) == labels).tolist())


def main() -> None:
    """Make and compare the studies; write Markdown and JSON."""
    from liteship.cli.common import quiet_tensorflow

    options = _options()
    recipe = load_recipe(options.recipe).with_overrides(data=options.data, weights=options.weights)
    cache = Path(".liteship") / "data"
    dataset = find_images(recipe.data.source, split=recipe.data.split, seed=recipe.seed, cache=cache)
    dataset = require_sound(dataset, False, lambda done, total: None)
    outcomes: list[Outcome] = []
    failures: list[str] = []
    with quiet_tensorflow(MODELS / f"{recipe.name}-seeds.log") as say:
        for seed in range(options.seeds):
            say.say(f"seed {seed}")
            manifest, made = run_seed(seeded(recipe, seed), dataset, say)
            outcomes += made
            failures += [f"{failure.variant} of seed {seed}: {failure.reason}" for failure in manifest.failures]
    lineage = manifest.entries[0].lineage
    origin = {
        "command": shlex.join(["python", *sys.argv]),
        "not made": "; ".join(failures) or "nothing",
        "images": f"{len(dataset.train)} for training, {len(dataset.validation)} for validation",
        "data sha256": lineage.data_sha256,
        "git revision": lineage.git_revision,
        "versions": ", ".join(f"{name} {version}" for name, version in lineage.versions.items()),
        "machine": environment()["cpu_model"],
        "date": datetime.date.today().isoformat(),
    }
    summaries = summarize(outcomes)
    title = f"{recipe.name}, {options.seeds} seeds"
    write_atomic(options.output, render_markdown(summaries, title, origin).encode())
    document = {"title": title, "origin": origin, "variants": [asdict(summary) for summary in summaries]}
    write_atomic(options.output.with_suffix(".json"), (json.dumps(document, indent=1) + "\n").encode())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--data", help="folder of images instead of the recipe's")
    parser.add_argument("--weights", help="instead of the recipe's")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file; the JSON stands beside it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
