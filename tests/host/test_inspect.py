from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from rich.cells import cell_len

from liteship.cli import app as cli
from tflite_samples import ESCAPE, color_classifier, unusual_model

Run = Callable[..., tuple[int, str, str]]
FIELDS = {
    *("file", "size_bytes", "gzip_bytes", "sha256", "inputs", "outputs", "parameters", "multiply_adds", "operators"),
    *("minimum_runtime", "missing_operators", "sparsity", "layers", "quantization", "metadata", "stored_sparse"),
    *("float16_accumulation", "graphs", "sparse_verdict"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two files."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colors.tflite").write_bytes(color_classifier(dtype="int8"))
    (tmp_path / "unusual.tflite").write_bytes(unusual_model())
    return tmp_path


@pytest.fixture
def run(run: Run) -> Run:
    """Runs `liteship inspect` in this process: exit code, stdout, stderr."""
    return partial(run, "inspect")


def failure(run: Run, code: int, *arguments: str) -> str:
    """The one line of an expected error."""
    received, _, err = run(*arguments)
    assert received == code
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_table_tells_the_facts(run: Run) -> None:
    code, out, err = run("colors.tflite")
    assert (code, err) == (0, "")
    facts = " ".join(out.split())
    content = Path("colors.tflite").read_bytes()
    for fact in (
        f"size 0.00 MiB ({len(content)} bytes)",
        "input image (1, 8, 8, 3) int8, scale 0.00784314, zero point 0",
        "output quantize (1, 3) int8, scale 0.00390625, zero point -128",
        "parameters 9 ",
        "multiply-adds 9 ",
        "sparsity 66.7 %",
        "quantization float32",
        "minimum runtime not noted",
        "tflite-runtime==2.14.0 has all operators",
        "sparse kernels not eligible (ai-edge-litert 2.3 on aarch64): kernels are stored dense",
        "FULLY_CONNECTED │ 1 │ 1",
        "weights │ 9 │ 66.7 % │ ███████···",
    ):
        assert fact in facts
    assert "gzip" not in facts


@pytest.mark.parametrize("name", ["colors.tflite", "unusual.tflite"])
def test_lines_fit_80_columns_and_hold_no_escapes(name: str, run: Run) -> None:
    _, out, _ = run(name)
    assert max(cell_len(line) for line in out.splitlines()) <= 80
    assert not any(character in out for character in ESCAPE if not character.isprintable())


def test_dynamic_sizes_and_custom_operators_are_shown(run: Run) -> None:
    facts = " ".join(run("unusual.tflite")[1].split())
    assert "input image (?, 4, 4, 2) float32" in facts
    assert "graphs 2; inputs, outputs and multiply-adds are those of the first" in facts
    assert "float16 sums allowed" in facts
    assert facts.count("(no runtime has custom operators)") == 3


def test_long_name_is_cut_in_the_middle_to_one_line(run: Run) -> None:
    (line,) = [line for line in run("unusual.tflite")[1].splitlines() if "grown" in line]
    assert "deep/deep" in line
    assert "…" in line
    assert "60" in line


def test_json_is_one_object_with_all_facts(run: Run) -> None:
    code, out, _ = run("unusual.tflite", "--json", "--gzip")
    told = json.loads(out)
    content = Path("unusual.tflite").read_bytes()
    assert code == 0
    assert set(told) == FIELDS
    assert told["sha256"] == hashlib.sha256(content).hexdigest()
    assert told["gzip_bytes"] == len(gzip.compress(content, 9, mtime=0))
    assert told["inputs"][0]["signature"] == [-1, 4, 4, 2]
    assert {"name": "WHILE", "version": 1, "count": 2} in told["operators"]
    assert set(told["missing_operators"]) == {
        *("ai-edge-litert==2.3.0", "ai-edge-litert==2.1.0", "tflite-runtime==2.14.0")
    }


def test_file_is_not_compressed_unless_asked(run: Run) -> None:
    assert json.loads(run("colors.tflite", "--json")[1])["gzip_bytes"] is None


def test_runtime_that_loads_the_file_ends_with_0(run: Run) -> None:
    code, out, _ = run("colors.tflite", "--for-runtime", "tflite-runtime==2.14")
    assert code == 0
    assert "tflite-runtime==2.14.0" in out
    assert "ai-edge-litert==" not in out


def test_runtime_that_cannot_load_the_file_ends_with_3_after_the_facts(run: Run) -> None:
    code, out, err = run("unusual.tflite", "--for-runtime", "ai-edge-litert", "--json")
    assert code == 3
    assert json.loads(out)["missing_operators"]["ai-edge-litert==2.3.0"]
    assert "operators that ai-edge-litert==2.3.0 has are required. Received: CUSTOM Find" in err


def test_unknown_runtime_ends_with_2(run: Run) -> None:
    assert "tflite-runtime==2.14.0 is required" in failure(run, 2, "colors.tflite", "--for-runtime", "tensorflow")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 9, b"\x89PNG\r\n\x1a\n" * 9], ids=["empty", "zip", "png"])
def test_file_of_another_kind_ends_with_3(content: bytes, folder: Path, run: Run) -> None:
    (folder / "other").write_bytes(content)
    assert f"other: a .tflite file is required. Received: {len(content)} bytes" in failure(run, 3, "other")


def test_truncated_file_ends_with_3(folder: Path, run: Run) -> None:
    (folder / "cut.tflite").write_bytes(color_classifier()[:500])
    assert "cut.tflite: a whole .tflite file is required. Received: a damaged one of 500 bytes" in failure(
        run, 3, "cut.tflite"
    )


@pytest.mark.parametrize("path", ["missing.tflite", ".", "/dev/null", "colors.tflite/inside", "x" * 300])
def test_path_that_is_no_readable_file_ends_with_2(path: str, run: Run) -> None:
    assert "A .tflite file" in failure(run, 2, path)


def test_name_of_the_file_that_is_no_text_is_shown_escaped(folder: Path, run: Run) -> None:
    path = "name\udcff.tflite"
    (folder / path).write_bytes(color_classifier())
    code, out, _ = run(path)
    assert code == 0
    assert "name\\udcff.tflite" in out
    assert json.loads(run(path, "--json")[1])["file"] == "name\\udcff.tflite"


@pytest.mark.parametrize("arguments", [["inspect", "colors.tflite"], ["--help"]])
def test_nothing_is_imported_that_the_verb_does_not_need(arguments: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        "heavy = {'tensorflow', 'tf_keras', 'paramiko', 'scipy', 'cv2', 'asyncssh', 'altair'}\n"
        "atexit.register(lambda: print('imported:', sorted(heavy & set(sys.modules))))\n"
        f"sys.argv = {['liteship', *arguments]}\n"
        "from liteship.cli.app import main\n"
        "main()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("imported: []\n")


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_verb_in_the_list_of_verbs_is_described_by_its_own_first_line(name: str) -> None:
    assert cli.load_verb(name).help.partition("\n")[0] == cli.VERBS[name][1]


def test_misspelt_verb_gets_a_suggestion(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["liteship", "inspekt"])
    with pytest.raises(SystemExit) as info:
        cli.main()
    assert info.value.code == 2
    assert "Did you mean 'inspect'?" in " ".join(capfd.readouterr().err.split())
