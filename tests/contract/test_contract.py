"""What one version wrote, the next ones still read or refuse by its number: JSON of every schema version, and JSON that
means harm.

The files under golden/ are never written again; a new schema version adds new ones.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liteship.errors import DataError
from liteship.manifests import read_manifest
from liteship.report.rows import build_comparison
from liteship_agent.errors import RecordError
from liteship_agent.job import Case, Job, Limits
from liteship_agent.manifest import InputContract, KerasModel, Manifest, OutputContract
from liteship_agent.records import dumps, loads
from liteship_agent.report import Block, Canary, Flip, Report, Sample

GOLDEN = Path(__file__).parent / "golden"
RECORDS = {"manifest-3.json": Manifest, "job-2.json": Job, "report-2.json": Report}
OLD_RECORDS = {
    "manifest-1.json": Manifest,
    "manifest-2.json": Manifest,
    "job-1.json": Job,
    "report-1.json": Report,
}
OBJECTS = {cls: json.loads((GOLDEN / name).read_text(encoding="utf-8")) for name, cls in RECORDS.items()}

records = pytest.mark.parametrize("cls", list(OBJECTS), ids=lambda cls: cls.__name__)
# What JSON can say and our records do not mean: huge numbers, lone surrogates, names of fields in wrong places.
numbers = st.one_of(st.integers(), st.just(10**400), st.floats(allow_nan=False), st.just(-1), st.just(0))
texts = st.one_of(
    st.text(st.characters(codec=None)), st.sampled_from(["", "extra", "schema_version", "\ud800", "../x"])
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


def paths(value, path=()):
    """Where something can be replaced: each key and index of a JSON object, however deep."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths(item, (*path, key))


def defaults(cls):
    """Names of a record's fields that have a default."""
    none = dataclasses.MISSING
    return {field.name for field in dataclasses.fields(cls) if (field.default, field.default_factory) != (none, none)}


# Fields whose keys are free, and the golden files' fields of a later version; fields with a default.
FREE = {"environment", "sensors", "runtimes", "stages_ns", "tolerance", "versions"}
LATER = {"later", "note", "pixels"}
OPTIONAL = set().union(
    *map(defaults, (InputContract, OutputContract, KerasModel, Case, Limits, Job, Sample, Block, Canary, Flip, Report))
)
PATHS = {cls: list(paths(value)) for cls, value in OBJECTS.items()}


def replaced(value, path, new):
    """A copy of a JSON value with one item replaced; `...` removes it."""
    changed = copy.deepcopy(value)
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    if new is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = new
    return changed


def read_or_refuse(cls, data):
    """Bytes are refused with RecordError, or are a record that can be written and read again."""
    try:
        record = loads(cls, data, "hostile.json")
    except RecordError:
        return
    assert loads(cls, dumps(record), "again.json") == record


@pytest.mark.parametrize(("name", "cls"), RECORDS.items())
def test_a_golden_file_reads_and_is_written_back_byte_for_byte(name, cls):
    data = (GOLDEN / name).read_bytes()

    record = loads(cls, data, name)

    assert dumps(record) == data
    assert name == f"{cls.__name__.lower()}-{record.schema_version}.json"


def test_every_schema_version_has_its_golden_file():
    for cls in RECORDS.values():
        for version in range(1, cls.SCHEMA_VERSION + 1):
            assert (GOLDEN / f"{cls.__name__.lower()}-{version}.json").exists()


def test_the_golden_report_still_gives_the_rows_it_gave():
    manifest = loads(Manifest, (GOLDEN / "manifest-3.json").read_bytes(), "manifest-3.json")
    report = loads(Report, (GOLDEN / "report-2.json").read_bytes(), "report-2.json")
    report = dataclasses.replace(report, manifest_sha256=manifest.sha256())  # of an older schema version there

    comparison = build_comparison(manifest, report)
    rows = {row.variant: row for row in comparison.rows}

    assert {variant: row.status for variant, row in rows.items()} == {
        "none-none": "forced, repeated",
        "magnitude50-int8": "forced, parity failed: accuracy drops by 2.4 points (2.0 allowed); 93.4 % equal answers",
        "latency90-none": "refused: FULLY_CONNECTED version 12 is not in tflite-runtime 2.14.0; take a LiteRT runtime",
        "latency90-none-twin": "not run",
        "mine": "forced, failed: the process was ended by SIGKILL",
        "magnitude75-int8": "failed: conversion: representative images hold a NaN",
    }
    baseline = rows["none-none"]
    assert (baseline.median_ns, baseline.repeated, baseline.target_correct) == (1_545_000, 1, 3)
    assert (baseline.peak_core, baseline.parameters) == ("a Cortex-A76", 2_259_265)
    assert (rows["magnitude50-int8"].validity, rows["magnitude50-int8"].threads) == ("unknown", 4)
    assert (rows["magnitude50-int8"].flips_host_kernels, rows["magnitude50-int8"].flips_baseline) == (1, 1)
    assert (rows["mine"].runtime, rows["mine"].cpus, rows["mine"].keras_model) == ("tflite-runtime", (0, 2), None)
    assert comparison.header.problems == ("72 °C is too hot to start",)
    assert comparison.header.pixels_different == 1


@pytest.mark.parametrize(("name", "cls"), OLD_RECORDS.items())
def test_a_golden_file_of_an_older_version_is_refused_by_its_number(name, cls):
    with pytest.raises(
        RecordError, match=rf"schema_version {cls.SCHEMA_VERSION} is required\. Received: \d$"
    ) as raised:
        loads(cls, (GOLDEN / name).read_bytes(), name)

    assert (raised.value.source, raised.value.field) == (name, "schema_version")


def test_a_manifest_of_schema_1_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "manifest.json").write_bytes((GOLDEN / "manifest-1.json").read_bytes())

    with pytest.raises(DataError) as raised:
        read_manifest(tmp_path)

    assert str(raised.value).startswith(f"{tmp_path / 'manifest.json'}: schema_version: schema_version 3 is required")
    assert str(raised.value).endswith("Received: 1. Run the recipe again.")
    assert raised.value.exit_code == 2


@records
def test_another_schema_version_is_refused_by_its_number(cls):
    known, other = cls.SCHEMA_VERSION, cls.SCHEMA_VERSION + 1
    data = json.dumps({**OBJECTS[cls], "schema_version": other}).encode()

    with pytest.raises(RecordError, match=rf"schema_version {known} is required\. Received: {other}") as raised:
        loads(cls, data, "file.json")

    assert raised.value.field == "schema_version"


@records
def test_a_missing_field_is_named(cls):
    named = [path for path in PATHS[cls] if isinstance(path[-1], str) and path[-1] not in OPTIONAL]
    required = [path for path in named if not FREE & set(path[:-1]) and not LATER & set(path)]
    assert len(required) > 10

    for path in required:
        with pytest.raises(RecordError) as raised:
            loads(cls, json.dumps(replaced(OBJECTS[cls], path, ...)).encode(), "file.json")
        assert raised.value.field.split(".")[-1] == path[-1]


@records
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_one_hostile_value_anywhere_is_refused_or_kept_whole(cls, data):
    path = data.draw(st.sampled_from(PATHS[cls]))
    new = data.draw(st.one_of(values, st.just(...)))

    read_or_refuse(cls, json.dumps(replaced(OBJECTS[cls], path, new)).encode())


@records
@settings(deadline=None, max_examples=50)
@given(new=st.dictionaries(texts, values, max_size=4))
def test_hostile_fields_beside_the_known_ones_are_refused_or_kept_whole(cls, new):
    read_or_refuse(cls, json.dumps({**new, **OBJECTS[cls]}).encode())


@records
@settings(deadline=None, max_examples=50)
@given(data=st.one_of(st.binary(max_size=40), values.map(lambda value: json.dumps(value).encode())))
def test_anything_else_is_refused(cls, data):
    with pytest.raises(RecordError):
        loads(cls, data, "hostile.json")


@records
@pytest.mark.parametrize(
    "text",
    [
        *("NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud800"', '{"\\udfff": 1}'),
        *(pytest.param("[" * depth + "]" * depth, id=f"{depth} lists") for depth in (100, 400, 900, 100_000)),
        *(
            pytest.param('{"a":' * depth + "1" + "}" * depth, id=f"{depth} objects")
            for depth in (100, 400, 900, 100_000)
        ),
    ],
)
@pytest.mark.parametrize("field", ["schema_version", "unknown", "environment", "tier"])
def test_what_json_can_write_and_a_record_cannot_hold_is_refused_or_kept_whole(cls, text, field):
    rest = {key: value for key, value in OBJECTS[cls].items() if key != field}

    read_or_refuse(cls, f'{{"{field}": {text}, {json.dumps(rest)[1:]}'.encode())


@records
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_cut_or_flipped_file_is_refused_or_kept_whole(cls, data):
    whole = dumps(loads(cls, json.dumps(OBJECTS[cls]).encode(), "file.json"))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = data.draw(st.sampled_from([whole[:at], whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]]))

    read_or_refuse(cls, damaged)
