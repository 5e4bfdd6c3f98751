"""Where each row comes from and what it ran on, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from liteship.report.comparison import Comparison, Row
from liteship.report.sentences import row_name, varying_settings
from liteship.report.text import MISSING, count, cpu_list, mebibytes_and_bytes, milliseconds, plain
from liteship_agent.job import TIERS, Job
from liteship_agent.manifest import InputContract, Manifest, ManifestEntry
from liteship_agent.report import Report

Facts = tuple[tuple[str, str], ...]

_LONG_FACTS = ("cpu_flags",)
_RECIPE = "recipe.toml"


@dataclass(frozen=True)
class Lineage:
    """Of one row.

    Args:
        name: Its variant, with what of its setting differs from other rows.
        facts: Names and values.
    """

    name: str
    facts: Facts


@dataclass(frozen=True)
class Command:
    """A command line.

    Args:
        purpose: What it does, in a few words.
        line: To be typed as it is.
    """

    purpose: str
    line: str


def lineages(manifest: Manifest, comparison: Comparison) -> tuple[Lineage, ...]:
    """Of every row that has a file."""
    varying = varying_settings(comparison.rows)
    found = []
    for row in comparison.rows:
        entry = manifest.entry(row.sha256 or "")
        if entry is not None:
            facts = (*_file_facts(entry), *_run_facts(row))
            found.append(Lineage(row_name(row, varying), tuple((name, plain(text)) for name, text in facts)))
    return tuple(found)


def machine_facts(report: Report, comparison: Comparison) -> Facts:
    """The machine and the job, as far as they are the same for all rows."""
    job = report.job
    known = [(name.replace("_", " "), _shown(name, value)) for name, value in sorted(report.environment.items())]
    facts = [
        ("job", job.job_id),
        ("release", job.release_id),
        ("tier", f"{job.tier.name}: {job.tier.rounds} rounds, {job.tier.min_queries} queries and "
                 f"{job.tier.min_seconds:g} s of each row at least"),
        ("order of blocks", f"seed {job.seed}"),
        ("manifest sha256", report.manifest_sha256),
        ("images sha256", comparison.header.images_sha256),
        *known,
    ]  # fmt: skip
    return tuple((name, plain(text)) for name, text in facts)


def sensor_facts(report: Report) -> Facts:
    """Where each sensor is read, or why there is none."""
    return tuple(
        (name.replace("_", " "), plain(str((sensor or {}).get("source") or f"none: {_reason(sensor)}")))
        for name, sensor in sorted(report.sensors.items())
    )


def commands(report: Report, study: Path) -> tuple[Command, ...]:
    """What makes the report again: everything, a job that is asked for in the same way, the same job, this page.

    Args:
        report: Of the job.
        study: Folder of the study; without a recipe in it (imported models) nothing can be trained again.
    """
    job = report.job
    target = f"--target {shlex.quote(report.target)}"
    where = f"{target} --study {shlex.quote(study.name)}"
    recipe = shlex.quote(f"models/{study.name}/{_RECIPE}")
    again = Command(
        "Train, compress, deploy and measure", f"liteship run {recipe} {target} {_how(replace(job, limit=None))}"
    )
    return (
        *((again,) if (study / _RECIPE).is_file() else ()),
        Command("Measure in the same way", f"liteship bench {where} {_how(job)}".strip()),
        Command("Repeat this job and compare the ratios", f"liteship repeat {where} --job {shlex.quote(job.job_id)}"),
        Command("Write this page again", f"liteship report {where} --job {shlex.quote(job.job_id)} --format html"),
    )


def _how(job: Job) -> str:
    """The options of a measurement."""
    parts = [f"--tier {job.tier.name}"] if job.tier.name in TIERS else []
    parts.append(f"--runtime {shlex.quote(','.join(_distinct(job.runtimes[case.runtime] for case in job.cases)))}")
    parts.append(f"--threads {','.join(map(str, _distinct(case.threads for case in job.cases)))}")
    parts += [f"--cpus {cpu_list(cpus)}" for cpus in _distinct(case.cpus for case in job.cases) if cpus]
    parts += [f"--limit {job.limit}"] if job.limit is not None else []
    return " ".join([*parts, *(["--force"] if job.forced else [])])


def _distinct(values: Iterable[Any]) -> Sequence[Any]:
    return list(dict.fromkeys(values))


def _file_facts(entry: ManifestEntry) -> list[tuple[str, str]]:
    lineage, calibration = entry.lineage, entry.calibration
    versions = ", ".join(f"{name} {version}" for name, version in sorted(lineage.versions.items()))
    operators = ", ".join(f"{one.name} {one.version} (×{one.count})" for one in entry.operators)
    facts = [
        ("file sha256", entry.sha256),
        ("size", f"{mebibytes_and_bytes(entry.size_bytes)} MiB; gzip {mebibytes_and_bytes(entry.gzip_bytes)}"),
        ("input", _contract(entry.input)),
        ("operators", operators),
        ("needs TensorFlow", entry.minimum_runtime or MISSING),
        ("sparse kernels", f"{entry.sparse_verdict.reason} ({entry.sparse_verdict.holds_for})"),
        ("recipe sha256", lineage.recipe_sha256),
        ("data sha256", lineage.data_sha256),
        ("git revision", lineage.git_revision or "none"),
        ("seed", str(lineage.seed)),
        ("made with", versions),
    ]
    if calibration is not None:
        apart = "none of them" if calibration.disjoint_from_validation else "some of them"
        text = f"{count(calibration.count, 'image')}, {apart} in the validation set; sha256 {calibration.sha256}"
        facts.append(("calibration", text))
    return facts


def _contract(contract: InputContract) -> str:
    return (
        f"{contract.height} × {contract.width} {contract.channel_order}, {contract.dtype}, {contract.resize}, "
        f"{contract.interpolation}"
    )


def _run_facts(row: Row) -> list[tuple[str, str]]:
    if row.runtime is None or row.blocks is None:
        return [("run", row.status)]
    memory = f"{mebibytes_and_bytes(row.rss_peak_bytes)} MiB at most"
    return [
        ("run", f"{row.runtime} {row.runtime_version}, {count(row.threads or 0, 'thread')}, CPUs {cpu_list(row.cpus)}"),
        ("status", row.status),
        ("blocks", f"{row.blocks}, {row.repeated} repeated, {row.void} void; {row.queries:,} queries"),
        ("loading, first, warm-up", " / ".join(map(milliseconds, (row.init_ns, row.first_ns, row.warmup_ns))) + " ms"),
        ("end to end", f"{milliseconds(row.end_to_end_median_ns)} ms"),
        ("memory", memory),
        ("XNNPACK", f"{row.delegated_nodes} of {row.total_nodes} nodes" if row.total_nodes else MISSING),
    ]


def _reason(sensor: Mapping[str, Any] | None) -> str:
    return str((sensor or {}).get("reason") or "no reason is known")


def _shown(name: str, value: Any) -> str:
    """A value of the environment as text."""
    if value is None:
        return MISSING
    if name.endswith("_bytes") and isinstance(value, int):
        return f"{mebibytes_and_bytes(value)} MiB"
    if isinstance(value, Mapping):
        return ", ".join(f"{key.replace('_', ' ')} {_shown(key, item)}" for key, item in value.items() if item)
    if isinstance(value, list | tuple):
        if value and all(isinstance(item, int) for item in value):
            return cpu_list(value)
        return (
            " · ".join(_shown(name, item) for item in value) if name not in _LONG_FACTS else " ".join(map(str, value))
        )
    return str(value)
