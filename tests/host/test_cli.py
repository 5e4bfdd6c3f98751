from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from report_samples import make_manifest, make_report

import liteship
from liteship.cli import app as cli
from liteship.cli import doctor
from liteship.cli import run as run_module
from liteship.data import Dataset
from liteship.doctor import Check
from liteship.errors import ConversionError, DataError, LinkError
from liteship.manifests import keep_manifest
from liteship_agent.errors import ModelError
from liteship_agent.manifest import Manifest
from liteship_agent.records import write_record
from liteship_agent.report import Report

RECIPE = """
schema_version = 1
name = "pets"
[data]
source = "pets"
[model]
architecture = "mobilenet_v2"
[train]
epochs = 2
[[compress]]
pruning = "magnitude"
sparsity = [0.5]
quantization = ["none"]
"""
VERBS = (
    "run",
    "deploy",
    "bench",
    "camera",
    "report",
    "reports",
    "repeat",
    "doctor",
    "targets list",
    "targets add",
    "targets trust",
    "data fetch",
    "service install",
    "service status",
    "service logs",
    "service remove",
)
START = "from liteship.cli.app import main; main()"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a home without ~/.ssh/config."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("LITESHIP_DATA", "LITESHIP_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def pets(folder: Path) -> Path:
    """Two classes of six JPEG files, and the recipe for them as pets.toml."""
    random = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / "pets" / name).mkdir(parents=True)
        for index in range(6):
            _, data = cv2.imencode(".jpg", random.integers(0, 256, (40, 40, 3), np.uint8))
            (folder / f"pets/{name}/{index}.jpg").write_bytes(data.tobytes())
    (folder / "pets.toml").write_text(RECIPE)
    return folder / "pets"


@pytest.fixture
def study(folder: Path) -> Path:
    """A study without a report."""
    write_record(make_manifest(), folder / "models/pets/manifest.json")
    (folder / "models/latest").symlink_to("pets")
    return folder / "models/pets"


def build_with(monkeypatch: pytest.MonkeyPatch, build_study: Callable[..., Any]) -> None:
    """Put something else in the place of the step that needs TensorFlow."""
    monkeypatch.setitem(sys.modules, "liteship.study.build", SimpleNamespace(build_study=build_study))


def only_error(result: tuple[int, str, str], code: int) -> str:
    """The one line of an expected error."""
    received, out, err = result
    assert (received, out) == (code, ""), err
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("error: ")
    return lines[0]


# --- data ---


def test_missing_folder_is_refused(run: Run, pets: Path) -> None:
    assert "nowhere: a folder of images is required" in only_error(run("run", "pets.toml", "--data", "nowhere"), 2)


def test_file_instead_of_a_folder_is_refused(run: Run, pets: Path) -> None:
    assert "Received: a file" in only_error(run("run", "pets.toml", "--data", "pets.toml"), 2)


def test_empty_class_is_refused(run: Run, pets: Path) -> None:
    (pets / "birds").mkdir()
    error = only_error(run("run", "pets.toml"), 2)
    assert "pets/birds: an image (jpg, jpeg, png, webp) is required in every class. Received: none" in error


def test_one_class_is_refused(run: Run, pets: Path) -> None:
    (pets / "dogs").rename(pets.parent / "elsewhere")
    assert "two or more folders, one a class, are required. Received: one class, cats" in only_error(
        run("run", "pets.toml"), 2
    )


@pytest.fixture
def corrupt(pets: Path) -> Path:
    """A truncated JPEG and a text file named .jpg among the images."""
    whole = (pets / "cats/0.jpg").read_bytes()
    (pets / "cats/cut.jpg").write_bytes(whole[: len(whole) // 2])
    (pets / "dogs/note.jpg").write_text("not an image\n")
    return pets


def test_corrupt_images_are_refused_by_name(run: Run, corrupt: Path) -> None:
    error = only_error(run("run", "pets.toml"), 2)
    assert "2 corrupt: " in error
    assert "cats/cut.jpg" in error
    assert "truncated file" in error
    assert "dogs/note.jpg" in error
    assert error.endswith("--skip-corrupt.")


def test_corrupt_images_are_left_out_on_request_and_named(
    run: Run, corrupt: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Dataset] = []

    def build_study(recipe: object, dataset: Dataset, models: Path, say: object, *more: object) -> None:
        used.append(dataset)
        raise ConversionError("enough for a test")

    build_with(monkeypatch, build_study)
    code, _, err = run("run", "pets.toml", "--skip-corrupt")
    assert code == 3
    assert sorted(file.path.name for file, _ in used[0].skipped) == ["cut.jpg", "note.jpg"]
    assert len(used[0].train) + len(used[0].validation) == 12
    assert "skipped pets/cats/cut.jpg: " in err
    assert "skipped pets/dogs/note.jpg: " in err


def test_class_of_corrupt_images_only_is_refused_even_so(run: Run, pets: Path) -> None:
    for path in (pets / "dogs").iterdir():
        path.write_text("not an image\n")
    error = only_error(run("run", "pets.toml", "--skip-corrupt"), 2)
    assert "Received: none in train of dogs" in error


def test_limit_below_the_number_of_classes_is_refused(run: Run, pets: Path) -> None:
    assert "one image or more for each of 2 classes" in only_error(run("run", "pets.toml", "--limit", "1"), 2)


def test_bad_data_are_refused_before_tensorflow_is_imported(corrupt: Path, folder: Path) -> None:
    program = (
        "import sys; sys.argv = ['liteship', 'run', 'pets.toml']\n"
        "from liteship.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print('tensorflow' in sys.modules)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False)
    assert (ended.returncode, ended.stdout) == (2, "False\n")
    assert ended.stderr.startswith("error: pets: images that can be decoded are required")
    assert not (folder / "models").exists()


# --- recipes ---


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("epochs = 2", "epoch = 2", ["train.epoch: a known key is required", 'Did you mean "epochs"?']),
        ("sparsity = [0.5]", "sparsity = [1.5]", ["compress[0].sparsity", "from 0 to 1", "Received: 1.5"]),
        ("sparsity = [0.5]", "sparsity = [-0.5]", ["compress[0].sparsity", "from 0 to 1", "Received: -0.5"]),
        (
            "mobilenet_v2",
            "resnet",
            ["model.architecture", "mobilenet_v2_sparse or vgg16", 'Received: "resnet"'],
        ),
        ("[train]", "[train", ["pets.toml: valid TOML is required"]),
    ],
)
def test_wrong_recipe_is_refused(old: str, new: str, words: list[str], run: Run, pets: Path) -> None:
    path = pets.with_suffix(".toml")
    path.write_text(RECIPE.replace(old, new))
    error = only_error(run("run", "pets.toml"), 2)
    for word in words:
        assert word in error


def test_missing_recipe_is_refused(run: Run) -> None:
    assert "nowhere.toml: a readable recipe is required" in only_error(run("run", "nowhere.toml"), 2)


# --- targets, studies, reports ---


@pytest.mark.parametrize("verb", ["run", "deploy", "bench"])
def test_unknown_target_without_a_terminal_is_refused_with_the_line_that_adds_it(
    verb: str, run: Run, pets: Path, study: Path
) -> None:
    recipe = ["pets.toml"] if verb == "run" else []
    assert only_error(run(verb, *recipe, "--target", "pi"), 2) == (
        "error: A known target is required (loopback, emulated). Received: pi. "
        "liteship targets add pi --host raspberrypi.local --user pi"
    )


def test_added_target_is_listed(run: Run) -> None:
    fingerprint = "SHA256:" + "A" * 43
    options = ["--host", "10.0.0.7", "--user", "pi", "--host-key-sha256", fingerprint]
    assert run("targets", "add", "pi", *options)[0] == 0
    code, out, _ = run("targets", "list", "--json")
    assert code == 0
    assert [target["name"] for target in json.loads(out)] == ["loopback", "emulated", "pi"]
    code, out, _ = run("targets", "list")
    assert code == 0
    assert "pi@10.0.0.7:22" in out
    assert "Did you mean pi?" in only_error(run("targets", "trust", "pii"), 2)


@pytest.mark.parametrize("verb", ["deploy", "bench", "report"])
def test_unknown_study_is_refused_with_the_known_ones(verb: str, run: Run, study: Path) -> None:
    error = only_error(run(verb, "--study", "dogs"), 2)
    assert error == "error: A study under models/ is required. Received: dogs. There are: pets."


def test_without_any_study_there_is_nothing_to_report(run: Run) -> None:
    assert "Received: none. Make one: liteship run" in only_error(run("report"), 2)


@pytest.fixture
def reported(study: Path) -> Path:
    """A study with one report of target pi."""
    write_record(make_report(make_manifest()), study / "reports/pi/20261122-101500-0123.json")
    return study


def test_report_whose_manifest_cannot_be_read_is_refused(run: Run, reported: Path) -> None:
    (reported / "manifest.json").write_text('{"schema_version": 1')
    error = only_error(run("report"), 6)
    assert "manifest.json" in error
    assert error.endswith("Measure again.")


def test_report_is_read_with_the_manifest_that_was_kept_for_it(run: Run, reported: Path) -> None:
    keep_manifest(reported, make_manifest())
    (reported / "manifest.json").write_text('{"schema_version": 1')
    assert run("report")[0] == 0


def test_missing_report_is_refused(run: Run, study: Path) -> None:
    error = only_error(run("report", "--target", "loopback"), 6)
    assert "A report of study pets on loopback is required. Received: none." in error
    assert error.endswith("Measure first: liteship bench --target loopback")


def test_report_of_an_unknown_target_is_refused(run: Run, reported: Path) -> None:
    error = only_error(run("report", "--target", "pii"), 2)
    assert "A known target is required (loopback, emulated, pi). Received: pii. Did you mean pi?" in error
    assert error.endswith("liteship targets add pii --host raspberrypi.local --user pi")
    assert "liteship targets add pii" in only_error(run("report", "--job", "pii:latest"), 2)


def test_known_target_without_a_report_is_told_to_be_measured(run: Run, reported: Path, folder: Path) -> None:
    (folder / "targets.toml").write_text('[targets.pi4]\nhost = "pi4"\n')
    error = only_error(run("report", "--target", "pi4"), 6)
    assert error.endswith("Measure first: liteship bench --target pi4")


def test_report_is_printed_in_every_form(run: Run, reported: Path) -> None:
    outputs = {}
    for form in ("terminal", "markdown", "csv", "json"):
        code, outputs[form], err = run("report", "--target", "pi", "--format", form)
        assert (code, err) == (0, "")
        assert "magnitude50-int8" in outputs[form]
    assert json.loads(outputs["json"])
    assert run("report", "--target", "pi", "--json")[1] == outputs["json"]
    assert outputs["markdown"].count("|") > 50


def test_unknown_form_job_and_report_of_another_schema_are_refused(run: Run, reported: Path) -> None:
    error = only_error(run("report", "--target", "pi", "--format", "xml"), 2)
    assert "one of terminal, markdown, csv, json, html, png is required. Received: xml." in error
    error = only_error(run("report", "--target", "pi", "--job", "1999"), 6)
    assert "The id of one report on pi, its first digits or latest is required. Received: 1999;" in error
    assert "there are: pi:20261122-101500-0123." in error
    (reported / "reports/pi/20261122-101500-0123.json").write_text('{"schema_version": 99}')
    assert "schema_version" in only_error(run("report", "--target", "pi"), 6)


def test_unknown_tier_is_refused(run: Run, pets: Path, study: Path) -> None:
    assert "Received: " in only_error(run("run", "pets.toml", "--tier", "slow"), 2)
    assert "--tier: one of rapid, quick, normal is required. Received: slow." in only_error(
        run("bench", "--tier", "slow"), 2
    )


@pytest.mark.parametrize("verb", ["run", "bench"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "1,0"], "--threads: numbers from 1 to 64 such as 1,4 are required. Received: 1,0."),
        (["--cpus", "7-4"], "--cpus: a list of CPUs such as 0-3,6 is required. Received: '7-4'."),
        (["--budget", "20"], "--budget: a time above 0 such as 90s, 20m or 2h is required. Received: 20."),
        (["--budget", "20m", "--tier", "rapid"], "--tier or --budget is required. Received: both."),
        (["--runtime", "auto,onnx"], "Received: onnx."),
    ],
)
def test_axis_that_cannot_be_read_is_refused_before_long_work(
    verb: str, arguments: list[str], message: str, run: Run, pets: Path, study: Path
) -> None:
    recipe = ["pets.toml"] if verb == "run" else []
    assert message in only_error(run(verb, *recipe, *arguments), 2)


def test_repetition_without_a_report_is_refused(run: Run, study: Path) -> None:
    error = only_error(run("repeat"), 6)
    assert "A report of study pets on loopback is required. Received: none." in error
    assert error.endswith("Measure first: liteship bench --target loopback")


def test_repetition_of_another_study_is_refused(run: Run, study: Path) -> None:
    before = make_manifest(failures=())
    report = make_report(before, target="loopback")
    write_record(report, study / "reports/loopback/20261122-101500-0123.json")
    assert "the manifest" in only_error(run("repeat"), 6)
    keep_manifest(study, before)
    error = only_error(run("repeat"), 6)
    assert "which job 20261122T101500Z-0123456789ab measured, is required" in error
    assert error.endswith("run liteship bench, then repeat that.")


@pytest.mark.parametrize("passed", [True, False])
def test_doctor_tells_by_exit_code_whether_something_is_missing(
    passed: bool, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [
        Check("host", "Python", True, "3.11.2"),
        Check("host", "pip", passed, "not there", "python3 -m ensurepip"),
    ]
    monkeypatch.setattr(doctor, "check_host", lambda: list(checks))
    code, out, _ = run("doctor", "--json")
    assert code == (0 if passed else 2)
    assert [check["passed"] for check in json.loads(out)["checks"]] == [True, passed]
    code, out, _ = run("doctor")
    assert code == (0 if passed else 2)
    assert ("MISSING" in out) is not passed
    assert "python3 -m ensurepip" in out


BOARDS = '[targets.pi4]\nhost = "pi4"\ngroups = ["desk"]\n[targets.pi5]\nhost = "pi5"\ngroups = ["desk"]\n'


@pytest.fixture
def boards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two boards in a group; pi5 cannot be reached."""

    def with_connection(name: str, action: object, say: object) -> list[Check]:
        if name == "pi5":
            raise LinkError("An SSH server at pi5:22 is required. Received: Connection refused", "Switch it on.")
        return [Check(name, "connection", True, "me@pi4:22")]

    monkeypatch.setattr(doctor, "check_host", lambda: [Check("host", "Python", True, "3.11.2")])
    monkeypatch.setattr(doctor, "with_connection", with_connection)
    (folder / "targets.toml").write_text(BOARDS)
    return folder


def test_doctor_checks_several_targets_at_once(run: Run, boards: Path) -> None:
    code, out, _ = run("doctor", "--target", "desk", "--json")
    assert code == 5
    found = json.loads(out)
    assert [check["what"] for check in found["checks"]] == ["Python"]
    assert {name: [check["passed"] for check in one["checks"]] for name, one in found["targets"].items()} == {
        "pi4": [True],
        "pi5": [False],
    }
    code, out, _ = run("doctor", "--target", "pi4,pi5")
    assert code == 5
    assert "me@pi4:22" in out
    assert "Switch it on." in out
    assert run("doctor", "--target", "pi4")[0] == 0


@pytest.mark.parametrize("verb", ["run", "bench"])
def test_every_target_is_measured_and_has_its_table(
    verb: str, run: Run, pets: Path, study: Path, boards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(folder: Path, manifest: Manifest, target: str, wishes: object, say: object) -> Report:
        if target == "pi5":
            raise LinkError("pi5: an open connection is required. Received: link lost.")
        report = make_report(manifest)
        return replace(report, target=target, job=replace(report.job, target=target))

    monkeypatch.setattr(run_module, "measure", measure)
    monkeypatch.setattr(run_module, "build", lambda *arguments: make_manifest())
    recipe = ["pets.toml"] if verb == "run" else []
    code, out, err = run(verb, *recipe, "--target", "desk")
    assert code == 5
    assert "magnitude50-int8" in out
    assert "error: pi5: an open connection is required. Received: link lost." in err.splitlines()
    code, out, _ = run(verb, *recipe, "--target", "pi4,pi5,loopback", "--json")
    assert code == 5
    found = json.loads(out)["targets"]
    assert [found["pi4"]["target"], found["loopback"]["target"]] == ["pi4", "loopback"]
    assert found["pi5"]["exit_code"] == 5
    code, out, _ = run(verb, *recipe, "--target", "pi4", "--json")
    assert (code, json.loads(out)["target"]) == (0, "pi4")


@pytest.mark.parametrize("verb", ["run", "bench", "doctor"])
def test_one_mistyped_target_of_several_is_refused_before_anything_is_done(
    verb: str, run: Run, pets: Path, study: Path, boards: Path
) -> None:
    recipe = ["pets.toml"] if verb == "run" else []
    error = only_error(run(verb, *recipe, "--target", "pi4,dekk"), 2)
    assert "A known target or group is required (loopback, emulated, pi4, pi5, desk). Received: dekk." in error
    assert "Did you mean desk?" in error


# --- the command line itself ---


@pytest.mark.parametrize(
    "arguments", [["fly"], ["run", "--tagret", "pi"], ["bench", "--limit", "0"], ["targets", "fly"]]
)
def test_unknown_verb_or_option_is_a_usage_error(arguments: list[str], run: Run) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: " in err


@pytest.mark.parametrize("verb", ["", *VERBS, "targets", "data"])
def test_every_verb_has_help(verb: str, run: Run) -> None:
    code, out, err = run(*verb.split(), "--help")
    assert (code, err) == (0, "")
    assert f"Usage: liteship {verb}".strip() in out


def test_help_lists_every_verb(run: Run) -> None:
    out = run("--help")[1]
    for verb in VERBS:
        assert verb.split()[0] in out


def test_version_is_printed(run: Run) -> None:
    assert run("--version") == (0, f"{liteship.__version__}\n", "")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConversionError("No.", "Do this."), 3, "error: No. Do this."),
        (DataError("two\n  lines"), 2, "error: two lines"),
        (ModelError("cannot load it"), 5, "error: cannot load it"),
    ],
)
def test_expected_error_is_one_line_and_the_code_of_its_family(
    error: Exception, code: int, line: str, run: Run, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_study(*arguments: object) -> None:
        raise error

    build_with(monkeypatch, build_study)
    assert only_error(run("run", "pets.toml"), code) == line


def test_interruption_is_130_and_says_that_the_same_command_goes_on(
    run: Run, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_study(*arguments: object) -> None:
        raise KeyboardInterrupt

    build_with(monkeypatch, build_study)
    code, out, err = run("run", "pets.toml")
    assert (code, out) == (130, "")
    assert err.splitlines()[-1] == "interrupted; the same command goes on from here"


def test_bug_shows_its_traceback(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_study(*arguments: object) -> None:
        raise RuntimeError("a bug")

    build_with(monkeypatch, build_study)
    monkeypatch.setattr(sys, "argv", ["liteship", "run", "pets.toml"])
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main()


def test_process_ends_with_the_code_of_the_error(folder: Path) -> None:
    for arguments, code in ((["report"], 2), (["fly"], 2), (["--version"], 0)):
        ended = subprocess.run([sys.executable, "-c", START, *arguments], capture_output=True, text=True, check=False)
        assert ended.returncode == code
        assert "Traceback" not in ended.stderr


def test_command_line_imports_nothing_heavy() -> None:
    program = (
        "import sys, liteship.cli.app\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'tf_keras', 'scipy', 'sklearn'}))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
