from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from report_samples import make_entry, make_manifest, sha

import liteship_agent
from liteship.errors import ConversionError, DataError, LiteshipError
from liteship.payload import Blob, agent_archive, refuse_artefacts
from liteship_agent.manifest import Operator

NEW_DENSE = (Operator("CONV_2D", 1, 9), Operator("FULLY_CONNECTED", 12, 1))


def test_agent_archive_is_the_same_every_time() -> None:
    assert agent_archive() == agent_archive()


def test_agent_archive_has_every_module_and_page_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(agent_archive())) as archive:
        names = archive.namelist()
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    place = Path(liteship_agent.__file__).parents[1]
    sources = [path for kind in ("py", "html", "css", "js") for path in place.glob(f"liteship_agent/**/*.{kind}")]
    assert names == ["__main__.py", *sorted(path.relative_to(place).as_posix() for path in sources)]
    assert {"liteship_agent/camera/web/page.html", "liteship_agent/store/inventory.py"} < set(names)


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
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
@pytest.mark.parametrize("offset", [0, 100])
def test_file_of_the_study_that_is_damaged_is_named_before_its_end_is_sent(
    tmp_path: Path, name: str, error: type[LiteshipError], damage: str, offset: int
) -> None:
    path, content = tmp_path / name, bytes(3 << 20)
    pieces: list[bytes] = []
    blob = Blob(hashlib.sha256(content).hexdigest(), len(content), path)
    if damage != "missing":
        path.write_bytes(content[:-1] + (b"x" if damage == "changed" else b""))
    with pytest.raises(error, match=name) as raised:
        pieces.extend(blob.read(offset))
    assert offset + sum(map(len, pieces)) < len(content)
    assert raised.value.exit_code == (3 if name.endswith(".tflite") else 2)
    assert "Run the recipe again" in raised.value.hint
