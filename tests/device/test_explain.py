from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from release_samples import RUNTIME, good_artefact, install, photographs, sha

from liteship_agent.errors import ImageError, RecordError
from liteship_agent.explain import explain
from liteship_agent.postprocess import to_scores
from liteship_agent.preprocess import decode, resize, to_tensor
from liteship_agent.runtime import Model

GOOD = good_artefact()


@pytest.fixture
def release(tmp_path):
    return install(tmp_path, {"none-none": GOOD, "none-int8": good_artefact("int8")})


def own_pixels(index):
    path, _, data = photographs()[index]
    return resize(decode(data, path), GOOD.input)


def request_for(release, images, artefact=GOOD, **changes):
    """A request as it comes over the link."""
    request = {
        "folder": str(release.folder),
        "release_id": release.release_id,
        "artefact": sha(artefact.content),
        "runtime": RUNTIME,
        "threads": 1,
        "limit": None,
        "images": [{"index": index, "pixels": base64.b64encode(pixels.tobytes()).decode()} for index, pixels in images],
        **changes,
    }
    return json.loads(json.dumps(request))


def test_equal_pixels_do_not_differ(release):
    answer = explain(request_for(release, [(5, own_pixels(5)), (0, own_pixels(0))]))

    assert [(image["index"], image["largest_pixel_difference"]) for image in answer["results"]] == [(5, 0), (0, 0)]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_scores_are_those_of_the_hosts_pixels_and_not_of_the_own(release, dtype):
    artefact = good_artefact(dtype)
    host = own_pixels(5)[..., ::-1]  # the green image with other channels strongest

    (image,) = explain(request_for(release, [(5, host)], artefact))["results"]

    output = Model(artefact.content, 1, "expected").run(to_tensor(host[np.newaxis], artefact.input))
    assert image["scores"] == to_scores(output, artefact.output)[0].tolist()


@pytest.mark.parametrize("step", [1, -1])
def test_largest_difference_counts_both_directions(release, step):
    host = own_pixels(5)
    host[2, 3, 1] = int(host[2, 3, 1]) + 4 * step
    host[0, 0, 0] = int(host[0, 0, 0]) + step

    (image,) = explain(request_for(release, [(5, host)]))["results"]

    assert image["largest_pixel_difference"] == 4


def test_index_counts_the_selected_images(release):
    """Three of twelve are 0, 4 and 8."""
    (image,) = explain(request_for(release, [(1, own_pixels(4))], limit=3))["results"]

    assert image["largest_pixel_difference"] == 0


@pytest.mark.parametrize("index", [-1, 12])
def test_index_outside_the_set_is_refused(release, index):
    with pytest.raises(RecordError, match=r"explain request: images\[0\]\.index: an index below 12 is required"):
        explain(request_for(release, [(index, own_pixels(0))]))


def test_pixels_of_another_size_are_refused(release):
    with pytest.raises(
        RecordError, match=r"explain request: images\[1\]\.pixels: 192 bytes is required\. Received: 168"
    ):
        explain(request_for(release, [(0, own_pixels(0)), (1, own_pixels(1)[1:])]))


def test_pixels_that_are_no_base64_are_refused(release):
    request = request_for(release, [(0, own_pixels(0))])
    request["images"][0]["pixels"] = "no pixels!"

    with pytest.raises(RecordError, match=r"images\[0\]\.pixels: base64 is required"):
        explain(request)


@pytest.mark.parametrize("field", ["folder", "release_id", "artefact", "runtime", "threads", "limit", "images"])
def test_request_without_a_field_is_refused(release, field):
    request = request_for(release, [])
    del request[field]

    with pytest.raises(RecordError, match=f"explain request: {field}: this field is required"):
        explain(request)


def test_unknown_artefact_is_refused(release):
    with pytest.raises(RecordError, match=r"an artefact of the manifest is required\. Received: ffff"):
        explain({**request_for(release, []), "artefact": "ffff"})


def test_broken_image_is_named(tmp_path):
    files = [(path, label, b"broken" if path == "red/1.png" else data) for path, label, data in photographs()]
    release = install(tmp_path, {"none-none": GOOD}, files)

    with pytest.raises(ImageError, match=r"red/1\.png"):
        explain(request_for(release, [(1, own_pixels(1))]))
