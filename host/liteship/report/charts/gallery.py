"""All charts of a report, in the order in which they are read."""

from __future__ import annotations

from pathlib import Path

from liteship.report.charts.chart import Section
from liteship.report.charts.confusion import confusion_section
from liteship.report.charts.filter_ranks import filter_ranks_section
from liteship.report.charts.latencies import latencies_section
from liteship.report.charts.layers import layers_section
from liteship.report.charts.sizes import sizes_section
from liteship.report.charts.timeline import timeline_section
from liteship.report.charts.trade_off import trade_off_section
from liteship.report.charts.training import training_section
from liteship.report.comparison import Comparison, Row
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report


def build_sections(
    manifest: Manifest, report: Report, comparison: Comparison, study: Path, winner: Row | None = None
) -> tuple[Section, ...]:
    """The sections of a report; one that has no chart says why.

    Args:
        manifest: Of the study.
        report: Of the job.
        comparison: Made from both.
        study: Folder of the study, for what training kept.
        winner: The row that the verdict ships, None where it names none.
    """
    return (
        trade_off_section(comparison, winner),
        sizes_section(comparison),
        latencies_section(comparison, report),
        timeline_section(report, comparison),
        training_section(study),
        layers_section(manifest, comparison),
        filter_ranks_section(study),
        confusion_section(comparison.answers),
    )
