from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liteship_agent import journal

EVENTS = [{"event": "block", "round_index": 0, "label": "kätzchen"}, {"event": "block", "round_index": 1}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def test_journal_that_does_not_exist_has_no_events(path):
    assert list(journal.read(path)) == []


def test_events_are_read_in_the_order_in_which_they_were_added(path):
    for event in EVENTS:
        journal.append(path, event)

    assert list(journal.read(path)) == EVENTS
    assert path.read_bytes().count(b"\n") == 2


@given(st.data())
def test_line_cut_at_any_byte_is_dropped_and_the_next_event_is_whole(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    for event in EVENTS:
        journal.append(path, event)
    first = path.read_bytes().index(b"\n") + 1
    kept = data.draw(st.integers(first, path.stat().st_size - 2))
    os.truncate(path, kept)

    assert list(journal.read(path)) == EVENTS[:1]
    journal.append(path, EVENTS[1])
    assert list(journal.read(path)) == EVENTS


def test_event_that_lacks_only_its_line_end_is_kept(path):
    for event in EVENTS:
        journal.append(path, event)
    os.truncate(path, path.stat().st_size - 1)

    assert list(journal.read(path)) == EVENTS
    journal.append(path, {"event": "log"})
    assert list(journal.read(path)) == [*EVENTS, {"event": "log"}]


@pytest.mark.parametrize("line", [b"\0\0\0\0\n", b"\xff\xfe\n", b"[1, 2]\n", b"3\n", b"\n"])
def test_line_that_is_no_event_is_dropped(path, line):
    path.write_bytes(json.dumps(EVENTS[0]).encode() + b"\n" + line)
    journal.append(path, EVENTS[1])

    assert list(journal.read(path)) == EVENTS


def test_event_is_on_the_disk_before_append_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(path.read_bytes()))

    journal.append(path, {"event": "log"})

    assert synced == [b'{"event": "log"}\n']


def test_number_that_is_not_json_is_refused_before_anything_is_written(path):
    with pytest.raises(ValueError, match="JSON"):
        journal.append(path, {"latency_ns": float("nan")})

    assert not path.exists()


def test_tail_gives_each_event_once_and_waits_for_a_line_that_is_being_written(path):
    tail = journal.Tail(path)
    assert tail.new_events() == []
    journal.append(path, EVENTS[0])
    whole = json.dumps(EVENTS[1]).encode() + b"\n"

    with open(path, "ab") as file:
        file.write(whole[:20])
        file.flush()
        assert tail.new_events() == EVENTS[:1]
        assert tail.new_events() == []
        file.write(whole[20:])

    assert tail.new_events() == EVENTS[1:]
    assert tail.new_events() == []
