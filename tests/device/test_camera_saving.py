"""Keeping frames, counting them and writing them down."""

from __future__ import annotations

import datetime
import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from camera_samples import classifier, plain

from liteship_agent.camera.errors import CameraError
from liteship_agent.camera.frame import Frame
from liteship_agent.camera.pipeline import Result
from liteship_agent.camera.saving import FrameSaver, SaveError
from liteship_agent.camera.smoothing import Answer
from liteship_agent.camera.tally import FrameLog, Tally, frame_record, log_record

NOW = datetime.datetime(2026, 11, 22, 9, 30, 15, 123000, tzinfo=datetime.UTC)
MODEL = classifier()


def result(color: int = 0, number: int = 7, model=MODEL, index: int | None = 0, **changes: object) -> Result:
    scores = np.array([0.75, 0.15, 0.1], np.float32)
    answer = Answer("unsure" if index is None else model.labels[index], index, 0.75, scores)
    frame = Frame(plain(color), 1000, number, **changes)
    return Result(frame, answer, scores, model, 2_000_000, {"capture": 1, "preprocess": 2, "invoke": 3, "smooth": 4})


def saver(folder: Path) -> FrameSaver:
    return FrameSaver(folder, lambda: NOW)


# --- saving ---


def test_frame_is_kept_with_its_label_beside_it(tmp_path):
    name = saver(tmp_path / "new" / "frames").save(result(2))
    assert name == "frame-20261122T093015Z-000007.jpg"
    folder = tmp_path / "new" / "frames"
    assert sorted(os.listdir(folder)) == ["frame-20261122T093015Z-000007.jpg", "frame-20261122T093015Z-000007.json"]
    pixels = cv2.imread(str(folder / name))
    assert pixels.shape == (12, 16, 3)
    assert pixels[6, 8].argmax() == 0
    about = json.loads((folder / name).with_suffix(".json").read_text())
    assert (about["label"], about["saved_at"]) == ("red", "2026-11-22T09:30:15.123+00:00")
    assert about["scores"] == {"red": 0.75, "green": 0.15, "blue": 0.1}


def test_camera_s_own_jpeg_is_kept_as_it_is(tmp_path):
    name = saver(tmp_path).save(result(jpeg=b"\xff\xd8 as the camera gave it"))
    assert (tmp_path / name).read_bytes() == b"\xff\xd8 as the camera gave it"


def test_a_frame_that_many_viewers_save_at_once_is_there_as_often(tmp_path):
    own = saver(tmp_path)
    with ThreadPoolExecutor(8) as viewers:
        names = list(viewers.map(own.save, [result()] * 24))

    assert len(set(names)) == 24 == own.saved
    assert sorted(path.name for path in tmp_path.glob("*.jpg")) == sorted(names)
    assert len(list(tmp_path.iterdir())) == 48


def test_frame_that_is_saved_twice_is_there_twice(tmp_path):
    names = [saver(tmp_path).save(result()) for _ in range(3)]
    assert [name[-12:] for name in names] == ["Z-000007.jpg", "000007-2.jpg", "000007-3.jpg"]
    assert len(os.listdir(tmp_path)) == 6


def test_class_name_is_in_no_path(tmp_path):
    hostile = classifier(labels=("../../../etc/passwd", "\0", "a/b"))
    name = saver(tmp_path / "frames").save(result(model=hostile))
    assert "/" not in name
    assert os.listdir(tmp_path) == ["frames"]
    assert json.loads((tmp_path / "frames" / name).with_suffix(".json").read_text())["label"] == "../../../etc/passwd"


@pytest.mark.parametrize("link", ["frame-20261122T093015Z-000007.jpg", ".frame-20261122T093015Z-000007.json.tmp"])
def test_link_that_somebody_put_there_is_not_written_through(tmp_path, link):
    folder, victim = tmp_path / "frames", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("kept")
    (folder / link).symlink_to(victim)
    try:
        assert saver(folder).save(result()).endswith("-2.jpg")
    except SaveError:
        assert link.startswith(".")
    assert victim.read_text() == "kept"


@pytest.mark.parametrize("broken", ["write", "fsync", "second fsync", "rename", "second rename"])
@pytest.mark.parametrize(("number", "is_full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_disk_that_fails_leaves_nothing_half_written(tmp_path, monkeypatch, broken, number, is_full):
    name = broken.split()[-1]
    good = [1] if broken.startswith("second") else []
    real = getattr(os, "open" if name == "write" else name)

    def fail(*arguments, **options):
        if good and good.pop():
            return real(*arguments, **options)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open" if name == "write" else name, fail)
    with pytest.raises(SaveError, match="a folder with space is required") as info:
        saver(tmp_path / "frames").save(result())
    assert info.value.is_full is is_full
    assert list((tmp_path / "frames").iterdir()) == []


def test_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SaveError, match="Not a directory"):
        saver(tmp_path / "file" / "frames").save(result())


# --- counting ---


def test_records_tell_what_is_shown_and_what_this_frame_alone_says():
    record = log_record(result(1, index=None, name="cats/1.jpg"))
    assert (record["label"], record["prediction"], record["name"]) == (None, "red", "cats/1.jpg")
    assert record["top"] == [["red", 0.75], ["green", 0.15], ["blue", 0.1]]
    assert set(frame_record(result())) == {"number", "at_ns", "label", "score", "top", "latency_ns"}


def test_tally_counts_every_frame_until_it_is_full():
    written = []
    tally = Tally(3, written.append)
    for number, index in enumerate([0, None, 0, 0]):
        tally.publish(result(number=number, index=index))
    assert (dict(tally.labels), tally.full.is_set(), len(written)) == ({"red": 2, "unsure": 1}, True, 3)
    assert tally.get().frame.number == 3  # viewers still see what comes


def test_gap_of_a_swap_is_the_time_between_two_labels():
    times = iter([1000, 5000, 12_000, 20_000])
    other, third = classifier("none-int8"), classifier("none-float16")
    tally = Tally(now_ns=lambda: next(times))
    tally.publish(result())
    tally.publish(result())
    tally.publish(result(model=other))
    tally.interrupted()
    tally.publish(result(model=third))
    assert [(swap.classifier.variant, swap.gap_ns) for swap in tally.swaps] == [
        ("none-int8", 7000),
        ("none-float16", None),
    ]


# --- the log ---


def test_log_is_appended_to(tmp_path):
    for number in (1, 2):
        log = FrameLog(tmp_path / "log.jsonl", None)
        log.write({"number": number})
        log.close()
    assert (tmp_path / "log.jsonl").read_text() == '{"number": 1}\n{"number": 2}\n'


def test_log_that_cannot_be_written_is_refused_at_once(tmp_path):
    with pytest.raises(CameraError, match=r"a file that can be written is required\. Received: Is a directory"):
        FrameLog(tmp_path, None)


def test_log_that_is_too_slow_loses_lines_and_says_so(monkeypatch):
    import threading

    from liteship_agent.camera import tally

    monkeypatch.setattr(tally, "_WAITING_LINES", 2)
    gate, told = threading.Event(), []
    log = FrameLog(None, lambda record: (gate.wait(30), told.append(record)))
    for number in range(50):
        log.write({"number": number})
    gate.set()
    log.close()
    assert log.lost + len(told) == 50
    assert "the disk or the link is too slow" in log.error
