"""One artefact of a release, loaded and tried, with all that turns a frame into scores: the benchmark's own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np

from liteship_agent.errors import ModelError
from liteship_agent.manifest import InputContract, ManifestEntry, OutputContract
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import preprocess
from liteship_agent.release import InstalledRelease
from liteship_agent.runtime import Model


@dataclass(frozen=True)
class Classifier:
    """A model that can be run on frames.

    Args:
        model: Loaded.
        input, output: Its contracts.
        labels: Names, in the order of the scores.
        variant: For example "none-int8".
        release_id: Where it comes from; null for a file of its own.
        entry: What the manifest says of it: size, accuracy, sha256; null for a file of its own.
    """

    model: Model
    input: InputContract
    output: OutputContract
    labels: Tuple[str, ...]
    variant: str
    release_id: Optional[str] = None
    entry: Optional[ManifestEntry] = None

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """The input tensor of a frame, uint8, shape (height, width, 3), blue, green, red; a thread of its own may."""
        return preprocess(pixels, self.input)

    def invoke(self, tensor: np.ndarray) -> np.ndarray:
        """The output tensor, shape (1, units), in the model's dtype; one thread at a time.

        Raises:
            ModelError: another shape or dtype, or a kernel failed.
        """
        return self.model.run(tensor)

    def scores(self, output: np.ndarray) -> np.ndarray:
        """Probabilities, float32, shape (labels,).

        Raises:
            ModelError: not one finite value per label.
        """
        scores: np.ndarray = to_scores(output, self.output)[0]
        if scores.shape != (len(self.labels),) or not np.isfinite(scores).all():
            raise ModelError(
                f"{self.variant}: {len(self.labels)} finite scores are required. Received: {scores.size} values,"
                f" {int(np.isfinite(scores).sum())} of them finite"
            )
        return scores

    def classify(self, pixels: np.ndarray) -> np.ndarray:
        """Scores of one frame, all steps in turn; what the pipeline does in several threads.

        Raises:
            ModelError: it cannot be run.
        """
        return self.scores(self.invoke(self.prepare(pixels)))


def load_classifier(release: InstalledRelease, variant: str, threads: int) -> Classifier:
    """Load an artefact and run it once, so that one that does not work is found before it is shown to anybody.

    Args:
        release: Where it is; its runtime must be on this process's path.
        variant: One that `choose` gave.
        threads: Of the interpreter, >= 1.
    Raises:
        RecordError: the manifest or the file's bytes are not those of the release.
        ModelError: the runtime cannot load or run it.
    """
    manifest = release.manifest()
    entry = next(one for one in manifest.entries if one.variant == variant)
    model = Model(release.artefact(entry), threads, entry.variant)
    return tried(
        Classifier(model, entry.input, entry.output, manifest.labels, entry.variant, release.release_id, entry)
    )


def tried(classifier: Classifier) -> Classifier:
    """The same one, after it has classified a black picture.

    Raises:
        ModelError: it cannot be run, or does not give one finite score per label.
    """
    classifier.classify(np.zeros((classifier.input.height, classifier.input.width, 3), np.uint8))
    return classifier
