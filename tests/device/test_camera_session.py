"""A camera's session with real models, a made-up source and a real page."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from camera_samples import ScriptedSource, fake_rpicam, jpeg, plain
from release_samples import good_artefact, hold_lock
from session_samples import Endless, Running, activate, add_release, other_model

from liteship_agent import lock
from liteship_agent.camera import hot_swap, session
from liteship_agent.camera.errors import CameraBusyError
from liteship_agent.camera.frame import FrameOptions
from liteship_agent.camera.reconnect import ReconnectingSource
from liteship_agent.camera.rpicam import PiCameraSource
from liteship_agent.errors import LockedError, ModelError
from liteship_agent.release import InstalledRelease
from liteship_agent.store.inventory import running_camera


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Nobody waits for a look at the lock or at `current`."""
    monkeypatch.setattr(session, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(session, "_TICK_SECONDS", 0.01)
    monkeypatch.setattr(hot_swap, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lock, "_is_camera_process", lambda pid: False)  # it is this process: no signal to it


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "lite ship"
    add_release(folder)
    return folder


def script(*colors: int) -> ScriptedSource:
    return ScriptedSource([plain(color) for color in colors])


# --- one run ---


def test_video_that_ends_is_labelled_whole_and_summed_up(folder):
    with Running(folder, script(0, 0, 1, 2, 2, 2)) as camera:
        camera.wait()
    assert camera.error is None
    assert camera.summary["labels"] == {"blue": 3, "red": 2, "green": 1}
    assert (camera.summary["captured"], camera.summary["classified"], camera.summary["dropped"]) == (6, 6, 0)
    assert camera.of("state")[-1] == {"event": "state", "state": "ended", "reason": "script has no more frames"}
    assert lock.holder(folder) is None


def test_first_event_tells_what_runs(folder):
    with Running(folder) as camera:
        camera.until(lambda: camera.of("figures") and camera.of("frame"))
    first = camera.events[0]
    assert (first["event"], first["variant"], first["source"]) == ("camera", "none-none", "endless")
    assert first["labels"] == ["red", "green", "blue"]
    assert (first["host"], first["port"], first["token"]) == (None, None, None)
    frame = camera.of("frame")[0]
    assert (frame["label"], frame["top"][0][0], frame["latency_ns"] > 0) == ("red", "red", True)
    figures = camera.of("figures")[0]
    assert set(figures["stages_ns"]) == {"capture", "preprocess", "invoke", "smooth", "publish"}
    assert {"temperature_celsius", "throttled", "viewers", "rate_hz", "latency_p90_ns"} <= set(figures)


def test_frames_below_the_threshold_are_unsure(folder):
    with Running(folder, script(0, 1), threshold=1.0) as camera:
        camera.wait()
    assert camera.summary["labels"] == {"unsure": 2}


@pytest.mark.parametrize(
    ("changes", "reason"), [({"frames": 3}, "3 frames are labelled"), ({"duration_seconds": 0.05}, "0.05 s")]
)
def test_camera_ends_after_frames_or_seconds(folder, changes, reason):
    with Running(folder, **changes) as camera:
        camera.wait()
    assert reason in camera.of("state")[-1]["reason"]
    assert "frames" not in changes or sum(camera.summary["labels"].values()) == 3


def test_variant_can_be_chosen(folder):
    with Running(folder, script(0), variant="none-int8") as camera:
        camera.wait()
    assert camera.of("camera")[0]["variant"] == "none-int8"


def test_first_variant_that_loads_is_taken(tmp_path):
    folder = tmp_path / "board"
    add_release(
        folder, {"none-none": replace(good_artefact(), content=b"no model"), "none-int8": good_artefact("int8")}
    )
    with Running(folder, script(0)) as camera:
        camera.wait()
    assert camera.of("camera")[0]["variant"] == "none-int8"


def test_release_without_a_model_that_loads_is_an_error(tmp_path):
    folder = tmp_path / "board"
    add_release(folder, {"none-none": replace(good_artefact(), content=b"no model")})
    with Running(folder, script(0)) as camera:
        camera.wait()
    assert isinstance(camera.error, ModelError)
    assert lock.holder(folder) is None


def test_camera_in_use_is_an_error_and_leaves_nothing_behind(folder):
    source = Endless()
    source.error = CameraBusyError("/dev/video0: a free camera is required")
    with Running(folder, source, view="web") as camera:
        camera.wait()
    assert isinstance(camera.error, CameraBusyError)
    assert (camera.events, lock.holder(folder)) == ([], None)


def test_camera_that_is_lost_shows_and_comes_back(folder):
    with Running(folder) as camera:
        camera.until_state("running")
        camera.source.lost = SimpleNamespace(reason="rpicam-vid has ended")
        camera.until_state("reconnecting")
        assert camera.of("state")[-1]["reason"] == "rpicam-vid has ended"
        camera.source.lost = None
        camera.until_state("running")


def test_camera_program_that_dies_is_started_again_under_the_same_page(folder, tmp_path):
    once = tmp_path / "once"
    body = f"""
        once = pathlib.Path({str(once)!r})
        is_first = not once.exists()
        once.touch()
        for _ in range(5 if is_first else 100000):
            out.write({jpeg(plain(1))!r}); out.flush()
            time.sleep(0.01)
        sys.exit("the sensor does not answer")
        """
    program = fake_rpicam(tmp_path, body)
    source = ReconnectingSource(PiCameraSource(FrameOptions(), program=program))
    with Running(folder, source, view="web") as camera:
        page = Page(camera)
        camera.until_state("reconnecting")
        assert "the sensor does not answer" in camera.of("state")[-1]["reason"]
        assert json.loads(page.get("/health")[2])["state"] == "reconnecting"
        camera.until_state("running")
        camera.until(lambda: camera.session.health()["captured"] > 6)
    assert camera.error is None
    assert set(camera.summary["labels"]) == {"green"}


def test_every_frame_is_a_line_of_the_log_and_an_event_where_asked(folder, tmp_path):
    log = tmp_path / "frames.jsonl"
    with Running(folder, script(*[0, 1, 2] * 20), log=log, log_events=True) as camera:
        camera.wait()
    assert camera.events[0]["event"] == "camera"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(60))
    assert [line["prediction"] for line in lines] == ["red", "green", "blue"] * 20
    assert {line["variant"] for line in lines} == {"none-none"}
    assert [event["number"] for event in camera.of("frame")] == list(range(60))


def test_full_disk_under_the_log_is_told_and_ends_nothing(folder, tmp_path):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with Running(folder, log=full) as camera:
        notice = camera.until(lambda: camera.of("notice"))[0]
        assert "No space left on device" in notice["message"]
        camera.until(lambda: camera.of("figures")[1:])
        assert camera.states() == ["running"]


# --- told to hosts that look for it ---


def test_camera_that_runs_by_itself_is_found_as_long_as_it_lives(folder):
    with Running(folder, view="web", events=False) as camera:
        port = camera.until(lambda: camera.of("camera"))[0]["port"]
        wanted = {"pid": os.getpid(), "port": port, "source": "endless"}
        assert running_camera(folder) == wanted
        with lock.wanted(folder):
            camera.wishes.yield_target()
            camera.until_state("measuring")
            assert running_camera(folder) == wanted, "its page is still there"
            with Running(folder, view="web", events=False) as second:
                second.until_state("measuring")
                assert running_camera(folder) == wanted
        camera.until_state("running")
    assert running_camera(folder) is None
    assert (folder / "camera.json").read_text() == ""


@pytest.mark.parametrize("changes", [{"events": True}, {"token": "correct-horse"}, {"view": "none"}])
def test_camera_that_is_somebody_s_own_is_not_told(folder, changes):
    with Running(folder, **{"view": "web", "events": False, **changes}) as camera:
        camera.until(lambda: camera.of("frame"))
        assert running_camera(folder) is None


def test_camera_that_was_killed_is_not_found(folder):
    (folder / "camera.json").write_text('{"pid": 1, "port": 8800, "source": "endless"}')
    assert running_camera(folder) is None


# --- the page ---


class Page:
    """The page of a running session, as a browser sees it."""

    def __init__(self, camera: Running) -> None:
        from camera_page import Page as Requests

        told = camera.until(lambda: camera.of("camera"))[0]
        self.requests = Requests.__new__(Requests)
        self.requests.server = SimpleNamespace(port=told["port"])
        self.get, self.press, self.open = self.requests.get, self.requests.press, self.requests.open


def test_page_pauses_and_goes_on(folder):
    with Running(folder, view="web") as camera:
        page = Page(camera)
        camera.until_state("running")
        assert page.press("/pause")[0] == 200
        camera.until_state("paused")
        captured = camera.session.health()["captured"]
        assert page.press("/resume")[0] == 200
        camera.until_state("running")
        camera.until(lambda: camera.session.health()["captured"] > captured)


def test_page_shows_the_picture_label_and_model(folder):
    from camera_page import next_news, next_part

    with Running(folder, view="web") as camera:
        page = Page(camera)
        stream, events = page.open("/stream"), page.open("/events")
        assert stream.readline() == b"--liteship-frame\r\n"
        assert next_part(stream).startswith(b"\xff\xd8")
        found = {}
        while {"frame", "figures", "state", "card"} - set(found):
            kind, data = next_news(events)
            found[kind] = json.loads(data)
        assert found["frame"]["label"] == "red"
        card = dict(found["card"])
        assert (card["Variant"], card["Source"], card["Study"]) == ("none-none", "endless", "sample")
        assert card["Accuracy"] == "91.7 % of 12 images, on the computer that made it; not measured here yet"
        assert json.loads(page.get("/health")[2])["viewers"] == 1
        stream.close()
        events.close()
    with pytest.raises(ConnectionRefusedError):
        page.get("/")


def test_page_saves_the_frame_with_its_label(folder):
    with Running(folder, view="web") as camera:
        page = Page(camera)
        camera.until(lambda: camera.of("frame"))
        status, _, body = page.press("/save")
        name = json.loads(body)["saved"]
        assert status == 200
    about = json.loads((folder / "frames" / name).with_suffix(".json").read_text())
    assert (about["label"], about["width"], about["height"], list(about["scores"])) == (
        "red",
        16,
        12,
        ["red", "green", "blue"],
    )
    assert (folder / "frames" / name).read_bytes().startswith(b"\xff\xd8")
    assert camera.summary["saved"] == 1


def test_save_before_the_first_label_is_refused(folder):
    gate = threading.Event()
    source = ScriptedSource([lambda: gate.wait(30) and plain(0)])
    with Running(folder, source, view="web") as camera:
        page = Page(camera)
        status, _, body = page.press("/save")
        gate.set()
    assert (status, json.loads(body)) == (409, {"error": "no frame has a label yet"})


# --- hot swap ---


def test_new_release_takes_over_between_two_frames(folder):
    first = InstalledRelease(folder, (folder / "current").readlink().name)
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        second = add_release(folder, {"none-none": other_model()})
        swapped = camera.until(lambda: camera.of("swapped"))[0]
        assert (swapped["release"], swapped["variant"]) == (second.release_id, "none-none")
        assert swapped["gap_ns"] > 0
        camera.until(lambda: lock.lock_holder(folder) == f"camera-{second.release_id}+{first.release_id}")
        assert camera.session.health()["release"] == second.release_id
    assert camera.states() == ["running", "ended"]
    assert (camera.summary["swaps"], camera.source.opened) == (1, 1)


def test_both_releases_are_in_use_while_one_is_loaded(folder, monkeypatch):
    first = (folder / "current").readlink().name
    held = []
    real = hot_swap.load_classifier

    def load(release, *rest):
        held.append(lock.lock_holder(folder))
        return real(release, *rest)

    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        monkeypatch.setattr(hot_swap, "load_classifier", load)
        second = add_release(folder, {"none-none": other_model()})
        camera.until(lambda: camera.of("swapped"))
    assert held == [f"camera-{first}+{second.release_id}"]


def test_release_that_cannot_be_loaded_leaves_the_old_one_running_and_says_why(folder):
    first = (folder / "current").readlink().name
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        broken = add_release(folder, {"none-none": replace(good_artefact(), content=b"no model")})
        message = camera.until(lambda: camera.of("notice"))[0]["message"]
        assert message.startswith(f"Release {broken.release_id} cannot take over: none-none: ai-edge-litert")
        assert message.endswith(f"{first} goes on.")
        assert lock.lock_holder(folder) == f"camera-{first}"
        third = add_release(folder, {"none-none": other_model(3)})
        assert camera.until(lambda: camera.of("swapped"))[0]["release"] == third.release_id
    assert len(camera.of("notice")) == 1


def test_going_back_to_the_running_release_changes_nothing(folder):
    first = (folder / "current").readlink().name
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        add_release(folder, {"none-none": replace(good_artefact(), content=b"no model")})
        camera.until(lambda: camera.of("notice"))
        activate(folder, first)
        camera.until(lambda: dict(camera.session._feed.after(None, 0)[0])["notice"] == '{"message": null}')
    assert camera.of("swapped") == []


def test_variant_that_was_asked_for_is_the_only_one_that_takes_over(folder):
    with Running(folder, variant="none-int8") as camera:
        camera.until(lambda: camera.of("frame"))
        add_release(folder, {"none-none": other_model()})
        assert "Received: none-int8" in camera.until(lambda: camera.of("notice"))[0]["message"]


def test_variant_that_runs_is_preferred_in_the_next_release(tmp_path):
    folder = tmp_path / "board"
    add_release(folder, {"magnitude50-none": good_artefact()})
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        add_release(folder, {"none-none": other_model(), "magnitude50-none": other_model(2)})
        assert camera.until(lambda: camera.of("swapped"))[0]["variant"] == "magnitude50-none"


def test_release_with_another_runtime_needs_a_new_start(folder, monkeypatch):
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        object.__setattr__(camera.session._loader, "runtime", "tflite-runtime-2.14.0")
        add_release(folder, {"none-none": other_model()})
        message = camera.until(lambda: camera.of("notice"))[0]["message"]
        assert (
            "with runtime tflite-runtime-2.14.0 is required. Received: one with site; start the camera again" in message
        )


# --- bench and camera ---


def test_camera_gives_the_target_to_a_job_and_takes_it_back(folder):
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        with lock.wanted(folder):
            camera.wishes.yield_target()
            camera.until_state("measuring")
            assert lock.holder(folder) is None
            assert camera.source.closed == 1
            captured = camera.session.health()["captured"]
            held = hold_lock(folder, "20261122-090000-job")
        camera.until(lambda: camera.of("state")[-1]["reason"] == "job 20261122-090000-job runs")
        held.close()
        camera.until_state("running")
        camera.until(lambda: camera.source.opened == 2)
        camera.until(lambda: camera.session.health()["captured"] > captured)
    assert lock.holder(folder) is None


def test_camera_that_somebody_takes_meanwhile_is_waited_for(folder):
    inner = Endless()
    with Running(folder, ReconnectingSource(inner), view="web") as camera:
        camera.until(lambda: camera.of("frame"))
        with lock.wanted(folder):
            camera.wishes.yield_target()
            camera.until_state("measuring")
            inner.error = CameraBusyError("/dev/video0: a free camera is required. Received: one in use")
        camera.until_state("reconnecting")
        assert camera.of("state")[-1]["reason"] == str(inner.error)
        assert lock.holder(folder) is not None
        inner.error = None
        camera.until_state("running")
        captured = camera.session.health()["captured"]
        camera.until(lambda: camera.session.health()["captured"] > captured)
    assert camera.error is None


def test_nothing_is_captured_while_a_job_measures(folder):
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        with lock.wanted(folder):
            camera.wishes.yield_target()
            camera.until_state("measuring")
            before = camera.session.health()["captured"]
            figures = len(camera.of("figures"))
            camera.until(lambda: len(camera.of("figures")) > figures)
            assert camera.session.health()["captured"] == before


def test_pause_outlasts_a_measurement(folder):
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        camera.session.pause()
        camera.until_state("paused")
        with lock.wanted(folder):
            camera.wishes.yield_target()
            camera.until_state("measuring")
        camera.until_state("paused")
        assert camera.source.opened == 1
        camera.session.resume()
        camera.until_state("running")


def test_swap_waits_for_the_end_of_a_measurement(folder):
    first = (folder / "current").readlink().name
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        with lock.wanted(folder):
            camera.wishes.yield_target()
            camera.until_state("measuring")
            add_release(folder, {"none-none": other_model()})
            figures = len(camera.of("figures"))
            camera.until(lambda: len(camera.of("figures")) > figures)
            assert camera.session.health()["release"] == first
            assert camera.of("swapped") == []
        swapped = camera.until(lambda: camera.of("swapped"))[0]
    assert swapped["gap_ns"] is None or swapped["gap_ns"] > 0


def test_camera_that_starts_while_a_job_runs_waits_and_says_so(folder):
    held = hold_lock(folder, "20261122-090000-job")
    with Running(folder) as camera:
        camera.until(lambda: len(camera.of("state")) > 2)  # again and again, so that the link is not silent
        assert camera.of("state")[0]["reason"] == "job 20261122-090000-job runs"
        assert camera.of("camera") == []
        held.close()
        camera.until(lambda: camera.of("frame"))


def test_camera_that_waits_for_a_job_can_be_ended(folder):
    with hold_lock(folder, "20261122-090000-job"), Running(folder) as camera:
        camera.until(lambda: camera.of("state"))
        camera.end()
    assert (camera.error, camera.summary["classified"], camera.summary["labels"]) == (None, 0, {})


def test_second_camera_is_refused(folder):
    with Running(folder) as camera:
        camera.until(lambda: camera.of("frame"))
        with Running(folder) as second:
            second.wait()
        assert isinstance(second.error, LockedError)
        assert "a free target is required. Received: one that a camera (process" in str(second.error)
        camera.until(lambda: camera.session.health()["captured"] > 0)
