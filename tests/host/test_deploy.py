from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deploy_samples import make_deployment
from report_samples import make_entry, make_manifest, sha
from rich.console import Console

import liteship_agent
from liteship import deploy as deploy_module
from liteship.deploy import Blob, Deployment, agent_archive, agent_command, deploy, refuse_artefacts
from liteship.errors import ConversionError, DataError, LiteshipError
from liteship.progress import Reporter
from liteship.provision import Interpreter, PackedRuntime, Runtime
from liteship_agent.manifest import Manifest, Operator
from liteship_agent.records import loads
from liteship_agent.release import Release

NEW_DENSE = (Operator("CONV_2D", 1, 9), Operator("FULLY_CONNECTED", 12, 1))


def test_agent_archive_is_the_same_every_time() -> None:
    assert agent_archive() == agent_archive()


def test_agent_archive_has_every_module_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as archive:
        names = archive.namelist()
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    package = Path(liteship_agent.__file__).parent
    assert names == ["__main__.py", *sorted(f"liteship_agent/{path.name}" for path in package.glob("*.py"))]


@pytest.mark.parametrize("arguments", [["--version"], ["--runtime", "/nowhere", "--version"]])
def test_agent_archive_runs_with_nothing_but_the_standard_library(arguments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "liteship_agent.zip"
    path.write_bytes(agent_archive())
    command = [sys.executable, "-I", "-S", "-B", str(path), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, liteship_agent.__version__, "")


def test_artefact_that_the_runtime_cannot_load_is_refused_with_operator_and_remedy() -> None:
    manifest = make_manifest(entries=(make_entry("none-none"), make_entry("none-dynamic", operators=NEW_DENSE)))
    assert refuse_artefacts(manifest, "tflite-runtime==2.14.0") == {
        sha("none-dynamic"): "tflite-runtime==2.14.0 lacks FULLY_CONNECTED version 12 (the runtime has 10); "
        "take a newer runtime (RUNTIME=auto) or another quantization"
    }
    assert refuse_artefacts(manifest, "ai-edge-litert==2.3.0") == {}


def test_study_of_equal_files_that_cannot_be_loaded_is_refused_too() -> None:
    dynamic = (Operator("FULLY_CONNECTED", 12, 1),)
    entries = tuple(make_entry(name, sha256=sha("same"), operators=dynamic) for name in ("none-none", "none-dynamic"))
    with pytest.raises(ConversionError, match=r"tflite-runtime==2\.14\.0 can load"):
        refuse_artefacts(make_manifest(entries=entries), "tflite-runtime==2.14.0")


def test_study_without_a_loadable_artefact_is_refused() -> None:
    manifest = make_manifest(entries=(make_entry("none-dynamic", operators=NEW_DENSE),))
    with pytest.raises(ConversionError, match="FULLY_CONNECTED version 12") as info:
        refuse_artefacts(manifest, "tflite-runtime==2.14.0")
    assert info.value.exit_code == 3


def test_blob_is_read_from_any_offset(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    path = tmp_path / "blob"
    path.write_bytes(content)
    in_memory = Blob.of_content(content)
    on_disk = Blob(in_memory.sha256, len(content), path)
    for offset in (0, 1, 1 << 20, len(content)):
        assert b"".join(in_memory.read(offset)) == content[offset:]
        assert b"".join(on_disk.read(offset)) == content[offset:]


@pytest.mark.parametrize(("name", "error"), [("none-int8.tflite", ConversionError), ("validation.tar", DataError)])
@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_file_of_the_study_that_is_damaged_is_named_before_it_is_sent(
    tmp_path: Path, name: str, error: type[LiteshipError], damage: str
) -> None:
    path = tmp_path / name
    blob = Blob(sha("whole"), 5, path)
    if damage == "truncated":
        path.write_bytes(b"who")
    with pytest.raises(error, match=name) as raised:
        blob.check()
    assert raised.value.exit_code == (3 if name.endswith(".tflite") else 2)
    assert "Run the recipe again" in raised.value.hint


def test_whole_file_of_the_study_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.tflite"
    path.write_bytes(b"whole")
    Blob(hashlib.sha256(b"whole").hexdigest(), 5, path).check()


# --- several runtimes ---


class Store:
    """A target's store that takes whatever comes.

    Attributes:
        blobs: Content by sha256; those of runtimes are gone once they are unpacked, as on a target.
        header: Of the last deploy.
    """

    def __init__(self) -> None:
        self.target = SimpleNamespace(name="pi")
        self.python = "'python 3'"
        self.round_trips = 0
        self.blobs: dict[str, bytes] = {}
        self.runtimes: list[str] = []
        self.header: dict[str, Any] = {}
        self.current = ""

    def store(self, verb: str, source: Iterable[bytes] = (), **options: Any) -> dict[str, Any]:
        self.round_trips += 1
        if verb == "probe":
            return {
                "python_version": "3.11.2",
                "machine": "aarch64",
                "word_bits": 64,
                "libc": ["glibc", "2.36"],
                "soabi": "cpython-311-aarch64-linux-gnu",
                "symbols": {"GLIBC": "2.36", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"},
                "folder": "/home/pi/lite ship",
                "blobs": {name: len(content) for name, content in self.blobs.items()},
                "partial": {},
                "runtimes": self.runtimes,
            }
        line, _, data = b"".join(source).partition(b"\n")
        self.header = json.loads(line)
        for blob in self.header["blobs"]:
            self.blobs[blob["sha256"]], data = data[: blob["size"]], data[blob["size"] :]
        for runtime in self.release.runtimes:
            self.runtimes.append(runtime.folder)
            self.blobs.pop(runtime.sha256, None)
        was_current, self.current = self.current == self.release.release_id(), self.release.release_id()
        return {"release": self.current, "activated": not was_current, "smoke": None}

    @property
    def release(self) -> Release:
        return loads(Release, self.header["release_bytes"].encode(), "header")


def fake_pack(runtime: Runtime, interpreter: Interpreter, cache: Path) -> PackedRuntime:
    content = runtime.requirement.encode()
    path = cache / runtime.requirement
    path.write_bytes(content)
    folder = f"{runtime.name}-{runtime.version}"
    return PackedRuntime(runtime, folder, path, hashlib.sha256(content).hexdigest(), 1000)


@pytest.fixture
def manifest() -> Manifest:
    """Of three artefacts one is not for tflite-runtime."""
    dynamic = make_entry("none-dynamic", operators=NEW_DENSE)
    return make_manifest(entries=(make_entry("none-none"), dynamic, make_entry("none-int8")), failures=())


@pytest.fixture
def put(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Deployment]:
    """Deploys small files in the place of that study's, with runtimes that are not really assembled."""
    monkeypatch.setattr(deploy_module, "pack_runtime", fake_pack)

    def files(study: Path, manifest: Manifest, entries: list[Any]) -> dict[str, Blob]:
        return {f"artefacts/{entry.variant}.tflite": Blob.of_content(entry.variant.encode()) for entry in entries}

    monkeypatch.setattr(deploy_module, "_release_files", files)

    def run(store: Any, *runtimes: str, of: Manifest = manifest, say: io.StringIO | None = None) -> Deployment:
        return deploy(store, tmp_path, of, runtimes, tmp_path, Reporter(Console(file=say or io.StringIO(), width=300)))

    return run


def sent_runtimes(store: Store) -> list[str]:
    packed = {runtime.sha256: runtime.folder for runtime in store.release.runtimes}
    return [packed[blob["sha256"]] for blob in store.header["blobs"] if blob["sha256"] in packed]


def test_each_runtime_is_sent_once_ever(put: Callable[..., Deployment]) -> None:
    store = Store()
    first = put(store, "ai-edge-litert")
    assert sent_runtimes(store) == ["ai-edge-litert-2.3.0"]
    assert store.header["unpacked_bytes"] == 1000
    second = put(store, "tflite-runtime", "ai-edge-litert")
    assert sent_runtimes(store) == ["tflite-runtime-2.14.0"]
    assert store.header["unpacked_bytes"] == 1000
    assert first.runtimes == {"ai-edge-litert-2.3.0": "ai-edge-litert==2.3.0"}
    assert list(second.runtimes.items()) == [
        ("tflite-runtime-2.14.0", "tflite-runtime==2.14.0"),
        ("ai-edge-litert-2.3.0", "ai-edge-litert==2.3.0"),
    ]
    assert (second.blobs_sent, second.activated, second.machine) == (1, True, "aarch64")


def test_release_is_the_same_in_whatever_order_runtimes_are_named(put: Callable[..., Deployment]) -> None:
    store = Store()
    one, other = put(store, "tflite-runtime", "ai-edge-litert"), put(store, "ai-edge-litert", "tflite-runtime", "auto")
    assert one.release == other.release
    assert (other.blobs_sent, other.activated) == (0, False)
    assert set(one.runtimes) == set(other.runtimes)
    assert len(other.runtimes) == 2


def test_artefact_that_one_runtime_loads_is_sent_and_refused_for_the_other(put: Callable[..., Deployment]) -> None:
    store, heard = Store(), io.StringIO()
    done = put(store, "ai-edge-litert", "tflite-runtime", say=heard)
    assert done.artefacts == (sha("none-none"), sha("none-dynamic"), sha("none-int8"))
    assert {file.path for file in store.release.files} == {
        f"artefacts/{name}.tflite" for name in ("none-none", "none-dynamic", "none-int8")
    }
    assert done.refused["ai-edge-litert-2.3.0"] == {}
    assert list(done.refused["tflite-runtime-2.14.0"]) == [sha("none-dynamic")]
    refused = {runtime.folder: runtime.refused for runtime in store.release.runtimes}
    assert refused == {"ai-edge-litert-2.3.0": (), "tflite-runtime-2.14.0": (sha("none-dynamic"),)}
    assert heard.getvalue().startswith("none-dynamic: tflite-runtime==2.14.0 lacks FULLY_CONNECTED version 12")


def test_artefact_that_no_runtime_loads_is_not_sent(put: Callable[..., Deployment]) -> None:
    store = Store()
    done = put(store, "tflite-runtime")
    assert done.artefacts == (sha("none-none"), sha("none-int8"))
    assert [file.path for file in store.release.files] == ["artefacts/none-none.tflite", "artefacts/none-int8.tflite"]
    assert list(done.refused["tflite-runtime-2.14.0"]) == [sha("none-dynamic")]
    assert store.release.runtimes[0].refused == ()  # of what was sent, it loads all


def test_runtime_that_loads_nothing_is_an_error_though_another_loads_all(
    put: Callable[..., Deployment], manifest: Manifest
) -> None:
    only_new = replace(manifest, entries=(manifest.entries[1],))
    store = Store()
    with pytest.raises(ConversionError, match="FULLY_CONNECTED version 12"):
        put(store, "ai-edge-litert", "tflite-runtime", of=only_new)
    assert store.header == {}


def test_deployment_as_json_has_its_known_fields(put: Callable[..., Deployment]) -> None:
    found = put(Store(), "auto").to_json()
    names = ("release", "activated", "bytes_sent", "bytes_skipped", "blobs_sent", "round_trips")
    assert [type(found[name]) for name in names] == [str, bool, int, int, int, int]
    assert json.loads(json.dumps(found))["runtimes"] == {"ai-edge-litert-2.3.0": "ai-edge-litert==2.3.0"}


def test_agent_is_called_with_a_runtime_where_it_needs_one(manifest: Manifest) -> None:
    deployment = make_deployment(manifest, folder="/home/pi/lite ship", release="0123456789ab")
    agent = "'/home/pi/lite ship/releases/0123456789ab/liteship_agent.zip'"
    store: Any = Store()
    assert agent_command(store, deployment, "stop", "--job", "x y") == (f"'python 3' -I -S -B {agent} stop --job 'x y'")
    assert agent_command(store, deployment, "explain", runtime="site") == (
        f"'python 3' -I -S -B {agent} --runtime '/home/pi/lite ship/runtimes/site' explain"
    )
