"""The JSON schema of a comparison document, made from the dataclasses that it consists of.

Types come from their annotations and descriptions from the Args of their docstrings, so that neither is written twice.
`docs/schema/` holds what this makes. A document of the same version may have fields that the schema does not name.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from liteship.report.accuracy import Answers, FlippedImage
from liteship.report.comparison import Header, Row
from liteship.report.document import SCHEMA_VERSION
from liteship.report.sections import KerasLine

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_RECORDS = (Header, Row, Answers, FlippedImage, KerasLine)
_SCALARS: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}
_TITLES = {Header: "job"}
# An argument of a docstring: its names, then its text with the lines that are indented more.
_ARGUMENT = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {5,}.*)*)", re.MULTILINE)


def render_schema() -> str:
    """The schema as JSON text, draft 2020-12, of what `document.render_json` writes."""
    return json.dumps(make_schema(), indent=2, ensure_ascii=False) + "\n"


def make_schema() -> dict[str, Any]:
    """The schema as an object."""
    properties = {
        "schema_version": {"const": SCHEMA_VERSION, "description": "Raised whenever a reader of it has to change."},
        "target": {"type": "string", "description": "Name of the machine in the inventory, loopback or emulated."},
        "caption": {
            "type": ["string", "null"],
            "description": "What a target that is no board says about its figures.",
        },
        "job": _reference(Header),
        "rows": _list_of(Row, "In the order of the study; a row for each artefact and way of running it."),
        "answers": _list_of(Answers, "A part for each artefact and runtime that classified the images."),
        "keras_models": _list_of(KerasLine, "The models that the artefacts were converted from."),
    }
    return {
        "$schema": _DIALECT,
        "title": f"liteship comparison, schema {SCHEMA_VERSION}",
        "description": "What liteship report --format json writes. null is a figure that does not exist.",
        **_object(properties),
        "$defs": {_name(record): _record(record) for record in _RECORDS},
    }


def _record(record: type[Any]) -> dict[str, Any]:
    """The schema of a dataclass; the target of a header stands beside it, not in it."""
    hints, texts = typing.get_type_hints(record), argument_texts(record)
    names = [field.name for field in dataclasses.fields(record) if (record, field.name) != (Header, "target")]
    properties = {name: _described(_type(hints[name], name), texts.get(name)) for name in names}
    summary = inspect.cleandoc(record.__doc__ or "").partition("\n\n")[0]
    return {"description": _one_line(summary), **_object(properties)}


def argument_texts(record: type[Any]) -> dict[str, str]:
    """The description of each field, as the Args of the docstring tell it; several names may share one."""
    arguments = inspect.cleandoc(record.__doc__ or "").partition("Args:\n")[2]
    found = [(names, _one_line(text)) for names, text in _ARGUMENT.findall(arguments)]
    return {name: text for names, text in found for name in names.split(", ")}


def _type(hint: Any, name: str) -> dict[str, Any]:
    """The schema of an annotation.

    Args:
        hint: Resolved.
        name: Of the field: its unit tells which values are possible.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        (inner,) = [item for item in arguments if item is not type(None)]
        schema = _type(inner, name)
        return (
            {**schema, "type": [schema["type"], "null"]} if "type" in schema else {"anyOf": [schema, {"type": "null"}]}
        )
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], name)}
    if origin is Mapping or origin is typing.get_origin(Mapping[str, Any]):
        return {"type": "object"}
    if dataclasses.is_dataclass(hint):
        return {"$ref": f"#/$defs/{_name(typing.cast(type[Any], hint))}"}
    return {"type": _SCALARS[hint], **_range(hint, name)}


def _range(hint: type, name: str) -> dict[str, Any]:
    """What a unit allows: hashes are 64 hex digits; sizes, times and counts are not below 0."""
    if hint is str:
        return {"pattern": "^[0-9a-f]{64}$"} if name == "sha256" or name.endswith("_sha256") else {}
    is_amount = hint is int or (hint is float and name.endswith("_ns"))
    return {"minimum": 0} if is_amount else {}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    """An object that has all of its fields: those without a figure are null."""
    return {"type": "object", "required": list(properties), "properties": dict(properties)}


def _list_of(record: type[Any], text: str) -> dict[str, Any]:
    return {"type": "array", "description": text, "items": _reference(record)}


def _reference(record: type[Any]) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{_name(record)}"}


def _name(record: type[Any]) -> str:
    return _TITLES.get(record, record.__name__)


def _described(schema: dict[str, Any], text: str | None) -> dict[str, Any]:
    return schema if text is None else {**schema, "description": text}


def _one_line(text: str) -> str:
    return " ".join(text.split())
