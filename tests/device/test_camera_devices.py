from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from camera_samples import RecordedNodes, fake_process

from liteship_agent.camera import devices
from liteship_agent.camera.devices import QUERYCAP, VideoNodes
from liteship_agent.camera.errors import CameraBusyError, CameraError, CameraPermissionError, NoCameraError


def cameras(nodes: VideoNodes) -> list[str]:
    return [path.name for path in nodes.paths() if nodes.describe(path).is_camera]


@pytest.mark.parametrize(("machine", "count"), [("pi4", 16), ("pi5", 27)])
def test_no_node_of_a_pi_without_usb_camera_is_one(tmp_path, machine, count):
    nodes = RecordedNodes(tmp_path, machine).nodes

    assert len(nodes.paths()) == count
    assert cameras(nodes) == []


def test_usb_camera_is_one_and_its_metadata_node_is_not(tmp_path):
    assert cameras(RecordedNodes(tmp_path, "usb").nodes) == ["video0"]


def test_usb_camera_is_found_among_the_nodes_of_a_pi(tmp_path):
    recorded = RecordedNodes(tmp_path, "pi4")
    usb = RecordedNodes(tmp_path, "usb").answers
    recorded.answers = {**recorded.answers, "video2": usb["video0"], "video3": usb["video1"]}
    for name in ("video2", "video3"):
        (tmp_path / name).touch()

    assert cameras(recorded.nodes) == ["video2"]


@pytest.mark.parametrize(
    ("change", "is_camera"),
    [
        ({}, True),
        ({"inputs": []}, False),  # as the ISP of a Pi 4
        ({"device_caps": "0x24200001"}, False),  # as the receivers: wired by a media controller
        ({"device_caps": "0x00200001"}, False),  # no streaming
        ({"device_caps": "0x04201000"}, False),  # several planes
        ({"formats": ""}, False),
        ({"formats": "BA81 RGGB pRAA BG10 GB12 GR14 RG16 BYR2 PC1B"}, False),
        ({"formats": "RGGB GREY"}, True),
        ({"capabilities": "0x04200001", "device_caps": "0x00000000"}, True),  # a driver from before device_caps
    ],
)
def test_each_rule_decides_for_itself(tmp_path, change, is_camera):
    recorded = RecordedNodes(tmp_path, "usb")
    recorded.answers = {"video0": {**recorded.answers["video0"], **change}}

    assert recorded.nodes.describe(tmp_path / "video0").is_camera is is_camera


def test_nodes_are_listed_by_number(tmp_path):
    for name in ("video10", "video9", "video", "videox", "vbi0"):
        (tmp_path / name).touch()

    assert [path.name for path in VideoNodes(tmp_path).paths()] == ["video9", "video10"]


def test_description_has_driver_card_and_formats(tmp_path):
    node = RecordedNodes(tmp_path, "usb").nodes.describe(tmp_path / "video0")

    assert (node.driver, node.card, node.formats) == ("uvcvideo", "HD Pro Webcam C920", ("YUYV", "MJPG"))


def test_file_that_is_no_video_node_is_no_camera(tmp_path):
    (tmp_path / "video0").touch()

    with pytest.raises(NoCameraError, match=r"video0: a video node is required"):
        VideoNodes(tmp_path).describe(tmp_path / "video0")


def test_missing_node_is_no_camera(tmp_path):
    with pytest.raises(NoCameraError, match=r"video7: a camera is required. Received: No such file"):
        VideoNodes(tmp_path).describe(tmp_path / "video7")


def test_driver_that_lists_formats_forever_is_stopped(tmp_path):
    (tmp_path / "video0").touch()

    def ioctl(file: int, request: int, buffer: bytearray) -> int:
        if request == QUERYCAP:
            buffer[:] = b"\0" * len(buffer)
        return 0

    assert len(VideoNodes(tmp_path, ioctl).describe(tmp_path / "video0").formats) == 128


def test_permission_names_group_user_and_command(tmp_path, monkeypatch):
    (tmp_path / "video0").touch()

    def refuse(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(devices.os, "open", refuse)
    with pytest.raises(CameraPermissionError) as caught:
        VideoNodes(tmp_path).describe(tmp_path / "video0")

    user = devices.pwd.getpwuid(os.geteuid()).pw_name
    assert "a user in the group video is required" in str(caught.value)
    assert f"run `sudo usermod -aG video {user}` and log in again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_busy_camera_names_the_process(tmp_path):
    recorded = RecordedNodes(tmp_path, "usb", busy=["video0"])
    fake_process(tmp_path / "proc", 4711, "motion", tmp_path / "video0")
    fake_process(tmp_path / "proc", 4712, "other", tmp_path / "video1")
    fake_process(tmp_path / "proc", os.getpid(), "pytest", tmp_path / "video0")

    with pytest.raises(CameraBusyError, match=r"Received: one that motion \(process 4711\) uses"):
        recorded.nodes.check_free(tmp_path / "video0")


def test_busy_camera_of_another_user_is_busy_all_the_same(tmp_path):
    recorded = RecordedNodes(tmp_path, "usb", busy=["video0"])

    with pytest.raises(CameraBusyError, match="a program of another user"):
        recorded.nodes.check_free(tmp_path / "video0")


def test_holder_is_found_behind_a_link(tmp_path):
    recorded = RecordedNodes(tmp_path, "usb")
    (tmp_path / "front-door").symlink_to(tmp_path / "video0")
    fake_process(tmp_path / "proc", 4711, "motion", tmp_path / "video0")

    assert recorded.nodes.holders(tmp_path / "front-door") == ["motion (process 4711)"]


def test_free_camera_passes_and_leaves_no_file_open(tmp_path):
    nodes = RecordedNodes(tmp_path, "usb").nodes
    before = len(os.listdir("/proc/self/fd"))

    nodes.check_free(tmp_path / "video0")
    nodes.describe(tmp_path / "video0")

    assert len(os.listdir("/proc/self/fd")) == before


def test_node_that_cannot_stream_is_no_free_camera(tmp_path):
    (tmp_path / "video0").touch()

    with pytest.raises(CameraError, match="a camera that streams is required"):
        VideoNodes(tmp_path).check_free(tmp_path / "video0")
