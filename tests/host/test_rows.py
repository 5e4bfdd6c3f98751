from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import (
    FAILURE_REASON,
    IMAGE_COUNT,
    REFUSED_REASON,
    make_block,
    make_entry,
    make_job,
    make_manifest,
    make_pruned_manifest,
    make_pruned_report,
    make_report,
    make_scores,
    sha,
)

from liteship.errors import ReportError
from liteship.report.rows import build_header, build_rows
from liteship_agent.job import Job
from liteship_agent.manifest import HostAccuracy, Parity
from liteship_agent.report import FailedBlock, Scores

MANIFEST = make_manifest()
PRUNED = make_pruned_manifest()
MEASURED = ("target_correct", "image_count", "target_accuracy_ratio", "target_accuracy_low_ratio")
MEASURED += ("target_accuracy_high_ratio", "median_ns", "p90_ns", "end_to_end_median_ns", "ratio_to_float")
MEASURED += (
    "memory_gain",
    "latency_gain",
    "rss_anon_bytes",
    "runtime",
    "runtime_version",
    "threads",
    "delegated_nodes",
    "total_nodes",
    "queries",
)


def rows_by_variant(report, manifest=MANIFEST):
    return {row.variant: row for row in build_rows(manifest, report)}


def report_of(*variants, **changes):
    """A report whose only job was these variants, with no parts yet."""
    parts = {"blocks": (), "accuracy": (), "extra": {}, "job": make_job(*variants, rounds=1)}
    return make_report(MANIFEST, **{**parts, **changes})


def test_rows_stand_in_manifest_order_and_failures_come_last():
    rows = build_rows(MANIFEST, make_report(MANIFEST))

    assert [row.variant for row in rows] == [
        *(entry.variant for entry in MANIFEST.entries),
        "magnitude75-int8",
    ]


def test_a_measured_row_has_every_figure():
    row = rows_by_variant(make_report(MANIFEST))["none-int8"]

    assert (row.sha256, row.status) == (sha("none-int8"), "ok")
    assert (row.size_bytes, row.gzip_bytes, row.requested_sparsity) == (2_652_912, 2_301_004, 0.0)
    assert (row.target_correct, row.image_count) == (IMAGE_COUNT - 23, IMAGE_COUNT)
    assert row.target_accuracy_ratio == (IMAGE_COUNT - 23) / IMAGE_COUNT
    assert row.target_accuracy_low_ratio == pytest.approx(0.88380743)
    assert row.target_accuracy_high_ratio == pytest.approx(0.94657232)
    assert row.host_accuracy_ratio == 268 / IMAGE_COUNT
    assert (row.median_ns, row.p90_ns, row.end_to_end_median_ns) == (1_820_000, 1_840_000, 2_820_000)
    assert row.ratio_to_float == pytest.approx(1_820 / 1_560)
    assert row.rss_anon_bytes == 40_000_004
    assert (row.runtime, row.runtime_version, row.threads) == ("ai-edge-litert", "2.3.0", 1)
    assert (row.delegated_nodes, row.total_nodes, row.queries) == (64, 65, 65)


def test_the_baseline_is_one_times_itself():
    assert rows_by_variant(make_report(MANIFEST))["none-none"].ratio_to_float == 1


def test_the_ratio_is_the_median_over_rounds_so_that_drift_of_the_board_cancels():
    slow_rounds = [(1000, 500), (4000, 2000), (9000, 4500)]
    blocks = []
    for index, (baseline, other) in enumerate(slow_rounds):
        blocks += [make_block("none-none", index, (baseline,)), make_block("none-int8", index, (other,) * 3)]
    blocks.append(make_block("none-int8", 3, (100_000,)))
    report = report_of(
        job=make_job("none-none", "none-int8", rounds=4),
        blocks=tuple(blocks),
        failed=(FailedBlock(sha("none-none"), 3, "the process was ended by SIGKILL"),),
        accuracy=(make_scores("none-none", 0), make_scores("none-int8", 0)),
    )

    assert rows_by_variant(report)["none-int8"].ratio_to_float == 0.5


def test_without_a_block_of_the_baseline_there_is_no_ratio():
    report = report_of("none-int8", blocks=(make_block("none-int8", 0, (5,)),), accuracy=(make_scores("none-int8", 0),))

    row = rows_by_variant(report)["none-int8"]

    assert (row.ratio_to_float, row.median_ns, row.status) == (None, 5, "ok")


def test_below_64_queries_there_is_no_p90():
    block = make_block("none-none", 0, tuple(range(1, 64)))
    row = rows_by_variant(report_of("none-none", blocks=(block,), accuracy=(make_scores("none-none", 0),)))["none-none"]

    assert (row.queries, row.median_ns, row.p90_ns) == (63, 32, None)


def test_what_was_not_measured_is_null_with_its_reason():
    failed = FailedBlock(sha("magnitude50-none"), 0, "the process was ended by SIGKILL")
    later = FailedBlock(sha("magnitude50-none"), 1, "a later reason")
    full = make_report(MANIFEST)
    report = replace(
        full,
        job=replace(full.job, artefacts=(sha("none-none"), sha("magnitude50-none"))),
        blocks=tuple(block for block in full.blocks if block.artefact == sha("none-none")),
        accuracy=(make_scores("none-none", 0),),
        failed=(failed, later),
    )

    rows = rows_by_variant(report)

    assert {variant: row.status for variant, row in rows.items()} == {
        "none-none": "ok",
        "none-int8": "not run",
        "magnitude50-none": "failed: the process was ended by SIGKILL",
        "magnitude50-dynamic": f"refused: {REFUSED_REASON}",
        "magnitude50-int8": "not run",
        "magnitude75-int8": f"failed: conversion: {FAILURE_REASON}",
    }
    for variant in ("none-int8", "magnitude50-none", "magnitude50-dynamic", "magnitude75-int8"):
        assert {name: getattr(rows[variant], name) for name in MEASURED} == dict.fromkeys(MEASURED)
    assert rows["magnitude50-none"].size_bytes == 8_808_040
    assert rows["magnitude75-int8"].sha256 is None
    assert rows["magnitude75-int8"].size_bytes is None


def test_an_artefact_that_failed_in_a_later_round_keeps_what_was_measured_and_says_failed():
    full = make_report(MANIFEST)
    kept = tuple(b for b in full.blocks if b.artefact != sha("none-int8") or b.round_index < 2)
    row = rows_by_variant(replace(full, blocks=kept, failed=(FailedBlock(sha("none-int8"), 2, "no result"),)))[
        "none-int8"
    ]

    assert (row.status, row.queries, row.p90_ns) == ("failed: no result", 26, None)
    assert row.target_correct == IMAGE_COUNT - 23


def test_an_artefact_without_scores_does_not_say_ok():
    full = make_report(MANIFEST)
    row = rows_by_variant(replace(full, accuracy=full.accuracy[1:]))["none-none"]

    assert (row.status, row.target_accuracy_ratio, row.queries) == ("failed: no scores in the report", None, 65)


def test_a_limit_compares_with_the_labels_of_the_selected_images():
    manifest = make_manifest(image_count=10)
    # Images 0, 3 and 6 of 10: labels 0, 1, 0.
    report = make_report(
        manifest,
        job=make_job("none-none", rounds=1, limit=3),
        image_count=3,
        blocks=(make_block("none-none", 0, (5,)),),
        accuracy=(Scores(sha("none-none"), ((0.9, 0.1), (0.2, 0.8), (0.4, 0.6))),),
        extra={},
    )

    row = rows_by_variant(report, manifest)["none-none"]

    assert (row.target_correct, row.image_count) == (2, 3)


def test_equal_scores_count_for_the_first_label_as_in_argmax():
    manifest = make_manifest(image_count=3)
    # Labels 0, 1, 0.
    report = make_report(
        manifest,
        job=make_job("none-none", rounds=1),
        image_count=3,
        blocks=(make_block("none-none", 0, (5,)),),
        accuracy=(Scores(sha("none-none"), ((0.5, 0.5),) * 3),),
        extra={},
    )

    assert rows_by_variant(report, manifest)["none-none"].target_correct == 2


def test_an_unknown_memory_figure_is_null_and_not_zero():
    full = make_report(MANIFEST)
    report = replace(full, blocks=tuple(replace(block, rss_anon_bytes=0) for block in full.blocks))

    assert rows_by_variant(report)["none-none"].rss_anon_bytes is None


def test_nodes_that_differ_between_blocks_are_not_stated():
    full = make_report(MANIFEST)
    report = replace(full, blocks=(replace(full.blocks[0], delegated_nodes=None), *full.blocks[1:]))

    row = rows_by_variant(report)["none-none"]

    assert (row.delegated_nodes, row.total_nodes) == (None, 65)


def test_a_host_accuracy_over_no_images_is_null():
    manifest = make_manifest(entries=(make_entry("none-none", host_accuracy=HostAccuracy(0, 0, "none")),))
    report = make_report(manifest, job=make_job(), blocks=(), accuracy=(), extra={})

    assert rows_by_variant(report, manifest)["none-none"].host_accuracy_ratio is None


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
    parts = {"blocks": (make_block("none-none", 0, (5,)),), "accuracy": (make_scores("none-none", 0),), "extra": {}}
    return rows_by_variant(
        make_report(manifest, **{"job": make_job("none-none", rounds=1), **parts, **changes}), manifest
    )["none-none"]


def test_a_row_tells_of_the_model_it_was_converted_from():
    row = pruned_rows()["filter50-none"]

    assert (row.keras_model, row.keras_size_bytes, row.keras_gzip_bytes) == ("filter50", 4_300_000, 3_900_000)
    assert (row.parameters, row.removed_filters_ratio, row.multiply_adds) == (1_052_000, 0.3512, 29_000_000)


def test_an_imported_file_has_no_model_and_no_parity():
    manifest = make_manifest(entries=(make_entry("mine", keras=None, parity=None),), failures=())
    row = rows_by_variant(make_report(manifest, job=make_job(), blocks=(), accuracy=(), extra={}), manifest)["mine"]

    assert (row.keras_model, row.parameters, row.multiply_adds) == (None, None, 58_000_000)
    assert (row.parity_passed, row.parity_drop_ratio, row.parity_equal_ratio) == (None, None, None)


def test_parity_stands_in_the_row():
    row = parity_row(reference=269, correct=268, max_drop=0.02, passed=True)

    assert (row.status, row.parity_passed, row.parity_max_drop_ratio) == ("ok", True, 0.02)
    assert row.parity_drop_ratio == pytest.approx(1 / IMAGE_COUNT)
    assert (row.parity_equal_ratio, row.parity_largest_difference) == (271 / IMAGE_COUNT, 0.25)


def test_what_failed_its_parity_keeps_its_figures_and_says_so():
    row = pruned_rows()["none-int8"]

    assert row.status == "parity failed: accuracy drops by 4.1 points (2.0 allowed); 93.4 % equal answers"
    assert None not in (row.median_ns, row.p90_ns, row.ratio_to_float, row.target_accuracy_ratio, row.rss_anon_bytes)


@pytest.mark.parametrize(
    ("max_drop", "shown"), [(0.02, "2.1 points (2.0 allowed)"), (0.0206, "2.07 points (2.06 allowed)")]
)
def test_a_failed_parity_shows_how_the_drop_is_above_what_is_allowed(max_drop, shown):
    assert shown in parity_row(reference=269, correct=263, max_drop=max_drop, passed=False).status


def test_what_was_not_measured_says_that_first():
    failed = (FailedBlock(sha("none-none"), 0, "the process was ended by SIGKILL"),)
    row = parity_row(269, 257, 0.02, False, blocks=(), accuracy=(), failed=failed)

    assert (row.status, row.parity_passed) == ("failed: the process was ended by SIGKILL", False)


def test_a_sparse_file_is_compared_with_its_dense_twin_round_by_round():
    report = make_pruned_report(PRUNED)
    slower = tuple(
        replace(block, latencies_ns=tuple(9 * latency for latency in block.latencies_ns))
        if block.round_index == 1 and block.artefact in (sha("latency90-none"), sha("latency90-none-twin"))
        else block
        for block in report.blocks
    )
    row = rows_by_variant(replace(report, blocks=slower), PRUNED)["latency90-none"]

    assert (row.stored_sparse, row.sparse_eligible, row.sparse_layer) == (True, True, None)
    assert row.sparse_speedup_ratio == pytest.approx(1_630 / 1_600)


def test_the_twin_is_a_row_of_its_own_without_a_twin():
    row = pruned_rows()["latency90-none-twin"]

    assert row.dense_twin_of == sha("latency90-none")
    assert (row.stored_sparse, row.sparse_speedup_ratio, row.status) == (False, None, "ok")


def test_without_its_twin_in_the_job_a_sparse_file_has_no_speedup():
    report = make_pruned_report(PRUNED)
    twin = sha("latency90-none-twin")
    job = replace(report.job, artefacts=tuple(sha256 for sha256 in report.job.artefacts if sha256 != twin))
    blocks = tuple(block for block in report.blocks if block.artefact != twin)
    accuracy = tuple(scores for scores in report.accuracy if scores.artefact != twin)
    rows = rows_by_variant(replace(report, job=job, blocks=blocks, accuracy=accuracy), PRUNED)

    assert (rows["latency90-none"].sparse_speedup_ratio, rows["latency90-none-twin"].status) == (None, "not run")


def test_gains_are_times_smaller_or_faster_than_the_baseline():
    row = pruned_rows()["filter50-none"]

    assert row.file_gain == pytest.approx(8_808_040 / 4_100_000)
    assert row.gzip_gain == pytest.approx(8_159_264 / 3_800_000)
    assert row.memory_gain == pytest.approx((20_000_000 + 8 * 1_540_000) / (20_000_000 + 8 * 770_000))
    assert row.latency_gain == pytest.approx(1 / row.ratio_to_float)


def test_a_gain_below_one_in_twenty_is_none():
    rows = pruned_rows()

    assert rows["none-int8"].ratio_to_float == pytest.approx(1_630 / 1_640)
    assert (rows["none-int8"].latency_gain, rows["none-int8"].memory_gain) == (1.0, 1.0)
    assert (rows["none-none"].file_gain, rows["none-none"].latency_gain) == (1.0, 1.0)


def test_a_measured_gain_is_none_unless_every_round_shows_it():
    report = make_pruned_report(PRUNED)
    swapped = tuple(
        replace(block, latencies_ns=(1_640_000,) * 13, rss_anon_bytes=40_000_000)
        if (block.artefact, block.round_index) == (sha("filter50-none"), 1)
        else block
        for block in report.blocks
    )
    row = rows_by_variant(replace(report, blocks=swapped), PRUNED)["filter50-none"]

    assert row.ratio_to_float < 0.6
    assert (row.latency_gain, row.memory_gain) == (1.0, 1.0)
    assert row.file_gain > 2


@pytest.mark.parametrize("unknown", ["none-none", "none-int8"])
def test_a_gain_that_was_not_measured_is_null(unknown):
    full = make_report(MANIFEST)
    blocks = tuple(
        replace(block, rss_anon_bytes=0) if block.artefact == sha(unknown) else block for block in full.blocks
    )
    rows = rows_by_variant(replace(full, blocks=blocks))

    assert (rows["none-int8"].memory_gain, rows["magnitude50-dynamic"].latency_gain) == (None, None)
    assert rows["magnitude50-dynamic"].gzip_gain > 5
    assert rows["magnitude75-int8"].file_gain is None


def damaged_reports():
    full = make_report(MANIFEST)
    block, scores = full.blocks[0], full.accuracy[0]
    other = sha("not in the manifest")
    yield "other manifest", replace(full, manifest_sha256="f" * 64), "manifest"
    yield "foreign job", replace(full, job=replace(full.job, artefacts=(*full.job.artefacts, other))), "in the manifest"
    yield "foreign block", replace(full, blocks=(*full.blocks, replace(block, artefact=other))), "block: .* in the job"
    yield "foreign failure", replace(full, failed=(FailedBlock(other, 0, "x"),)), "failed block: .* in the job"
    yield "foreign scores", replace(full, accuracy=(*full.accuracy, replace(scores, artefact=other))), "scores: .*job"
    yield "foreign refusal", replace(full, extra={"refused": {other: "x"}}), "refused artefact: .* in the manifest"
    yield "refused as a list", replace(full, extra={"refused": [other]}), "refused as an object"
    yield "refused without text", replace(full, extra={"refused": {sha("none-none"): 1}}), "refused as an object"
    yield "block of an artefact not asked for", replace(full, job=make_job("none-none")), "block: .* in the job"
    yield "round twice", replace(full, blocks=(*full.blocks, block)), "One block of .* Received: 2"
    yield "scores twice", replace(full, accuracy=(*full.accuracy, scores)), "once are required. Received: 2 times"
    yield "no latencies", replace(full, blocks=(replace(block, latencies_ns=()), *full.blocks[1:])), "latencies above 0"
    yield "latency of 0", replace(full, blocks=(replace(block, latencies_ns=(5, 0)), *full.blocks[1:])), "above 0 ns"
    yield "end to end of 0", replace(full, blocks=(replace(block, end_to_end_ns=(0,)), *full.blocks[1:])), "above 0 ns"
    yield "two runtimes", replace(full, blocks=(replace(block, runtime_version="1"), *full.blocks[1:])), "One runtime"
    yield "other threads", replace(full, blocks=(replace(block, threads=4), *full.blocks[1:])), "1 threads are required"
    yield "image count", replace(full, image_count=289), "290 images that the job selects are required. Received: 289"
    short = replace(scores, scores=scores.scores[1:])
    yield "missing image", replace(full, accuracy=(short, *full.accuracy[1:])), "290 images are required. Received: 289"
    narrow = replace(scores, scores=((1.0,), *scores.scores[1:]))
    yield "missing label", replace(full, accuracy=(narrow, *full.accuracy[1:])), "2 labels are required. Received: 1"
    gone = tuple(part for part in full.blocks if part.artefact != block.artefact)
    yield "round missing", replace(full, blocks=full.blocks[1:]), "blocks or a failure of artefact"
    yield "other target", replace(full, target="otherboard"), "Received: one of otherboard"
    yield "neither block nor failure", replace(full, blocks=gone), "a failure of artefact .* Received: neither"


@pytest.mark.parametrize(
    ("report", "message"), [pytest.param(report, message, id=name) for name, report, message in damaged_reports()]
)
def test_a_report_whose_parts_do_not_belong_together_is_refused(report, message):
    with pytest.raises(ReportError, match=message) as raised:
        build_rows(MANIFEST, report)

    assert raised.value.exit_code == 6
    assert raised.value.hint
    assert "\n" not in str(raised.value)


def test_header_states_the_conditions():
    header = build_header(MANIFEST, make_report(MANIFEST))

    assert (header.target, header.board) == ("pi", "Raspberry Pi 5 Model B Rev 1.0")
    assert (header.runtime, header.runtime_version, header.threads) == ("ai-edge-litert", "2.3.0", 1)
    assert (header.tier, header.image_count, header.baseline) == ("rapid", IMAGE_COUNT, "none-none")
    assert (header.job_id, header.date) == ("20261122T101500Z-0123456789ab", "2026-11-22 10:15")


@pytest.mark.parametrize(
    ("environment", "board"), [({"board_model": None, "cpu_model": "Xeon"}, "Xeon"), ({"board_model": None}, None)]
)
def test_header_names_the_processor_where_there_is_no_board_model(environment, board):
    assert build_header(MANIFEST, make_report(MANIFEST, environment=environment)).board == board


@pytest.mark.parametrize("job_id", ["", "first", "2026", "20261122"])
def test_header_has_no_date_where_the_job_id_holds_none(job_id):
    job: Job = make_job("none-none", job_id=job_id)

    assert build_header(MANIFEST, make_report(MANIFEST, job=job)).date is None
