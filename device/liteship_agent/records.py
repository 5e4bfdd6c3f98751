"""Frozen dataclasses to and from JSON: strict when reading, atomic when writing.

Reading checks every field against its annotation and names the file and the field of the first mistake. Fields that
this version does not know are kept in `extra` and written back, so that an older host does not lose what a newer one
wrote. A record that is written has a name only once all its bytes are on the disk.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import types
import typing
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Dict, Iterator, Mapping, Tuple, Type, TypeVar, Union

from liteship_agent.errors import RecordError

Record = TypeVar("Record")
_MAX_DEPTH = 64
_NUMBERS = {int, float}
_UNION_TYPES = tuple(t for t in (Union, getattr(types, "UnionType", None)) if t is not None)


def to_json(record: Any) -> Dict[str, Any]:
    """The JSON object of a dataclass record; fields of `extra` stand beside the known ones."""
    out: Dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name == "extra":
            out.update(value)
        else:
            out[field.name] = _encode(value)
    return out


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_json(value)
    if isinstance(value, (list, tuple)):
        return [_encode(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _encode(item) for key, item in value.items()}
    return value


def dumps(record: Any) -> bytes:
    """UTF-8 JSON with sorted keys, so that equal records have equal bytes and so equal sha256."""
    return (json.dumps(to_json(record), sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def loads(cls: Type[Record], data: bytes, source: str) -> Record:
    """Read one record.

    Args:
        cls: A frozen dataclass.
        data: UTF-8 JSON text of one object.
        source: Name for error messages, usually the file.
    Raises:
        RecordError: not JSON, another schema version, a missing field or a value of the wrong kind.
    """
    return from_json(cls, parse_json(data, source), source)


def parse_json(data: bytes, source: str) -> Any:
    """JSON text to Python objects, only such as `dumps` can write again.

    Raises:
        RecordError: the text is not JSON, holds NaN, Infinity, a number beyond double precision or half a surrogate
            pair, or is nested more than 64 deep.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        value = json.loads(data.decode("utf-8"), parse_constant=refuse)
        _require_writable(value)
    except (ValueError, RecursionError) as exc:
        raise RecordError(source, "", "a JSON object", f"{len(data)} bytes that are not one ({exc})") from exc
    return value


def _require_writable(value: Any) -> None:
    """Raise ValueError for what JSON text can say and `dumps` cannot: 1e999, or half a surrogate pair."""
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            item.encode()
        elif isinstance(item, (int, float)):
            _require_double(item)
        elif isinstance(item, (dict, list)):
            if depth == _MAX_DEPTH:
                raise ValueError(f"nested more than {_MAX_DEPTH} deep")
            children = [*item, *item.values()] if isinstance(item, dict) else item
            if children and set(map(type, children)) <= _NUMBERS:  # latencies and scores: nearly all of a report
                _require_double(min(children))
                _require_double(max(children))
            else:
                pending.extend((child, depth + 1) for child in children)


def _require_double(number: float) -> None:
    if abs(number) > sys.float_info.max:
        raise ValueError("a number beyond double precision")


def from_json(cls: Type[Record], data: Any, source: str, path: str = "") -> Record:
    """A record from parsed JSON; see `loads`."""
    if not isinstance(data, dict):
        raise RecordError(source, path, "an object", _describe(data))
    expected = getattr(cls, "SCHEMA_VERSION", None)
    if expected is not None and data.get("schema_version") != expected:
        raise RecordError(
            source, _join(path, "schema_version"), f"schema_version {expected}", _describe(data.get("schema_version"))
        )
    hints = _hints(cls)  # type: ignore[arg-type]
    known: Dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name == "extra":
            continue
        where = _join(path, field.name)
        if field.name in data:
            known[field.name] = _decode(hints[field.name], data[field.name], source, where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(source, where, "this field", "nothing")
    if "extra" in hints:
        known["extra"] = {key: value for key, value in data.items() if key not in known}
    return cls(**known)


@lru_cache(maxsize=None)
def _hints(cls: Any) -> Dict[str, Any]:
    """The resolved annotation of each field."""
    return typing.get_type_hints(cls)


def _decode(hint: Any, value: Any, source: str, path: str) -> Any:
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return value
    if origin in _UNION_TYPES:
        if value is None and type(None) in arguments:
            return None
        (inner,) = [item for item in arguments if item is not type(None)]
        return _decode(inner, value, source, path)
    if dataclasses.is_dataclass(hint):
        return from_json(typing.cast(type, hint), value, source, path)
    if origin is tuple:
        if not isinstance(value, list):
            raise RecordError(source, path, "a list", _describe(value))
        if set(map(type, value)) == {arguments[0]} and (arguments[0] is not float or all(map(math.isfinite, value))):
            return tuple(value)  # latencies and scores: nearly all of a report
        return tuple(_decode(arguments[0], item, source, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, typing.cast(type, typing.get_origin(Mapping[str, Any]))):
        if not isinstance(value, dict):
            raise RecordError(source, path, "an object", _describe(value))
        return {key: _decode(arguments[1], item, source, _join(path, key)) for key, item in value.items()}
    return _decode_scalar(hint, value, source, path)


def _decode_scalar(hint: Any, value: Any, source: str, path: str) -> Any:
    kinds: Dict[Any, Tuple[str, Tuple[type, ...]]] = {
        int: ("an integer", (int,)),
        float: ("a number", (int, float)),
        str: ("a string", (str,)),
        bool: ("true or false", (bool,)),
    }
    name, accepted = kinds[hint]
    if not isinstance(value, accepted) or (hint is not bool and isinstance(value, bool)):
        raise RecordError(source, path, name, _describe(value))
    if hint is float:
        number = float(typing.cast(float, value))
        if not math.isfinite(number):
            raise RecordError(source, path, "a finite number", _describe(value))
        return number
    return value


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _describe(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def read_record(cls: Type[Record], path: Path) -> Record:
    """Read one record from a file; see `loads`.

    Raises:
        RecordError: the file cannot be read, or its content is not such a record.
    """
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise RecordError(str(path), "", "a readable file", exc.strerror or str(exc)) from exc
    return loads(cls, data, str(path))


def write_record(record: Any, path: Path) -> None:
    """Write one record so that the name holds either the old bytes or all the new ones."""
    write_atomic(path, dumps(record))


def write_atomic(path: Path, data: bytes) -> None:
    """Write beside the file, fsync, rename, fsync the folder."""
    with atomic_file(path) as file:
        file.write(data)


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that gets its name, on the disk, only when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
