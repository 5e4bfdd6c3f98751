from __future__ import annotations

import cv2
import numpy as np
import pytest
from camera_samples import FakeCapture, RecordedNodes, TestClock, fake_process, fake_rpicam, jpeg, plain, write_video
from release_samples import encode

from liteship_agent.camera.devices import VideoNodes
from liteship_agent.camera.errors import (
    CameraBusyError,
    CameraError,
    CameraLostError,
    CameraPermissionError,
    FrameError,
    NoCameraError,
)
from liteship_agent.camera.files import FolderSource, VideoFileSource
from liteship_agent.camera.frame import FrameOptions, Source
from liteship_agent.camera.pattern import PatternSource
from liteship_agent.camera.reconnect import ReconnectingSource
from liteship_agent.camera.rpicam import PiCameraSource
from liteship_agent.camera.sources import make_source
from liteship_agent.camera.v4l2 import VideoNodeSource

AS_IT_COMES = FrameOptions()
FAST = FrameOptions(paced=False)


def colors(source: Source, most: int = 100) -> list[int]:
    """Which color each frame has, until the end."""
    found = []
    while len(found) < most and (frame := source.read()) is not None:
        found.append(2 - int(frame.pixels.mean(axis=(0, 1)).argmax()))
    return found


@pytest.fixture
def usb(tmp_path):
    """A USB camera whose OpenCV is a fake one: `usb(frames, options, **about the capture)`."""
    (tmp_path / "dev").mkdir()

    def make(frames, options=AS_IT_COMES, busy=(), **about):
        capture = FakeCapture(frames, **about)
        recorded = RecordedNodes(tmp_path / "dev", "usb", busy)
        source = VideoNodeSource(
            tmp_path / "dev" / "video0", options, TestClock(10_000_000_000), recorded.nodes, capture
        )
        return source, capture

    return make


def test_usb_camera_has_one_buffer_and_what_was_asked_for(usb):
    source, capture = usb([plain(1)], FrameOptions(width=640, height=480, rate_hz=15))
    source.open()

    assert capture.backend == cv2.CAP_V4L2
    assert capture.set_values == {
        cv2.CAP_PROP_BUFFERSIZE: 1,
        cv2.CAP_PROP_FRAME_WIDTH: 640,
        cv2.CAP_PROP_FRAME_HEIGHT: 480,
        cv2.CAP_PROP_FPS: 15,
    }
    assert source.name.startswith("HD Pro Webcam C920 (")
    assert source.name.endswith("video0), 640x480 at 15 Hz")


def test_large_frames_are_asked_for_as_jpeg_before_their_size(usb):
    source, capture = usb([], FrameOptions(width=1280, height=720))
    source.open()

    assert list(capture.set_values)[:2] == [cv2.CAP_PROP_BUFFERSIZE, cv2.CAP_PROP_FOURCC]
    assert capture.set_values[cv2.CAP_PROP_FOURCC] == cv2.VideoWriter.fourcc(*"MJPG")


@pytest.mark.parametrize(
    ("time_ms", "captured_ns", "timed_by"),
    [
        (9_980.0, 9_980_000_000, "driver"),
        (0.0, 10_000_000_000, "read"),  # a driver that does not tell
        (1_700_000_000_000.0, 10_000_000_000, "read"),  # the time of day
        (-20.0, 10_000_000_000, "read"),  # OpenCV's overflow on 32 bits
        (4_000.0, 10_000_000_000, "read"),  # another clock, by chance in the past
    ],
)
def test_time_of_a_frame_is_the_drivers_where_it_is_on_our_clock(usb, time_ms, captured_ns, timed_by):
    source, _ = usb([plain(0)], times_ms=[time_ms])
    source.open()
    frame = source.read()

    assert (frame.captured_ns, frame.timed_by) == (captured_ns, timed_by)


def test_camera_that_changes_size_and_kind_of_pixels_midway_works(usb):
    source, _ = usb([plain(0), plain(1, 30, 40), plain(2)[..., 0], np.dstack([plain(2), plain(2)[..., :1]])])
    source.open()

    assert [source.read().pixels.shape for _ in range(4)] == [(12, 16, 3), (30, 40, 3), (12, 16, 3), (12, 16, 3)]


def test_empty_frame_is_an_error_of_its_own_and_the_next_one_comes(usb):
    source, _ = usb([None, plain(1)])
    source.open()

    with pytest.raises(FrameError):
        source.read()
    assert source.read().number == 1


def test_unplugged_camera_is_lost(usb):
    source, capture = usb([plain(1)])
    source.open()
    source.read()

    with pytest.raises(
        CameraLostError, match=r"video0.*a frame is required\. Received: none; is it still plugged in\?"
    ):
        source.read()
    source.close()
    assert capture.is_released


def test_busy_camera_is_not_handed_to_opencv(usb, tmp_path):
    source, capture = usb([plain(1)], busy=["video0"])
    fake_process(tmp_path / "dev" / "proc", 99, "motion", tmp_path / "dev" / "video0")

    with pytest.raises(CameraBusyError, match=r"motion \(process 99\)"):
        source.open()
    assert not hasattr(capture, "path")


def test_camera_that_opencv_refuses_is_an_error_that_names_it(usb):
    source, capture = usb([], opens=False)

    with pytest.raises(CameraError, match="HD Pro Webcam C920, refused"):
        source.open()
    assert capture.is_released


def test_node_that_is_no_camera_is_refused_by_name(tmp_path):
    nodes = RecordedNodes(tmp_path, "pi4").nodes

    with pytest.raises(CameraError, match=r"video14: a camera is required\. Received: bcm2835-isp"):
        VideoNodeSource(tmp_path / "video14", FrameOptions(), nodes=nodes).open()


def test_interrupted_camera_gives_nothing_until_it_is_opened_again(usb):
    source, _ = usb([plain(1), plain(2)])
    source.open()
    source.interrupt()
    assert source.read() is None

    source.open()
    assert source.read() is not None


def test_video_ends(tmp_path):
    source = VideoFileSource(write_video(tmp_path / "a.avi", [plain(0), plain(1), plain(2)]), FAST)
    source.open()

    assert colors(source) == [0, 1, 2]
    assert source.read() is None
    assert not source.is_live


def test_video_loops_when_asked_to_and_goes_on_counting(tmp_path):
    path = write_video(tmp_path / "a.avi", [plain(0), plain(1)])
    source = VideoFileSource(path, FrameOptions(paced=False, loop=True))
    source.open()

    assert colors(source, most=5) == [0, 1, 0, 1, 0]
    frame = source.read()
    assert (frame.number, frame.timed_by) == (5, "read")


@pytest.mark.parametrize(("rate_hz", "seconds"), [(None, 0.04), (10.0, 0.1)])
def test_paced_video_comes_at_its_rate_or_another(tmp_path, rate_hz, seconds):
    clock = TestClock()
    path = write_video(tmp_path / "a.avi", [plain(0)] * 3, rate_hz=25)
    source = VideoFileSource(path, FrameOptions(rate_hz=rate_hz), clock)
    source.open()
    frames = [source.read() for _ in range(3)]
    times = [frame.captured_ns for frame in frames]

    assert source.is_live
    assert {frame.timed_by for frame in frames} == {"pace"}
    assert np.diff(times).tolist() == [seconds * 1e9] * 2


def test_interrupted_video_ends_its_wait(tmp_path):
    source = VideoFileSource(write_video(tmp_path / "a.avi", [plain(0)] * 3), FrameOptions(rate_hz=0.001))
    source.open()
    source.read()
    source.interrupt()

    assert source.read() is None


@pytest.mark.parametrize("content", [None, b"", b"no video at all" * 100])
def test_file_that_is_no_video_is_an_error_that_names_it(tmp_path, content):
    if content is not None:
        (tmp_path / "a.avi").write_bytes(content)

    with pytest.raises(CameraError, match=r"a\.avi: a video.* is required"):
        VideoFileSource(tmp_path / "a.avi", FAST).open()


def test_cut_video_ends_where_it_is_cut(tmp_path):
    path = write_video(tmp_path / "a.avi", [plain(0)] * 50)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = VideoFileSource(path, FAST)
    source.open()

    assert 0 < len(colors(source)) < 50


def test_folder_is_read_by_name_through_the_benchmarks_decoder(tmp_path):
    (tmp_path / "b").mkdir()
    for name, color in (("b/1.jpg", 2), ("a.png", 0), ("c.JPEG", 1)):
        (tmp_path / name).write_bytes(encode(plain(color), ".png" if name == "a.png" else ".jpg"))
    (tmp_path / "notes.txt").write_text("no picture")
    source = FolderSource(tmp_path, FAST)
    source.open()
    frames = [source.read() for _ in range(4)]

    assert [frame and frame.name for frame in frames] == ["a.png", "b/1.jpg", "c.JPEG", None]
    assert frames[0].timed_by == "read"
    assert (frames[0].pixels == plain(0)).all()


def test_broken_picture_of_a_folder_is_named_and_the_next_one_comes(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(plain(0))[:-30])
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(jpeg(plain(0)))
    source = FolderSource(tmp_path, FAST)
    source.open()

    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(FrameError, match=name):
            source.read()
    assert source.read().number == 2


def test_folder_loops_at_its_rate(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(plain(0)))
    clock = TestClock()
    source = FolderSource(tmp_path, FrameOptions(loop=True, rate_hz=2), clock)
    source.open()

    assert colors(source, most=3) == [0, 0, 0]
    assert clock.waits == [0.5, 0.5]


def test_folder_without_pictures_is_an_error(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")

    with pytest.raises(CameraError, match="a folder with pictures is required"):
        FolderSource(tmp_path, FAST).open()


def test_pattern_moves_and_is_the_same_each_time():
    options = FrameOptions(width=64, height=48, paced=False)
    first, second = PatternSource(options), PatternSource(options)
    first.open()
    second.open()
    frames = [first.read().pixels for _ in range(17)]

    assert all((frame == second.read().pixels).all() for frame in frames)
    assert frames[0].shape == (48, 64, 3)
    assert (frames[1] == np.roll(frames[0], -4, axis=1)).all()
    assert (frames[16] == frames[0]).all()


def test_rotated_pattern_has_its_sides_swapped():
    source = PatternSource(FrameOptions(width=64, height=48, rotate_degrees=90, paced=False))
    source.open()

    assert source.read().pixels.shape == (64, 48, 3)


def no_program() -> None:
    """There is no rpicam-vid."""


def test_auto_takes_a_usb_camera_before_a_pi_camera(tmp_path):
    nodes = RecordedNodes(tmp_path, "usb").nodes
    source = make_source("auto", FrameOptions(), nodes, lambda: fake_rpicam(tmp_path, ""))

    assert isinstance(source, ReconnectingSource)
    assert source.name.endswith("video0")


@pytest.mark.parametrize("machine", ["pi4", "pi5"])
def test_auto_takes_the_pi_camera_where_no_node_is_one(tmp_path, machine):
    nodes = RecordedNodes(tmp_path, machine).nodes
    source = make_source("auto", FrameOptions(), nodes, lambda: fake_rpicam(tmp_path, ""))

    assert source.name == "Pi camera 0 (rpicam-vid)"


def test_auto_without_any_camera_says_where_it_looked(tmp_path):
    nodes = RecordedNodes(tmp_path, "pi4").nodes

    with pytest.raises(NoCameraError) as caught:
        make_source("auto", FrameOptions(), nodes, lambda: fake_rpicam(tmp_path, "", listed="No cameras available!"))
    assert str(caught.value) == (
        "a camera is required. Received: 16 video nodes that are none (bcm2835-codec, bcm2835-isp, rpivid, unicam),"
        " none that rpicam-vid lists; connect one, or choose a video, a folder or pattern with --source"
    )


def test_auto_on_a_machine_without_anything(tmp_path):
    with pytest.raises(NoCameraError, match="no video node, no rpicam-vid or libcamera-vid"):
        make_source("auto", FrameOptions(), VideoNodes(tmp_path), no_program)


def test_auto_says_permission_where_that_is_why_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "video0").touch()
    nodes = VideoNodes(tmp_path)

    def refuse(path):
        raise CameraPermissionError(f"{path}: a user in the group video is required")

    monkeypatch.setattr(nodes, "describe", refuse)
    with pytest.raises(CameraPermissionError, match="group video"):
        make_source("auto", FrameOptions(), nodes, no_program)


def test_words_choose_sources(tmp_path):
    video = write_video(tmp_path / "a.avi", [plain(0)])

    assert isinstance(make_source("pattern", FAST), PatternSource)
    assert isinstance(make_source(str(video), FAST), VideoFileSource)
    assert isinstance(make_source(str(tmp_path), FAST), FolderSource)
    assert make_source("pi:1", FAST, program=no_program).name == "Pi camera 1 (rpicam-vid)"
    assert make_source("/dev/video99", FAST).name == "/dev/video99"


def test_unknown_word_is_answered_with_all_that_are_known():
    with pytest.raises(CameraError, match=r"auto, pi, pi:NUMBER, /dev/videoN.* is required\. Received: webcam"):
        make_source("webcam", FAST)


def test_pi_camera_without_its_program_says_what_to_install():
    with pytest.raises(NoCameraError, match="install rpicam-apps"):
        PiCameraSource(FAST).open()
