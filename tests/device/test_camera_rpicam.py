from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from camera_samples import TestClock, fake_rpicam, jpeg, plain

from liteship_agent.camera.errors import CameraBusyError, CameraError, CameraLostError, FrameError, NoCameraError
from liteship_agent.camera.frame import FrameOptions
from liteship_agent.camera.rpicam import PiCameraSource, find_program, list_cameras

AS_IT_COMES = FrameOptions()
FOREVER = "\nwhile True: time.sleep(1)\n"


def send(*pictures: bytes) -> str:
    return "".join(f"out.write({picture!r}); out.flush()\n" for picture in pictures)


@pytest.fixture
def camera(tmp_path):
    """Opens a camera whose program runs that Python; closed at the end."""
    opened = []

    def make(body: str, options=AS_IT_COMES, **about) -> PiCameraSource:
        source = PiCameraSource(options, TestClock(77), fake_rpicam(tmp_path, body), **about)
        source.open()
        opened.append(source)
        return source

    yield make
    for source in opened:
        source.close()


def is_running(folder: Path) -> bool:
    """Whether the fake program is there, and no zombie."""
    try:
        return Path(f"/proc/{(folder / 'pid').read_text()}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_picture_becomes_a_frame_with_the_cameras_jpeg(camera):
    picture = jpeg(plain(1))
    frame = camera(send(picture) + FOREVER).read()

    assert frame.jpeg == picture
    assert frame.pixels.mean(axis=(0, 1)).argmax() == 1
    assert (frame.captured_ns, frame.timed_by) == (77, "read")


def test_rotated_frame_has_no_jpeg_of_its_own(camera):
    frame = camera(send(jpeg(plain(1))) + FOREVER, FrameOptions(rotate_degrees=90)).read()

    assert frame.jpeg is None
    assert frame.pixels.shape == (16, 12, 3)


def test_size_rate_and_camera_are_asked_for(camera, tmp_path):
    camera(send(jpeg(plain(1))) + FOREVER, FrameOptions(width=640, height=480, rate_hz=12.5), number=1).read()
    arguments = json.loads((tmp_path / "arguments.json").read_text())

    assert " ".join(arguments) == (
        "--codec mjpeg --output - --timeout 0 --nopreview --flush --camera 1 --width 640 --height 480 --framerate 12.5"
    )


def test_of_several_pictures_that_wait_the_newest_is_taken(camera):
    source = camera(send(jpeg(plain(0)) + jpeg(plain(1)) + jpeg(plain(2))) + FOREVER)
    frame = source.read()

    assert frame.number == 2
    assert frame.pixels.mean(axis=(0, 1)).argmax() == 0  # blue


def test_cut_picture_is_an_error_and_the_next_one_comes(camera):
    noise = jpeg(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    source = camera(send(noise[:-50] + jpeg(plain(1))) + FOREVER)

    with pytest.raises(FrameError, match="one that is cut or too long"):
        source.read()
    assert source.read().pixels.mean(axis=(0, 1)).argmax() == 1


def test_picture_that_cannot_be_decoded_is_an_error_of_one_frame(camera, tmp_path):
    undecodable = b"\xff\xd8\xff\xda\x00\x02nothing\xff\xd9"
    source = camera(send(undecodable) + "while not (here / 'go').exists(): pass\n" + send(jpeg(plain(1))) + FOREVER)
    with pytest.raises(FrameError):
        source.read()
    (tmp_path / "go").touch()

    assert source.read().number == 1


def test_last_picture_before_the_end_is_still_seen(camera):
    source = camera(send(jpeg(plain(1))))

    assert source.read().number == 0
    with pytest.raises(CameraLostError):
        source.read()


def test_end_of_the_program_is_told_by_its_last_words(camera):
    source = camera(
        """
        print("[0:01] INFO Camera camera_manager.cpp:313 libcamera v0.3.2", file=sys.stderr)
        print("ERROR: *** no cameras available ***", file=sys.stderr)
        print("#7 (30.00 fps) exp 33251.00 ag 8.00 dg 1.00", file=sys.stderr)
        sys.exit(255)
        """
    )

    with pytest.raises(CameraLostError, match=r"its end \(ERROR: \*\*\* no cameras available \*\*\*\)"):
        source.read()


def test_silent_end_is_told_by_its_exit_code(camera):
    with pytest.raises(CameraLostError, match="exit code 3"):
        camera("os.close(1); time.sleep(0.2); os._exit(3)").read()


def test_camera_that_another_program_has_is_busy(camera):
    source = camera(
        """
        print("ERROR RPI pipeline_base.cpp: Pipeline handler in use by another process", file=sys.stderr)
        sys.exit("ERROR: *** failed to acquire camera /base/soc/i2c0mux/i2c@1/imx708@1a ***")
        """
    )

    with pytest.raises(CameraBusyError, match="failed to acquire camera"):
        source.read()


def test_silence_is_a_lost_camera(camera):
    source = camera(FOREVER, is_readable=lambda stream, seconds: False)

    with pytest.raises(CameraLostError, match="none for 10 s"):
        source.read()


def test_program_that_talks_without_end_neither_blocks_nor_fills_memory(camera):
    source = camera("sys.stderr.write('talk ' * 400_000)\nsys.stderr.flush()\n" + send(jpeg(plain(1))))
    source.read()
    with pytest.raises(CameraLostError, match="talk") as caught:
        source.read()

    assert len(str(caught.value)) < 5000


@pytest.mark.parametrize("end", ["close", "interrupt"])
def test_program_ends_with_the_source(camera, tmp_path, end):
    source = camera(send(jpeg(plain(1))) + FOREVER)
    source.read()
    assert is_running(tmp_path)
    getattr(source, end)()
    source.close()

    assert not is_running(tmp_path)


def test_program_that_ignores_the_polite_request_is_killed(camera, tmp_path, monkeypatch):
    monkeypatch.setattr("liteship_agent.camera.rpicam._END_SECONDS", 0.05)
    source = camera("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + send(jpeg(plain(1))) + FOREVER)
    source.read()
    source.close()

    assert not is_running(tmp_path)


def test_read_after_interrupt_returns_at_once(camera):
    source = camera(FOREVER)
    source.interrupt()

    assert source.read() is None


def test_source_can_be_opened_again_and_goes_on_counting(camera):
    source = camera(send(jpeg(plain(1))) + FOREVER)
    source.read()
    source.close()
    source.open()

    assert source.read().number == 1


def test_closing_leaves_no_file_open(camera):
    before = len(os.listdir("/proc/self/fd"))
    source = camera(send(jpeg(plain(1))) + FOREVER)
    source.read()
    source.close()

    assert len(os.listdir("/proc/self/fd")) == before


def test_cameras_are_listed_by_name(tmp_path):
    listed = (
        "0 : imx708 [4608x2592 10-bit RGGB] (/a)\n    Modes: 'SRGGB10_CSI2P' : 1536x864\n1 : ov5647 [2592x1944] (/b)"
    )

    assert list_cameras(fake_rpicam(tmp_path, "", listed)) == ["imx708", "ov5647"]
    assert list_cameras(fake_rpicam(tmp_path, "", "No cameras available!")) == []


def test_newer_program_is_preferred():
    assert find_program({"rpicam-vid": "/usr/bin/rpicam-vid", "libcamera-vid": "/b"}.get) == "/usr/bin/rpicam-vid"
    assert find_program({"libcamera-vid": "/usr/bin/libcamera-vid"}.get) == "/usr/bin/libcamera-vid"
    assert find_program({}.get) is None


def test_program_that_cannot_be_run_is_an_error(tmp_path):
    (tmp_path / "rpicam-vid").write_text("not executable")

    with pytest.raises(NoCameraError, match="Permission denied"):
        PiCameraSource(FrameOptions(), program=str(tmp_path / "rpicam-vid")).open()
    with pytest.raises(CameraError, match="a list of cameras is required"):
        list_cameras(str(tmp_path / "rpicam-vid"))
