from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from report_samples import (
    FAILURE_REASON,
    make_case,
    make_flip,
    make_job,
    make_manifest,
    make_pruned_manifest,
    make_pruned_report,
    make_report,
)

from liteship.report import checks
from liteship.report.comparison import Comparison, Header, Row
from liteship.report.document import SCHEMA_VERSION, comparison_from_json, render_json
from liteship.report.rows import build_comparison
from liteship.report.schema import argument_texts, make_schema, render_schema
from liteship_agent.report import FailedBlock

PUBLISHED = Path(__file__).parents[2] / f"docs/schema/comparison-{SCHEMA_VERSION}.json"


@pytest.fixture(autouse=True)
def summaries_are_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_figures", lambda report: None)


def whole() -> Comparison:
    manifest = make_manifest()
    flips = (make_flip("none-int8", 1), make_flip("none-int8", 2, against="baseline", cause=None))
    return build_comparison(manifest, make_report(manifest, flips=flips))


def pruned() -> Comparison:
    manifest = make_pruned_manifest()
    return build_comparison(manifest, make_pruned_report(manifest))


def failed() -> Comparison:
    """One case, which failed: no figure of it exists."""
    manifest = make_manifest()
    job = make_job(make_case("none-none"))
    nothing: dict[str, Any] = {"blocks": (), "accuracy": (), "canaries": (), "summaries": (), "refused": ()}
    report = make_report(manifest, job=job, failed=(FailedBlock(0, 0, FAILURE_REASON),), **nothing)
    return build_comparison(manifest, report)


def document(make: Callable[[], Comparison]) -> Any:
    return json.loads(render_json(make()))


def errors(data: Any) -> list[str]:
    validator = Draft202012Validator(json.loads(PUBLISHED.read_text()))
    return [error.json_path for error in validator.iter_errors(data)]


def test_published_schema_is_the_one_that_the_code_makes() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == render_schema(), (
        f"liteship report --schema > docs/schema/{PUBLISHED.name}"
    )


def test_schema_is_one_of_its_draft() -> None:
    Draft202012Validator.check_schema(make_schema())


@pytest.mark.parametrize("make", [whole, pruned, failed])
def test_what_is_written_is_valid(make: Callable[[], Comparison]) -> None:
    assert errors(document(make)) == []


def test_every_field_has_its_description() -> None:
    assert set(argument_texts(Row)) >= {field.name for field in dataclasses.fields(Row)}
    assert set(argument_texts(Header)) >= {field.name for field in dataclasses.fields(Header)}
    assert argument_texts(Row)["gzip_bytes"] == "The file, plain and after gzip at level 9."


@pytest.mark.parametrize(
    ("path", "value", "where"),
    [
        (("schema_version",), 3, "$.schema_version"),
        (("rows",), {}, "$.rows"),
        (("target",), None, "$.target"),
        (("job", "environment"), [], "$.job.environment"),
        (("job", "images_sha256"), "0123", "$.job.images_sha256"),
        (("rows", 0, "median_ns"), "1.5 ms", "$.rows[0].median_ns"),
        (("rows", 0, "size_bytes"), -1, "$.rows[0].size_bytes"),
        (("rows", 0, "size_bytes"), 1.5, "$.rows[0].size_bytes"),
        (("rows", 0, "status"), None, "$.rows[0].status"),
        (("rows", 0, "round_medians_ns", 1), "void", "$.rows[0].round_medians_ns[1]"),
        (("answers", 0, "wrong", 0), -1, "$.answers[0].wrong[0]"),
        (("answers", 0, "confusion", 0), 3, "$.answers[0].confusion[0]"),
        (("keras_models", 0, "name"), 3, "$.keras_models[0].name"),
    ],
)
def test_value_of_another_kind_is_found(path: tuple[Any, ...], value: Any, where: str) -> None:
    data = document(whole)
    holder = data
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    assert errors(data) == [where]


@pytest.mark.parametrize("part", ["", "job", "rows", "answers", "keras_models"])
def test_every_field_is_required(part: str) -> None:
    names = document(whole) if not part else document(whole)[part]
    names = names[0] if isinstance(names, list) else names
    for name in names:
        data = document(whole)
        holder = data[part] if part else data
        del (holder[0] if isinstance(holder, list) else holder)[name]
        assert len(errors(data)) == 1, name


def test_field_that_a_later_version_adds_is_no_mistake() -> None:
    data = document(whole)
    data["rows"][0]["power_watts"] = 3.5
    assert errors(data) == []
    assert comparison_from_json(data, "x") == whole()
