"""The page: everything about one measurement, the verdict first.

(manifest, report, comparison, folder of the study) -> sections -> template -> HTML. The template escapes every text;
a Content-Security-Policy lets only the two scripts run whose sha256 it names, and forbids every connection.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from liteship import __version__
from liteship.built_in import CAPTIONS
from liteship.report.charts.colors import DARK, LIGHT, vega_config
from liteship.report.charts.gallery import build_sections
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.html.lineage import commands, lineages, machine_facts, sensor_facts
from liteship.report.html.photographs import photographs
from liteship.report.html.table import comparison_table
from liteship.report.sections import against_section, keras_section, process_section
from liteship.report.sentences import (
    flip_sentences,
    forced_sentence,
    plausibility_sentences,
    sparse_sentences,
    validity_sentences,
)
from liteship.report.text import count, cpu_list
from liteship_agent.manifest import Manifest
from liteship_agent.report import Report

_MARK = "@later@"


@dataclass(frozen=True)
class Source:
    """What a page is made from.

    Args:
        manifest, report, comparison: Of one job.
        study: Folder of the study; what is missing there is said in the page.
        verdict: Plain sentences that stand on top.
        winner: The row that they ship, which is marked; None where they ship none.
    """

    manifest: Manifest
    report: Report
    comparison: Comparison
    study: Path
    verdict: tuple[str, ...] = ()
    winner: Row | None = None


def render_page(source: Source, vega: Callable[[], str]) -> str:
    """The page as HTML text.

    Args:
        source: What it tells.
        vega: Gives the script that defines `vegaEmbed`; asked last, because it may still be in the making.
    """
    manifest, report, comparison = source.manifest, source.report, source.comparison
    sections = build_sections(manifest, report, comparison, source.study, source.winner)
    theme, style = _asset("theme.js"), _asset("page.css")
    context = {
        "header": comparison.header,
        "caption": CAPTIONS.get(comparison.header.target),
        "facts": _facts(comparison.header),
        "forced": forced_sentence(comparison.header),
        "verdict": source.verdict,
        "table": comparison_table(comparison, source.winner),
        "notes": (*validity_sentences(comparison), *plausibility_sentences(comparison.rows)),
        "closing": (*flip_sentences(comparison), *sparse_sentences(comparison.rows)),
        "tables": [
            section
            for section in (
                against_section(comparison),
                process_section(comparison.rows),
                keras_section(comparison.rows, exact=True),
            )
            if section.lines
        ],
        "sections": sections,
        "photographs": photographs(manifest, comparison.answers, source.study / "validation.tar"),
        "machine": machine_facts(report, comparison),
        "sensors": sensor_facts(report),
        "lineages": lineages(manifest, comparison),
        "commands": commands(report, source.study),
        "specs": _script_json({chart.name: chart.spec for section in sections for chart in section.charts}),
        "themes": _script_json({"light": _theme(LIGHT), "dark": _theme(DARK)}),
        "style": Markup(style),  # noqa: S704  our own file
        "theme_script": Markup(theme),  # noqa: S704  our own file
        "version": __version__,
    }
    # Vega may still be in the making while all the rest is put together. Before the policy and after the script no
    # text of a study stands, so that the first and the last mark are ours.
    before, _, rest = _template().render(**context, policy=_MARK, script=_MARK).partition(_MARK)
    between, _, after = rest.rpartition(_MARK)
    script = _inline(f"{vega()}\n{_asset('page.js')}")
    return "".join((before, escape(_policy(theme, script)), between, script, after))


def _facts(header: Header) -> list[tuple[str, str]]:
    runtime = f"{header.runtime} {header.runtime_version}" if header.runtime else "several, see the table"
    facts = [
        ("board", header.board or "unknown board"),
        ("runtime", runtime),
        ("threads", "several, see the table" if header.threads is None else str(header.threads)),
        ("CPUs", cpu_list(header.cpus) if header.cpus else "several, see the table"),
        ("tier", header.tier),
        ("validation", count(header.image_count, "image")),
        ("measured", header.date or header.job_id),
    ]
    return facts


def _theme(colors: Mapping[str, str]) -> dict[str, Any]:
    return {"colors": dict(colors), "config": vega_config(colors)}


def _script_json(value: Any) -> Markup:
    """JSON that may stand in a script element: no text in it can end that."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)  # noqa: S704  escaped above


def _inline(script: str) -> str:
    """A script that may stand in a script element."""
    return script.replace("</script", "<\\/script").replace("<!--", "\\x3c!--")


def _policy(*scripts: str) -> str:
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _asset(name: str) -> str:
    return files("liteship.report.html").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _template() -> Any:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    return environment.from_string(_asset("page.html.j2"))
