from __future__ import annotations

import numpy as np
import pytest
from camera_samples import TestClock, plain

from liteship_agent.camera.clock import Clock, Pace
from liteship_agent.camera.errors import CameraError, FrameError
from liteship_agent.camera.frame import FrameMaker, FrameOptions, to_bgr

CORNERS = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
"""No two pixels alike."""


def test_plain_picture_stays_as_it_is():
    assert to_bgr(CORNERS) is CORNERS


def test_gray_becomes_three_equal_channels():
    gray = CORNERS[..., 0]

    for pixels in (gray, gray[..., np.newaxis]):
        assert (to_bgr(pixels) == gray[..., np.newaxis]).all()
        assert to_bgr(pixels).shape == (6, 4, 3)


def test_alpha_is_left_out():
    assert (to_bgr(np.dstack([CORNERS, CORNERS[..., 0]])) == CORNERS).all()


def test_sixteen_bits_become_eight():
    deep = CORNERS.astype(np.uint16) * 257

    assert (to_bgr(deep) == CORNERS).all()
    assert to_bgr(deep).dtype == np.uint8
    assert to_bgr(deep[..., 0]).shape == (6, 4, 3)


@pytest.mark.parametrize(
    "pixels",
    [
        None,
        np.zeros((0, 0, 3), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros(16, np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
    ids=["none", "empty", "no columns", "two channels", "float", "one axis", "four axes"],
)
def test_what_is_no_picture_is_a_frame_error(pixels):
    with pytest.raises(FrameError, match=r"is required\. Received:"):
        to_bgr(pixels)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_is_clockwise(degrees):
    turned = FrameOptions(rotate_degrees=degrees).apply(CORNERS)

    assert (turned == np.rot90(CORNERS, -degrees // 90)).all()


def test_mirror_comes_after_rotation():
    turned = FrameOptions(rotate_degrees=90, mirror=True).apply(CORNERS)

    assert (turned == np.rot90(CORNERS, -1)[:, ::-1]).all()


def test_crop_comes_last_and_is_contiguous():
    kept = FrameOptions(rotate_degrees=180, mirror=True, crop=(0.5, 0.0, 0.5, 0.5)).apply(CORNERS)

    assert (kept == np.rot90(CORNERS, 2)[:, ::-1][:3, 2:]).all()
    assert kept.flags.c_contiguous


def test_crop_fits_frames_of_any_size():
    options = FrameOptions(crop=(0.9, 0.9, 0.1, 0.1))

    for height, width in ((1, 1), (7, 3), (480, 640)):
        assert options.apply(np.zeros((height, width, 3), np.uint8)).size > 0


@pytest.mark.parametrize(
    "options",
    [
        {"width": 640},
        {"height": 480},
        {"width": 0, "height": 480},
        {"rate_hz": 0},
        {"rate_hz": float("nan")},
        {"rate_hz": float("inf")},
        {"rotate_degrees": 45},
        {"rotate_degrees": -90},
        {"crop": (0, 0, 0, 1)},
        {"crop": (0.5, 0, 0.6, 1)},
        {"crop": (-0.1, 0, 0.5, 0.5)},
    ],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(CameraError, match="required"):
        FrameOptions(**options)


def test_frames_are_numbered_also_over_those_that_are_none():
    frames = FrameMaker(FrameOptions(), TestClock())
    frames.make(plain(0), 0, "read", 0)
    with pytest.raises(FrameError):
        frames.make(None, 0, "read", 0)
    frames.skip()

    assert frames.make(plain(0), 0, "read", 0).number == 3


@pytest.mark.parametrize(("options", "kept"), [({}, b"jpeg"), ({"mirror": True}, None)])
def test_the_cameras_own_jpeg_is_kept_only_for_its_own_pixels(options, kept):
    frame = FrameMaker(FrameOptions(**options), TestClock()).make(plain(0), 5, "driver", 0, b"jpeg")

    assert frame.jpeg == kept


def test_decode_time_is_from_start_to_picture():
    clock = TestClock(now_ns=500)

    assert FrameMaker(FrameOptions(), clock).make(plain(0), 0, "read", 200).decode_ns == 300


def test_pace_waits_for_what_is_left_of_the_interval():
    clock = TestClock()
    pace = Pace(clock, 10.0)
    pace.wait()
    clock.time_ns += 30_000_000
    pace.wait()

    assert clock.waits == [pytest.approx(0.07)]


def test_pace_that_is_late_by_a_little_catches_up():
    clock = TestClock()
    pace = Pace(clock, 10.0)
    pace.wait()
    clock.time_ns += 150_000_000
    pace.wait()
    pace.wait()

    assert clock.waits == [pytest.approx(0.05)]


def test_pace_that_is_late_by_more_does_not_burst():
    clock = TestClock()
    pace = Pace(clock, 10.0)
    pace.wait()
    clock.time_ns += 5_000_000_000
    pace.wait()
    pace.wait()

    assert clock.waits == [pytest.approx(0.1)]


def test_pace_without_rate_never_waits():
    clock = TestClock()
    pace = Pace(clock, None)

    assert pace.wait()
    assert clock.waits == []


def test_pace_says_when_it_was_cut():
    clock = TestClock()
    pace = Pace(clock, 10.0)
    pace.wait()
    clock.cut()

    assert not pace.wait()


def test_cut_ends_waits_until_it_is_restored():
    clock = Clock()
    clock.cut()

    assert not clock.wait(3600)
    clock.restore()
    assert clock.wait(0)
