"""What all steps of a study share: recipe, images, contracts, and keys of what they depend on; each made when asked."""

from __future__ import annotations

import importlib.metadata
import random
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from liteship import __version__, architectures
from liteship.data import Dataset, overlap
from liteship.errors import RecipeError
from liteship.images import Images, load_images
from liteship.own.contracts import Contracts, find_contracts
from liteship.own.model import OwnModel, open_model
from liteship.progress import Reporter
from liteship.recipe import Recipe
from liteship.study.keyed import file_sha256, make_key
from liteship_agent.manifest import Calibration, InputContract, Lineage
from liteship_agent.preprocess import to_tensor

_LIBRARIES = (
    "tensorflow",
    "tf-keras",
    "tensorflow-model-optimization",
    "ai-edge-litert",
    "numpy",
    "opencv-python-headless",
)


@dataclass(frozen=True)
class Context:
    """One study while it is made.

    Args:
        recipe: With the command line's overrides applied.
        dataset: Sound images; classes in the order of the model's outputs.
        folder: `models/<study>`.
        say: Progress.
        known_contracts: How a model that the user brings is fed and read, where that is known already.
    """

    recipe: Recipe
    dataset: Dataset
    folder: Path
    say: Reporter
    known_contracts: Contracts | None = None

    @property
    def keras_folder(self) -> Path:
        """Keras models, one per pruning; exports and unfinished training have names that begin with a dot."""
        return self.folder / "keras"

    # --- images ---

    @cached_property
    def data_sha256(self) -> str:
        """Of names and bytes of all images."""
        with self.say.task("hash images", len(self.dataset.train) + len(self.dataset.validation)) as advance:
            return self.dataset.sha256(lambda done, total: advance(1))

    @cached_property
    def images(self) -> Images:
        """All images, decoded and resized."""
        with self.say.task("decode images", len(self.dataset.train) + len(self.dataset.validation)) as advance:
            return load_images(self.dataset, self.contract, advance)

    @cached_property
    def calibration_files(self) -> list[int]:
        """Indices of the calibration images: training images that are not, byte by byte, also validation images.

        Raises:
            RecipeError: the recipe asks for more than there are.
        """
        twins = {file.path for file, _ in overlap(self.dataset)}
        allowed = [index for index, file in enumerate(self.dataset.train) if file.path not in twins]
        if twins:
            self.say.say(f"calibration: {len(twins)} training images left out that are validation images too")
        count = self.recipe.calibration.count
        if count > len(allowed) and "count" in self.recipe.calibration.model_fields_set:
            raise RecipeError(
                f"calibration.count: at most the {len(allowed)} training images that are not validation images too "
                f"are required. Received: {count}."
            )
        return sorted(random.Random(self.recipe.seed).sample(allowed, min(count, len(allowed))))  # noqa: S311

    @cached_property
    def calibration_tensors(self) -> list[np.ndarray]:
        """float32, shape (1, height, width, 3) each."""
        tensors = to_tensor(self.images.train[self.calibration_files], self.contract)
        return np.split(tensors, len(tensors)) if len(tensors) else []

    @cached_property
    def calibration(self) -> Calibration:
        """Which images those are."""
        hashes = self.dataset.hashes()
        files = [self.dataset.train[index] for index in self.calibration_files]
        lines = [f"{file.relative} {hashes[file.path]}" for file in files]
        return Calibration(len(files), make_key(lines), disjoint_from_validation=True)

    # --- where the model comes from ---

    @cached_property
    def own(self) -> OwnModel | None:
        """The model that the user brings, or None for a network by name."""
        if self.recipe.model.path is None:
            return None
        work = self.keras_folder / ".own"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        model = open_model(Path(self.recipe.model.path), work, self.recipe.model.input)
        if model.cannot_compress:
            self.say.say(f"{model.path}: {model.cannot_compress}")
        return model

    @cached_property
    def own_contracts(self) -> Contracts | None:
        """How that model is fed and read."""
        if self.known_contracts is not None or self.own is None:
            return self.known_contracts
        preprocess = self.recipe.model.preprocess
        given = preprocess.model_dump(exclude_none=True) if preprocess else None
        contracts = find_contracts(self.own, self.dataset, given)
        self.say.say(contracts.note)
        return contracts

    @cached_property
    def contract(self) -> InputContract:
        """How images become float tensors."""
        if self.own_contracts is not None:
            return self.own_contracts.input
        return architectures.input_contract(self.recipe.model)

    @cached_property
    def activation(self) -> str:
        """What the last layer gives, see `OutputContract`."""
        if self.own_contracts is not None:
            return self.own_contracts.output.activation
        return architectures.activation(len(self.dataset.classes))

    @property
    def is_pretrained(self) -> bool:
        """Whether there are weights to be careful with."""
        return self.recipe.model.path is not None or self.recipe.model.weights != "none"

    # --- identity ---

    @cached_property
    def origin_key(self) -> list[Any]:
        """Everything that decides the baseline's weights but the way it is trained."""
        model = self.recipe.model
        source = model.path or (model.weights if model.weights not in ("none", "imagenet") else None)
        return [
            self.data_sha256,
            list(self.dataset.classes),
            self.recipe.seed,
            model.model_dump(mode="json"),
            None if source is None else _path_sha256(Path(source)),
            dict(self.lineage.versions),
        ]

    @cached_property
    def lineage(self) -> Lineage:
        """Where every artefact of this study comes from."""
        return Lineage(
            recipe_sha256=self.recipe.sha256(),
            data_sha256=self.data_sha256,
            git_revision=_git_revision(),
            seed=self.recipe.seed,
            versions={"liteship": __version__, **{name: importlib.metadata.version(name) for name in _LIBRARIES}},
        )


def _path_sha256(path: Path) -> str:
    """Of a file, or of all files of a folder."""
    if not path.is_dir():
        return file_sha256(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return make_key([[str(file.relative_to(path)), file_sha256(file)] for file in files])


def _git_revision() -> str | None:
    ended = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return ended.stdout.strip() if ended.returncode == 0 else None
