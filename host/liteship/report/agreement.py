"""Whether the same job, run twice, gives the same ratios: the lines of `liteship repeat`.

A case that was disturbed in one of the runs, or whose baseline was, is shown and not judged.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from liteship.report.comparison import Row
from liteship.report.rows import job_date
from liteship.report.sentences import row_name, varying_settings
from liteship.report.text import MISSING, multiple, multiple_interval, plain
from liteship.stats import agreement
from liteship_agent.job import Case
from liteship_agent.manifest import Manifest
from liteship_agent.report import UNSTABLE, Report, Summary


@dataclass(frozen=True)
class RunRatio:
    """The ratio of one case in one run.

    Args:
        ratio, low, high: Latency as a multiple of the baseline's, with its 95 % interval; None where there is none.
        validity: Of the case: "unstable" also where the baseline is.
    """

    ratio: float
    low: float | None
    high: float | None
    validity: str


@dataclass(frozen=True)
class AgreementCase:
    """One case in both runs.

    Args:
        case: Its name.
        then, now: Its ratios.
        agree: Whether they do; None where that is not judged: unstable in a run, or without an interval.
    """

    case: str
    then: RunRatio
    now: RunRatio
    agree: bool | None


@dataclass(frozen=True)
class Agreement:
    """Two runs of one job beside each other.

    Args:
        baseline: Variant that the ratios refer to.
        then, now: When the runs were made, or their job ids.
        then_forced, now_forced: Whether the preflight was overridden.
        cases: All but the baseline that have a ratio in both.
        agreeing_ratio: Share of the judged cases that agree, None where none is judged.
    """

    baseline: str
    then: str
    now: str
    then_forced: bool
    now_forced: bool
    cases: tuple[AgreementCase, ...]
    agreeing_ratio: float | None


def build_agreement(manifest: Manifest, then: Report, now: Report) -> Agreement:
    """Compare the ratios of two reports on the same job, by the rule of `stats.ratios_agree`.

    Args:
        manifest: Of the study.
        then: The earlier report.
        now: The later one.
    """
    first, second = _ratios(then), _ratios(now)
    agrees, share = agreement(_judged(first), _judged(second))
    rows = {}
    for case in now.job.cases:
        entry = manifest.entry(case.artefact)
        runtime, _, version = now.job.runtimes[case.runtime].partition("==")
        variant = case.artefact[:12] if entry is None else entry.variant
        rows[case] = Row(variant, case.artefact, "", runtime, version, case.threads, case.cpus)
    varying = varying_settings(rows.values())
    return Agreement(
        baseline=next((row.variant for row in rows.values()), "the baseline"),
        then=job_date(then.job.job_id) or then.job.job_id,
        now=job_date(now.job.job_id) or now.job.job_id,
        then_forced=then.job.forced,
        now_forced=now.job.forced,
        cases=tuple(
            AgreementCase(row_name(rows[case], varying), first[case], second[case], agrees.get(case))
            for case in first
            if case in second
        ),
        agreeing_ratio=share,
    )


def _ratios(report: Report) -> dict[Case, RunRatio]:
    """Of every case but the first that has a ratio."""
    summaries = {summary.case_index: summary for summary in report.summaries}
    return {
        report.job.cases[index]: RunRatio(
            summary.ratio, summary.ratio_low, summary.ratio_high, _validity(summary, summaries.get(0))
        )
        for index, summary in summaries.items()
        if index and summary.ratio is not None
    }


def _validity(summary: Summary, baseline: Summary | None) -> str:
    return UNSTABLE if baseline is not None and baseline.validity == UNSTABLE else summary.validity


def _judged(found: dict[Case, RunRatio]) -> dict[Case, tuple[float, float, float]]:
    return {
        case: (run.ratio, run.low, run.high)
        for case, run in found.items()
        if run.validity != UNSTABLE and run.low is not None and run.high is not None
    }


def render_agreement(found: Agreement) -> list[str]:
    """A line for each case, and the one figure; what was forced is said."""
    if not found.cases:
        return ["The two runs have no ratio in common."]
    then, now = found.then + " forced" * found.then_forced, found.now + " forced" * found.now_forced
    lines = [(f"x {plain(found.baseline)}", then, now, "agree")]
    lines += [(case.case, _ratio(case.then), _ratio(case.now), _verdict(case)) for case in found.cases]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if found.agreeing_ratio is None:
        return [*padded, "", f"none of {len(found.cases)} ratios can be judged"]
    judged = [case for case in found.cases if case.agree is not None]
    rest = len(found.cases) - len(judged)
    same = sum(bool(case.agree) for case in judged)
    return [
        *padded,
        "",
        f"{same} of {len(judged)} ratios agree within their intervals ({found.agreeing_ratio:.0%})"
        + (f"; {rest} not judged" if rest else ""),
    ]


def agreement_json(found: Agreement) -> dict[str, Any]:
    """The same as a JSON object with the fields of `Agreement`; null where a case is not judged."""
    return asdict(found)


def _verdict(case: AgreementCase) -> str:
    if case.agree is not None:
        return "yes" if case.agree else "no"
    unstable = UNSTABLE in (case.then.validity, case.now.validity)
    return f"not judged ({UNSTABLE if unstable else 'no interval'})"


def _ratio(run: RunRatio) -> str:
    its_interval = multiple_interval(run.low, run.high)
    return multiple(run.ratio) + ("" if its_interval == MISSING else f" ({its_interval})")
