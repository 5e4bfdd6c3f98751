from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from release_samples import RUNTIME, good_artefact, install, sha

from liteship_agent.errors import RecordError
from liteship_agent.records import read_record
from liteship_agent.release import InstalledRelease, Release, ReleaseFile, artefact_path


@pytest.fixture
def release(tmp_path):
    return install(tmp_path, {"none-none": good_artefact(), "none-int8": good_artefact("int8")})


def test_id_is_the_beginning_of_the_sha256_of_release_json(release):
    data = (release.path / "release.json").read_bytes()

    assert release.release_id == hashlib.sha256(data).hexdigest()[:12]
    assert read_record(Release, release.path / "release.json").release_id() == release.release_id


def test_id_depends_on_every_file(release):
    record = release.record()
    last = record.files[-1]

    changed = replace(record, files=(*record.files[:-1], ReleaseFile(last.path, sha("other"))))

    assert changed.release_id() != record.release_id()


def test_artefact_is_the_bytes_of_its_entry(release):
    for entry in release.manifest().entries:
        assert sha(release.artefact(entry)) == entry.sha256


def test_artefact_with_other_bytes_is_refused(release):
    entry = release.manifest().entries[0]
    path = release.path / artefact_path("none-none")
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(RecordError, match=f"none-none.tflite: content with sha256 {entry.sha256} is required"):
        release.artefact(entry)


def test_runtime_is_its_folder_on_the_target(release, tmp_path):
    assert release.runtime(RUNTIME) == tmp_path / "runtimes" / RUNTIME


@pytest.mark.parametrize("name", ["other", "", "..", "site/../site"])
def test_runtime_that_the_release_does_not_have_is_refused(release, name):
    with pytest.raises(RecordError, match=rf"runtimes: runtime {name} is required\. Received: {RUNTIME}"):
        release.runtime(name)


def test_release_that_is_not_there_is_a_record_error(tmp_path):
    with pytest.raises(RecordError, match="a readable file is required"):
        InstalledRelease(tmp_path, "0123456789ab").record()
