from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar, Dict, Mapping, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liteship_agent import records
from liteship_agent.errors import AgentError, RecordError
from liteship_agent.records import dumps, loads, read_record, write_atomic, write_record


@dataclass(frozen=True)
class Part:
    name: str
    size: int


@dataclass(frozen=True)
class Sample:
    SCHEMA_VERSION: ClassVar[int] = 1

    schema_version: int
    title: str
    ratio: float
    ready: bool
    part: Part
    parts: Tuple[Part, ...] = ()
    rows: Tuple[Tuple[float, ...], ...] = ()
    counts: Tuple[int, ...] = ()
    names: Tuple[str, ...] = ()
    limits: Mapping[str, float] = field(default_factory=dict)
    note: Optional[str] = None
    anything: Any = None
    extra: Dict[str, Any] = field(default_factory=dict)


SAMPLE = Sample(1, "first", 0.5, True, Part("a", 3))
OBJECT = json.loads(dumps(SAMPLE))

texts = st.text(st.characters(codec="utf-8"))
finite = st.floats(allow_nan=False, allow_infinity=False)
parts = st.builds(Part, texts, st.integers())
samples = st.builds(
    Sample,
    st.just(1),
    *(texts, finite, st.booleans(), parts),
    parts=st.lists(parts, max_size=3).map(tuple),
    rows=st.lists(st.lists(finite, max_size=3).map(tuple), max_size=3).map(tuple),
    counts=st.lists(st.integers()).map(tuple),
    names=st.lists(texts).map(tuple),
    limits=st.dictionaries(texts, finite, max_size=3),
    note=st.none() | texts,
    extra=st.dictionaries(texts.map(lambda name: f"later {name}"), st.none() | texts | st.integers(), max_size=3),
)


def read(**changes):
    return loads(Sample, json.dumps({**OBJECT, **changes}).encode(), "sample.json")


@settings(deadline=None)
@given(samples)
def test_a_record_reads_back_equal_and_its_bytes_do_not_change(sample):
    data = dumps(sample)

    again = loads(Sample, data, "sample.json")

    assert again == sample
    assert dumps(again) == data


def test_equal_records_have_equal_bytes_whatever_the_order_of_their_keys():
    one = Sample(1, "t", 1.0, False, Part("a", 1), limits={"a": 1.0, "b": 2.0}, extra={"x": 1, "y": 2})
    other = Sample(1, "t", 1.0, False, Part("a", 1), limits={"b": 2.0, "a": 1.0}, extra={"y": 2, "x": 1})

    assert dumps(one) == dumps(other)


def test_a_field_of_a_later_version_is_kept_and_written_back():
    sample = read(later={"a": [1, None]})

    assert sample.extra == {"later": {"a": [1, None]}}
    assert json.loads(dumps(sample)) == {**OBJECT, "later": {"a": [1, None]}}


def test_a_missing_field_takes_its_default_or_is_refused():
    assert read().parts == ()
    with pytest.raises(RecordError, match=r"^sample.json: title: this field is required\. Received: nothing$"):
        loads(Sample, json.dumps({k: v for k, v in OBJECT.items() if k != "title"}).encode(), "sample.json")


@pytest.mark.parametrize(
    ("changes", "where", "required", "received"),
    [
        ({"schema_version": 2}, "schema_version", "schema_version 1", "2"),
        ({"schema_version": None}, "schema_version", "schema_version 1", "null"),
        ({"schema_version": True}, "schema_version", "an integer", "true"),
        ({"title": 5}, "title", "a string", "5"),
        ({"title": None}, "title", "a string", "null"),
        ({"ratio": "0.5"}, "ratio", "a number", '"0.5"'),
        ({"ratio": True}, "ratio", "a number", "true"),
        ({"ready": 1}, "ready", "true or false", "1"),
        ({"part": []}, "part", "an object", "[]"),
        ({"part": {"name": "a"}}, "part.size", "this field", "nothing"),
        ({"part": {"name": "a", "size": 1.0}}, "part.size", "an integer", "1.0"),
        ({"parts": {}}, "parts", "a list", "{}"),
        ({"parts": [{"name": "a", "size": 1}, None]}, "parts[1]", "an object", "null"),
        ({"rows": [[0.5], [0.5, "x"]]}, "rows[1][1]", "a number", '"x"'),
        ({"counts": [1, True]}, "counts[1]", "an integer", "true"),
        ({"counts": [1, 1.0]}, "counts[1]", "an integer", "1.0"),
        ({"names": ["a", 1]}, "names[1]", "a string", "1"),
        ({"rows": [[True]]}, "rows[0][0]", "a number", "true"),
        ({"limits": {"a": [1]}}, "limits.a", "a number", "[1]"),
        ({"note": 0}, "note", "a string", "0"),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_field(changes, where, required, received):
    with pytest.raises(RecordError) as raised:
        read(**changes)

    error = raised.value
    assert (error.source, error.field, error.required, error.received) == ("sample.json", where, required, received)
    assert str(error) == f"sample.json: {where}: {required} is required. Received: {received}"
    assert isinstance(error, AgentError)


def test_a_whole_number_is_read_as_the_float_it_stands_for():
    ratio = read(ratio=1).ratio

    assert (ratio, type(ratio)) == (1.0, float)
    assert [type(number) for number in read(rows=[[1, 2.5]]).rows[0]] == [float, float]


def test_a_number_beyond_the_finite_is_refused_in_a_list_too():
    data = {**OBJECT, "rows": [[0.5, float("inf")]]}

    with pytest.raises(RecordError, match=r"rows\[0\]\[1\]: a finite number"):
        records.from_json(Sample, data, "sample.json")


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(RecordError) as raised:
        read(ratio="x" * 10_000)

    assert len(str(raised.value)) < 120
    assert raised.value.received.endswith("...")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"1", b"null", b"\xff\xfe", b"\xef\xbb\xbf{}", b'{"a": NaN}', b"{}{}"]
)
def test_what_is_not_one_json_object_is_refused(data):
    with pytest.raises(RecordError, match=r"^sample\.json: "):
        loads(Sample, data, "sample.json")


@pytest.mark.parametrize("field_name", ["ratio", "anything", "later"])
@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "1" + "0" * 400, '"\\ud800"', "[" * 65 + "]" * 65])
@pytest.mark.parametrize("holder", ["{}", "[0, {}]", "[[1.5, 2], [{}, 1]]"])
def test_what_could_not_be_written_again_is_refused(field_name, text, holder):
    text = holder.format(text)
    rest = json.dumps({key: value for key, value in OBJECT.items() if key != field_name})

    with pytest.raises(RecordError):
        loads(Sample, f'{{"{field_name}": {text}, {rest[1:]}'.encode(), "sample.json")


def test_a_surrogate_pair_is_the_one_letter_it_stands_for():
    assert read(title="\N{CAT FACE}").title == "\N{CAT FACE}"
    assert "\\ud83d" in json.dumps("\N{CAT FACE}")


def test_a_number_that_json_does_not_have_is_not_written():
    with pytest.raises(ValueError, match="Out of range"):
        dumps(Sample(1, "t", float("nan"), True, Part("a", 1)))


def test_read_record_names_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(RecordError, match="No such file") as raised:
        read_record(Sample, tmp_path / "absent.json")
    assert raised.value.source == str(tmp_path / "absent.json")

    with pytest.raises(RecordError, match="directory"):
        read_record(Sample, tmp_path)


def test_write_record_makes_its_folder_and_reads_back(tmp_path):
    path = tmp_path / "jobs" / "first" / "job.json"

    write_record(SAMPLE, path)

    assert read_record(Sample, path) == SAMPLE
    assert path.read_bytes() == dumps(SAMPLE)
    assert os.listdir(path.parent) == ["job.json"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, broken):
    path = tmp_path / "report.json"
    path.write_bytes(b"old")

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(records.os, broken, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")

    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_bytes_are_on_the_disk_before_the_file_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        original = getattr(os, name)
        monkeypatch.setattr(records.os, name, lambda *a, n=name, f=original: (calls.append(n), f(*a))[1])

    write_atomic(tmp_path / "report.json", b"new")

    assert calls == ["fsync", "replace", "fsync"]
