"""Whether the same job, run twice, gives the same ratios: the lines of `liteship repeat`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from liteship.report.comparison import Row
from liteship.report.rows import job_date
from liteship.report.sentences import row_name, varying_settings
from liteship.report.summary import ratios
from liteship.report.text import multiple, multiple_interval, plain
from liteship.stats import Ratio, agreement
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report


@dataclass(frozen=True)
class Agreement:
    """Two runs of one job beside each other.

    Args:
        baseline: Variant that the ratios refer to.
        then, now: When the runs were made, or their job ids.
        cases: Name of each case, its ratio then and now, each with its 95 % interval, and whether they agree.
        agreeing_ratio: Share of the cases that agree, None where the runs have none in common.
    """

    baseline: str
    then: str
    now: str
    cases: tuple[tuple[str, Ratio, Ratio, bool], ...]
    agreeing_ratio: float | None


def build_agreement(manifest: Manifest, then: Report, now: Report) -> Agreement:
    """Compare the ratios of two reports on the same job, by the rule of `stats.ratios_agree`.

    Args:
        manifest: Of the study.
        then: The earlier report.
        now: The later one.
    """
    first, second = ratios(then), ratios(now)
    agrees, share = agreement(first, second)
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
        cases=tuple((row_name(rows[case], varying), first[case], second[case], agrees[case]) for case in agrees),
        agreeing_ratio=share,
    )


def render_agreement(found: Agreement) -> list[str]:
    """A line for each case, and the one figure."""
    lines = [(f"x {plain(found.baseline)}", found.then, found.now, "agree")]
    lines += [(name, _ratio(then), _ratio(now), "yes" if same else "no") for name, then, now, same in found.cases]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if found.agreeing_ratio is None:
        return ["The two runs have no ratio in common."]
    same = sum(case[-1] for case in found.cases)
    return [
        *padded,
        "",
        f"{same} of {len(found.cases)} ratios agree within their intervals ({found.agreeing_ratio:.0%})",
    ]


def agreement_json(found: Agreement) -> dict[str, Any]:
    """The same as a JSON object; a ratio is its value with the lower and upper bound."""
    return {
        "baseline": found.baseline,
        "then": found.then,
        "now": found.now,
        "cases": [
            {"case": name, "then": list(then), "now": list(now), "agree": same} for name, then, now, same in found.cases
        ],
        "agreeing_ratio": found.agreeing_ratio,
    }


def _ratio(ratio: Ratio) -> str:
    value, low, high = ratio
    return f"{multiple(value)} ({multiple_interval(low, high)})"
