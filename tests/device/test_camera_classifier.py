from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from camera_samples import classifier, plain
from release_samples import Artefact, good_artefact, install, photograph

from liteship_agent.camera.classifier import load_classifier, tried
from liteship_agent.errors import ModelError, RecordError
from liteship_agent.manifest import OutputContract
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import preprocess


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_scores_are_those_of_the_benchmark(dtype):
    ours = classifier(dtype=dtype)

    for label in range(3):
        output = ours.model.run(preprocess(photograph(label), ours.input))
        assert (ours.classify(photograph(label)) == to_scores(output, ours.output)[0]).all()
        assert ours.classify(photograph(label)).argmax() == label


def test_artefact_of_a_release_is_loaded_by_its_variant(tmp_path):
    release = install(tmp_path, {"none-none": good_artefact(), "none-int8": good_artefact("int8")})
    loaded = load_classifier(release, "none-int8", 1)

    assert (loaded.variant, loaded.release_id, loaded.labels) == (
        "none-int8",
        release.release_id,
        ("red", "green", "blue"),
    )
    assert loaded.entry.size_bytes == len(good_artefact("int8").content)
    assert loaded.classify(plain(2)).argmax() == 2


def test_other_bytes_than_the_manifests_are_refused(tmp_path):
    release = install(tmp_path, {"none-none": replace(good_artefact(), installed=b"other")})

    with pytest.raises(RecordError, match="sha256"):
        load_classifier(release, "none-none", 1)


def test_model_that_gives_no_score_per_label_is_refused_when_it_is_loaded(tmp_path):
    good = good_artefact()
    release = install(tmp_path, {"none-none": Artefact(good.content, good.input, OutputContract("sigmoid"))})

    with pytest.raises(ModelError, match="3 finite scores are required"):
        load_classifier(release, "none-none", 1)


def test_model_that_gives_nan_is_refused():
    with pytest.raises(ModelError, match="0 of them finite"):
        tried(classifier(weights=((np.nan,) * 3,) * 3))
