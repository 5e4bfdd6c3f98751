from __future__ import annotations

import numpy as np
import pytest

from liteship_agent.manifest import OutputContract
from liteship_agent.postprocess import to_scores


def test_softmax_scores_are_the_output():
    scores = to_scores(np.array([[0.25, 0.5, 0.25]], np.float32), OutputContract("softmax"))

    assert scores.dtype == np.float32
    assert scores.tolist() == [[0.25, 0.5, 0.25]]


def test_sigmoid_unit_is_the_probability_of_the_second_label():
    scores = to_scores(np.array([[0.25], [1.0]], np.float32), OutputContract("sigmoid"))

    assert scores.tolist() == [[0.75, 0.25], [0.0, 1.0]]


@pytest.mark.parametrize(("dtype", "zero_point", "steps"), [("int8", -128, [-128, 0, 64]), ("uint8", 0, [0, 128, 192])])
def test_integer_output_is_dequantized(dtype, zero_point, steps):
    contract = OutputContract("softmax", dtype, 1 / 256, zero_point)

    assert to_scores(np.array([steps], dtype), contract).tolist() == [[0.0, 0.5, 0.75]]


def test_integer_sigmoid_is_dequantized_before_it_is_mirrored():
    scores = to_scores(np.array([[64]], np.int8), OutputContract("sigmoid", "int8", 1 / 256, -128))

    assert scores.tolist() == [[0.25, 0.75]]


def test_kept_spatial_axes_are_flattened():
    assert to_scores(np.zeros((1, 1, 1, 5), np.float32), OutputContract("softmax")).shape == (1, 5)


def test_several_logits_get_a_softmax_that_large_numbers_do_not_break():
    scores = to_scores(np.array([[0.0, np.log(3.0)], [1000.0, -1000.0]], np.float32), OutputContract("logits"))

    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [[0.25, 0.75], [1, 0]], atol=1e-6)


def test_one_logit_gets_a_sigmoid_for_the_second_label():
    scores = to_scores(np.array([[0.0], [np.log(3.0)], [-1000.0]], np.float32), OutputContract("logits"))

    np.testing.assert_allclose(scores, [[0.5, 0.5], [0.25, 0.75], [1, 0]], atol=1e-6)


def test_integer_logits_are_dequantized_first():
    scores = to_scores(np.array([[10, 20]], np.int8), OutputContract("logits", "int8", 0.1, 10))

    np.testing.assert_allclose(scores, [[1 / (1 + np.e), np.e / (1 + np.e)]], atol=1e-6)
