"""A comparison as a JSON file: what `--format json` prints, and what verdicts and gates read again.

It holds everything that they need, so that it can be kept without the study and the raw report that it was made from.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from liteship.built_in import CAPTIONS
from liteship.report.accuracy import Answers
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.document_checks import check_comparison
from liteship.report.sections import keras_lines
from liteship_agent.errors import RecordError
from liteship_agent.records import from_json

SCHEMA_VERSION = 4


def render_json(comparison: Comparison) -> str:
    """One object: schema_version, target, caption, job (the other fields of `Header`), rows (the fields of `Row`),
    answers (the fields of `Answers`: confusion matrices and flips), keras_models (the fields of `KerasLine`).
    """
    job = dataclasses.asdict(comparison.header)
    document: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "target": job.pop("target"),
        "caption": CAPTIONS.get(comparison.header.target),
        "job": job,
        "rows": [dataclasses.asdict(row) for row in comparison.rows],
        "answers": [dataclasses.asdict(answers) for answers in comparison.answers],
        "keras_models": [dataclasses.asdict(line) for line in keras_lines(comparison.rows)],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def comparison_from_json(data: Any, source: str) -> Comparison:
    """A comparison from the object of its document.

    Args:
        data: Parsed JSON.
        source: Name for error messages, usually the file.

    Raises:
        RecordError: it is of another schema, a field is missing or of another kind, or its figures cannot be true
            (`document_checks`).
    """
    if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
        found = data.get("schema_version") if isinstance(data, dict) else type(data).__name__
        raise RecordError(source, "schema_version", f"a comparison of schema_version {SCHEMA_VERSION}", str(found))
    job = data.get("job")
    if not isinstance(job, dict):
        raise RecordError(source, "job", "an object", str(job)[:60])
    comparison = Comparison(
        header=from_json(Header, {"target": data.get("target"), **job}, source, "job"),
        rows=_listed(Row, data, "rows", source),
        answers=_listed(Answers, data, "answers", source),
    )
    check_comparison(comparison, source)
    return comparison


def _listed(cls: type[Any], data: dict[str, Any], name: str, source: str) -> tuple[Any, ...]:
    items = data.get(name)
    if not isinstance(items, list):
        raise RecordError(source, name, "a list", str(items)[:60])
    return tuple(from_json(cls, item, source, f"{name}[{index}]") for index, item in enumerate(items))
