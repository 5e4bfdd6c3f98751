from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from camera_samples import classifier, plain
from release_samples import Artefact, good_artefact, install, photograph

from liteship_agent.camera.classifier import deployed_release, load_classifier, tried
from liteship_agent.errors import ModelError, RecordError, StoreError
from liteship_agent.manifest import OutputContract, Parity
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import preprocess
from liteship_agent.records import write_record
from liteship_agent.release import MANIFEST


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


def sizes(release) -> list[int]:
    return [entry.size_bytes for entry in release.manifest().entries]


def set_parity(release, passed: dict[str, bool]) -> None:
    manifest = release.manifest()
    entries = tuple(
        replace(entry, parity=Parity(9, 9, 9, 0.0, 0.02, passed[entry.variant])) if entry.variant in passed else entry
        for entry in manifest.entries
    )
    write_record(replace(manifest, entries=entries), release.path / MANIFEST)


def test_without_a_name_the_smallest_that_passed_its_parity_check_is_loaded(tmp_path):
    release = install(tmp_path, {"none-int8": good_artefact("int8"), "none-none": good_artefact()})
    assert sizes(release)[0] > sizes(release)[1]

    assert load_classifier(release, None, 1).variant == "none-none"
    set_parity(release, {"none-none": False, "none-int8": True})
    assert load_classifier(release, None, 1).variant == "none-int8"
    set_parity(release, {"none-none": False, "none-int8": False})
    with pytest.raises(StoreError, match="that passed its parity check is required"):
        load_classifier(release, None, 1)


def test_unknown_variant_is_answered_with_those_of_the_release(tmp_path):
    unsent = replace(good_artefact("int8"), sent=False)
    release = install(tmp_path, {"none-none": good_artefact(), "none-int8": unsent})

    with pytest.raises(StoreError, match=r"is required \(none-none\)\. Received: none-int8"):
        load_classifier(release, "none-int8", 1)


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


def test_current_is_looked_up_once(tmp_path):
    (tmp_path / "releases" / "aaaaaaaaaaaa").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/aaaaaaaaaaaa")
    release = deployed_release(tmp_path)
    (tmp_path / "current").unlink()

    assert release.release_id == "aaaaaaaaaaaa"
    with pytest.raises(StoreError, match="run `liteship deploy`"):
        deployed_release(tmp_path)
