"""Whether a report belongs to a manifest and is whole.

Every part must name an artefact, case, image or label that the manifest and the job know, every case must have been
run as the job asks for, and whatever was asked for must have been measured, have failed or have been refused. The
summaries must be those of the blocks.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence

from liteship.errors import ReportError
from liteship.report.summary import case_validity, counting_blocks, ratio_to
from liteship.stats import early_stopping_p90, median, p90
from liteship_agent.job import Job
from liteship_agent.manifest import Manifest, ValidationImage
from liteship_agent.report import REPEATED, UNKNOWN, UNSTABLE, VALID, VOID, Block, Report, Scores, Summary

_REPEAT = "Run the bench again."
_BLOCK_WORDS = (VALID, VOID, UNKNOWN)
_CASE_WORDS = (VALID, REPEATED, UNSTABLE, UNKNOWN)
_LARGEST = 2**63
_ROUNDING = 1e-9
_AGAINST = ("host", "baseline")
_CAUSES = ("pixels", "kernels", None)


def check_report(manifest: Manifest, report: Report, images: Sequence[ValidationImage]) -> None:
    """Every part of a report is of this manifest, was asked for, and is complete.

    Args:
        manifest: What the report says that it was made from.
        report: Of one job.
        images: Those that the job selects.

    Raises:
        ReportError: the report was made from another manifest, one of its parts names what is not in the job or the
            manifest, or a part is incomplete or stands there twice.
    """
    _check_origin(manifest, report)
    _check_environment(report)
    _check_indices(report)
    for block in report.blocks:
        _check_block(report.job, block)
    _check_attempts(report)
    _check_complete(report)
    _check_summaries(report)
    check_figures(report)
    _check_scores(manifest, report, len(images))
    _check_flips(manifest, report, images)


def check_figures(report: Report) -> None:
    """What is cheap to tell of each summary is that of its blocks, and every figure lies in its interval.

    Raises:
        ReportError: a figure is another one, not above 0, or outside its interval.
    """
    baseline = counting_blocks(report, 0)
    for summary in report.summaries:
        counting = counting_blocks(report, summary.case_index)
        blocks = list(counting.values())
        measured = sum(block.case_index == summary.case_index for block in report.blocks)
        latencies = sorted(latency for block in blocks for latency in block.latencies_ns)
        expected = {
            "blocks": len(blocks),
            "repeated": measured - len(blocks),
            "void": sum(block.validity == VOID for block in blocks),
            "queries": len(latencies),
            "median_ns": median(latencies),
            "p90_ns": p90(latencies),
            "p90_bound_ns": early_stopping_p90(latencies),
            "validity": case_validity(blocks, measured),
        }
        for name, value in expected.items():
            if (found := getattr(summary, name)) != value:
                raise _failure(
                    f"A summary of case {summary.case_index} with {name} {value}, as its blocks say, is", found
                )
        _check_ratio(summary, counting, baseline)
        _check_intervals(summary)


def _check_ratio(summary: Summary, blocks: Mapping[int, Block], baseline: Mapping[int, Block]) -> None:
    """The ratio to the first case is that of the rounds that have both."""
    expected = 1.0 if summary.case_index == 0 else ratio_to(baseline, blocks)[0]
    found = summary.ratio
    agrees = found is None if expected is None else found is not None and math.isclose(found, expected)
    if not agrees:
        raise _failure(
            f"A summary of case {summary.case_index} with ratio {expected}, as its blocks say, is", summary.ratio
        )


def _check_intervals(summary: Summary) -> None:
    """Every figure is above 0 and in its interval, as far as there is one."""
    for name in ("median_ns", "p90_ns", "p90_bound_ns", "end_to_end_median_ns", "ratio"):
        stem = name.removesuffix("_ns")
        unit = name.removeprefix(stem)
        value = getattr(summary, name)
        low, high = (getattr(summary, f"{stem}_{bound}{unit}", None) for bound in ("low", "high"))
        known = [figure for figure in (low, value, high) if figure is not None]
        slack = 1 + _ROUNDING
        if any(figure <= 0 for figure in known) or any(a > b * slack for a, b in itertools.pairwise(known)):
            raise _failure(
                f"A summary of case {summary.case_index} with {name} above 0 and in its interval is",
                f"{low}, {value}, {high}",
            )


def _check_environment(report: Report) -> None:
    """What plausibility and sensors are read from has the form that the agent gives it."""
    environment = report.environment
    kinds = environment.get("cpu_types") or []
    if not isinstance(kinds, list) or not all(map(_is_cpu_type, kinds)):
        raise _failure(
            "environment: cpu_types as a list of objects with numbers as cpus and max_hz is", repr(kinds)[:60]
        )
    flags = environment.get("cpu_flags") or []
    if not isinstance(flags, list) or not all(isinstance(flag, str) for flag in flags):
        raise _failure("environment: cpu_flags as a list of words is", repr(flags)[:60])
    if not _is_clock(environment.get("cpu_mhz")):
        raise _failure("environment: cpu_mhz as a number above 0 is", repr(environment["cpu_mhz"])[:60])
    for name, sensor in report.sensors.items():
        if sensor is not None and not isinstance(sensor, dict):
            raise _failure(f"sensors: {name} as an object is", repr(sensor)[:60])


def _is_cpu_type(kind: object) -> bool:
    return (
        isinstance(kind, dict)
        and isinstance(cpus := kind.get("cpus"), list)
        and all(isinstance(cpu, int) for cpu in cpus)
        and _is_clock(kind.get("max_hz"))
        and all(isinstance(kind.get(name), int | None) for name in ("implementer", "part"))
    )


def _is_clock(value: object) -> bool:
    """A number above 0 that arithmetic can take, or nothing."""
    return value is None or (isinstance(value, int | float) and 0 < value < _LARGEST)


def _check_origin(manifest: Manifest, report: Report) -> None:
    """The report is of this manifest and target, and all artefacts are in the manifest."""
    if report.manifest_sha256 != manifest.sha256():
        raise ReportError(
            f"A report on manifest {manifest.sha256()[:12]} is required. Received: {report.manifest_sha256[:12]}.",
            "The study has changed since that job: deploy and bench it again, or name the study it was made from.",
        )
    if not report.job.cases:
        raise _failure("A report of at least one case is", "none")
    if report.target != report.job.target:
        raise _failure(f"A report of {report.job.target} is", f"one of {report.target}")
    in_manifest = {entry.sha256 for entry in manifest.entries}
    asked = [("job", case.artefact) for case in report.job.cases]
    for part, sha256 in asked + [("refused artefact", refused.artefact) for refused in report.refused]:
        if sha256 not in in_manifest:
            raise _failure(f"{part}: the sha256 of an artefact in the manifest is", sha256[:12])
    for case in report.job.cases:
        if case.runtime not in report.job.runtimes:
            raise _failure("job: the folder of one of its runtimes is", case.runtime)


def _check_indices(report: Report) -> None:
    """Every case and round that a part names is one of the job's."""
    cases, rounds = len(report.job.cases), report.job.tier.rounds
    for part, indices in (
        ("block", [block.case_index for block in report.blocks]),
        ("failed block", [block.case_index for block in report.failed]),
        ("summary", [summary.case_index for summary in report.summaries]),
    ):
        _require_below(f"{part}: a case", indices, cases)
    for part, indices in (
        ("block", [block.round_index for block in report.blocks]),
        ("failed block", [block.round_index for block in report.failed]),
        ("canary", [canary.round_index for canary in report.canaries]),
    ):
        _require_below(f"{part}: a round", indices, rounds)
    _require_words("validity of a block", (block.validity for block in report.blocks), _BLOCK_WORDS)
    _require_words("validity of a canary", (canary.validity for canary in report.canaries), _BLOCK_WORDS)
    _require_words("validity of a case", (summary.validity for summary in report.summaries), _CASE_WORDS)


def _check_block(job: Job, block: Block) -> None:
    """The case was run as it was asked for, and has latencies."""
    case = job.cases[block.case_index]
    asked = (case.artefact[:12], case.threads, case.cpus, job.runtimes[case.runtime])
    ran = (block.artefact[:12], block.threads, block.cpus, f"{block.runtime}=={block.runtime_version}")
    for what, one, other in zip(("artefact", "threads", "CPUs", "runtime"), asked, ran, strict=True):
        if one != other:
            raise _failure(f"A block of case {block.case_index} with {what} {one} is", str(other))
    times = (*block.latencies_ns, *block.end_to_end_ns)
    if not block.latencies_ns or min(times) < 1 or max(times) >= _LARGEST:
        raise _failure(
            f"A block of case {block.case_index} with latencies above 0 ns is",
            f"{len(block.latencies_ns)} latencies, smallest {min(block.latencies_ns, default=None)}",
        )


def _check_attempts(report: Report) -> None:
    """A block that was measured several times has attempts 0, 1, 2 and so on, each once."""
    attempts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for block in report.blocks:
        attempts[block.case_index, block.round_index].append(block.attempt)
    for (case_index, round_index), found in attempts.items():
        if sorted(found) != list(range(len(found))):
            raise _failure(
                f"Attempts 0 to {len(found) - 1} of case {case_index} in round {round_index}, each once, are",
                ", ".join(map(str, sorted(found))),
            )


def _check_complete(report: Report) -> None:
    """Every case was measured in every round, or failed."""
    failed = {block.case_index for block in report.failed}
    measured = {(block.case_index, block.round_index) for block in report.blocks}
    rounds = report.job.tier.rounds
    for index, case in enumerate(report.job.cases):
        count = sum((index, round_index) in measured for round_index in range(rounds))
        if index not in failed and count < rounds:
            raise ReportError(
                f"{rounds} blocks or a failure of case {index} (artefact {case.artefact[:12]}) are required. "
                f"Received: {count or 'neither'}.",
                "The report is incomplete; run the same bench again.",
            )


def _check_summaries(report: Report) -> None:
    """One summary for each case that has blocks, and no other."""
    expected = sorted({block.case_index for block in report.blocks})
    found = sorted(summary.case_index for summary in report.summaries)
    if found != expected:
        raise _failure(f"One summary for each of the measured cases {_listed(expected)} is", _listed(found))


def _check_scores(manifest: Manifest, report: Report, image_count: int) -> None:
    """Each artefact and runtime at most once, a row for every image and a probability for every label."""
    pixels = report.extra.get("pixels", {})
    if not isinstance(pixels, dict) or not all(isinstance(value, int | None) for value in pixels.values()):
        raise _failure("pixels as an object of counts is", repr(pixels))
    if report.image_count != image_count:
        raise _failure(f"The {image_count} images that the job selects are", str(report.image_count))
    in_job = {(case.artefact, case.runtime) for case in report.job.cases}
    keys = [(scores.artefact, scores.runtime) for scores in report.accuracy]
    for (sha256, runtime), count in Counter(keys).items():
        if (sha256, runtime) not in in_job:
            raise _failure("scores: an artefact and runtime of the job is", f"{sha256[:12]} in {runtime}")
        if count > 1:
            raise _failure(f"Scores of {sha256[:12]} in {runtime} once are", f"{count} times")
    for scores in report.accuracy:
        _check_shape(scores, image_count, len(manifest.labels))


def _check_shape(scores: Scores, image_count: int, label_count: int) -> None:
    name = scores.artefact[:12]
    if len(scores.scores) != image_count:
        raise _failure(f"Scores of {name} for {image_count} images are", str(len(scores.scores)))
    if len(scores.pixel_hashes) != image_count:
        raise _failure(f"Hashes of the pixels of {name} for {image_count} images are", str(len(scores.pixel_hashes)))
    widths = {len(row) for row in scores.scores} - {label_count}
    if widths:
        raise _failure(f"Scores of {name} for {label_count} labels are", str(min(widths)))


def _check_flips(manifest: Manifest, report: Report, images: Sequence[ValidationImage]) -> None:
    """Every flip is of an artefact that has scores, and names an image and labels that there are."""
    scored = {(scores.artefact, scores.runtime) for scores in report.accuracy}
    paths = {image.path for image in images}
    for flip in report.flips:
        if (flip.artefact, flip.runtime) not in scored:
            raise _failure("flip: an artefact and runtime with scores is", f"{flip.artefact[:12]} in {flip.runtime}")
        if flip.path not in paths:
            raise _failure("flip: an image that the job selects is", repr(flip.path))
        _require_below("flip: a label", (flip.label, flip.expected, flip.received), len(manifest.labels))
    _require_words("flip: against", (flip.against for flip in report.flips), _AGAINST)
    _require_words("flip: cause", (flip.cause for flip in report.flips), _CAUSES)


def _require_below(what: str, indices: Iterable[int], end: int) -> None:
    for index in indices:
        if not 0 <= index < end:
            raise _failure(f"{what} from 0 to {end - 1} is", str(index))


def _require_words(what: str, words: Iterable[Hashable], known: Sequence[Hashable]) -> None:
    for word in words:
        if word not in known:
            raise _failure(f"{what}: one of {', '.join(map(str, known))} is", str(word))


def _failure(required: str, received: object) -> ReportError:
    return ReportError(f"{required} required. Received: {received}.", _REPEAT)


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices)) or "none"
