from __future__ import annotations

import pytest
from camera_samples import ScriptedSource, TestClock, plain

from liteship_agent.camera.errors import CameraLostError, FrameError, NoCameraError
from liteship_agent.camera.reconnect import ReconnectingSource

LOST = CameraLostError("video0: a frame is required. Received: none")
GONE = NoCameraError("video0: a camera is required. Received: No such file or directory")


def opened(script, opening=()) -> tuple[ReconnectingSource, ScriptedSource, TestClock]:
    inner, clock = ScriptedSource(script, live=True), TestClock()
    source = ReconnectingSource(inner, clock)
    source.open()
    inner.opening = list(opening)
    return source, inner, clock


def test_lost_camera_is_opened_again_and_goes_on():
    source, inner, clock = opened([plain(0), LOST, plain(1)])
    source.read()

    assert source.read().number == 2
    assert inner.calls == ["open", "close", "open"]
    assert clock.waits == [0.5]
    assert source.lost is None


def test_waits_double_up_to_eight_seconds_and_start_anew_after_a_frame():
    source, _, clock = opened([LOST, plain(0), LOST, plain(1)], opening=[GONE] * 6)
    source.read()
    assert clock.waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]

    source.read()
    assert clock.waits[7:] == [0.5]


def test_state_says_why_and_how_often_while_the_camera_is_away():
    seen = []
    source, _, clock = opened([LOST, plain(0)], opening=[GONE, GONE])
    wait = clock.wait
    clock.wait = lambda seconds: (seen.append(source.lost), wait(seconds))[1]
    source.read()

    assert [(lost.reason, lost.tries, lost.wait_seconds) for lost in seen] == [
        (str(LOST), 0, 0.5),
        (str(GONE), 1, 1.0),
        (str(GONE), 2, 2.0),
    ]


def test_camera_that_opens_but_gives_nothing_is_waited_for_longer_and_longer():
    source, _, clock = opened([LOST, LOST, LOST, plain(0)])
    source.read()

    assert clock.waits == [0.5, 1.0, 2.0]


def test_broken_frame_is_no_lost_camera():
    source, inner, _ = opened([FrameError("empty"), plain(0)])

    with pytest.raises(FrameError):
        source.read()
    assert source.read().number == 1
    assert inner.calls == ["open"]


def test_first_opening_may_fail_and_a_later_one_is_tried_again():
    inner, clock = ScriptedSource([plain(0)], live=True), TestClock()
    source = ReconnectingSource(inner, clock)
    inner.opening = [GONE, None, GONE]
    with pytest.raises(NoCameraError):
        source.open()
    source.open()
    source.close()
    source.open()

    assert source.lost.reason == str(GONE)
    assert source.read() is not None


def test_interrupt_ends_the_wait_for_the_next_try():
    source, _, clock = opened([LOST, plain(0)])
    clock.wait = lambda seconds: (source.interrupt(), False)[1]

    assert source.read() is None


def test_interrupt_while_it_is_opened_again_ends_the_read():
    source, inner, _ = opened([LOST, plain(0)])
    plain_open = inner.open
    inner.open = lambda: (plain_open(), source.interrupt())

    assert source.read() is None


def test_end_of_the_source_is_its_end():
    source, _, clock = opened([])

    assert source.read() is None
    assert clock.waits == []
