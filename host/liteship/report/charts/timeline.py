"""The job over time: temperature, clock, every block with what became of it, and the canaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liteship.report.charts.chart import Chart, Section, Table, band_height, named, to_spec, with_labels_above
from liteship.report.comparison import Comparison
from liteship.report.sentences import row_name, varying_settings
from liteship.report.statuses import THROTTLE_UNKNOWN
from liteship.report.text import count, milliseconds, plain
from liteship_agent.report import UNKNOWN, VALID, VOID, Block, Canary, Report

MOST_SAMPLES = 900
_SENSOR_HEIGHT = 150
_BAR_PIXELS = 14
_LEAST_PIXELS, _LEAST_VOID_PIXELS = 1, 3  # a block of a long job is narrower than a pixel
_REPEATED = "valid, repeated"
_FATES = {VALID: "@blue", _REPEATED: "@teal", THROTTLE_UNKNOWN: "@slate", VOID: "@red"}
_NS_PER_MINUTE = 60e9


@dataclass(frozen=True)
class _Sensor:
    """A line over time: its title in the chart, the fields of a sample that tell it, and what they are divided by."""

    name: str
    title: str
    unit: str
    fields: tuple[str, ...]
    divisor: float


_SENSORS = (
    _Sensor("temperature", "Temperature", "°C", ("temperature_celsius",), 1.0),
    _Sensor("clock", "CPU clock", "MHz", ("arm_clock_hz", "cpufreq_hz"), 1e6),
)


def timeline_section(report: Report, comparison: Comparison) -> Section:
    """The charts, and a sentence for each sensor that the machine does not have."""
    if not report.blocks:
        return Section("timeline", "The job over time", (), ("No block was measured.",))
    starts = [block.timed_from_ns for block in report.blocks]
    start_ns = min([*starts, *(sample.at_ns for block in report.blocks for sample in block.samples)])
    names = _case_names(report, comparison)
    blocks = [_block(block, start_ns, names) for block in report.blocks]
    charts: list[Chart] = []
    sentences: list[str] = []
    for sensor in _SENSORS:
        samples = _samples(report, sensor, start_ns)
        if samples:
            charts.append(_sensor_chart(sensor, samples, blocks))
        else:
            sentences.append(f"{sensor.title}: not known on this machine. {_why(report, sensor)}")
    charts.append(_blocks_chart(blocks, names))
    if report.canaries:
        charts.append(_canaries_chart(report))
    void = sum(block["fate"] == VOID for block in blocks)
    again = sum(block["attempt"] > 1 for block in blocks)
    sentences.append(f"{count(len(blocks), 'block')}: {void} void, {again} measured again.")
    return Section("timeline", "The job over time", tuple(charts), tuple(sentences))


def _case_names(report: Report, comparison: Comparison) -> list[str]:
    """The names of the rows by the index of their case."""
    varying = varying_settings(comparison.rows)
    names = []
    for case in report.job.cases:
        runtime, _, version = report.job.runtimes[case.runtime].partition("==")
        setting = case.artefact, case.threads, case.cpus, runtime, version
        names.append(
            next(
                row_name(row, varying)
                for row in comparison.rows
                if (row.sha256, row.threads, row.cpus, row.runtime, row.runtime_version) == setting
            )
        )
    return names


def _fate(timed: Block | Canary) -> str:
    return {VOID: VOID, UNKNOWN: THROTTLE_UNKNOWN}.get(timed.validity, _REPEATED if timed.attempt else VALID)


def _block(block: Block, start_ns: int, names: Sequence[str]) -> dict[str, Any]:
    fate = _fate(block)
    return {
        "variant": names[block.case_index],
        "fate": fate,
        "from": round((block.timed_from_ns - start_ns) / _NS_PER_MINUTE, 4),
        "to": round((block.timed_to_ns - start_ns) / _NS_PER_MINUTE, 4),
        "round": block.round_index + 1,
        "attempt": block.attempt + 1,
        "reasons": plain("; ".join(block.reasons)),
    }


def _samples(report: Report, sensor: _Sensor, start_ns: int) -> list[dict[str, float]]:
    """One line over time, thinned; of the fields the first that the machine has."""
    for field in sensor.fields:
        found = [
            {
                "at": round((sample.at_ns - start_ns) / _NS_PER_MINUTE, 4),
                "value": round(getattr(sample, field) / sensor.divisor, 2),
            }
            for block in report.blocks
            for sample in block.samples
            if getattr(sample, field) is not None
        ]
        if found:
            step = -(-len(found) // MOST_SAMPLES)
            return sorted(found[::step], key=lambda sample: sample["at"])
    return []


def _why(report: Report, sensor: _Sensor) -> str:
    reasons = [(report.sensors.get(field) or {}).get("reason") for field in sensor.fields]
    return plain("; ".join(dict.fromkeys(str(reason) for reason in reasons if reason))) or "No reason is known."


def _around(values: Sequence[float]) -> Any:
    """A scale that also shows values that are all the same."""
    import altair

    low, high = min(values), max(values)
    if low < high:
        return altair.Scale(zero=False, nice=True, padding=8)
    return altair.Scale(domain=[low - 0.02 * abs(low), high + 0.02 * abs(high)], nice=True)


def _minutes(domain_end: float) -> Any:
    import altair

    return altair.Scale(domain=[0, domain_end], nice=False)


def _fate_color(fates: Sequence[str]) -> Any:
    import altair

    shown = [fate for fate in _FATES if fate in fates]
    scale = altair.Scale(domain=shown, range=[_FATES[fate] for fate in shown])
    return altair.Color("fate:N", scale=scale, legend=altair.Legend(title=None, orient="top"))


def _sensor_chart(
    sensor: _Sensor, samples: Sequence[Mapping[str, float]], blocks: Sequence[Mapping[str, Any]]
) -> Chart:
    """A line, with the void and the repeated blocks behind it."""
    import altair

    end = max(block["to"] for block in blocks)
    values = [sample["value"] for sample in samples]
    marked = [block for block in blocks if block["fate"] in (VOID, _REPEATED)]
    fate = _fate_color([block["fate"] for block in marked])
    line = altair.Chart(named("samples")).encode(
        x=altair.X("at:Q", title="minutes", scale=_minutes(max(end, samples[-1]["at"]))),
        y=altair.Y("value:Q", title=sensor.unit, scale=_around(values)),
        tooltip=[
            altair.Tooltip("at:Q", title="minute", format=".2f"),
            altair.Tooltip("value:Q", title=sensor.unit, format=",.1f"),
        ],
    )
    bands = altair.Chart(named("marked")).mark_rect(opacity=0.3, strokeWidth=_LEAST_PIXELS)
    layers = [
        *([bands.encode(x=altair.X("from:Q"), x2=altair.X2("to"), color=fate, stroke=fate)] if marked else []),
        line.mark_line(color="@blue", strokeWidth=1.5),
        line.mark_point(color="@blue", filled=True, size=14, opacity=0.9),
    ]
    return Chart(
        name=sensor.name,
        title=f"{sensor.title} ({sensor.unit})",
        summary=f"{sensor.title} during the job: from {min(values):,.1f} to {max(values):,.1f} {sensor.unit}.",
        spec=to_spec(altair.LayerChart(layer=layers, height=_SENSOR_HEIGHT), samples=samples, marked=marked),
        table=_sensor_table(sensor, samples, blocks),
    )


def _sensor_table(
    sensor: _Sensor, samples: Sequence[Mapping[str, float]], blocks: Sequence[Mapping[str, Any]]
) -> Table:
    """Smallest and largest reading of each round."""
    lines = []
    for index in sorted({block["round"] for block in blocks}):
        own = [block for block in blocks if block["round"] == index]
        start, end = min(block["from"] for block in own), max(block["to"] for block in own)
        values = [sample["value"] for sample in samples if start <= sample["at"] <= end]
        if values:
            lines.append((str(index), f"{start:.2f}", f"{end:.2f}", f"{min(values):,.1f}", f"{max(values):,.1f}"))
    return Table(("round", "from minute", "to minute", f"lowest {sensor.unit}", f"highest {sensor.unit}"), tuple(lines))


def _blocks_chart(blocks: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Chart:
    import altair

    # Void blocks are drawn last and at least so wide that they are seen.
    drawn = sorted(blocks, key=lambda block: block["fate"] == VOID)
    is_void = altair.datum.fate == VOID
    chart = (
        altair.Chart(named("blocks"))
        .mark_bar(size=_BAR_PIXELS)
        .encode(
            x=altair.X("from:Q", title="minutes", scale=_minutes(max(block["to"] for block in blocks))),
            x2=altair.X2("to"),
            y=altair.Y("variant:N", title=None, sort=None, scale=altair.Scale(domain=list(names))),
            color=_fate_color([block["fate"] for block in blocks]),
            stroke=_fate_color([block["fate"] for block in blocks]),
            strokeWidth=altair.condition(is_void, altair.value(_LEAST_VOID_PIXELS), altair.value(_LEAST_PIXELS)),
            tooltip=[
                altair.Tooltip("variant:N"),
                altair.Tooltip("round:O"),
                altair.Tooltip("attempt:O"),
                altair.Tooltip("fate:N", title="block"),
                altair.Tooltip("reasons:N"),
            ],
        )
        .properties(height=band_height(len(names)))
    )
    return Chart(
        name="blocks",
        title="Blocks",
        summary=f"When each of {count(len(blocks), 'block')} was timed, and whether it counts.",
        spec=with_labels_above(to_spec(chart, blocks=drawn), len(names)),
        table=Table(
            ("variant", "round", "attempt", "from minute", "to minute", "block", "reasons"),
            tuple(
                (
                    *(block["variant"], str(block["round"]), str(block["attempt"])),
                    *(f"{block['from']:.2f}", f"{block['to']:.2f}", block["fate"], block["reasons"]),
                )
                for block in blocks
            ),
        ),
    )


def _canaries_chart(report: Report) -> Chart:
    import altair

    values: list[dict[str, Any]] = [
        {
            "round": canary.round_index + 1,
            "attempt": canary.attempt + 1,
            "latency": canary.median_ns / 1e6,
            "fate": {VOID: VOID, UNKNOWN: THROTTLE_UNKNOWN}.get(
                canary.validity, _REPEATED if canary.attempt else VALID
            ),
            "reasons": plain("; ".join(canary.reasons)),
        }
        for canary in report.canaries
    ]
    base = altair.Chart(named("canaries")).encode(
        x=altair.X("round:O", title="round", axis=altair.Axis(labelAngle=0)),
        y=altair.Y("latency:Q", title="median ms", scale=_around([value["latency"] for value in values])),
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        color=_fate_color([value["fate"] for value in values]),
        tooltip=[
            altair.Tooltip("round:O"),
            altair.Tooltip("attempt:O"),
            altair.Tooltip("latency:Q", title="median ms", format=".3~f"),
            altair.Tooltip("fate:N", title="canary"),
            altair.Tooltip("reasons:N"),
        ],
    )
    line = base.mark_line(color="@slate", strokeWidth=1, opacity=0.6)
    return Chart(
        name="canaries",
        title="Canaries",
        summary="Latency of the first case, timed shortly at the start of each round: where it moves, the machine "
        "has changed.",
        spec=to_spec(altair.LayerChart(layer=[line, points], height=_SENSOR_HEIGHT), canaries=values),
        table=Table(
            ("round", "attempt", "median ms", "canary", "reasons"),
            tuple(
                (
                    *(str(value["round"]), str(value["attempt"]), milliseconds(canary.median_ns)),
                    *(str(value["fate"]), str(value["reasons"])),
                )
                for value, canary in zip(values, report.canaries, strict=True)
            ),
        ),
    )
