from __future__ import annotations

from dataclasses import replace

import pytest
from report_samples import make_case, make_job, make_manifest, make_report

from liteship.report.agreement import agreement_json, build_agreement, render_agreement
from liteship_agent.job import Case
from liteship_agent.report import UNSTABLE, Report

MANIFEST = make_manifest()
THEN = make_report(MANIFEST)


def run_again(then: Report = THEN, **factors: float) -> Report:
    """The same job two hours later, the ratios of some cases (case1, case2 ...) that many times as large."""
    summaries = []
    for summary in then.summaries:
        factor = factors.get(f"case{summary.case_index}", 1.0)
        ratio = {name: factor * getattr(summary, name) for name in ("ratio", "ratio_low", "ratio_high")}
        summaries.append(replace(summary, **ratio))
    job = replace(then.job, job_id="20261122T121500Z-0123456789ab")
    return replace(then, job=job, summaries=tuple(summaries))


def test_each_case_but_the_baseline_has_a_line_with_both_ratios_and_a_verdict():
    lines = render_agreement(build_agreement(MANIFEST, THEN, run_again(case1=1.01, case2=1.5)))

    assert lines == [
        "x none-none       2026-11-22 10:15  2026-11-22 12:15  agree",
        "none-int8         1.17 (1.15–1.18)  1.18 (1.17–1.19)  yes",
        "magnitude50-none  0.99 (0.98–1.00)  1.49 (1.48–1.51)  no",
        "magnitude50-int8  1.16 (1.15–1.17)  1.16 (1.15–1.17)  yes",
        "",
        "2 of 3 ratios agree within their intervals (67%)",
    ]


def test_the_figure_is_the_share_of_ratios_that_agree():
    assert build_agreement(MANIFEST, THEN, run_again()).agreeing_ratio == 1.0
    assert build_agreement(MANIFEST, THEN, run_again(case1=2, case2=2, case3=2)).agreeing_ratio == 0.0


@pytest.mark.parametrize("names", [("none-none",), ("none-none", "magnitude50-int8")])
def test_runs_without_a_ratio_in_common_say_so(names):
    other = make_report(MANIFEST, job=make_job(*names), accuracy=())
    found = build_agreement(MANIFEST, make_report(MANIFEST, job=make_job("none-none", "none-int8"), accuracy=()), other)

    assert (found.cases, found.agreeing_ratio) == ((), None)
    assert render_agreement(found) == ["The two runs have no ratio in common."]


@pytest.mark.parametrize(("index", "share"), [(1, 0.5), (0, None)])
def test_what_was_unstable_is_shown_and_not_judged(index: int, share: float | None) -> None:
    now = run_again(case1=2, case2=2)
    summaries = list(now.summaries)
    summaries[index] = replace(summaries[index], validity=UNSTABLE, ratio_low=None, ratio_high=None)
    found = build_agreement(MANIFEST, THEN, replace(now, summaries=tuple(summaries)))

    assert found.cases[0].agree is None
    assert found.cases[0].now.validity == UNSTABLE
    assert found.agreeing_ratio == share
    lines = render_agreement(found)
    assert lines[1].endswith("  not judged (unstable)")
    last = "1 of 2 ratios agree within their intervals (50%); 1 not judged"
    assert lines[-1] == (last if share else "none of 3 ratios can be judged")


def test_a_forced_run_is_said_to_be_one() -> None:
    now = run_again()
    found = build_agreement(MANIFEST, THEN, replace(now, job=replace(now.job, forced=True)))

    assert (found.then_forced, found.now_forced) == (False, True)
    assert render_agreement(found)[0].split("  ")[-2].strip() == "2026-11-22 12:15 forced"


def test_cases_of_one_artefact_are_told_apart():
    cases: list[Case] = [make_case("none-none"), make_case("none-int8"), make_case("none-int8", threads=4)]
    then = make_report(MANIFEST, job=make_job(*cases), accuracy=())
    found = build_agreement(MANIFEST, then, run_again(then, case2=3))

    assert [(case.case, case.agree) for case in found.cases] == [
        ("none-int8, 1 thread", True),
        ("none-int8, 4 threads", False),
    ]


def test_json_keeps_exact_numbers():
    now = run_again(case1=1.01)
    document = agreement_json(build_agreement(MANIFEST, THEN, now))

    assert (document["baseline"], document["agreeing_ratio"]) == ("none-none", 1.0)
    assert (document["then"], document["now"]) == ("2026-11-22 10:15", "2026-11-22 12:15")
    assert (document["then_forced"], document["now_forced"]) == (False, False)
    case = document["cases"][0]
    assert (case["case"], case["agree"], case["now"]["validity"]) == ("none-int8", True, "valid")
    for run, report in (("then", THEN), ("now", now)):
        summary = report.summaries[1]
        found = (case[run]["ratio"], case[run]["low"], case[run]["high"])
        assert found == (summary.ratio, summary.ratio_low, summary.ratio_high)
