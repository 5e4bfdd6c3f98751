from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import (
    LITERT,
    TFLITE,
    make_block,
    make_case,
    make_flip,
    make_job,
    make_manifest,
    make_report,
    make_scores,
    make_summaries,
    sha,
)

from liteship.errors import ReportError
from liteship.report.checks import check_report
from liteship_agent.images import selected_images
from liteship_agent.report import REPEATED, VOID, FailedBlock, Refused

MANIFEST = make_manifest()
FULL = make_report(MANIFEST)
BLOCK, SCORES = FULL.blocks[0], FULL.accuracy[0]
OTHER = sha("not in the manifest")


def check(report, manifest=MANIFEST):
    check_report(manifest, report, selected_images(manifest, report.job.limit))


def changed_block(**changes):
    """The report with another first block, which is of case 0 in round 0."""
    return replace(FULL, blocks=(replace(BLOCK, **changes), *FULL.blocks[1:]))


def changed_scores(**changes):
    return replace(FULL, accuracy=(replace(SCORES, **changes), *FULL.accuracy[1:]))


def changed_case(**changes):
    cases = (replace(FULL.job.cases[0], **changes), *FULL.job.cases[1:])
    return replace(FULL, job=replace(FULL.job, cases=cases))


def without_case(index):
    """The report without the blocks of a case."""
    blocks = tuple(block for block in FULL.blocks if block.case_index != index)
    return replace(FULL, blocks=blocks, summaries=make_summaries(FULL.job, blocks))


def flipped(**changes):
    return replace(FULL, flips=(replace(make_flip("none-int8", 1), **changes),))


def damaged_reports():
    yield "other manifest", replace(FULL, manifest_sha256="f" * 64), "report on manifest .* is required. Received: ffff"
    yield "other target", replace(FULL, target="otherboard"), "A report of pi is required. Received: one of otherboard"
    yield "foreign case", changed_case(artefact=OTHER), "job: the sha256 of an artefact in the manifest"
    yield "foreign refusal", replace(FULL, refused=(Refused(OTHER, LITERT, "x"),)), "refused artefact: the sha256"
    yield (
        "unknown runtime",
        changed_case(runtime="folder"),
        "folder of one of its runtimes is .* Received: folder",
    )
    yield "case out of range", changed_block(case_index=4), "block: a case from 0 to 3 is required. Received: 4"
    yield "case below 0", changed_block(case_index=-1), "block: a case from 0 to 3 is required. Received: -1"
    yield "failure out of range", replace(FULL, failed=(FailedBlock(9, 0, "x"),)), "failed block: a case from 0 to 3"
    yield "round out of range", changed_block(round_index=6), "block: a round from 0 to 5 is required. Received: 6"
    yield "failed round", replace(FULL, failed=(FailedBlock(0, 6, "x"),)), "failed block: a round from 0 to 5"
    canary = replace(FULL.canaries[0], round_index=6)
    yield "canary round", replace(FULL, canaries=(canary,)), "canary: a round from 0 to 5"
    yield "validity of a block", changed_block(validity="repeated"), "of a block: one of valid, void, unknown is"
    canary = replace(FULL.canaries[0], validity="fine")
    yield "validity of a canary", replace(FULL, canaries=(canary,)), "validity of a canary: .* Received: fine"
    summary = replace(FULL.summaries[0], validity=VOID)
    summaries = (summary, *FULL.summaries[1:])
    yield "validity of a case", replace(FULL, summaries=summaries), "of a case: one of valid, repeated, unstable, unk"
    yield "other artefact", changed_block(artefact=sha("none-int8")), "block of case 0 with artefact .* is required"
    yield "other threads", changed_block(threads=4), "block of case 0 with threads 1 is required. Received: 4"
    yield "other CPUs", changed_block(cpus=(0, 1)), r"with CPUs \(0, 1, 2, 3\) is required. Received: \(0, 1\)"
    yield "other version", changed_block(runtime_version="1"), "runtime ai-edge-litert==2.3.0 is required. .*litert==1"
    yield "no latencies", changed_block(latencies_ns=()), "latencies above 0 ns is required. Received: 0 latencies"
    yield "latency of 0", changed_block(latencies_ns=(5, 0)), "above 0 ns .* smallest 0"
    yield "end to end of 0", changed_block(end_to_end_ns=(0,)), "above 0 ns"
    yield "block twice", replace(FULL, blocks=(*FULL.blocks, BLOCK)), "Attempts 0 to 1 of case 0 in round 0.*: 0, 0"
    yield "gap in attempts", changed_block(attempt=1), "Attempts 0 to 0 of case 0 in round 0.*Received: 1"
    yield "round missing", replace(FULL, blocks=FULL.blocks[1:]), "6 blocks or a failure of case 0 .* Received: 5"
    yield "neither block nor failure", without_case(0), "6 blocks or a failure of case 0 .* Received: neither"
    yield "no summary", replace(FULL, summaries=FULL.summaries[1:]), "measured cases 0, 1, 2, 3 is .* Received: 1, 2, 3"
    yield "no summaries", replace(FULL, summaries=()), "Received: none"
    yield "summary twice", replace(FULL, summaries=(*FULL.summaries, FULL.summaries[0])), "Received: 0, 0, 1, 2, 3"
    summaries = (replace(FULL.summaries[0], case_index=4), *FULL.summaries)
    yield "summary out of range", replace(FULL, summaries=summaries), "summary: a case from 0 to 3"
    yield "image count", replace(FULL, image_count=289), "290 images that the job selects are required. Received: 289"
    yield "foreign scores", changed_scores(artefact=OTHER), "scores: an artefact and runtime of the job"
    yield "scores of another runtime", changed_scores(runtime=TFLITE), "scores: an artefact and runtime of the job"
    yield "scores twice", replace(FULL, accuracy=(*FULL.accuracy, SCORES)), "once are required. Received: 2 times"
    yield "missing image", changed_scores(scores=SCORES.scores[1:]), "for 290 images are required. Received: 289"
    yield "missing hash", changed_scores(pixel_hashes=("a",)), "Hashes of the pixels .* 290 images .* Received: 1"
    yield "missing label", changed_scores(scores=((1.0,), *SCORES.scores[1:])), "2 labels are required. Received: 1"
    yield "pixels as a list", replace(FULL, extra={"pixels": [1]}), "pixels as an object of counts"
    yield "pixels in words", replace(FULL, extra={"pixels": {"different": "x"}}), "pixels as an object of counts"
    yield "flip without scores", flipped(runtime=TFLITE), "flip: an artefact and runtime with scores"
    yield "flip of no image", flipped(path="cat/a.jpg"), "flip: an image that the job selects .*: 'cat/a.jpg'"
    yield "flip to no label", flipped(received=2), "flip: a label from 0 to 1 is required. Received: 2"
    yield "flip against nobody", flipped(against="me"), "flip: against: one of host, baseline is required. Received: me"
    yield "flip by magic", flipped(cause="magic"), "flip: cause: one of pixels, kernels, None"


@pytest.mark.parametrize(
    ("report", "message"), [pytest.param(report, message, id=name) for name, report, message in damaged_reports()]
)
def test_a_report_whose_parts_do_not_belong_together_is_refused(report, message):
    with pytest.raises(ReportError, match=message) as raised:
        check(report)

    assert raised.value.exit_code == 6
    assert raised.value.hint
    assert "\n" not in str(raised.value)


def test_a_whole_report_is_accepted():
    check(FULL)
    check(replace(FULL, flips=(make_flip("none-int8", 1),), extra={"pixels": {"different": 3, "largest": None}}))


def test_a_repeated_block_has_its_attempts_in_any_order():
    again = replace(BLOCK, attempt=1)
    void = replace(BLOCK, validity=VOID, reasons=("throttled",))

    summaries = (replace(FULL.summaries[0], repeated=1, validity=REPEATED), *FULL.summaries[1:])

    check(replace(FULL, blocks=(again, *FULL.blocks[1:], void), summaries=summaries))


def summarized(**changes):
    return replace(FULL, summaries=(FULL.summaries[0], replace(FULL.summaries[1], **changes), *FULL.summaries[2:]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"median_ns": 1.0}, "case 1 with median_ns 18.*, as its blocks say, is required. Received: 1.0"),
        ({"queries": 77}, "with queries 78"),
        ({"blocks": 5}, "with blocks 6"),
        ({"repeated": 1}, "with repeated 0"),
        ({"void": 1}, "with void 0"),
        ({"validity": "unstable"}, "with validity valid.* Received: unstable"),
        ({"median_low_ns": 1e9}, "median_ns above 0 and in its interval is required"),
        ({"p90_high_ns": 1.0}, "p90_ns above 0 and in its interval"),
        ({"p90_ns": 1.0}, "with p90_ns 18.*, as its blocks say"),
        ({"p90_ns": None, "p90_low_ns": None, "p90_high_ns": None}, r"with p90_ns 18.* Received: None\."),
        ({"p90_bound_ns": 0.0}, "with p90_bound_ns 18.*, as its blocks say"),
        (
            {"ratio": 0.5, "ratio_low": 0.4, "ratio_high": 0.6},
            r"with ratio 1\.16.*, as its blocks say.* Received: 0\.5\. ",
        ),
        ({"ratio": None, "ratio_low": None, "ratio_high": None}, r"with ratio 1\.16"),
        ({"ratio_high": 1.0}, "ratio above 0 and in its interval"),
        ({"ratio_low": -1.0}, "ratio above 0 and in its interval"),
        ({"end_to_end_median_ns": -1.0}, "end_to_end_median_ns above 0"),
    ],
)
def test_a_summary_that_is_not_of_its_blocks_is_refused(changes, message):
    with pytest.raises(ReportError, match=message):
        check(summarized(**changes))


@pytest.mark.parametrize(
    "environment",
    [
        *({"cpu_types": kinds} for kinds in (5, ["a"], [{}], [{"cpus": 3}], [{"cpus": [[]]}])),
        {"cpu_types": [{"cpus": [0], "max_hz": "fast"}]},
        {"cpu_types": [{"cpus": [0], "part": []}]},
        *({"cpu_flags": flags} for flags in (7, [[]])),
        *({"cpu_mhz": clock} for clock in ("fast", 0, -1.0, [1], 10**400)),
    ],
)
def test_an_environment_of_another_form_is_refused(environment):
    with pytest.raises(ReportError, match=f"environment: {next(iter(environment))}"):
        check(replace(FULL, environment=environment))


def test_sensors_of_another_form_are_refused():
    with pytest.raises(ReportError, match="sensors: throttled_bits as an object"):
        check(replace(FULL, sensors={"throttled_bits": "yes"}))


def test_a_report_without_cases_is_refused():
    with pytest.raises(ReportError, match="at least one case"):
        check(replace(FULL, job=replace(FULL.job, cases=()), blocks=(), summaries=(), accuracy=(), refused=()))


def test_finished_rounds_of_a_failed_case_remain():
    blocks = tuple(block for block in FULL.blocks if block.case_index != 1 or block.round_index < 2)

    failed = (FailedBlock(1, 2, "the process was ended by SIGKILL"),)
    check(replace(FULL, blocks=blocks, failed=failed, summaries=make_summaries(FULL.job, blocks)))


def test_a_case_may_fail_without_a_block():
    check(replace(without_case(1), failed=(FailedBlock(1, 0, "it never returned"),)))


def test_one_artefact_in_two_settings_has_scores_once_for_each_runtime():
    job = make_job(
        make_case("none-none"),
        make_case("none-none", threads=4),
        make_case("none-none", runtime=TFLITE, cpus=(0,)),
        rounds=1,
    )
    blocks = tuple(make_block(job, index, 0, [5]) for index in range(3))
    accuracy = (make_scores("none-none", 0), make_scores("none-none", 0, runtime=TFLITE))

    check(make_report(MANIFEST, job=job, blocks=blocks, accuracy=accuracy, refused=()))
