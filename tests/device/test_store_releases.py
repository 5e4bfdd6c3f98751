import json
import os
from pathlib import Path

import pytest
from store_samples import SMOKE_BAD, Release, answer, files_of, sha256, temporary_names

from liteship_agent.store.inventory import history, previous_release
from liteship_agent.store.releases import activate


def deploy(folder: Path, *names: str, keep: int = 3) -> list[Release]:
    """One release after the other."""
    releases = [Release(artefact=name.encode() * 100) for name in names]
    for release in releases:
        assert answer("deploy", folder, release.stream(keep=keep))["activated"] is True
    return releases


def rollback(folder: Path, release: str | None = None) -> dict:
    return answer("rollback", folder, json.dumps({"release": release, "time": "later"}).encode() + b"\n")


def verify(folder: Path, release: str | None = None) -> dict:
    return answer("verify", folder, json.dumps({"release": release}).encode() + b"\n")


# --- list and go back ---


def test_releases_are_told_with_the_latest_first(tmp_path):
    first, second = deploy(tmp_path, "first", "second")
    told = answer("releases", tmp_path)["releases"]
    assert [one["release"] for one in told] == [second.id, first.id]
    assert [(one["is_current"], one["is_previous"]) for one in told] == [(True, False), (False, True)]
    assert told[0]["artefacts"] == 1
    assert told[0]["bytes"] == sum(len(blob) for blob in second.blobs[:2])
    assert told[0]["activated"] == "2026-11-22T12:00:00Z"


def test_folder_without_releases_tells_none(tmp_path):
    assert answer("releases", tmp_path / "none")["releases"] == []


def test_release_that_cannot_be_read_is_told_as_damaged(tmp_path):
    first, _ = deploy(tmp_path, "first", "second")
    (tmp_path / "releases" / first.id / "release.json").write_text("{")
    told = {one["release"]: one for one in answer("releases", tmp_path)["releases"]}
    assert "is required to be whole" in told[first.id]["damaged"]


def test_rollback_goes_to_the_release_before_and_again_forward(tmp_path):
    first, second = deploy(tmp_path, "first", "second")
    done = rollback(tmp_path)
    assert (done["release"], done["before"], done["smoke"]["ms"]) == (first.id, second.id, 1.5)
    assert os.readlink(tmp_path / "current") == f"releases/{first.id}"
    assert rollback(tmp_path)["release"] == second.id
    assert [event["action"] for event in history(tmp_path)] == ["activate", "activate", "rollback", "rollback"]
    assert temporary_names(tmp_path) == []


def test_rollback_to_a_named_release(tmp_path):
    releases = deploy(tmp_path, "first", "second", "third")
    assert rollback(tmp_path, releases[0].id)["release"] == releases[0].id


@pytest.mark.parametrize(("release", "reason"), [(None, "An earlier release is required"), ("0" * 12, "0" * 12)])
def test_rollback_to_nothing_is_refused(tmp_path, release, reason):
    (only,) = deploy(tmp_path, "only")
    error = rollback(tmp_path, release)
    assert (error["kind"], reason in error["message"]) == ("missing", True)
    assert answer("probe", tmp_path)["current"] == only.id


def test_rollback_of_nothing_at_all_is_refused_and_creates_nothing(tmp_path):
    assert rollback(tmp_path / "in")["kind"] == "missing"
    assert list(tmp_path.iterdir()) == []


def test_rollback_to_a_damaged_release_is_refused(tmp_path):
    first, second = deploy(tmp_path, "first", "second")
    (tmp_path / "releases" / first.id / "artefacts" / "none-none.tflite").write_bytes(b"broken")
    error = rollback(tmp_path)
    assert error["kind"] == "hash"
    assert f"releases/{first.id}/artefacts/none-none.tflite" in error["message"]
    assert f"Release {second.id} is active as before." in error["hint"]
    assert answer("probe", tmp_path)["current"] == second.id


def test_rollback_to_a_release_whose_smoke_inference_fails_is_refused(tmp_path):
    first, second = Release(), Release(artefact=b"second")
    answer("deploy", tmp_path, first.stream())
    answer("deploy", tmp_path, second.stream())
    bad = Release(SMOKE_BAD).blobs[0]
    content = {**first.content, "files": [{"path": "liteship_agent.zip", "sha256": sha256(bad)}]}
    text = json.dumps(content)
    release_id = sha256(text.encode())[:12]
    folder = tmp_path / "releases" / release_id
    folder.mkdir()
    (folder / "release.json").write_text(text)
    (folder / "liteship_agent.zip").write_bytes(bad)
    assert rollback(tmp_path, release_id)["kind"] == "smoke"
    assert answer("probe", tmp_path)["current"] == second.id


def test_history_goes_on_after_a_line_that_was_cut(tmp_path):
    first, second = deploy(tmp_path, "first", "second")
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"time": "2026", "rel')
    assert previous_release(tmp_path) == first.id
    assert rollback(tmp_path)["release"] == first.id
    assert [event["release"] for event in history(tmp_path)] == [first.id, second.id, first.id]


def test_release_that_was_noted_but_never_switched_to_is_not_the_one_before(tmp_path):
    first, second = deploy(tmp_path, "first", "second")
    (third,) = deploy(tmp_path, "third")
    activate(tmp_path, second.id, "later", "rollback")
    with open(tmp_path / "history.jsonl", "a") as file:  # and then the power was cut
        file.write(json.dumps({"time": "latest", "release": first.id, "action": "activate"}) + "\n")
    assert previous_release(tmp_path) == third.id


# --- collection ---


def test_collection_keeps_the_latest_releases_and_what_they_share(tmp_path):
    first, second, third = deploy(tmp_path, "first", "second", "third", keep=2)
    found = answer("probe", tmp_path)
    assert found["releases"] == sorted([second.id, third.id])
    shared = sha256(first.blobs[0])
    assert set(found["blobs"]) == {shared, sha256(second.blobs[1]), sha256(third.blobs[1])}
    assert found["runtimes"] == ["lock-1"]
    assert temporary_names(tmp_path) == []


def test_collection_keeps_the_release_before_even_when_one_shall_stay(tmp_path):
    _, second, third = deploy(tmp_path, "first", "second", "third", keep=1)
    assert answer("probe", tmp_path)["releases"] == sorted([second.id, third.id])


def test_collection_never_removes_what_a_camera_uses(tmp_path):
    from test_store import hold

    (first,) = deploy(tmp_path, "first", keep=1)
    with hold(tmp_path, f"camera-{first.id}"):
        deploy(tmp_path, "second", "third", "fourth", keep=1)
    assert first.id in answer("probe", tmp_path)["releases"]
    deploy(tmp_path, "fifth", keep=1)
    assert first.id not in answer("probe", tmp_path)["releases"]


def test_collection_keeps_both_releases_of_a_camera_that_changes_between_them(tmp_path):
    from test_store import hold

    first, second = deploy(tmp_path, "first", "second", keep=2)
    with hold(tmp_path, f"camera-{first.id}+{second.id}"):
        deploy(tmp_path, "third", "fourth", "fifth", keep=1)
    assert {first.id, second.id} <= set(answer("probe", tmp_path)["releases"])
    deploy(tmp_path, "sixth", keep=1)
    assert not {first.id, second.id} & set(answer("probe", tmp_path)["releases"])


@pytest.mark.parametrize(("mark", "stays"), [(None, True), ("stop", False), ("report.json", False)])
def test_collection_keeps_what_a_job_needs_that_a_reboot_cut(tmp_path, mark, stays):
    (first,) = deploy(tmp_path, "first")
    job = tmp_path / "jobs" / "job-7"
    job.mkdir(parents=True)
    (job / "job.json").write_text(json.dumps({"release_id": first.id}))
    (job / "journal.jsonl").write_text("")
    if mark is not None:
        (job / mark).touch()
    deploy(tmp_path, "second", "third", "fourth", keep=1)
    assert (first.id in answer("probe", tmp_path)["releases"]) is stays


def test_runtime_and_cache_that_no_release_needs_go(tmp_path):
    old = Release()
    old.content["runtimes"][0]["folder"] = "lock-0"
    old.text = json.dumps(old.content)
    answer("deploy", tmp_path, old.stream())
    (tmp_path / "cache" / "0123456789abcdef-kind-12").mkdir(parents=True)
    (tmp_path / "cache" / "0123456789abcdef-kind-12" / "pixels.npy").write_bytes(bytes(100))
    for name in ("first", "second"):
        done = answer("deploy", tmp_path, Release(artefact=name.encode()).stream(keep=1))
    assert done["collected"]["runtimes"] == ["lock-0"]
    assert not (tmp_path / "runtimes" / "lock-0").exists()
    assert list((tmp_path / "cache").iterdir()) == []


def test_release_that_cannot_be_read_does_not_stop_a_deploy(tmp_path):
    first, _ = deploy(tmp_path, "first", "second")
    (tmp_path / "releases" / first.id / "release.json").unlink()
    deploy(tmp_path, "third")
    assert first.id not in answer("probe", tmp_path)["releases"]


# --- verify and mend ---


def test_verify_reads_each_file_once_and_finds_nothing_wrong(tmp_path):
    first, second = deploy(tmp_path, "first", "second")
    told = verify(tmp_path)
    assert (told["damaged"], sorted(told["releases"]), told["runtimes"]) == (
        [],
        sorted([first.id, second.id]),
        ["lock-1"],
    )
    inodes = {path.stat().st_ino for path in tmp_path.glob("releases/*/**/*") if path.is_file()}
    assert told["files"] == len(inodes) + 1, "and one file of the runtime"
    assert verify(tmp_path, first.id)["releases"] == [first.id]


def test_damaged_artefact_is_named_and_the_next_deploy_mends_it_in_place(tmp_path):
    (release,) = deploy(tmp_path, "first")
    blob = sha256(release.blobs[1])
    (tmp_path / "blobs" / blob).write_bytes(b"bit rot")
    (damaged,) = [one for one in verify(tmp_path)["damaged"] if "artefacts" in one["path"]]
    assert damaged["path"] == f"releases/{release.id}/artefacts/none-none.tflite"
    assert (damaged["required"], damaged["received"]) == (blob, sha256(b"bit rot"))
    assert blob not in answer("probe", tmp_path)["blobs"], "so that a host sends it"
    assert answer("deploy", tmp_path, release.stream())["activated"] is False
    assert (tmp_path / "current" / "artefacts" / "none-none.tflite").read_bytes() == release.blobs[1]
    assert temporary_names(tmp_path) == []


def test_damage_is_mended_in_every_release_that_shares_the_file(tmp_path):
    _, second = deploy(tmp_path, "first", "second")
    agent = sha256(second.blobs[0])
    for path in tmp_path.glob("releases/*/liteship_agent.zip"):
        path.write_bytes(b"bit rot")
    assert len(verify(tmp_path)["damaged"]) == 2
    assert agent not in answer("probe", tmp_path)["blobs"]
    answer("deploy", tmp_path, second.stream())
    assert verify(tmp_path)["damaged"] == []


@pytest.mark.parametrize("damage", ["changed", "missing", "no listing"])
def test_damaged_runtime_is_named_and_replaced(tmp_path, damage):
    (release,) = deploy(tmp_path, "first")
    assert verify(tmp_path)["damaged"] == []
    path = tmp_path / "runtimes" / "lock-1" / ("SHA256SUMS" if damage == "no listing" else "pkg/__init__.py")
    path.write_bytes(b"other") if damage == "changed" else path.unlink()
    assert [one["path"] for one in verify(tmp_path)["damaged"]] == [str(path.relative_to(tmp_path))]
    assert answer("probe", tmp_path)["runtimes"] == []
    answer("deploy", tmp_path, release.stream())
    assert verify(tmp_path)["damaged"] == []
    assert (tmp_path / "runtimes" / "lock-1" / "pkg" / "__init__.py").read_bytes() == b"VALUE = 1\n"
    assert answer("probe", tmp_path)["runtimes"] == ["lock-1"]
    assert temporary_names(tmp_path) == []
    assert files_of(tmp_path / "runtimes") == {
        name for name in files_of(tmp_path / "runtimes") if name.startswith("lock-1/")
    }


def test_verify_of_an_unknown_release_is_refused(tmp_path):
    deploy(tmp_path, "first")
    assert verify(tmp_path, "0" * 12)["kind"] == "missing"
