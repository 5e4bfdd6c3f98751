from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import (
    FAILURE_REASON,
    IMAGE_COUNT,
    LITERT,
    REFUSED_REASON,
    TFLITE,
    make_block,
    make_blocks,
    make_case,
    make_entry,
    make_flip,
    make_job,
    make_manifest,
    make_pruned_manifest,
    make_pruned_report,
    make_report,
    make_scores,
    make_summaries,
    sha,
    without_throttling,
)

from liteship.errors import ReportError
from liteship.report import checks
from liteship.report.rows import build_comparison
from liteship_agent.manifest import HostAccuracy, Parity
from liteship_agent.report import REPEATED, UNKNOWN, UNSTABLE, FailedBlock, Refused, Scores


@pytest.fixture(autouse=True)
def summaries_are_made_up(monkeypatch):
    """Rows show what a summary says; that it is of its blocks is tested with the checks."""
    monkeypatch.setattr(checks, "check_figures", lambda report: None)


MANIFEST = make_manifest()
FULL = make_report(MANIFEST)
PRUNED = make_pruned_manifest()
MEASURED = ("validity", "blocks", "repeated", "void", "queries", "median_ns", "median_low_ns", "p90_ns")
MEASURED += ("p90_bound_ns", "ratio_to_baseline", "ratio_low", "latency_tie", "end_to_end_median_ns", "decode_ns")
MEASURED += ("init_ns", "first_ns", "warmup_ns", "warmup_count", "rss_peak_bytes", "rss_anon_bytes", "cores_used")
MEASURED += ("own_overhead_ratio", "delegated_nodes", "total_nodes", "peak_ratio", "memory_gain", "latency_gain")
ANSWERED = ("target_correct", "image_count", "target_accuracy_ratio", "target_accuracy_low_ratio", "accuracy_p")
ANSWERED += ("accuracy_difference_ratio", "accuracy_tie", "golden_difference", "golden_within_tolerance", "flips_host")


def rows_by_variant(report, manifest=MANIFEST):
    return {row.variant: row for row in build_comparison(manifest, report).rows}


def report_of(*cases, medians_ns=(), manifest=MANIFEST, **changes):
    """A report whose only job was these cases, in one round, all right about every image."""
    job = make_job(*cases, rounds=1)
    keys = dict.fromkeys((case.artefact, case.runtime) for case in job.cases)
    known = {sha(entry.variant): entry.variant for entry in manifest.entries}
    parts = {
        "job": job,
        "blocks": tuple(make_block(job, i, 0, [ns]) for i, ns in enumerate(medians_ns or [5] * len(job.cases))),
        "accuracy": tuple(make_scores(known[sha256], 0, runtime=runtime) for sha256, runtime in keys),
        "refused": (),
    }
    return make_report(manifest, **{**parts, **changes})


def with_summary(case_index, report=FULL, **changes):
    summaries = tuple(replace(s, **changes) if s.case_index == case_index else s for s in report.summaries)
    return replace(report, summaries=summaries)


def test_rows_stand_in_manifest_order_and_failures_come_last():
    rows = build_comparison(MANIFEST, FULL).rows

    assert [row.variant for row in rows] == [
        *(entry.variant for entry in MANIFEST.entries),
        "magnitude75-int8",
    ]


def test_a_measured_row_has_what_is_known_of_its_file():
    row = rows_by_variant(FULL)["none-int8"]

    assert (row.sha256, row.status) == (sha("none-int8"), "valid")
    assert (row.size_bytes, row.gzip_bytes, row.requested_sparsity) == (2_652_912, 2_301_004, 0.0)
    assert row.host_accuracy_ratio == 268 / IMAGE_COUNT


def test_latency_is_that_of_the_stored_summary():
    figures = {"median_ns": 3.5, "median_low_ns": 3.25, "median_high_ns": 3.75, "p90_ns": 4.5, "p90_low_ns": 4.25}
    figures |= {"p90_high_ns": 4.75, "p90_bound_ns": 5.5, "end_to_end_median_ns": 6.5, "queries": 77}
    ratio = {"ratio": 0.5, "ratio_low": 0.25, "ratio_high": 0.75}
    counts = {"validity": REPEATED, "reasons": ("throttled",), "blocks": 6, "repeated": 2, "void": 0}
    row = rows_by_variant(with_summary(1, **figures, **ratio, **counts))["none-int8"]

    assert {name: getattr(row, name) for name in {**figures, **counts}} == {**figures, **counts}
    assert (row.ratio_to_baseline, row.ratio_low, row.ratio_high) == (0.5, 0.25, 0.75)
    assert row.status == "repeated"


def test_what_a_process_takes_is_that_of_the_blocks_that_count():
    job = make_job("none-none", rounds=3)
    odd = {"rss_peak_bytes": 10**12, "init_ns": 10**9, "invoke_cpu_ns": 10**12, "stages_ns": {"decode": 10**9}}
    blocks = (
        make_block(job, 0, 0, [10, 30], validity="void", **odd),
        make_block(job, 0, 0, [10, 30], attempt=1, init_ns=100, rss_peak_bytes=7, loop_ns=50, invoke_cpu_ns=60),
        make_block(job, 0, 1, [20, 20], init_ns=300, rss_peak_bytes=9, loop_ns=50, invoke_cpu_ns=80),
        make_block(job, 0, 2, [20, 20], init_ns=900, rss_peak_bytes=8, loop_ns=60, invoke_cpu_ns=100),
    )
    row = rows_by_variant(report_of(job=job, blocks=blocks, accuracy=(make_scores("none-none", 0),)))["none-none"]

    assert (row.init_ns, row.first_ns, row.warmup_ns, row.warmup_count) == (300, 4_000_000, 8_000_000, 5)
    assert (row.rss_peak_bytes, row.rss_anon_bytes) == (9, 40_000_002)
    assert (row.decode_ns, row.preprocess_ns, row.invoke_ns, row.postprocess_ns) == (6e5, 3e5, 1.5e6, 1e5)
    assert row.cores_used == 240 / 120
    assert row.own_overhead_ratio == 1 - 120 / 160
    assert (row.delegated_nodes, row.total_nodes) == (64, 65)


def test_accuracy_has_its_interval_and_its_difference_to_the_baseline():
    rows = rows_by_variant(FULL)
    row, baseline = rows["none-int8"], rows["none-none"]

    assert (row.target_correct, row.image_count) == (IMAGE_COUNT - 23, IMAGE_COUNT)
    assert row.target_accuracy_ratio == (IMAGE_COUNT - 23) / IMAGE_COUNT
    assert row.target_accuracy_low_ratio == pytest.approx(0.88380743)
    assert row.target_accuracy_high_ratio == pytest.approx(0.94657232)
    assert row.accuracy_difference_ratio == pytest.approx(-1 / IMAGE_COUNT)
    assert row.accuracy_difference_low_ratio < row.accuracy_difference_ratio < row.accuracy_difference_high_ratio
    assert (row.accuracy_p, row.accuracy_tie) == (1.0, True)
    assert (baseline.accuracy_difference_ratio, baseline.accuracy_p, baseline.accuracy_tie) == (None, None, None)


def test_an_accuracy_that_really_differs_is_no_tie():
    worse = replace(FULL, accuracy=(*FULL.accuracy[:1], make_scores("none-int8", 60), *FULL.accuracy[2:]))
    row = rows_by_variant(worse)["none-int8"]

    assert row.accuracy_difference_high_ratio < 0
    assert row.accuracy_p < 1e-6
    assert row.accuracy_tie is False


def test_flips_are_counted_by_cause():
    flips = (
        make_flip("none-int8", 1),
        make_flip("none-int8", 11),
        make_flip("none-int8", 3, cause="kernels"),
        make_flip("none-int8", 5, cause=None),
        make_flip("none-int8", 7, against="baseline", cause=None),
        make_flip("none-none", 9),
    )
    row = rows_by_variant(replace(FULL, flips=flips))["none-int8"]

    assert (row.flips_host, row.flips_host_pixels, row.flips_host_kernels, row.flips_baseline) == (4, 2, 1, 1)


def test_the_baseline_is_one_times_itself_and_ties_with_nobody():
    row = rows_by_variant(FULL)["none-none"]

    assert (row.ratio_to_baseline, row.latency_tie) == (1, None)


@pytest.mark.parametrize(
    ("low", "high", "tie"), [(0.98, 1.01, True), (1.0, 1.2, True), (0.9, 0.99, False), (1.01, 1.2, False)]
)
def test_a_ratio_whose_interval_holds_one_is_a_tie(low, high, tie):
    assert rows_by_variant(with_summary(1, ratio_low=low, ratio_high=high))["none-int8"].latency_tie is tie


def test_without_common_rounds_there_is_no_ratio_and_no_gain():
    report = with_summary(1, ratio=None, ratio_low=None, ratio_high=None)
    row = rows_by_variant(report)["none-int8"]

    assert (row.ratio_to_baseline, row.latency_tie, row.latency_gain, row.status) == (None, None, None, "valid")


def test_each_setting_of_an_artefact_is_a_row_in_the_order_of_the_job():
    cases = [make_case("none-none"), make_case("none-int8"), make_case("none-none", threads=4, cpus=(0, 1))]
    cases.append(make_case("none-none", runtime=TFLITE))
    comparison = build_comparison(MANIFEST, report_of(*cases, medians_ns=(400, 100, 200, 300)))
    rows = [row for row in comparison.rows if row.status == "valid"]

    assert [(row.variant, row.runtime, row.runtime_version, row.threads, row.cpus) for row in rows] == [
        ("none-none", "ai-edge-litert", "2.3.0", 1, (0, 1, 2, 3)),
        ("none-none", "ai-edge-litert", "2.3.0", 4, (0, 1)),
        ("none-none", "tflite-runtime", "2.14.0", 1, (0, 1, 2, 3)),
        ("none-int8", "ai-edge-litert", "2.3.0", 1, (0, 1, 2, 3)),
    ]
    assert [row.median_ns for row in rows] == [400, 200, 300, 100]
    assert (comparison.header.runtime, comparison.header.threads, comparison.header.cpus) == (None, None, None)


def test_answers_belong_to_the_runtime_that_gave_them_and_are_compared_within_it():
    cases = [
        make_case(variant, runtime=runtime) for variant in ("none-none", "none-int8") for runtime in (LITERT, TFLITE)
    ]
    wrong = {("none-none", LITERT): 0, ("none-none", TFLITE): 40, ("none-int8", LITERT): 10, ("none-int8", TFLITE): 50}
    scores = tuple(make_scores(variant, count, runtime=runtime) for (variant, runtime), count in wrong.items())
    comparison = build_comparison(MANIFEST, report_of(*cases, accuracy=scores))
    rows = {(row.variant, row.runtime): row for row in comparison.rows if row.runtime}

    assert [IMAGE_COUNT - row.target_correct for row in rows.values()] == [0, 40, 10, 50]
    for runtime in ("ai-edge-litert", "tflite-runtime"):
        assert rows["none-int8", runtime].accuracy_difference_ratio == pytest.approx(-10 / IMAGE_COUNT)
        assert rows["none-none", runtime].accuracy_difference_ratio is None


def test_a_runtime_without_the_baseline_is_compared_with_the_baseline_elsewhere():
    cases = [make_case("none-none"), make_case("none-int8", runtime=TFLITE)]
    scores = (make_scores("none-none", 0), make_scores("none-int8", 10, runtime=TFLITE))
    row = rows_by_variant(report_of(*cases, accuracy=scores))["none-int8"]

    assert row.accuracy_difference_ratio == pytest.approx(-10 / IMAGE_COUNT)


def test_an_artefact_that_one_runtime_refuses_is_a_row_of_its_own_there():
    refused = (Refused(sha("none-int8"), TFLITE, REFUSED_REASON),)
    comparison = build_comparison(MANIFEST, report_of("none-none", "none-int8", refused=refused))
    rows = [row for row in comparison.rows if row.variant == "none-int8"]

    assert [(row.runtime, row.status) for row in rows] == [
        ("ai-edge-litert", "valid"),
        ("tflite-runtime", f"refused: {REFUSED_REASON}"),
    ]
    assert comparison.header.runtime == "ai-edge-litert"


def test_what_was_not_measured_is_null_with_its_reason():
    failed = FailedBlock(1, 0, "the process was ended by SIGKILL")
    later = FailedBlock(1, 1, "a later reason")
    job = make_job("none-none", "magnitude50-none")
    blocks = make_blocks(job, [1_540_000])
    report = make_report(
        MANIFEST, job=job, blocks=blocks, failed=(failed, later), accuracy=(make_scores("none-none", 0),)
    )

    rows = rows_by_variant(report)

    assert {variant: row.status for variant, row in rows.items()} == {
        "none-none": "valid",
        "none-int8": "not run",
        "magnitude50-none": "failed: the process was ended by SIGKILL",
        "magnitude50-dynamic": f"refused: {REFUSED_REASON}",
        "magnitude50-int8": "not run",
        "magnitude75-int8": f"failed: conversion: {FAILURE_REASON}",
    }
    for variant in ("none-int8", "magnitude50-none", "magnitude50-dynamic", "magnitude75-int8"):
        names = MEASURED + ANSWERED
        assert {name: getattr(rows[variant], name) for name in names} == dict.fromkeys(names)
    assert (rows["magnitude50-none"].threads, rows["none-int8"].threads) == (1, None)
    assert rows["magnitude50-none"].size_bytes == 8_808_040
    assert rows["magnitude75-int8"].sha256 is None
    assert rows["magnitude75-int8"].size_bytes is None


def test_a_case_that_failed_in_a_later_round_keeps_what_was_measured_and_says_failed():
    kept = tuple(b for b in FULL.blocks if b.case_index != 1 or b.round_index < 2)
    failed = (FailedBlock(1, 2, "no result"),)
    row = rows_by_variant(replace(FULL, blocks=kept, failed=failed, summaries=make_summaries(FULL.job, kept)))[
        "none-int8"
    ]

    assert (row.status, row.queries, row.p90_ns) == ("failed: no result", 26, None)
    assert row.target_correct == IMAGE_COUNT - 23


def test_a_case_without_scores_is_not_valid():
    row = rows_by_variant(replace(FULL, accuracy=FULL.accuracy[1:]))["none-none"]

    assert (row.status, row.target_accuracy_ratio, row.queries) == ("failed: no scores in the report", None, 78)


@pytest.mark.parametrize(
    ("validity", "status"),
    [("valid", "valid"), (REPEATED, "repeated"), (UNSTABLE, "unstable"), (UNKNOWN, "throttle unknown")],
)
def test_the_status_says_how_far_a_latency_can_be_trusted(validity, status):
    row = rows_by_variant(with_summary(1, validity=validity, reasons=("because",)))["none-int8"]

    assert (row.status, row.validity, row.reasons) == (status, validity, ("because",))


def test_every_row_of_a_forced_job_says_so():
    report = with_summary(1, validity=UNKNOWN)
    forced = replace(
        report, job=replace(report.job, forced=True), problems=("too hot",), failed=(FailedBlock(2, 0, "x"),)
    )
    comparison = build_comparison(MANIFEST, forced)
    statuses = {row.variant: row.status for row in comparison.rows if row.forced}

    assert statuses == {
        "none-none": "forced, valid",
        "none-int8": "forced, throttle unknown",
        "magnitude50-none": "forced, failed: x",
        "magnitude50-int8": "forced, valid",
    }
    assert (comparison.header.forced, comparison.header.problems) == (True, ("too hot",))


def test_a_golden_beyond_its_tolerance_is_said():
    scores = replace(FULL.accuracy[1], golden_difference=0.0012)
    rows = rows_by_variant(replace(FULL, accuracy=(FULL.accuracy[0], scores, *FULL.accuracy[2:])))

    assert rows["none-int8"].status == "golden failed: scores differ by 0.0012 (0.001 allowed)"
    assert (rows["none-int8"].golden_within_tolerance, rows["none-none"].golden_within_tolerance) == (False, True)


def test_a_limit_compares_with_the_labels_of_the_selected_images():
    manifest = make_manifest(image_count=10)
    # Images 0, 3 and 6 of 10: labels 0, 1, 0.
    scores = replace(make_scores("none-none", 0, 3), scores=((0.9, 0.1), (0.2, 0.8), (0.4, 0.6)))
    job = make_job("none-none", rounds=1, limit=3)
    report = report_of(
        manifest=manifest, job=job, image_count=3, blocks=(make_block(job, 0, 0, [5]),), accuracy=(scores,)
    )

    row = rows_by_variant(report, manifest)["none-none"]

    assert (row.target_correct, row.image_count) == (2, 3)


def test_equal_scores_count_for_the_first_label_as_in_argmax():
    manifest = make_manifest(image_count=3)
    # Labels 0, 1, 0.
    scores: Scores = replace(make_scores("none-none", 0, 3), scores=((0.5, 0.5), (0.5, 0.5), (0.4, 0.6)))
    report = report_of("none-none", manifest=manifest, image_count=3, accuracy=(scores,))

    assert rows_by_variant(report, manifest)["none-none"].target_correct == 1


def test_nodes_that_differ_between_blocks_are_not_stated():
    report = replace(FULL, blocks=(replace(FULL.blocks[0], delegated_nodes=None), *FULL.blocks[1:]))

    row = rows_by_variant(report)["none-none"]

    assert (row.delegated_nodes, row.total_nodes) == (None, 65)


def test_plausibility_is_judged_with_the_clock_and_the_core_that_were_measured():
    kind = {"cpus": [0, 1, 2, 3], "name": "Cortex-A76", "implementer": 0x41, "part": 0xD0B, "max_hz": 2_400_000_000}
    environment = {**FULL.environment, "cpu_types": [kind]}
    slower = tuple(
        replace(block, samples=tuple(replace(sample, arm_clock_hz=1_500_000_000) for sample in block.samples))
        for block in FULL.blocks
    )
    row = rows_by_variant(replace(FULL, environment=environment, blocks=slower))["none-none"]

    assert row.peak_ratio == pytest.approx(58e6 / (row.median_ns / 1e9) / (8 * 1.5e9))
    assert (row.peak_core, row.peak_clock_hz, row.peak_reasons) == ("a Cortex-A76", 1.5e9, ())
    assert rows_by_variant(FULL)["none-none"].peak_reasons == ("multiply-adds per cycle of this core are not known",)
    (emulated,) = {
        row.peak_reasons
        for row in build_comparison(
            MANIFEST,
            report_of(
                "none-none",
                medians_ns=(10**9,),
                environment=environment,
                target="emulated",
                job=make_job("none-none", rounds=1, target="emulated"),
            ),
        ).rows
        if row.peak_core
    }
    assert emulated == ("the machine is emulated",)


def test_a_host_accuracy_over_no_images_is_null():
    manifest = make_manifest(entries=(make_entry("none-none", host_accuracy=HostAccuracy(0, 0, "none")),))

    assert rows_by_variant(report_of("none-none", manifest=manifest), manifest)["none-none"].host_accuracy_ratio is None


def pruned_rows(**changes):
    return rows_by_variant(make_pruned_report(PRUNED, **changes), PRUNED)


def parity_row(reference, correct, max_drop, passed, **changes):
    """The row of a baseline with that parity, measured in one round."""
    entry = make_entry(
        "none-none",
        host_accuracy=HostAccuracy(correct, IMAGE_COUNT, "x"),
        parity=Parity(reference, 271, IMAGE_COUNT, 0.25, max_drop, passed),
    )
    manifest = make_manifest(entries=(entry,), failures=())
    return rows_by_variant(report_of("none-none", manifest=manifest, **changes), manifest)["none-none"]


def test_a_row_tells_of_the_model_it_was_converted_from():
    row = pruned_rows()["filter50-none"]

    assert (row.keras_model, row.keras_size_bytes, row.keras_gzip_bytes) == ("filter50", 4_300_000, 3_900_000)
    assert (row.parameters, row.removed_filters_ratio, row.multiply_adds) == (1_052_000, 0.3512, 29_000_000)


def test_an_imported_file_has_no_model_and_no_parity():
    manifest = make_manifest(entries=(make_entry("mine", keras=None, parity=None),), failures=())
    row = rows_by_variant(report_of("mine", manifest=manifest), manifest)["mine"]

    assert (row.keras_model, row.parameters, row.multiply_adds) == (None, None, 58_000_000)
    assert (row.parity_passed, row.parity_drop_ratio, row.parity_equal_ratio) == (None, None, None)


def test_parity_stands_in_the_row():
    row = parity_row(reference=269, correct=268, max_drop=0.02, passed=True)

    assert (row.status, row.parity_passed, row.parity_max_drop_ratio) == ("valid", True, 0.02)
    assert row.parity_drop_ratio == pytest.approx(1 / IMAGE_COUNT)
    assert (row.parity_equal_ratio, row.parity_largest_difference) == (271 / IMAGE_COUNT, 0.25)


def test_what_failed_its_parity_keeps_its_figures_and_says_so():
    row = pruned_rows()["none-int8"]

    assert row.status == "parity failed: accuracy drops by 4.1 points (2.0 allowed); 93.4 % equal answers"
    assert None not in (row.median_ns, row.p90_ns, row.ratio_to_baseline, row.target_accuracy_ratio, row.rss_anon_bytes)


@pytest.mark.parametrize(
    ("max_drop", "shown"), [(0.02, "2.1 points (2.0 allowed)"), (0.0206, "2.07 points (2.06 allowed)")]
)
def test_a_failed_parity_shows_how_the_drop_is_above_what_is_allowed(max_drop, shown):
    assert shown in parity_row(reference=269, correct=263, max_drop=max_drop, passed=False).status


def test_what_was_not_measured_says_that_first():
    failed = (FailedBlock(0, 0, "the process was ended by SIGKILL"),)
    row = parity_row(269, 257, 0.02, False, blocks=(), accuracy=(), failed=failed)

    assert (row.status, row.parity_passed) == ("failed: the process was ended by SIGKILL", False)


def test_a_sparse_file_is_compared_with_its_dense_twin_through_the_baseline():
    report = make_pruned_report(PRUNED)
    report = with_summary(4, with_summary(3, report, ratio=0.5), ratio=0.75)
    row = rows_by_variant(report, PRUNED)["latency90-none"]

    assert (row.stored_sparse, row.sparse_eligible, row.sparse_layer) == (True, True, None)
    assert row.sparse_speedup_ratio == 1.5


def test_a_twin_in_another_setting_is_no_twin():
    cases = [make_case("none-none"), make_case("latency90-none"), make_case("latency90-none-twin", threads=4)]
    row = rows_by_variant(report_of(*cases, manifest=PRUNED), PRUNED)["latency90-none"]

    assert row.sparse_speedup_ratio is None


def test_the_twin_is_a_row_of_its_own_without_a_twin():
    row = pruned_rows()["latency90-none-twin"]

    assert row.dense_twin_of == sha("latency90-none")
    assert (row.stored_sparse, row.sparse_speedup_ratio, row.status) == (False, None, "valid")


def test_on_an_emulated_machine_nothing_is_faster_but_a_sparse_file_than_its_twin():
    report = make_pruned_report(PRUNED)
    measured = rows_by_variant(report, PRUNED)
    emulated = rows_by_variant(replace(report, job=replace(report.job, target="emulated"), target="emulated"), PRUNED)

    assert any(row.ratio_to_baseline is not None and row.latency_gain is not None for row in measured.values())
    for name, row in emulated.items():
        found = (row.ratio_to_baseline, row.ratio_low, row.ratio_high, row.latency_tie, row.latency_gain)
        assert found == (None,) * 5
        assert (row.median_ns, row.p90_ns) == (measured[name].median_ns, measured[name].p90_ns)
        assert row.sparse_speedup_ratio == measured[name].sparse_speedup_ratio


def test_without_its_twin_in_the_job_a_sparse_file_has_no_speedup():
    rows = rows_by_variant(report_of("none-none", "latency90-none", manifest=PRUNED), PRUNED)

    assert (rows["latency90-none"].sparse_speedup_ratio, rows["latency90-none-twin"].status) == (None, "not run")


def test_gains_are_times_smaller_or_faster_than_the_baseline():
    row = pruned_rows()["filter50-none"]

    assert row.file_gain == pytest.approx(8_808_040 / 4_100_000)
    assert row.gzip_gain == pytest.approx(8_159_264 / 3_800_000)
    assert row.memory_gain == pytest.approx((20_000_000 + 8 * 1_540_000) / (20_000_000 + 8 * 770_000))
    assert row.latency_gain == pytest.approx(1 / row.ratio_to_baseline)


def test_the_baseline_of_gains_is_the_first_case_of_the_job():
    rows = rows_by_variant(report_of("filter50-none", "none-none", manifest=PRUNED), PRUNED)

    assert (rows["filter50-none"].file_gain, rows["none-none"].file_gain) == (1.0, 1.0)
    assert rows["latency90-none"].file_gain == pytest.approx(4_100_000 / 1_530_000)
    assert build_comparison(PRUNED, report_of("filter50-none", manifest=PRUNED)).header.baseline == "filter50-none"


def test_a_gain_below_one_in_twenty_is_none():
    rows = rows_by_variant(with_summary(1, ratio=0.96, ratio_low=0.95, ratio_high=0.97))

    assert (rows["none-int8"].latency_gain, rows["none-int8"].memory_gain) == (1.0, 1.0)
    assert (rows["none-none"].file_gain, rows["none-none"].latency_gain) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "gain"),
    [
        ({"ratio_high": 0.99}, 2.0),
        ({"ratio_high": 1.0}, 1.0),
        ({"ratio_high": None, "ratio_low": None}, None),
        ({"ratio_high": 0.6, "validity": UNKNOWN}, 2.0),
        ({"ratio_high": 0.6, "validity": UNSTABLE}, None),
    ],
)
def test_latency_is_gained_only_where_the_whole_interval_says_so_and_the_row_is_stable(changes, gain):
    row = rows_by_variant(with_summary(1, **{"ratio": 0.5, "ratio_low": 0.4, **changes}))["none-int8"]

    assert row.latency_gain == gain


def test_nothing_is_gained_over_an_unstable_baseline():
    report = with_summary(0, with_summary(1, ratio=0.5, ratio_low=0.4, ratio_high=0.6), validity=UNSTABLE)

    assert rows_by_variant(report)["none-int8"].latency_gain is None


@pytest.mark.parametrize(("baseline", "is_float"), [("none-none", True), ("none-int8", False)])
def test_header_says_whether_the_baseline_is_a_float_file(baseline, is_float):
    assert build_comparison(MANIFEST, report_of(baseline)).header.baseline_is_float is is_float


def test_a_memory_gain_is_none_unless_every_round_shows_it():
    report = make_pruned_report(PRUNED)
    swapped = tuple(
        replace(block, rss_anon_bytes=40_000_000) if (block.case_index, block.round_index) == (2, 1) else block
        for block in report.blocks
    )
    row = rows_by_variant(replace(report, blocks=swapped), PRUNED)["filter50-none"]

    assert (row.memory_gain, row.latency_gain > 1.5) == (1.0, True)


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_gain_that_was_not_measured_is_null(unknown):
    blocks = tuple(replace(block, rss_anon_bytes=0) if block.case_index == unknown else block for block in FULL.blocks)
    rows = rows_by_variant(replace(FULL, blocks=blocks))

    assert (rows["none-int8"].memory_gain, rows["magnitude50-dynamic"].latency_gain) == (None, None)
    assert rows["magnitude50-dynamic"].gzip_gain > 5
    assert rows["magnitude75-int8"].file_gain is None


def test_a_report_that_is_not_whole_has_no_rows():
    with pytest.raises(ReportError, match="6 blocks or a failure of case 0"):
        build_comparison(MANIFEST, replace(FULL, blocks=FULL.blocks[1:]))


def test_header_states_the_conditions():
    header = build_comparison(MANIFEST, FULL).header

    assert (header.target, header.board) == ("pi", "Raspberry Pi 5 Model B Rev 1.0")
    assert (header.runtime, header.runtime_version) == ("ai-edge-litert", "2.3.0")
    assert (header.threads, header.cpus) == (1, (0, 1, 2, 3))
    assert (header.tier, header.image_count, header.baseline) == ("rapid", IMAGE_COUNT, "none-none")
    assert (header.job_id, header.date) == ("20261122T101500Z-0123456789ab", "2026-11-22 10:15")
    assert (header.forced, header.problems, header.blind_sensors) == (False, (), ())
    assert (header.pixels_different, header.largest_pixel_difference) == (None, None)


def test_header_says_on_how_many_images_the_pixels_are_not_the_hosts():
    pixels = {"compared": IMAGE_COUNT, "different": 12, "largest_difference": 1}
    header = build_comparison(MANIFEST, replace(FULL, extra={"pixels": pixels})).header

    assert (header.pixels_different, header.largest_pixel_difference) == (12, 1)


def test_header_says_why_throttling_is_not_visible_only_where_it_is_not():
    report = replace(FULL, sensors=without_throttling())

    assert build_comparison(MANIFEST, report).header.blind_sensors == ()
    assert build_comparison(MANIFEST, with_summary(1, report, validity=UNKNOWN)).header.blind_sensors == (
        "throttled_bits, cooling_state, throttle_count: no such file; add this user to the group video",
    )


@pytest.mark.parametrize(
    ("environment", "board"), [({"board_model": None, "cpu_model": "Xeon"}, "Xeon"), ({"board_model": None}, None)]
)
def test_header_names_the_processor_where_there_is_no_board_model(environment, board):
    assert build_comparison(MANIFEST, make_report(MANIFEST, environment=environment)).header.board == board


@pytest.mark.parametrize("job_id", ["", "first", "2026", "20261122"])
def test_header_has_no_date_where_the_job_id_holds_none(job_id):
    job = replace(FULL.job, job_id=job_id)

    assert build_comparison(MANIFEST, replace(FULL, job=job)).header.date is None
