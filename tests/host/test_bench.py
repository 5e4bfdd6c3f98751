from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deploy_samples import make_deployment
from report_samples import IMAGE_COUNT, LITERT, last_report, make_case, make_job, make_manifest, make_report, sha
from rich.console import Console

from liteship.bench import bench, with_new_id
from liteship.bench import make_job as make_request
from liteship.bench import measure as measure_module
from liteship.built_in import LOOPBACK
from liteship.deploy import Deployment
from liteship.errors import DataError, LinkError
from liteship.predictions import Predictions, read_predictions, write_predictions
from liteship.progress import Reporter
from liteship.remote import RemoteError
from liteship.targets import Target
from liteship_agent.job import TIERS, Job
from liteship_agent.manifest import Manifest
from liteship_agent.records import loads, to_json
from liteship_agent.report import Report

VARIANTS = ("none-none", "none-int8", "magnitude50-none", "magnitude50-int8")
Event = dict[str, Any]


@pytest.fixture
def manifest() -> Manifest:
    return make_manifest()


@pytest.fixture
def report(manifest: Manifest) -> Report:
    """What the agent sends: without what the host adds, and with the host's answers but for two images."""
    return replace(make_report(manifest), refused=(), summaries=(), flips=())


@pytest.fixture
def deployment(manifest: Manifest) -> Deployment:
    refused = {LITERT: {sha("magnitude50-dynamic"): "it lacks FULLY_CONNECTED version 12"}}
    return make_deployment(manifest, refused=refused, artefacts=tuple(map(sha, VARIANTS)))


@pytest.fixture
def study(tmp_path: Path, report: Report) -> Path:
    """A folder with predictions: those of the target but for one image, equal pixels but for two."""
    for scores in report.accuracy:
        rows = np.array(scores.scores, np.float32)
        rows[7] = rows[7][::-1]
        hashes = ("0" * 16, "1" * 16, *scores.pixel_hashes[2:])
        write_predictions(tmp_path, scores.artefact, Predictions(rows, hashes))
    return tmp_path


class Connection:
    """A target that answers a job with events and a report.

    Args:
        report: That it ends with; an error is raised instead.
        events: That it emits; an exception among them is raised there.
        explain: Raised where flips are to be explained.
    """

    def __init__(
        self, report: Report | Exception, events: Sequence[Event | BaseException] = (), explain: Exception | None = None
    ) -> None:
        self.target = Target(name="pi", host="pi", user="pi")
        self.python = "python3"
        self.report, self.events, self.explain = report, events, explain
        self.verbs: list[str] = []
        self.jobs: list[Job] = []

    def call(
        self,
        command: str,
        source: Sequence[bytes] = (),
        *,
        on_event: Callable[[Event], None] | None = None,
        idle_seconds: float = 60.0,
    ) -> Event:
        found = re.search(r" (bench|stop|fetched|explain)\b(.*)", command.partition(".zip")[2])
        assert found, command
        self.verbs.append(found[0].strip())
        if found[1] in ("stop", "fetched"):
            return {}
        if found[1] == "explain":
            if self.explain is not None:
                raise self.explain
            return {"results": []}
        self.jobs.append(loads(Job, b"".join(source), "stdin"))
        for event in self.events:
            if isinstance(event, BaseException):
                raise event
            assert on_event is not None
            on_event(event)
        if isinstance(self.report, Exception):
            raise self.report
        return {"report": to_json(self.report)}


@pytest.fixture
def heard() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def run(
    study: Path, manifest: Manifest, deployment: Deployment, heard: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Connection], Report]:
    """Runs the bench of one job on a connection; without a validation archive no pixels are sent."""
    monkeypatch.setattr(measure_module, "explain_flips", _explain)

    def call(connection: Any) -> Report:
        return bench(connection, study, manifest, deployment, make_job(*VARIANTS), Reporter(Console(file=heard)))

    return call


def _explain(manifest: Manifest, report: Report, predictions: Any, study: Path, ask: Any) -> Any:
    """Asks once for all, as the real one does for each artefact."""
    from liteship.flips import Explanation

    try:
        ask(report.accuracy[0], {0: ""})
    except LinkError as exc:
        return Explanation(report.flips, None, str(exc))
    return Explanation(tuple(replace(flip, cause="kernels") for flip in report.flips), 3)


def block_event(case_index: int, round_index: int = 0, **changes: Any) -> Event:
    fields = {"attempt": 0, "validity": "valid", "reasons": [], "median_ns": 1.5e6, "temperature_celsius": 51.2}
    return {"event": "block", "case_index": case_index, "round_index": round_index, **fields, **changes}


# --- the request ---


@pytest.mark.parametrize(
    ("name", "ratio", "expected"), [("pi", None, 0.05), (LOOPBACK, None, 0.20), ("pi", 0.1, 0.1), (LOOPBACK, 0.1, 0.1)]
)
def test_canary_ratio_is_the_targets_or_that_of_its_kind(
    name: str, ratio: float | None, expected: float, manifest: Manifest, deployment: Deployment
) -> None:
    target = Target(name=name, host="pi", user="pi", canary_ratio=ratio)
    job = make_request(target, manifest, deployment, [make_case("none-none")], TIERS["rapid"])
    assert job.limits.canary_ratio == expected
    assert job.limits.others_cores == 0.25


def test_request_is_what_was_asked_for(manifest: Manifest, deployment: Deployment) -> None:
    target = Target(name="pi", host="pi", user="pi")
    cases = [make_case("none-none", cpus=()), make_case("none-none", threads=4, cpus=())]
    job = make_request(target, manifest, deployment, cases, TIERS["quick"], limit=50, forced=True)
    assert (job.cases, job.tier, job.limit, job.forced) == (tuple(cases), TIERS["quick"], 50, True)
    assert (job.target, job.release_id, job.runtimes) == ("pi", deployment.release, deployment.runtimes)
    assert job.job_id.endswith(job.key())
    assert re.match(r"\d{8}-\d{6}-[0-9a-f]{12}$", job.job_id)


def test_same_request_at_another_time_has_the_same_key() -> None:
    job = make_job("none-none")
    again = with_new_id(job)
    assert again.job_id != job.job_id
    assert again.key() == job.key()


# --- the report ---


def test_report_is_kept_with_what_the_host_adds(run: Callable[..., Report], report: Report, study: Path) -> None:
    found = run(Connection(report))
    assert last_report(study) == found
    assert [(r.artefact, r.runtime, r.reason) for r in found.refused] == [
        (sha("magnitude50-dynamic"), LITERT, "it lacks FULLY_CONNECTED version 12")
    ]
    assert [summary.case_index for summary in found.summaries] == [0, 1, 2, 3]
    against_host = [flip for flip in found.flips if flip.against == "host"]
    assert [(flip.artefact, flip.path) for flip in against_host] == [(sha(name), "cat/7.jpg") for name in VARIANTS]
    assert found.extra["pixels"] == {"compared": IMAGE_COUNT, "different": 2, "largest_difference": 3}
    assert found.blocks == report.blocks


def test_target_is_told_that_its_report_was_fetched_only_when_it_is_kept(
    run: Callable[..., Report], report: Report, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, kept = Connection(report), []
    call = connection.call

    def watch(command: str, *arguments: Any, **options: Any) -> Event:
        kept.append(any(study.glob("reports/pi/*.json")))
        return call(command, *arguments, **options)

    monkeypatch.setattr(connection, "call", watch)
    run(connection)
    told = [verb.split()[0] for verb in connection.verbs].index("fetched")
    assert connection.verbs[told].endswith(f"--job {report.job.job_id}")
    assert kept[told]
    assert not kept[told - 1]


def test_report_is_kept_where_the_link_is_lost_afterwards(
    run: Callable[..., Report], report: Report, study: Path, heard: io.StringIO
) -> None:
    found = run(Connection(report, explain=LinkError("pi: an answer is required.")))
    assert {flip.cause for flip in found.flips} == {None}
    assert found.extra["pixels"]["largest_difference"] is None
    assert last_report(study) == found
    assert "the report is kept; the causes of 4 flips were not found: pi: an answer is required." in heard.getvalue()


def test_report_is_on_the_disk_before_flips_are_explained(
    run: Callable[..., Report], report: Report, study: Path
) -> None:
    class Interrupted(Connection):
        def call(self, command: str, *arguments: Any, **options: Any) -> Event:
            if "explain" in command:
                assert last_report(study).summaries
                raise KeyboardInterrupt
            return super().call(command, *arguments, **options)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(report))
    assert {flip.cause for flip in last_report(study).flips} == {None}


def test_study_without_predictions_is_refused_before_anything_is_measured(
    run: Callable[..., Report], report: Report, study: Path
) -> None:
    (study / f"predictions/{sha('none-int8')}.npz").unlink()
    connection = Connection(report)
    with pytest.raises(DataError, match=r"predictions of the host are required.*Run the recipe again"):
        run(connection)
    assert connection.verbs == []


@pytest.mark.parametrize(
    ("scores", "hashes"), [(np.zeros((289, 2)), 290), (np.zeros((290, 3)), 290), (np.zeros((290, 2)), 289)]
)
def test_predictions_of_other_images_are_refused_before_anything_is_measured(
    scores: np.ndarray, hashes: int, run: Callable[..., Report], report: Report, study: Path
) -> None:
    write_predictions(study, sha("none-int8"), Predictions(scores, ("0" * 16,) * hashes))
    connection = Connection(report)
    with pytest.raises(DataError, match=r"scores of shape \(290, 2\) and 290 hashes are required"):
        run(connection)
    assert connection.verbs == []


def test_damaged_predictions_are_a_data_error(study: Path) -> None:
    path = study / f"predictions/{sha('none-int8')}.npz"
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with contextlib.suppress(DataError):
            read_predictions(study, sha("none-int8"))


# --- what is said meanwhile ---


def test_job_that_was_interrupted_is_gone_on_with(
    run: Callable[..., Report], report: Report, heard: io.StringIO
) -> None:
    started = {"event": "started", "job": to_json(make_job(*VARIANTS, job_id="20261121-1"))}
    run(Connection(report, [started]))
    assert "going on with job 20261121-1" in heard.getvalue()
    run(Connection(report, [{"event": "started", "job": to_json(make_job(*VARIANTS))}]))
    assert heard.getvalue().count("going on with") == 1


def test_waits_void_blocks_failures_and_log_are_said(
    run: Callable[..., Report], report: Report, heard: io.StringIO
) -> None:
    events: list[Event] = [
        {"event": "started", "job": to_json(make_job(*VARIANTS))},
        {"event": "preflight", "reason": "waiting 28 s at most, because others use 0.6 of a core"},
        {"event": "session", "problems": [], "start_celsius": 50.0},
        block_event(0),
        block_event(1, validity="void", reasons=["a throttle bit came"]),
        {"event": "wait", "reason": "none-int8 is void: a throttle bit came"},
        block_event(1, attempt=1),
        block_event(2, validity="void", reasons=["a major fault"], attempt=3),
        {"event": "alive"},
        {"event": "failed", "case_index": 3, "round_index": 0, "reason": "it was killed"},
        {"event": "void_round", "round_index": 0, "opening": 0, "reason": "the canary moved"},
        {"event": "wait", "reason": "round 1 is void: the canary moved"},
        {"event": "log", "line": "Accuracy: 90.00 %"},
        {"event": "of a later version"},
    ]
    run(Connection(report, events))
    assert heard.getvalue().splitlines() == [
        "waiting 28 s at most, because others use 0.6 of a core",
        "measured again: none-int8 is void: a throttle bit came",
        "round 1 of 6: magnitude50-none stays void: a major fault",
        "magnitude50-int8 failed: it was killed",
        "measured again: round 1 is void: the canary moved",
        "Accuracy: 90.00 %",
    ]


def test_forced_job_says_once_what_is_wrong_and_not_at_every_block(
    run: Callable[..., Report], report: Report, heard: io.StringIO
) -> None:
    session = {"event": "session", "problems": ["others use 2.0 cores"], "start_celsius": 50.0}
    void = [block_event(index, validity="void", reasons=["others took 2.0 cores"]) for index in range(4)]
    run(Connection(report, [session, *void]))
    assert heard.getvalue() == "measured in spite of it (--force): others use 2.0 cores\n"


def test_watched_terminal_shows_the_bar_and_a_line_for_each_case(
    report: Report,
    heard: io.StringIO,
    study: Path,
    manifest: Manifest,
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measure_module, "explain_flips", _explain)
    say = Reporter(Console(file=heard, force_terminal=True, width=80, height=30))

    class Drawn(Connection):
        """Draws what is there before the job ends."""

        def call(self, command: str, *arguments: Any, **options: Any) -> Event:
            answer = super().call(command, *arguments, **options)
            if " bench " in command:
                assert say._progress is not None
                say._progress.refresh()
            return answer

    events = [{"event": "canary", "round_index": 0, "median_ns": 1.25e6}, block_event(1, 2)]
    connection: Any = Drawn(report, events)
    bench(connection, study, manifest, deployment, make_job(*VARIANTS), say)
    assert re.search(r"none-int8 +━+ 1/6 +1\.50 51 +1 +0 waiting", re.sub(r"\x1b\[[0-9;]*m", "", heard.getvalue()))
    assert "pi: round 3 of 6" in heard.getvalue()


# --- what goes wrong ---


def test_interruption_stops_the_job_that_runs(
    run: Callable[..., Report], report: Report, heard: io.StringIO, study: Path
) -> None:
    started = {"event": "started", "job": to_json(make_job(*VARIANTS, job_id="20261121-1"))}
    connection = Connection(report, [started, block_event(0), KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        run(connection)
    assert connection.verbs[-1] == "stop --folder /home/pi/liteship --job 20261121-1"
    assert "stopped after 1 of 24 blocks; the same command goes on from there" in heard.getvalue()
    assert not (study / "reports").exists()


@pytest.mark.parametrize(
    ("kind", "hint"),
    [("preflight", "--force, which marks every row"), ("locked", "Wait until it is done"), ("agent", "")],
)
def test_refused_job_is_a_link_error_with_what_to_do(
    kind: str, hint: str, run: Callable[..., Report], report: Report
) -> None:
    with pytest.raises(RemoteError, match=r"^pi: no\..*" + re.escape(hint)) as raised:
        run(Connection(RemoteError("pi: no.", "", kind)))
    assert (raised.value.exit_code, raised.value.kind) == (5, kind)
