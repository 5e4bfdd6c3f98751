from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deploy_samples import make_deployment
from report_samples import LITERT, last_report, make_job, make_manifest, make_report, sha
from rich.console import Console

from liteship.cli import measure as measure_module
from liteship.cli import repeat
from liteship.cli.measure import Wishes, measure, read_seconds, read_wishes
from liteship.errors import ReportError, UsageError
from liteship.plan import Settings
from liteship.progress import Reporter
from liteship.recipe import BenchSettings
from liteship.targets import Target
from liteship_agent.job import Job
from liteship_agent.records import write_record
from liteship_agent.report import Report

PI = Target(name="pi", host="pi", user="pi", threads=(2, 4, 2), cpus=(3, 2))
TFLITE = "tflite-runtime-2.14.0"


# --- options ---


def test_axes_are_read_as_they_are_typed() -> None:
    wishes = read_wishes("tflite-runtime, auto", "4,1,4", ["4-7", "2,0", "0,2"], None, "1.5h", 50, True)
    assert wishes == Wishes(
        runtimes=("tflite-runtime", "auto"),
        threads=(4, 1),
        cpus=((4, 5, 6, 7), (0, 2)),
        budget="1.5h",
        limit=50,
        forced=True,
    )
    assert read_wishes() == Wishes()


@pytest.mark.parametrize(
    ("text", "cpus"), [("3", (3,)), ("0-2,5", (0, 1, 2, 5)), ("2-2", (2,)), ("0-1023", tuple(range(1024)))]
)
def test_set_of_cpus_is_single_ones_and_ranges(text: str, cpus: tuple[int, ...]) -> None:
    assert read_wishes(cpus=[text]).cpus == (cpus,)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("2h", 7200), ("0.5m", 30)])
def test_budget_is_a_time(text: str, seconds: float) -> None:
    assert read_wishes(budget=text).budget == text
    assert read_seconds(text) == seconds


@pytest.mark.parametrize(
    "options",
    [
        *({"threads": text} for text in ("", "0", "65", "one", "1,", "1.5", "-1")),
        *({"cpus": [text]} for text in ("", "a", "1-", "-1", "3-1", "0-5000", "0,,1", "1 2")),
        *({"budget": text} for text in ("", "20", "m", "-1m", "1h30m", "1d", "0s", "0.0h")),
        {"tier": "slow"},
        {"tier": "rapid", "budget": "1h"},
    ],
)
def test_option_that_cannot_be_read_is_a_usage_error(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="Received: "):
        read_wishes(**options)


@pytest.mark.parametrize(
    ("wishes", "recipe", "settings"),
    [
        (Wishes(threads=(1,)), BenchSettings(), Settings((1,), ((2, 3),))),
        (Wishes(cpus=((),)), BenchSettings(), Settings((2, 4), ((),))),
        (Wishes(), BenchSettings(threads=1), Settings((1,), ((2, 3),))),
        (Wishes(threads=(1, 2)), BenchSettings(threads=1), Settings((1, 2), ((2, 3),))),
        (Wishes(cpus=((0,), (1,)), threads=(1,)), BenchSettings(), Settings((1,), ((0,), (1,)))),
    ],
)
def test_what_is_not_said_is_the_recipes_or_the_targets(
    wishes: Wishes, recipe: BenchSettings, settings: Settings
) -> None:
    assert wishes.settings(PI, recipe) == settings


@pytest.mark.parametrize(
    ("wishes", "recipe", "where", "asked"),
    [
        (Wishes(threads=(1, 4)), BenchSettings(), "targets.toml: [targets.pi] cpus", "--threads"),
        (Wishes(cpus=((2, 3),)), BenchSettings(), "--cpus", "targets.toml: [targets.pi] threads"),
        (Wishes(cpus=((2, 3),)), BenchSettings(threads=4), "--cpus", "the recipe's bench.threads"),
    ],
)
def test_more_threads_than_cpus_are_refused_by_the_name_of_the_field(
    wishes: Wishes, recipe: BenchSettings, where: str, asked: str
) -> None:
    message = f"{where}: a CPU for each of 4 threads ({asked}) is required. Received: 2, 3."
    with pytest.raises(UsageError, match=re.escape(message)):
        wishes.settings(PI, recipe)


def test_threads_are_not_looked_at_where_the_target_chooses_the_cpus() -> None:
    assert Wishes(threads=(1, 4), cpus=((),)).settings(PI, BenchSettings()).threads == (1, 4)


# --- the way to a report ---


class Steps:
    """Stands for connecting, deploying and measuring; keeps what was asked.

    Attributes:
        heard: What was said.
        runtimes: That were to be deployed.
        job: That was to be run.
        calls: What the target was told.
        measured: The report, if it is not one of that job.
    """

    def __init__(self) -> None:
        self.heard = io.StringIO()
        self.say = Reporter(Console(file=self.heard, width=300))
        self.cuts = 0
        self.manifest = make_manifest()
        self.deployment = make_deployment(self.manifest)
        self.runtimes: tuple[str, ...] = ()
        self.job: Job | None = None
        self.calls: list[str] = []
        self.measured: Report | None = None

    @contextmanager
    def open_connection(self, name: str) -> Iterator[Any]:
        yield SimpleNamespace(target=PI, python="python3", call=self.call)

    def with_connection(self, name: str, action: Callable[[Any], Any], say: Reporter) -> Any:
        """As if the link had been lost `cuts` times."""
        for _ in range(self.cuts + 1):
            with self.open_connection(name) as connection:
                result = action(connection)
        return result

    def call(self, command: str) -> dict[str, Any]:
        self.calls.append(command)
        return {}

    def deploy(self, connection: Any, folder: Path, manifest: Any, runtimes: tuple[str, ...], *more: Any) -> Any:
        self.runtimes = runtimes
        return self.deployment

    def bench(self, connection: Any, folder: Path, manifest: Any, deployment: Any, job: Job, say: Reporter) -> Report:
        say.say("measuring")
        self.job = job
        return replace(make_report(self.manifest), job=job) if self.measured is None else self.measured


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    stand_in = Steps()
    for module, way in ((measure_module, "with_connection"), (repeat, "open_connection")):
        for name in (way, "deploy", "bench"):
            monkeypatch.setattr(module, name, getattr(stand_in, name))
    monkeypatch.setattr(repeat, "reporter", lambda: stand_in.say)
    return stand_in


@pytest.fixture
def study(tmp_path: Path, steps: Steps) -> Path:
    """A study whose recipe says nothing of measuring."""
    folder = tmp_path / "models/pets"
    write_record(steps.manifest, folder / "manifest.json")
    recipe = 'schema_version = 1\nname = "pets"\n[data]\nsource = "pets"\n[model]\narchitecture = "vgg16"\n'
    (folder / "recipe.toml").write_text(recipe)
    return folder


def test_plan_is_told_before_anything_is_measured(steps: Steps, study: Path) -> None:
    measure(study, steps.manifest, "pi", read_wishes(threads="1,2", limit=7, forced=True), steps.say)
    plan, measuring = steps.heard.getvalue().splitlines()
    assert plan.startswith("5 artefacts x 2 thread counts = 10 cases, 6 rounds, 60 blocks and 6 canaries, tier rapid: ")
    assert measuring == "measuring"
    assert steps.job is not None
    assert (steps.job.tier.name, len(steps.job.cases), steps.job.limit, steps.job.forced) == ("rapid", 10, 7, True)
    assert {case.cpus for case in steps.job.cases} == {(2, 3)}
    assert steps.runtimes == ("auto",)


def test_plan_is_told_once_however_often_the_link_is_lost(steps: Steps, study: Path) -> None:
    steps.cuts = 2
    measure(study, steps.manifest, "pi", read_wishes(threads="1"), steps.say)
    plan, *measuring = steps.heard.getvalue().splitlines()
    assert plan.startswith("5 artefacts")
    assert measuring == ["measuring"] * 3


def test_budget_chooses_the_tier(steps: Steps, study: Path) -> None:
    measure(study, steps.manifest, "pi", read_wishes(threads="1", budget="3h"), steps.say)
    assert steps.job is not None
    assert steps.job.tier.name == "normal"
    assert "tier normal: about " in steps.heard.getvalue()


def test_budget_that_is_too_small_measures_nothing(steps: Steps, study: Path) -> None:
    with pytest.raises(UsageError, match=r"--budget: about .* in tier rapid are required .* Received: 1m\."):
        measure(study, steps.manifest, "pi", read_wishes(threads="1", budget="1m"), steps.say)
    assert steps.job is None


def test_baseline_in_another_runtime_than_the_first_is_told(steps: Steps, study: Path) -> None:
    runtimes = {TFLITE: "tflite-runtime==2.14.0", LITERT: "ai-edge-litert==2.3.0"}
    refused = {TFLITE: {sha("none-none"): "it lacks RFFT2D"}, LITERT: {}}
    steps.deployment = make_deployment(steps.manifest, runtimes=runtimes, refused=refused)
    measure(study, steps.manifest, "pi", read_wishes("tflite-runtime,auto", threads="1"), steps.say)
    assert steps.runtimes == ("tflite-runtime", "auto")
    assert "ratios refer to none-none in ai-edge-litert==2.3.0\n" in steps.heard.getvalue()


# --- repeat ---


@pytest.fixture
def reported(study: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That study with one report, in the working folder."""
    write_record(make_report(steps.manifest), study / "reports/pi/20261122-1.json")
    (study.parent / "latest").symlink_to("pets")
    (study.parents[1] / "targets.toml").write_text('[targets.pi]\nhost = "pi"\nuser = "pi"\n')
    monkeypatch.chdir(study.parents[1])
    return study


def test_repetition_is_the_same_request_at_another_time(
    reported: Path, steps: Steps, capsys: pytest.CaptureFixture[str]
) -> None:
    before = last_report(reported)
    repeat.repeat_command("pi")
    assert steps.job is not None
    assert steps.job.job_id != before.job.job_id
    assert steps.job.key() == before.job.key()
    assert set(steps.runtimes) == set(before.job.runtimes.values())
    assert capsys.readouterr().out.splitlines()[-1] == "3 of 3 ratios agree within their intervals (100%)"


def test_repetition_tells_the_plan_and_that_the_first_report_was_fetched(reported: Path, steps: Steps) -> None:
    repeat.repeat_command("pi")
    plan, measuring = steps.heard.getvalue().splitlines()
    assert "= 4 cases, 6 rounds, 24 blocks and 6 canaries, tier rapid: about " in plan
    assert measuring == "measuring"
    (told,) = steps.calls
    assert told.endswith(f"fetched --folder {steps.deployment.folder} --job {last_report(reported).job.job_id}")


def test_report_is_not_compared_with_itself(reported: Path, steps: Steps) -> None:
    steps.measured = last_report(reported)
    with pytest.raises(ReportError, match=r"Another run than job .* is required. Received: the same one") as raised:
        repeat.repeat_command("pi")
    assert raised.value.exit_code == 6


def test_job_without_a_ratio_is_not_repeated(reported: Path, steps: Steps) -> None:
    report = make_report(steps.manifest, job=make_job("none-none"), accuracy=())
    write_record(report, reported / "reports/pi/20261123-1.json")
    with pytest.raises(ReportError, match="A job with a ratio to repeat is required"):
        repeat.repeat_command("pi")
    assert steps.job is None


def test_repetition_may_be_forced(reported: Path, steps: Steps) -> None:
    repeat.repeat_command("pi", force=True)
    assert steps.job is not None
    assert steps.job.forced


def test_repetition_of_another_release_is_refused(reported: Path, steps: Steps) -> None:
    steps.deployment = make_deployment(steps.manifest, release="ffffffffffff")
    with pytest.raises(ReportError, match=r"release 0123456789ab, .* is required. Received: ffffffffffff") as raised:
        repeat.repeat_command("pi")
    assert raised.value.exit_code == 6
    assert steps.job is None
