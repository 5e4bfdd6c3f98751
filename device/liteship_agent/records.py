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
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Iterator, Mapping, Tuple, Type, TypeVar, Union

from liteship_agent.errors import RecordError

Record = TypeVar("Record")
_Decoder = Callable[[Any], Any]
_MAX_DEPTH = 64
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
        text = data.decode("utf-8")
        value = json.loads(text, parse_constant=refuse)
        _require_writable(value, has_surrogates="\\ud" in text or "\\uD" in text)
    except (ValueError, RecursionError) as exc:
        raise RecordError(source, "", "a JSON object", f"{len(data)} bytes that are not one ({exc})") from exc
    return value


def _require_writable(value: Any, has_surrogates: bool) -> None:
    """Raise ValueError for what JSON text can say and `dumps` cannot: 1e999, or half a surrogate pair.

    Most of a report is long lists of one kind: each is looked at as a whole, and what is in lists of lists or of
    objects as if it stood in one.
    """
    pending = [(value, 0)]
    while pending:
        item, depth = pending.pop()
        if isinstance(item, str):
            if has_surrogates:
                item.encode()
        elif isinstance(item, (int, float)):
            _require_double(item)
        elif isinstance(item, (dict, list)):
            if depth == _MAX_DEPTH:
                raise ValueError(f"nested more than {_MAX_DEPTH} deep")
            children = [*item, *item.values()] if isinstance(item, dict) else item
            if _are_numbers(children):
                _require_double(min(children, default=0))
                _require_double(max(children, default=0))
                continue
            kinds = set(map(type, children))
            if kinds == {list}:
                pending.append((list(chain.from_iterable(children)), depth + 1))
            elif kinds == {dict}:
                names = list(chain.from_iterable(children))
                pending.append((names + [inner for child in children for inner in child.values()], depth + 1))
            elif kinds != {str} or has_surrogates:
                pending.extend((child, depth + 1) for child in children)


def _are_numbers(children: Any) -> bool:
    """Whether a list holds nothing else; a sum finds out in a tenth of the time that looking at each kind takes."""
    try:
        sum(children)
    except (TypeError, OverflowError):
        return False
    return True


def _require_double(number: float) -> None:
    if abs(number) > sys.float_info.max:
        raise ValueError("a number beyond double precision")


class _WrongValueError(Exception):
    """A value that its field does not take; knows where it is only once it has left all that is around it."""

    def __init__(self, required: str, received: str, path: str = "") -> None:
        super().__init__(required, received, path)
        self.required = required
        self.received = received
        self.path = path

    def inside(self, name: str) -> _WrongValueError:
        """The same, seen from what holds it under a name or an index in brackets."""
        return _WrongValueError(self.required, self.received, _join(name, self.path))


def from_json(cls: Type[Record], data: Any, source: str, path: str = "") -> Record:
    """A record from parsed JSON; see `loads`."""
    try:
        return typing.cast(Record, _record_decoder(typing.cast(Any, cls))(data))
    except _WrongValueError as exc:
        raise RecordError(source, _join(path, exc.path), exc.required, exc.received) from exc


@cache
def _record_decoder(cls: Any) -> _Decoder:
    """What makes a record of a class from a JSON object; made once, because a report holds thousands of some."""
    hints = typing.get_type_hints(cls)
    fields = [
        (
            field.name,
            _decoder(hints[field.name]),
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING,
        )
        for field in dataclasses.fields(cls)
        if field.name != "extra"
    ]
    version = getattr(cls, "SCHEMA_VERSION", None)

    def decode(data: Any) -> Any:
        if not isinstance(data, dict):
            raise _WrongValueError("an object", _describe(data))
        if version is not None and data.get("schema_version") != version:
            received = _describe(data.get("schema_version"))
            raise _WrongValueError(f"schema_version {version}", received, "schema_version")
        known: Dict[str, Any] = {}
        for name, decode_field, is_required in fields:
            if name in data:
                try:
                    known[name] = decode_field(data[name])
                except _WrongValueError as exc:
                    raise exc.inside(name) from None
            elif is_required:
                raise _WrongValueError("this field", "nothing", name)
        if "extra" in hints:
            known["extra"] = {key: value for key, value in data.items() if key not in known}
        return cls(**known)

    return decode


@cache
def _decoder(hint: Any) -> _Decoder:
    """What checks a value against an annotation and makes what the record holds."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if hint is Any:
        return lambda value: value
    if origin in _UNION_TYPES:
        (inner,) = [item for item in arguments if item is not type(None)]
        return _optional_decoder(_decoder(inner)) if type(None) in arguments else _decoder(inner)
    if dataclasses.is_dataclass(hint):
        return _record_decoder(typing.cast(Any, hint))
    if origin is tuple:
        return _list_decoder(arguments[0])
    if origin is not None and issubclass(origin, typing.cast(type, typing.get_origin(Mapping[str, Any]))):
        return _object_decoder(_decoder(arguments[1]))
    return _scalar_decoder(hint)


def _optional_decoder(inner: _Decoder) -> _Decoder:
    return lambda value: None if value is None else inner(value)


def _list_decoder(hint: Any) -> _Decoder:
    inner, kind = _decoder(hint), {hint}

    def decode(value: Any) -> Any:
        if not isinstance(value, list):
            raise _WrongValueError("a list", _describe(value))
        if set(map(type, value)) == kind and (hint is not float or all(map(math.isfinite, value))):
            return tuple(value)  # latencies and scores: nearly all of a report
        items = []
        for item in value:
            try:
                items.append(inner(item))
            except _WrongValueError as exc:
                raise exc.inside(f"[{len(items)}]") from None
        return tuple(items)

    return decode


def _object_decoder(inner: _Decoder) -> _Decoder:
    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _WrongValueError("an object", _describe(value))
        items = {}
        for key, item in value.items():
            try:
                items[key] = inner(item)
            except _WrongValueError as exc:
                raise exc.inside(key) from None
        return items

    return decode


def _scalar_decoder(hint: Any) -> _Decoder:
    kinds: Dict[Any, Tuple[str, Tuple[type, ...]]] = {
        int: ("an integer", (int,)),
        float: ("a number", (int, float)),
        str: ("a string", (str,)),
        bool: ("true or false", (bool,)),
    }
    name, accepted = kinds[hint]

    def decode(value: Any) -> Any:
        if not isinstance(value, accepted) or (hint is not bool and isinstance(value, bool)):
            raise _WrongValueError(name, _describe(value))
        if hint is float:
            number = float(typing.cast(float, value))
            if not math.isfinite(number):
                raise _WrongValueError("a finite number", _describe(value))
            return number
        return value

    return decode


def _join(path: str, name: str) -> str:
    return path + name if name.startswith("[") or not path or not name else f"{path}.{name}"


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
