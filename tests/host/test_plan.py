from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploy_samples import make_deployment
from report_samples import LITERT, make_block, make_entry, make_job, make_manifest, make_report, make_sample, sha

from liteship.deploy import Deployment
from liteship.errors import ConversionError, UsageError
from liteship.plan import History, Planner, Settings, duration, make_cases, read_history
from liteship_agent.job import TIERS, Case
from liteship_agent.manifest import Manifest
from liteship_agent.records import write_record
from liteship_agent.report import Report

TFLITE = "tflite-runtime-2.14.0-cp311-aarch64-9876543210fe"
LATENCY_SECONDS = 0.002
ONE_THREAD = Settings((1,))


def two_runtimes(manifest: Manifest, *refused: str, first: str = LITERT) -> Deployment:
    """LiteRT loads all, tflite-runtime all but the variants that are refused."""
    runtimes = {LITERT: "ai-edge-litert==2.3.0", TFLITE: "tflite-runtime==2.14.0"}
    ordered = {first: runtimes.pop(first), **runtimes}
    reasons = {LITERT: {}, TFLITE: {sha(name): f"tflite-runtime lacks a part of {name}" for name in refused}}
    return make_deployment(manifest, runtimes=ordered, refused=reasons)


def make_planner(settings: Settings = ONE_THREAD, history: History | None = None, **changes: Any) -> Planner:
    manifest = make_manifest()
    deployment = make_deployment(manifest, **changes)
    cases = make_cases(manifest, deployment, settings)
    return Planner(manifest, deployment, settings, cases, 290, History() if history is None else history)


def measured_history(planner: Planner, **changes: Any) -> History:
    """Every case took 2 ms, a block 1 s to start."""
    latencies = {(c.artefact, c.runtime, c.threads, ()): LATENCY_SECONDS for c in planner.cases}
    return History(**{"job_id": "20261122", "startup_seconds": 1.0, "latencies": latencies, **changes})


# --- cases ---


def test_every_artefact_is_run_in_every_setting_in_table_order() -> None:
    manifest = make_manifest(entries=(make_entry("none-none"), make_entry("none-int8")))
    cases = make_cases(manifest, two_runtimes(manifest), Settings((1, 4), ((0, 1), (2, 3))))
    assert len(cases) == len(set(cases)) == 2 * 2 * 2 * 2
    assert [case.artefact for case in cases] == [sha("none-none")] * 8 + [sha("none-int8")] * 8
    assert [case.runtime for case in cases[:8]] == [LITERT] * 4 + [TFLITE] * 4
    assert [(case.cpus, case.threads) for case in cases[:4]] == [((0, 1), 1), ((0, 1), 4), ((2, 3), 1), ((2, 3), 4)]


def test_combination_that_cannot_be_loaded_is_no_case() -> None:
    manifest = make_manifest()
    cases = make_cases(manifest, two_runtimes(manifest, "magnitude50-dynamic"), Settings((1,)))
    assert len(cases) == 9
    assert [case.runtime for case in cases if case.artefact == sha("magnitude50-dynamic")] == [LITERT]


def test_artefact_of_two_variants_is_run_once() -> None:
    manifest = make_manifest(entries=(make_entry("none-none"), make_entry("copy", sha256=sha("none-none"))))
    assert make_cases(manifest, make_deployment(manifest), Settings((1,))) == (Case(sha("none-none"), LITERT, 1),)


def test_baseline_that_the_first_runtime_lacks_comes_first_in_the_next() -> None:
    manifest = make_manifest()
    cases = make_cases(manifest, two_runtimes(manifest, "none-none", first=TFLITE), Settings((1,)))
    assert (cases[0].artefact, cases[0].runtime) == (sha("none-none"), LITERT)
    assert cases[1].runtime == TFLITE


def test_baseline_that_no_runtime_loads_is_refused_with_the_reason() -> None:
    manifest = make_manifest()
    refused = {LITERT: {sha("none-none"): "ai-edge-litert lacks RFFT2D"}}
    rest = tuple(entry.sha256 for entry in manifest.entries[1:])
    with pytest.raises(ConversionError, match=r"loads the baseline, none-none, .*lacks RFFT2D"):
        make_cases(manifest, make_deployment(manifest, refused=refused, artefacts=rest), Settings((1,)))


# --- estimates ---


@pytest.mark.parametrize(
    ("settings", "content"),
    [
        (Settings((4,)), "5 artefacts = 5 cases, 6 rounds, 30 blocks and 6 canaries, tier rapid: about "),
        (Settings((1, 4)), "5 artefacts x 2 thread counts = 10 cases, 6 rounds, 60 blocks and 6 canaries"),
        (Settings((1, 4), ((0,), (1,))), "5 artefacts x 2 CPU sets x 2 thread counts = 20 cases"),
    ],
)
def test_plan_names_what_is_multiplied(settings: Settings, content: str) -> None:
    assert str(make_planner(settings).plan(TIERS["rapid"])).startswith(content)


def test_plan_names_what_is_refused() -> None:
    manifest = make_manifest()
    deployment = two_runtimes(manifest, "none-int8")
    settings = Settings((1, 4))
    cases = make_cases(manifest, deployment, settings)
    plan = Planner(manifest, deployment, settings, cases, 290, History()).plan(TIERS["rapid"])
    assert plan.content == "5 artefacts x 2 runtimes x 2 thread counts - 2 refused = 18 cases"


def test_estimate_adds_up_blocks_canaries_and_scores() -> None:
    planner = make_planner()
    planner.history = measured_history(planner)
    plan = planner.plan(TIERS["rapid"])
    # Ten queries and a half make one of six blocks: 11, whose time is below the sixth of six seconds.
    block = 1.0 + 0.1 + 1.0 + 11 * (LATENCY_SECONDS + 0.012)
    canary = 1.0 + 0.1 + 1.0
    scores = 290 * (5 * LATENCY_SECONDS + 0.012)
    assert plan.seconds == pytest.approx(6 * (canary + 5 * block) + scores)


@pytest.mark.parametrize(
    ("latency", "warmup", "invoke", "end_to_end"),
    [
        (0.002, 0.1, 1.0, 11 * 0.014),  # at least the sixth of six seconds
        (0.02, 0.24, 1.0, 11 * 0.032),
        (0.2, 1.0, 11 * 0.2, 11 * 0.2),  # at least the sixth of 64 queries; end to end no longer than that
        (3.0, 15.0, 5.0, 5.0),  # at most the sixth of 30 seconds
    ],
)
def test_block_takes_its_seconds_or_its_queries_but_never_more_than_its_cap(
    latency: float, warmup: float, invoke: float, end_to_end: float
) -> None:
    planner = make_planner()
    planner.history = measured_history(planner)
    planner.history = replace(planner.history, latencies=dict.fromkeys(planner.history.latencies, latency))
    scores = 290 * (5 * latency + 0.012)
    blocks = planner.plan(TIERS["rapid"]).seconds - scores - 6 * (1.0 + warmup + 1.0)
    assert blocks == pytest.approx(30 * (1.0 + warmup + invoke + end_to_end))


def test_latency_without_a_report_is_by_multiply_adds_and_machine() -> None:
    board, computer = make_planner(), make_planner(machine="x86_64")
    assert board.latency_seconds(board.cases[0]) == 58e6 / 3e9
    assert computer.latency_seconds(computer.cases[0]) < board.latency_seconds(board.cases[0])
    text = str(board.plan(TIERS["rapid"]))
    assert "nothing was measured on pi yet" in text
    assert "3 billion multiply-adds a second are assumed" in text


def test_pace_of_an_emulated_board_is_not_that_of_its_machine() -> None:
    emulated = make_planner(target="emulated")
    assert emulated.latency_seconds(emulated.cases[0]) == 58e6 / 0.1e9
    assert "0.1 billion multiply-adds a second are assumed" in str(emulated.plan(TIERS["rapid"]))


def test_latency_of_an_unknown_artefact_is_by_the_rate_that_was_measured() -> None:
    known = History("20261122", 1.0, {}, {(LITERT, 1): [29e9, 58e9, 116e9], (LITERT, 4): [1e9]})
    planner = make_planner(Settings((1, 2)), known)
    assert planner.latency_seconds(planner.cases[0]) == 0.001
    assert planner.latency_seconds(planner.cases[1]) == 58e6 / 43.5e9  # no rate of two threads: the median of all
    assert "0 of 10 latencies from earlier reports of pi, the rest by multiply-adds" in str(
        planner.plan(TIERS["rapid"])
    )


def test_latency_is_that_of_the_same_cpus_where_they_are_named() -> None:
    setting = (sha("none-none"), LITERT, 1)
    known = History("20261122", 1.0, {(*setting, (0, 1)): 0.5, (*setting, ()): 0.9})
    planner = make_planner(history=known)
    for cpus, seconds in (((0, 1), 0.5), ((2, 3), 0.9), ((), 0.9)):
        assert planner.latency_seconds(Case(*setting, cpus)) == seconds


# --- budgets ---


@pytest.mark.parametrize(("share", "tier"), [(1.01, "rapid"), (0.99, None)])
def test_shortest_tier_is_taken_just_where_it_fits(share: float, tier: str | None) -> None:
    planner = make_planner()
    needed = planner.plan(TIERS["rapid"]).seconds
    if tier is not None:
        assert planner.longest_within(share * needed, "9m").tier.name == tier
        return
    with pytest.raises(UsageError, match=r"about .* for 5 artefacts = 5 cases in tier rapid"):
        planner.longest_within(share * needed, "9m")


def test_longest_tier_that_fits_is_taken() -> None:
    planner = make_planner()
    for name in TIERS:
        assert planner.longest_within(planner.plan(TIERS[name]).seconds, "9m").tier.name == name


def test_refusal_echoes_the_budget_and_never_requires_what_it_received() -> None:
    planner = make_planner()
    needed = planner.plan(TIERS["rapid"]).seconds
    with pytest.raises(UsageError, match=rf"--budget: about {math.ceil(needed)} s for .* Received: 0\.02h\."):
        planner.longest_within(needed - 0.001, "0.02h")


def test_plan_says_that_it_is_without_repetitions() -> None:
    assert " without repetitions (" in str(make_planner().plan(TIERS["rapid"]))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (119.6, "2 min"),
        (540, "9 min"),
        (3599, "1 h"),
        (4800, "1 h 20 min"),
    ],
)
def test_duration_is_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- history ---


def timed_report(manifest: Manifest, job_id: str, latency_ns: int, startup_ns: int) -> Report:
    """Blocks that need so long to start, beside what they invoke; those of the first round score for an hour too."""
    job = make_job("none-none", job_id=job_id)
    blocks = []
    for round_index in range(6):
        block = make_block(job, 0, round_index, [latency_ns] * 13)
        timed = block.timed_to_ns - block.timed_from_ns
        span = startup_ns + timed + block.first_ns + block.warmup_ns + (0 if round_index else 3_600 * 10**9)
        blocks.append(replace(block, samples=(make_sample(7), make_sample(7 + span))))
    return make_report(manifest, job=job, blocks=tuple(blocks))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A study with two reports, and one of a later version."""
    manifest = make_manifest()
    write_record(manifest, tmp_path / "pets/manifest.json")
    (tmp_path / "latest").symlink_to("pets")
    for job_id, latency_ns, startup_ns in (("20261122-1", 1_000_000, 9 * 10**9), ("20261123-1", 2_000_000, 10**9)):
        report = timed_report(manifest, job_id, latency_ns, startup_ns)
        write_record(report, tmp_path / f"pets/reports/pi/{job_id}.json")
    (tmp_path / "pets/reports/pi/20261124-1.json").write_text('{"schema_version": 99, "blocks": []}')
    return tmp_path


def test_history_is_that_of_the_latest_report_that_can_be_read(models: Path) -> None:
    history = read_history(models, "pi")
    assert history.job_id == "20261123-1"
    assert history.startup_seconds == pytest.approx(1.0)
    setting = (sha("none-none"), LITERT, 1)
    assert history.latencies == {(*setting, (0, 1, 2, 3)): 0.002, (*setting, ()): 0.002}
    assert history.rates == {(LITERT, 1): [58e6 / 0.002, 58e6 / 0.001]}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"blocks": [1]}', '{"blocks": 3}'])
def test_report_that_is_none_is_passed_over(text: str, models: Path) -> None:
    (models / "pets/reports/pi/20261123-2.json").write_text(text)
    assert read_history(models, "pi").job_id == "20261123-1"


@pytest.mark.parametrize("damage", [{"case_index": 7}, {"case_index": -1}, {"median_ns": 0.0}])
def test_report_with_a_damaged_summary_is_passed_over(damage: dict[str, Any], models: Path) -> None:
    report = timed_report(make_manifest(), "20261123-2", 5_000_000, 10**9)
    report = replace(report, summaries=(replace(report.summaries[0], **damage),))
    write_record(report, models / "pets/reports/pi/20261123-2.json")
    history = read_history(models, "pi")
    assert history.job_id == "20261123-1"
    assert 0.005 not in history.latencies.values()


def test_target_without_reports_has_no_history(models: Path) -> None:
    assert read_history(models, "nano") == History()
    assert read_history(models / "nowhere", "pi") == History()
