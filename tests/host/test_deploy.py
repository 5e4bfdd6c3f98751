from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deploy_samples import make_deployment
from report_samples import make_entry, make_manifest, sha
from rich.console import Console

from liteship import deploy as deploy_module
from liteship import payload as payload_module
from liteship.deploy import Deployment, agent_command, deploy, plan_deploy
from liteship.errors import ConversionError
from liteship.payload import Blob
from liteship.progress import Reporter
from liteship.provision import Interpreter, PackedRuntime, Runtime
from liteship_agent.manifest import Manifest, Operator
from liteship_agent.records import dumps, loads
from liteship_agent.release import Release
from liteship_agent.store.events import INVENTORY
from liteship_agent.store.transfer import read_header

NEW_DENSE = (Operator("CONV_2D", 1, 9), Operator("FULLY_CONNECTED", 12, 1))


# --- several runtimes ---


class Store:
    """A target's store that takes whatever comes.

    Attributes:
        blobs: Content by sha256; those of runtimes are gone once they are unpacked, as on a target.
        partial: Bytes of blobs that a cut transfer left, by sha256.
        header: Of the last deploy or plan.
        ciphers: CPU flags that a cipher was chosen for.
    """

    def __init__(self) -> None:
        self.target = SimpleNamespace(name="pi")
        self.python = "'python 3'"
        self.round_trips = 0
        self.blobs: dict[str, bytes] = {}
        self.runtimes: list[str] = []
        self.header: dict[str, Any] = {}
        self.current: str | None = None
        self.partial: dict[str, int] = {}
        self.ciphers: list[Any] = []

    def probe(self) -> dict[str, Any]:
        return {
            "python_version": "3.11.2",
            "machine": "aarch64",
            "word_bits": 64,
            "libc": ["glibc", "2.36"],
            "soabi": "cpython-311-aarch64-linux-gnu",
            "symbols": {"GLIBC": "2.36", "GLIBCXX": "3.4.30", "CXXABI": "1.3.13", "GCC": "12.0.0"},
            "cpu_flags": ["fp", "asimd"],
            "free_bytes": 1 << 33,
            "folder": "/home/pi/lite ship",
            "blobs": {name: len(content) for name, content in self.blobs.items()},
            "partial": self.partial,
            "runtimes": self.runtimes,
            "current": self.current,
        }

    def store(self, verb: str, source: Iterable[bytes] = (), **options: Any) -> dict[str, Any]:
        self.round_trips += 1
        if verb == "deploy":
            options["on_event"]({"event": INVENTORY, **self.probe()})
        stream = io.BytesIO(b"".join(source))
        header = read_header(stream)
        if header is None:
            return {}
        self.header = header
        collected = {"releases": [], "blobs": [], "runtimes": [], "caches": [], "bytes": 0}
        if verb == "plan":
            return {"collect": collected}
        for sha256, text in self.header["texts"].items():
            self.blobs[sha256] = text.encode()
        for blob in self.header["blobs"]:
            self.blobs[blob["sha256"]] = bytes(blob["offset"]) + stream.read(blob["size"] - blob["offset"])
        for runtime in self.release.runtimes:
            self.runtimes.append(runtime.folder)
            self.blobs.pop(runtime.sha256, None)
        was_current, self.current = self.current == self.release.release_id(), self.release.release_id()
        return {"release": self.current, "activated": not was_current, "smoke": None, "collected": collected}

    def prefer_cipher_for(self, cpu_flags: Any) -> str:
        self.ciphers.append(cpu_flags)
        return ""

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
        made = {f"artefacts/{entry.variant}.tflite": Blob.of_content(entry.variant.encode()) for entry in entries}
        return {**made, "manifest.json": Blob.of_content(dumps(manifest), is_text=True)}

    monkeypatch.setattr(payload_module, "_files", files)

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
        "manifest.json",
        *(f"artefacts/{name}.tflite" for name in ("none-none", "none-dynamic", "none-int8")),
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
    artefacts = [file.path for file in store.release.files if file.path != "manifest.json"]
    assert artefacts == ["artefacts/none-none.tflite", "artefacts/none-int8.tflite"]
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


def test_release_that_is_active_costs_one_round_trip_and_no_byte(put: Callable[..., Deployment]) -> None:
    store = Store()
    first = put(store, "auto")
    trips = store.round_trips
    again = put(store, "auto")
    assert (again.release, again.activated, again.bytes_sent, again.blobs_sent) == (first.release, False, 0, 0)
    assert again.bytes_skipped == sum(len(content) for content in store.blobs.values())
    assert store.round_trips == trips + 1


def test_one_changed_model_of_twelve_sends_it_and_little_more(put: Callable[..., Deployment]) -> None:
    store, layers = Store(), make_manifest().entries[0].sparsity_by_layer * 30
    entries = [make_entry(f"magnitude{number}-none", sparsity_by_layer=layers) for number in range(12)]
    put(store, "auto", of=make_manifest(entries=tuple(entries), failures=()))
    entries[5] = make_entry("magnitude99-none", sparsity_by_layer=layers)
    other = make_manifest(entries=tuple(entries), failures=())
    assert len(dumps(other)) > 30_000
    done = put(store, "auto", of=other)
    assert done.blobs_sent == 2, "the model and the manifest"
    assert done.bytes_sent < len("magnitude99-none") + 20_000


def test_blob_goes_on_at_the_length_that_a_cut_transfer_reached(put: Callable[..., Deployment]) -> None:
    store, content = Store(), b"none-int8"
    store.partial = {hashlib.sha256(content).hexdigest(): 4}
    done = put(store, "auto")
    offsets = {blob["sha256"]: blob["offset"] for blob in store.header["blobs"]}
    assert offsets[hashlib.sha256(content).hexdigest()] == 4
    assert sum(offsets.values()) == 4
    assert done.bytes_skipped == 4


def test_cipher_is_chosen_for_much_and_not_for_little(
    put: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    put(store, "ai-edge-litert")
    assert store.ciphers == []
    monkeypatch.setattr(deploy_module, "_BULK_BYTES", 3)
    put(store, "tflite-runtime")
    assert store.ciphers == [["fp", "asimd"]]


def test_plan_tells_what_a_deploy_does_and_does_nothing(
    put: Callable[..., Deployment], manifest: Manifest, tmp_path: Path
) -> None:
    store, silent = Store(), Reporter(Console(file=io.StringIO()))
    planned = plan_deploy(store, tmp_path, manifest, ["auto"], tmp_path, silent)  # type: ignore[arg-type]
    assert (planned.current, store.blobs, store.runtimes) == (None, {}, [])
    assert {item.path for item in planned.travel} == {
        "manifest.json",
        "runtimes/ai-edge-litert-2.3.0",
        *(f"artefacts/none-{name}.tflite" for name in ("none", "dynamic", "int8")),
    }
    assert planned.unpack == {"ai-edge-litert-2.3.0": 1000}
    done = put(store, "auto")
    assert planned.release == done.release
    assert planned.bytes_to_send == pytest.approx(done.bytes_sent, abs=16), "but for the time in the header"
    again = plan_deploy(store, tmp_path, manifest, ["auto"], tmp_path, silent)  # type: ignore[arg-type]
    assert (again.travel, again.bytes_to_send, again.unpack, again.current) == ((), 0, {}, done.release)
    assert json.loads(json.dumps(again.to_json()))["release"] == done.release


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
