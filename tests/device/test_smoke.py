from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from release_samples import RUNTIME, good_artefact, install, sha

from liteship_agent.errors import ModelError, RecordError
from liteship_agent.records import write_record
from liteship_agent.release import MANIFEST
from liteship_agent.smoke import check_release
from tflite_samples import COLORS, color_classifier, color_contracts

GOOD = good_artefact()
RIGHT = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]], np.float32)


def check(folder, **artefacts):
    """Check a release of a good baseline and further artefacts, by variant with _ for -."""
    named = {name.replace("_", "-"): artefact for name, artefact in artefacts.items()}
    return check_release(install(folder, {"none-none": GOOD, **named}), RUNTIME)


def test_equal_outputs_pass(tmp_path):
    results = check(tmp_path)

    assert results == {sha(GOOD.content): {"max_difference": 0.0, "tolerance": 1e-3, "within_tolerance": True}}


def test_integer_model_is_compared_by_its_dequantized_scores(tmp_path):
    int8 = replace(good_artefact("int8"), tolerance=2 / 256)

    result = check(tmp_path, none_int8=int8)[sha(int8.content)]

    assert 0 < result["max_difference"] <= 2 / 256
    assert result["within_tolerance"]


def test_difference_beyond_the_tolerance_marks_the_artefact_and_no_other(tmp_path):
    weak = replace(GOOD, content=color_classifier(np.array(COLORS) * 0.7))

    results = check(tmp_path, magnitude50_none=weak)

    assert results[sha(weak.content)]["max_difference"] > 1e-3
    assert [result["within_tolerance"] for result in results.values()] == [True, False]


def swapped(margin, tolerance):
    """The good model beside a host that was of another opinion about the first image, by a margin."""
    scores = RIGHT.copy()
    scores[0] = [0.5 - margin / 2, 0.5 + margin / 2, 0.0]
    return replace(GOOD, scores=scores, tolerance=tolerance, content=color_classifier(np.array(COLORS) * 1.01))


def test_flip_that_the_tolerance_cannot_explain_refuses_the_release(tmp_path):
    with pytest.raises(
        ModelError,
        match=r"the host's answer for golden image 0 is required \(scores 0\.350, 0\.650, 0\.000\)",
    ):
        check(tmp_path, none_int8=swapped(margin=0.3, tolerance=0.1))


def test_flip_within_twice_the_tolerance_only_marks(tmp_path):
    artefact = swapped(margin=0.3, tolerance=0.16)

    assert not check(tmp_path, none_int8=artefact)[sha(artefact.content)]["within_tolerance"]


def test_nan_refuses_the_release(tmp_path):
    broken = replace(GOOD, content=color_classifier([[float("nan")] * 3] * 3))

    with pytest.raises(ModelError, match=r"none-int8: finite scores are required\. Received: NaN"):
        check(tmp_path, none_int8=broken)


def test_other_input_shape_refuses_the_release(tmp_path):
    wide = replace(GOOD, content=color_classifier(size=9))

    with pytest.raises(ModelError, match=r"none-int8: input shape \(8, 8, 3\) is required\. Received: \(9, 9, 3\)"):
        check(tmp_path, none_int8=wide)


def test_other_number_of_scores_refuses_the_release(tmp_path):
    narrow = replace(GOOD, content=color_classifier(COLORS[:2]))

    with pytest.raises(ModelError, match=r"none-int8: scores of shape \(3, 3\) are required\. Received: \(3, 2\)"):
        check(tmp_path, none_int8=narrow)


def test_file_that_cannot_be_loaded_refuses_the_release(tmp_path):
    with pytest.raises(ModelError, match=r"none-int8: .* cannot load it"):
        check(tmp_path, none_int8=replace(GOOD, content=b"no model"))


def test_damaged_artefact_refuses_the_release(tmp_path):
    damaged = replace(GOOD, content=color_classifier() + b"\0", installed=color_classifier())

    with pytest.raises(RecordError, match="none-int8"):
        check(tmp_path, none_int8=damaged)


def test_artefact_that_was_not_sent_is_not_checked(tmp_path):
    unsent = replace(GOOD, content=b"a model that this runtime cannot load", sent=False)

    assert list(check(tmp_path, none_dynamic=unsent)) == [sha(GOOD.content)]


def refusing(release, *sha256s):
    """The same release with a runtime that is not meant to load some of its artefacts."""
    (runtime,) = release.record().runtimes
    record = replace(release.record(), runtimes=(replace(runtime, refused=sha256s), replace(runtime, folder="other")))
    write_record(record, release.path / "release.json")
    return release


def test_artefact_that_only_another_runtime_can_load_is_not_checked(tmp_path):
    unloadable = replace(GOOD, content=b"a model that this runtime cannot load")
    release = refusing(install(tmp_path, {"none-none": GOOD, "none-dynamic": unloadable}), sha(unloadable.content))

    assert list(check_release(release, RUNTIME)) == [sha(GOOD.content)]
    with pytest.raises(ModelError, match=r"none-dynamic: .* cannot load it"):
        check_release(release, "other")


def test_runtime_that_the_release_does_not_have_is_refused(tmp_path):
    with pytest.raises(RecordError, match=r"release\.json: runtimes: runtime other is required\. Received: site"):
        check_release(install(tmp_path, {"none-none": GOOD}), "other")


def test_runtime_without_a_tolerance_refuses_the_release(tmp_path):
    release = install(tmp_path, {"none-none": GOOD})
    manifest = release.manifest()
    (entry,) = manifest.entries
    entry = replace(entry, golden=replace(entry.golden, tolerance={"tflite-runtime": 1e-3}))
    write_record(replace(manifest, entries=(entry,)), release.path / MANIFEST)

    with pytest.raises(ModelError, match=r"none-none: a golden tolerance for ai-edge-litert is required"):
        check_release(release, RUNTIME)


def test_sigmoid_model_is_checked_with_both_labels(tmp_path):
    weights = [(-6.0, 6.0, 0.0)]
    scores = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], np.float32)
    sigmoid = replace(
        GOOD,
        content=color_classifier(weights, activation="sigmoid"),
        output=color_contracts(activation="sigmoid")[1],
        scores=scores,
        tolerance=0.1,
    )

    assert check(tmp_path, filter50_none=sigmoid)[sha(sigmoid.content)]["within_tolerance"]
